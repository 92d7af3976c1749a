/* lin_revision.c - linearizability where answers tell revisions: no search.
 *
 * A store that numbers its changes tells each client where its operation stands: a change has a
 * revision of its own, an answer that changed nothing has the revision of the store it looked at.
 * Let a change at revision R have the position 2R, a look at the store of revision R 2R + 1. Then
 * the order of all that was answered is the order of positions, and what remains is to check it:
 *
 *   real time  a position is not below that of anything that had ended before its call. One sweep
 *              over calls and ends, over all keys.
 *   state      walk a key's marks by position. Marks are changes (of answered operations, of facts,
 *              and those that a look implies: it shows a value and the revision of its change) and
 *              looks. Each look must show what the changes up to it left.
 *
 * Operations with unknown outcome may have happened at any later position, or never. A write of
 * which somebody saw the value happened where it was seen: each change that no answered operation
 * made must have one open writer of its value, called early enough. One that nobody saw is left
 * out, for nothing asks for it: every look shows either a change that is known or nothing. Nothing
 * asks for a delete: looks that find nothing behind a value each need one open delete, placed at a
 * free revision behind the last look that saw the value. Who was called early enough for one such
 * place was so for all later ones, so taking them in the order of their calls is no loss.
 *
 * Where an answer tells less (a comparison failed, and it was not shown why; a delete found
 * something, not shown what) an unseen write may be asked for after all: if what is known does not
 * explain the answer, the key is not decided.
 *
 * May fail: no memory.
 */
#include "sim/lin.h"

#include <stdlib.h>

enum mark_kind { /* in the order in which they are looked at, at one position */
                 MARK_CHANGE,
                 MARK_STATE, /* it shows value, and the revision of its change (0: not told) */
                 MARK_MOD,   /* it is there, and its change has revision mod */
                 MARK_THERE,
                 MARK_NOT,    /* it has another value */
                 MARK_NOT_MOD /* or another revision */
};

struct mark {
    uint64_t key, pos;
    enum mark_kind kind;
    uint64_t value, mod;
    size_t op;  /* BNS_LIN_NO_OP: a fact */
    bool owner; /* change: op made it, and was told so */
};

struct open_op {         /* with an unknown outcome */
    uint64_t key, value; /* a delete has BNS_LIN_NIL */
    uint64_t call;
    size_t op;
    bool used;
};

struct end {
    uint64_t at, pos;
};

struct walk {
    const struct bns_alloc *alloc;
    const struct bns_lin_op *ops;
    size_t count;
    uint64_t *floors; /* by operation: the highest position that had ended when it was called */
    struct mark *marks;
    size_t marks_count;
    struct open_op *open; /* by key, value, call */
    size_t open_count;
    uint64_t *revs; /* of all changes that are known, rising, each once */
    size_t revs_count;
    struct end *ends;
    size_t ends_count;
    struct bns_lin_result *res;
    /* the key under the walk */
    uint64_t value, mod;
    uint64_t looked; /* the last revision at which it is known to be so */
    size_t changes;
    size_t open_writes, open_deletes; /* that are not placed */
    size_t next_delete;               /* of `open` */
    bool undecided;
};

static bool writes(const struct bns_lin_op *op)
{
    return op->f == BNS_LIN_PUT || op->f == BNS_LIN_CAS;
}

static bool changes(const struct bns_lin_op *op)
{
    return op->f != BNS_LIN_GET && !op->failed;
}

static int conflict(struct walk *w, const struct mark *m, const char *why)
{
    w->res->key = m->key;
    w->res->op = m->op;
    w->res->prefix = w->changes;
    w->res->rev = m->pos / 2;
    w->res->why = why;
    return BNS_E_CONFLICT;
}

/* ---- what operations tell -------------------------------------------------------------------- */

/* 0: it does not tell. */
static uint64_t position(const struct bns_lin_op *op)
{
    if (op->ret == BNS_LIN_OPEN)
        return 0;
    if (changes(op))
        return op->rev == 0 ? 0 : 2 * op->rev;
    return op->at == 0 ? 0 : 2 * op->at + 1;
}

static void mark(struct walk *w, size_t op, uint64_t pos, enum mark_kind kind, uint64_t value,
                 uint64_t mod)
{
    w->marks[w->marks_count++] = (struct mark){
        .key = w->ops[op].key, .pos = pos, .kind = kind, .value = value, .mod = mod, .op = op};
}

/* At pos it was `value`, since revision mod: so there is that change. */
static void mark_state(struct walk *w, size_t op, uint64_t pos, uint64_t value, uint64_t mod)
{
    mark(w, op, pos, MARK_STATE, value, mod);
    if (value != BNS_LIN_NIL && mod != 0)
        mark(w, op, 2 * mod, MARK_CHANGE, value, mod);
}

/* What a comparison that was met, or was not, says about the store at pos. */
static void mark_compared(struct walk *w, size_t i, uint64_t pos)
{
    const struct bns_lin_op *op = &w->ops[i];
    bool none = op->expect == 0; /* by value or by revision: it is not there */

    if (!op->failed && none)
        mark(w, i, pos, MARK_STATE, BNS_LIN_NIL, 0);
    else if (!op->failed && op->by_rev)
        mark(w, i, pos, MARK_MOD, 0, op->expect);
    else if (!op->failed)
        mark(w, i, pos, MARK_STATE, op->expect, 0);
    else if (none)
        mark(w, i, pos, MARK_THERE, 0, 0);
    else
        mark(w, i, pos, op->by_rev ? MARK_NOT_MOD : MARK_NOT, op->expect, op->expect);
}

/* Up to 4 marks. */
static void mark_answered(struct walk *w, size_t i, uint64_t pos)
{
    const struct bns_lin_op *op = &w->ops[i];
    uint64_t looked = changes(op) ? pos - 1 : pos; /* the store that it found */

    if (op->f == BNS_LIN_GET) {
        mark_state(w, i, pos, op->value, op->rev);
        return;
    }
    if (changes(op)) {
        mark(w, i, pos, MARK_CHANGE, writes(op) ? op->value : BNS_LIN_NIL, op->rev);
        w->marks[w->marks_count - 1].owner = true;
    }
    if (op->was_known)
        mark_state(w, i, looked, op->was_value, op->was_rev);
    if (op->f == BNS_LIN_CAS)
        mark_compared(w, i, looked);
    if (op->f == BNS_LIN_DELETE && op->failed)
        mark(w, i, looked, MARK_STATE, BNS_LIN_NIL, 0);
    else if (op->f == BNS_LIN_DELETE)
        mark(w, i, looked, MARK_THERE, 0, 0);
}

static int by_mark(const void *a, const void *b)
{
    const struct mark *x = a;
    const struct mark *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    if (x->pos != y->pos)
        return x->pos < y->pos ? -1 : 1;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    if (x->owner != y->owner)
        return x->owner ? -1 : 1;
    return (x->op > y->op) - (x->op < y->op);
}

static int by_open(const void *a, const void *b)
{
    const struct open_op *x = a;
    const struct open_op *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    if (x->value != y->value)
        return x->value < y->value ? -1 : 1;
    return (x->call > y->call) - (x->call < y->call);
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void gather(struct walk *w, const struct bns_lin_facts *facts)
{
    for (size_t i = 0; i < w->count; i++) {
        const struct bns_lin_op *op = &w->ops[i];
        uint64_t pos = position(op);

        if (pos != 0) {
            mark_answered(w, i, pos);
            w->ends[w->ends_count++] = (struct end){op->ret, pos};
        } else if (op->ret == BNS_LIN_OPEN && op->f != BNS_LIN_GET) {
            w->open[w->open_count++] =
                (struct open_op){op->key, writes(op) ? op->value : BNS_LIN_NIL, op->call, i, false};
        }
    }
    for (size_t i = 0; i < facts->count; i++) {
        const struct bns_lin_fact *f = &facts->list[i];

        w->marks[w->marks_count++] = (struct mark){.key = f->key,
                                                   .pos = 2 * f->rev,
                                                   .kind = MARK_CHANGE,
                                                   .value = f->value,
                                                   .mod = f->rev,
                                                   .op = BNS_LIN_NO_OP};
        w->ends[w->ends_count++] = (struct end){f->before, 2 * f->rev};
    }
    qsort(w->marks, w->marks_count, sizeof *w->marks, by_mark);
    qsort(w->open, w->open_count, sizeof *w->open, by_open);
    for (size_t i = 0; i < w->marks_count; i++) {
        if (w->marks[i].kind == MARK_CHANGE)
            w->revs[w->revs_count++] = w->marks[i].mod;
    }
    qsort(w->revs, w->revs_count, sizeof *w->revs, by_number);
}

/* ---- real time ------------------------------------------------------------------------------- */

struct called {
    uint64_t call;
    size_t op;
};

static int by_call(const void *a, const void *b)
{
    const struct called *x = a;
    const struct called *y = b;
    return (x->call > y->call) - (x->call < y->call);
}

static int by_end(const void *a, const void *b)
{
    const struct end *x = a;
    const struct end *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

static int real_time(struct walk *w)
{
    struct called *calls = bns_alloc_array(w->alloc, w->count + 1, sizeof *calls);
    uint64_t highest = 0;
    size_t e = 0;
    int rv = BNS_OK;

    if (calls == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < w->count; i++)
        calls[i] = (struct called){w->ops[i].call, i};
    qsort(calls, w->count, sizeof *calls, by_call);
    qsort(w->ends, w->ends_count, sizeof *w->ends, by_end);
    for (size_t i = 0; i < w->count && rv == BNS_OK; i++) {
        const struct bns_lin_op *op = &w->ops[calls[i].op];
        struct mark at = {.key = op->key, .pos = position(op), .op = calls[i].op};

        for (; e < w->ends_count && w->ends[e].at < op->call; e++)
            highest = w->ends[e].pos > highest ? w->ends[e].pos : highest;
        w->floors[calls[i].op] = highest;
        if (at.pos != 0 && at.pos < highest)
            rv = conflict(w, &at, "a later revision was told before it was asked");
    }
    bns_free(w->alloc, calls);
    return rv;
}

/* ---- the walk -------------------------------------------------------------------------------- */

/* The first position in revs that is not below rev. */
static size_t revs_from(const struct walk *w, uint64_t rev)
{
    size_t lo = 0, hi = w->revs_count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (w->revs[mid] < rev)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* The highest revision in [from, to] that no known change has; 0: there is none. */
static uint64_t free_revision(const struct walk *w, uint64_t from, uint64_t to)
{
    size_t i = revs_from(w, to + 1);

    while (i > 0 && to >= from && w->revs[i - 1] >= to) {
        to -= w->revs[i - 1] == to;
        i--;
    }
    return to >= from ? to : 0;
}

/* The first open operation that is not before (key, value). */
static size_t open_from(const struct walk *w, uint64_t key, uint64_t value)
{
    struct open_op want = {.key = key, .value = value, .call = 0};
    size_t lo = 0, hi = w->open_count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (by_open(&w->open[mid], &want) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static size_t open_count_of(const struct walk *w, uint64_t key)
{
    size_t n = open_from(w, key, BNS_LIN_NIL), from = n;

    while (n < w->open_count && w->open[n].key == key)
        n++;
    return n - from;
}

/* The open operations of a key that write a value: the first, and how many. */
static struct open_op *open_of(const struct walk *w, uint64_t key, uint64_t value, size_t *n)
{
    size_t lo = open_from(w, key, value);

    for (*n = 0; lo + *n < w->open_count; ++*n) {
        const struct open_op *o = &w->open[lo + *n];
        if (o->key != key || o->value != value)
            break;
    }
    return w->open + lo;
}

/* An open delete took effect at revision rev. False: none can have. */
static bool take_delete(struct walk *w, uint64_t rev)
{
    const struct open_op *o = &w->open[w->next_delete];

    if (w->open_deletes == 0 || w->floors[o->op] > 2 * rev)
        return false; /* those behind it were called later */
    w->next_delete++;
    w->open_deletes--;
    return true;
}

/* The key is not there at m. */
static int look_nothing(struct walk *w, const struct mark *m)
{
    uint64_t rev;

    if (w->value != BNS_LIN_NIL) {
        rev = free_revision(w, w->looked + 1, m->pos / 2);
        if (rev == 0 || !take_delete(w, rev))
            return conflict(w, m, "it is not there, and nobody deleted it");
        w->value = BNS_LIN_NIL;
        w->mod = rev;
    }
    return BNS_OK;
}

/* What is known does not explain what m says: an operation that nobody saw must. */
static int unexplained(struct walk *w, const struct mark *m, size_t unseen)
{
    if (m->op != BNS_LIN_NO_OP && w->ops[m->op].was_known)
        return conflict(w, m, "the answer is not that to what it shows");
    if (unseen == 0)
        return conflict(w, m, "nothing that was there explains the answer");
    w->undecided = true;
    return BNS_OK;
}

static int look(struct walk *w, const struct mark *m)
{
    bool there = w->value != BNS_LIN_NIL;
    size_t unseen = w->open_writes + w->open_deletes;
    int rv = BNS_OK;

    switch (m->kind) {
    case MARK_STATE:
        if (m->value == BNS_LIN_NIL)
            rv = look_nothing(w, m);
        else if (m->mod > m->pos / 2)
            rv = conflict(w, m, "it shows a change of a later revision");
        else if (m->mod != 0 && (w->value != m->value || w->mod != m->mod))
            rv = conflict(w, m, "it does not show the last change");
        else if (w->value != m->value)
            rv = unexplained(w, m, w->open_writes);
        break;
    case MARK_MOD:
        if (there && w->mod > m->mod)
            rv = conflict(w, m, "it was compared with an old revision, and matched");
        else if (!there || w->mod != m->mod)
            rv = unexplained(w, m, w->open_writes);
        break;
    case MARK_THERE:
        rv = there ? BNS_OK : unexplained(w, m, w->open_writes);
        break;
    case MARK_NOT:
        rv = w->value != m->value ? BNS_OK : unexplained(w, m, unseen);
        break;
    default:
        rv = !there || w->mod != m->mod ? BNS_OK : unexplained(w, m, unseen);
        break;
    }
    if (m->pos / 2 > w->looked)
        w->looked = m->pos / 2;
    return rv;
}

/* It was deleted at m, and no answered operation did that. */
static int seen_to_go(struct walk *w, const struct mark *m)
{
    int rv = BNS_OK;

    if (w->value == BNS_LIN_NIL)
        rv = unexplained(w, m, w->open_writes);
    if (rv == BNS_OK && !take_delete(w, m->mod))
        rv = conflict(w, m, "it was deleted, and by nobody");
    return rv;
}

/* A change that no answered operation made: one with an unknown outcome did. */
static int change_by_open(struct walk *w, const struct mark *m)
{
    const struct bns_lin_op *op;
    struct open_op *o;
    struct mark before = *m;
    size_t n;

    if (m->value == BNS_LIN_NIL)
        return seen_to_go(w, m);
    o = open_of(w, m->key, m->value, &n);
    if (n == 0)
        return conflict(w, m, "nobody wrote what was seen there");
    if (n > 1) {
        w->undecided = true;
        return BNS_OK;
    }
    if (o->used)
        return conflict(w, m, "what was written once is there twice");
    if (w->floors[o->op] > m->pos)
        return conflict(w, m, "it was seen at a revision older than its writer");
    o->used = true;
    w->open_writes--;
    op = &w->ops[o->op];
    if (op->f != BNS_LIN_CAS)
        return BNS_OK;
    before.op = o->op;
    before.pos = m->pos - 1;
    before.kind = op->by_rev && op->expect != 0 ? MARK_MOD : MARK_STATE;
    before.value = op->expect;
    before.mod = op->by_rev ? op->expect : 0;
    return look(w, &before);
}

/* All marks of one change: the first is the operation that made it, if one was told so. */
static int change(struct walk *w, const struct mark *m, size_t n)
{
    int rv = BNS_OK;

    for (size_t i = 1; i < n; i++) {
        if (m[i].owner)
            return conflict(w, &m[i], "two changes have one revision");
        if (m[i].value != m[0].value)
            return conflict(w, &m[i], "two values were seen at one revision");
    }
    if (!m->owner)
        rv = change_by_open(w, m);
    w->value = m->value;
    w->mod = m->mod;
    w->looked = m->mod;
    w->changes++;
    return rv;
}

/* Marks m[0..n) are those of one key. */
static int walk_key(struct walk *w, const struct mark *m, size_t n)
{
    int rv = BNS_OK;

    w->value = BNS_LIN_NIL;
    w->mod = w->looked = 0;
    w->changes = 0;
    w->undecided = false;
    w->next_delete = (size_t)(open_of(w, m->key, BNS_LIN_NIL, &w->open_deletes) - w->open);
    w->open_writes = open_count_of(w, m->key) - w->open_deletes;
    for (size_t i = 0, same; i < n && rv == BNS_OK && !w->undecided; i += same) {
        for (same = 1; m[i].kind == MARK_CHANGE && i + same < n; same++) {
            if (m[i + same].kind != MARK_CHANGE || m[i + same].pos != m[i].pos)
                break;
        }
        rv = m[i].kind == MARK_CHANGE ? change(w, m + i, same) : look(w, m + i);
    }
    return rv;
}

/* ---- keys ------------------------------------------------------------------------------------ */

/* Keys with an answer that does not tell where it stands. *n of them, rising; maybe repeated. */
static void vague_keys(const struct walk *w, uint64_t *keys, size_t *n)
{
    for (size_t i = 0; i < w->count; i++) {
        if (w->ops[i].ret != BNS_LIN_OPEN && position(&w->ops[i]) == 0)
            keys[(*n)++] = w->ops[i].key;
    }
    qsort(keys, *n, sizeof *keys, by_number);
}

static bool is_in(const uint64_t *keys, size_t n, uint64_t key)
{
    return n > 0 && bsearch(&key, keys, n, sizeof *keys, by_number) != NULL;
}

static int walk_keys(struct walk *w, uint64_t *keys, size_t *keys_count)
{
    size_t vague = *keys_count;
    int rv = BNS_OK;

    for (size_t i = 0, n; i < w->marks_count && rv == BNS_OK; i += n) {
        for (n = 1; i + n < w->marks_count && w->marks[i + n].key == w->marks[i].key; n++)
            ;
        if (is_in(keys, vague, w->marks[i].key))
            continue;
        rv = walk_key(w, w->marks + i, n);
        if (rv == BNS_OK && w->undecided)
            keys[(*keys_count)++] = w->marks[i].key;
    }
    qsort(keys, *keys_count, sizeof *keys, by_number);
    return rv;
}

/* Moves the operations of those keys to the front; how many. */
static size_t to_front(struct bns_lin_op *ops, size_t count, const uint64_t *keys, size_t n)
{
    size_t left = 0;

    for (size_t i = 0; i < count; i++) {
        struct bns_lin_op op = ops[i];

        if (!is_in(keys, n, op.key))
            continue;
        ops[i] = ops[left];
        ops[left++] = op;
    }
    return left;
}

int bns_lin_by_revision(const struct bns_alloc *alloc, struct bns_lin_op *ops, size_t count,
                        const struct bns_lin_facts *facts, size_t *left, struct bns_lin_result *res)
{
    static const struct bns_lin_facts none = {NULL, 0};
    size_t facts_count = facts == NULL ? 0 : facts->count;
    struct bns_lin_result own = {0};
    struct walk w = {.alloc = alloc, .ops = ops, .count = count, .res = res ? res : &own};
    size_t marks_max = 5 * count + facts_count + 1, keys_count = 0;
    uint64_t *keys = bns_alloc_array(alloc, 2 * count + facts_count + 1, sizeof *keys);
    int rv = BNS_E_NOMEM;

    w.floors = bns_alloc_array(alloc, count + 1, sizeof *w.floors);
    w.marks = bns_alloc_array(alloc, marks_max, sizeof *w.marks);
    w.open = bns_alloc_array(alloc, count + 1, sizeof *w.open);
    w.revs = bns_alloc_array(alloc, marks_max, sizeof *w.revs);
    w.ends = bns_alloc_array(alloc, count + facts_count + 1, sizeof *w.ends);
    if (keys == NULL || w.floors == NULL || w.marks == NULL || w.open == NULL || w.revs == NULL ||
        w.ends == NULL)
        goto out;
    gather(&w, facts == NULL ? &none : facts);
    rv = real_time(&w);
    if (rv != BNS_OK)
        goto out;
    vague_keys(&w, keys, &keys_count);
    rv = walk_keys(&w, keys, &keys_count);
    if (rv == BNS_OK)
        *left = to_front(ops, count, keys, keys_count);
out:
    bns_free(alloc, keys);
    bns_free(alloc, w.floors);
    bns_free(alloc, w.marks);
    bns_free(alloc, w.open);
    bns_free(alloc, w.revs);
    bns_free(alloc, w.ends);
    return rv;
}
