/* lease.c - the lessor: leases by id, keys by name, due times in a heap.
 *
 * A lease is held by three structures: the map by id, the heap of due times (always, so that
 * starting the clock, renewing and spreading cannot run out of memory), and the tree of its keys.
 * A key on a lease stands in that tree and in the map by key: so a put or a delete finds the lease
 * that it must leave in one step, without reading the key's row.
 *
 * Who may expire a lease, and why never too early
 * -----------------------------------------------
 * A client that sent a keepalive (or a grant) at time A and got an answer may count on the lease
 * until A + TTL. Only the leader's clock decides. Let a leader of term T answer a keepalive:
 *
 *  1. It has first had its leadership confirmed by a quorum in a round that began after the request
 *     arrived (ReadIndex, lease_ask.c). So every leader of a later term is elected after A.
 *  2. A new leader gives every lease its full TTL from its election on (promote), or what a
 *     checkpoint says is left of it (below). So a later leader's clock ends the lease after
 *     A + TTL. The leader of T itself set it to at least A + TTL.
 *  3. Expiry is a proposal, and it takes effect only in an entry of the term whose leader's clock
 *     decided it (only_in_term, lease_kv.c). A proposal that a deposed leader still holds, and that
 *     would now be forwarded to its successor, does nothing.
 *     For the same reason it names the entry that granted the lease: the id may have been revoked
 *     and granted anew while the proposal was on its way.
 *  4. An entry of term T that revokes may still be committed by the leader of a later term. That
 *     leader answers keepalives only after it has applied everything committed before (ReadIndex
 *     again), so it then finds no lease, and answers TTL 0.
 *
 * A leader that is cut off or paused (SIGSTOP) and wakes up cannot pass 1, and its proposals of the
 * old term are overwritten. Once a revocation is proposed the lease is not renewed in that term:
 * a keepalive waits until it is gone, or until the leader is deposed.
 *
 * Checkpoints: the TTL survives the leader (lease_mark.c)
 * -------------------------------------------------------
 * Point 2 alone would give a lease that nobody renews a new life with each leader. So the leader
 * writes into the log, now and then, how much of a lease is left: R seconds, rounded up, by its
 * clock at time C. A later leader, elected at E, gives that lease R from E on, not the TTL. Let a
 * renewal asked for at A have been answered. Never too early is A + TTL <= E + R:
 *
 *  5. Answered before C, by the same leader: then its clock said at C that the lease ends at
 *     A + TTL or later, R is at least the rest of that, and E is after C. By a former leader: this
 *     leader gave it at least as much from its own election on (2, 5 and 6, by induction).
 *  6. Asked for after the checkpoint was proposed, in whichever term: the leader does not answer
 *     while a checkpoint of the lease stands in the state it has applied or in what it has itself
 *     proposed (`last`). It proposes that the checkpoint is taken back, and answers once that is
 *     applied. Both are entries of its own log, in this order, so every later leader has applied
 *     that one too, and gives the TTL, or what a newer checkpoint says.
 *     What a leader of a former term may still have proposed is no danger: entries of it that are
 *     in the log at all are applied before this leader's first answer (1).
 *  7. A checkpoint takes effect only in an entry of the term whose leader's clock made it
 *     (only_in_term) and on the lease that was granted by the same entry: as with 3, a proposal
 *     that is late, or about a former lease of this id, does nothing.
 *  8. A new leader has the entry that takes a checkpoint back, but perhaps not applied yet. So it
 *     starts with full TTLs, and uses checkpoints (settle) only once an entry of its own term is
 *     applied: then all before it are, too.
 *
 * A lease that is renewed every third of its TTL never gets one: the first comes when half of the
 * TTL (or a minute) has passed since a renewal, further ones every quarter (or minute).
 *
 * Differences from etcd, both to the better of who holds a lease: a keepalive that arrives between
 * the due time and the proposal renews it; a loop that stood still hears its clients once more
 * before it expires anything (lease_kv.c).
 */
#include "lease.h"

#include <stdlib.h>

#include "lease_keys.h"

#define SPREAD_MIN 1000u       /* fewer leases than this are not spread */
#define SPREAD_PER_SECOND 750u /* etcd: three quarters of what is revoked in a second */

void etcd_lessor_init(struct etcd_lessor *l, const struct bns_alloc *alloc, uint64_t seed)
{
    *l = (struct etcd_lessor){.alloc = alloc, .seed = seed};
    bns_hmap_init(&l->leases, alloc);
    bns_hmap_init(&l->keys, alloc);
    bns_heap_init(&l->due, alloc);
    bns_heap_init(&l->marks, alloc);
    bns_list_init(&l->clears);
    l->marking = true;
}

struct etcd_lease *etcd_lessor_find(const struct etcd_lessor *l, int64_t id)
{
    struct bns_hnode *n = NULL;

    if (l->leases.count > 0)
        n = bns_hmap_find(&l->leases, bns_hash_u64(l->seed, (uint64_t)id));
    for (; n != NULL; n = bns_hmap_find_next(n)) {
        struct etcd_lease *e = BNS_CONTAINER(n, struct etcd_lease, node);
        if (e->id == id)
            return e;
    }
    return NULL;
}

static struct etcd_lease_key *find_key(const struct etcd_lessor *l, struct bns_slice key)
{
    struct bns_hnode *n = NULL;

    if (l->keys.count > 0)
        n = bns_hmap_find(&l->keys, bns_hash(l->seed, key.ptr, key.len));
    for (; n != NULL; n = bns_hmap_find_next(n)) {
        struct etcd_lease_key *k = BNS_CONTAINER(n, struct etcd_lease_key, node);
        if (bns_slice_eq(k->key, key))
            return k;
    }
    return NULL;
}

static uint64_t due_at(const struct etcd_lease *e, uint64_t now_ns)
{
    return now_ns + (uint64_t)e->ttl * BNS_SEC; /* at most 9e18, below 2^64 for 300 years of now */
}

/* The heap has a place for it: taken out and put back it needs no memory. */
static void set_due(struct etcd_lessor *l, struct etcd_lease *e, uint64_t at_ns)
{
    int rv;

    bns_heap_del(&l->due, &e->due);
    rv = bns_heap_insert(&l->due, &e->due, at_ns);
    BNS_ASSERT(rv == BNS_OK);
}

static void tell(struct etcd_lease *e, int code)
{
    struct bns_list *it;

    while ((it = bns_list_pop(&e->waits)) != NULL) {
        struct etcd_lease_wait *w = BNS_CONTAINER(it, struct etcd_lease_wait, node);

        bns_list_init(&w->node);
        w->fn(w, code);
    }
}

static struct etcd_lease *lease_new(struct etcd_lessor *l, int64_t id)
{
    struct etcd_lease *e = bns_alloc_zero(l->alloc, sizeof *e);

    if (e == NULL)
        return NULL;
    e->id = id;
    bns_list_init(&e->waits);
    bns_list_init(&e->clear);
    if (bns_heap_insert(&l->due, &e->due, BNS_NEVER) != BNS_OK)
        goto fail;
    if (bns_heap_insert(&l->marks, &e->mark, BNS_NEVER) != BNS_OK)
        goto fail;
    if (bns_hmap_insert(&l->leases, &e->node, bns_hash_u64(l->seed, (uint64_t)id)) != BNS_OK)
        goto fail;
    return e;

fail:
    bns_heap_del(&l->marks, &e->mark);
    bns_heap_del(&l->due, &e->due);
    bns_free(l->alloc, e);
    return NULL;
}

static void lease_free(struct etcd_lessor *l, struct etcd_lease *e)
{
    BNS_ASSERT(e->keys_count == 0);
    BNS_ASSERT(bns_list_empty(&e->waits));
    if (e->saved != 0)
        l->saved_count--;
    bns_list_del(&e->clear);
    bns_heap_del(&l->marks, &e->mark);
    bns_heap_del(&l->due, &e->due);
    bns_hmap_del(&l->leases, &e->node);
    bns_free(l->alloc, e);
}

static void key_free(struct etcd_lessor *l, struct etcd_lease_key *k)
{
    BNS_ASSERT(k->lease->keys_count > 0);
    k->lease->keys_count--;
    etcd_lease_keys_del(&k->lease->keys, k);
    bns_hmap_del(&l->keys, &k->node);
    bns_free(l->alloc, k);
}

void etcd_lessor_clear(struct etcd_lessor *l)
{
    struct bns_hnode *n;

    if (l->alloc == NULL)
        return;
    while ((n = bns_hmap_next(&l->leases, NULL)) != NULL) {
        struct etcd_lease *e = BNS_CONTAINER(n, struct etcd_lease, node);

        while (e->keys != NULL)
            key_free(l, e->keys);
        tell(e, BNS_E_NOTLEADER);
        lease_free(l, e);
    }
    bns_hmap_free(&l->leases);
    bns_hmap_free(&l->keys);
    bns_heap_free(&l->due);
    bns_heap_free(&l->marks);
    bns_heap_init(&l->marks, l->alloc);
    bns_hmap_init(&l->leases, l->alloc);
    bns_hmap_init(&l->keys, l->alloc);
    bns_heap_init(&l->due, l->alloc);
}

/* ---- what entries change -------------------------------------------------------------------- */

int etcd_lessor_grant(struct etcd_lessor *l, int64_t id, int64_t ttl, uint64_t index,
                      uint64_t now_ns)
{
    struct etcd_lease *e = etcd_lessor_find(l, id);

    BNS_ASSERT(id != 0);
    BNS_ASSERT(ttl > 0);
    BNS_ASSERT(ttl <= ETCD_LEASE_TTL_MAX);
    if (e != NULL && e->ttl != 0)
        return BNS_E_EXISTS;
    if (e == NULL)
        e = lease_new(l, id);
    if (e == NULL)
        return BNS_E_NOMEM;
    e->ttl = ttl;
    e->index = index;
    if (l->primary) {
        set_due(l, e, due_at(e, now_ns));
        etcd_lessor_mark_set(l, e, etcd_lease_mark_at(e));
    }
    return BNS_OK;
}

void etcd_lessor_revoke(struct etcd_lessor *l, struct etcd_lease *e)
{
    struct bns_list waits; /* told when the lease is gone */
    struct bns_list *it;

    bns_list_init(&waits);
    bns_list_splice(&waits, &e->waits);
    lease_free(l, e);
    while ((it = bns_list_pop(&waits)) != NULL) {
        struct etcd_lease_wait *w = BNS_CONTAINER(it, struct etcd_lease_wait, node);

        bns_list_init(&w->node);
        w->fn(w, BNS_E_NOTFOUND);
    }
}

/* A lease that only a key spoke of, and that no key speaks of any more: it was revoked long ago. */
static void drop_unknown(struct etcd_lessor *l, struct etcd_lease *e)
{
    if (e->ttl == 0 && e->keys_count == 0)
        lease_free(l, e);
}

int etcd_lessor_attach(struct etcd_lessor *l, int64_t id, struct bns_slice key)
{
    struct etcd_lease_key *k = find_key(l, key);
    struct etcd_lease *e = etcd_lessor_find(l, id), *old;

    BNS_ASSERT(id != 0);
    if (e == NULL)
        e = lease_new(l, id);
    if (e == NULL)
        return BNS_E_NOMEM;
    if (k == NULL) {
        k = bns_alloc_zero(l->alloc, sizeof *k);
        if (k == NULL) {
            drop_unknown(l, e);
            return BNS_E_NOMEM;
        }
        if (bns_hmap_insert(&l->keys, &k->node, bns_hash(l->seed, key.ptr, key.len)) != BNS_OK) {
            bns_free(l->alloc, k);
            drop_unknown(l, e);
            return BNS_E_NOMEM;
        }
        k->key = key;
    } else {
        old = k->lease;
        etcd_lease_keys_del(&old->keys, k);
        old->keys_count--;
        if (old != e)
            drop_unknown(l, old);
    }
    k->lease = e;
    etcd_lease_keys_add(&e->keys, k);
    e->keys_count++;
    return BNS_OK;
}

void etcd_lessor_detach(struct etcd_lessor *l, struct bns_slice key)
{
    struct etcd_lease_key *k = find_key(l, key);
    struct etcd_lease *e;

    if (k == NULL)
        return;
    e = k->lease;
    key_free(l, k);
    drop_unknown(l, e);
}

int64_t etcd_lessor_of(const struct etcd_lessor *l, struct bns_slice key)
{
    const struct etcd_lease_key *k = find_key(l, key);

    return k == NULL ? 0 : k->lease->id;
}

bool etcd_lessor_settled(const struct etcd_lessor *l)
{
    struct bns_hnode *n = NULL;

    while ((n = bns_hmap_next(&l->leases, n)) != NULL) {
        if (BNS_CONTAINER(n, struct etcd_lease, node)->ttl == 0)
            return false;
    }
    return true;
}

/* ---- the clock ------------------------------------------------------------------------------ */

static int due_order(const void *a, const void *b)
{
    const struct etcd_lease *x = *(struct etcd_lease *const *)a;
    const struct etcd_lease *y = *(struct etcd_lease *const *)b;

    if (x->due.key != y->due.key)
        return x->due.key < y->due.key ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* At most SPREAD_PER_SECOND in any second. Without memory for it the leases end as they are due,
 * and the bound on proposals alone spreads them. */
static void spread(struct etcd_lessor *l)
{
    size_t n = 0, count = l->leases.count;
    struct etcd_lease **all;
    struct bns_hnode *h = NULL;

    if (count < SPREAD_MIN)
        return;
    all = bns_alloc_array(l->alloc, count, sizeof(struct etcd_lease *));
    if (all == NULL)
        return;
    while ((h = bns_hmap_next(&l->leases, h)) != NULL)
        all[n++] = BNS_CONTAINER(h, struct etcd_lease, node);
    qsort(all, n, sizeof(struct etcd_lease *), due_order);
    for (size_t i = SPREAD_PER_SECOND; i < n; i++) {
        uint64_t earliest = all[i - SPREAD_PER_SECOND]->due.key + BNS_SEC;

        if (all[i]->due.key < earliest)
            set_due(l, all[i], earliest);
    }
    bns_free(l->alloc, all);
}

void etcd_lessor_promote(struct etcd_lessor *l, uint64_t now_ns, uint64_t extend_ns)
{
    struct bns_hnode *n = NULL;

    l->primary = true;
    l->settled = false;
    l->promoted_ns = now_ns;
    l->extend_ns = extend_ns;
    while ((n = bns_hmap_next(&l->leases, n)) != NULL) {
        struct etcd_lease *e = BNS_CONTAINER(n, struct etcd_lease, node);

        e->revoking = e->proposed = e->clearing = false;
        e->last = e->saved;
        e->clears_out = 0;
        bns_list_del(&e->clear);
        if (!BNS_MUTANT(l, ETCD_MUTANT_INHERITED))
            set_due(l, e, due_at(e, now_ns) + extend_ns);
        etcd_lessor_mark_set(l, e, BNS_NEVER);
    }
    if (BNS_MUTANT(l, ETCD_MUTANT_MARK_EARLY))
        etcd_lessor_settle(l);
    spread(l);
}

void etcd_lessor_settle(struct etcd_lessor *l)
{
    struct bns_hnode *n = NULL;

    if (!l->primary || l->settled)
        return;
    l->settled = true;
    while ((n = bns_hmap_next(&l->leases, n)) != NULL) {
        struct etcd_lease *e = BNS_CONTAINER(n, struct etcd_lease, node);
        uint64_t left = l->promoted_ns + (uint64_t)e->saved * BNS_SEC + l->extend_ns;

        /* one that was renewed meanwhile was not told so: its checkpoint stands */
        if (e->saved != 0 && !e->revoking && left < e->due.key)
            set_due(l, e, left);
        etcd_lessor_mark_set(l, e, etcd_lease_mark_at(e));
    }
    spread(l);
}

void etcd_lessor_demote(struct etcd_lessor *l)
{
    struct bns_hnode *n = NULL;

    if (!l->primary)
        return;
    l->primary = false;
    while ((n = bns_hmap_next(&l->leases, n)) != NULL) {
        struct etcd_lease *e = BNS_CONTAINER(n, struct etcd_lease, node);

        e->revoking = e->proposed = e->clearing = false;
        e->last = e->saved;
        e->clears_out = 0;
        bns_list_del(&e->clear);
        set_due(l, e, BNS_NEVER);
        etcd_lessor_mark_set(l, e, BNS_NEVER);
        tell(e, BNS_E_NOTLEADER);
    }
}

bool etcd_lessor_renew(struct etcd_lessor *l, struct etcd_lease *e, uint64_t now_ns)
{
    BNS_ASSERT(l->primary);
    if (e->revoking)
        return false;
    if (due_at(e, now_ns) > e->due.key) /* never shortened: a new leader may have given more */
        set_due(l, e, due_at(e, now_ns));
    return e->last == 0 || BNS_MUTANT(l, ETCD_MUTANT_MARK_SHORT);
}

void etcd_lessor_wait(struct etcd_lease *e, struct etcd_lease_wait *w)
{
    BNS_ASSERT(e->revoking || e->last != 0);
    bns_list_push(&e->waits, &w->node);
}

void etcd_lessor_unwait(struct etcd_lease_wait *w)
{
    bns_list_del(&w->node);
}

struct etcd_lease *etcd_lessor_expired(struct etcd_lessor *l, uint64_t now_ns, uint64_t retry_ns)
{
    struct bns_heap_node *n = bns_heap_min(&l->due);
    struct etcd_lease *e;

    if (!l->primary || n == NULL || n->key > now_ns)
        return NULL;
    e = BNS_CONTAINER(n, struct etcd_lease, due);
    e->revoking = true;
    set_due(l, e, now_ns + retry_ns);
    return e;
}

void etcd_lessor_proposed(struct etcd_lease *e, bool taken)
{
    BNS_ASSERT(e->revoking);
    if (taken)
        e->proposed = true;
    else if (!e->proposed)
        e->revoking = false;
}

uint64_t etcd_lessor_deadline(const struct etcd_lessor *l)
{
    const struct bns_heap_node *n = bns_heap_min(&l->due);

    return n == NULL || !l->primary ? BNS_NEVER : n->key;
}

int64_t etcd_lease_remaining(const struct etcd_lease *e, uint64_t now_ns)
{
    if (e->revoking || e->due.key <= now_ns)
        return 0;
    return (int64_t)((e->due.key - now_ns) / BNS_SEC);
}
