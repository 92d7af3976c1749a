/* check_set.c - set-full: what became of each element.
 *
 * Elements are sorted by (set, value), reads by (set, call). Two passes over the reads in that
 * order: the first finds when each element became known; the second remembers, for each element,
 * the last read that began after that and showed it, and the last one that did not. To find those
 * that are missing in a read, all elements of its set are walked, with a mark on those it showed:
 * that is the adds x reads of the bound.
 *
 * Invariants: an element's absent and present are reads that began after it was known.
 */
#include "sim/check_set.h"

#include <stdlib.h>

#define NONE UINT64_MAX

struct element {
    uint64_t key, value;
    const struct bns_set_op *add;
    uint64_t known;           /* position from which on reads must show it; NONE: not yet */
    uint64_t present, absent; /* calls of reads: the last that showed it, that did not; NONE */
    size_t mark;              /* 1 + the number of the last read that showed it */
};

struct check {
    const struct bns_check_cfg *cfg;
    struct bns_verdict *v;
    struct element *els;
    size_t els_count;
    const struct bns_set_op **reads;
    size_t reads_count;
};

static int by_key_value(const void *a, const void *b)
{
    const struct element *x = a;
    const struct element *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->value > y->value) - (x->value < y->value);
}

static int by_call(const void *a, const void *b)
{
    const struct bns_set_op *x = *(const struct bns_set_op *const *)a;
    const struct bns_set_op *y = *(const struct bns_set_op *const *)b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->call > y->call) - (x->call < y->call);
}

static unsigned long long line(uint64_t call)
{
    return (unsigned long long)call + 1;
}

static struct bns_check_name name(const struct check *c, uint64_t id)
{
    return bns_check_name(c->cfg, id);
}

static int sort_out(struct check *c, const struct bns_set_op *ops, size_t count)
{
    c->els = bns_check_array(c->cfg->alloc, count, sizeof *c->els);
    c->reads = bns_check_array(c->cfg->alloc, count, sizeof *c->reads);
    if (c->els == NULL || c->reads == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < count; i++) {
        const struct bns_set_op *op = &ops[i];
        if (op->end == BNS_CHECK_OK && op->ret <= op->call)
            return bns_verdict_senseless(c->v, "line %llu ended before it began", line(op->call));
        if (op->add)
            c->els[c->els_count++] = (struct element){
                op->key, op->value, op, op->end == BNS_CHECK_OK ? op->ret : NONE, NONE, NONE, 0};
        else if (op->end == BNS_CHECK_OK)
            c->reads[c->reads_count++] = op;
    }
    if (c->els_count > BNS_SET_ADDS_MAX || c->reads_count > BNS_SET_READS_MAX ||
        (uint64_t)c->els_count * c->reads_count > BNS_SET_WORK_MAX)
        return BNS_E_TOOBIG;
    qsort(c->els, c->els_count, sizeof c->els[0], by_key_value);
    qsort(c->reads, c->reads_count, sizeof c->reads[0], by_call);
    for (size_t i = 1; i < c->els_count; i++) {
        const struct element *e = &c->els[i];
        if (by_key_value(e - 1, e) == 0)
            return bns_verdict_senseless(c->v, "lines %llu and %llu add %s to %s: twice",
                                         line(e[-1].add->call), line(e->add->call),
                                         name(c, e->value).s, name(c, e->key).s);
    }
    return BNS_OK;
}

static int anomaly(struct check *c, const char *what, uint64_t read, const struct element *e,
                   const char *fmt)
{
    bns_verdict_op(c->v, read);
    bns_verdict_op(c->v, e->add->call);
    bns_verdict_say(c->v, "%s of %s: line %llu added it; ", name(c, e->value).s, name(c, e->key).s,
                    line(e->add->call));
    return bns_verdict_anomaly(c->v, what, fmt, line(read)); /* fmt: ours, one %llu */
}

/* May each element of the read be there? It is known from the end of this read on. */
static int take_read(struct check *c, size_t number)
{
    const struct bns_set_op *r = c->reads[number];

    for (size_t i = 0; i < r->list_count; i++) {
        struct element want = {.key = r->key, .value = r->list[i]};
        struct element *e = bsearch(&want, c->els, c->els_count, sizeof want, by_key_value);

        if (e == NULL) {
            bns_verdict_op(c->v, r->call);
            return bns_verdict_anomaly(c->v, "phantom",
                                       "the read of line %llu shows %s in %s, "
                                       "which nobody added",
                                       line(r->call), name(c, want.value).s, name(c, want.key).s);
        }
        if (e->add->call > r->ret)
            return anomaly(c, "phantom", r->call, e, "the read of line %llu showed it before");
        if (e->add->end == BNS_CHECK_FAILED)
            return anomaly(c, "revived", r->call, e,
                           "it failed, and the read of line %llu shows it");
        if (e->mark == number + 1)
            return anomaly(c, "duplicate", r->call, e, "the read of line %llu shows it twice");
        e->mark = number + 1;
        if (r->ret < e->known)
            e->known = r->ret;
    }
    return BNS_OK;
}

/* Which known elements are missing in it. */
static void judge_read(struct check *c, size_t number, size_t *first)
{
    const struct bns_set_op *r = c->reads[number];

    for (size_t i = 0; i < r->list_count; i++) {
        struct element want = {.key = r->key, .value = r->list[i]};
        struct element *e = bsearch(&want, c->els, c->els_count, sizeof want, by_key_value);
        e->mark = c->reads_count + number + 1; /* another mark than in the first pass */
    }
    while (*first < c->els_count && c->els[*first].key < r->key)
        ++*first;
    for (size_t i = *first; i < c->els_count && c->els[i].key == r->key; i++) {
        struct element *e = &c->els[i];
        if (e->known == NONE || e->known > r->call)
            continue;
        if (e->mark == c->reads_count + number + 1)
            e->present = r->call;
        else
            e->absent = r->call;
    }
}

int bns_check_set(const struct bns_check_cfg *cfg, const struct bns_set_op *ops, size_t count,
                  struct bns_verdict *v)
{
    struct check c = {.cfg = cfg, .v = v};
    size_t first = 0;
    int rv;

    bns_verdict_clear(v);
    rv = sort_out(&c, ops, count);
    for (size_t i = 0; i < c.reads_count && rv == BNS_OK; i++)
        rv = take_read(&c, i);
    for (size_t i = 0; i < c.reads_count && rv == BNS_OK; i++)
        judge_read(&c, i, &first);
    for (size_t i = 0; i < c.els_count && rv == BNS_OK; i++) {
        const struct element *e = &c.els[i];
        bool back = e->present != NONE && e->absent != NONE && e->present > e->absent;

        if (e->absent == NONE || (back && cfg->no_realtime))
            continue;
        rv = back
                 ? anomaly(&c, "stale", e->absent, e,
                           "it was known when the read of line %llu began, which does not show it, "
                           "though a later one does")
                 : anomaly(&c, "lost", e->absent, e,
                           "it was known when the read of line %llu began, which does not show it, "
                           "nor does a later one");
    }
    v->checked = count;
    bns_free(cfg->alloc, c.els);
    bns_free(cfg->alloc, c.reads);
    return rv;
}
