/* test_auth_model.c - random users, roles, permissions and requests against a plain reference, on
 * two members at once that must stay equal; memory that fails at any moment.
 *
 * The reference knows a handful of users, roles and ranges as bits. A third of the puts come with a
 * header that is old. The second member gets the same entries and restarts now and then: its
 * digest and its answer to each entry are those of the first (which etcd's bug 14571 broke). */
#include "auth_world.h"

#include "base/prng.h"

#define USERS 4
#define ROLES 3
#define RANGES 6

static const char *const users[USERS] = {"root", "a", "b", "c"};
static const char *const roles[ROLES] = {"r", "s", "t"};
static const char *const ranges[RANGES][2] = {{"a", NULL}, {"a", "c"}, {"c", "e"},
                                              {"d", NULL}, {"b", ""},  {"e", "f"}};
static const char *const probes[] = {"a", "b", "c", "d", "e", "f"};
#define PROBES 6

struct model {
    bool enabled;
    uint64_t revision;
    bool user[USERS], role[ROLES], root[USERS], has[USERS][ROLES];
    int perm[ROLES][RANGES]; /* -1 none, 0 R, 1 W, 2 RW */
};

static bool in_range(int r, const char *key)
{
    if (ranges[r][1] == NULL)
        return strcmp(key, ranges[r][0]) == 0;
    if (strcmp(key, ranges[r][0]) < 0)
        return false;
    return ranges[r][1][0] == 0 || strcmp(key, ranges[r][1]) < 0;
}

static bool may(const struct model *m, int u, const char *key, bool write)
{
    for (int r = 0; r < ROLES; r++) {
        for (int i = 0; i < RANGES; i++) {
            if (m->has[u][r] && m->perm[r][i] >= 0 && m->perm[r][i] != (write ? 0 : 1) &&
                in_range(i, key))
                return true;
        }
    }
    return false;
}

/* What an administrator's entry by user `by` is answered when it is not allowed; 0: it is. */
static int admin(const struct model *m, int by)
{
    if (!m->enabled)
        return 0;
    return by < 0 ? 3 : !m->user[by] ? 9 : m->root[by] ? 0 : 7;
}

struct pair {
    struct kvw k[2];
    struct model m;
    struct bns_prng p;
    int by; /* of the entry, -1 nobody */
};

static const char *by(const struct pair *x)
{
    return x->by < 0 ? NULL : users[x->by];
}

/* The same on both members; their answers agree. */
#define BOTH(x, call)                                                                              \
    ({                                                                                             \
        struct kvw *k = &(x)->k[0];                                                                \
        int first = (call);                                                                        \
        k = &(x)->k[1];                                                                            \
        assert_int_equal(call, first);                                                             \
        first;                                                                                     \
    })

static void a_user(struct pair *x, int what, int u, int r)
{
    struct model *m = &x->m;
    int want = admin(m, x->by);
    bool bump = true;

    switch (what) {
    case 0:
        want = want != 0 ? want : m->user[u] ? 9 : 0;
        assert_int_equal(BOTH(x, user_add(k, by(x), users[u])), want);
        if (want == 0)
            m->user[u] = true;
        break;
    case 1:
        want = want != 0 ? want : m->enabled && u == 0 ? 3 : !m->user[u] ? 9 : 0;
        assert_int_equal(BOTH(x, user_delete(k, by(x), users[u])), want);
        if (want == 0) {
            m->user[u] = m->root[u] = false;
            memset(m->has[u], 0, sizeof m->has[u]);
        }
        break;
    case 2:
        want = want != 0 ? want : !m->user[u] || !m->role[r] ? 9 : 0;
        assert_int_equal(BOTH(x, user_grant(k, by(x), users[u], roles[r])), want);
        bump = want == 0 && !m->has[u][r];
        if (want == 0)
            m->has[u][r] = true;
        break;
    case 3:
        want = want != 0 ? want : !m->user[u] || !m->has[u][r] ? 9 : 0;
        assert_int_equal(BOTH(x, user_revoke(k, by(x), users[u], roles[r])), want);
        if (want == 0)
            m->has[u][r] = false;
        break;
    default:
        want = want != 0 ? want : !m->user[u] ? 9 : 0;
        assert_int_equal(BOTH(x, user_grant(k, by(x), users[u], "root")), want);
        bump = want == 0 && !m->root[u];
        if (want == 0)
            m->root[u] = true;
        break;
    }
    m->revision += want == 0 && bump;
}

static void a_role(struct pair *x, int what, int r, int i)
{
    struct model *m = &x->m;
    int type = (int)bns_prng_below(&x->p, 3), want = admin(m, x->by);
    const char *key = ranges[i][0], *to = ranges[i][1];

    switch (what) {
    case 0:
        want = want != 0 ? want : m->role[r] ? 9 : 0;
        assert_int_equal(BOTH(x, role_add(k, by(x), roles[r])), want);
        if (want == 0)
            m->role[r] = true;
        break;
    case 1:
        want = want != 0 ? want : !m->role[r] ? 9 : 0;
        assert_int_equal(BOTH(x, role_delete(k, by(x), roles[r])), want);
        for (int u = 0; want == 0 && u < USERS; u++)
            m->has[u][r] = false;
        for (int n = 0; want == 0 && n < RANGES; n++)
            m->perm[r][n] = -1;
        if (want == 0)
            m->role[r] = false;
        break;
    case 2:
        want = want != 0 ? want : !m->role[r] ? 9 : 0;
        assert_int_equal(BOTH(x, role_grant(k, by(x), roles[r], type, key, to)), want);
        if (want == 0)
            m->perm[r][i] = type;
        break;
    default:
        want = want != 0 ? want : !m->role[r] || m->perm[r][i] < 0 ? 9 : 0;
        assert_int_equal(BOTH(x, role_revoke(k, by(x), roles[r], key, to)), want);
        if (want == 0)
            m->perm[r][i] = -1;
        break;
    }
    m->revision += want == 0;
}

static void a_switch(struct pair *x, bool on)
{
    struct model *m = &x->m;
    int want = admin(m, x->by);

    if (want == 0 && on && !m->enabled && (!m->user[0] || !m->root[0]))
        want = 9;
    assert_int_equal(BOTH(x, auth_switch(k, by(x), on)), want);
    if (want != 0 || on == m->enabled)
        return;
    m->enabled = on;
    m->revision += !on;
}

static void a_put(struct pair *x, const char *key, bool prev)
{
    Etcdserverpb__PutRequest r = put_req(key, "v");
    struct model *m = &x->m;
    bool old = bns_prng_below(&x->p, 3) == 0 && m->revision > 1;
    uint64_t rev = old ? m->revision - 1 : m->revision;
    int want = 0;

    r.has_prev_kv = r.prev_kv = prev;
    if (m->enabled && x->by < 0)
        want = 3;
    else if (m->enabled && old)
        want = 3;
    else if (m->enabled && !m->user[x->by])
        want = 7;
    else if (m->enabled && !m->root[x->by] &&
             (!may(m, x->by, key, true) || (prev && !may(m, x->by, key, false))))
        want = 7;
    assert_int_equal(BOTH(x, apply_as(k, by(x), rev, ETCD_OP_PUT, &r, NULL)), want);
}

static void step(struct pair *x)
{
    int u = (int)bns_prng_below(&x->p, USERS), r = (int)bns_prng_below(&x->p, ROLES);
    unsigned kind = (unsigned)bns_prng_below(&x->p, 20);

    x->by = (int)bns_prng_below(&x->p, USERS + 2) - 2;
    x->by = x->by < -1 ? 0 : x->by; /* mostly root */
    if (kind < 5)
        a_user(x, (int)bns_prng_below(&x->p, 5), u, r);
    else if (kind < 10)
        a_role(x, (int)bns_prng_below(&x->p, 4), r, (int)bns_prng_below(&x->p, RANGES));
    else if (kind == 10)
        a_switch(x, bns_prng_below(&x->p, 4) != 0);
    else
        a_put(x, probes[bns_prng_below(&x->p, PROBES)], bns_prng_below(&x->p, 2) == 0);
}

static void any_history_is_as_the_reference_says_on_all_members(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct pair x = {.by = -1};

        bns_prng_seed(&x.p, seed);
        x.m.revision = 1;
        memset(x.m.perm, -1, sizeof x.m.perm);
        for (int i = 0; i < 2; i++) {
            kvw_init(&x.k[i], seed + (uint64_t)i, NULL);
            assert_true(kvw_up(&x.k[i]));
        }
        for (int n = 0; n < 500; n++) {
            step(&x);
            assert_int_equal(etcd_auth_revision(x.k[0].kv), x.m.revision);
            assert_int_equal(etcd_auth_enabled(x.k[0].kv), x.m.enabled);
            if (bns_prng_below(&x.p, 60) == 0) {
                kvw_close(&x.k[1]);
                assert_true(kvw_up(&x.k[1]));
            }
            if (etcd_kv_sm()->digest(x.k[0].kv) != etcd_kv_sm()->digest(x.k[1].kv))
                fail_msg("seed %llu: members differ after entry %d", (unsigned long long)seed, n);
        }
        kvw_free(&x.k[0]);
        kvw_free(&x.k[1]);
    }
}

/* ---- no memory ------------------------------------------------------------------------------ */

static void setup(struct kvw *k)
{
    auth_on(k);
    assert_int_equal(user_add(k, "root", "u"), 0);
    assert_int_equal(role_add(k, "root", "r"), 0);
    for (int i = 0; i < 20; i++) {
        char key[8];

        (void)snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(role_grant(k, "root", "r", 2, key, NULL), 0);
    }
    assert_int_equal(user_grant(k, "root", "u", "r"), 0);
}

struct look {
    struct kvw *k;
    int fail_at;
    bool fired, ok;
    struct etcd_status why;
};

static void do_look(struct bns_env *env, void *arg)
{
    struct look *l = arg;
    struct bns_test_heap *h = bns_world_heap(l->k->w, 0);
    struct etcd_who who = {BNS_LIT("u"), etcd_auth_revision(l->k->kv), {0, NULL}};

    (void)env;
    bns_test_heap_fail_at(h, l->fail_at);
    l->ok = etcd_auth_range(l->k->kv, &who, BNS_LIT("k1"), bns_slice(NULL, 0), &l->why);
    bns_test_heap_fail_at(h, 0);
}

static void a_question_without_memory_is_refused_not_denied(void **state)
{
    int n = 0;
    bool ok;

    (void)state;
    do {
        struct kvw k;
        struct look l = {.k = &k, .fail_at = ++n};

        kvw_init(&k, 1, NULL);
        assert_true(kvw_up(&k));
        setup(&k);
        assert_true(bns_world_call(k.w, 0, do_look, &l));
        ok = l.ok;
        if (!ok)
            assert_string_equal(l.why.text, "etcdserver: too many requests");
        kvw_free(&k);
    } while (!ok);
    print_message("  %d allocations\n", n - 1);
    assert_true(n > 3);
}

static void an_apply_without_memory_ends_the_node_and_is_made_good(void **state)
{
    int n = 0;
    bool died;

    (void)state;
    do {
        struct kvw k;

        kvw_init(&k, 1, NULL);
        assert_true(kvw_up(&k));
        setup(&k);
        bns_test_heap_fail_at(bns_world_heap(k.w, 0), ++n);
        (void)role_grant(&k, "root", "r", 1, "z", "zz");
        died = k.kv == NULL;
        if (!died)
            bns_test_heap_fail_at(bns_world_heap(k.w, 0), 0);
        if (died) {
            bns_world_kill(k.w, 0);
            kvw_settle(&k);
            k.index = 0;
            assert_true(kvw_up(&k));
            k.index = etcd_kv_applied(k.kv);
            assert_true(etcd_auth_revision(k.kv) <= 27);
        }
        kvw_free(&k);
    } while (n < 40);
    print_message("  %d allocations\n", n - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_history_is_as_the_reference_says_on_all_members),
        cmocka_unit_test(a_question_without_memory_is_refused_not_denied),
        cmocka_unit_test(an_apply_without_memory_ends_the_node_and_is_made_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
