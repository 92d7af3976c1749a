/* conn.c - a client's connection: bytes to frames, answers to bytes.
 *
 *   on_data -> consume: length, bytes, length, bytes ...  -> kafka_request_begin()
 *                 |  stops while too much is under way: `rest` keeps what was read already,
 *                 |  the stream is not read, and a posted task goes on when there is room
 *   flush: answers at the front of `asked` go out; the list keeps the order of the requests
 *
 * Reading stops while requests_max requests are under way, while more than KAFKA_CONN_OUT_MAX bytes
 * of answers are not sent, and, between two frames, while the server's requests take more than its
 * bound. A task goes on instead of a call: an answer may be given anywhere, also while another
 * connection's request is being handled.
 *
 * A frame's buffer doubles as its bytes come: its length, which anybody can claim, allocates
 * nothing.
 */
#include "base/varint.h"
#include "broker/conn.h"

#define FRAME_FIRST 512u

static void go_on(struct bns_task *t);

static bool half(const struct kafka_conn *c)
{
    return c->frame != NULL || c->head_len > 0;
}

static bool full(const struct kafka_conn *c)
{
    return c->asked_count >= c->server->cfg.requests_max || c->out_bytes > KAFKA_CONN_OUT_MAX;
}

static bool starved(const struct kafka_conn *c)
{
    return !half(c) && c->server->inflight >= c->server->cfg.inflight_bytes_max;
}

/* ---- the end --------------------------------------------------------------------------------- */

static void conn_free(struct kafka_conn *c)
{
    if (!c->posted)
        bns_free(c->env->alloc, c);
}

static void drop_frame(struct kafka_conn *c)
{
    c->server->inflight -= c->frame_cap;
    bns_free(c->env->alloc, c->frame);
    c->frame = NULL;
    c->frame_cap = c->frame_len = c->head_len = 0;
    bns_buf_free(&c->rest);
}

/* Requests that handlers have live on without a connection. */
static void orphan(struct kafka_conn *c)
{
    struct bns_list *n;

    while ((n = bns_list_pop(&c->asked)) != NULL) {
        struct kafka_request *q = BNS_CONTAINER(n, struct kafka_request, node);

        c->asked_count--;
        q->conn = NULL;
        if (q->state != KAFKA_REQ_ASKED)
            kafka_request_free(q);
        else if (q->on_gone != NULL)
            q->on_gone(q);
    }
}

static void detach(struct kafka_conn *c)
{
    struct kafka_server *s = c->server;

    c->closing = true;
    bns_timer_stop(c->env, &c->timer);
    bns_list_del(&c->hungry);
    orphan(c);
    drop_frame(c);
    bns_list_del(&c->node);
    s->conns_count--;
    c->dead = true;
    c->server = NULL;
    kafka_server_fed(s);
}

static void on_close(void *arg, int code)
{
    struct kafka_conn *c = arg;

    (void)code; /* a client may go as it likes */
    BNS_ASSERT(bns_list_empty(&c->sent));
    detach(c);
    conn_free(c);
}

void kafka_conn_drop(struct kafka_conn *c)
{
    c->closing = true;
    bns_stream_reset(c->stream);
}

void kafka_conn_part(struct kafka_conn *c)
{
    struct bns_list *n;

    while ((n = bns_list_pop(&c->sent)) != NULL) { /* the stream has them still */
        struct kafka_request *q = BNS_CONTAINER(n, struct kafka_request, node);
        q->server->requests--;
        q->server = NULL;
        q->conn = NULL;
    }
    bns_stream_refuse(c->stream);
    detach(c);
    conn_free(c);
}

void kafka_conn_refuse(struct kafka_conn *c, const struct bns_err *err)
{
    struct kafka_server *s = c->server;

    if (bns_log_limit(c->env->log, bns_now_ns(c->env), 10 * BNS_MS, &s->warned_ns))
        BNS_LOG(c->env->log, BNS_LOG_WARN, "kafka", "a connection is closed",
                BNS_STR("peer", c->peer), BNS_STR("software", c->software),
                BNS_STR("why", err->text));
    kafka_conn_stop(c);
}

void kafka_conn_stop(struct kafka_conn *c)
{
    c->closing = true;
    if (bns_list_empty(&c->asked))
        bns_stream_close(c->stream);
    else
        bns_stream_read(c->stream, false);
}

/* ---- time ------------------------------------------------------------------------------------ */

static void set_timer(struct kafka_conn *c, uint64_t at)
{
    c->timer_ns = at;
    bns_timer_start(c->env, &c->timer, at);
}

static void on_timer(void *arg)
{
    struct kafka_conn *c = arg;
    const struct kafka_server_cfg *cfg = &c->server->cfg;
    uint64_t now = bns_now_ns(c->env);
    struct bns_err err = {0};

    c->timer_ns = BNS_NEVER;
    if (half(c) && !c->off && now >= c->moved_ns + cfg->frame_ns) {
        (void)bns_err_set(&err, BNS_E_TIMEOUT, "%zu bytes of a request of %zu came, then nothing",
                          c->frame_len, c->frame_size);
        kafka_conn_refuse(c, &err);
        return;
    }
    if (cfg->idle_ns != 0 && c->asked_count == 0 && now >= c->moved_ns + cfg->idle_ns) {
        kafka_conn_drop(c); /* also one that does not read its answers */
        return;
    }
    if (half(c) && !c->off)
        set_timer(c, c->moved_ns + cfg->frame_ns);
    else if (cfg->idle_ns != 0)
        set_timer(c, (c->asked_count == 0 ? c->moved_ns : now) + cfg->idle_ns);
}

static void watch_frame(struct kafka_conn *c)
{
    uint64_t at = c->moved_ns + c->server->cfg.frame_ns;

    if (half(c) && !c->off && at < c->timer_ns)
        set_timer(c, at);
}

/* ---- in -------------------------------------------------------------------------------------- */

static int begin_frame(struct kafka_conn *c, struct bns_err *err)
{
    uint32_t size = bns_get_u32be(c->head);

    if (size > INT32_MAX || size > c->server->cfg.request_bytes_max)
        return bns_err_set(err, BNS_E_TOOBIG,
                           "a request of %d bytes, where socket.request.max.bytes is %u", (int)size,
                           c->server->cfg.request_bytes_max);
    if (size < 8)
        return bns_err_set(err, BNS_E_PROTO, "a request of %u bytes", size);
    c->frame_size = size;
    c->frame_cap = size < FRAME_FIRST ? size : FRAME_FIRST;
    c->frame = bns_alloc(c->env->alloc, c->frame_cap);
    if (c->frame == NULL) {
        c->frame_cap = 0;
        return bns_err_set(err, BNS_E_NOMEM, "no memory for a request of %u bytes", size);
    }
    c->server->inflight += c->frame_cap;
    return BNS_OK;
}

static int grow_frame(struct kafka_conn *c, size_t need, struct bns_err *err)
{
    size_t cap = c->frame_cap;
    uint8_t *p;

    if (need <= cap)
        return BNS_OK;
    while (cap < need)
        cap *= 2;
    if (cap > c->frame_size)
        cap = c->frame_size;
    p = bns_resize(c->env->alloc, c->frame, cap);
    if (p == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory for a request of %zu bytes", c->frame_size);
    c->server->inflight += cap - c->frame_cap;
    c->frame = p;
    c->frame_cap = cap;
    return BNS_OK;
}

/* Takes what belongs to the frame that is begun; hands it on when it is whole. */
static int take(struct kafka_conn *c, struct bns_slice *in, struct bns_err *err)
{
    uint8_t *frame;
    size_t n, cap;
    int rv;

    while (c->head_len < sizeof c->head && in->len > 0) {
        c->head[c->head_len++] = in->ptr[0];
        *in = bns_slice_skip(*in, 1);
    }
    if (c->head_len < sizeof c->head)
        return BNS_OK;
    if (c->frame == NULL) {
        rv = begin_frame(c, err);
        if (rv != BNS_OK)
            return rv;
    }
    n = c->frame_size - c->frame_len;
    if (n > in->len)
        n = in->len;
    rv = grow_frame(c, c->frame_len + n, err);
    if (rv != BNS_OK)
        return rv;
    if (n > 0)
        memcpy(c->frame + c->frame_len, in->ptr, n);
    c->frame_len += n;
    *in = bns_slice_skip(*in, n);
    if (c->frame_len < c->frame_size)
        return BNS_OK;
    frame = c->frame;
    cap = c->frame_cap;
    c->frame = NULL; /* the request's from here on, with its share of `inflight` */
    c->frame_len = c->frame_cap = c->head_len = 0;
    kafka_request_begin(c, frame, c->frame_size, cap);
    return BNS_OK;
}

/* True: there is room for more than `in` had. */
static bool consume(struct kafka_conn *c, struct bns_slice *in)
{
    struct bns_err err = {0};

    c->consuming = true;
    while (in->len > 0 && !c->closing && !full(c) && !starved(c)) {
        if (take(c, in, &err) != BNS_OK)
            kafka_conn_refuse(c, &err);
    }
    c->consuming = false;
    if (c->closing)
        *in = bns_slice(NULL, 0);
    return !c->closing && !full(c) && !starved(c);
}

static void read_on_off(struct kafka_conn *c, bool on)
{
    if (c->closing)
        return;
    if (c->off == on) {
        c->off = !on;
        bns_stream_read(c->stream, on);
    }
    if (!on && starved(c) && bns_list_empty(&c->hungry))
        bns_list_push(&c->server->hungry, &c->hungry);
}

static void keep(struct kafka_conn *c, struct bns_slice in)
{
    struct bns_err err = {0};

    if (in.len == 0 || bns_buf_add(&c->rest, in.ptr, in.len) == BNS_OK)
        return;
    (void)bns_err_set(&err, BNS_E_NOMEM, "no memory for what was read");
    kafka_conn_refuse(c, &err);
}

static void on_data(void *arg, struct bns_slice in)
{
    struct kafka_conn *c = arg;
    bool room = false;

    c->moved_ns = bns_now_ns(c->env);
    if (c->closing)
        return;
    if (c->rest.len == 0 && !c->off)
        room = consume(c, &in);
    keep(c, in);
    read_on_off(c, room);
    if (!c->closing)
        watch_frame(c);
}

static void on_eof(void *arg)
{
    kafka_conn_stop(arg);
}

static void go_on(struct bns_task *t)
{
    struct kafka_conn *c = BNS_CONTAINER(t, struct kafka_conn, task);
    struct bns_slice in;
    bool room;

    c->posted = false;
    if (c->dead) {
        conn_free(c);
        return;
    }
    if (c->closing)
        return;
    in = bns_buf_slice(&c->rest);
    room = consume(c, &in);
    if (in.len == 0)
        bns_buf_free(&c->rest);
    else
        bns_buf_consume(&c->rest, c->rest.len - in.len);
    read_on_off(c, room);
    if (c->closing)
        return;
    if (room) {
        c->moved_ns = bns_now_ns(c->env); /* nobody may hurry while he is not read */
        kafka_server_fed(c->server);
    }
    watch_frame(c);
}

bool kafka_conn_resume(struct kafka_conn *c)
{
    if (c->dead || c->posted || c->consuming || !c->off || c->closing || full(c))
        return false;
    if (starved(c)) {
        if (bns_list_empty(&c->hungry))
            bns_list_push(&c->server->hungry, &c->hungry);
        return false;
    }
    c->posted = true;
    bns_post(c->env, &c->task);
    return true;
}

/* ---- out ------------------------------------------------------------------------------------- */

static void sent(void *arg, int code)
{
    struct kafka_request *q = arg;
    struct kafka_conn *c = q->conn;

    if (c != NULL) {
        c->out_bytes -= q->out.len;
        c->moved_ns = bns_now_ns(c->env);
    }
    bns_list_del(&q->node);
    kafka_request_free(q);
    if (c != NULL && code == BNS_OK)
        (void)kafka_conn_resume(c); /* or not yet */
}

static bool send_one(struct kafka_conn *c, struct kafka_request *q)
{
    if (q->close_why != NULL) {
        struct bns_err err = {0};

        (void)bns_err_set(&err, BNS_E_PROTO, "%s v%d: %s", q->api->name, q->form.version,
                          q->close_why);
        kafka_request_free(q);
        kafka_conn_refuse(c, &err);
        bns_stream_close(c->stream);
        return false;
    }
    if (q->out.slices == NULL) {
        kafka_request_free(q);
        return true;
    }
    q->state = KAFKA_REQ_SENT;
    bns_list_push(&c->sent, &q->node);
    if (bns_stream_write(c->stream, q->out.slices, q->out.count, sent, q) == BNS_OK)
        return true;
    bns_list_del(&q->node);
    c->out_bytes -= q->out.len;
    kafka_request_free(q);
    kafka_conn_drop(c);
    return false;
}

void kafka_conn_flush(struct kafka_conn *c)
{
    while (!bns_list_empty(&c->asked)) {
        struct kafka_request *q = BNS_CONTAINER(c->asked.next, struct kafka_request, node);

        if (q->state == KAFKA_REQ_ASKED)
            break;
        bns_list_del(&q->node);
        c->asked_count--;
        if (!send_one(c, q))
            return;
    }
    if (c->closing && bns_list_empty(&c->asked))
        bns_stream_close(c->stream);
    else
        (void)kafka_conn_resume(c); /* or not yet */
}

/* ---- the beginning --------------------------------------------------------------------------- */

static const struct bns_stream_events events = {
    .on_data = on_data, .on_eof = on_eof, .on_close = on_close};

int kafka_conn_new(struct kafka_server *s, const struct kafka_listener *l,
                   struct bns_stream *stream)
{
    struct kafka_conn *c = bns_alloc_zero(s->env->alloc, sizeof *c);
    struct bns_net_addr peer;

    if (c == NULL)
        return BNS_E_NOMEM;
    c->server = s;
    c->env = s->env;
    c->listener = l;
    c->stream = stream;
    c->task.fn = go_on;
    bns_list_init(&c->asked);
    bns_list_init(&c->sent);
    bns_list_init(&c->hungry);
    bns_buf_init(&c->rest, s->env->alloc, KAFKA_REST_MAX);
    bns_timer_init(&c->timer, on_timer, c);
    c->timer_ns = BNS_NEVER;
    c->moved_ns = bns_now_ns(s->env);
    bns_stream_peer(stream, &peer);
    memcpy(c->peer, peer.host, sizeof c->peer);
    c->peer[sizeof c->peer - 1] = '\0';
    bns_list_push(&s->conns, &c->node);
    s->conns_count++;
    bns_stream_set_events(stream, &events, c);
    if (s->cfg.idle_ns != 0)
        set_timer(c, c->moved_ns + s->cfg.idle_ns);
    return BNS_OK;
}
