/* net.c - byte streams of the simulator: what TCP shows to a program, when nothing is nice.
 *
 *     endpoint --write--> queue --flush--> segments in flight --deliver--> received --read-->
 * on_data
 *      (node's heap)                          (link, the world's memory)
 *
 * A link joins two halves; each half may have an endpoint (the program's stream) or be gone. Per
 * direction there is a pipe: segments in order, each with an arrival time. A lost segment arrives a
 * retransmission timeout later and holds up those behind it, as TCP does; while the path is blocked
 * or the other machine is off the head is tried again with growing gaps, and after TCP_TIMEOUT the
 * sender's stream ends with BNS_E_TIMEOUT. Bytes for a half that is gone on a machine that is up
 * bring a reset back (BNS_E_DROPPED), unless it closed less than a second ago (lingering). A
 * machine
 * without power says nothing: its peers are half-open until they send.
 *
 * A pipe holds WINDOW_BYTES, received but unread ones included: a reader that stops reading fills
 * the sender's queue. Segments are cut at random, so that no reader may rely on message borders.
 *
 * Ends: close sends what is queued, then a FIN; reset drops all and sends a RST, which may be lost.
 * on_close comes in an event of its own; until then the endpoint stays, calls on it do nothing.
 *
 * Invariants: an endpoint is in its node's `streams`; a link is freed when both halves are gone.
 * May fail:   no memory in the node's heap (write, connect, listen; an accept is refused then).
 */
#include <stdio.h>

#include "base/crc32c.h"
#include "sim/net_impl.h"

#define WINDOW_BYTES (256u * 1024)
#define SEGMENT_BYTES_MAX (64u * 1024)
#define RTO_NS (200 * BNS_MS)
#define RTO_MAX_NS (3 * BNS_SEC)
#define TCP_TIMEOUT_NS (15 * BNS_SEC)
#define LINGER_NS BNS_SEC

static struct endpoint *ep_of(struct bns_stream *s)
{
    return (struct endpoint *)(void *)s;
}

/* ---- paths ----------------------------------------------------------------------------------- */

uint64_t sim_latency(struct bns_world *w, unsigned from, unsigned to)
{
    const struct bns_world_net *c = &w->cfg.net;
    uint64_t ns = 5 * BNS_US + bns_prng_below(&w->prng_net, 20 * BNS_US);

    if (from == to)
        return ns;
    ns += c->delay_min_ns + sim_exp(&w->prng_net, c->delay_mean_ns);
    for (unsigned i = 0; i < 5 && c->loss > 0 && bns_prng_chance(&w->prng_net, c->loss); i++)
        ns += RTO_NS << i;
    return ns;
}

/* Nothing gets from one machine to the other now. */
bool sim_path_blocked(const struct bns_world *w, unsigned from, unsigned to)
{
    return to == HOST_NONE || w->blocked[from][to] || w->nodes[to].state == BNS_NODE_OFF;
}

/* What happens to a segment between two machines, for the record. */
static void record(struct link *k, unsigned from_side, enum bns_trace_kind kind,
                   const struct segment *s)
{
    unsigned from = k->half[from_side].host;
    unsigned to = k->half[1 - from_side].host;
    bool out = kind == BNS_TRACE_SEND;
    char text[16];

    if (k->w->record == NULL || from == to || to == HOST_NONE)
        return;
    (void)snprintf(text, sizeof text, s->fin ? ":%u fin" : ":%u", k->half[1].port); /* fits */
    sim_record(k->w, kind, out ? from : to,
               &(struct bns_trace_event){
                   .peer = out ? to : from, .id = s->id, .bytes = s->len, .text = text});
}

static void segments_free(struct link *k, unsigned i, struct bns_list *list)
{
    struct bns_list *l;

    while ((l = bns_list_pop(list)) != NULL) {
        struct segment *s = BNS_CONTAINER(l, struct segment, node);

        if (list == &k->pipe[i].flying)
            record(k, i, BNS_TRACE_DROP, s);
        bns_free(k->w->alloc, s);
    }
}

static void pipe_clear(struct link *k, unsigned i)
{
    segments_free(k, i, &k->pipe[i].flying);
    segments_free(k, i, &k->pipe[i].received);
    k->pipe[i].bytes = 0;
    sim_cancel(k->w, k->pipe[i].deliver);
    k->pipe[i].deliver = NULL;
}

/* Frees the link when nobody has an end of it any more. */
static void link_check(struct link *k)
{
    if (k->half[0].ep != NULL || k->half[1].ep != NULL)
        return;
    for (unsigned i = 0; i < 2; i++) {
        pipe_clear(k, i);
        sim_cancel(k->w, k->half[i].rst);
    }
    sim_cancel(k->w, k->syn);
    bns_list_del(&k->node);
    k->w->links_count--;
    bns_free(k->w->alloc, k);
}

/* ---- resets ---------------------------------------------------------------------------------- */

static void rst_arrives(struct sim_event *e)
{
    struct link *k = e->ctx;
    unsigned to = (unsigned)e->n;

    k->half[to].rst = NULL;
    if (sim_path_blocked(k->w, k->half[1 - to].host, k->half[to].host))
        return; /* lost: the other end stays half-open */
    pipe_clear(k, 1 - to);
    if (k->half[to].ep != NULL)
        sim_ep_end(k->half[to].ep, BNS_E_DROPPED);
}

static void rst_send(struct link *k, unsigned to)
{
    struct bns_world *w = k->w;
    unsigned from_host = k->half[1 - to].host;

    if (k->half[to].rst != NULL || k->half[to].ep == NULL)
        return;
    k->half[to].rst = sim_at(w, NULL, w->now + sim_latency(w, from_host, k->half[to].host), "rst",
                             rst_arrives, k);
    k->half[to].rst->n = to;
}

/* ---- delivery -------------------------------------------------------------------------------- */

static void deliver_next(struct link *k, unsigned i);

/* The head of the pipe cannot get through now: later, or never. */
static void deliver_blocked(struct link *k, unsigned i)
{
    struct pipe *p = &k->pipe[i];
    struct bns_world *w = k->w;

    if (p->blocked_since == 0) {
        p->blocked_since = w->now;
        p->gap = RTO_NS;
    }
    if (w->now - p->blocked_since > TCP_TIMEOUT_NS) {
        pipe_clear(k, i);
        if (k->half[i].ep != NULL)
            sim_ep_end(k->half[i].ep, BNS_E_TIMEOUT);
        return;
    }
    BNS_CONTAINER(p->flying.next, struct segment, node)->at = w->now + p->gap;
    p->last_at = w->now + p->gap;
    p->gap = p->gap * 2 > RTO_MAX_NS ? RTO_MAX_NS : p->gap * 2;
    deliver_next(k, i);
}

static void deliver(struct sim_event *e)
{
    struct link *k = e->ctx;
    unsigned i = (unsigned)e->n;
    struct pipe *p = &k->pipe[i];
    unsigned from = k->half[i].host;
    unsigned to = k->half[1 - i].host;
    struct bns_world *w = k->w;
    struct segment *s;

    p->deliver = NULL;
    if (sim_path_blocked(w, from, to)) {
        deliver_blocked(k, i);
        return;
    }
    s = BNS_CONTAINER(p->flying.next, struct segment, node);
    if (w->clogged[from][to] > w->now) {
        s->at = w->clogged[from][to] + bns_prng_below(&w->prng_net, BNS_MS);
        deliver_next(k, i);
        return;
    }
    p->blocked_since = 0;
    bns_list_del(&s->node);
    record(k, i, BNS_TRACE_RECV, s);
    sim_mix(w, s->len);
    sim_mix(w, bns_crc32c(0, s->bytes, s->len));
    if (k->half[1 - i].ep != NULL) {
        bns_list_push(&p->received, &s->node);
        sim_ep_read_soon(k->half[1 - i].ep);
    } else {
        p->bytes -= s->len;
        if (!s->fin && k->half[1 - i].linger_until < w->now)
            rst_send(k, i);
        bns_free(w->alloc, s);
    }
    deliver_next(k, i);
}

static void deliver_next(struct link *k, unsigned i)
{
    struct pipe *p = &k->pipe[i];

    if (p->deliver != NULL || bns_list_empty(&p->flying))
        return;
    p->deliver = sim_at(k->w, NULL, BNS_CONTAINER(p->flying.next, struct segment, node)->at,
                        "deliver", deliver, k);
    p->deliver->n = i;
}

static void segment_send(struct endpoint *ep, struct segment *s)
{
    struct link *k = ep->link;
    struct pipe *p = &k->pipe[ep->side];
    unsigned to = k->half[1 - ep->side].host;

    s->at = k->w->now + sim_latency(k->w, ep->n->id, to == HOST_NONE ? ep->n->id : to);
    if (s->at < p->last_at)
        s->at = p->last_at; /* in order */
    p->last_at = s->at;
    p->bytes += s->len;
    bns_list_push(&p->flying, &s->node);
    s->id = ++k->w->message_last;
    record(k, ep->side, BNS_TRACE_SEND, s);
    deliver_next(k, ep->side);
}

static struct segment *segment_new(struct bns_world *w, size_t len)
{
    struct segment *s = bns_alloc_zero(w->alloc, sizeof *s + len);

    BNS_ASSERT(s != NULL);
    bns_list_init(&s->node);
    s->len = len;
    return s;
}

/* ---- the sending end ------------------------------------------------------------------------- */

/* Moves up to `room` queued bytes into a segment; writes that are through are released. */
static void gather(struct endpoint *ep, size_t room)
{
    struct bns_list through;
    struct segment *s = segment_new(ep->n->w, ep->queued < room ? ep->queued : room);
    size_t at = 0;
    struct bns_list *l;

    bns_list_init(&through);
    while (!bns_list_empty(&ep->queue)) {
        struct record *r = BNS_CONTAINER(ep->queue.next, struct record, node);
        while (r->index < r->count) {
            struct bns_slice rest = bns_slice_skip(r->v[r->index], r->off);
            size_t n = rest.len < s->len - at ? rest.len : s->len - at;
            if (n > 0)
                memcpy(s->bytes + at, rest.ptr, n);
            at += n;
            r->off += n;
            if (n < rest.len)
                break;
            r->index++;
            r->off = 0;
        }
        if (r->index < r->count)
            break;
        bns_list_del(&r->node);
        bns_list_push(&through, &r->node);
    }
    BNS_ASSERT(at == s->len);
    ep->queued -= at;
    if (at > 0)
        segment_send(ep, s);
    else
        bns_free(ep->n->w->alloc, s);
    while (sim_live(ep->n) && (l = bns_list_pop(&through)) != NULL) {
        struct record r = *BNS_CONTAINER(l, struct record, node);
        bns_free(ep->n->env.alloc, BNS_CONTAINER(l, struct record, node));
        if (r.release != NULL)
            r.release(r.arg, BNS_OK);
    }
}

static void fin_send(struct endpoint *ep)
{
    struct segment *s = segment_new(ep->n->w, 0);

    s->fin = true;
    ep->sent_fin = true;
    segment_send(ep, s);
}

static void flush(struct sim_event *e)
{
    struct endpoint *ep = e->ctx;
    struct pipe *p = &ep->link->pipe[ep->side];
    struct bns_world *w = ep->n->w;

    ep->flush = NULL;
    while ((ep->state == EP_OPEN || ep->state == EP_CLOSING) && !bns_list_empty(&ep->queue) &&
           p->bytes < WINDOW_BYTES) {
        size_t room = WINDOW_BYTES - p->bytes;
        if (room > SEGMENT_BYTES_MAX)
            room = SEGMENT_BYTES_MAX;
        if (w->cfg.net.small > 0 && bns_prng_chance(&w->prng_net, w->cfg.net.small) && room > 64)
            room = 1 + bns_prng_below(&w->prng_net, 64);
        gather(ep, room);
        if (!sim_live(ep->n))
            return;
    }
    if (ep->state == EP_OPEN && ep->high && ep->queued < BNS_STREAM_LOW_MARK) {
        ep->high = false;
        if (ep->ev.on_writable != NULL)
            ep->ev.on_writable(ep->arg);
    }
    if (sim_live(ep->n) && ep->state == EP_CLOSING && bns_list_empty(&ep->queue)) {
        fin_send(ep);
        sim_ep_end(ep, BNS_OK);
    }
}

void sim_ep_flush_soon(struct endpoint *ep, uint64_t ns)
{
    struct bns_world *w = ep->n->w;

    if (ep->flush == NULL && (ep->state == EP_OPEN || ep->state == EP_CLOSING))
        ep->flush = sim_at(w, ep->n, w->now + ns, "flush", flush, ep);
}

/* ---- the receiving end ----------------------------------------------------------------------- */

/* Gives one received segment to the owner. */
static void read_one(struct endpoint *ep, struct pipe *p)
{
    struct link *k = ep->link;
    struct segment *s = BNS_CONTAINER(bns_list_pop(&p->received), struct segment, node);
    struct endpoint *peer = k->half[1 - ep->side].ep;
    struct bns_world *w = k->w;

    p->bytes -= s->len;
    if (peer != NULL && !bns_list_empty(&peer->queue) && peer->state != EP_DIALING)
        sim_ep_flush_soon(peer, 50 * BNS_US);
    if (ep->state != EP_OPEN) {
        ; /* closing: input is thrown away */
    } else if (!s->fin) {
        ep->ev.on_data(ep->arg, bns_slice(s->bytes, s->len));
    } else if (ep->ev.on_eof != NULL) {
        ep->ev.on_eof(ep->arg);
    } else {
        bns_stream_close(&ep->base);
    }
    bns_free(w->alloc, s);
}

static void read_some(struct sim_event *e)
{
    struct endpoint *ep = e->ctx;
    struct pipe *p = &ep->link->pipe[1 - ep->side];

    ep->read = NULL;
    while (sim_live(ep->n) && ep->reading && ep->ev.on_data != NULL && ep->state != EP_ENDED &&
           ep->state != EP_DIALING && !bns_list_empty(&p->received))
        read_one(ep, p);
}

void sim_ep_read_soon(struct endpoint *ep)
{
    struct bns_world *w = ep->n->w;

    if (ep->read == NULL && ep->reading && ep->ev.on_data != NULL && ep->state != EP_ENDED &&
        ep->state != EP_DIALING && !bns_list_empty(&ep->link->pipe[1 - ep->side].received))
        ep->read = sim_at(w, ep->n, w->now + bns_prng_below(&w->prng_sched, 10 * BNS_US), "read",
                          read_some, ep);
}

/* ---- ends ------------------------------------------------------------------------------------ */

/* The endpoint of this side is no more; what it had not read makes room for the peer to go on. */
static void half_gone(struct link *k, unsigned side)
{
    struct pipe *p = &k->pipe[1 - side];
    struct endpoint *peer = k->half[1 - side].ep;
    struct bns_list *l;

    while ((l = bns_list_pop(&p->received)) != NULL) {
        struct segment *s = BNS_CONTAINER(l, struct segment, node);
        p->bytes -= s->len;
        bns_free(k->w->alloc, s);
    }
    k->half[side].ep = NULL;
    if (peer != NULL && sim_live(peer->n))
        sim_ep_flush_soon(peer, 50 * BNS_US);
    link_check(k);
}

static void run_end(struct sim_event *e)
{
    struct endpoint *ep = e->ctx;
    struct sim_node *n = ep->n;
    struct link *k = ep->link;
    struct bns_list *l;

    ep->queued = 0;
    while (sim_live(n) && (l = bns_list_pop(&ep->queue)) != NULL) {
        struct record r = *BNS_CONTAINER(l, struct record, node);
        bns_free(n->env.alloc, BNS_CONTAINER(l, struct record, node));
        if (r.release != NULL)
            r.release(r.arg, BNS_E_DROPPED);
    }
    if (sim_live(n) && ep->ev.on_close != NULL)
        ep->ev.on_close(ep->arg, ep->code);
    if (!sim_live(n))
        return; /* buried with the node */
    bns_list_del(&ep->node);
    half_gone(k, ep->side);
    bns_free(n->env.alloc, ep);
}

void sim_ep_end(struct endpoint *ep, int code)
{
    struct bns_world *w = ep->n->w;

    if (ep->state == EP_ENDED)
        return;
    ep->state = EP_ENDED;
    ep->code = code;
    sim_cancel(w, ep->flush);
    sim_cancel(w, ep->read);
    ep->flush = NULL;
    ep->read = NULL;
    if (code == BNS_OK && ep->sent_fin)
        ep->link->half[ep->side].linger_until = w->now + LINGER_NS;
    (void)sim_at(w, ep->n, w->now + BNS_US, "end", run_end, ep);
}

/* ---- operations of a stream ------------------------------------------------------------------ */

static void op_set_events(struct bns_stream *s, const struct bns_stream_events *ev, void *arg)
{
    struct endpoint *ep = ep_of(s);

    BNS_ASSERT(ev->on_data != NULL);
    BNS_ASSERT(ev->on_close != NULL);
    ep->ev = *ev;
    ep->arg = arg;
    if (sim_live(ep->n))
        sim_ep_read_soon(ep);
}

static int op_write(struct bns_stream *s, const struct bns_slice *v, size_t n,
                    bns_release_fn *release, void *arg)
{
    struct endpoint *ep = ep_of(s);
    struct record *r;

    if (!sim_live(ep->n) || (ep->state != EP_OPEN && ep->state != EP_DIALING))
        return BNS_E_OFF;
    r = bns_alloc(ep->n->env.alloc, sizeof *r + n * sizeof r->v[0]);
    if (r == NULL)
        return BNS_E_NOMEM;
    *r = (struct record){.release = release, .arg = arg, .count = n};
    for (size_t i = 0; i < n; i++) {
        r->v[i] = v[i];
        ep->queued += v[i].len;
    }
    bns_list_push(&ep->queue, &r->node);
    if (ep->queued >= BNS_STREAM_LOW_MARK)
        ep->high = true;
    sim_ep_flush_soon(ep, BNS_US);
    return BNS_OK;
}

static size_t op_queued(const struct bns_stream *s)
{
    return ((const struct endpoint *)(const void *)s)->queued;
}

static void op_read(struct bns_stream *s, bool on)
{
    struct endpoint *ep = ep_of(s);

    ep->reading = on;
    if (sim_live(ep->n))
        sim_ep_read_soon(ep);
}

static void op_close(struct bns_stream *s)
{
    struct endpoint *ep = ep_of(s);

    if (!sim_live(ep->n))
        return;
    if (ep->state == EP_DIALING) {
        rst_send(ep->link, 1 - ep->side);
        sim_ep_end(ep, BNS_OK);
    } else if (ep->state == EP_OPEN) {
        ep->state = EP_CLOSING;
        sim_ep_flush_soon(ep, BNS_US);
    }
}

static void op_reset(struct bns_stream *s)
{
    struct endpoint *ep = ep_of(s);

    if (!sim_live(ep->n) || ep->state == EP_ENDED)
        return;
    pipe_clear(ep->link, ep->side);
    rst_send(ep->link, 1 - ep->side);
    sim_ep_end(ep, BNS_OK);
}

static void op_peer(const struct bns_stream *s, struct bns_net_addr *out)
{
    const struct endpoint *ep = (const struct endpoint *)(const void *)s;
    const struct half *h = &ep->link->half[1 - ep->side];

    memset(out, 0, sizeof *out);
    out->port = h->port;
    if (h->host != HOST_NONE)
        (void)snprintf(out->host, sizeof out->host, "%s", ep->n->w->nodes[h->host].host); /* fits */
}

const struct bns_stream_ops sim_stream_ops = {
    .set_events = op_set_events,
    .write = op_write,
    .queued = op_queued,
    .read = op_read,
    .close = op_close,
    .reset = op_reset,
    .peer = op_peer,
};

struct endpoint *sim_ep_new(struct sim_node *n, struct link *k, unsigned side, enum ep_state state)
{
    struct endpoint *ep = bns_alloc_zero(n->env.alloc, sizeof *ep);

    if (ep == NULL)
        return NULL;
    ep->base.ops = &sim_stream_ops;
    ep->n = n;
    ep->link = k;
    ep->side = side;
    ep->state = state;
    ep->reading = true;
    bns_list_init(&ep->queue);
    bns_list_push(&n->streams, &ep->node);
    k->half[side].ep = ep;
    return ep;
}

/* ---- death and faults ------------------------------------------------------------------------ */

void sim_net_node_died(struct sim_node *n, bool power)
{
    struct bns_world *w = n->w;

    BNS_LIST_EACH(l, &n->streams)
    {
        struct endpoint *ep = BNS_CONTAINER(l, struct endpoint, node);
        struct link *k = ep->link;

        if (bns_prng_chance(&w->prng_net, 0.5)) /* what was on its way may get lost */
            pipe_clear(k, ep->side);
        if (!power)
            rst_send(k, 1 - ep->side);
        half_gone(k, ep->side);
    }
    bns_list_init(&n->streams);
    bns_list_init(&n->listeners);
}

void sim_net_free(struct bns_world *w)
{
    BNS_ASSERT(bns_list_empty(&w->links)); /* all nodes are dead */
}

void bns_world_block(struct bns_world *w, unsigned from, unsigned to, bool blocked)
{
    BNS_ASSERT(from < w->cfg.nodes);
    BNS_ASSERT(to < w->cfg.nodes);
    w->blocked[from][to] = blocked && from != to;
}

void bns_world_clog(struct bns_world *w, unsigned from, unsigned to, uint64_t ns)
{
    BNS_ASSERT(from < w->cfg.nodes);
    BNS_ASSERT(to < w->cfg.nodes);
    w->clogged[from][to] = w->now + ns;
}

size_t bns_world_links(const struct bns_world *w)
{
    return w->links_count;
}

void bns_world_reset_one(struct bns_world *w, unsigned id, bool half_open)
{
    struct sim_node *n = &w->nodes[id];
    uint64_t count = 0;
    uint64_t pick;

    BNS_LIST_EACH(l, &n->streams)
    count++;
    if (count == 0)
        return;
    pick = bns_prng_below(&w->prng_nemesis, count);
    BNS_LIST_EACH(l, &n->streams)
    {
        struct endpoint *ep = BNS_CONTAINER(l, struct endpoint, node);
        if (pick-- > 0)
            continue;
        if (!half_open)
            rst_send(ep->link, 1 - ep->side);
        sim_ep_end(ep, BNS_E_DROPPED);
        return;
    }
}
