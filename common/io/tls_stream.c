/* tls_stream.c - one TLS stream: records in, records out.
 *
 *      owner          write -> `out` (borrowed)              on_data(`plain`)
 *                        |  once a turn, 16 KiB at a time         ^  up to 64 KiB a call
 *      OpenSSL        SSL_write(`staging`, or the slice)      SSL_read
 *                        |                                        ^
 *      our BIO        `block` (owned)                         `in` (borrowed)  <- `held`
 *                        |                                        ^
 *      stream below   bns_stream_write(block)                 on_data(in)
 *
 * Writing: writes only queue. At the end of the turn they become records of up to 16 KiB together:
 *   small slices are gathered in the staging buffer of the side, a slice that fills a record is
 *   encrypted where it lies. Encryption stops while more than FLUSH_BYTES wait below, so a slow
 *   reader costs what its owner queued, once.
 * Reading: OpenSSL takes what it needs from `in`. When the owner stops reading in the middle, the
 *   rest (one read of the stream below at most) is held, and the stream below is not read.
 * Memory: while idle a stream has no buffer at all but what OpenSSL keeps for its keys.
 * Calls out (on_data, releases) may do anything to the stream: it is freed only when the stream
 *   below has told on_close, and each loop looks at the state again after it called out.
 * The end: close_notify is sent when the owner closes. An end of the connection without one is
 *   BNS_E_DROPPED to the owner: somebody may have cut the connection.
 */
#include "io/tls_int.h"

#include <openssl/err.h>

#define FLUSH_BYTES (256u * 1024)
#define BLOCK_FIRST 4096u
#define BLOCK_MAX (64u * 1024)
#define RECORD_OVERHEAD 64u
#define HELD_MAX (256u * 1024)
#define CLOSE_NS (10 * BNS_SEC)
#define CHATTER_MAX 64u

/* ---- the BIO between OpenSSL and the stream below -------------------------------------------- */
static int bio_read(BIO *b, char *dst, int len)
{
    struct bns_tls_stream *s = BIO_get_data(b);
    size_t n = s->in.len < (size_t)len ? s->in.len : (size_t)len;

    BIO_clear_retry_flags(b);
    if (n == 0) {
        BIO_set_retry_read(b);
        return -1;
    }
    memcpy(dst, s->in.ptr, n);
    s->in = bns_slice_skip(s->in, n);
    return (int)n;
}

static struct bns_tls_block *block_new(struct bns_tls_stream *s, size_t least)
{
    const struct bns_alloc *a = s->t->env->alloc;
    size_t cap = s->block_hint < BLOCK_FIRST ? s->block_hint : BLOCK_FIRST;
    struct bns_tls_block *k;

    if (s->block_hint > BLOCK_FIRST)
        cap = s->block_hint < BLOCK_MAX ? s->block_hint : BLOCK_MAX;
    if (cap < least)
        cap = least;
    k = bns_alloc(a, sizeof *k + cap);
    if (k == NULL)
        return NULL;
    k->alloc = a;
    k->len = 0;
    k->cap = cap;
    return k;
}

static void block_free(void *arg, int code)
{
    struct bns_tls_block *k = arg;

    (void)code; /* the stream's end is told by its on_close */
    bns_free(k->alloc, k);
}

static int bio_write(BIO *b, const char *src, int len)
{
    struct bns_tls_stream *s = BIO_get_data(b);
    size_t n = (size_t)len;

    BIO_clear_retry_flags(b);
    if (s->block != NULL && s->block->cap - s->block->len < n && !bns_tls_give(s))
        return -1;
    if (s->block == NULL)
        s->block = block_new(s, n);
    if (s->block == NULL) {
        s->no_memory = true;
        return -1;
    }
    memcpy(s->block->bytes + s->block->len, src, n);
    s->block->len += n;
    return len;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
    (void)b;
    (void)num;
    (void)ptr;
    return cmd == BIO_CTRL_FLUSH || cmd == BIO_CTRL_DUP ? 1 : 0;
}

BIO_METHOD *bns_tls_bio_new(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK | 127, "bonsai stream");

    if (m != NULL &&
        (BIO_meth_set_read(m, bio_read) != 1 || BIO_meth_set_write(m, bio_write) != 1 ||
         BIO_meth_set_ctrl(m, bio_ctrl) != 1)) {
        BIO_meth_free(m);
        m = NULL;
    }
    return m;
}

int bns_tls_ssl_new(struct bns_tls_stream *s, SSL_CTX *ctx)
{
    BIO *b = BIO_new(s->t->bio);

    if (b == NULL)
        return BNS_E_NOMEM;
    s->ssl = SSL_new(ctx);
    if (s->ssl == NULL) {
        BIO_free(b);
        return BNS_E_NOMEM;
    }
    BIO_set_data(b, s);
    BIO_set_init(b, 1);
    SSL_set_bio(s->ssl, b, b);
    SSL_set_app_data(s->ssl, s);
    return BNS_OK;
}

bool bns_tls_give(struct bns_tls_stream *s)
{
    struct bns_tls_block *k = s->block;
    struct bns_slice v;

    if (k == NULL)
        return true;
    s->block = NULL;
    v = bns_slice(k->bytes, k->len);
    if (bns_stream_write(s->under, &v, 1, block_free, k) == BNS_OK)
        return true;
    block_free(k, BNS_E_NOMEM);
    s->no_memory = true;
    return false;
}

/* ---- the end --------------------------------------------------------------------------------- */
void bns_tls_broken(struct bns_tls_stream *s, int code)
{
    if (s->state == BNS_TLS_ENDING)
        return;
    s->state = BNS_TLS_ENDING;
    s->code = code;
    s->coded = true;
    bns_timer_stop(s->t->env, &s->timer);
    bns_list_del(&s->wait);
    if (bns_tls_give(s)) /* an alert */
        bns_stream_close(s->under);
    else
        bns_stream_reset(s->under);
}

static void write_over(struct bns_tls_stream *s, struct bns_tls_write *w, int code)
{
    if (w->release != NULL)
        w->release(w->arg, code);
    bns_free(s->t->env->alloc, w);
}

void bns_tls_stream_free(struct bns_tls_stream *s)
{
    struct bns_tls *t = s->t;
    const struct bns_alloc *a = t->env->alloc;

    if (s->ssl != NULL)
        SSL_set_app_data(s->ssl, NULL);
    SSL_free(s->ssl); /* and the BIO */
    if (s->block != NULL)
        block_free(s->block, BNS_E_DROPPED);
    bns_buf_free(&s->held);
    bns_free(a, s->server_name);
    bns_free(a, s);
    bns_tls_unref(t);
}

static void under_close(void *arg, int code)
{
    struct bns_tls_stream *s = arg;
    struct bns_list *n;

    bns_tls_shake_lost(s);
    s->state = BNS_TLS_ENDING;
    bns_timer_stop(s->t->env, &s->timer);
    bns_list_del(&s->dirty);
    bns_list_del(&s->wait);
    while ((n = bns_list_pop(&s->done)) != NULL)
        write_over(s, BNS_CONTAINER(n, struct bns_tls_write, node), BNS_OK);
    while ((n = bns_list_pop(&s->out)) != NULL)
        write_over(s, BNS_CONTAINER(n, struct bns_tls_write, node), BNS_E_DROPPED);
    if (s->ev.on_close != NULL)
        s->ev.on_close(s->arg, s->coded ? s->code : code);
    bns_tls_stream_free(s);
}

/* OpenSSL says no in an open connection. */
static void failed(struct bns_tls_stream *s, int rc)
{
    struct bns_tls_verdict v;

    if (s->no_memory) {
        bns_tls_broken(s, BNS_E_NOMEM);
    } else if (SSL_get_error(s->ssl, rc) == SSL_ERROR_SSL) {
        bns_tls_judge(s, &v); /* a server that refuses our certificate says so only now */
        bns_tls_reject_log(s->t, s->under, s->accepted, v.why, v.remedy);
        bns_tls_broken(s, v.code);
    } else {
        bns_tls_broken(s, BNS_E_DROPPED);
    }
    ERR_clear_error();
}

/* ---- writing --------------------------------------------------------------------------------- */
/* n bytes are encrypted: moves whole writes to `done`. */
static void took(struct bns_tls_stream *s, size_t n)
{
    s->queued -= n;
    while (!bns_list_empty(&s->out)) {
        struct bns_tls_write *w = BNS_CONTAINER(s->out.next, struct bns_tls_write, node);

        while (w->at < w->count && n >= w->v[w->at].len - w->off) {
            n -= w->v[w->at].len - w->off;
            w->off = 0;
            w->at++;
        }
        if (w->at < w->count) {
            w->off += n;
            return;
        }
        bns_list_del(&w->node);
        bns_list_push(&s->done, &w->node);
    }
}

/* The next record's bytes: a slice that fills one, or small ones together. */
static struct bns_slice gather(struct bns_tls_stream *s)
{
    size_t len = 0;

    BNS_LIST_EACH(n, &s->out)
    {
        struct bns_tls_write *w = BNS_CONTAINER(n, struct bns_tls_write, node);
        size_t off = w->off;

        for (size_t i = w->at; i < w->count; i++, off = 0) {
            struct bns_slice v = bns_slice_skip(w->v[i], off);

            if (len == 0 && v.len >= BNS_TLS_RECORD)
                return bns_slice(v.ptr, BNS_TLS_RECORD);
            if (v.len > BNS_TLS_RECORD - len)
                v.len = BNS_TLS_RECORD - len;
            if (v.len > 0)
                memcpy(s->t->staging + len, v.ptr, v.len);
            len += v.len;
            if (len == BNS_TLS_RECORD)
                return bns_slice(s->t->staging, len);
        }
    }
    return bns_slice(s->t->staging, len);
}

static bool may_write(const struct bns_tls_stream *s)
{
    size_t below = bns_stream_queued(s->under) + (s->block == NULL ? 0 : s->block->len);

    return (s->state == BNS_TLS_OPEN || s->state == BNS_TLS_CLOSING) && below < FLUSH_BYTES;
}

static void encrypt(struct bns_tls_stream *s)
{
    ERR_clear_error();
    while (!bns_list_empty(&s->out) && may_write(s)) {
        struct bns_slice v = gather(s);
        size_t n = 0;
        int rc = 1;

        s->block_hint = s->queued + (s->queued / BNS_TLS_RECORD + 1) * RECORD_OVERHEAD;
        if (v.len > 0)
            rc = SSL_write_ex(s->ssl, v.ptr, v.len, &n);
        if (rc != 1) {
            failed(s, rc);
            return;
        }
        BNS_ASSERT(n == v.len); /* no partial writes: the BIO takes all */
        took(s, n);
        if (s->state == BNS_TLS_CLOSING)
            bns_timer_start(s->t->env, &s->timer, bns_now_ns(s->t->env) + CLOSE_NS);
    }
    if (!bns_tls_give(s))
        bns_tls_broken(s, BNS_E_NOMEM);
}

static size_t tls_queued(const struct bns_stream *base)
{
    const struct bns_tls_stream *s = (const struct bns_tls_stream *)(const void *)base;

    return s->queued + bns_stream_queued(s->under);
}

/* Closing, and all is encrypted: say so to the other side, and close below. */
static void finish_close(struct bns_tls_stream *s)
{
    if (s->state != BNS_TLS_CLOSING || !bns_list_empty(&s->out))
        return;
    ERR_clear_error();
    (void)SSL_shutdown(s->ssl); /* close_notify; the answer is not waited for */
    bns_tls_broken(s, BNS_OK);
}

static void flush(struct bns_tls_stream *s)
{
    struct bns_list *n;

    if (s->state != BNS_TLS_OPEN && s->state != BNS_TLS_CLOSING)
        return;
    encrypt(s);
    while ((n = bns_list_pop(&s->done)) != NULL)
        write_over(s, BNS_CONTAINER(n, struct bns_tls_write, node), BNS_OK);
    if (s->state == BNS_TLS_OPEN && s->high && tls_queued(&s->base) < BNS_STREAM_LOW_MARK) {
        s->high = false;
        if (s->ev.on_writable != NULL)
            s->ev.on_writable(s->arg);
    }
    finish_close(s);
}

static int tls_write(struct bns_stream *base, const struct bns_slice *v, size_t n,
                     bns_release_fn *release, void *arg)
{
    struct bns_tls_stream *s = bns_tls_of(base);
    struct bns_tls_write *w;

    if (s->state >= BNS_TLS_CLOSING)
        return BNS_E_OFF;
    w = bns_alloc(s->t->env->alloc, sizeof *w + n * sizeof w->v[0]);
    if (w == NULL)
        return BNS_E_NOMEM;
    *w = (struct bns_tls_write){.release = release, .arg = arg, .count = n};
    for (size_t i = 0; i < n; i++) {
        w->v[i] = v[i];
        s->queued += v[i].len;
    }
    bns_list_push(&s->out, &w->node);
    if (tls_queued(base) >= BNS_STREAM_LOW_MARK)
        s->high = true;
    if (s->state == BNS_TLS_OPEN)
        bns_tls_mark(s);
    return BNS_OK;
}

/* ---- reading --------------------------------------------------------------------------------- */
static void got_eof(struct bns_tls_stream *s)
{
    s->eof = true;
    if (s->ev.on_eof != NULL)
        s->ev.on_eof(s->arg);
    else
        bns_stream_close(&s->base);
}

/* Decrypts as much as `plain` takes; false: nothing more can come now. */
static bool decrypt(struct bns_tls_stream *s, size_t *len, int *rc)
{
    *len = 0;
    *rc = 1;
    while (*len < BNS_TLS_SCRATCH) {
        size_t n = 0;

        *rc = SSL_read_ex(s->ssl, s->t->plain + *len, BNS_TLS_SCRATCH - *len, &n);
        if (*rc != 1)
            return false;
        *len += n;
        s->chatter = 0;
    }
    return true;
}

static void refuse_renegotiation(struct bns_tls_stream *s)
{
    bns_counter_add(s->t->renegotiations, 1);
    bns_tls_reject_log(s->t, s->under, s->accepted,
                       s->renegotiates ? "renegotiation" : "a flood of key updates",
                       "use a client that does not renegotiate");
    bns_tls_broken(s, BNS_E_PROTO);
}

static void read_open(struct bns_tls_stream *s)
{
    bool more = true;

    while (more && s->state == BNS_TLS_OPEN && s->reading && !s->eof) {
        size_t len;
        int rc, e;

        ERR_clear_error();
        BNS_ASSERT(!s->t->busy);
        s->t->busy = true;
        more = decrypt(s, &len, &rc);
        e = more ? SSL_ERROR_NONE : SSL_get_error(s->ssl, rc);
        if (len > 0)
            s->ev.on_data(s->arg, bns_slice(s->t->plain, len));
        s->t->busy = false;
        if (s->state != BNS_TLS_OPEN)
            return;
        if (s->renegotiates || s->chatter > CHATTER_MAX)
            refuse_renegotiation(s);
        else if (e == SSL_ERROR_ZERO_RETURN)
            got_eof(s);
        else if (!more && e != SSL_ERROR_WANT_READ)
            failed(s, rc);
    }
    if (s->state == BNS_TLS_OPEN && !bns_tls_give(s)) /* answers to key updates */
        bns_tls_broken(s, BNS_E_NOMEM);
}

/* Works on s->in. What is left of it was not wanted. */
static void process(struct bns_tls_stream *s)
{
    if (s->state < BNS_TLS_OPEN)
        bns_tls_shake(s);
    if (s->state == BNS_TLS_OPEN)
        read_open(s);
    if (s->state >= BNS_TLS_CLOSING || s->eof)
        s->in = bns_slice(NULL, 0); /* nobody wants it any more */
}

static void hold(struct bns_tls_stream *s)
{
    struct bns_slice rest = s->in;

    s->in = bns_slice(NULL, 0);
    if (rest.len == 0)
        return;
    if (bns_buf_add(&s->held, rest.ptr, rest.len) != BNS_OK) {
        bns_tls_broken(s, BNS_E_NOMEM);
        return;
    }
    bns_stream_read(s->under, false);
}

static void under_data(void *arg, struct bns_slice data)
{
    struct bns_tls_stream *s = arg;

    if (s->state >= BNS_TLS_CLOSING)
        return;
    s->in = data;
    if (s->held.len == 0 && bns_list_empty(&s->wait))
        process(s);
    hold(s); /* what nobody wanted, behind what is held */
}

void bns_tls_stream_resume(struct bns_tls_stream *s)
{
    struct bns_buf old = s->held;
    size_t left;

    if (s->state >= BNS_TLS_CLOSING)
        return;
    bns_buf_init(&s->held, s->t->env->alloc, HELD_MAX);
    s->in = bns_buf_slice(&old);
    process(s);
    left = s->in.len;
    s->in = bns_slice(NULL, 0);
    bns_buf_consume(&old, old.len - left);
    BNS_ASSERT(s->held.len == 0);
    s->held = old;
    if (left == 0) {
        bns_buf_free(&s->held);
        if (s->state < BNS_TLS_OPEN || (s->state == BNS_TLS_OPEN && s->reading))
            bns_stream_read(s->under, true);
    }
}

static void under_eof(void *arg)
{
    struct bns_tls_stream *s = arg;

    if (s->state >= BNS_TLS_CLOSING || s->eof)
        return;
    if (s->state < BNS_TLS_OPEN) {
        bns_tls_shake_lost(s);
        bns_tls_broken(s, BNS_E_DROPPED);
        return;
    }
    bns_counter_add(s->t->cut, 1);
    bns_tls_broken(s, BNS_E_DROPPED);
}

static void under_writable(void *arg)
{
    flush(arg);
}

/* Dialled and connected: our first bytes go out as soon as a handshake may start. */
static void under_open(void *arg)
{
    struct bns_tls_stream *s = arg;

    if (s->state == BNS_TLS_WAITING)
        bns_tls_shake(s);
}

const struct bns_stream_events bns_tls_under_events = {
    .on_open = under_open,
    .on_data = under_data,
    .on_eof = under_eof,
    .on_writable = under_writable,
    .on_close = under_close,
};

/* ---- the operations of a stream -------------------------------------------------------------- */
void bns_tls_mark(struct bns_tls_stream *s)
{
    if (!bns_list_empty(&s->dirty))
        return;
    bns_list_push(&s->t->dirty, &s->dirty);
    bns_tls_kick(s->t);
}

void bns_tls_stream_turn(struct bns_tls_stream *s)
{
    if (s->resumes && s->state == BNS_TLS_OPEN && s->reading) {
        s->resumes = false;
        bns_tls_stream_resume(s);
    }
    flush(s);
}

static void tls_set_events(struct bns_stream *base, const struct bns_stream_events *ev, void *arg)
{
    struct bns_tls_stream *s = bns_tls_of(base);

    BNS_ASSERT(ev->on_data != NULL);
    BNS_ASSERT(ev->on_close != NULL);
    s->ev = *ev;
    s->arg = arg;
}

static void tls_read(struct bns_stream *base, bool on)
{
    struct bns_tls_stream *s = bns_tls_of(base);

    if (s->reading == on)
        return;
    s->reading = on;
    if (s->state != BNS_TLS_OPEN)
        return; /* a handshake reads in any case */
    s->resumes = on;
    if (!on)
        bns_stream_read(s->under, false);
    else
        bns_tls_mark(s); /* what is held comes first */
}

static void tls_close(struct bns_stream *base)
{
    struct bns_tls_stream *s = bns_tls_of(base);

    if (s->state >= BNS_TLS_CLOSING)
        return;
    if (s->state != BNS_TLS_OPEN) { /* dialling */
        bns_stream_reset(base);
        return;
    }
    s->state = BNS_TLS_CLOSING;
    bns_timer_start(s->t->env, &s->timer, bns_now_ns(s->t->env) + CLOSE_NS);
    encrypt(s); /* what fits below, at once: the loop may be about to end */
    finish_close(s);
    if (s->state == BNS_TLS_CLOSING)
        bns_tls_mark(s);
}

static void tls_reset(struct bns_stream *base)
{
    struct bns_tls_stream *s = bns_tls_of(base);

    if (s->state == BNS_TLS_ENDING)
        return;
    s->state = BNS_TLS_ENDING;
    s->code = BNS_OK;
    s->coded = true;
    bns_timer_stop(s->t->env, &s->timer);
    bns_list_del(&s->wait);
    bns_stream_reset(s->under);
}

static void tls_peer(const struct bns_stream *base, struct bns_net_addr *out)
{
    bns_stream_peer(((const struct bns_tls_stream *)(const void *)base)->under, out);
}

static const struct bns_stream_ops tls_ops = {
    .set_events = tls_set_events,
    .write = tls_write,
    .queued = tls_queued,
    .read = tls_read,
    .close = tls_close,
    .reset = tls_reset,
    .peer = tls_peer,
};

struct bns_tls_stream *bns_tls_stream_new(struct bns_tls *t)
{
    struct bns_tls_stream *s = bns_alloc_zero(t->env->alloc, sizeof *s);

    if (s == NULL)
        return NULL;
    s->base.ops = &tls_ops;
    s->t = t;
    s->state = BNS_TLS_WAITING;
    s->reading = true;
    bns_list_init(&s->node);
    bns_list_init(&s->dirty);
    bns_list_init(&s->wait);
    bns_list_init(&s->out);
    bns_list_init(&s->done);
    bns_buf_init(&s->held, t->env->alloc, HELD_MAX);
    bns_timer_init(&s->timer, bns_tls_on_timer, s);
    bns_tls_ref(t);
    return s;
}

bool bns_tls_is(const struct bns_stream *base)
{
    return base->ops == &tls_ops;
}

bool bns_tls_peer_cn(const struct bns_stream *base, char *out, size_t out_len)
{
    const struct bns_tls_stream *s = (const struct bns_tls_stream *)(const void *)base;
    X509 *c;
    int len;

    if (!bns_tls_is(base) || s->ssl == NULL || SSL_get_verify_mode(s->ssl) == SSL_VERIFY_NONE)
        return false;
    c = SSL_get0_peer_certificate(s->ssl);
    if (c == NULL || out_len > INT32_MAX)
        return false;
    len = X509_NAME_get_text_by_NID(X509_get_subject_name(c), NID_commonName, out, (int)out_len);
    return len > 0 && strlen(out) == (size_t)len; /* a NUL in a name is no name */
}
