/* history_pair.c - which completion belongs to which invocation.
 *
 * A process has one operation at a time, so the completion belongs to the last invocation of its
 * process. A process whose operation ended with info is dead: a client that goes on takes another
 * number.
 *
 * May fail: no memory; what the history says (validated, never asserted).
 */
#include "base/hmap.h"
#include "base/list.h"
#include "sim/history_impl.h"

struct process {
    struct bns_hnode node;
    int64_t number;
    size_t call; /* under way: its place in calls */
    bool busy;
    bool dead; /* it ended with info */
};

struct pairing {
    struct bns_history *h;
    const struct bns_alloc *alloc;
    struct bns_hmap map;
    struct bns_history_call *calls;
    size_t count;
    struct bns_err *err;
};

int bns_history_json(const char *text, json_t **out)
{
    *out = text == NULL ? json_null() : json_loads(text, JSON_DECODE_ANY, NULL);
    return *out == NULL ? BNS_E_NOMEM : BNS_OK; /* the text was made by the history */
}

static struct process *process_of(struct pairing *p, int64_t number)
{
    uint64_t hash = bns_hash_u64(0, (uint64_t)number);
    struct process *x;

    for (struct bns_hnode *n = bns_hmap_find(&p->map, hash); n != NULL; n = bns_hmap_find_next(n)) {
        x = BNS_CONTAINER(n, struct process, node);
        if (x->number == number)
            return x;
    }
    x = bns_alloc_zero(p->alloc, sizeof *x);
    if (x == NULL)
        return NULL;
    x->number = number;
    if (bns_hmap_insert(&p->map, &x->node, hash) != BNS_OK) {
        bns_free(p->alloc, x);
        return NULL;
    }
    return x;
}

static int bad(struct pairing *p, size_t i, const char *what)
{
    return bns_err_set(p->err, BNS_E_INVALID, "history line %zu: %s", i + 1, what);
}

static int pair_one(struct pairing *p, size_t i)
{
    struct bns_history_event e = bns_history_at(p->h, i);
    struct process *x;
    struct bns_history_call *c;

    if (strcmp(e.f, "watch") == 0 || (e.process == -1 && e.type == BNS_HIST_INFO))
        return BNS_OK;
    x = process_of(p, e.process);
    if (x == NULL)
        return bns_err_set(p->err, BNS_E_NOMEM, "no memory for a process");
    if (e.type == BNS_HIST_INVOKE) {
        if (x->busy)
            return bad(p, i, "the process has an operation under way");
        if (x->dead)
            return bad(p, i, "the process ended with info before");
        x->busy = true;
        x->call = p->count;
        p->calls[p->count++] = (struct bns_history_call){.call = i,
                                                         .ret = BNS_HISTORY_NONE,
                                                         .process = e.process,
                                                         .end = BNS_HIST_INFO,
                                                         .call_ns = e.time,
                                                         .ret_ns = UINT64_MAX,
                                                         .key_id = bns_history_key_id(p->h, i),
                                                         .f = e.f,
                                                         .key = e.key,
                                                         .in = e.value};
        return BNS_OK;
    }
    if (!x->busy)
        return bad(p, i, "a completion without an invocation");
    c = &p->calls[x->call];
    x->busy = false;
    x->dead = e.type == BNS_HIST_INFO;
    if (e.time < c->call_ns)
        return bad(p, i, "time goes back");
    c->ret = i;
    c->ret_ns = e.time;
    c->end = e.type;
    c->out = e.value;
    return BNS_OK;
}

int bns_history_pair(struct bns_history *h, struct bns_history_call **calls, size_t *count,
                     struct bns_err *err)
{
    struct pairing p = {.h = h, .alloc = bns_history_alloc(h), .err = err};
    struct bns_hnode *next;
    int rv = BNS_OK;

    *calls = NULL;
    *count = 0;
    bns_hmap_init(&p.map, p.alloc);
    p.calls = bns_alloc_array(p.alloc, bns_history_count(h) + 1, sizeof *p.calls);
    if (p.calls == NULL)
        rv = bns_err_set(err, BNS_E_NOMEM, "no memory for %zu events", bns_history_count(h));
    for (size_t i = 0; i < bns_history_count(h) && rv == BNS_OK; i++)
        rv = pair_one(&p, i);
    for (struct bns_hnode *n = bns_hmap_next(&p.map, NULL); n != NULL; n = next) {
        next = bns_hmap_next(&p.map, n);
        bns_free(p.alloc, BNS_CONTAINER(n, struct process, node));
    }
    bns_hmap_free(&p.map);
    if (rv != BNS_OK) {
        bns_free(p.alloc, p.calls);
        return rv;
    }
    *calls = p.calls;
    *count = p.count;
    return BNS_OK;
}
