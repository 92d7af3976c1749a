/* test_lease_model.c - leases on three members against a model, while the leader changes hands.
 *
 * Random grants, revocations, puts with and without lease, deletes, renewals, elections, deposed
 * leaders that do not know it, members that lag, restarts, and time. The model follows the log. It
 * says, of every revocation by a clock: not before TTL has passed since the last acknowledged grant
 * or renewal was asked for. And in the end: every lease that nobody renews is gone, its keys are
 * gone with it and no other key is, and all members are equal.
 * A renewal is asked for at one time and answered at a later one; in between, only what ReadIndex
 * promises holds: the member was the true leader when it was confirmed.
 * The planted bugs (a follower's clock, a renewal answered while a checkpoint stands) must be
 * caught. The failing seed is printed. */
#include "lease_world.h"

#define LEASES 12
#define KEYS 10
#define STEPS 400

struct m_lease {
    bool alive;
    int64_t ttl;
    uint64_t index;
    uint64_t asked_ns; /* of the last grant or renewal that was acknowledged */
};

struct model {
    struct m_lease lease[LEASES + 1];
    bool key_alive[KEYS];
    int64_t key_lease[KEYS];
    const char *wrong;
    unsigned expired, renewed, waited, ignored, marks;
};

static const char *const key_names[KEYS] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"};

static int key_of(ProtobufCBinaryData d)
{
    for (int i = 0; i < KEYS; i++) {
        if (d.len == 1 && d.data[0] == (uint8_t)key_names[i][0])
            return i;
    }
    return -1;
}

static void m_revoke(struct lw *w, const Etcdserverpb__InternalRaftRequest *r, uint64_t term)
{
    struct model *m = w->model;
    struct m_lease *e = &m->lease[r->lease_revoke->id];
    bool clock = r->header == NULL; /* nobody asked for it */

    if ((r->only_in_term != 0 && r->only_in_term != term) ||
        (r->granted_index != 0 && r->granted_index != e->index)) {
        m->ignored++;
        return;
    }
    if (!e->alive)
        return;
    if (clock && lw_now(w) < e->asked_ns + (uint64_t)e->ttl * BNS_SEC)
        m->wrong = "a lease ended before its TTL had passed";
    m->expired += clock;
    e->alive = false;
    for (int i = 0; i < KEYS; i++) {
        if (m->key_alive[i] && m->key_lease[i] == r->lease_revoke->id)
            m->key_alive[i] = false;
    }
}

/* The model applies an entry the moment it is committed. */
static void on_appended(struct lw *w, const struct bns_raft_entry *e)
{
    struct model *m = w->model;
    Etcdserverpb__InternalRaftRequest *r;

    if (e->data == NULL)
        return;
    r = etcdserverpb__internal_raft_request__unpack(NULL, e->data->len, e->data->bytes);

    assert_non_null(r);
    if (r->lease_checkpoint != NULL)
        m->marks += (unsigned)r->lease_checkpoint->n_checkpoints;
    if (r->lease_grant != NULL) {
        struct m_lease *x = &m->lease[r->lease_grant->id];
        if (!x->alive)
            *x = (struct m_lease){true, r->lease_grant->ttl, e->index, lw_now(w)};
    } else if (r->lease_revoke != NULL) {
        m_revoke(w, r, e->term);
    } else if (r->put != NULL) {
        int k = key_of(r->put->key);
        if (r->put->ignore_lease ? m->key_alive[k]
                                 : r->put->lease == 0 || m->lease[r->put->lease].alive) {
            m->key_alive[k] = true;
            m->key_lease[k] = r->put->ignore_lease ? m->key_lease[k] : r->put->lease;
        }
    } else if (r->delete_range != NULL) {
        int from = key_of(r->delete_range->key), to = key_of(r->delete_range->range_end);
        for (int i = from; i < (to < 0 ? from + 1 : to); i++)
            m->key_alive[i] = false;
    }
    etcdserverpb__internal_raft_request__free_unpacked(r, NULL);
}

/* ---- steps ---------------------------------------------------------------------------------- */

struct run {
    struct lw w;
    struct model m;
    struct bns_prng p;
    int asking; /* the member that will answer a renewal; -1 = none is under way */
    int64_t asking_id;
    uint64_t asked_ns, asked_term;
};

static uint64_t draw(struct run *r, uint64_t n)
{
    return bns_prng_below(&r->p, n);
}

static void step_grant(struct run *r)
{
    Etcdserverpb__LeaseGrantRequest q = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;

    q.has_id = q.has_ttl = true;
    q.id = 1 + (int64_t)draw(r, LEASES);
    q.ttl = draw(r, 2) == 0 ? 1 + (int64_t)draw(r, 8) : 10 + (int64_t)draw(r, 14);
    lw_entry(&r->w, ETCD_OP_LEASE_GRANT, &q.base);
}

static void step_revoke(struct run *r)
{
    Etcdserverpb__LeaseRevokeRequest q = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;

    q.has_id = true;
    q.id = 1 + (int64_t)draw(r, LEASES);
    lw_entry(&r->w, ETCD_OP_LEASE_REVOKE, &q.base);
}

static void step_put(struct run *r)
{
    Etcdserverpb__PutRequest q = put_req(key_names[draw(r, KEYS)], "v");

    q.has_lease = draw(r, 4) != 0;
    q.lease = q.has_lease ? 1 + (int64_t)draw(r, LEASES) : 0;
    if (draw(r, 8) == 0) {
        q.has_lease = false;
        q.lease = 0;
        q.has_ignore_lease = q.ignore_lease = true;
    }
    lw_entry(&r->w, ETCD_OP_PUT, &q.base);
}

static void step_delete(struct run *r)
{
    uint64_t from = draw(r, KEYS);
    Etcdserverpb__DeleteRangeRequest q = delete_req(
        key_names[from], draw(r, 3) == 0 && from + 2 < KEYS ? key_names[from + 2] : NULL);

    lw_entry(&r->w, ETCD_OP_DELETE, &q.base);
}

static void step_elect(struct run *r)
{
    unsigned id = (unsigned)draw(r, LW_MEMBERS);

    if (r->w.m[id].kv != NULL)
        lw_elect(&r->w, id);
}

static void step_restart(struct run *r)
{
    unsigned id = (unsigned)draw(r, LW_MEMBERS);

    if (r->asking == (int)id)
        r->asking = -1;
    if (r->w.leader == (int)id)
        r->w.leader = -1;
    if (draw(r, 2) == 0)
        bns_world_kill(r->w.w, id);
    else
        bns_world_power_cut(r->w.w, id);
    lw_run(&r->w, BNS_MS);
    assert_null(r->w.m[id].kv);
    lw_up(&r->w, id);
}

/* A renewal is asked for at the true leader, which is confirmed now and has applied everything. */
static void step_ask(struct run *r)
{
    if (r->w.leader < 0 || r->asking >= 0)
        return;
    r->asked_ns = lw_now(&r->w);
    lw_apply(&r->w, (unsigned)r->w.leader, r->w.last);
    r->asking = r->w.leader;
    r->asking_id = 1 + (int64_t)draw(r, LEASES);
    r->asked_term = r->w.m[r->asking].term;
}

static void step_answer(struct run *r)
{
    struct m_lease *e = &r->m.lease[r->asking_id];
    int64_t ttl = 0;
    int rv;

    if (r->asking < 0)
        return;
    if (r->w.m[r->asking].leads && r->w.m[r->asking].term == r->asked_term) {
        bool applied = r->w.m[r->asking].applied == r->w.last;
        rv = lw_renew(&r->w, (unsigned)r->asking, r->asking_id, &ttl);
        if (rv == BNS_OK) {
            r->m.renewed++;
            if (e->alive && ttl == e->ttl && r->asked_ns > e->asked_ns)
                e->asked_ns = r->asked_ns;
            else if (!e->alive && applied)
                r->m.wrong = "a lease was renewed that is gone";
        } else if (rv == BNS_E_NOTFOUND && e->alive && applied) {
            r->m.wrong = "a lease that lives was not found";
        } else if (rv == BNS_E_AGAIN) {
            r->m.waited++;
            if (draw(r, 4) != 0)
                return; /* it is answered later, or never */
        }
    }
    r->asking = -1;
}

static void step(struct run *r)
{
    uint64_t d = draw(r, 100);

    if (d < 12 && r->w.leader >= 0)
        step_grant(r);
    else if (d < 14 && r->w.leader >= 0)
        step_revoke(r);
    else if (d < 28 && r->w.leader >= 0)
        step_put(r);
    else if (d < 32 && r->w.leader >= 0)
        step_delete(r);
    else if (d < 46)
        step_ask(r);
    else if (d < 60)
        step_answer(r);
    else if (d < 72)
        lw_run(&r->w, 1 + draw(r, 2 * BNS_SEC));
    else if (d < 88)
        lw_apply(&r->w, (unsigned)draw(r, LW_MEMBERS), r->w.last);
    else if (d < 92)
        step_elect(r);
    else if (d < 97)
        lw_hear(&r->w, (unsigned)draw(r, LW_MEMBERS));
    else if (d < 98)
        step_restart(r);
    else
        r->w.forward_stale = draw(r, 2) == 0;
}

/* ---- the end -------------------------------------------------------------------------------- */

static const char *compare(struct run *r)
{
    for (unsigned i = 0; i < LW_MEMBERS; i++) {
        struct etcd_kv *kv = r->w.m[i].kv;

        if (etcd_kv_lease_digest(kv) != etcd_kv_lease_digest(r->w.m[0].kv) ||
            etcd_kv_sm()->digest(kv) != etcd_kv_sm()->digest(r->w.m[0].kv))
            return "members differ";
        for (int64_t l = 1; l <= LEASES; l++) {
            const struct etcd_lease *e = etcd_lessor_find(&kv->leases.lessor, l);
            if ((e != NULL) != r->m.lease[l].alive || (e != NULL && e->ttl != r->m.lease[l].ttl))
                return "a lease is not as in the model";
        }
        for (int k = 0; k < KEYS; k++) {
            struct bns_slice name = bns_slice_str(key_names[k]);
            struct etcd_key *x = etcd_index_first(&kv->index, name, bns_slice(NULL, 0));
            bool alive = x != NULL && etcd_key_alive_at(x, INT64_MAX) != NULL;
            if (alive != r->m.key_alive[k])
                return "a key is not as in the model";
            if (etcd_lessor_of(&kv->leases.lessor, name) != (alive ? r->m.key_lease[k] : 0))
                return "a key hangs on another lease than in the model";
        }
    }
    return NULL;
}

/* Nobody renews any more: all leases must end, each with its keys. */
static const char *quiesce(struct run *r)
{
    const char *wrong;

    lw_elect(&r->w, 0);
    for (unsigned i = 0; i < LW_MEMBERS; i++)
        lw_hear(&r->w, i);
    lw_apply_all(&r->w);
    wrong = compare(r);
    for (int i = 0; i < 80 && wrong == NULL; i++) {
        lw_run(&r->w, BNS_SEC / 2);
        lw_apply_all(&r->w);
        wrong = r->m.wrong != NULL ? r->m.wrong : compare(r);
    }
    for (unsigned i = 0; i < LW_MEMBERS && wrong == NULL; i++) {
        if (etcd_kv_leases(r->w.m[i].kv) != 0)
            wrong = "a lease that nobody renews did not end";
    }
    return wrong;
}

static const char *one_seed(uint64_t seed, uint32_t mutant, struct model *out)
{
    static struct run r;
    const char *wrong;

    memset(&r, 0, sizeof r);
    r.asking = -1;
    bns_prng_seed(&r.p, seed);
    lw_init(&r.w, seed, mutant);
    r.w.model = &r.m;
    r.w.appended = on_appended;
    lw_elect(&r.w, 0);
    for (int i = 0; i < STEPS && r.m.wrong == NULL; i++)
        step(&r);
    wrong = r.m.wrong != NULL ? r.m.wrong : quiesce(&r);
    lw_free(&r.w);
    *out = r.m;
    return wrong;
}

static void leases_are_the_model(void **state)
{
    const char *first = getenv("BNS_SEED");
    uint64_t from = first == NULL ? 1 : strtoull(first, NULL, 0);
    unsigned expired = 0, renewed = 0, waited = 0, ignored = 0, marks = 0;

    (void)state;
    for (uint64_t seed = from; seed < from + (first == NULL ? 60 : 1); seed++) {
        struct model m;
        const char *wrong = one_seed(seed, 0, &m);
        if (wrong != NULL)
            fail_msg("BNS_SEED=%llu: %s", (unsigned long long)seed, wrong);
        expired += m.expired;
        renewed += m.renewed;
        waited += m.waited;
        ignored += m.ignored;
        marks += m.marks;
    }
    print_message(
        "  %u expired, %u renewed, %u waited, %u of deposed leaders ignored, %u checkpoints\n",
        expired, renewed, waited, ignored, marks);
    assert_true(first != NULL || (expired > 100 && renewed > 100 && waited > 0 && ignored > 0));
    assert_true(first != NULL || marks > 100);
}

static void the_planted_bugs_are_caught(void **state)
{
    static const uint32_t mutants[] = {ETCD_MUTANT_FOLLOWER_CLOCK, ETCD_MUTANT_MARK_SHORT};

    (void)state;
    for (size_t i = 0; i < sizeof mutants / sizeof mutants[0]; i++) {
        unsigned caught = 0;

        for (uint64_t seed = 1; seed <= 30; seed++) {
            struct model m;
            const char *wrong = one_seed(seed, mutants[i], &m);
            caught +=
                wrong != NULL && strcmp(wrong, "a lease ended before its TTL had passed") == 0;
        }
        print_message("  %u: caught by %u of 30 seeds\n", mutants[i], caught);
        assert_true(caught > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leases_are_the_model),
        cmocka_unit_test(the_planted_bugs_are_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
