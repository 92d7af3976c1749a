/* lease_mark.c - checkpoints of leases: which are due, and what an entry that holds one changes.
 *
 * lease.c has the argument why they end no lease too early. Here: when.
 *
 *   first   TTL / 2, at most ETCD_LEASE_MARK_STEP, after a grant or a renewal
 *   then    TTL / 4, at most ETCD_LEASE_MARK_STEP, after the one before
 *
 * Both follow from the lease's due time and the last checkpoint, so nothing is kept of when it was
 * renewed. The heap of marks is lazy: a renewal puts the due time off and leaves the heap alone; a
 * lease that comes up too early is put back. So a lease that is kept alive costs one look now and
 * then.
 */
#include "lease.h"

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t step(const struct etcd_lease *e)
{
    return least(e->last == 0 ? e->ttl / 2 : e->ttl / 4, ETCD_LEASE_MARK_STEP);
}

/* When what is left has become a step less than what was last said. */
uint64_t etcd_lease_mark_at(const struct etcd_lease *e)
{
    int64_t left = (e->last == 0 ? e->ttl : e->last) - step(e);

    if (e->ttl < ETCD_LEASE_MARK_MIN || left <= 0 || e->due.key == BNS_NEVER)
        return BNS_NEVER;
    return e->due.key - (uint64_t)least(left, (int64_t)(e->due.key / BNS_SEC)) * BNS_SEC;
}

void etcd_lessor_mark_set(struct etcd_lessor *l, struct etcd_lease *e, uint64_t at_ns)
{
    int rv;

    if (at_ns == e->mark.key)
        return;
    bns_heap_del(&l->marks, &e->mark);
    rv = bns_heap_insert(&l->marks, &e->mark, at_ns); /* it has had a place */
    BNS_ASSERT(rv == BNS_OK);
}

uint64_t etcd_lessor_mark_deadline(const struct etcd_lessor *l)
{
    const struct bns_heap_node *n = bns_heap_min(&l->marks);

    return n == NULL || !l->settled || !l->primary || !l->marking ? BNS_NEVER : n->key;
}

/* Rounded up: what is said is never less than what is left. */
static int64_t left_of(const struct etcd_lessor *l, const struct etcd_lease *e, uint64_t now_ns)
{
    uint64_t left_ns = e->due.key > now_ns ? e->due.key - now_ns : 0;

    if (BNS_MUTANT(l, ETCD_MUTANT_MARK_LONG))
        return e->ttl - 1;
    return (int64_t)((left_ns + BNS_SEC - 1) / BNS_SEC);
}

/* Has it lost something since its last checkpoint that is worth saying? */
static bool say(struct etcd_lessor *l, struct etcd_lease *e, uint64_t now_ns, int64_t *seconds)
{
    *seconds = left_of(l, e, now_ns);
    if (e->revoking || e->clearing || e->clears_out > 0 || e->ttl < ETCD_LEASE_MARK_MIN ||
        *seconds <= 0 || *seconds >= (e->last == 0 ? e->ttl : e->last))
        return false;
    e->last = *seconds;
    return true;
}

struct etcd_lease *etcd_lessor_mark(struct etcd_lessor *l, uint64_t now_ns, int64_t *seconds)
{
    while (etcd_lessor_mark_deadline(l) <= now_ns) {
        struct etcd_lease *e = BNS_CONTAINER(bns_heap_min(&l->marks), struct etcd_lease, mark);
        uint64_t at = etcd_lease_mark_at(e);

        if (at <= now_ns && say(l, e, now_ns, seconds)) {
            etcd_lessor_mark_set(l, e, etcd_lease_mark_at(e));
            return e;
        }
        /* it was renewed; or (at <= now) a renewal waits, which comes first */
        etcd_lessor_mark_set(l, e, at > now_ns ? at : now_ns + BNS_SEC);
    }
    return NULL;
}

struct etcd_lease *etcd_lessor_mark_next(struct etcd_lessor *l, uint64_t now_ns,
                                         struct etcd_lease *after, int64_t *seconds)
{
    struct bns_hnode *n = after == NULL ? NULL : &after->node;

    if (!l->primary || !l->settled || !l->marking)
        return NULL;
    while ((n = bns_hmap_next(&l->leases, n)) != NULL) {
        struct etcd_lease *e = BNS_CONTAINER(n, struct etcd_lease, node);

        if (say(l, e, now_ns, seconds))
            return e;
    }
    return NULL;
}

void etcd_lessor_saved(struct etcd_lessor *l, struct etcd_lease *e, int64_t seconds,
                       uint64_t now_ns)
{
    struct bns_list *it;
    struct bns_list waits;

    BNS_ASSERT(seconds >= 0);
    if (e->saved == 0 && seconds != 0)
        l->saved_count++;
    if (e->saved != 0 && seconds == 0)
        l->saved_count--;
    e->saved = seconds;
    if (seconds != 0) {
        if (!l->primary || !l->settled || e->last == 0) /* not of our own making */
            e->last = seconds;
        return;
    }
    e->last = 0;
    e->clearing = false;
    if (e->clears_out > 0) /* one that comes late would hide what was said after it */
        e->clears_out--;
    bns_list_del(&e->clear);
    if (l->primary && l->settled)
        etcd_lessor_mark_set(l, e, now_ns + (uint64_t)step(e) * BNS_SEC); /* or later */
    if (e->ttl < ETCD_LEASE_MARK_MIN)
        etcd_lessor_mark_set(l, e, BNS_NEVER);
    if (e->revoking)
        return; /* they wait for its end */
    bns_list_init(&waits);
    bns_list_splice(&waits, &e->waits);
    while ((it = bns_list_pop(&waits)) != NULL) {
        struct etcd_lease_wait *w = BNS_CONTAINER(it, struct etcd_lease_wait, node);

        bns_list_init(&w->node);
        w->fn(w, BNS_OK);
    }
}
