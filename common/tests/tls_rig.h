/* tls_rig.h - what the tests of TLS share: a server that echoes, its files, clients on streams.
 * Both ends stand in one env in memory, on virtual time. Included after cmocka.h. */
#ifndef BNS_TESTS_TLS_RIG_H
#define BNS_TESTS_TLS_RIG_H

#include "tls_kit.h"

/* ---- the rig: a server that echoes, its files, and clients ----------------------------------- */
struct rig {
    struct kit k;
    struct bns_test_heap *heap;
    struct bns_vfs *vfs;
    struct bns_metrics *metrics;
    struct bns_tls *serve, *dial;
    struct bns_tls_listener *l;
    uint16_t port;
    size_t accepted, ended;
    int server_code; /* of the last stream that ended */
    bool server_eof;
    bool mute;                 /* the server does not echo */
    struct bns_stream *server; /* the last accepted, NULL when gone */
};

static struct kit_pair ca, other_ca, both, stranger;

static inline int make_certificates(void **state)
{
    (void)state;
    ca = kit_issue(NULL, (struct kit_issue){.cn = "ca", .ca = true});
    other_ca = kit_issue(NULL, (struct kit_issue){.cn = "other ca", .ca = true});
    both = kit_issue(&ca, (struct kit_issue){.cn = "both"});
    stranger = kit_issue(&other_ca, (struct kit_issue){.cn = "stranger"});
    return 0;
}

static inline int free_certificates(void **state)
{
    (void)state;
    kit_pair_free(&ca);
    kit_pair_free(&other_ca);
    kit_pair_free(&both);
    kit_pair_free(&stranger);
    return 0;
}

static inline void echoed(void *arg, int code)
{
    (void)code;
    free(arg);
}

static inline void server_data(void *arg, struct bns_slice data)
{
    struct rig *r = arg;
    uint8_t *copy;
    struct bns_slice v;

    if (r->mute)
        return;
    copy = malloc(data.len);
    assert_non_null(copy);
    memcpy(copy, data.ptr, data.len);
    v = bns_slice(copy, data.len);
    if (bns_stream_write(r->server, &v, 1, echoed, copy) != BNS_OK) {
        free(copy);
        bns_stream_reset(r->server);
    }
}

static inline void server_end(void *arg)
{
    struct rig *r = arg;

    r->server_eof = true;
    bns_stream_close(r->server);
}

static inline void server_close(void *arg, int code)
{
    struct rig *r = arg;

    r->ended++;
    r->server_code = code;
    r->server = NULL;
}

static inline void on_accept(void *arg, struct bns_stream *s)
{
    static const struct bns_stream_events ev = {
        .on_data = server_data, .on_eof = server_end, .on_close = server_close};
    struct rig *r = arg;

    r->accepted++;
    r->server = s;
    bns_stream_set_events(s, &ev, r);
}

/* NULL: a server that asks nobody, a client that trusts `ca`. */
static inline int rig_start(struct rig *r, int fail_at, const struct bns_tls_config *serve,
                            const struct bns_tls_config *dial)
{
    struct bns_tls_config s = {.name = "s",
                               .serve = true,
                               .cert_file = "both.pem",
                               .key_file = "both.key",
                               .ca_file = "ca.pem"};
    struct bns_tls_config d = {.name = "d", .dial = true, .ca_file = "ca.pem"};
    struct bns_tls_listen_options o = {.host = "h", .fn = on_accept, .arg = r, .alpn_http = true};

    memset(r, 0, sizeof *r);
    r->heap = bns_test_heap(fail_at);
    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 1, &r->vfs), BNS_OK);
    kit_write_pair(r->vfs, "ca", &ca);
    kit_write_pair(r->vfs, "other", &other_ca);
    kit_write_pair(r->vfs, "both", &both);
    kit_write_pair(r->vfs, "stranger", &stranger);
    kit_init(&r->k, bns_test_heap_alloc(r->heap), r->vfs);
    assert_int_equal(bns_metrics_new(bns_alloc_libc(), &r->metrics), BNS_OK);
    r->k.f.env.metrics = r->metrics;
    if (bns_tls_new(&r->k.f.env, serve != NULL ? serve : &s, &r->serve, NULL) != BNS_OK ||
        bns_tls_new(&r->k.f.env, dial != NULL ? dial : &d, &r->dial, NULL) != BNS_OK ||
        bns_tls_listen(&r->k.f.env, r->serve, &o, &r->l, NULL) != BNS_OK)
        return BNS_E_NOMEM;
    r->port = bns_tls_listener_port(r->l);
    return BNS_OK;
}

static inline void nothing(void *arg)
{
    (void)arg;
}

static inline bool rig_end(struct rig *r)
{
    bool fired;

    bns_tls_listener_close(r->l);
    if (r->server != NULL)
        bns_stream_reset(r->server);
    if (r->serve != NULL)
        bns_tls_stop(r->serve, nothing, NULL);
    if (r->dial != NULL)
        bns_tls_stop(r->dial, nothing, NULL);
    fake_run_for(&r->k.f, BNS_SEC);
    bns_tls_free(r->serve);
    bns_tls_free(r->dial);
    fake_free(&r->k.f);
    bns_metrics_free(r->metrics);
    bns_vfs_mem_free(r->vfs);
    assert_int_equal(bns_test_heap_close(r->heap, &fired), 0);
    return fired;
}

static inline uint64_t handshakes(struct rig *r, const char *name, const char *side,
                                  const char *result)
{
    char labels[128];

    (void)snprintf(labels, sizeof labels, "name=\"%s\",result=\"%s\",side=\"%s\"", name, result,
                   side);
    return bns_counter(r->metrics, "bns_tls_handshakes_total", labels, "")->value;
}

/* ---- a client on a stream -------------------------------------------------------------------- */
struct client {
    struct bns_stream *s;
    struct bns_buf got;
    size_t opened, closed, released, writable;
    int code;
    const char *hello; /* written in on_open */
    size_t close_at;   /* closes itself after so many bytes */
    bool eof;
};

static inline void client_open(void *arg)
{
    struct client *c = arg;
    struct bns_slice v = bns_slice_str(c->hello);

    c->opened++;
    if (v.len > 0 && bns_stream_write(c->s, &v, 1, NULL, NULL) != BNS_OK)
        bns_stream_reset(c->s);
}

static inline void client_data(void *arg, struct bns_slice data)
{
    struct client *c = arg;

    assert_int_equal(bns_buf_add(&c->got, data.ptr, data.len), BNS_OK);
    if (c->close_at != 0 && c->got.len >= c->close_at)
        bns_stream_close(c->s);
}

static inline void client_eof(void *arg)
{
    struct client *c = arg;

    c->eof = true;
    bns_stream_close(c->s);
}

static inline void client_writable(void *arg)
{
    ((struct client *)arg)->writable++;
}

static inline void client_close(void *arg, int code)
{
    struct client *c = arg;

    c->closed++;
    c->code = code;
}

static inline int client_dial_as(struct rig *r, struct client *c, struct bns_tls *t,
                                 const char *name)
{
    static const struct bns_stream_events ev = {.on_open = client_open,
                                                .on_data = client_data,
                                                .on_eof = client_eof,
                                                .on_writable = client_writable,
                                                .on_close = client_close};
    struct bns_tls_dial o = {
        .host = "127.0.0.1", .port = r->port, .server_name = name, .alpn = "h2"};
    const char *hello = c->hello == NULL ? "" : c->hello;
    size_t close_at = c->close_at;

    memset(c, 0, sizeof *c);
    c->hello = hello;
    c->close_at = close_at;
    bns_buf_init(&c->got, bns_alloc_libc(), 64u * 1024 * 1024);
    return bns_tls_connect(&r->k.f.env, t, &o, &ev, c, &c->s, NULL);
}

static inline void client_dial(struct rig *r, struct client *c)
{
    assert_int_equal(client_dial_as(r, c, r->dial, NULL), BNS_OK);
}

static inline void client_end(struct rig *r, struct client *c)
{
    if (c->closed == 0)
        bns_stream_reset(c->s);
    fake_run_for(&r->k.f, BNS_SEC);
    assert_int_equal(c->closed, 1);
    bns_buf_free(&c->got);
}

static inline void serve_once(struct rig *r, struct client *c)
{
    *c = (struct client){.hello = "hello"};
    client_dial(r, c);
    fake_run_for(&r->k.f, BNS_SEC / 4);
    if (c->got.len != 5)
        fail_msg("not served: %s", r->k.said);
}

/* ---- resumption ------------------------------------------------------------------------------ */
/* Shakes hands, with *session if there is one, which is then replaced; true: it was resumed. */
static inline bool resumed(struct rig *r, SSL_CTX *ctx, SSL_SESSION **session, size_t *accepted)
{
    struct kit_raw raw;
    size_t before = r->accepted;
    bool reused;

    kit_raw_dial(&raw, &r->k.f.env, r->port, ctx);
    if (*session != NULL)
        assert_int_equal(SSL_set_session(raw.ssl, *session), 1);
    fake_run_for(&r->k.f, BNS_SEC / 10);
    *accepted = r->accepted - before;
    reused = SSL_session_reused(raw.ssl) == 1;
    if (*accepted == 1) {
        SSL_SESSION_free(*session);
        *session = SSL_get1_session(raw.ssl);
        SSL_set_shutdown(raw.ssl, SSL_SENT_SHUTDOWN); /* or the session is thrown away */
    }
    if (!raw.closed)
        bns_stream_reset(raw.s);
    fake_run_for(&r->k.f, BNS_SEC / 10);
    kit_raw_free(&raw);
    return reused;
}

#endif
