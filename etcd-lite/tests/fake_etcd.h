/* fake_etcd.h - a server that answers what a test tells it to, on a node of client_world.h. For the
 * answers that a real server gives seldom, or not to us. */
#ifndef ETCD_TESTS_FAKE_ETCD_H
#define ETCD_TESTS_FAKE_ETCD_H

#include "client_world.h"

#define FAKE_HELD 64u

struct fake {
    struct bns_grpc_method methods[BNS_ETCD_METHODS_COUNT];
    char paths[BNS_ETCD_METHODS_COUNT][64];
    unsigned seen[BNS_ETCD_METHODS_COUNT];
    int status; /* of unary calls; -1: never answered */
    const char *text;
    /* NULL: `status` answers. Of unary calls it finishes them, or keeps them. */
    void (*take)(struct bns_grpc_call *c, enum bns_etcd_method m, struct bns_slice msg);
    unsigned held_count;
    struct bns_grpc_call *held[FAKE_HELD];
};
static struct fake fake;

static inline enum bns_etcd_method fake_method(struct bns_grpc_call *c)
{
    return (enum bns_etcd_method)((const struct bns_grpc_method *)bns_grpc_arg(c) - fake.methods);
}

static inline void fake_finish(struct bns_grpc_call *c, int status, const char *text)
{
    bns_grpc_finish(c, status, text, NULL, 0);
}

static inline void fake_send(struct bns_grpc_call *c, const ProtobufCMessage *m)
{
    uint8_t *bytes = malloc(protobuf_c_message_get_packed_size(m) + 1);
    size_t len = protobuf_c_message_pack(m, bytes);

    assert_int_equal(bns_grpc_send_copy(c, bns_slice(bytes, len)), BNS_OK);
    free(bytes);
}

static inline void fake_answer(struct bns_grpc_call *c, const ProtobufCMessage *m)
{
    fake_send(c, m);
    fake_finish(c, 0, NULL);
}

static inline void fake_message(struct bns_grpc_call *c, struct bns_slice msg)
{
    enum bns_etcd_method m = fake_method(c);

    fake.seen[m]++;
    if (fake.take != NULL)
        fake.take(c, m, msg);
    else if (fake.status >= 0)
        fake_finish(c, fake.status, fake.text);
}

static inline void fake_end(struct bns_grpc_call *c, enum bns_grpc_end why)
{
    for (unsigned i = 0; i < fake.held_count; i++) {
        if (fake.held[i] == c)
            fake.held[i] = NULL;
    }
    if (why != BNS_GRPC_END_DONE)
        fake_finish(c, BNS_GRPC_CANCELLED, NULL);
}

static inline void fake_hold(struct bns_grpc_call *c)
{
    assert_true(fake.held_count < FAKE_HELD);
    fake.held[fake.held_count++] = c;
}

static inline int fake_start(struct bns_env *env, unsigned id, void *arg)
{
    static const char *const paths[] = {
#define FAKE_PATH(name, path, stem, again) path,
        BNS_ETCD_METHODS(FAKE_PATH)
#undef FAKE_PATH
    };
    struct bns_grpc_server *s; /* dies with the node */
    int rv = bns_grpc_server_new(env, NULL, &s);

    (void)arg;
    for (unsigned i = 0; i < BNS_ETCD_METHODS_COUNT; i++) {
        bool stream = i == BNS_ETCD_WATCH || i == BNS_ETCD_LEASE_KEEP;

        (void)snprintf(fake.paths[i], sizeof fake.paths[i], "/etcdserverpb.%s", paths[i]);
        fake.methods[i] =
            (struct bns_grpc_method){.path = fake.paths[i],
                                     .kind = stream ? BNS_GRPC_BIDI : BNS_GRPC_UNARY,
                                     .handler = {.on_message = fake_message, .on_end = fake_end},
                                     .arg = &fake.methods[i]};
    }
    if (rv == BNS_OK)
        rv = bns_grpc_server_methods(s, fake.methods, BNS_ETCD_METHODS_COUNT);
    if (rv == BNS_OK)
        rv = bns_grpc_server_listen(s, bns_world_host(cw.w, id), CW_PORT, NULL, NULL);
    return rv;
}

static inline void fake_world(uint64_t seed, unsigned servers)
{
    static const struct bns_node_main server = {.start = fake_start, .restart_ns = 500 * BNS_MS};

    memset(&fake, 0, sizeof fake);
    cw_main = &server;
    cw_new(seed, servers, NULL);
    cw_main = NULL;
}

#endif
