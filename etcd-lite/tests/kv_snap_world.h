/* kv_snap_world.h - taking a snapshot of one store of kv_world.h and installing it on another. */
#ifndef ETCD_TESTS_KV_SNAP_WORLD_H
#define ETCD_TESTS_KV_SNAP_WORLD_H

#include "kv_world.h"

struct snap {
    struct kvw *k;
    struct bns_sm_snap *snap;
    struct bns_raft_snapmeta meta;
    uint64_t bytes, off;
    bool done;
    int code;
    uint8_t *file;
};

HELPER void snap_on_open(void *arg, int code, struct bns_sm_snap *s,
                         const struct bns_raft_snapmeta *meta, uint64_t bytes)
{
    struct snap *x = arg;

    x->done = true;
    x->code = code;
    if (code == BNS_OK) {
        x->snap = s;
        x->meta = *meta;
        x->bytes = bytes;
    }
}
HELPER void snap_on_chunk(void *arg, int code, struct bns_slice chunk)
{
    struct snap *x = arg;

    assert_int_equal(code, BNS_OK);
    memcpy(x->file + x->off, chunk.ptr, chunk.len);
    x->off += chunk.len;
    x->done = true;
}
HELPER void snap_on_code(void *arg, int code)
{
    struct snap *x = arg;

    x->code = code;
    x->done = true;
}

HELPER void snap_do_open(struct bns_env *env, void *arg)
{
    struct snap *x = arg;
    (void)env;
    etcd_kv_sm()->snap_open(x->k->kv, snap_on_open, x);
}
HELPER void snap_do_read(struct bns_env *env, void *arg)
{
    struct snap *x = arg;
    (void)env;
    etcd_kv_sm()->snap_read(x->k->kv, x->snap, x->off, 10000, snap_on_chunk, x);
}
HELPER void snap_do_close(struct bns_env *env, void *arg)
{
    struct snap *x = arg;
    (void)env;
    etcd_kv_sm()->snap_close(x->k->kv, x->snap);
}
HELPER void snap_do_begin(struct bns_env *env, void *arg)
{
    struct snap *x = arg;
    (void)env;
    etcd_kv_sm()->install_begin(x->k->kv, &x->meta, x->bytes, snap_on_code, x);
}
HELPER void snap_do_chunk(struct bns_env *env, void *arg)
{
    struct snap *x = arg;
    size_t n = x->bytes - x->off < 10000 ? (size_t)(x->bytes - x->off) : 10000;
    (void)env;
    etcd_kv_sm()->install_chunk(x->k->kv, x->off, bns_slice(x->file + x->off, n), snap_on_code, x);
    x->off += n;
}
HELPER void snap_do_end(struct bns_env *env, void *arg)
{
    struct snap *x = arg;
    (void)env;
    etcd_kv_sm()->install_end(x->k->kv, snap_on_code, x);
}
HELPER void snap_do_abort(struct bns_env *env, void *arg)
{
    struct snap *x = arg;
    (void)env;
    etcd_kv_sm()->install_abort(x->k->kv);
}

/* Runs one snap_step to its done; false: the node died. */
HELPER bool snap_step(struct snap *x, void (*fn)(struct bns_env *, void *))
{
    x->done = false;
    x->code = BNS_OK;
    assert_true(bns_world_call(x->k->w, 0, fn, x));
    kvw_settle(x->k);
    assert_true(x->done || x->k->kv == NULL);
    return x->k->kv != NULL;
}

/* Opens a snapshot; while it is copied, entries are applied between two events. */
HELPER void snap_take(struct kvw *k, struct snap *x, bool writes)
{
    struct kvw_call checkpoint = {.k = k, .fn = kvw_do_checkpoint};
    int i = 0;

    *x = (struct snap){.k = k};
    assert_true(bns_world_call(k->w, 0, snap_do_open, x));
    while (!x->done && bns_world_step(k->w)) {
        if (writes && i == 4) /* in the middle of the copy */
            assert_true(bns_world_call(k->w, 0, kvw_in, &checkpoint));
        if (writes && ++i % 3 == 0 && i < 100) {
            Etcdserverpb__PutRequest r = put_req("during", "x");
            struct bns_slice bytes;
            struct kvw_write *w = calloc(1, sizeof *w);
            w->k = k;
            assert_int_equal(bns_pb_pack_arena(&r.base, &k->arena, &bytes), BNS_OK);
            w->e = (struct bns_raft_entry){
                .index = k->index + 1,
                .term = 1,
                .data = etcd_internal_encode(bns_alloc_libc(), ++k->id, ETCD_OP_PUT, bytes)};
            assert_true(bns_world_call(k->w, 0, kvw_do_apply, w));
            assert_true(w->applied); /* does not wait for the store */
            bns_rcbuf_put(w->e.data);
            free(w);
        }
    }
    kvw_settle(k);
    assert_int_equal(checkpoint.done, writes);
    assert_int_equal(x->code, BNS_OK);
    assert_non_null(x->snap);
    x->file = malloc(x->bytes);
    while (x->off < x->bytes)
        assert_true(snap_step(x, snap_do_read));
    assert_true(bns_world_call(k->w, 0, snap_do_close, x));
    kvw_settle(k);
}

HELPER void snap_install_all(struct snap *x)
{
    x->off = 0;
    if (!snap_step(x, snap_do_begin))
        return;
    while (x->off < x->bytes) {
        if (!snap_step(x, snap_do_chunk))
            return;
    }
    (void)snap_step(x, snap_do_end);
}

#endif
