/* lease.c - lease grant, revoke, timetolive, list, keep-alive. */
#include "cli.h"

#include <inttypes.h>

#include "client/etcd/lease.h"
#include "io/env_uv.h"

static int lease_id(const char *text, int64_t *id)
{
    struct bns_err err = {0};

    if (ctl_parse_int(text, 16, id, &err) != BNS_OK)
        return ctl_fail(CTL_ARGS, "bad lease ID arg (%s), expecting ID in Hex", err.text);
    return CTL_OK;
}

/* What Go's client returns embeds the header. In JSON its fields stand among theirs, as protobuf
 * it is all there is: its method to pack itself is taken for theirs. */
static bool header_packed(struct ctl *c, const Etcdserverpb__ResponseHeader *h)
{
    if (c->out == CTL_PROTOBUF)
        ctl_out_protobuf(h == NULL ? NULL : &h->base);
    return c->out == CTL_PROTOBUF;
}

static void json_header(const Etcdserverpb__ResponseHeader *h)
{
    bool first = true;

    (void)putchar('{');
    if (h != NULL)
        ctl_json_fields(&h->base, &first);
    if (!first)
        (void)putchar(',');
}

int ctl_lease_grant(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__LeaseGrantRequest req = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    Etcdserverpb__LeaseGrantResponse *r;
    struct bns_err err = {0};
    int code;

    if (argc != 1)
        return ctl_fail(CTL_ARGS, "lease grant command needs TTL argument");
    if (ctl_parse_int(argv[0], 10, &req.ttl, &err) != BNS_OK)
        return ctl_fail(CTL_ARGS, "bad TTL (%s)", err.text);
    req.has_ttl = true;
    code = ctl_format(c, false);
    if (code != CTL_OK)
        return code;
    if (ctl_connect(c) != CTL_OK)
        return CTL_ARGS;
    {
        struct ctl_reply reply = ctl_ask_at(c, c->etcd, BNS_ETCD_LEASE_GRANT, &req.base);

        if (reply.status != BNS_GRPC_OK)
            return ctl_fail(CTL_ERROR, "failed to grant lease (%s)",
                            ctl_error_text(c, reply.status, reply.text));
        r = reply.msg;
    }
    if (header_packed(c, r->header))
        return CTL_OK;
    if (c->out == CTL_JSON) {
        json_header(r->header);
        (void)printf("\"ID\":%" PRId64 ",\"TTL\":%" PRId64 ",\"Error\":", r->id, r->ttl);
        ctl_json_string(r->error == NULL ? "" : r->error);
        (void)puts("}");
    } else if (c->out == CTL_FIELDS) {
        ctl_out_header(r->header);
        (void)printf("\"ID\" : %" PRId64 "\n\"TTL\" : %" PRId64 "\n", r->id, r->ttl);
    } else {
        (void)printf("lease %016" PRIx64 " granted with TTL(%" PRId64 "s)\n", (uint64_t)r->id,
                     r->ttl);
    }
    return CTL_OK;
}

int ctl_lease_revoke(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__LeaseRevokeRequest req = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    struct ctl_reply r;
    int code;

    if (argc != 1)
        return ctl_fail(CTL_ARGS, "lease revoke command needs 1 argument");
    code = lease_id(argv[0], &req.id);
    req.has_id = true;
    if (code == CTL_OK)
        code = ctl_format(c, false);
    if (code == CTL_OK)
        code = ctl_connect(c);
    if (code != CTL_OK)
        return code;
    r = ctl_ask_at(c, c->etcd, BNS_ETCD_LEASE_REVOKE, &req.base);
    if (r.status != BNS_GRPC_OK)
        return ctl_fail(CTL_ERROR, "failed to revoke lease (%s)",
                        ctl_error_text(c, r.status, r.text));
    if (!ctl_out_other(c, r.msg))
        (void)printf("lease %016" PRIx64 " revoked\n", (uint64_t)req.id);
    return CTL_OK;
}

/* ---- timetolive ------------------------------------------------------------------------------ */

static void ttl_json(const Etcdserverpb__LeaseTimeToLiveResponse *r, bool keys)
{
    json_header(r->header);
    (void)printf("\"id\":%" PRId64 ",\"ttl\":%" PRId64 ",\"granted-ttl\":%" PRId64 ",\"keys\":",
                 r->id, r->ttl, r->grantedttl);
    (void)keys;
    if (r->n_keys == 0) {
        (void)puts("null}");
        return;
    }
    for (size_t i = 0; i < r->n_keys; i++) {
        (void)putchar(i == 0 ? '[' : ',');
        ctl_json_bytes(&r->keys[i]);
    }
    (void)puts("]}");
}

static void ttl_fields(const Etcdserverpb__LeaseTimeToLiveResponse *r)
{
    ctl_out_header(r->header);
    (void)printf("\"ID\" : %" PRId64 "\n\"TTL\" : %" PRId64 "\n\"GrantedTTL\" : %" PRId64 "\n",
                 r->id, r->ttl, r->grantedttl);
    for (size_t i = 0; i < r->n_keys; i++) {
        (void)fputs("\"Key\" : ", stdout);
        ctl_out_quoted(r->keys[i].data, r->keys[i].len);
        (void)putchar('\n');
    }
}

static void ttl_simple(struct ctl *c, const Etcdserverpb__LeaseTimeToLiveResponse *r)
{
    if (r->grantedttl == 0 && r->ttl == -1) {
        (void)printf("lease %016" PRIx64 " already expired\n", (uint64_t)r->id);
        return;
    }
    (void)printf("lease %016" PRIx64 " granted with TTL(%" PRId64 "s), remaining(%" PRId64 "s)",
                 (uint64_t)r->id, r->grantedttl, r->ttl);
    if (c->f.keys) {
        (void)fputs(", attached keys([", stdout);
        for (size_t i = 0; i < r->n_keys; i++) {
            if (i > 0)
                (void)putchar(' ');
            (void)fwrite(r->keys[i].data, 1, r->keys[i].len, stdout);
        }
        (void)fputs("])", stdout);
    }
    (void)putchar('\n');
}

int ctl_lease_ttl(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__LeaseTimeToLiveRequest req = ETCDSERVERPB__LEASE_TIME_TO_LIVE_REQUEST__INIT;
    Etcdserverpb__LeaseTimeToLiveResponse *r;
    int code;

    if (argc != 1)
        return ctl_fail(CTL_ARGS, "lease timetolive command needs lease ID as argument");
    code = lease_id(argv[0], &req.id);
    req.has_id = true;
    req.has_keys = req.keys = c->f.keys;
    if (code == CTL_OK)
        code = ctl_format(c, false);
    if (code == CTL_OK)
        code = ctl_ask(c, BNS_ETCD_LEASE_TTL, &req.base, &r);
    if (code != CTL_OK || header_packed(c, r->header))
        return code;
    if (c->out == CTL_JSON)
        ttl_json(r, c->f.keys);
    else if (c->out == CTL_FIELDS)
        ttl_fields(r);
    else
        ttl_simple(c, r);
    return CTL_OK;
}

int ctl_lease_list(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__LeaseLeasesRequest req = ETCDSERVERPB__LEASE_LEASES_REQUEST__INIT;
    Etcdserverpb__LeaseLeasesResponse *r;
    int code = ctl_format(c, false);

    (void)argc;
    (void)argv;
    if (code == CTL_OK)
        code = ctl_ask(c, BNS_ETCD_LEASE_LIST, &req.base, &r);
    if (code != CTL_OK || header_packed(c, r->header))
        return code;
    if (c->out == CTL_JSON) {
        json_header(r->header);
        (void)fputs("\"leases\":[", stdout);
    } else if (c->out == CTL_FIELDS) {
        ctl_out_header(r->header);
    } else {
        (void)printf("found %zu leases\n", r->n_leases);
    }
    for (size_t i = 0; i < r->n_leases; i++) {
        if (c->out == CTL_JSON)
            (void)printf("%s{\"id\":%" PRId64 "}", i > 0 ? "," : "", r->leases[i]->id);
        else if (c->out == CTL_FIELDS)
            (void)printf("\"ID\" : %" PRId64 "\n", r->leases[i]->id);
        else
            (void)printf("%016" PRIx64 "\n", (uint64_t)r->leases[i]->id);
    }
    if (c->out == CTL_JSON)
        (void)puts("]}");
    return CTL_OK;
}

/* ---- keep-alive ------------------------------------------------------------------------------ */

/* As etcd's client does it: the lease counts as lost when its time to live has passed since the
 * last answer, whatever becomes of the stream meanwhile; the first answer must come within the
 * dial's timeout and a second. A stream that is silent for a third of the time to live is left
 * for one at another endpoint. */
struct keeping {
    struct ctl *c;
    struct bns_etcd_stream *stream;
    struct bns_timer timer, end;
    int64_t id;
    uint64_t third_ns;
    int code;
    bool heard;
};

static void print_kept(struct ctl *c, const Etcdserverpb__LeaseKeepAliveResponse *r)
{
    if (header_packed(c, r->header)) {
        (void)fflush(stdout);
        return;
    }
    if (c->out == CTL_JSON) {
        json_header(r->header);
        (void)printf("\"ID\":%" PRId64 ",\"TTL\":%" PRId64 "}\n", r->id, r->ttl);
    } else if (c->out == CTL_FIELDS) {
        ctl_out_header(r->header);
        (void)printf("\"ID\" : %" PRId64 "\n\"TTL\" : %" PRId64 "\n", r->id, r->ttl);
    } else {
        (void)printf("lease %016" PRIx64 " keepalived with TTL(%" PRId64 ")\n", (uint64_t)r->id,
                     r->ttl);
    }
    (void)fflush(stdout); /* who reads along sees each one */
}

static void leave(struct keeping *k, int code)
{
    k->code = code;
    bns_env_uv_stop(k->c->env);
}

static void is_lost(struct keeping *k)
{
    if (k->c->out == CTL_SIMPLE)
        (void)printf("lease %016" PRIx64 " expired or revoked.\n", (uint64_t)k->id);
    leave(k, CTL_OK);
}

static void told(struct keeping *k, const Etcdserverpb__LeaseKeepAliveResponse *r)
{
    uint64_t now = bns_now_ns(k->c->env);

    if (r->ttl <= 0 && k->c->f.once) {
        leave(k, ctl_fail(CTL_CONNECTION, "etcdserver: requested lease not found"));
    } else if (r->ttl <= 0) {
        is_lost(k);
    } else {
        print_kept(k->c, r);
        if (k->c->f.once)
            leave(k, CTL_OK);
        k->third_ns = (uint64_t)r->ttl * BNS_SEC / 3;
        bns_timer_start(k->c->env, &k->timer, now + k->third_ns);
        bns_timer_start(k->c->env, &k->end, now + (uint64_t)r->ttl * BNS_SEC);
    }
}

static void kept(void *arg, struct bns_slice msg)
{
    struct keeping *k = arg;
    ProtobufCMessage *m;
    struct bns_arena arena;

    k->heard = true;
    bns_arena_init(&arena, bns_alloc_libc(), 64u * 1024);
    if (bns_etcd_unpack(BNS_ETCD_LEASE_KEEP, msg, &arena, &m) == BNS_OK)
        told(k, (const void *)m);
    else
        leave(k, ctl_fail(CTL_CONNECTION, "the server's answer cannot be read"));
    bns_arena_free(&arena);
}

static void keep_again(void *arg);

static void keep_ended(void *arg, int status, const char *text)
{
    struct keeping *k = arg;

    k->stream = NULL;
    if (k->c->f.once || (status != BNS_GRPC_UNAVAILABLE && status != BNS_GRPC_INTERNAL))
        leave(k, ctl_fail(k->c->f.once ? CTL_CONNECTION : CTL_ERROR, "%s",
                          ctl_error_text(k->c, status, text)));
    else
        bns_timer_start(k->c->env, &k->timer,
                        bns_now_ns(k->c->env) + bns_etcd_backoff_ns(k->c->etcd, 3));
}

static void keep_again(void *arg)
{
    static const struct bns_etcd_stream_handler handler = {kept, keep_ended};
    struct keeping *k = arg;
    Etcdserverpb__LeaseKeepAliveRequest req = ETCDSERVERPB__LEASE_KEEP_ALIVE_REQUEST__INIT;
    const struct bns_etcd_stream_options o = {
        .method = BNS_ETCD_LEASE_KEEP, .first = &req.base, .handler = &handler, .arg = k};

    req.has_id = true;
    req.id = k->id;
    if (k->stream != NULL && !k->heard) {
        bns_etcd_stream_suspect(k->stream);
        bns_etcd_stream_close(k->stream);
        k->stream = NULL;
    }
    k->heard = false;
    bns_timer_start(k->c->env, &k->timer, bns_now_ns(k->c->env) + k->third_ns);
    if (k->stream == NULL) {
        if (bns_etcd_stream_open(k->c->etcd, &o, &k->stream) != BNS_OK)
            leave(k, ctl_fail(CTL_ERROR, "out of memory"));
    } else {
        int rv = bns_etcd_stream_send(k->stream, &req.base);
        (void)rv; /* if not, nothing is heard, and the next look opens another stream */
    }
}

static void end_came(void *arg)
{
    struct keeping *k = arg;

    if (k->c->f.once)
        leave(k, ctl_fail(CTL_CONNECTION, "context deadline exceeded"));
    else
        is_lost(k);
}

int ctl_lease_keep(struct ctl *c, int argc, char **argv)
{
    struct keeping k = {.c = c};
    uint64_t first_ns = (uint64_t)c->f.dial_timeout_ns + BNS_SEC;
    int code;

    if (argc != 1)
        return ctl_fail(CTL_ARGS, "lease keep-alive command needs lease ID as argument");
    code = lease_id(argv[0], &k.id);
    if (code == CTL_OK)
        code = ctl_format(c, false);
    if (code == CTL_OK)
        code = ctl_connect(c);
    if (code != CTL_OK)
        return code;
    bns_timer_init(&k.timer, keep_again, &k);
    bns_timer_init(&k.end, end_came, &k);
    k.third_ns = first_ns;
    if (c->f.once)
        first_ns = (uint64_t)c->f.command_timeout_ns;
    bns_timer_start(c->env, &k.end, bns_now_ns(c->env) + first_ns);
    keep_again(&k);
    bns_env_uv_run(c->env);
    bns_timer_stop(c->env, &k.timer);
    bns_timer_stop(c->env, &k.end);
    bns_etcd_stream_close(k.stream);
    return k.code;
}
