/* rpc_conn.c - one connection of the internal RPC: HELLO, frames, liveness, back-pressure.
 *
 * Life:      dialled (HELLO leaves when the stream opens) or accepted (HELLO leaves when a good one
 *            came in), greeted, dead. A dead connection has left its owner and waits for on_close,
 *            which frees it: so an owner may go away inside any callback.
 * Strangers: until the HELLO a frame may have STRANGER_BYTES only, and the HELLO must come within
 *            BNS_RPC_DEAD_NS. Another cluster id gets our HELLO, so that both sides can say in
 *            their log what is wrong, and is closed.
 * Liveness:  the dialler pings when it heard nothing for a second; whoever hears nothing for
 *            BNS_RPC_DEAD_NS closes.
 * Bounds:    when more than queue_max bytes wait to be sent, we stop reading until the peer took
 *            them: one that asks (or pings) and never reads cannot fill our memory.
 */
#include "io/rpc_int.h"

#include "base/metrics.h"

#define STRANGER_BYTES 1024u
#define SLICES_LOCAL 32u

struct outgoing {
    struct bns_rpc_conn *c; /* lives until on_close, which comes after every release */
    bns_release_fn *release;
    void *arg;
    uint8_t head[BNS_FRAME_HEAD_BYTES];
};

static void sent(void *arg, int code)
{
    struct outgoing *o = arg;
    struct bns_rpc_conn *c = o->c;

    if (c->held)
        c->heard_ns = bns_now_ns(c->env); /* we do not listen, but it takes what we send */
    if (o->release != NULL)
        o->release(o->arg, code);
    bns_free(c->env->alloc, o);
}

static int write_all(struct bns_rpc_conn *c, struct outgoing *o, const struct bns_slice *v,
                     size_t n)
{
    struct bns_slice local[SLICES_LOCAL], *all = local;
    int rv;

    if (n + 1 > SLICES_LOCAL) {
        all = bns_alloc_array(c->env->alloc, n + 1, sizeof *all);
        if (all == NULL)
            return BNS_E_NOMEM;
    }
    all[0] = bns_slice(o->head, sizeof o->head);
    if (n > 0)
        memcpy(all + 1, v, n * sizeof *v);
    rv = bns_stream_write(c->stream, all, n + 1, sent, o);
    if (all != local)
        bns_free(c->env->alloc, all);
    return rv;
}

static void hold(struct bns_rpc_conn *c)
{
    if (!c->held && bns_stream_queued(c->stream) > c->queue_max) {
        c->held = true;
        bns_stream_read(c->stream, false);
    }
}

int bns_rpc_conn_send(struct bns_rpc_conn *c, const struct bns_frame *f, const struct bns_slice *v,
                      size_t n, bns_release_fn *release, void *arg)
{
    struct outgoing *o;
    int rv;

    if (c->dead)
        return BNS_E_OFF;
    o = bns_alloc(c->env->alloc, sizeof *o);
    if (o == NULL)
        return BNS_E_NOMEM;
    *o = (struct outgoing){.c = c, .release = release, .arg = arg};
    rv = bns_frame_head(f, v, n, o->head);
    if (rv == BNS_OK)
        rv = write_all(c, o, v, n);
    if (rv != BNS_OK) {
        bns_free(c->env->alloc, o);
        return rv;
    }
    hold(c);
    return BNS_OK;
}

static void put_rcbuf(void *arg, int code)
{
    (void)code; /* nobody waits for these bytes */
    bns_rcbuf_put(arg);
}

int bns_rpc_conn_send_copy(struct bns_rpc_conn *c, const struct bns_frame *f)
{
    struct bns_rcbuf *b;
    struct bns_slice s;
    int rv;

    if (c->dead)
        return BNS_E_OFF;
    if (f->payload.len > BNS_FRAME_PAYLOAD_MAX)
        return BNS_E_TOOBIG;
    b = bns_rcbuf_new(c->env->alloc, BNS_FRAME_HEAD_BYTES + f->payload.len);
    if (b == NULL)
        return BNS_E_NOMEM;
    rv = bns_frame_head(f, &f->payload, 1, b->bytes);
    if (f->payload.len > 0)
        memcpy(b->bytes + BNS_FRAME_HEAD_BYTES, f->payload.ptr, f->payload.len);
    s = bns_rcbuf_slice(b);
    if (rv == BNS_OK)
        rv = bns_stream_write(c->stream, &s, 1, put_rcbuf, b);
    if (rv != BNS_OK)
        bns_rcbuf_put(b);
    else
        hold(c);
    return rv;
}

/* ---- the end --------------------------------------------------------------------------------- */
static void cut(struct bns_rpc_conn *c, bool now)
{
    if (c->dead)
        return;
    c->dead = true;
    bns_timer_stop(c->env, &c->timer);
    if (now)
        bns_stream_reset(c->stream);
    else
        bns_stream_close(c->stream);
}

void bns_rpc_conn_drop(struct bns_rpc_conn *c, bool now)
{
    c->ops = NULL;
    cut(c, now);
    bns_rpc_streams_end(c, c->dials ? BNS_E_CANCELED : BNS_E_OFF);
}

void bns_rpc_conn_break(struct bns_rpc_conn *c)
{
    if (!c->dead)
        bns_stream_reset(c->stream); /* on_close tells the rest */
}

/* Tells the streams, then the owner, who may have left meanwhile. */
static void tell(struct bns_rpc_conn *c, int code)
{
    bns_rpc_streams_end(c, BNS_E_OFF);
    if (c->ops != NULL)
        c->ops->on_dead(c->owner, code);
    c->ops = NULL;
}

static void die(struct bns_rpc_conn *c, int code, bool now)
{
    if (c->dead)
        return;
    cut(c, now);
    tell(c, code);
}

static void warn(struct bns_rpc_conn *c, int code, const char *why)
{
    struct bns_net_addr peer;

    if (c->env->metrics != NULL)
        bns_counter_add(bns_counter(c->env->metrics, "rpc_rejected_total", NULL,
                                    "Connections closed for what came from the other side."),
                        1);
    if (!bns_log_limit(c->env->log, bns_now_ns(c->env), 60 * BNS_SEC, c->warned_ns))
        return;
    bns_stream_peer(c->stream, &peer);
    BNS_LOG(c->env->log, BNS_LOG_WARN, "rpc", "connection closed", BNS_STR("why", why),
            BNS_STR("code", bns_err_name(code)), BNS_STR("host", peer.host),
            BNS_U64("port", peer.port), BNS_STR("side", c->dials ? "dialled" : "accepted"));
}

static void on_close(void *arg, int code)
{
    struct bns_rpc_conn *c = arg;

    if (!c->dead) {
        c->dead = true;
        bns_timer_stop(c->env, &c->timer);
        tell(c, code == BNS_OK ? BNS_E_DROPPED : code);
    }
    bns_frame_reader_free(&c->reader);
    bns_free(c->env->alloc, c);
}

/* ---- HELLO ----------------------------------------------------------------------------------- */
static int send_hello(struct bns_rpc_conn *c)
{
    uint8_t bytes[BNS_HELLO_BYTES] = {0};
    struct bns_hello h = {.ver_min = BNS_FRAME_VERSION,
                          .ver_max = BNS_FRAME_VERSION,
                          .node_id = c->me.node_id,
                          .incarnation = c->me.incarnation,
                          .features = c->me.features};
    struct bns_frame f = {.kind = BNS_FRAME_HELLO, .payload = bns_slice(bytes, sizeof bytes)};

    memcpy(h.cluster_id, c->me.cluster_id, sizeof h.cluster_id);
    bns_hello_encode(&h, bytes);
    return bns_rpc_conn_send_copy(c, &f);
}

static int got_hello(struct bns_rpc_conn *c, const struct bns_frame *f)
{
    struct bns_err err = {.text = "no HELLO at the start"};
    struct bns_hello h;
    int rv = BNS_E_PROTO;

    if (f->kind != BNS_FRAME_HELLO)
        goto fail;
    rv = bns_hello_decode(f->payload, &h, &err);
    if (rv != BNS_OK)
        goto fail;
    if (!c->dials && send_hello(c) != BNS_OK)
        return BNS_E_NOMEM;
    if (memcmp(h.cluster_id, c->me.cluster_id, sizeof h.cluster_id) != 0) {
        rv = bns_err_set(&err, BNS_E_PROTO, "wrong cluster id: node %016llx is of another cluster",
                         (unsigned long long)h.node_id);
        goto fail;
    }
    c->greeted = true;
    bns_frame_reader_limit(&c->reader, BNS_FRAME_PAYLOAD_MAX);
    rv = c->ops->on_hello(c->owner, &h, &err);
    if (rv == BNS_OK || c->dead)
        return BNS_OK;

fail:
    warn(c, rv, err.text);
    return rv;
}

/* ---- frames ---------------------------------------------------------------------------------- */
static int got_frame(struct bns_rpc_conn *c, const struct bns_frame *f)
{
    struct bns_frame pong = {.kind = BNS_FRAME_PONG, .id = f->id};
    bool found = false;
    int rv;

    if (!c->greeted)
        return got_hello(c, f);
    switch (f->kind) {
    case BNS_FRAME_DATA:
    case BNS_FRAME_END:
    case BNS_FRAME_CREDIT:
        rv = bns_rpc_streams_frame(c, f, &found); /* late ones find none */
        break;
    case BNS_FRAME_RESPONSE:
    case BNS_FRAME_CANCEL:
        rv = bns_rpc_streams_frame(c, f, &found);
        if (rv == BNS_OK && !found)
            rv = c->ops->on_frame(c->owner, f);
        break;
    case BNS_FRAME_PING:
        return bns_rpc_conn_send_copy(c, &pong);
    case BNS_FRAME_PONG:
        if (c->pinged_ns != 0)
            bns_hist_observe(c->rtt, (double)(bns_now_ns(c->env) - c->pinged_ns) / 1e9);
        c->pinged_ns = 0;
        return BNS_OK;
    case BNS_FRAME_HELLO:
        rv = BNS_E_PROTO;
        break;
    default:
        rv = c->ops->on_frame(c->owner, f);
        break;
    }
    if (rv != BNS_OK && !c->dead)
        warn(c, rv, "a frame that does not belong here");
    return rv;
}

/* No frame begins like this: it would be half a gigabyte. */
static bool is_http(const struct bns_rpc_conn *c, struct bns_slice data)
{
    return !c->dials && !c->greeted && c->ops->on_http != NULL && c->reader.part.len == 0 &&
           data.len >= 4 && memcmp(data.ptr, "GET ", 4) == 0;
}

static void on_data(void *arg, struct bns_slice data)
{
    struct bns_rpc_conn *c = arg;
    struct bns_slice all = data;
    struct bns_frame f;
    int rv = BNS_OK;

    if (c->dead)
        return;
    if (is_http(c, data)) {
        bns_timer_stop(c->env, &c->timer);
        if (c->ops->on_http(c->owner, c->stream, data)) {
            bns_frame_reader_free(&c->reader);
            bns_free(c->env->alloc, c);
            return;
        }
    }
    c->heard_ns = bns_now_ns(c->env);
    while (!c->dead) {
        rv = bns_frame_next(&c->reader, &data, &f);
        if (rv == BNS_E_AGAIN)
            return;
        if (rv != BNS_OK) {
            if (c->greeted || !bns_tls_misdirected(c->env, c->stream, all, c->warned_ns))
                warn(c, rv, "bytes that are no frame");
            break;
        }
        rv = got_frame(c, &f);
        if (rv != BNS_OK)
            break;
    }
    die(c, rv, c->greeted);
}

static void on_open(void *arg)
{
    struct bns_rpc_conn *c = arg;

    if (c->dead)
        return;
    c->heard_ns = bns_now_ns(c->env);
    if (send_hello(c) != BNS_OK)
        die(c, BNS_E_NOMEM, true);
}

static void on_writable(void *arg)
{
    struct bns_rpc_conn *c = arg;

    if (c->dead)
        return;
    if (c->held) {
        c->held = false;
        c->heard_ns = bns_now_ns(c->env); /* we did not listen meanwhile */
        bns_stream_read(c->stream, true);
    }
    bns_rpc_streams_wake(c);
}

static void on_timer(void *arg)
{
    struct bns_rpc_conn *c = arg;
    struct bns_frame ping = {.kind = BNS_FRAME_PING};
    uint64_t now = bns_now_ns(c->env);

    if (now - c->heard_ns >= BNS_RPC_DEAD_NS) {
        die(c, BNS_E_TIMEOUT, true);
        return;
    }
    if (c->dials && c->greeted && now - c->heard_ns >= BNS_RPC_PING_NS) {
        c->pinged_ns = c->pinged_ns == 0 ? now : c->pinged_ns;
        if (bns_rpc_conn_send_copy(c, &ping) != BNS_OK) {
            die(c, BNS_E_NOMEM, true);
            return;
        }
    }
    bns_timer_start(c->env, &c->timer, now + BNS_RPC_PING_NS);
}

const struct bns_stream_events bns_rpc_conn_events = {
    .on_open = on_open,
    .on_data = on_data,
    .on_writable = on_writable,
    .on_close = on_close,
};

void bns_rpc_conn_init(struct bns_rpc_conn *c)
{
    bns_frame_reader_init(&c->reader, c->env->alloc, STRANGER_BYTES);
    bns_list_init(&c->streams);
    bns_timer_init(&c->timer, on_timer, c);
    c->heard_ns = bns_now_ns(c->env);
    bns_timer_start(c->env, &c->timer, c->heard_ns + BNS_RPC_PING_NS);
}

void bns_rpc_conn_start(struct bns_rpc_conn *c, struct bns_slice read_so_far)
{
    bns_stream_set_events(c->stream, &bns_rpc_conn_events, c);
    if (read_so_far.len > 0)
        on_data(c, read_so_far);
}
