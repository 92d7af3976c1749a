/* work_append.c - transactions over lists: read some, append to some, all at one moment.
 *
 * etcd has no append. A worker reads all the lists of its transaction at one revision; then it
 * writes those it appends to, on condition that none of all of them has changed: by mod revision
 * or by version, as the dice say. A transaction that only reads is over after the first call. Lists
 * change with time, so that they stay short.
 */
#include "work.h"

#include <stdio.h>

#define LISTS 3u         /* in use at one time */
#define LIST_TURNOVER 60 /* appends until the oldest list goes out of use */

static bool begin(struct sim_worker *w)
{
    struct bns_prng *p = &w->owner->env->prng;
    struct sim_append *a = &w->append;
    unsigned first = (unsigned)(w->m->elements / LIST_TURNOVER);
    char text[512];
    int n = 1;

    w->step = 0;
    a->parts_count = (unsigned)bns_prng_range(p, 1, SIM_APPEND_PARTS_MAX);
    a->by_version = bns_prng_chance(p, 0.5);
    a->writes = false;
    text[0] = '[';
    for (unsigned i = 0; i < a->parts_count; i++) {
        struct sim_append_part *x = &a->parts[i];

        x->list = first + (unsigned)bns_prng_below(p, LISTS);
        x->element = bns_prng_chance(p, 0.5) ? ++w->m->elements : 0;
        a->writes = a->writes || x->element != 0;
        n += snprintf(text + n, sizeof text - (size_t)n, "%s[\"%s\",\"a%u\",", i > 0 ? "," : "",
                      x->element != 0 ? "append" : "r", x->list); /* all of them fit */
        if (x->element != 0)
            n += snprintf(text + n, sizeof text - (size_t)n, "%llu]",
                          (unsigned long long)x->element);
        else
            n += snprintf(text + n, sizeof text - (size_t)n, "null]");
    }
    BNS_ASSERT((size_t)n + 2 < sizeof text);
    memcpy(text + n, "]", 2);
    work_record(w, BNS_HIST_INVOKE, "txn", NULL, text);
    return true;
}

/* The place among those read of the list of part i: where it is named first. */
static unsigned place(const struct sim_append *a, unsigned i)
{
    unsigned j = 0;

    while (a->parts[j].list != a->parts[i].list)
        j++;
    return j;
}

static void encode_read(const struct sim_append *a, struct work_txn *t)
{
    for (unsigned i = 0; i < a->parts_count; i++) {
        struct work_part *p = &t->yes[t->yes_count++];
        p->what = WORK_GET;
        (void)snprintf(p->key, sizeof p->key, "a%u", a->parts[i].list); /* fits */
    }
}

/* What list parts[i] becomes with the appends of the parts before `end`. */
static bool text_of(const struct sim_append *a, unsigned i, unsigned end,
                    char out[WORK_VALUE_BYTES])
{
    const struct sim_append_part *read = &a->parts[place(a, i)];
    size_t n = strlen(read->was);

    memcpy(out, read->was, n + 1);
    for (unsigned j = 0; j < end && n + 24 < WORK_VALUE_BYTES; j++) {
        if (a->parts[j].list == read->list && a->parts[j].element != 0)
            n += (size_t)snprintf(out + n, WORK_VALUE_BYTES - n, "%s%llu", n > 0 ? "," : "",
                                  (unsigned long long)a->parts[j].element);
    }
    return n + 24 < WORK_VALUE_BYTES;
}

static void encode_write(const struct sim_append *a, struct work_txn *t)
{
    for (unsigned i = 0; i < a->parts_count; i++) {
        struct work_compare *c = &t->compares[t->compares_count];
        const struct sim_append_part *x = &a->parts[i];
        bool writes = false;

        if (place(a, i) != i)
            continue;
        t->compares_count++;
        c->target = a->by_version ? WORK_VERSION : WORK_MOD;
        c->number = a->by_version ? x->version : x->mod;
        (void)snprintf(c->key, sizeof c->key, "a%u", x->list); /* fits */
        for (unsigned j = i; j < a->parts_count; j++)
            writes = writes || (a->parts[j].list == x->list && a->parts[j].element != 0);
        if (!writes)
            continue;
        t->yes[t->yes_count].what = WORK_PUT;
        (void)snprintf(t->yes[t->yes_count].key, WORK_KEY_BYTES, "a%u", x->list); /* fits */
        BNS_ASSERT(text_of(a, i, a->parts_count, t->yes[t->yes_count].value));
        t->yes_count++;
    }
}

static struct bns_slice encode(struct sim_worker *w, struct bns_arena *arena, const char **path)
{
    struct work_txn t = {.compares_count = 0};

    if (w->step == 0)
        encode_read(&w->append, &t);
    else
        encode_write(&w->append, &t);
    return work_encode_txn(&t, arena, path);
}

static const ProtobufCMessageDescriptor *answer(const struct sim_worker *w)
{
    (void)w;
    return &etcdserverpb__txn_response__descriptor;
}

static void decode(struct sim_worker *w, const ProtobufCMessage *msg)
{
    const Etcdserverpb__TxnResponse *r = (const Etcdserverpb__TxnResponse *)(const void *)msg;
    struct sim_append *a = &w->append;

    w->got_yes = r->succeeded;
    if (w->step == 1)
        return;
    if (!r->succeeded || r->n_responses != a->parts_count)
        sim_complain(w->m, "a transaction of %u reads has %zu answers", a->parts_count,
                     r->n_responses);
    for (unsigned i = 0; i < a->parts_count; i++) {
        const Etcdserverpb__KeyValue *kv = work_kv(r, i);
        struct sim_append_part *x = &a->parts[i];

        x->mod = kv == NULL ? 0 : kv->mod_revision;
        x->version = kv == NULL ? 0 : kv->version;
        x->was[0] = '\0';
        if (kv != NULL && !work_text(kv->value, x->was, sizeof x->was))
            sim_complain(w->m, "a list is what nobody wrote");
    }
}

static enum work_next record_ok(struct sim_worker *w)
{
    const struct sim_append *a = &w->append;
    char text[WORK_TEXT_BYTES], list[WORK_VALUE_BYTES];
    size_t n = 1;

    text[0] = '[';
    for (unsigned i = 0; i < a->parts_count; i++) {
        const struct sim_append_part *x = &a->parts[i];
        const char *comma = i > 0 ? "," : "";

        (void)text_of(a, i, i, list); /* it did when it was written */
        if (x->element != 0)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s[\"append\",\"a%u\",%llu]", comma,
                                  x->list, (unsigned long long)x->element);
        else
            n += (size_t)snprintf(text + n, sizeof text - n, "%s[\"r\",\"a%u\",[%s]]", comma,
                                  x->list, list);
        BNS_ASSERT(n + 2 < sizeof text);
    }
    memcpy(text + n, "]", 2);
    work_record(w, BNS_HIST_OK, "txn", NULL, text);
    return WORK_DONE;
}

static enum work_next ended(struct sim_worker *w, int status, const char *text)
{
    char list[WORK_VALUE_BYTES];
    bool fits = true;

    if (w->step == 1 && status != BNS_GRPC_OK)
        return work_lost(w, "txn", NULL, !sim_op_definite(status, text));
    if (status != BNS_GRPC_OK || (w->step == 1 && !w->got_yes))
        return work_lost(w, "txn", NULL, false);
    if (w->step == 1 || !w->append.writes)
        return record_ok(w);
    for (unsigned i = 0; i < w->append.parts_count; i++)
        fits = fits && text_of(&w->append, i, w->append.parts_count, list);
    if (!fits)
        return work_lost(w, "txn", NULL, false); /* nothing was written */
    w->step = 1;
    return WORK_ASK;
}

const struct work_kind work_append = {.name = "append",
                                      .begin = begin,
                                      .encode = encode,
                                      .answer = answer,
                                      .decode = decode,
                                      .ended = ended};
