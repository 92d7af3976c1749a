/* lease_world.h - three stores behind one committed log; the leader changes, time is virtual.
 *
 * What Raft guarantees is taken for granted here: there is one log of committed entries, each with
 * the term of the leader that appended it; a member may lag behind; a deposed leader may not know.
 * What a deposed leader proposes is lost, or is forwarded to its successor, who appends it in its
 * own term. The stores are real: lessor, apply, SQLite, restart. */
#ifndef ETCD_TESTS_LEASE_WORLD_H
#define ETCD_TESTS_LEASE_WORLD_H

#include "kv_impl.h"
#include "kv_world.h"

#define LW_MEMBERS 3
#define LW_LOG 4096
#define LW_EXTEND BNS_SEC

struct lw;
struct lw_member {
    struct lw *w;
    unsigned id;
    struct etcd_kv *kv; /* NULL: down */
    uint64_t applied;   /* entries of the log */
    uint64_t term;      /* as it knows */
    bool leads;         /* as it knows */
    bool busy;
};

struct lw {
    struct bns_world *w;
    struct lw_member m[LW_MEMBERS];
    struct bns_raft_entry log[LW_LOG + 1]; /* [index] */
    uint64_t last;
    uint64_t term;
    int leader;         /* the true one; -1 = none */
    bool forward_stale; /* what a deposed leader proposes: forwarded, or lost */
    void (*appended)(struct lw *w, const struct bns_raft_entry *e); /* the model looks on */
    void *model;
    uint64_t id;
};

HELPER uint64_t lw_now(const struct lw *w)
{
    return bns_world_now(w->w);
}

HELPER void lw_run(struct lw *w, uint64_t ns)
{
    assert_null(bns_world_run(w->w, lw_now(w) + ns, NULL, NULL));
}

/* Takes the reference over. */
HELPER void lw_append(struct lw *w, struct bns_rcbuf *data)
{
    struct bns_raft_entry *e = &w->log[++w->last];

    assert_true(w->last <= LW_LOG);
    *e = (struct bns_raft_entry){
        .index = w->last, .term = w->term, .kind = BNS_RAFT_NORMAL, .data = data};
    if (w->appended != NULL)
        w->appended(w, e);
}

HELPER int lw_propose(void *arg, struct bns_rcbuf *entry)
{
    struct lw_member *m = arg;
    struct lw *w = m->w;
    bool truly = w->leader == (int)m->id && m->term == w->term;

    if (w->leader < 0 || (!truly && !w->forward_stale))
        return BNS_OK; /* lost; nobody is told */
    /* of libc: the log outlives the node */
    lw_append(w, bns_rcbuf_copy(bns_alloc_libc(), bns_rcbuf_slice(entry)));
    return BNS_OK;
}

HELPER int lw_start(struct bns_env *env, unsigned id, void *arg)
{
    struct lw *w = arg;
    struct lw_member *m = &w->m[id];
    struct etcd_kv_config cfg = {.dir = "/data"};
    struct bns_err err = {0};

    assert_int_equal(bns_vfs_mkdir(env->vfs, "/data", &err), BNS_OK);
    assert_int_equal(bns_vfs_sync_dir(env->vfs, "/", &err), BNS_OK);
    if (etcd_kv_open(env, &cfg, &m->kv, &err) != BNS_OK)
        fail_msg("open: %s", err.text);
    etcd_kv_leases_on(
        m->kv, &(struct etcd_lease_hooks){.extend_ns = LW_EXTEND, .propose = lw_propose, .arg = m});
    m->applied = etcd_kv_applied(m->kv);
    m->leads = false;
    m->busy = false;
    return BNS_OK;
}

HELPER void lw_died(unsigned id, int code, const char *text, void *arg)
{
    struct lw *w = arg;

    if (code != 0)
        print_message("member %u died %d: %s\n", id, code, text == NULL ? "" : text);
    etcd_kv_died(w->m[id].kv);
    w->m[id].kv = NULL;
}

HELPER void lw_up(struct lw *w, unsigned id)
{
    struct bns_node_main main = {.start = lw_start, .died = lw_died, .arg = w};

    bns_world_start(w->w, id, &main);
    lw_run(w, BNS_MS);
    assert_non_null(w->m[id].kv);
}

HELPER void lw_init(struct lw *w, uint64_t seed, uint32_t mutant)
{
    struct bns_world_config wc = bns_world_calm(LW_MEMBERS);

    memset(w, 0, sizeof *w);
    wc.mutant = mutant;
    w->term = 1;
    w->leader = -1;
    assert_int_equal(bns_world_new(seed, &wc, &w->w), BNS_OK);
    for (unsigned i = 0; i < LW_MEMBERS; i++) {
        w->m[i] = (struct lw_member){.w = w, .id = i};
        lw_up(w, i);
    }
}

HELPER void lw_free(struct lw *w)
{
    for (unsigned i = 0; i < LW_MEMBERS; i++)
        bns_world_kill(w->w, i);
    bns_world_free(w->w);
    for (uint64_t i = 1; i <= w->last; i++)
        bns_rcbuf_put(w->log[i].data);
}

/* ---- the log -------------------------------------------------------------------------------- */

HELPER void lw_applied(void *arg, int code)
{
    struct lw_member *m = arg;

    assert_int_equal(code, BNS_OK);
    m->busy = false;
}

HELPER void lw_do_apply(struct bns_env *env, void *arg)
{
    struct lw_member *m = arg;

    (void)env;
    m->busy = true;
    etcd_kv_sm()->apply(m->kv, &m->w->log[m->applied + 1], 1, lw_applied, m);
}

/* One member applies up to `to`. */
HELPER void lw_apply(struct lw *w, unsigned id, uint64_t to)
{
    struct lw_member *m = &w->m[id];

    while (m->kv != NULL && m->applied < to) {
        assert_true(bns_world_call(w->w, id, lw_do_apply, m));
        while (m->busy && bns_world_step(w->w)) {
        }
        assert_false(m->busy);
        m->applied++;
    }
}

HELPER void lw_apply_all(struct lw *w)
{
    for (unsigned i = 0; i < LW_MEMBERS; i++)
        lw_apply(w, i, w->last);
}

HELPER void lw_entry(struct lw *w, enum etcd_op op, const ProtobufCMessage *req)
{
    struct bns_buf b;

    bns_buf_init(&b, bns_alloc_libc(), 65536);
    assert_int_equal(bns_pb_pack(req, &b), BNS_OK);
    lw_append(w, etcd_internal_encode(bns_alloc_libc(), ++w->id, op, bns_buf_slice(&b)));
    bns_buf_free(&b);
}

/* ---- leadership ----------------------------------------------------------------------------- */

struct lw_role {
    struct lw_member *m;
    bool leads;
    uint64_t term;
};

HELPER void lw_do_role(struct bns_env *env, void *arg)
{
    struct lw_role *r = arg;

    (void)env;
    r->m->leads = r->leads;
    r->m->term = r->term;
    etcd_kv_sm()->role(r->m->kv, r->leads ? BNS_RAFT_LEADER : BNS_RAFT_FOLLOWER, r->term,
                       r->leads ? 1 + r->m->id : 0);
}

/* The member hears of the present term. */
HELPER void lw_hear(struct lw *w, unsigned id)
{
    struct lw_role r = {&w->m[id], w->leader == (int)id, w->term};

    if (w->m[id].kv != NULL && (w->m[id].term != r.term || w->m[id].leads != r.leads))
        assert_true(bns_world_call(w->w, id, lw_do_role, &r));
}

/* id is elected; the others do not know yet. It has the whole log, not necessarily applied, and its
 * first entry, without data, is in it. */
HELPER void lw_elect(struct lw *w, unsigned id)
{
    assert_non_null(w->m[id].kv);
    w->term++;
    w->leader = (int)id;
    lw_append(w, NULL);
    lw_hear(w, id);
}

/* ---- renewals ------------------------------------------------------------------------------- */

struct lw_renew {
    struct lw_member *m;
    int64_t id, ttl;
    int rv;
};

HELPER void lw_on_wait(struct etcd_lease_wait *w, int code)
{
    (void)w;
    (void)code;
}

HELPER void lw_do_renew(struct bns_env *env, void *arg)
{
    static struct etcd_lease_wait wait = {.fn = lw_on_wait};
    struct lw_renew *r = arg;

    (void)env;
    bns_list_init(&wait.node);
    r->rv = etcd_kv_lease_renew(r->m->kv, r->id, &wait, &r->ttl);
    if (r->rv == BNS_E_AGAIN)
        etcd_lessor_unwait(&wait);
}

HELPER int lw_renew(struct lw *w, unsigned id, int64_t lease, int64_t *ttl)
{
    struct lw_renew r = {.m = &w->m[id], .id = lease};

    assert_true(bns_world_call(w->w, id, lw_do_renew, &r));
    *ttl = r.ttl;
    return r.rv;
}

#endif
