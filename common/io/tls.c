/* tls.c - one side's certificates and keys: life, reload, metrics and messages.
 *
 * Looking at the files: etcd reads them for each handshake. We look at them (a pool job) when a
 *   connection comes and the last look began LOOK_NS ago, and let the handshakes that come during
 *   the look wait for it. So no handshake uses files that were replaced LOOK_NS before it, and a
 *   daemon without new connections does nothing. SIGHUP makes it look at once.
 * A look that finds a broken file changes nothing but the log; the message comes once, and again
 *   when it changes.
 * Turns: a handshake costs the server up to a millisecond of signing. STARTS_PER_TURN of them begin
 *   in a turn of the loop, the others wait, so that a flood of connections leaves time for those
 *   that are there. The same task runs the streams that were written to: all writes of a turn
 *   become records together.
 */
#include "io/tls_int.h"

#include <openssl/err.h>

#define LOOK_NS (1 * BNS_SEC)
#define LOG_NS (1 * BNS_SEC)

struct bns_tls_look {
    struct bns_job job;
    struct bns_tls *t;
    struct bns_tls_ctx ctx;
    uint8_t digest[BNS_TLS_DIGEST];
    struct bns_err err;
    int rv;
};

/* ---- life ------------------------------------------------------------------------------------ */
void bns_tls_ref(struct bns_tls *t)
{
    t->refs++;
}

void bns_tls_unref(struct bns_tls *t)
{
    const struct bns_alloc *a = t->env->alloc;

    BNS_ASSERT(t->refs > 0);
    if (--t->refs > 0)
        return;
    BNS_ASSERT(bns_list_empty(&t->waiting));
    BNS_ASSERT(bns_list_empty(&t->dirty));
    bns_tls_ctx_free(&t->ctx);
    bns_free(a, t->files.cert);
    bns_free(a, t->files.key);
    bns_free(a, t->files.client_cert);
    bns_free(a, t->files.client_key);
    bns_free(a, t->files.ca);
    bns_free(a, t->files.crl);
    bns_free(a, t->allowed_cn);
    bns_free(a, t->allowed_hostname);
    bns_free(a, t->ciphers);
    bns_free(a, t->plain);
    bns_free(a, t->staging);
    BIO_meth_free(t->bio); /* NULL is fine */
    bns_free(a, t);
}

/* NULL stays NULL. */
static bool copy(const struct bns_alloc *a, const char *text, char **out)
{
    size_t len;

    if (text == NULL || *text == '\0')
        return true;
    len = strlen(text);
    *out = bns_alloc(a, len + 1);
    if (*out == NULL)
        return false;
    memcpy(*out, text, len + 1);
    return true;
}

static bool copy_all(struct bns_tls *t, const struct bns_tls_config *c)
{
    const struct bns_alloc *a = t->env->alloc;
    size_t len = strnlen(c->name, sizeof t->name - 1);

    memcpy(t->name, c->name, len);
    t->plain = bns_alloc(a, BNS_TLS_SCRATCH);
    t->staging = bns_alloc(a, BNS_TLS_RECORD);
    return t->plain != NULL && t->staging != NULL && copy(a, c->cert_file, &t->files.cert) &&
           copy(a, c->key_file, &t->files.key) &&
           copy(a, c->client_cert_file, &t->files.client_cert) &&
           copy(a, c->client_key_file, &t->files.client_key) && copy(a, c->ca_file, &t->files.ca) &&
           copy(a, c->crl_file, &t->files.crl) && copy(a, c->allowed_cn, &t->allowed_cn) &&
           copy(a, c->allowed_hostname, &t->allowed_hostname) && copy(a, c->ciphers, &t->ciphers);
}

static int version_of(enum bns_tls_version v, int otherwise)
{
    switch (v) {
    case BNS_TLS_1_2:
        return TLS1_2_VERSION;
    case BNS_TLS_1_3:
        return TLS1_3_VERSION;
    case BNS_TLS_DEFAULT:
        break;
    }
    return otherwise;
}

static int check(const struct bns_tls *t, struct bns_err *err)
{
    const struct bns_tls_files *f = &t->files;

    if ((f->cert == NULL) != (f->key == NULL))
        return bns_err_set(err, BNS_E_INVALID,
                           "KeyFile and CertFile must both be present[key: %s, cert: %s]",
                           f->key == NULL ? "" : f->key, f->cert == NULL ? "" : f->cert);
    if ((f->client_cert == NULL) != (f->client_key == NULL))
        return bns_err_set(err, BNS_E_INVALID,
                           "ClientKeyFile and ClientCertFile must both be present or both absent: "
                           "key: %s, cert: %s]",
                           f->client_key == NULL ? "" : f->client_key,
                           f->client_cert == NULL ? "" : f->client_cert);
    if (t->serve && f->cert == NULL)
        return bns_err_set(err, BNS_E_INVALID, "a TLS server needs a certificate and its key");
    return BNS_OK;
}

static void find_metrics(struct bns_tls *t)
{
    static const char *const sides[] = {"dialled", "accepted"};
    static const char *const results[] = {"ok", "failed", "timeout", "evicted", "plain"};
    struct bns_metrics *m = t->env->metrics;
    char labels[128];

    if (m == NULL)
        return;
    for (size_t i = 0; i < 2; i++) {
        for (size_t r = 0; r < BNS_TLS_RESULTS; r++) {
            (void)snprintf(labels, sizeof labels, "name=\"%s\",result=\"%s\",side=\"%s\"", t->name,
                           results[r], sides[i]); /* fits */
            t->shakes[i][r] =
                bns_counter(m, "bns_tls_handshakes_total", labels, "TLS handshakes that ended.");
        }
        (void)snprintf(labels, sizeof labels, "name=\"%s\",result=\"%s\"", t->name,
                       results[i]); /* fits */
        t->reloads[i] =
            bns_counter(m, "bns_tls_reloads_total", labels, "Looks at changed certificate files.");
    }
    (void)snprintf(labels, sizeof labels, "name=\"%s\"", t->name); /* fits */
    t->renegotiations = bns_counter(m, "bns_tls_renegotiations_total", labels,
                                    "Connections closed for a wish to renegotiate.");
    t->cut = bns_counter(m, "bns_tls_truncated_total", labels,
                         "Connections that ended without close_notify.");
    t->revoked = bns_counter(m, "bns_tls_revoked_total", labels,
                             "Handshakes refused for a revoked certificate.");
    t->half = bns_gauge(m, "bns_tls_handshakes_open", labels, "Handshakes under way.");
}

static void on_turn(struct bns_task *task);

int bns_tls_new(struct bns_env *env, const struct bns_tls_config *cfg, struct bns_tls **out,
                struct bns_err *err)
{
    struct bns_tls *t = bns_alloc_zero(env->alloc, sizeof *t);
    int rv;

    if (t == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory for TLS");
    t->env = env;
    t->refs = 1;
    t->serve = cfg->serve;
    t->want_dial = cfg->dial;
    t->client_cert_auth = cfg->client_cert_auth;
    t->skip_verify = cfg->skip_verify;
    t->version_min = version_of(cfg->version_min, TLS1_2_VERSION);
    t->version_max = version_of(cfg->version_max, TLS1_3_VERSION);
    t->starts_left = BNS_TLS_STARTS_PER_TURN;
    t->turn.fn = on_turn;
    bns_list_init(&t->waiting);
    bns_list_init(&t->dirty);
    t->bio = bns_tls_bio_new();
    if (t->bio == NULL || !copy_all(t, cfg)) {
        rv = bns_err_set(err, BNS_E_NOMEM, "no memory for TLS");
        goto fail;
    }
    rv = check(t, err);
    if (rv == BNS_OK)
        rv = bns_tls_load(t, env->vfs, NULL, t->digest, &t->ctx, err);
    if (rv != BNS_OK)
        goto fail;
    t->looked_ns = bns_now_ns(env);
    find_metrics(t);
    *out = t;
    return BNS_OK;

fail:
    bns_tls_unref(t);
    return rv;
}

void bns_tls_free(struct bns_tls *t)
{
    if (t == NULL)
        return;
    t->stopped = true;
    bns_tls_unref(t);
}

/* ---- looking at the files -------------------------------------------------------------------- */
static void look_run(struct bns_job *j)
{
    struct bns_tls_look *k = BNS_CONTAINER(j, struct bns_tls_look, job);

    k->rv = bns_tls_load(k->t, k->t->env->vfs, k->t->digest, k->digest, &k->ctx, &k->err);
}

static void look_bad(struct bns_tls *t, const struct bns_tls_look *k)
{
    if (strcmp(t->bad, k->err.text) == 0)
        return;
    memcpy(t->bad, k->err.text, sizeof t->bad);
    bns_counter_add(t->reloads[BNS_TLS_FAILED], 1);
    BNS_LOG(t->env->log, BNS_LOG_ERROR, "tls",
            "cannot load changed certificate files, the old ones stay in force",
            BNS_STR("for", t->name), BNS_STR("error", k->err.text));
}

static void look_good(struct bns_tls *t, struct bns_tls_look *k)
{
    t->bad[0] = '\0';
    if (k->ctx.serve == NULL && k->ctx.dial == NULL)
        return;                /* nothing has changed */
    bns_tls_ctx_free(&t->ctx); /* open connections hold theirs */
    t->ctx = k->ctx;
    k->ctx = (struct bns_tls_ctx){0};
    memcpy(t->digest, k->digest, sizeof t->digest);
    bns_counter_add(t->reloads[BNS_TLS_OK], 1);
    BNS_LOG(t->env->log, BNS_LOG_INFO, "tls", "certificate files have changed and are in force",
            BNS_STR("for", t->name));
}

static void look_start(struct bns_tls *t);

/* The task holds the struct too: who frees the env next would leave it. */
static void tell_stopped(struct bns_tls *t)
{
    void (*done)(void *arg) = t->on_stopped;

    if (done == NULL || t->look != NULL || t->turn_posted)
        return;
    t->on_stopped = NULL;
    done(t->on_stopped_arg);
}

static void look_done(struct bns_job *j)
{
    struct bns_tls_look *k = BNS_CONTAINER(j, struct bns_tls_look, job);
    struct bns_tls *t = k->t;

    t->look = NULL;
    if (k->rv != BNS_OK)
        look_bad(t, k);
    else
        look_good(t, k);
    bns_tls_ctx_free(&k->ctx);
    bns_free(t->env->alloc, k);
    if (t->look_again && !t->stopped)
        look_start(t);
    if (!bns_list_empty(&t->waiting))
        bns_tls_kick(t);
    tell_stopped(t);
    bns_tls_unref(t);
}

static void look_start(struct bns_tls *t)
{
    struct bns_tls_look *k = bns_alloc_zero(t->env->alloc, sizeof *k);

    t->look_again = false;
    t->looked_ns = bns_now_ns(t->env);
    if (k == NULL)
        return; /* another time */
    k->t = t;
    k->job.run = look_run;
    k->job.done = look_done;
    t->look = k;
    bns_tls_ref(t);
    bns_pool_submit(t->env, &k->job);
}

void bns_tls_reload(struct bns_tls *t)
{
    if (t->stopped)
        return;
    if (t->look != NULL)
        t->look_again = true; /* it may have read a file already */
    else
        look_start(t);
}

void bns_tls_stop(struct bns_tls *t, void (*done)(void *arg), void *arg)
{
    t->stopped = true;
    t->on_stopped = done;
    t->on_stopped_arg = arg;
    tell_stopped(t);
}

/* ---- turns ----------------------------------------------------------------------------------- */
bool bns_tls_may_start(struct bns_tls *t)
{
    if (!t->stopped && t->look == NULL && bns_now_ns(t->env) - t->looked_ns >= LOOK_NS)
        look_start(t);
    if (t->look != NULL)
        return false;
    bns_tls_kick(t); /* in the next turn there are starts again */
    if (t->starts_left == 0)
        return false;
    t->starts_left--;
    return true;
}

static void start_waiting(struct bns_tls *t)
{
    struct bns_list *n;

    while (t->look == NULL && t->starts_left > 0 && (n = bns_list_pop(&t->waiting)) != NULL)
        bns_tls_stream_resume(BNS_CONTAINER(n, struct bns_tls_stream, wait));
    if (t->look == NULL && !bns_list_empty(&t->waiting))
        bns_tls_kick(t);
}

static void on_turn(struct bns_task *task)
{
    struct bns_tls *t = BNS_CONTAINER(task, struct bns_tls, turn);
    struct bns_list now, *n;

    t->turn_posted = false;
    t->starts_left = BNS_TLS_STARTS_PER_TURN;
    start_waiting(t);
    bns_list_init(&now);
    bns_list_splice(&now, &t->dirty);
    while ((n = bns_list_pop(&now)) != NULL)
        bns_tls_stream_turn(BNS_CONTAINER(n, struct bns_tls_stream, dirty));
    tell_stopped(t);
    bns_tls_unref(t);
}

void bns_tls_kick(struct bns_tls *t)
{
    if (t->turn_posted)
        return;
    t->turn_posted = true;
    bns_tls_ref(t);
    bns_post(t->env, &t->turn);
}

/* ---- metrics and messages -------------------------------------------------------------------- */
void bns_tls_count(struct bns_tls *t, bool accepted, enum bns_tls_result r)
{
    bns_counter_add(t->shakes[accepted ? 1 : 0][r], 1);
}

void bns_tls_half(struct bns_tls *t, int by)
{
    if (t->half != NULL)
        bns_gauge_set(t->half, t->half->value + by);
}

void bns_tls_reject_log(struct bns_tls *t, const struct bns_stream *under, bool accepted,
                        const char *why, const char *remedy)
{
    struct bns_net_addr peer = {0};

    if (!bns_log_limit(t->env->log, bns_now_ns(t->env), LOG_NS, &t->log_ns))
        return;
    bns_stream_peer(under, &peer);
    BNS_LOG(t->env->log, BNS_LOG_WARN, "tls",
            accepted ? "rejected connection" : "dialled connection failed", BNS_STR("for", t->name),
            BNS_STR("host", peer.host), BNS_U64("port", peer.port), BNS_STR("error", why),
            BNS_STR("remedy", remedy));
}

bool bns_tls_misdirected(struct bns_env *env, const struct bns_stream *s, struct bns_slice data,
                         uint64_t *log_ns)
{
    struct bns_net_addr peer = {0};

    /* a handshake record (22) of version 3.x */
    if (data.len == 0 || data.ptr[0] != 22 || (data.len > 1 && data.ptr[1] != 3))
        return false;
    if (env->metrics != NULL)
        bns_counter_add(bns_counter(env->metrics, "bns_tls_on_plain_port_total", NULL,
                                    "Connections that began with TLS on a port without it."),
                        1);
    if (!bns_log_limit(env->log, bns_now_ns(env), LOG_NS, log_ns))
        return true;
    bns_stream_peer(s, &peer);
    BNS_LOG(env->log, BNS_LOG_WARN, "tls", "rejected connection: TLS on a port without it",
            BNS_STR("host", peer.host), BNS_U64("port", peer.port),
            BNS_STR("remedy", "dial http:// instead of https://, or give this port an https URL, "
                              "a certificate and a key"));
    return true;
}
