/* Goal:   a snapshot's way between members survives members that lie and state machines that fail.
 * Method: members with the registers of the simulator in a calm virtual world. One host speaks the
 *         snapshot requests by hand; each further test makes one call of the sender's state machine
 *         fail or linger.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "app/raft_node.h"
#include "base/crc32c.h"
#include "base/varint.h"
#include "io/rpc.h"
#include "proto/raft_msg.h"
#include "sim/register_sm.h"
#include "sim/world.h"

#define MEMBERS 3u
#define METHOD_SNAP 2u
#define LIAR 1u /* the host that is no member's, but says so */

enum trouble { NONE, OPEN_FAILS, READ_FAILS, READ_IS_EMPTY, OPEN_LINGERS, READ_LINGERS };

static struct fixture {
    struct bns_world *w;
    struct bns_sm_ops ops;
    struct bns_raft_node *node[MEMBERS];
    struct bns_register_sm *sm[MEMBERS];
    enum trouble trouble;
    unsigned left; /* troubles to come */
    unsigned closed;
    struct bns_timer timer;
    /* a call that lingers */
    void *sm_of;
    struct bns_sm_snap *snap;
    uint64_t off;
    size_t len;
    bns_sm_snap_done *opened;
    bns_sm_read_done *read;
    void *arg;
    /* the liar */
    struct bns_rpc_peer *link;
    uint64_t as;
    int code;
    uint64_t wants;
    unsigned answers;
} fx; /* the operations of a state machine have no argument of their own */

static void was_applied(void *arg, uint64_t index, const struct bns_register_cmd *cmd, bool done)
{
    (void)arg;
    (void)index;
    (void)cmd;
    (void)done;
}

static int start(struct bns_env *env, unsigned id, void *arg)
{
    struct bns_raft_peer_addr peers[MEMBERS] = {0};
    struct bns_raft_node_config cfg = {
        .group = 1,
        .id = id + 1,
        .peers = peers,
        .peers_count = MEMBERS,
        .listen_host = bns_world_host(fx.w, id),
        .listen_port = 2380,
        .snapshot_entries = 5,
        .trailing_entries = 1,
        .wal = {.dir = "wal", .segment_bytes_max = 64 * 1024},
    };
    struct bns_err err = {0};

    (void)arg;
    for (unsigned i = 0; i < MEMBERS; i++) {
        peers[i].id = i + 1;
        peers[i].port = 2380;
        (void)snprintf(peers[i].host, sizeof peers[i].host, "%s", bns_world_host(fx.w, i));
    }
    assert_int_equal(bns_vfs_mkdir(env->vfs, "wal", &err), BNS_OK);
    assert_int_equal(bns_register_open(env, ".", was_applied, NULL, &fx.sm[id], &err), BNS_OK);
    assert_int_equal(bns_raft_node_open(env, &cfg, &fx.ops, fx.sm[id], &fx.node[id], &err), BNS_OK);
    return bns_raft_node_start(fx.node[id], &err);
}

static const struct bns_node_main member_main = {.start = start};

static void open_world(void)
{
    struct bns_world_config cfg = bns_world_calm(MEMBERS);

    memset(&fx, 0, sizeof fx);
    fx.ops = *bns_register_ops();
    assert_int_equal(bns_world_new(1, &cfg, &fx.w), BNS_OK);
}

static void run_ms(uint64_t ms)
{
    assert_null(bns_world_run(fx.w, bns_world_now(fx.w) + ms * BNS_MS, NULL, NULL));
}

/* ---- a member that lies ---------------------------------------------------------------------- */

static int liar_start(struct bns_env *env, unsigned id, void *arg)
{
    struct bns_rpc_identity me = {.node_id = fx.as, .incarnation = 1};
    struct bns_rpc_peer_config pc = {.node_id = 1, .host = bns_world_host(fx.w, 0), .port = 2380};

    (void)id;
    (void)arg;
    return bns_rpc_peer_new(env, &me, &pc, &fx.link, NULL);
}

static const struct bns_node_main liar_main = {.start = liar_start};

struct request {
    uint16_t method;
    struct bns_slice v[2];
};

static void answered(void *arg, int code, struct bns_slice payload)
{
    (void)arg;
    fx.answers++;
    fx.code = code;
    fx.wants = payload.len == 8 ? bns_get_u64le(payload.ptr) : 0;
}

static void ask_now(struct bns_env *env, void *arg)
{
    const struct request *q = arg;
    struct bns_rpc_call_options o = {
        .method = q->method, .deadline_ns = bns_now_ns(env) + BNS_SEC, .done = answered};

    assert_int_equal(bns_rpc_call(fx.link, &o, q->v, 2), BNS_OK);
}

static int ask(uint16_t method, struct bns_slice head, struct bns_slice data)
{
    struct request q = {.method = method, .v = {head, data}};
    unsigned before = fx.answers;

    assert_true(bns_world_call(fx.w, LIAR, ask_now, &q));
    run_ms(900);
    assert_int_equal(fx.answers, before + 1);
    return fx.code;
}

static int ask_begin(uint64_t stream, uint64_t bytes, size_t len)
{
    struct bns_raft_conf conf = {.voters = {1, 2, 3}, .voters_count = 3};
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, bns_alloc_libc(), 4096);
    assert_int_equal(bns_buf_reserve(&b, 64), BNS_OK);
    b.ptr[0] = 1;
    bns_put_u64le(b.ptr + 1, stream);
    bns_put_u64le(b.ptr + 9, 1);    /* the sender's term */
    bns_put_u64le(b.ptr + 17, 100); /* index and its term */
    bns_put_u64le(b.ptr + 25, 1);
    bns_put_u64le(b.ptr + 33, bytes);
    b.len = 41;
    assert_int_equal(bns_raft_conf_encode(&conf, &b), BNS_OK);
    rv = ask(METHOD_SNAP, bns_slice(b.ptr, len < b.len ? len : b.len), bns_slice(NULL, 0));
    bns_buf_free(&b);
    return rv;
}

static int ask_chunk(uint64_t stream, uint64_t off, uint32_t crc_xor, size_t len)
{
    static const uint8_t data[300 * 1024];
    uint8_t head[21] = {2};

    bns_put_u64le(head + 1, stream);
    bns_put_u64le(head + 9, off);
    bns_put_u32le(head + 17, bns_crc32c(0, data, len) ^ crc_xor);
    return ask(METHOD_SNAP, bns_slice(head, sizeof head), bns_slice(data, len));
}

static int ask_end(uint64_t stream, uint32_t crc)
{
    uint8_t head[13] = {3};

    bns_put_u64le(head + 1, stream);
    bns_put_u32le(head + 9, crc);
    return ask(METHOD_SNAP, bns_slice(head, sizeof head), bns_slice(NULL, 0));
}

static void take_begin(void *sm, const struct bns_raft_snapmeta *meta, uint64_t bytes,
                       bns_sm_done *done, void *arg)
{
    (void)sm;
    (void)meta;
    (void)bytes;
    done(arg, BNS_OK);
}

static void take_chunk(void *sm, uint64_t off, struct bns_slice chunk, bns_sm_done *done, void *arg)
{
    (void)sm;
    (void)off;
    (void)chunk;
    done(arg, BNS_OK);
}

static void open_with_liar(uint64_t as)
{
    open_world();
    fx.ops.install_begin = take_begin;
    fx.ops.install_chunk = take_chunk;
    fx.as = as;
    bns_world_start(fx.w, 0, &member_main);
    run_ms(100);
    bns_world_start(fx.w, LIAR, &liar_main);
    run_ms(500);
}

static void requests_outside_the_protocol_are_refused(void **state)
{
    uint8_t odd[9] = {9, 7};
    (void)state;

    open_with_liar(2);
    assert_int_equal(ask(77, bns_slice(odd, 9), bns_slice(NULL, 0)), BNS_E_UNSUPPORTED);
    assert_int_equal(ask(METHOD_SNAP, bns_slice(odd, 8), bns_slice(NULL, 0)), BNS_E_PROTO);
    assert_int_equal(ask(METHOD_SNAP, bns_slice(odd, 9), bns_slice(NULL, 0)), BNS_E_NOTFOUND);
    assert_int_equal(ask_chunk(7, 0, 0, 10), BNS_E_NOTFOUND); /* nothing has begun */
    assert_int_equal(ask_end(7, 0), BNS_E_NOTFOUND);
    for (size_t len = 9; len < 41; len++)
        assert_int_equal(ask_begin(7, 100, len), BNS_E_PROTO);

    assert_int_equal(ask_begin(7, 100, SIZE_MAX), BNS_OK);
    assert_int_equal(ask(METHOD_SNAP, bns_slice(odd, 9), bns_slice(NULL, 0)), BNS_E_PROTO);
    assert_int_equal(ask_chunk(8, 0, 0, 10), BNS_E_NOTFOUND); /* another stream */
    assert_int_equal(ask_chunk(7, 0, 1, 10), BNS_E_PROTO);    /* damaged */
    assert_int_equal(ask_chunk(7, 5, 0, 10), BNS_E_PROTO);    /* a gap */
    assert_int_equal(ask_chunk(7, 0, 0, 0), BNS_E_PROTO);     /* empty */
    assert_int_equal(ask_chunk(7, 0, 0, 101), BNS_E_PROTO);   /* more than was announced */
    assert_int_equal(ask_chunk(7, 0, 0, 40), BNS_OK);
    assert_int_equal(ask_begin(7, 100, SIZE_MAX), BNS_OK); /* once more: goes on where it was */
    assert_int_equal(fx.wants, 40);
    assert_int_equal(ask_end(7, 0), BNS_E_CORRUPT); /* too early: all is dropped */
    assert_int_equal(ask_chunk(7, 40, 0, 40), BNS_E_NOTFOUND);

    assert_int_equal(ask_begin(9, 1 << 20, SIZE_MAX), BNS_OK);
    assert_int_equal(ask_chunk(9, 0, 0, 257 * 1024), BNS_E_PROTO); /* larger than a chunk may be */
    bns_world_free(fx.w);
}

static void who_is_no_member_is_refused(void **state)
{
    (void)state;
    open_with_liar(9);
    assert_int_equal(ask_begin(7, 100, SIZE_MAX), BNS_E_FORBIDDEN);
    bns_world_free(fx.w);
}

/* ---- a sender's state machine in trouble ----------------------------------------------------- */

static void open_late(void *arg)
{
    (void)arg;
    bns_register_ops()->snap_open(fx.sm_of, fx.opened, fx.arg);
}

static void troubled_open(void *sm, bns_sm_snap_done *done, void *arg)
{
    struct bns_env *env = bns_world_env(fx.w, 0);

    if (fx.left > 0 && fx.trouble == OPEN_FAILS) {
        fx.left--;
        done(arg, BNS_E_IO, NULL, NULL, 0);
    } else if (fx.left > 0 && fx.trouble == OPEN_LINGERS) {
        fx.left--;
        fx.sm_of = sm;
        fx.opened = done;
        fx.arg = arg;
        bns_timer_init(&fx.timer, open_late, NULL);
        bns_timer_start(env, &fx.timer, bns_now_ns(env) + 300 * BNS_MS);
    } else {
        bns_register_ops()->snap_open(sm, done, arg);
    }
}

static void read_late(void *arg)
{
    (void)arg;
    bns_register_ops()->snap_read(fx.sm_of, fx.snap, fx.off, fx.len, fx.read, fx.arg);
}

static void troubled_read(void *sm, struct bns_sm_snap *s, uint64_t off, size_t len,
                          bns_sm_read_done *done, void *arg)
{
    struct bns_env *env = bns_world_env(fx.w, 0);

    if (fx.left > 0 && (fx.trouble == READ_FAILS || fx.trouble == READ_IS_EMPTY)) {
        fx.left--;
        done(arg, fx.trouble == READ_FAILS ? BNS_E_IO : BNS_OK, bns_slice(NULL, 0));
    } else if (fx.left > 0 && fx.trouble == READ_LINGERS) {
        fx.left--;
        fx.sm_of = sm;
        fx.snap = s;
        fx.off = off;
        fx.len = len;
        fx.read = done;
        fx.arg = arg;
        bns_timer_init(&fx.timer, read_late, NULL);
        bns_timer_start(env, &fx.timer, bns_now_ns(env) + 300 * BNS_MS);
    } else {
        bns_register_ops()->snap_read(sm, s, off, len, done, arg);
    }
}

static void propose_now(struct bns_env *env, void *arg)
{
    struct bns_register_cmd cmd = {.id = *(uint64_t *)arg, .value = 1};
    struct bns_rcbuf *b = bns_register_encode(env->alloc, &cmd);

    assert_non_null(b);
    assert_int_equal(bns_raft_node_propose(fx.node[0], b), BNS_OK);
    bns_rcbuf_put(b);
}

/* Members 0 and 1 go on so long that member 2 can only be helped by a snapshot. */
static void open_with_late_member(enum trouble trouble, unsigned times)
{
    open_world();
    fx.trouble = trouble;
    fx.left = times;
    fx.ops.snap_open = troubled_open;
    fx.ops.snap_read = troubled_read;
    for (unsigned i = 0; i < 2; i++)
        bns_world_start(fx.w, i, &member_main);
    run_ms(3000);
    for (uint64_t id = 1; id <= 40; id++) {
        assert_true(bns_world_call(fx.w, 0, propose_now, &id));
        run_ms(20);
    }
    bns_world_start(fx.w, 2, &member_main);
}

static void a_sender_in_trouble_tries_again(void **state)
{
    static const enum trouble all[] = {OPEN_FAILS, READ_FAILS, READ_IS_EMPTY, OPEN_LINGERS,
                                       READ_LINGERS};
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct bns_raft_status a, b;

        open_with_late_member(all[i], all[i] >= OPEN_LINGERS ? 1 : 3);
        run_ms(15000);
        assert_int_equal(fx.left, 0);
        bns_raft_node_status(fx.node[0], &a);
        bns_raft_node_status(fx.node[2], &b);
        assert_int_equal(a.applied, b.applied);
        bns_world_free(fx.w);
    }
}

static void is_closed(void *arg)
{
    (void)arg;
    fx.closed++;
}

static void close_now(struct bns_env *env, void *arg)
{
    (void)env;
    (void)arg;
    bns_raft_node_close(fx.node[0], is_closed, NULL);
}

/* The snapshot that is being opened or read is given back before the node says that it closed. */
static void a_sender_may_close_at_any_moment(void **state)
{
    static const enum trouble all[] = {NONE, OPEN_LINGERS, READ_LINGERS};
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        for (uint64_t ms = 1; ms < 700; ms += 23) {
            open_with_late_member(all[i], 1);
            run_ms(ms);
            assert_true(bns_world_call(fx.w, 0, close_now, NULL));
            run_ms(2000);
            assert_int_equal(fx.closed, 1);
            bns_world_free(fx.w);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_outside_the_protocol_are_refused),
        cmocka_unit_test(who_is_no_member_is_refused),
        cmocka_unit_test(a_sender_in_trouble_tries_again),
        cmocka_unit_test(a_sender_may_close_at_any_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
