/* Goal:   everybody sees the same names; a name has one registration; who loses its lease comes
 *         back by itself.
 * Method: real servers in a simulated world (client_world.h), three members, two that watch. */
#include "client_world.h"

#include "client/etcd/peers.h"

struct reg {
    unsigned ups, downs;
    int64_t revision;
    bool up;
};

static void on_up(void *arg, int64_t revision)
{
    struct reg *r = arg;

    r->ups++;
    r->up = true;
    r->revision = revision;
}

static void on_down(void *arg, int status, const char *text)
{
    struct reg *r = arg;

    (void)status;
    (void)text;
    r->downs++;
    r->up = false;
}

static const struct bns_etcd_member_handler registering = {on_up, on_down};

struct view {
    char names[8][16], values[8][16];
    size_t count;
    unsigned changes;
    bool synced, ended;
};

static size_t at(const struct view *v, struct bns_slice name)
{
    size_t i = 0;

    while (i < v->count && !bns_slice_eq(bns_slice_str(v->names[i]), name))
        i++;
    return i;
}

static void on_peer(void *arg, struct bns_slice name, struct bns_slice value, int64_t revision)
{
    struct view *v = arg;
    size_t i = at(v, name);

    assert_true(revision > 1);
    assert_true(i < 8);
    (void)snprintf(v->names[i], 16, "%.*s", (int)name.len, (const char *)name.ptr);
    (void)snprintf(v->values[i], 16, "%.*s", (int)value.len, (const char *)value.ptr);
    v->count += i == v->count;
    v->changes++;
}

static void on_gone(void *arg, struct bns_slice name)
{
    struct view *v = arg;
    size_t i = at(v, name);

    assert_true(i < v->count);
    v->count--;
    memmove(v->names[i], v->names[v->count], 16);
    memmove(v->values[i], v->values[v->count], 16);
    v->changes++;
}

static void on_synced(void *arg)
{
    ((struct view *)arg)->synced = true;
}

static void on_end(void *arg, int status, const char *text)
{
    (void)status;
    (void)text;
    ((struct view *)arg)->ended = true;
}

static const struct bns_etcd_peers_handler viewing = {on_peer, on_gone, on_synced, on_end};

static struct bns_etcd_member *member(struct bns_etcd *c, struct reg *r, const char *name,
                                      const char *value)
{
    const struct bns_etcd_member_options o = {.prefix = BNS_LIT("svc/"),
                                              .name = bns_slice_str(name),
                                              .value = bns_slice_str(value),
                                              .ttl_s = 3,
                                              .handler = &registering,
                                              .arg = r};
    struct bns_etcd_member *m = NULL;

    assert_int_equal(bns_etcd_member_open(c, &o, &m), BNS_OK);
    return m;
}

static void names_come_and_go_for_everybody(void **state)
{
    struct bns_etcd *c, *d;
    struct reg r[3] = {0};
    struct view v = {0}, late = {0};
    struct bns_etcd_member *m[3];
    struct bns_etcd_peers *p = NULL, *q = NULL;
    (void)state;

    cw_new(60, 3, NULL);
    (void)cw_leader();
    c = cw_client(NULL);
    d = cw_client(NULL);
    assert_int_equal(bns_etcd_peers_open(d, BNS_LIT("svc/"), &viewing, &v, &p), BNS_OK);
    assert_true(cw_until(&v.synced, 10 * BNS_SEC));
    m[0] = member(c, &r[0], "a", "1");
    m[1] = member(c, &r[1], "b", "2");
    m[2] = member(c, &r[2], "a", "3"); /* taken: it waits */
    cw_pass(5 * BNS_SEC);
    assert_int_equal(v.count, 2);
    assert_string_equal(v.values[at(&v, BNS_LIT("a"))], r[0].up ? "1" : "3");
    assert_true(r[0].up != r[2].up);
    assert_int_equal(bns_etcd_peers_open(c, BNS_LIT("svc/"), &viewing, &late, &q), BNS_OK);
    assert_true(cw_until(&late.synced, 10 * BNS_SEC));
    assert_int_equal(late.count, 2);
    bns_etcd_member_close(m[r[0].up ? 0 : 2]);
    cw_pass(2 * BNS_SEC);
    assert_int_equal(v.count, 2);
    assert_true(r[0].ups == 1 && r[2].ups == 1); /* each had its turn */
    bns_etcd_member_close(m[1]);
    cw_pass(2 * BNS_SEC);
    assert_int_equal(v.count, 1);
    assert_int_equal(late.count, 1);
    bns_etcd_member_close(m[r[2].revision > r[0].revision ? 2 : 0]);
    cw_pass(2 * BNS_SEC);
    assert_int_equal(v.count, 0);
    assert_false(v.ended);
    bns_etcd_peers_close(p);
    bns_etcd_peers_close(q);
    bns_etcd_free(c);
    bns_etcd_free(d);
    cw_free();
}

/* Cut off for longer than the lease lives: the others see it go, it is told, and comes back. */
static void who_was_cut_off_registers_anew(void **state)
{
    struct bns_etcd *c;
    struct reg r = {0};
    struct view v = {0};
    struct bns_etcd_member *m;
    struct bns_etcd_peers *p = NULL;
    (void)state;

    cw_new(61, 3, NULL);
    (void)cw_leader();
    c = cw_client(NULL);
    assert_int_equal(bns_etcd_peers_open(c, BNS_LIT("svc/"), &viewing, &v, &p), BNS_OK);
    m = member(c, &r, "x", "9");
    assert_true(cw_until(&r.up, 10 * BNS_SEC));
    for (unsigned i = 0; i < 3; i++)
        bns_world_block(cw.w, 3, i, true);
    cw_pass(12 * BNS_SEC);
    assert_false(r.up);
    bns_world_connect_all(cw.w);
    assert_true(cw_until(&r.up, 30 * BNS_SEC));
    assert_int_equal(r.ups, 2);
    cw_pass(25 * BNS_SEC); /* the watch notices its silent connection */
    assert_int_equal(v.count, 1);
    assert_true(v.changes >= 2); /* that it is another registration was told */
    bns_etcd_member_close(m);
    bns_etcd_peers_close(p);
    cw_pass(BNS_SEC);
    bns_etcd_free(c);
    cw_free();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_come_and_go_for_everybody),
        cmocka_unit_test(who_was_cut_off_registers_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
