/* lin.c - linearizability by search: Wing & Gong 1993, with Lowe's 2017 cache.
 *
 * The events (calls and returns) of one key stand in a doubly linked list in history order. The
 * search walks it from the head:
 *
 *     a call whose operation can happen in the present state: if the configuration (set of
 *         operations done, state after it) was not seen before, do it: lift call and return out of
 *         the list, remember the old state on a stack, start again at the head
 *     a return: its operation had to be done by now; undo the last one done (put its events back)
 *         and go on behind its call; with nothing to undo, there is no linearization
 *     all operations that returned are done: there is one
 *
 * Open operations have a call and no return, so nothing ever demands them; they may be done at any
 * point after their call.
 *
 * Seen configurations are a set of (bitset, state) records in one growing array, found through an
 * open-addressing table of indexes.
 *
 * Invariants: a lifted event keeps its neighbours, so unlifting in reverse order restores the list.
 * May fail:   no memory; the budget of configurations.
 */
#include "sim/lin.h"

#include <stdlib.h>

/* ---- models ---------------------------------------------------------------------------------- */

static bool step_register(struct bns_lin_state *s, const struct bns_lin_op *op)
{
    bool open = op->ret == BNS_LIN_OPEN;

    switch (op->f) {
    case BNS_LIN_GET:
        return open || s->value == op->value;
    case BNS_LIN_PUT:
        s->value = op->value;
        return true;
    case BNS_LIN_CAS:
        if (!open && (s->value == op->expect) == op->failed)
            return false;
        if (s->value == op->expect)
            s->value = op->value;
        return true;
    case BNS_LIN_DELETE:
        if (!open && (s->value == BNS_LIN_NIL) != op->failed)
            return false;
        s->value = BNS_LIN_NIL;
        return true;
    }
    return false;
}

/* The next change gets revision rev (0: nobody was told which). */
static bool change_rev(struct bns_lin_state *s, uint64_t rev)
{
    uint64_t least = s->rev_known ? s->rev + 1 : s->rev + 2;

    if (rev != 0 && rev < least)
        return false;
    s->rev_known = rev != 0;
    s->rev = rev != 0 ? rev : least - 1;
    return true;
}

/* Is the revision of the last change `rev`? If that was open, it is settled now. */
static bool settle_rev(struct bns_lin_state *s, uint64_t rev)
{
    if (s->rev_known)
        return s->rev == rev;
    if (rev <= s->rev)
        return false;
    s->rev = rev;
    s->rev_known = true;
    return true;
}

static bool cas_matches(struct bns_lin_state *s, const struct bns_lin_op *op)
{
    if (!op->by_rev)
        return s->value == op->expect;
    /* Revision 0 stands for a key that is not there. */
    if (s->value == BNS_LIN_NIL || op->expect == 0)
        return s->value == BNS_LIN_NIL && op->expect == 0;
    return s->rev_known ? s->rev == op->expect : op->expect > s->rev;
}

static bool step_kv_cas(struct bns_lin_state *s, const struct bns_lin_op *op, bool open)
{
    bool match = cas_matches(s, op);

    if (!open && op->failed) /* an unsettled revision may also be another one */
        return !match || (op->by_rev && !s->rev_known && s->value != BNS_LIN_NIL);
    if (!match)
        return open;
    if (op->by_rev && s->value != BNS_LIN_NIL && !settle_rev(s, op->expect))
        return false;
    s->value = op->value;
    return change_rev(s, open ? 0 : op->rev);
}

static bool step_kv(struct bns_lin_state *s, const struct bns_lin_op *op)
{
    bool open = op->ret == BNS_LIN_OPEN;

    switch (op->f) {
    case BNS_LIN_GET:
        if (open)
            return true;
        if (s->value != op->value)
            return false;
        return op->value == BNS_LIN_NIL || op->rev == 0 || settle_rev(s, op->rev);
    case BNS_LIN_PUT:
        s->value = op->value;
        return change_rev(s, open ? 0 : op->rev);
    case BNS_LIN_CAS:
        return step_kv_cas(s, op, open);
    case BNS_LIN_DELETE:
        if (!open && (s->value == BNS_LIN_NIL) != op->failed)
            return false;
        if (s->value == BNS_LIN_NIL)
            return true;
        s->value = BNS_LIN_NIL;
        return change_rev(s, open ? 0 : op->rev);
    }
    return false;
}

const struct bns_lin_model bns_lin_register = {.step = step_register};
const struct bns_lin_model bns_lin_kv = {.first = {.rev_known = 1}, .step = step_kv};

/* ---- the set of configurations --------------------------------------------------------------- */

struct seen {
    const struct bns_alloc *alloc;
    uint64_t *records; /* words of the bitset, then the three of the state */
    uint32_t *slots;   /* record index + 1, 0 = free */
    size_t words;
    size_t count;
    size_t records_cap;
    size_t slots_count; /* a power of two */
};

static uint64_t hash_words(const uint64_t *p, size_t n)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < n; i++) {
        h = (h ^ p[i]) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 32;
    }
    return h;
}

static size_t seen_slot(const struct seen *s, const uint64_t *record)
{
    size_t i = hash_words(record, s->words) & (s->slots_count - 1);

    while (s->slots[i] != 0 && memcmp(s->records + (s->slots[i] - 1) * s->words, record,
                                      s->words * sizeof *record) != 0)
        i = (i + 1) & (s->slots_count - 1);
    return i;
}

static int seen_grow(struct seen *s)
{
    size_t cap = s->records_cap == 0 ? 256 : s->records_cap * 2;
    uint64_t *records = bns_resize(s->alloc, s->records, cap * s->words * sizeof *records);
    uint32_t *slots;

    if (records == NULL)
        return BNS_E_NOMEM;
    s->records = records;
    slots = bns_alloc_zero(s->alloc, cap * 2 * sizeof *slots);
    if (slots == NULL)
        return BNS_E_NOMEM;
    bns_free(s->alloc, s->slots);
    s->slots = slots;
    s->slots_count = cap * 2;
    s->records_cap = cap;
    for (size_t i = 0; i < s->count; i++)
        s->slots[seen_slot(s, s->records + i * s->words)] = (uint32_t)(i + 1);
    return BNS_OK;
}

/* Adds a record; *fresh says whether it was not there. */
static int seen_add(struct seen *s, const uint64_t *record, bool *fresh)
{
    size_t slot;

    if (s->count == s->records_cap && seen_grow(s) != BNS_OK)
        return BNS_E_NOMEM;
    slot = seen_slot(s, record);
    *fresh = s->slots[slot] == 0;
    if (!*fresh)
        return BNS_OK;
    memcpy(s->records + s->count * s->words, record, s->words * sizeof *record);
    s->slots[slot] = (uint32_t)++s->count;
    return BNS_OK;
}

/* ---- the search ------------------------------------------------------------------------------ */

struct event {
    struct event *next;
    struct event *prev;
    struct event *match; /* a call's return; NULL for returns and open calls */
    uint64_t at;
    size_t op;    /* index in the caller's array */
    size_t local; /* index among the operations of the key */
    bool is_call;
};

struct undo {
    struct event *call;
    struct bns_lin_state state;
};

struct search {
    const struct bns_lin_model *model;
    const struct bns_lin_op *ops;
    struct event head;
    struct event *events;
    struct undo *stack;
    uint64_t *record; /* the present configuration, as a record */
    struct seen seen;
    size_t events_count;
    size_t bits_words;
    size_t depth;
    size_t returns_left;
    uint64_t *visited;
    uint64_t visited_max;
    size_t best_depth;
    size_t best_op;
};

static void lift(struct event *e)
{
    e->prev->next = e->next;
    if (e->next != NULL)
        e->next->prev = e->prev;
}

static void unlift(struct event *e)
{
    e->prev->next = e;
    if (e->next != NULL)
        e->next->prev = e;
}

static void flip_bit(struct search *s, size_t i)
{
    s->record[i / 64] ^= UINT64_C(1) << (i % 64);
}

static struct bns_lin_state *state_of(struct search *s)
{
    return (struct bns_lin_state *)(void *)(s->record + s->bits_words);
}

_Static_assert(sizeof(struct bns_lin_state) == 3 * sizeof(uint64_t), "a record holds it as words");

/* Tries to do the operation of a call. *done: it is done and new. */
static int advance(struct search *s, struct event *call, bool *done)
{
    struct bns_lin_state before = *state_of(s);
    int rv;

    *done = false;
    if (!s->model->step(state_of(s), &s->ops[call->op])) {
        *state_of(s) = before;
        return BNS_OK;
    }
    flip_bit(s, call->local);
    if (++*s->visited > s->visited_max)
        return BNS_E_TOOBIG;
    rv = seen_add(&s->seen, s->record, done);
    if (rv != BNS_OK)
        return rv;
    if (!*done) {
        flip_bit(s, call->local);
        *state_of(s) = before;
        return BNS_OK;
    }
    s->stack[s->depth++] = (struct undo){call, before};
    lift(call);
    if (call->match != NULL) {
        lift(call->match);
        s->returns_left--;
    }
    return BNS_OK;
}

/* Undoes the last operation; returns the event behind its call. */
static struct event *retreat(struct search *s)
{
    struct undo *u = &s->stack[--s->depth];

    if (u->call->match != NULL) {
        unlift(u->call->match);
        s->returns_left++;
    }
    unlift(u->call);
    flip_bit(s, u->call->local);
    *state_of(s) = u->state;
    return u->call->next;
}

static int search_run(struct search *s)
{
    struct event *e = s->head.next;

    while (s->returns_left > 0) {
        bool done;
        int rv;

        BNS_ASSERT(e != NULL); /* a return is still in the list, and it stops the walk */
        if (e->is_call) {
            rv = advance(s, e, &done);
            if (rv != BNS_OK)
                return rv;
            e = done ? s->head.next : e->next;
            continue;
        }
        if (s->depth >= s->best_depth) {
            s->best_depth = s->depth;
            s->best_op = e->op;
        }
        if (s->depth == 0)
            return BNS_E_CONFLICT;
        e = retreat(s);
    }
    return BNS_OK;
}

static int by_at(const void *a, const void *b)
{
    const struct event *x = a;
    const struct event *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

/* Sorts the events and links them; a call finds its return by local index. */
static void search_link(struct search *s, struct event **calls)
{
    struct event *prev = &s->head;

    qsort(s->events, s->events_count, sizeof s->events[0], by_at);
    for (size_t i = 0; i < s->events_count; i++) {
        struct event *e = &s->events[i];
        e->prev = prev;
        prev->next = e;
        prev = e;
        if (e->is_call)
            calls[e->local] = e;
        else
            calls[e->local]->match = e;
    }
    prev->next = NULL;
}

static void search_free(struct search *s)
{
    const struct bns_alloc *a = s->seen.alloc;

    bns_free(a, s->events);
    bns_free(a, s->stack);
    bns_free(a, s->record);
    bns_free(a, s->seen.records);
    bns_free(a, s->seen.slots);
}

/* Takes the operations order[0..n) of one key. */
static int search_init(struct search *s, const size_t *order, size_t n)
{
    const struct bns_alloc *a = s->seen.alloc;
    struct event **calls = bns_alloc_array(a, n, sizeof *calls);
    int rv = BNS_E_NOMEM;

    s->bits_words = (n + 63) / 64;
    s->seen.words = s->bits_words + 3;
    s->events = bns_alloc_array(a, 2 * n, sizeof *s->events);
    s->stack = bns_alloc_array(a, n, sizeof *s->stack);
    s->record = bns_alloc_array(a, s->seen.words, sizeof *s->record);
    if (calls == NULL || s->events == NULL || s->stack == NULL || s->record == NULL)
        goto out;
    memset(s->record, 0, s->seen.words * sizeof *s->record);
    *state_of(s) = s->model->first;
    rv = BNS_E_INVALID;
    for (size_t i = 0; i < n; i++) {
        const struct bns_lin_op *op = &s->ops[order[i]];
        struct event e = {.at = op->call, .op = order[i], .local = i, .is_call = true};
        if (op->ret <= op->call)
            goto out;
        s->events[s->events_count++] = e;
        e.at = op->ret;
        e.is_call = false;
        if (op->ret != BNS_LIN_OPEN)
            s->events[s->events_count++] = e;
        s->returns_left += op->ret != BNS_LIN_OPEN;
    }
    search_link(s, calls);
    rv = BNS_OK;
out:
    bns_free(a, calls);
    return rv;
}

/* ---- by key ---------------------------------------------------------------------------------- */

struct keyed {
    uint64_t key;
    size_t op;
};

static int by_key(const void *a, const void *b)
{
    const struct keyed *x = a;
    const struct keyed *y = b;
    int c = (x->key > y->key) - (x->key < y->key);
    return c != 0 ? c : (x->op > y->op) - (x->op < y->op);
}

int bns_lin_check(const struct bns_alloc *alloc, const struct bns_lin_model *m,
                  const struct bns_lin_op *ops, size_t count, uint64_t visited_max,
                  struct bns_lin_result *res)
{
    struct keyed *keyed = bns_alloc_array(alloc, count + 1, sizeof *keyed);
    size_t *order = bns_alloc_array(alloc, count + 1, sizeof *order);
    uint64_t visited = 0;
    int rv = BNS_E_NOMEM;

    if (keyed == NULL || order == NULL)
        goto out;
    for (size_t i = 0; i < count; i++)
        keyed[i] = (struct keyed){ops[i].key, i};
    qsort(keyed, count, sizeof keyed[0], by_key);
    rv = BNS_OK;
    for (size_t i = 0; i < count && rv == BNS_OK;) {
        struct search s = {.model = m, .ops = ops, .seen.alloc = alloc, .visited = &visited};
        size_t n = 0;
        uint64_t key = keyed[i].key;

        while (i < count && keyed[i].key == key)
            order[n++] = keyed[i++].op;
        s.visited_max = visited_max != 0 ? visited_max : 1000000;
        rv = search_init(&s, order, n);
        if (rv == BNS_OK)
            rv = search_run(&s);
        if (res != NULL)
            *res = (struct bns_lin_result){
                .key = key, .op = s.best_op, .prefix = s.best_depth, .visited = visited};
        search_free(&s);
    }
out:
    bns_free(alloc, keyed);
    bns_free(alloc, order);
    return rv;
}

/* ---- store-wide revisions -------------------------------------------------------------------- */

static bool is_change(const struct bns_lin_op *op)
{
    return op->f != BNS_LIN_GET && !op->failed;
}

static int by_rev(const void *a, const void *b)
{
    const struct bns_lin_op *x = *(const struct bns_lin_op *const *)a;
    const struct bns_lin_op *y = *(const struct bns_lin_op *const *)b;
    int c = (x->rev > y->rev) - (x->rev < y->rev);
    return c != 0 ? c : (x->call > y->call) - (x->call < y->call);
}

/* One revision, seen from the larger ones: *ret_min is the earliest return of those. */
static const struct bns_lin_op *bad_in_group(const struct bns_lin_op **group, size_t n,
                                             uint64_t *ret_min)
{
    uint64_t earlier = *ret_min;
    bool changed = false;

    for (size_t i = 0; i < n; i++) {
        if (group[i]->ret < *ret_min)
            *ret_min = group[i]->ret;
        if (!is_change(group[i]))
            continue;
        if (changed || group[i]->call > earlier)
            return group[i];
        changed = true;
    }
    return NULL;
}

int bns_lin_revisions(const struct bns_alloc *alloc, const struct bns_lin_op *ops, size_t count,
                      struct bns_lin_result *res)
{
    const struct bns_lin_op **sorted = bns_alloc_array(alloc, count + 1, sizeof *sorted);
    const struct bns_lin_op *bad = NULL;
    uint64_t ret_min = UINT64_MAX;
    size_t n = 0;

    if (sorted == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < count; i++) {
        if (ops[i].rev != 0 && ops[i].ret != BNS_LIN_OPEN && !ops[i].failed)
            sorted[n++] = &ops[i];
    }
    qsort(sorted, n, sizeof sorted[0], by_rev);
    for (size_t first = n; n > 0 && bad == NULL; n = first) { /* largest revision first */
        first = n - 1;
        while (first > 0 && sorted[first - 1]->rev == sorted[first]->rev)
            first--;
        bad = bad_in_group(sorted + first, n - first, &ret_min);
    }
    if (bad != NULL && res != NULL)
        *res = (struct bns_lin_result){.key = bad->key, .op = (size_t)(bad - ops)};
    bns_free(alloc, sorted);
    return bad == NULL ? BNS_OK : BNS_E_CONFLICT;
}
