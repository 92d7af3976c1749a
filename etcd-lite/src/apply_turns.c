/* apply_turns.c - entries that change very many keys, spread over turns of the loop.
 *
 * A delete of a million keys, or a lease that ends with so many, is one entry of the log, one
 * revision and one answer, and may take seconds. The loop also sends heartbeats, answers votes and
 * renews leases, so an apply may not hold it: each turn has room for TURN_KEYS keys (about 2 ms),
 * then the entry stays open and a task goes on with it in the next turn. The raft node knows only
 * that the batch is not applied yet.
 *
 * Why nobody sees half of it
 * --------------------------
 * While an entry is open, kv->now is the state before it: revision, applied index, term and digest
 * change in one step when it is over (etcd_exec_end, conclude). What has been done already is
 * marked with the revision to come, now.revision + 1, and everyone looks by revision:
 *
 *  1. Reads (Range, transactions, HashKV, sessions) find the newest row of a key at or before
 *     now.revision. Index entries above it are passed over. A read at now.revision + 1 is refused
 *     as a future one.
 *  2. Watches are told which targets the rows concern as rows come to be, because looking them up
 *     for a million rows at the end would be a long turn too. A watch whose next revision is the
 *     open one is behind, but the pump puts it aside (hub->held) until the entry is over; batches
 *     end at now.revision. A watch that is created meanwhile counts as behind likewise, for it may
 *     have missed rows that were told before it came.
 *  3. Leases: keys leave them as they are deleted. Who asks for the keys of a lease (lease_look.c)
 *     waits until no entry is open. Renewals and due times do not depend on keys.
 *  4. Rows go to the store as they come, each batch with meta as of before the entry. So the file
 *     may hold rows above its own revision. They do not count: opening a store, after a crash or
 *     out of a snapshot, deletes them first (etcd_store_attach), and the entry, which is above the
 *     applied index, is applied again from its beginning. The copy that becomes a bbolt file leaves
 *     them out (bolt_export.c).
 *  5. Compaction: at most now.revision, so it takes none of the new rows, and none that the entry
 *     still looks at: a key that is alive now is kept. Keys that are dead may go, so a delete goes
 *     on by the key's bytes, not by its place in memory.
 *  6. Other entries wait: applies are one after the other. A snapshot that comes in waits for the
 *     batch under way.
 *
 * Why all members do the same: the order of keys and the sub revisions depend on the entry and on
 * the state before it alone, not on where the turns end. The keys of a lease are in order anyway
 * (lease_keys.c).
 *
 * Bounds: rows wait for the store only up to QUEUE_OPEN bytes, then the entry waits, so that reads
 * of clients are not far behind in the store's queue. Memory does not grow with the entry, but
 * for prev_kv, which is the client's wish.
 *
 * Planted bugs: 120 leaves rows of an entry that did not end in the file; 121 shows the revision
 * after the first turn.
 */
#include "kv_impl.h"

#define TURN_KEYS 1024u
#define QUEUE_OPEN (UINT64_C(2) << 20)

static void run(struct bns_task *t)
{
    struct etcd_kv *kv =
        BNS_CONTAINER(BNS_CONTAINER(t, struct etcd_apply, task), struct etcd_kv, apply);

    kv->apply.posted = false;
    etcd_kv_check_drained(kv);
    etcd_apply_step(kv);
}

void etcd_turns_init(struct etcd_kv *kv)
{
    struct etcd_apply *ap = &kv->apply;

    if (kv->turn_keys == 0)
        kv->turn_keys = TURN_KEYS;
    ap->task.fn = run;
    bns_buf_init(&ap->x.cursor, kv->alloc, SIZE_MAX);
}

void etcd_turns_free(struct etcd_kv *kv)
{
    struct etcd_apply *ap = &kv->apply;

    if (ap->p != NULL)
        etcd_pending_free(ap->p);
    ap->p = NULL;
    bns_buf_free(&ap->x.cursor);
}

static void post(struct etcd_kv *kv)
{
    if (kv->apply.posted)
        return;
    kv->apply.posted = true;
    bns_post(kv->env, &kv->apply.task);
}

bool etcd_turn_begins(struct etcd_kv *kv)
{
    struct etcd_apply *ap = &kv->apply;
    uint64_t queue = ap->open && kv->queue_bytes > QUEUE_OPEN ? QUEUE_OPEN : kv->queue_bytes;

    if (ap->room == 0) {
        post(kv);
        return false;
    }
    if (!ap->open && etcd_look_first(kv))
        return false; /* it comes back here */
    /* on_read and written come back here */
    return kv->queued_bytes <= queue && kv->reading_bytes <= kv->read_bytes;
}

void etcd_exec_begin(struct etcd_kv *kv, struct etcd_pending *p)
{
    struct etcd_exec *x = &kv->apply.x;
    struct bns_buf cursor = x->cursor;

    *x = (struct etcd_exec){.kv = kv,
                            .ev = &kv->apply.eval,
                            .p = p,
                            .begin = kv->now.revision,
                            .digest = kv->now.digest,
                            .cursor = cursor};
}

void etcd_exec_pause(struct etcd_exec *x)
{
    struct etcd_kv *kv = x->kv;

    kv->apply.open = true;
    x->step = 0;
    x->ev->path_pos = 0;
    if (x->changes > x->told)
        etcd_watch_open_rows(kv, x->changes - x->told);
    x->told = x->changes;
    if (BNS_MUTANT(kv->env, ETCD_MUTANT_HALF_SEEN) && x->changes > 0)
        kv->now.revision = x->begin + 1;
}

void etcd_exec_end(struct etcd_exec *x)
{
    struct etcd_kv *kv = x->kv;

    if (x->changes == 0)
        return;
    kv->now.digest = x->digest;
    if (x->told > 0)
        etcd_watch_open_rows(kv, x->changes - x->told);
    kv->now.revision = x->begin + 1;
    if (x->told > 0)
        etcd_watch_open_ends(kv);
    else
        etcd_watch_notify(kv, x->changes);
}

int64_t etcd_open_revision(const struct etcd_kv *kv)
{
    return kv->now.revision + (kv->apply.open && kv->apply.x.changes > 0);
}
