/* sim_members.c - members with etcd-lite's store: core, raft_node, WAL, SQLite, snapshots, RPC in
 * one virtual world.
 *
 * Goal:   no seed loses an acknowledged put, serves a stale range, lets two stores differ, or
 *         leaves the cluster stuck once the faults stop.
 * Method: registers are keys; a put is a Put, a compare-and-set is a Txn, a read is a ReadIndex
 *         and a Range. Swarm faults; digests compared after every event; linearizability at the
 *         end.
 * Repeat: BNS_SEED=0x1f2e ./sim_members      BNS_RUNS=500 BNS_START=1000 ./sim_members
 *         BNS_TRACE=1 prints every event
 *
 * ctest: timeout=300 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec/pb.h"
#include "kv.h"
#include "sim/raft_cluster.h"

struct wait {
    struct etcd_waiter w;
    struct bns_env *env;
    void *server;
    bool cas;
};

struct read {
    struct bns_env *env;
    Etcdserverpb__RangeRequest req;
    uint8_t key;
    bns_cluster_read_done *done;
    void *arg;
};

static int member_open(struct bns_env *env, void *server, void **sm, struct bns_err *err)
{
    struct etcd_kv_config cfg = {.dir = "/data"};
    struct etcd_kv *kv = NULL;
    int rv = bns_vfs_mkdir(env->vfs, "/data", err);

    (void)server;
    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(env->vfs, "/", err);
    if (rv == BNS_OK)
        rv = etcd_kv_open(env, &cfg, &kv, err);
    *sm = kv;
    return rv;
}

static void member_died(void *sm)
{
    etcd_kv_died(sm);
}

struct stop {
    struct bns_env *env;
    struct etcd_kv *kv;
    void *server;
};

static void drained(void *arg)
{
    struct stop *s = arg;
    void *server = s->server;

    etcd_kv_close(s->kv);
    bns_free(s->env->alloc, s);
    bns_raft_cluster_closed(server, false); /* clients that wait hold some of its memory */
}

static void member_close(struct bns_env *env, void *server, void *sm)
{
    struct stop *s = bns_alloc(env->alloc, sizeof *s);

    if (s == NULL) {
        bns_fatal(env, 1, "no memory to stop");
        return;
    }
    *s = (struct stop){env, sm, server};
    etcd_kv_drain(sm, drained, s);
}

static uint64_t member_applied(const void *sm)
{
    return etcd_kv_applied(sm);
}

/* ---- writes --------------------------------------------------------------------------------- */

/* Field 2 of a TxnResponse: succeeded. */
static bool succeeded(const struct etcd_answer *a)
{
    struct bns_buf all;
    struct bns_slice rest;
    struct bns_pb_field f;
    bool yes = false;

    bns_buf_init(&all, bns_alloc_libc(), 1024 * 1024);
    for (size_t i = 0; i < a->slices_count; i++)
        BNS_ASSERT(bns_buf_add(&all, a->slices[i].ptr, a->slices[i].len) == BNS_OK);
    rest = bns_buf_slice(&all);
    while (rest.len > 0) {
        BNS_ASSERT(bns_pb_next(&rest, &f) == BNS_OK);
        if (f.id == 2)
            yes = f.u64 != 0;
    }
    bns_buf_free(&all);
    return yes;
}

static void written(struct etcd_waiter *ew, struct etcd_answer *a)
{
    struct wait *w = BNS_CONTAINER(ew, struct wait, w);

    if (a->status == 0) {
        bool done = !w->cas || succeeded(a);

        a->release(a->release_arg, BNS_OK);
        bns_raft_cluster_applied(w->server, 0, ew->id, done);
    }
    bns_free(w->env->alloc, w);
}

static struct bns_slice encode(const struct bns_register_cmd *cmd, struct bns_arena *arena)
{
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    Etcdserverpb__RequestOp op = ETCDSERVERPB__REQUEST_OP__INIT;
    Etcdserverpb__Compare cmp = ETCDSERVERPB__COMPARE__INIT;
    Etcdserverpb__TxnRequest txn = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__RequestOp *ops[1] = {&op};
    Etcdserverpb__Compare *cmps[1] = {&cmp};
    ProtobufCBinaryData key = {1, (uint8_t[]){(uint8_t)('a' + cmd->key)}};
    struct bns_slice out;

    put.has_key = put.has_value = true;
    put.key = key;
    put.value = (ProtobufCBinaryData){8, (uint8_t *)(uintptr_t)&cmd->value};
    op.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    op.request_put = &put;
    cmp.has_key = cmp.has_target = true;
    cmp.key = key;
    cmp.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__VALUE;
    cmp.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE;
    cmp.value = (ProtobufCBinaryData){8, (uint8_t *)(uintptr_t)&cmd->old};
    if (cmd->old == 0) { /* never put */
        cmp.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__CREATE;
        cmp.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION;
        cmp.create_revision = 0;
    }
    txn.n_compare = txn.n_success = 1;
    txn.compare = cmps;
    txn.success = ops;
    BNS_ASSERT(bns_pb_pack_arena(cmd->cas ? &txn.base : &put.base, arena, &out) == BNS_OK);
    return out;
}

static int member_propose(struct bns_env *env, void *server, void *sm, struct bns_raft_node *n,
                          const struct bns_register_cmd *cmd)
{
    struct wait *w = bns_alloc_zero(env->alloc, sizeof *w);
    struct bns_arena arena;
    struct bns_rcbuf *b;
    int rv;

    if (w == NULL)
        return BNS_E_NOMEM;
    *w = (struct wait){.env = env, .server = server, .cas = cmd->cas};
    w->w.id = cmd->id;
    w->w.fn = written;
    bns_arena_init(&arena, bns_alloc_libc(), 64 * 1024);
    b = etcd_internal_encode(env->alloc, cmd->id, cmd->cas ? ETCD_OP_TXN : ETCD_OP_PUT,
                             encode(cmd, &arena));
    bns_arena_free(&arena);
    rv = b == NULL ? BNS_E_NOMEM : etcd_kv_wait(sm, &w->w);
    if (rv == BNS_OK) {
        rv = bns_raft_node_propose(n, b);
        if (rv != BNS_OK)
            etcd_kv_unwait(sm, &w->w);
    }
    bns_rcbuf_put(b);
    if (rv != BNS_OK)
        bns_free(env->alloc, w);
    return rv;
}

/* ---- reads ---------------------------------------------------------------------------------- */

static void ranged(void *arg, struct etcd_answer *a)
{
    struct read *r = arg;
    struct bns_arena arena;
    struct bns_buf all;
    ProtobufCMessage *m = NULL;
    const Etcdserverpb__RangeResponse *resp;
    uint64_t value = 0;

    if (a->status != 0) { /* refused: the client never hears */
        bns_free(r->env->alloc, r);
        return;
    }
    bns_arena_init(&arena, bns_alloc_libc(), 1024 * 1024);
    bns_buf_init(&all, bns_alloc_libc(), 1024 * 1024);
    for (size_t i = 0; i < a->slices_count; i++)
        BNS_ASSERT(bns_buf_add(&all, a->slices[i].ptr, a->slices[i].len) == BNS_OK);
    BNS_ASSERT(bns_pb_unpack(&etcdserverpb__range_response__descriptor, bns_buf_slice(&all), &arena,
                             NULL, &m, NULL) == BNS_OK);
    resp = (const Etcdserverpb__RangeResponse *)m;
    if (resp->n_kvs == 1)
        memcpy(&value, resp->kvs[0]->value.data, sizeof value);
    a->release(a->release_arg, BNS_OK);
    bns_arena_free(&arena);
    bns_buf_free(&all);
    r->done(r->arg, value);
    bns_free(r->env->alloc, r);
}

static void member_read(struct bns_env *env, void *sm, uint8_t key, bns_cluster_read_done *done,
                        void *arg)
{
    struct read *r = bns_alloc_zero(env->alloc, sizeof *r);

    if (r == NULL)
        return; /* the client never hears */
    r->env = env;
    r->done = done;
    r->arg = arg;
    r->key = (uint8_t)('a' + key);
    etcdserverpb__range_request__init(&r->req);
    r->req.has_key = true;
    r->req.key = (ProtobufCBinaryData){1, &r->key};
    etcd_kv_range(sm, &r->req, ranged, r);
}

static const struct bns_cluster_subject store = {
    .open = member_open,
    .died = member_died,
    .close = member_close,
    .ops = etcd_kv_sm,
    .applied = member_applied,
    .propose = member_propose,
    .read = member_read,
};

/* ---- tests ---------------------------------------------------------------------------------- */

static uint64_t from_env(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text != NULL ? strtoull(text, NULL, 0) : otherwise;
}

static void print_line(void *arg, const char *text)
{
    (void)arg;
    print_message("%s\n", text);
}

static void run_seed(uint64_t seed, struct bns_raft_cluster_result *r)
{
    struct bns_raft_cluster_config cfg = bns_raft_cluster_swarm(seed);

    cfg.subject = &store;
    if (getenv("BNS_TRACE") != NULL)
        cfg.trace = print_line;
    if (!bns_raft_cluster_run(seed, &cfg, r))
        fail_msg("seed 0x%llx: %s\nreplay: BNS_SEED=0x%llx sim_members", (unsigned long long)seed,
                 r->text, (unsigned long long)seed);
}

static void no_seed_breaks_the_members(void **state)
{
    struct bns_raft_cluster_result r;
    uint64_t runs = from_env("BNS_RUNS", 12), first = from_env("BNS_START", 1), ok = 0, starts = 0,
             stops = 0;

    (void)state;
    if (getenv("BNS_SEED") != NULL) {
        first = from_env("BNS_SEED", 1);
        runs = 1;
    }
    for (uint64_t seed = first; seed < first + runs; seed++) {
        run_seed(seed, &r);
        ok += r.ops_ok;
        starts += r.restarts;
        stops += r.stops;
    }
    print_message("seeds %llu..%llu: %llu operations, %llu starts, %llu stops\n",
                  (unsigned long long)first, (unsigned long long)(first + runs - 1),
                  (unsigned long long)ok, (unsigned long long)starts, (unsigned long long)stops);
    assert_true(ok > runs);
}

static void the_same_seed_gives_the_same_trace(void **state)
{
    struct bns_raft_cluster_result a, b;

    (void)state;
    run_seed(2, &a);
    run_seed(2, &b);
    assert_true(a.trace_hash == b.trace_hash);
    assert_true(a.events == b.events && a.events > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_trace),
        cmocka_unit_test(no_seed_breaks_the_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
