/* kv_world.h - one store on one simulated node, driven by hand: requests in, decoded answers out.
 *
 * Every request is encoded to bytes and becomes a log entry, as in the daemon; answers are decoded
 * from the slices that would be sent. Power can be cut in any VFS call. */
#ifndef ETCD_TESTS_KV_WORLD_H
#define ETCD_TESTS_KV_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "codec/pb.h"
#include "kv.h"
#include "lease_kv.h"
#include "sim/world.h"

#define HELPER __attribute__((unused)) static

#define RANGE_DESC (&etcdserverpb__range_response__descriptor)
#define PUT_DESC (&etcdserverpb__put_response__descriptor)
#define DELETE_DESC (&etcdserverpb__delete_range_response__descriptor)
#define TXN_DESC (&etcdserverpb__txn_response__descriptor)
#define GRANT_DESC (&etcdserverpb__lease_grant_response__descriptor)
#define REVOKE_DESC (&etcdserverpb__lease_revoke_response__descriptor)
#define HASH_DESC (&etcdserverpb__hash_kvresponse__descriptor)

struct kvw {
    struct bns_world *w;
    struct etcd_kv *kv; /* NULL: the node is down */
    struct etcd_kv_config cfg;
    uint64_t index, term, id;
    struct bns_arena arena; /* requests and answers of the test */
    int open_rv;
    uint64_t arm_n; /* the next start plants `arm` in its n-th VFS call */
    enum bns_vfs_mem_fault arm;
    bool fired;
    uint64_t settle_ns;
    int died_code; /* of the last death by fatal */
    char died_text[128];
};

/* One answer, copied out. */
struct got {
    bool done;
    int status;
    char text[128];
    int64_t revision;
    uint8_t *bytes; /* with the header in front */
    size_t len;
};

HELPER ProtobufCBinaryData BN(const void *p, size_t n)
{
    return (ProtobufCBinaryData){n, (uint8_t *)(uintptr_t)p};
}
HELPER ProtobufCBinaryData B(const char *s)
{
    return BN(s, strlen(s));
}

/* ---- the node ------------------------------------------------------------------------------- */

HELPER int kvw_start(struct bns_env *env, unsigned id, void *arg)
{
    struct kvw *k = arg;
    struct bns_err err = {0};

    (void)id;
    if (k->arm_n > 0)
        bns_vfs_mem_fail_at(env->vfs, k->arm_n, k->arm);
    k->arm_n = 0;
    k->open_rv = bns_vfs_mkdir(env->vfs, "/data", &err);
    if (k->open_rv == BNS_OK)
        k->open_rv = bns_vfs_sync_dir(env->vfs, "/", &err);
    k->cfg.dir = "/data";
    if (k->open_rv == BNS_OK)
        k->open_rv = etcd_kv_open(env, &k->cfg, &k->kv, &err);
    if (k->open_rv != BNS_OK && k->open_rv != BNS_E_OFF)
        print_message("open: %d %s\n", k->open_rv, err.text);
    return k->open_rv;
}

HELPER void kvw_died(unsigned id, int code, const char *text, void *arg)
{
    struct kvw *k = arg;

    (void)id;
    if (code != 0)
        print_message("died %d: %s\n", code, text == NULL ? "" : text);
    k->fired = true;
    k->died_code = code;
    (void)snprintf(k->died_text, sizeof k->died_text, "%s", text == NULL ? "" : text);
    etcd_kv_died(k->kv);
    k->kv = NULL;
}

/* Runs until nothing is left to do; or for so long, when a timer is to go on for ever. */
HELPER void kvw_settle(struct kvw *k)
{
    if (k->settle_ns > 0) {
        uint64_t end = bns_world_now(k->w) + k->settle_ns;

        while (bns_world_now(k->w) < end && bns_world_step(k->w)) {
        }
        return;
    }
    while (bns_world_step(k->w)) {
    }
}

HELPER bool kvw_up(struct kvw *k)
{
    struct bns_node_main m = {.start = kvw_start, .died = kvw_died, .arg = k};

    bns_world_start(k->w, 0, &m);
    kvw_settle(k);
    return k->kv != NULL;
}

HELPER void kvw_init(struct kvw *k, uint64_t seed, const struct etcd_kv_config *cfg)
{
    struct bns_world_config wc = bns_world_calm(1);

    memset(k, 0, sizeof *k);
    if (cfg != NULL)
        k->cfg = *cfg;
    k->term = 1;
    bns_arena_init(&k->arena, bns_alloc_libc(), SIZE_MAX / 2);
    assert_int_equal(bns_world_new(seed, &wc, &k->w), BNS_OK);
}

/* A call into the node's code, with whatever it needs. */
struct kvw_call {
    struct kvw *k;
    void (*fn)(struct kvw_call *c);
    const void *req;
    int64_t rev;
    struct got *g;
    bool done;
};

HELPER void kvw_in(struct bns_env *env, void *arg)
{
    struct kvw_call *c = arg;

    (void)env;
    c->fn(c);
}

/* False: the node died. */
HELPER bool kvw_call(struct kvw_call *c)
{
    assert_true(bns_world_call(c->k->w, 0, kvw_in, c));
    kvw_settle(c->k);
    return c->k->kv != NULL;
}

HELPER void kvw_set_done(void *arg)
{
    *(bool *)arg = true;
}
HELPER void kvw_do_drain(struct kvw_call *c)
{
    etcd_kv_drain(c->k->kv, kvw_set_done, &c->done);
}
HELPER void kvw_do_close(struct kvw_call *c)
{
    etcd_kv_close(c->k->kv);
    c->k->kv = NULL;
}

/* An orderly stop, which must leave no memory behind; then the process is gone. */
HELPER void kvw_close(struct kvw *k)
{
    struct kvw_call c = {.k = k, .fn = kvw_do_drain};

    if (k->kv == NULL)
        return;
    assert_true(kvw_call(&c));
    assert_true(c.done);
    c.fn = kvw_do_close;
    (void)kvw_call(&c);
    assert_int_equal(bns_test_heap_blocks(bns_world_heap(k->w, 0)), 0);
    bns_world_kill(k->w, 0);
    kvw_settle(k);
}

HELPER void kvw_free(struct kvw *k)
{
    kvw_close(k);
    bns_world_free(k->w);
    bns_arena_free(&k->arena);
}

/* ---- answers -------------------------------------------------------------------------------- */

HELPER void kvw_take(struct got *g, struct etcd_answer *a)
{
    size_t body = 0;

    assert_false(g->done);
    g->done = true;
    g->status = a->status;
    g->revision = a->revision;
    if (a->status != 0) {
        (void)snprintf(g->text, sizeof g->text, "%s", a->text);
        return;
    }
    for (size_t i = 1; i < a->slices_count; i++)
        body += a->slices[i].len;
    assert_int_equal(body, a->bytes);
    etcd_answer_header(a, 7, 9, 3);
    g->bytes = malloc(body + 64);
    for (size_t i = 0; i < a->slices_count; i++) {
        memcpy(g->bytes + g->len, a->slices[i].ptr, a->slices[i].len);
        g->len += a->slices[i].len;
    }
    a->release(a->release_arg, BNS_OK);
}

/* Decodes into the test's arena and frees the copy. */
HELPER void *kvw_decode(struct kvw *k, struct got *g, const ProtobufCMessageDescriptor *d)
{
    const struct bns_pb_limits limits = {.bytes = SIZE_MAX / 4, .depth = 200, .elements = 10000000};
    ProtobufCMessage *m = NULL;
    struct bns_err err = {0};

    assert_int_equal(g->status, 0);
    assert_int_equal(bns_pb_unpack(d, bns_slice(g->bytes, g->len), &k->arena, &limits, &m, &err),
                     BNS_OK);
    free(g->bytes);
    g->bytes = NULL;
    return m;
}

HELPER void kvw_on_read(void *arg, struct etcd_answer *a)
{
    kvw_take(arg, a);
}
HELPER void kvw_do_range(struct kvw_call *c)
{
    etcd_kv_range(c->k->kv, c->req, kvw_on_read, c->g);
}
HELPER void kvw_do_txn(struct kvw_call *c)
{
    etcd_kv_txn_readonly(c->k->kv, c->req, kvw_on_read, c->g);
}
HELPER void kvw_do_hash(struct kvw_call *c)
{
    etcd_kv_hash(c->k->kv, c->rev, kvw_on_read, c->g);
}
HELPER struct got kvw_read(struct kvw *k, void (*fn)(struct kvw_call *), const void *req,
                           int64_t rev)
{
    struct got g = {0};
    struct kvw_call c = {.k = k, .fn = fn, .req = req, .rev = rev, .g = &g};

    assert_true(kvw_call(&c));
    assert_true(g.done);
    return g;
}
HELPER struct got kvw_range(struct kvw *k, const Etcdserverpb__RangeRequest *r)
{
    return kvw_read(k, kvw_do_range, r, 0);
}
HELPER uint32_t kvw_hash(struct kvw *k, int64_t rev)
{
    struct got g = kvw_read(k, kvw_do_hash, NULL, rev);
    Etcdserverpb__HashKVResponse *m = kvw_decode(k, &g, HASH_DESC);
    return m->hash;
}

/* ---- writes --------------------------------------------------------------------------------- */

struct kvw_write {
    struct kvw *k;
    struct etcd_waiter w;
    struct got *g; /* NULL: nobody waits here */
    struct bns_raft_entry e;
    bool applied;
};

HELPER void kvw_on_write(struct etcd_waiter *w, struct etcd_answer *a)
{
    kvw_take(BNS_CONTAINER(w, struct kvw_write, w)->g, a);
}
HELPER void kvw_on_applied(void *arg, int code)
{
    struct kvw_write *x = arg;

    assert_int_equal(code, BNS_OK);
    x->applied = true;
    x->k->index = x->e.index;
}
HELPER void kvw_do_apply(struct bns_env *env, void *arg)
{
    struct kvw_write *x = arg;

    (void)env;
    if (x->g != NULL) {
        x->w.id = x->k->id;
        x->w.fn = kvw_on_write;
        assert_int_equal(etcd_kv_wait(x->k->kv, &x->w), BNS_OK);
    }
    etcd_kv_sm()->apply(x->k->kv, &x->e, 1, kvw_on_applied, x);
}

HELPER bool kvw_apply_data(struct kvw *k, uint8_t kind, struct bns_rcbuf *data, struct got *g)
{
    struct kvw_write x = {.k = k, .g = g};

    x.e =
        (struct bns_raft_entry){.index = k->index + 1, .term = k->term, .kind = kind, .data = data};
    assert_true(bns_world_call(k->w, 0, kvw_do_apply, &x));
    kvw_settle(k);
    bns_rcbuf_put(data);
    assert_true(x.applied || k->kv == NULL);
    if (k->kv != NULL && g != NULL)
        assert_true(g->done);
    return x.applied;
}

/* Packs req, makes it an entry, applies it; false when the node died on the way. */
HELPER bool kvw_apply(struct kvw *k, enum etcd_op op, const void *req, struct got *g)
{
    struct bns_slice bytes;

    assert_int_equal(bns_pb_pack_arena(req, &k->arena, &bytes), BNS_OK);
    if (g != NULL)
        memset(g, 0, sizeof *g);
    k->id++;
    return kvw_apply_data(k, BNS_RAFT_NORMAL,
                          etcd_internal_encode(bns_alloc_libc(), k->id, op, bytes), g);
}

/* ---- short forms ---------------------------------------------------------------------------- */

HELPER Etcdserverpb__PutRequest put_req(const char *key, const char *value)
{
    Etcdserverpb__PutRequest r = ETCDSERVERPB__PUT_REQUEST__INIT;

    r.has_key = true;
    r.key = B(key);
    r.has_value = true;
    r.value = B(value);
    return r;
}
/* end: NULL = one key, "" = all keys from key on */
HELPER Etcdserverpb__RangeRequest range_req(const char *key, const char *end)
{
    Etcdserverpb__RangeRequest r = ETCDSERVERPB__RANGE_REQUEST__INIT;

    r.has_key = true;
    r.key = B(key);
    r.has_range_end = end != NULL;
    r.range_end = end == NULL ? BN(NULL, 0) : end[0] == 0 ? BN("", 1) : B(end);
    return r;
}
HELPER Etcdserverpb__DeleteRangeRequest delete_req(const char *key, const char *end)
{
    Etcdserverpb__DeleteRangeRequest r = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;

    r.has_key = true;
    r.key = B(key);
    r.has_range_end = end != NULL;
    r.range_end = end == NULL ? BN(NULL, 0) : end[0] == 0 ? BN("", 1) : B(end);
    return r;
}
HELPER int64_t do_put(struct kvw *k, const char *key, const char *value)
{
    Etcdserverpb__PutRequest r = put_req(key, value);
    struct got g;

    if (!kvw_apply(k, ETCD_OP_PUT, &r, &g))
        return 0;
    assert_int_equal(g.status, 0);
    free(g.bytes);
    return g.revision;
}
/* The status; 0 also when the node died. */
HELPER int do_grant(struct kvw *k, int64_t id, int64_t ttl)
{
    Etcdserverpb__LeaseGrantRequest r = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    struct got g;

    r.has_id = r.has_ttl = true;
    r.id = id;
    r.ttl = ttl;
    if (!kvw_apply(k, ETCD_OP_LEASE_GRANT, &r, &g))
        return 0;
    free(g.bytes);
    return g.status;
}
HELPER int do_revoke(struct kvw *k, int64_t id)
{
    Etcdserverpb__LeaseRevokeRequest r = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    struct got g;

    r.has_id = true;
    r.id = id;
    if (!kvw_apply(k, ETCD_OP_LEASE_REVOKE, &r, &g))
        return 0;
    free(g.bytes);
    return g.status;
}
HELPER int do_put_leased(struct kvw *k, const char *key, int64_t lease)
{
    Etcdserverpb__PutRequest r = put_req(key, "leased");
    struct got g;

    r.has_lease = true;
    r.lease = lease;
    if (!kvw_apply(k, ETCD_OP_PUT, &r, &g))
        return 0;
    free(g.bytes);
    return g.status;
}
HELPER int64_t do_delete(struct kvw *k, const char *key, const char *end)
{
    Etcdserverpb__DeleteRangeRequest r = delete_req(key, end);
    Etcdserverpb__DeleteRangeResponse *m;
    struct got g;

    if (!kvw_apply(k, ETCD_OP_DELETE, &r, &g))
        return -1;
    m = kvw_decode(k, &g, DELETE_DESC);
    return m->deleted;
}
HELPER struct got do_compact(struct kvw *k, int64_t rev, bool physical)
{
    Etcdserverpb__CompactionRequest r = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    struct got g;

    r.has_revision = true;
    r.revision = rev;
    r.has_physical = physical;
    r.physical = physical;
    if (kvw_apply(k, ETCD_OP_COMPACT, &r, &g) && g.status == 0)
        free(g.bytes);
    return g;
}
HELPER void kvw_on_code(void *arg, int code)
{
    assert_int_equal(code, BNS_OK);
    *(bool *)arg = true;
}
HELPER void kvw_do_checkpoint(struct kvw_call *c)
{
    etcd_kv_sm()->checkpoint(c->k->kv, kvw_on_code, &c->done);
}
HELPER bool do_checkpoint(struct kvw *k)
{
    struct kvw_call c = {.k = k, .fn = kvw_do_checkpoint};

    (void)kvw_call(&c);
    return c.done;
}

#endif
