/* bolt_world.h - stores of kv_world.h with something of everything, and their dumps for clients. */
#ifndef ETCD_TESTS_BOLT_WORLD_H
#define ETCD_TESTS_BOLT_WORLD_H

#include "kv_world.h"

#include "base/varint.h"
#include "bolt_kv.h"
#include "kv_bucket.h"
#include "kv_impl.h"

static char big[30000];

struct file { /* what a client has received */
    struct kvw *k;
    struct etcd_dump *dump;
    bool done;
    int code;
    uint8_t *bytes;
    size_t len, room;
};

HELPER void on_dump(void *arg, int code, struct bns_slice bytes, const char *text)
{
    struct file *f = arg;

    f->done = true;
    f->code = code;
    if (code != BNS_OK)
        print_message("dump: %s\n", text);
    if (code == BNS_OK && bytes.len > 0) {
        if (f->len + bytes.len > f->room) {
            f->room = 2 * (f->len + bytes.len);
            f->bytes = realloc(f->bytes, f->room);
        }
        memcpy(f->bytes + f->len, bytes.ptr, bytes.len);
        f->len += bytes.len;
    }
}

HELPER void open_dump(struct bns_env *env, void *arg)
{
    const struct bns_slice members = BNS_LIT("\x12\x02\x08\x07");
    struct file *f = arg;

    (void)env;
    assert_int_equal(etcd_dump_open(f->k->kv, members, on_dump, f, &f->dump), BNS_OK);
}
HELPER void read_dump(struct bns_env *env, void *arg)
{
    (void)env;
    etcd_dump_read(((struct file *)arg)->dump);
}
HELPER void close_dump(struct bns_env *env, void *arg)
{
    (void)env;
    etcd_dump_close(((struct file *)arg)->dump);
}

/* A put in the middle of something; its answer nobody waits for. */
HELPER void put_now(struct kvw *k, struct kvw_write *w)
{
    Etcdserverpb__PutRequest r = put_req("during", "x");
    struct bns_slice bytes;

    *w = (struct kvw_write){.k = k};
    assert_int_equal(bns_pb_pack_arena(&r.base, &k->arena, &bytes), BNS_OK);
    w->e = (struct bns_raft_entry){
        .index = k->index + 1,
        .term = k->term,
        .kind = BNS_RAFT_NORMAL,
        .data = etcd_internal_encode(bns_alloc_libc(), ++k->id, ETCD_OP_PUT, bytes)};
    assert_true(bns_world_call(k->w, 0, kvw_do_apply, w));
}

/* How many of the writes were made before it was complete. */
HELPER size_t dump(struct kvw *k, struct file *f, size_t writes)
{
    struct kvw_write *w = calloc(writes + 1, sizeof *w);
    size_t n = 0;

    *f = (struct file){.k = k};
    assert_true(bns_world_call(k->w, 0, open_dump, f));
    while (!f->done && bns_world_step(k->w)) {
        if (n < writes && (n == 0 || w[n - 1].applied))
            put_now(k, &w[n++]);
    }
    kvw_settle(k);
    assert_int_equal(f->code, BNS_OK);
    while (f->len < etcd_dump_bytes(f->dump) + 32) {
        f->done = false;
        assert_true(bns_world_call(k->w, 0, read_dump, f));
        kvw_settle(k);
        assert_true(f->done);
        assert_int_equal(f->code, BNS_OK);
    }
    assert_true(bns_world_call(k->w, 0, close_dump, f));
    kvw_settle(k);
    for (size_t i = 0; i < n; i++)
        bns_rcbuf_put(w[i].e.data);
    free(w);
    return n;
}

HELPER void add_users(struct kvw_call *c)
{
    struct etcd_kv *kv = c->k->kv;
    const uint8_t rev[8] = {0, 0, 0, 0, 0, 0, 0, 9}, on = 1, left[8] = {40};
    static const char user[] = "\x0a\x04root\x12\x01h\x1a\x04root";
    static const char role[] = "\x0a\x01r\x12\x05\x08\x02\x12\x01k";

    assert_int_equal(etcd_bucket_put(kv, ETCD_BUCKET_AUTH, BNS_LIT("revision"), bns_slice(rev, 8)),
                     BNS_OK);
    assert_int_equal(etcd_bucket_put(kv, ETCD_BUCKET_AUTH, BNS_LIT("enabled"), bns_slice(&on, 1)),
                     BNS_OK);
    assert_int_equal(
        etcd_bucket_put(kv, ETCD_BUCKET_USERS, BNS_LIT("root"), bns_slice(user, sizeof user - 1)),
        BNS_OK);
    assert_int_equal(
        etcd_bucket_put(kv, ETCD_BUCKET_ROLES, BNS_LIT("r"), bns_slice(role, sizeof role - 1)),
        BNS_OK);
    assert_int_equal(
        etcd_bucket_put(kv, ETCD_BUCKET_LEASES, BNS_LIT("\0\0\0\0\0\0\0\5"), bns_slice(left, 8)),
        BNS_OK);
    assert_int_equal(
        etcd_bucket_put(kv, ETCD_BUCKET_ALARMS, BNS_LIT("\x08\x07\x10\x01"), bns_slice("", 0)),
        BNS_OK);
    assert_int_equal(etcd_bucket_put(kv, ETCD_BUCKET_MEMBERS, BNS_LIT("\0\0\0\0\0\0\0\x07"),
                                     BNS_LIT("\x08\x07\x12\x01n\x1a\x04http")),
                     BNS_OK);
}

/* size: 0 = as small as it can be with something of everything */
HELPER void fill(struct kvw *k, int size)
{
    struct kvw_call c = {.k = k, .fn = add_users};
    char key[16];

    assert_int_equal(do_grant(k, 5, 100), 0);
    assert_int_equal(do_grant(k, -5, 200), 0);
    assert_int_equal(do_put_leased(k, "leased", 5), 0);
    for (int i = 0; i < 6 + size; i++) {
        (void)snprintf(key, sizeof key, "k%d", i % (3 + size / 3));
        (void)do_put(k, key, size > 0 && i % 50 == 7 ? big : key);
    }
    assert_true(do_delete(k, "k0", NULL) == 1); /* the compaction stands on this one */
    assert_int_equal(do_compact(k, etcd_kv_revision(k->kv), true).status, 0);
    (void)do_put(k, "k0", "again");
    (void)do_put(k, "gone", "x");
    assert_true(do_delete(k, "gone", NULL) == 1);
    (void)do_put(k, "k1", "more");
    assert_true(kvw_call(&c));
    (void)do_put(k, "last", "one");
}

#endif
