/* lease_kv.c - leases in the replicated store: entries that grant and revoke, rows, expiry.
 *
 * Grant and revoke are entries; they change the lessor (lease.c) at once and queue a row for the
 * table `lease`, which goes to SQLite in the same transaction as the rows of keys and the applied
 * index. A revocation deletes the lease's keys, in ascending order, in one revision; when they are
 * many, in several turns of the loop (apply_turns.c). Which key
 * hangs on which lease is not stored: the KeyValue says it, and a start or an installed snapshot
 * finds it while the index is built.
 *
 * Expiry: the leader's timer fires when a lease is due. It proposes a revocation that holds in this
 * term only (lease.c says why), at most REVOKES_MAX a turn and a turn each TURN_NS; what is still
 * there after RETRY_NS is proposed again. While the alarm CORRUPT stands nothing is proposed: no
 * revocation would be applied, and the log would grow by all that is due every RETRY_NS. A timer
 * that comes late says that this process stood still, and keepalives may be waiting in its sockets:
 * it gives them one turn.
 */
#include <stdlib.h>

#include "alarm.h"
#include "base/varint.h"
#include "codec/pb.h"
#include "kv_impl.h"
#include "lease_keys.h"

#define REVOKES_MAX 500u /* etcd: half of 1,000 a second */
#define TURN_NS (500 * BNS_MS)
#define RETRY_NS (3 * BNS_SEC)
#define LATE_NS BNS_SEC

static const struct etcd_status lease_exists = {9, "etcdserver: lease already exists"};
static const struct etcd_status lease_ttl = {11, ETCD_TEXT_LEASE_TTL};

/* ---- expiry --------------------------------------------------------------------------------- */

static void arm(struct etcd_kv *kv)
{
    struct etcd_leases *s = &kv->leases;
    uint64_t at = etcd_lessor_deadline(&s->lessor);

    if (kv->stopping || kv->dead || s->hooks.propose == NULL || at == BNS_NEVER) {
        bns_timer_stop(kv->env, &s->timer);
        s->armed_ns = BNS_NEVER;
        return;
    }
    if (at < s->turn_ns)
        at = s->turn_ns; /* not before the next turn */
    if (s->armed_ns == at)
        return;
    s->armed_ns = at;
    bns_timer_start(kv->env, &s->timer, at);
}

/* InternalRaftRequest{lease_revoke{ID}, only_in_term, granted_index}; no header: nobody waits. */
static struct bns_rcbuf *encode_revoke(struct etcd_kv *kv, const struct etcd_lease *e,
                                       uint64_t term)
{
    uint8_t space[96];
    size_t id_len = 1 + bns_varint_len((uint64_t)e->id);
    uint8_t *p = space;

    *p++ = 9 << 3 | 2;
    *p++ = (uint8_t)id_len;
    *p++ = 1 << 3;
    p += bns_varint_put(p, (uint64_t)e->id);
    if (term != 0) {
        p += bns_varint_put(p, UINT64_C(20000) << 3);
        p += bns_varint_put(p, term);
    }
    p += bns_varint_put(p, UINT64_C(20001) << 3);
    p += bns_varint_put(p, e->index);
    return bns_rcbuf_copy(kv->alloc, bns_slice(space, (size_t)(p - space)));
}

static void propose_revoke(struct etcd_kv *kv, struct etcd_lease *e)
{
    struct etcd_leases *s = &kv->leases;
    uint64_t term = BNS_MUTANT(kv->env, ETCD_MUTANT_FOLLOWER_CLOCK) ? 0 : s->term;
    struct bns_rcbuf *entry = encode_revoke(kv, e, term);
    bool taken = entry != NULL && s->hooks.propose(s->hooks.arg, entry) == BNS_OK;

    etcd_lessor_proposed(e, taken);
    if (!taken)
        BNS_LOG(kv->env->log, BNS_LOG_DEBUG, "lease", "revocation not proposed: tried again",
                BNS_I64("id", e->id));
    bns_rcbuf_put(entry);
}

static void on_timer(void *arg)
{
    struct etcd_kv *kv = arg;
    struct etcd_leases *s = &kv->leases;
    uint64_t now = bns_now_ns(kv->env);
    bool late = (now > s->armed_ns + LATE_NS || s->was_open) && !s->late;
    struct etcd_lease *e;

    s->armed_ns = BNS_NEVER;
    s->was_open = kv->apply.open;
    if (s->was_open) { /* renewals wait for the end of this entry: they go first */
        s->late = false;
        s->turn_ns = now + TURN_NS;
        arm(kv);
        return;
    }
    if (etcd_kv_alarmed(kv, ETCD_ALARM_CORRUPT)) { /* each would be refused at its apply */
        s->late = false;
        s->turn_ns = now + RETRY_NS;
        arm(kv);
        return;
    }
    s->late = late;
    s->turn_ns = now + TURN_NS;
    for (uint32_t n = 0; n < REVOKES_MAX && !late && !kv->dead; n++) {
        e = etcd_lessor_expired(&s->lessor, now, RETRY_NS);
        if (e == NULL)
            break;
        propose_revoke(kv, e);
    }
    arm(kv);
}

void etcd_lease_role(struct etcd_kv *kv, bool leader, uint64_t term)
{
    struct etcd_leases *s = &kv->leases;
    uint64_t now = bns_now_ns(kv->env);

    s->term = term;
    s->mark_turn_ns = 0;
    if (leader || BNS_MUTANT(kv->env, ETCD_MUTANT_FOLLOWER_CLOCK)) {
        s->turn_ns = 0;
        etcd_lessor_promote(&s->lessor, now, s->hooks.extend_ns);
    } else {
        etcd_lessor_demote(&s->lessor);
    }
    arm(kv);
    etcd_lease_marks_arm(kv);
}

void etcd_lease_applied(struct etcd_kv *kv, uint64_t term)
{
    struct etcd_leases *s = &kv->leases;

    if (term != s->term || !s->lessor.primary || s->lessor.settled)
        return;
    etcd_lessor_settle(&s->lessor);
    arm(kv);
    etcd_lease_marks_arm(kv);
}

void etcd_kv_leases_on(struct etcd_kv *kv, const struct etcd_lease_hooks *hooks)
{
    kv->leases.hooks = *hooks;
    kv->leases.lessor.marking = !hooks->no_checkpoints;
    arm(kv);
    etcd_lease_marks_arm(kv);
}

int64_t etcd_lease_ttl_min(uint64_t election_ms, uint64_t heartbeat_ms)
{
    uint64_t ticks = election_ms / heartbeat_ms;

    return (int64_t)((3 * ticks / 2 * heartbeat_ms + 999) / 1000);
}

/* ---- entries -------------------------------------------------------------------------------- */

/* ttl 0 = the lease is gone. */
static int push_row(struct etcd_kv *kv, struct etcd_lease_row row)
{
    struct etcd_leases *s = &kv->leases;

    if (s->rows_count == s->rows_cap) {
        size_t cap = s->rows_cap == 0 ? 16 : s->rows_cap * 2;
        struct etcd_lease_row *rows = bns_resize(kv->alloc, s->rows, cap * sizeof *rows);
        if (rows == NULL)
            return BNS_E_NOMEM;
        s->rows = rows;
        s->rows_cap = cap;
    }
    s->rows[s->rows_count++] = row;
    kv->rows_bytes += sizeof(struct etcd_lease_row);
    return BNS_OK;
}

static int grant(struct etcd_kv *kv, uint64_t index, const Etcdserverpb__LeaseGrantRequest *r,
                 struct etcd_pending *p, struct etcd_status *why)
{
    int64_t ttl = r->ttl > 0 ? r->ttl : 1; /* raised before it was proposed */
    int rv;

    if (r->id == 0) {
        *why = etcd_no_lease;
        return BNS_OK;
    }
    if (ttl > ETCD_LEASE_TTL_MAX) {
        *why = lease_ttl;
        return BNS_OK;
    }
    rv = etcd_lessor_grant(&kv->leases.lessor, r->id, ttl, index, bns_now_ns(kv->env));
    if (rv == BNS_E_EXISTS) {
        *why = lease_exists;
        return BNS_OK;
    }
    if (rv == BNS_OK)
        rv = push_row(kv, (struct etcd_lease_row){r->id, ttl, index});
    if (rv != BNS_OK)
        return rv;
    bns_counter_add(kv->leases.m_granted, 1);
    bns_hist_observe(kv->leases.m_ttl, (double)ttl);
    arm(kv);
    etcd_lease_marks_arm(kv);
    if (p != NULL) {
        size_t at = etcd_pending_part(p, ETCD_PART_LEASE, false);
        p->parts[at].total = r->id;
        p->parts[at].limit = ttl;
    }
    return BNS_OK;
}

/* The index's bytes stay where they are as long as the key is alive. */
int etcd_lease_attach(struct etcd_kv *kv, struct bns_slice key, int64_t lease)
{
    const struct etcd_key *k = etcd_index_first(&kv->index, key, bns_slice(NULL, 0));

    BNS_ASSERT(k != NULL);
    return etcd_lessor_attach(&kv->leases.lessor, lease, etcd_key_bytes(k));
}

static int delete_keys(struct etcd_kv *kv, const struct etcd_lease *e)
{
    struct etcd_exec *x = &kv->apply.x;
    const struct etcd_lease_key *k;
    int rv = BNS_OK;

    if (!kv->apply.open)
        etcd_exec_begin(kv, NULL);
    while (rv == BNS_OK && (k = etcd_lease_keys_after(e->keys, NULL)) != NULL)
        rv = etcd_exec_bury(x, k->key);
    if (rv == BNS_E_AGAIN)
        etcd_exec_pause(x);
    if (rv != BNS_OK)
        return rv;
    bns_counter_add(kv->m_delete, x->changes);
    etcd_exec_end(x);
    return BNS_OK;
}

static int revoke(struct etcd_kv *kv, uint64_t term, const Etcdserverpb__InternalRaftRequest *r,
                  struct etcd_pending *p, struct etcd_status *why)
{
    struct etcd_lease *e = etcd_lessor_find(&kv->leases.lessor, r->lease_revoke->id);
    int rv;

    if (r->only_in_term != 0 && r->only_in_term != term)
        e = NULL; /* decided by a clock that no longer counts */
    if (e != NULL && r->granted_index != 0 && r->granted_index != e->index)
        e = NULL; /* decided about a former lease of this id */
    if (e == NULL) {
        BNS_ASSERT(!kv->apply.open); /* nothing else is applied meanwhile */
        *why = etcd_no_lease;
        return BNS_OK;
    }
    rv = delete_keys(kv, e);
    if (rv == BNS_OK)
        rv = etcd_lease_mark_drop(kv, e);
    if (rv == BNS_OK)
        rv = push_row(kv, (struct etcd_lease_row){.id = e->id});
    if (rv != BNS_OK)
        return rv;
    etcd_lessor_revoke(&kv->leases.lessor, e);
    bns_counter_add(kv->leases.m_revoked, 1);
    if (r->only_in_term != 0 && kv->leases.lessor.primary)
        bns_counter_add(kv->leases.m_expired, 1);
    arm(kv);
    if (p != NULL)
        (void)etcd_pending_part(p, ETCD_PART_COMPACT, false); /* an empty answer */
    return BNS_OK;
}

int etcd_lease_apply(struct etcd_kv *kv, const struct bns_raft_entry *e,
                     const Etcdserverpb__InternalRaftRequest *r, struct etcd_pending *p,
                     struct etcd_status *why)
{
    if (r->lease_checkpoint != NULL)
        return etcd_lease_mark_apply(kv, e->term, r);
    if (r->lease_grant != NULL)
        return grant(kv, e->index, r->lease_grant, p, why);
    return revoke(kv, e->term, r, p, why);
}

/* ---- the store ------------------------------------------------------------------------------ */

static void init_metrics(struct etcd_kv *kv)
{
    struct bns_metrics *m = kv->env->metrics;
    struct etcd_leases *s = &kv->leases;

    if (m == NULL)
        return;
    s->m_granted = bns_counter(m, "etcd_debugging_lease_granted_total", NULL,
                               "The total number of granted leases.");
    s->m_revoked = bns_counter(m, "etcd_debugging_lease_revoked_total", NULL,
                               "The total number of revoked leases.");
    s->m_renewed = bns_counter(m, "etcd_debugging_lease_renewed_total", NULL,
                               "The number of renewed leases seen by the leader.");
    s->m_expired = bns_counter(m, "etcd_debugging_server_lease_expired_total", NULL,
                               "The total number of expired leases.");
    s->m_marked = bns_counter(m, "bns_etcd_lease_checkpoints_total", NULL,
                              "Checkpoints of leases proposed by this member.");
    s->m_ttl = bns_hist_pow2(m, "etcd_debugging_lease_ttl_total", NULL,
                             "Bucketed histogram of lease TTLs.");
}

void etcd_leases_init(struct etcd_kv *kv)
{
    etcd_lessor_init(&kv->leases.lessor, kv->alloc, kv->seed);
    bns_timer_init(&kv->leases.timer, on_timer, kv);
    kv->leases.lessor.mutant = kv->env->mutant;
    kv->leases.armed_ns = BNS_NEVER;
    etcd_lease_marks_init(kv);
    init_metrics(kv);
}

void etcd_leases_stop(struct etcd_kv *kv)
{
    etcd_looks_end(kv);
    etcd_lessor_demote(&kv->leases.lessor);
    arm(kv);
    etcd_lease_marks_arm(kv);
}

void etcd_leases_clear(struct etcd_kv *kv)
{
    etcd_looks_end(kv);
    etcd_lessor_clear(&kv->leases.lessor);
    kv->leases.armed_ns = BNS_NEVER;
    kv->leases.mark_armed_ns = BNS_NEVER;
}

int etcd_leases_row(void *arg, const struct etcd_lease_row *r)
{
    struct etcd_kv *kv = arg;
    int rv;

    if (r->id == 0 || r->ttl <= 0 || r->ttl > ETCD_LEASE_TTL_MAX)
        return BNS_E_CORRUPT;
    rv = etcd_lessor_grant(&kv->leases.lessor, r->id, r->ttl, r->index, bns_now_ns(kv->env));
    return rv == BNS_E_EXISTS ? BNS_E_CORRUPT : rv;
}

int etcd_leases_loaded(struct etcd_kv *kv, struct bns_err *err)
{
    int rv;

    if (!etcd_lessor_settled(&kv->leases.lessor))
        return bns_err_set(err, BNS_E_CORRUPT, "a key hangs on a lease that does not exist");
    rv = etcd_lease_marks_loaded(kv, err);
    if (rv == BNS_OK && kv->leases.lessor.primary)
        etcd_lease_role(kv, true, kv->leases.term);
    return rv;
}

/* ---- the server's questions ----------------------------------------------------------------- */

size_t etcd_kv_leases(const struct etcd_kv *kv)
{
    return kv->leases.lessor.leases.count;
}

bool etcd_kv_lease_exists(const struct etcd_kv *kv, int64_t id)
{
    return etcd_lessor_find(&kv->leases.lessor, id) != NULL;
}

bool etcd_kv_lease_primary(const struct etcd_kv *kv)
{
    return kv->leases.lessor.primary;
}

int etcd_kv_lease_renew(struct etcd_kv *kv, int64_t id, struct etcd_lease_wait *w, int64_t *ttl)
{
    struct etcd_lessor *l = &kv->leases.lessor;
    struct etcd_lease *e = etcd_lessor_find(l, id);

    if (!l->primary && e != NULL && BNS_MUTANT(kv->env, ETCD_MUTANT_RENEWED_HERE)) {
        *ttl = e->ttl;
        return BNS_OK;
    }
    if (!l->primary)
        return BNS_E_NOTLEADER;
    if (e == NULL)
        return BNS_E_NOTFOUND;
    if (!etcd_lessor_renew(l, e, bns_now_ns(kv->env))) {
        etcd_lessor_wait(e, w);
        if (!e->revoking)
            etcd_lease_clear_soon(kv, e);
        return BNS_E_AGAIN;
    }
    bns_counter_add(kv->leases.m_renewed, 1);
    *ttl = e->ttl;
    return BNS_OK; /* the timer may fire for the old due time: it then finds nothing due */
}

static int list_order(const void *a, const void *b)
{
    const struct etcd_lease *x = *(struct etcd_lease *const *)a;
    const struct etcd_lease *y = *(struct etcd_lease *const *)b;

    if (x->due.key != y->due.key)
        return x->due.key < y->due.key ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

int etcd_kv_lease_list(struct etcd_kv *kv, struct bns_buf *out)
{
    const struct bns_hmap *m = &kv->leases.lessor.leases;
    const struct etcd_lease **all;
    struct bns_hnode *h = NULL;
    size_t n = 0;
    int rv = BNS_OK;

    if (m->count == 0)
        return BNS_OK;
    all = bns_alloc_array(kv->alloc, m->count, sizeof(struct etcd_lease *));
    if (all == NULL)
        return BNS_E_NOMEM;
    while ((h = bns_hmap_next(m, h)) != NULL)
        all[n++] = BNS_CONTAINER(h, struct etcd_lease, node);
    qsort(all, n, sizeof(struct etcd_lease *), list_order);
    for (size_t i = 0; i < n && rv == BNS_OK; i++) {
        rv = bns_pb_put_len(out, 2, bns_pb_len_u64(1, (uint64_t)all[i]->id));
        if (rv == BNS_OK)
            rv = bns_pb_put_i64(out, 1, all[i]->id);
    }
    bns_free(kv->alloc, all);
    return rv;
}

uint64_t etcd_kv_lease_digest(const struct etcd_kv *kv)
{
    struct bns_hnode *h = NULL;
    uint64_t sum = 0;

    while ((h = bns_hmap_next(&kv->leases.lessor.leases, h)) != NULL) {
        const struct etcd_lease *e = BNS_CONTAINER(h, struct etcd_lease, node);
        sum += bns_hash_u64(bns_hash_u64((uint64_t)e->ttl ^ e->index << 32,
                                         (uint64_t)e->saved << 32 ^ e->keys_count),
                            (uint64_t)e->id);
    }
    return sum; /* a sum: the map's order depends on each member's seed */
}
