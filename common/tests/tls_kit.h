/* tls_kit.h - for tests of TLS: certificates made by the test, an env in memory whose pool jobs run
 * as tasks, and a client on OpenSSL alone whose bytes a test may see and change. */
#ifndef BNS_TESTS_TLS_KIT_H
#define BNS_TESTS_TLS_KIT_H

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "fake_env.h"
#include "io/tls.h"
#include "sim/heap.h"
#include "sim/vfs_mem.h"

/* ---- certificates ---------------------------------------------------------------------------- */
struct kit_pair {
    X509 *cert;
    EVP_PKEY *key;
};

struct kit_issue {
    const char *cn;    /* NULL: "leaf" */
    const char *san;   /* NULL: "IP:127.0.0.1,DNS:localhost"; "": none */
    const char *usage; /* NULL: "serverAuth,clientAuth" */
    long from_s, to_s; /* from now; 0, 0: an hour ago to in a month */
    bool ca;
};

static inline void kit_ext(X509 *c, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *e;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, c, NULL, NULL, 0);
    e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    BNS_ASSERT(e != NULL);
    BNS_ASSERT(X509_add_ext(c, e, -1) == 1);
    X509_EXTENSION_free(e);
}

/* by NULL: signed by itself. */
static inline struct kit_pair kit_issue(const struct kit_pair *by, struct kit_issue o)
{
    static long serial = 1;
    struct kit_pair p = {X509_new(), EVP_EC_gen("P-256")};
    const char *cn = o.cn == NULL ? "leaf" : o.cn;
    X509_NAME *name;

    BNS_ASSERT(p.cert != NULL && p.key != NULL);
    BNS_ASSERT(X509_set_version(p.cert, 2) == 1);
    BNS_ASSERT(ASN1_INTEGER_set(X509_get_serialNumber(p.cert), serial++) == 1);
    BNS_ASSERT(X509_gmtime_adj(X509_getm_notBefore(p.cert), o.to_s == 0 ? -3600 : o.from_s));
    BNS_ASSERT(X509_gmtime_adj(X509_getm_notAfter(p.cert), o.to_s == 0 ? 30 * 86400L : o.to_s));
    name = X509_get_subject_name(p.cert);
    BNS_ASSERT(
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)cn, -1, -1, 0) == 1);
    BNS_ASSERT(X509_set_issuer_name(p.cert, by == NULL ? name : X509_get_subject_name(by->cert)) ==
               1);
    BNS_ASSERT(X509_set_pubkey(p.cert, p.key) == 1);
    if (o.ca) {
        kit_ext(p.cert, by == NULL ? p.cert : by->cert, NID_basic_constraints, "critical,CA:TRUE");
    } else {
        if (o.san == NULL || *o.san != '\0')
            kit_ext(p.cert, p.cert, NID_subject_alt_name,
                    o.san == NULL ? "IP:127.0.0.1,DNS:localhost" : o.san);
        kit_ext(p.cert, p.cert, NID_ext_key_usage,
                o.usage == NULL ? "serverAuth,clientAuth" : o.usage);
    }
    BNS_ASSERT(X509_sign(p.cert, by == NULL ? p.key : by->key, EVP_sha256()) > 0);
    return p;
}

static inline void kit_pair_free(struct kit_pair *p)
{
    X509_free(p->cert);
    EVP_PKEY_free(p->key);
    *p = (struct kit_pair){0};
}

/* ---- files ----------------------------------------------------------------------------------- */
static inline void kit_write(struct bns_vfs *vfs, const char *path, struct bns_slice text)
{
    struct bns_file *f = NULL;

    BNS_ASSERT(bns_vfs_open(vfs, path, BNS_OPEN_CREATE | BNS_OPEN_TRUNC, &f, NULL) == BNS_OK);
    BNS_ASSERT(bns_file_write_at(f, 0, &text, 1, NULL) == BNS_OK);
    bns_file_close(f);
}

static inline void kit_write_pem(struct bns_vfs *vfs, const char *path, X509 *cert, EVP_PKEY *key)
{
    BIO *b = BIO_new(BIO_s_mem());
    char *text = NULL;
    long len;

    if (cert != NULL)
        BNS_ASSERT(PEM_write_bio_X509(b, cert) == 1);
    else
        BNS_ASSERT(PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL) == 1);
    len = BIO_get_mem_data(b, &text);
    kit_write(vfs, path, bns_slice(text, (size_t)len));
    BIO_free(b);
}

/* Writes "<name>.pem" and "<name>.key". */
static inline void kit_write_pair(struct bns_vfs *vfs, const char *name, const struct kit_pair *p)
{
    char path[64];

    (void)snprintf(path, sizeof path, "%s.pem", name);
    kit_write_pem(vfs, path, p->cert, NULL);
    (void)snprintf(path, sizeof path, "%s.key", name);
    kit_write_pem(vfs, path, NULL, p->key);
}

/* ---- the env --------------------------------------------------------------------------------- */
struct kit {
    struct fake_env f; /* first */
    struct bns_env_ops ops;
    struct bns_task run;
    struct bns_list jobs;
    bool jobs_held; /* jobs wait until it is false again */
    struct bns_log log;
    char said[16384]; /* the log, as far as it fits */
    size_t said_len, log_lines;
};

static inline void kit_run_jobs(struct bns_task *t)
{
    struct kit *k = BNS_CONTAINER(t, struct kit, run);
    struct bns_list *n;

    while (!k->jobs_held && (n = bns_list_pop(&k->jobs)) != NULL) {
        struct bns_job *j = BNS_CONTAINER(n, struct bns_job, node);

        j->run(j);
        j->done(j);
    }
}

static inline void kit_pool_submit(struct bns_env *e, struct bns_job *j)
{
    struct kit *k = (struct kit *)(void *)e;

    bns_list_push(&k->jobs, &j->node);
    bns_list_del(&k->run.node);
    bns_post(e, &k->run);
}

static inline void kit_log(void *arg, struct bns_slice line)
{
    struct kit *k = arg;
    size_t room = sizeof k->said - 1 - k->said_len, len = line.len < room ? line.len : room;

    memcpy(k->said + k->said_len, line.ptr, len);
    k->said_len += len;
    k->said[k->said_len] = '\0';
    k->log_lines++;
}

static inline int64_t kit_wall(void *arg)
{
    (void)arg;
    return 0;
}

static inline void kit_init(struct kit *k, const struct bns_alloc *alloc, struct bns_vfs *vfs)
{
    memset(k, 0, sizeof *k);
    fake_init(&k->f, alloc);
    k->f.own = bns_alloc_libc();
    k->f.timers.alloc = bns_alloc_libc();
    k->ops = fake_ops;
    k->ops.pool_submit = kit_pool_submit;
    k->f.env.ops = &k->ops;
    k->f.env.vfs = vfs;
    k->log =
        (struct bns_log){.level = BNS_LOG_INFO, .wall_ms = kit_wall, .write = kit_log, .arg = k};
    k->f.env.log = &k->log;
    bns_list_init(&k->jobs);
    bns_list_init(&k->run.node);
    k->run.fn = kit_run_jobs;
}

/* ---- a client on OpenSSL alone --------------------------------------------------------------- */
struct kit_raw {
    struct bns_stream *s;
    SSL *ssl;           /* NULL: bytes are only collected */
    struct bns_buf got; /* plain text; without ssl: what came */
    size_t records;     /* of application data that came */
    size_t wire;        /* bytes that came */
    int code;
    size_t change_at; /* of what it sends: these bytes are changed */
    struct bns_slice change;
    size_t sent;
    bool closed, eof;
    uint8_t head[5]; /* of the record that comes */
    size_t head_len, body_left;
};

static inline void kit_raw_release(void *arg, int code)
{
    (void)code;
    free(arg);
}

static inline void kit_raw_send(struct kit_raw *r, const void *bytes, size_t len)
{
    uint8_t *copy = malloc(len + 1);
    struct bns_slice v;

    BNS_ASSERT(copy != NULL);
    memcpy(copy, bytes, len);
    v = bns_slice(copy, len);
    for (size_t i = 0; i < r->change.len; i++) {
        size_t at = r->change_at + i;

        if (at >= r->sent && at < r->sent + len)
            copy[at - r->sent] ^= r->change.ptr[i];
    }
    r->sent += len;
    if (r->closed || bns_stream_write(r->s, &v, 1, kit_raw_release, copy) != BNS_OK)
        free(copy);
}

/* Sends what OpenSSL has written. */
static inline void kit_raw_pump(struct kit_raw *r)
{
    char *p = NULL;
    long n = BIO_get_mem_data(SSL_get_wbio(r->ssl), &p);

    if (n > 0)
        kit_raw_send(r, p, (size_t)n);
    (void)BIO_reset(SSL_get_wbio(r->ssl)); /* memory cannot fail */
}

static inline void kit_raw_count(struct kit_raw *r, struct bns_slice v)
{
    r->wire += v.len;
    while (v.len > 0) {
        size_t n = v.len < r->body_left ? v.len : r->body_left;

        v = bns_slice_skip(v, n);
        r->body_left -= n;
        while (r->body_left == 0 && v.len > 0 && r->head_len < 5) {
            r->head[r->head_len++] = *v.ptr;
            v = bns_slice_skip(v, 1);
        }
        if (r->head_len == 5) {
            r->head_len = 0;
            r->body_left = (size_t)r->head[3] << 8 | r->head[4];
            r->records += r->head[0] == SSL3_RT_APPLICATION_DATA;
        }
    }
}

static inline void kit_raw_read(struct kit_raw *r)
{
    uint8_t bytes[4096];
    int n;

    ERR_clear_error();
    while ((n = SSL_read(r->ssl, bytes, sizeof bytes)) > 0)
        BNS_ASSERT(bns_buf_add(&r->got, bytes, (size_t)n) == BNS_OK);
    r->eof = r->eof || SSL_get_error(r->ssl, n) == SSL_ERROR_ZERO_RETURN;
    ERR_clear_error();
    kit_raw_pump(r);
}

static inline void kit_raw_data(void *arg, struct bns_slice v)
{
    struct kit_raw *r = arg;

    kit_raw_count(r, v);
    if (r->ssl == NULL) {
        BNS_ASSERT(bns_buf_add(&r->got, v.ptr, v.len) == BNS_OK);
        return;
    }
    BNS_ASSERT(BIO_write(SSL_get_rbio(r->ssl), v.ptr, (int)v.len) == (int)v.len);
    kit_raw_read(r);
}

static inline void kit_raw_open(void *arg)
{
    struct kit_raw *r = arg;

    if (r->ssl != NULL)
        kit_raw_read(r); /* the ClientHello */
}

static inline void kit_raw_closed(void *arg, int code)
{
    struct kit_raw *r = arg;

    r->closed = true;
    r->code = code;
}

/* ctx NULL: no TLS. */
static inline void kit_raw_dial(struct kit_raw *r, struct bns_env *e, uint16_t port, SSL_CTX *ctx)
{
    static const struct bns_stream_events ev = {
        .on_open = kit_raw_open, .on_data = kit_raw_data, .on_close = kit_raw_closed};

    memset(r, 0, sizeof *r);
    bns_buf_init(&r->got, bns_alloc_libc(), 64u * 1024 * 1024);
    if (ctx != NULL) {
        r->ssl = SSL_new(ctx);
        SSL_set_bio(r->ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
        SSL_set_connect_state(r->ssl);
    }
    BNS_ASSERT(bns_net_connect(e, "127.0.0.1", port, &ev, r, &r->s, NULL) == BNS_OK);
}

static inline void kit_raw_write(struct kit_raw *r, const char *text)
{
    BNS_ASSERT(SSL_write(r->ssl, text, (int)strlen(text)) == (int)strlen(text));
    kit_raw_pump(r);
}

/* After the stream has told its end. */
static inline void kit_raw_free(struct kit_raw *r)
{
    BNS_ASSERT(r->closed);
    SSL_free(r->ssl);
    bns_buf_free(&r->got);
}

#endif
