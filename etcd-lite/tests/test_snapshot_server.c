/* Goal:   clients that do not read their snapshots do not keep others from theirs.
 * Method: one real server in a simulated world; streams that are never read, and one that is.
 */
#include "client_world.h"

#define CALLS 4u

struct stream {
    struct bns_etcd_stream *s;
    bool ended;
    int status;
    char text[200];
    size_t bytes;
};

static void on_message(void *arg, struct bns_slice msg)
{
    ((struct stream *)arg)->bytes += msg.len;
}

static void on_end(void *arg, int status, const char *text)
{
    struct stream *x = arg;

    x->s = NULL;
    x->ended = true;
    x->status = status;
    (void)snprintf(x->text, sizeof x->text, "%s", text);
}

static const struct bns_etcd_stream_handler handler = {.on_message = on_message, .on_end = on_end};

static void begin(struct bns_etcd *c, struct stream *x, bool reads)
{
    static const Etcdserverpb__SnapshotRequest r = ETCDSERVERPB__SNAPSHOT_REQUEST__INIT;
    const struct bns_etcd_stream_options o = {
        .method = BNS_ETCD_SNAPSHOT, .first = &r.base, .last = true, .handler = &handler, .arg = x};

    memset(x, 0, sizeof *x);
    assert_int_equal(bns_etcd_stream_open(c, &o, &x->s), BNS_OK);
    bns_etcd_stream_read(x->s, reads);
}

static void put_done(void *arg, const struct bns_etcd_answer *a)
{
    assert_int_equal(a->status, 0);
    *(bool *)arg = true;
}

static void a_place_that_is_not_used_is_given_on(void **state)
{
    static uint8_t value[1000000];
    struct stream idle[CALLS], more;
    struct bns_etcd *c[CALLS + 1];

    (void)state;
    cw_new(1, 1, NULL);
    for (unsigned i = 0; i <= CALLS; i++)
        c[i] = cw_client(NULL);
    for (size_t i = 0; i < sizeof value; i++)
        value[i] = (uint8_t)(i * 2654435761u >> 13);
    for (unsigned i = 0; i < 20; i++) {
        char key[8];
        bool done = false;

        (void)snprintf(key, sizeof key, "k%u", i);
        assert_int_equal(bns_etcd_put(c[0], bns_slice_str(key), bns_slice(value, sizeof value), 0,
                                      put_done, &done),
                         BNS_OK);
        assert_true(cw_until(&done, 10 * BNS_SEC));
    }
    for (unsigned i = 0; i < CALLS; i++)
        begin(c[i], &idle[i], false);
    cw_pass(30 * BNS_SEC);
    begin(c[CALLS], &more, true);
    cw_pass(5 * BNS_SEC);
    assert_true(more.ended); /* their places are their own for a minute */
    assert_int_equal(more.status, 8);
    assert_string_equal(more.text, "etcdserver: too many requests");
    for (unsigned i = 0; i < CALLS; i++)
        assert_false(idle[i].ended);
    cw_pass(40 * BNS_SEC);
    begin(c[CALLS], &more, true);
    assert_true(cw_until(&more.ended, 60 * BNS_SEC));
    assert_int_equal(more.status, 0);
    assert_true(more.bytes > 20 * sizeof value);
    for (unsigned i = 0, ended = 0; i < CALLS; i++) {
        bns_etcd_stream_read(idle[i].s, true);
        assert_true(cw_until(&idle[i].ended, 60 * BNS_SEC));
        ended += idle[i].status == 8;
        assert_true(idle[i].status == 0 || idle[i].status == 8);
        assert_true(i + 1 < CALLS || ended == 1); /* one gave its place, the others went on */
    }
    for (unsigned i = 0; i <= CALLS; i++)
        bns_etcd_free(c[i]);
    cw_free();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_place_that_is_not_used_is_given_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
