/* apply.c - committed entries become state.
 *
 * An entry changes the index at once and its rows go to the store with the rest of the batch, so an
 * apply ends without waiting for SQLite. It waits in three cases: the entry's decision needs a row
 * that is not in memory (VALUE and LEASE compares, ignore_value, ignore_lease); too many bytes are
 * queued for the store; answers to earlier writes still read too much.
 *
 * An entry that changes very many keys takes more than one turn of the loop (apply_turns.c).
 *
 * An entry that cannot be decoded was not proposed by one of us: every member skips it alike.
 */
#include "kv_impl.h"

#include "auth.h"
#include "base/varint.h"
#include "codec/pb.h"
#include "proto/raft_msg.h"

#define FLUSH_BYTES (UINT64_C(1) << 20)
#define REQUEST_BYTES_MAX ((size_t)256 << 20)
#define REQUEST_ELEMENTS_MAX 4000000u

struct bns_rcbuf *etcd_internal_encode_as(const struct bns_alloc *alloc, uint64_t id,
                                          const struct etcd_who *who, enum etcd_op op,
                                          struct bns_slice request)
{
    uint64_t tag = (uint64_t)op << 3 | 2;
    size_t head_len = 1 + bns_varint_len(id) + bns_pb_len_u64(3, who->revision) +
                      (who->name.len == 0 ? 0 : bns_pb_len_bytes(2, who->name.len));
    size_t len = 2 + bns_varint_len(head_len) + head_len + bns_varint_len(tag) +
                 bns_varint_len(request.len) + request.len;
    struct bns_rcbuf *b = bns_rcbuf_new(alloc, len + BNS_VARINT_MAX);
    uint8_t *p;

    BNS_ASSERT(id != 0);
    if (b == NULL)
        return NULL;
    p = b->bytes;
    p += bns_varint_put(p, tag);
    p += bns_varint_put(p, request.len);
    if (request.len > 0)
        memcpy(p, request.ptr, request.len);
    p += request.len;
    p += bns_varint_put(p, 100 << 3 | 2); /* header: ID, username, auth_revision */
    p += bns_varint_put(p, head_len);
    *p++ = 1 << 3;
    p += bns_varint_put(p, id);
    if (who->name.len > 0) {
        *p++ = 2 << 3 | 2;
        p += bns_varint_put(p, who->name.len);
        memcpy(p, who->name.ptr, who->name.len);
        p += who->name.len;
    }
    if (who->revision > 0) {
        *p++ = 3 << 3;
        p += bns_varint_put(p, who->revision);
    }
    BNS_ASSERT((size_t)(p - b->bytes) == len);
    b->len = (uint32_t)len;
    return b;
}

struct bns_rcbuf *etcd_internal_encode(const struct bns_alloc *alloc, uint64_t id, enum etcd_op op,
                                       struct bns_slice request)
{
    static const struct etcd_who nobody = {.revision = 0};

    return etcd_internal_encode_as(alloc, id, &nobody, op, request);
}

static struct etcd_waiter *take_waiter(struct etcd_kv *kv, uint64_t id)
{
    struct bns_hnode *n = NULL;

    if (id != 0 && kv->waiters.count > 0)
        n = bns_hmap_find(&kv->waiters, bns_hash_u64(kv->seed, id));
    for (; n != NULL; n = bns_hmap_find_next(n)) {
        struct etcd_waiter *w = BNS_CONTAINER(n, struct etcd_waiter, node);
        if (w->id == id) {
            bns_hmap_del(&kv->waiters, n);
            return w;
        }
    }
    return NULL;
}

static uint64_t id_of(const Etcdserverpb__InternalRaftRequest *r)
{
    return r->header != NULL && r->header->id != 0 ? r->header->id : r->id;
}

static const Etcdserverpb__InternalRaftRequest *decode(struct etcd_kv *kv,
                                                       const struct bns_raft_entry *e)
{
    const struct bns_pb_limits limits = {
        .bytes = REQUEST_BYTES_MAX, .depth = 200, .elements = REQUEST_ELEMENTS_MAX};
    struct bns_err err = {0};
    ProtobufCMessage *m = NULL;
    int rv;

    if (kv->apply.req != NULL) /* read again after rows were fetched */
        return kv->apply.req;
    rv = bns_pb_unpack(&etcdserverpb__internal_raft_request__descriptor, bns_rcbuf_slice(e->data),
                       &kv->apply.arena, &limits, &m, &err);
    if (rv == BNS_E_NOMEM) {
        etcd_kv_fatal(kv, rv, "out of memory while applying");
    } else if (rv != BNS_OK) {
        BNS_LOG(kv->env->log, BNS_LOG_ERROR, "kv", "an entry is not a request: skipped",
                BNS_U64("index", e->index), BNS_STR("error", err.text));
    }
    kv->apply.req = (Etcdserverpb__InternalRaftRequest *)m;
    return kv->apply.req;
}

/* May it run? On MISSING rows are being noted in the eval. */
static enum etcd_step check(struct etcd_kv *kv, const Etcdserverpb__InternalRaftRequest *r,
                            struct etcd_status *why)
{
    struct etcd_eval *ev = &kv->apply.eval;
    enum etcd_step step;

    *why = etcd_alarm_refuses(kv, r);
    if (why->code != 0)
        return ETCD_REFUSED;
    if (r->put != NULL)
        return etcd_put_check(ev, r->put, kv->now.revision, why);
    if (r->delete_range != NULL || r->txn == NULL)
        return ETCD_GO;
    step = etcd_txn_path(ev, r->txn, kv->now.revision);
    return step == ETCD_GO ? etcd_txn_check(ev, r->txn, kv->now.revision, why) : step;
}

static int execute(struct etcd_kv *kv, const Etcdserverpb__InternalRaftRequest *r,
                   struct etcd_pending *p)
{
    struct etcd_exec *x = &kv->apply.x;
    int rv = BNS_OK;

    if (!kv->apply.open)
        etcd_exec_begin(kv, p);
    if (r->put != NULL) {
        rv = etcd_exec_put(x, r->put, false);
    } else if (r->delete_range != NULL) {
        rv = etcd_exec_delete(x, r->delete_range, false);
    } else if (r->txn != NULL) {
        bns_counter_add(kv->m_txn, !kv->apply.open);
        rv = etcd_exec_txn(x, r->txn, false);
    } else if (r->cluster_member_attr_set != NULL) {
        rv = etcd_members_attr(kv, r->cluster_member_attr_set);
    } else if (r->cluster_members != NULL) {
        rv = etcd_members_made(kv, r->cluster_members);
    } else if (r->member_update != NULL) {
        rv = etcd_members_update(kv, r->member_update);
    }
    if (rv == BNS_E_AGAIN)
        etcd_exec_pause(x);
    if (rv == BNS_OK && p != NULL && p->parts_count == 0)
        (void)etcd_pending_part(p, ETCD_PART_COMPACT, false); /* an empty answer */
    if (rv == BNS_OK)
        etcd_exec_end(x);
    return rv;
}

/* The entry is applied: the numbers that say so, then the answer. */
static void conclude(struct etcd_kv *kv, const struct bns_raft_entry *e, struct etcd_pending *p,
                     struct etcd_status why, bool wait)
{
    kv->now.applied = e->index;
    kv->now.term = e->term;
    etcd_lease_applied(kv, e->term);
    kv->meta_dirty = true;
    kv->apply.open = false;
    kv->apply.p = NULL;
    kv->apply.room -= kv->apply.room > 0;
    kv->looks.entered = true;
    kv->apply.req = NULL;
    bns_arena_free(&kv->apply.arena);
    etcd_eval_reset(&kv->apply.eval);
    if (p == NULL)
        return;
    p->revision = kv->now.revision;
    p->index = e->index;
    if (why.code != 0)
        etcd_pending_refuse(p, why);
    else if (wait)
        bns_list_push(&kv->physical, &p->node);
    else
        etcd_pending_run(p);
}

static struct etcd_pending *pending_for(struct etcd_kv *kv, struct etcd_waiter *w)
{
    struct etcd_pending *p = w == NULL ? NULL : etcd_pending_new(kv);

    if (p != NULL) {
        p->waiter = w;
        w->pending = p;
    } else if (w != NULL) {
        struct etcd_answer a = {.status = etcd_answer_lost.code, .text = etcd_answer_lost.text};
        w->fn(w, &a);
    }
    return p;
}

/* An entry that may run; again in the next turn as long as it is open. */
static void run_entry(struct etcd_kv *kv, const struct bns_raft_entry *e,
                      const Etcdserverpb__InternalRaftRequest *r)
{
    struct etcd_pending *p = kv->apply.p;
    struct etcd_status why = etcd_ok;
    bool wait = false;
    int rv = BNS_OK;

    if (r->compaction != NULL) {
        why = etcd_compact_apply(kv, r->compaction->revision);
        wait = r->compaction->physical && kv->compact.running;
        if (p != NULL)
            (void)etcd_pending_part(p, ETCD_PART_COMPACT, false);
    } else if (r->lease_grant != NULL || r->lease_revoke != NULL || r->lease_checkpoint != NULL) {
        rv = etcd_lease_apply(kv, e, r, p, &why);
    } else if (r->alarm != NULL) {
        rv = etcd_alarm_apply(kv, r->alarm, p, &why);
    } else if (etcd_auth_is_op(r)) {
        rv = etcd_auth_apply(kv, e->index, r, &why);
        if (p != NULL)
            (void)etcd_pending_part(p, ETCD_PART_COMPACT, false); /* an empty answer */
    } else {
        rv = execute(kv, r, p);
    }
    if (rv == BNS_OK)
        conclude(kv, e, p, why, wait);
    else if (rv != BNS_E_AGAIN)
        etcd_kv_fatal(kv, BNS_E_NOMEM, "out of memory while applying");
}

static void apply_request(struct etcd_kv *kv, const struct bns_raft_entry *e,
                          const Etcdserverpb__InternalRaftRequest *r)
{
    struct etcd_status why = etcd_ok;
    enum etcd_step step;

    if (kv->apply.open) {
        run_entry(kv, e, r);
        return;
    }
    step = (enum etcd_step)etcd_auth_admits(kv, r, &why);
    if (step == ETCD_GO)
        step = check(kv, r, &why);
    if (step == ETCD_MISSING) {
        kv->apply.reading = true;
        etcd_eval_fetch(&kv->apply.eval);
        return;
    }
    if (step == ETCD_NOMEM) {
        etcd_kv_fatal(kv, BNS_E_NOMEM, "out of memory while applying");
        return;
    }
    kv->apply.p = pending_for(kv, take_waiter(kv, id_of(r)));
    if (step == ETCD_GO)
        run_entry(kv, e, r);
    else
        conclude(kv, e, kv->apply.p, why, false);
}

/* Another configuration, and what a request of Cluster made of the members. */
static void apply_conf(struct etcd_kv *kv, const struct bns_raft_entry *e)
{
    struct etcd_pending *p;
    uint64_t id = 0;

    if (etcd_members_conf(kv, e, &id) != BNS_OK) {
        etcd_kv_fatal(kv, BNS_E_NOMEM, "out of memory while applying");
        return;
    }
    p = pending_for(kv, take_waiter(kv, id));
    if (p != NULL)
        (void)etcd_pending_part(p, ETCD_PART_COMPACT, false);
    conclude(kv, e, p, etcd_ok, false);
    etcd_members_told(kv);
}

static void apply_entry(struct etcd_kv *kv, const struct bns_raft_entry *e)
{
    const Etcdserverpb__InternalRaftRequest *r = NULL;

    BNS_ASSERT(e->index > kv->now.applied);
    if (e->kind == BNS_RAFT_NORMAL && e->data != NULL)
        r = decode(kv, e);
    if (e->kind == BNS_RAFT_CONF && e->data != NULL)
        apply_conf(kv, e);
    else if (!kv->dead && r != NULL)
        apply_request(kv, e, r);
    else if (!kv->dead)
        conclude(kv, e, NULL, etcd_ok, false);
    if (!kv->dead && !kv->apply.reading && !kv->apply.open)
        kv->apply.pos++;
}

static void resume(struct etcd_eval *ev)
{
    struct etcd_kv *kv = ev->kv;

    kv->apply.reading = false;
    etcd_apply_step(kv);
}

void etcd_apply_step(struct etcd_kv *kv)
{
    struct etcd_apply *ap = &kv->apply;
    bns_sm_done *done = ap->done;
    void *arg = ap->arg;

    if (!ap->active || ap->running || ap->reading || ap->posted || kv->dead)
        return;
    ap->running = true;
    ap->room = kv->turn_keys;
    while (ap->pos < ap->count && !ap->reading && !kv->dead && etcd_turn_begins(kv)) {
        apply_entry(kv, &ap->entries[ap->pos]);
        if (kv->rows_bytes >= FLUSH_BYTES && !kv->dead)
            etcd_kv_flush(kv);
    }
    ap->running = false;
    if (kv->dead)
        return;
    if (!ap->open)
        etcd_look_turn_over(kv);
    etcd_kv_flush_soon(kv);
    if (ap->pos < ap->count)
        return;
    ap->active = false;
    done(arg, BNS_OK);
}

void etcd_sm_apply(void *sm, const struct bns_raft_entry *e, size_t n, bns_sm_done *done, void *arg)
{
    struct etcd_kv *kv = sm;
    struct etcd_apply *ap = &kv->apply;

    BNS_ASSERT(!ap->active);
    BNS_ASSERT(!kv->install.active);
    ap->entries = e;
    ap->count = n;
    ap->pos = 0;
    ap->done = done;
    ap->arg = arg;
    ap->active = true;
    ap->eval.resume = resume;
    etcd_apply_step(kv);
}
