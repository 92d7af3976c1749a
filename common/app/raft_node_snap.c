/* raft_node_snap.c - snapshots between members: a stream of requests on a connection of its own, so
 * that a snapshot never delays a heartbeat.
 *
 * request payload, little-endian:
 *   u8 kind | u64 stream | ...
 *   1 BEGIN   u64 sender's Raft term, u64 index, u64 term of that index, u64 bytes, conf
 *   2 CHUNK   u64 offset, u32 crc32c of the data, data (<= 256 KiB)
 *   3 END     u32 crc32c of all data
 * reply payload: u64 offset that the receiver wants next.
 *
 * The sender has one request open at a time. When a request fails it dials again, repeats BEGIN
 * with the same stream number, and goes on at the offset that the receiver names. The receiver
 * hands each chunk to its state machine, which keeps them beside the live data; END makes the core
 * decide whether the snapshot is newer than what it has, and only then the state machine switches
 * over, atomically.
 */
#include "app/raft_node_snap.h"

#include "base/crc32c.h"
#include "base/varint.h"

#define CALL_NS (10 * BNS_SEC)
#define TRIES_MAX 8u
#define RETRY_NS (250 * BNS_MS)

enum kind { BEGIN = 1, CHUNK = 2, END = 3 };

struct bns_rn_snap_out {
    struct bns_raft_node *n;
    struct bns_rn_peer *peer;
    struct bns_rpc_peer *link;
    struct bns_sm_snap *snap;
    struct bns_raft_snapmeta meta;
    struct bns_timer retry;
    uint64_t stream, bytes, off, index_min;
    uint32_t crc;      /* of everything before off */
    uint32_t crc_next; /* ... before off + chunk_len */
    size_t chunk_len;
    enum kind asked;
    unsigned tries;
    bool busy; /* with the state machine */
    bool dead;
};

struct bns_rn_snap_in {
    struct bns_rpc_request *req; /* waits for the state machine */
    struct bns_raft_snapmeta meta;
    uint64_t from, stream, term, bytes, off;
    uint32_t crc;
    size_t chunk_len;
    uint32_t crc_next;
    bool whole;
    uint8_t data[BNS_RN_SNAP_CHUNK]; /* the chunk, until the state machine has it */
};

/* ---- sending -------------------------------------------------------------------------------- */

static void call(struct bns_rn_snap_out *o, enum kind kind, struct bns_slice data);
static void next_chunk(struct bns_rn_snap_out *o);

static void out_end(struct bns_rn_snap_out *o, bool ok)
{
    struct bns_raft_node *n = o->n;
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_SNAPSHOT_SENT,
                             .peer = o->peer->addr.id,
                             .ok = ok,
                             .index = o->meta.index};

    o->dead = true;
    o->peer->snap = NULL;
    bns_timer_stop(n->env, &o->retry);
    bns_rpc_peer_free(o->link);
    o->link = NULL;
    if (o->snap != NULL)
        n->ops->snap_close(n->sm, o->snap);
    BNS_LOG(n->env->log, ok ? BNS_LOG_INFO : BNS_LOG_WARN, "raft",
            ok ? "snapshot sent" : "snapshot not sent: will be tried again",
            BNS_HEX("peer", in.peer), BNS_U64("index", in.index), BNS_U64("bytes", o->bytes));
    if (ok)
        bns_counter_add(n->m_snap_sent, 1);
    bns_free(bns_rn_alloc(n), o);
    bns_rn_step(n, &in);
}

static void on_retry(void *arg)
{
    call(arg, BEGIN, bns_slice(NULL, 0));
}

static void failed(struct bns_rn_snap_out *o)
{
    if (++o->tries > TRIES_MAX)
        out_end(o, false);
    else
        bns_timer_start(o->n->env, &o->retry, bns_now_ns(o->n->env) + RETRY_NS);
}

/* The receiver wants `want` next. False: that cannot be served. */
static bool move_to(struct bns_rn_snap_out *o, uint64_t want)
{
    if (want == o->off + o->chunk_len) {
        o->off = want;
        o->crc = o->crc_next;
    } else if (want == 0) {
        o->off = 0;
        o->crc = 0;
    } else if (want != o->off) {
        return false;
    }
    o->chunk_len = 0;
    return true;
}

static void on_reply(void *arg, int code, struct bns_slice payload)
{
    struct bns_rn_snap_out *o = arg;

    if (o->dead)
        return;
    if (code == BNS_E_CANCELED)
        return; /* we are closing */
    if (code != BNS_OK || payload.len != 8) {
        failed(o);
        return;
    }
    if (o->asked == END) {
        out_end(o, true);
        return;
    }
    if (!move_to(o, bns_get_u64le(payload.ptr))) {
        out_end(o, false);
        return;
    }
    if (o->asked == CHUNK)
        o->tries = 0;
    next_chunk(o);
}

static void call(struct bns_rn_snap_out *o, enum kind kind, struct bns_slice data)
{
    struct bns_rpc_call_options opt = {
        .method = BNS_RN_METHOD_SNAP,
        .deadline_ns = bns_now_ns(o->n->env) + CALL_NS,
        .done = on_reply,
        .arg = o,
    };
    struct bns_slice v[2];
    struct bns_buf head;

    bns_buf_init(&head, bns_rn_alloc(o->n), 4096);
    if (bns_buf_reserve(&head, 64) != BNS_OK) {
        failed(o);
        return;
    }
    head.ptr[0] = (uint8_t)kind;
    bns_put_u64le(head.ptr + 1, o->stream);
    head.len = 9;
    if (kind == BEGIN) {
        bns_put_u64le(head.ptr + 9, o->n->st.term);
        bns_put_u64le(head.ptr + 17, o->meta.index);
        bns_put_u64le(head.ptr + 25, o->meta.term);
        bns_put_u64le(head.ptr + 33, o->bytes);
        head.len = 41;
    } else if (kind == CHUNK) {
        bns_put_u64le(head.ptr + 9, o->off);
        bns_put_u32le(head.ptr + 17, bns_crc32c(0, data.ptr, data.len));
        head.len = 21;
    } else {
        bns_put_u32le(head.ptr + 9, o->crc);
        head.len = 13;
    }
    o->asked = kind;
    if (kind == BEGIN && bns_raft_conf_encode(&o->meta.conf, &head) != BNS_OK) {
        bns_buf_free(&head);
        failed(o);
        return;
    }
    v[0] = bns_buf_slice(&head);
    v[1] = data;
    if (bns_rpc_call(o->link, &opt, v, data.len > 0 ? 2 : 1) != BNS_OK)
        failed(o);
    bns_buf_free(&head);
}

static void chunk_read(void *arg, int code, struct bns_slice chunk)
{
    struct bns_rn_snap_out *o = arg;
    struct bns_raft_node *n = o->n;

    o->busy = false;
    n->sm_calls--;
    if (o->dead || n->closing) {
        n->ops->snap_close(n->sm, o->snap);
        o->snap = NULL;
        if (o->dead)
            bns_free(bns_rn_alloc(n), o);
        bns_rn_try_close(n);
        return;
    }
    if (code != BNS_OK || chunk.len == 0) {
        out_end(o, false);
        return;
    }
    o->chunk_len = chunk.len;
    o->crc_next = bns_crc32c(o->crc, chunk.ptr, chunk.len);
    call(o, CHUNK, chunk);
}

static void next_chunk(struct bns_rn_snap_out *o)
{
    uint64_t left = o->bytes - o->off;

    if (left == 0) {
        call(o, END, bns_slice(NULL, 0));
        return;
    }
    o->busy = true;
    o->n->sm_calls++;
    o->n->ops->snap_read(o->n->sm, o->snap, o->off,
                         left < BNS_RN_SNAP_CHUNK ? (size_t)left : BNS_RN_SNAP_CHUNK, chunk_read,
                         o);
}

static int dial(struct bns_rn_snap_out *o)
{
    struct bns_rpc_identity id;
    const struct bns_raft_peer_addr *at = &o->peer->addr;
    struct bns_rpc_peer_config pc = {.node_id = at->id,
                                     .host = at->host,
                                     .port = at->port,
                                     .more = at->more,
                                     .more_count = at->more_count,
                                     .tls = at->tls ? o->n->cfg.tls : NULL};

    bns_rn_identity(o->n, &id);
    return bns_rpc_peer_new(o->n->env, &id, &pc, &o->link, NULL);
}

static void opened(void *arg, int code, struct bns_sm_snap *snap,
                   const struct bns_raft_snapmeta *meta, uint64_t bytes)
{
    struct bns_rn_snap_out *o = arg;
    struct bns_raft_node *n = o->n;

    o->busy = false;
    n->sm_calls--;
    if (o->dead || n->closing) {
        if (code == BNS_OK)
            n->ops->snap_close(n->sm, snap);
        if (o->dead)
            bns_free(bns_rn_alloc(n), o);
        bns_rn_try_close(n);
        return;
    }
    if (code != BNS_OK) {
        out_end(o, false);
        return;
    }
    o->snap = snap;
    o->meta = *meta;
    if (o->meta.conf.voters_count == 0) /* no CONF entry so far: the first one stands */
        o->meta.conf = n->conf_first;
    o->bytes = bytes;
    if (o->meta.conf.voters_count == 0 || meta->index < o->index_min || dial(o) != BNS_OK) {
        out_end(o, false);
        return;
    }
    BNS_LOG(n->env->log, BNS_LOG_INFO, "raft", "sending a snapshot",
            BNS_HEX("peer", o->peer->addr.id), BNS_U64("index", meta->index),
            BNS_U64("bytes", bytes));
    call(o, BEGIN, bns_slice(NULL, 0));
}

static void open_later(void *arg)
{
    struct bns_rn_snap_out *o = arg;

    bns_timer_init(&o->retry, on_retry, o);
    o->busy = true;
    o->n->sm_calls++;
    o->n->ops->snap_open(o->n->sm, opened, o);
}

int bns_rn_snap_send(struct bns_raft_node *n, uint64_t peer, uint64_t index)
{
    struct bns_rn_peer *p = bns_rn_peer_find(n, peer);
    struct bns_rn_snap_out *o;

    if (p == NULL || p->snap != NULL)
        return BNS_OK; /* the end of the one under way is told to the core, too */
    o = bns_alloc_zero(bns_rn_alloc(n), sizeof *o);
    if (o == NULL)
        return BNS_E_NOMEM;
    o->n = n;
    o->peer = p;
    o->index_min = index;
    o->stream = bns_prng_next(&n->env->prng);
    p->snap = o;
    /* not inside the core's step: the state machine may answer at once */
    bns_timer_init(&o->retry, open_later, o);
    bns_timer_start(n->env, &o->retry, bns_now_ns(n->env));
    return BNS_OK;
}

/* ---- receiving ------------------------------------------------------------------------------ */

static void in_drop(struct bns_raft_node *n)
{
    if (n->snap_in == NULL)
        return;
    n->ops->install_abort(n->sm);
    bns_free(bns_rn_alloc(n), n->snap_in);
    n->snap_in = NULL;
}

static void answer(struct bns_rpc_request *r, int code, uint64_t off)
{
    uint8_t payload[8];

    bns_put_u64le(payload, off);
    bns_rpc_reply(r, code, bns_slice(payload, sizeof payload));
}

static void in_done(void *arg, int code)
{
    struct bns_raft_node *n = arg;
    struct bns_rn_snap_in *s = n->snap_in;
    struct bns_rpc_request *r = s->req;

    n->sm_calls--;
    s->req = NULL;
    if (code == BNS_OK) {
        s->off += s->chunk_len;
        s->crc = s->crc_next;
    }
    answer(r, code, s->off);
    if (code != BNS_OK || n->closing)
        in_drop(n);
    bns_rn_try_close(n);
}

static void in_begin(struct bns_raft_node *n, struct bns_rpc_request *r, uint64_t from,
                     struct bns_slice p)
{
    struct bns_rn_snap_in *s = n->snap_in;
    struct bns_raft_snapmeta meta = {0};
    uint64_t stream;

    if (p.len < 41 || bns_raft_conf_decode(bns_slice_skip(p, 41), &meta.conf) != BNS_OK) {
        answer(r, BNS_E_PROTO, 0);
        return;
    }
    stream = bns_get_u64le(p.ptr + 1);
    if (s != NULL && s->from == from && s->stream == stream && !s->whole) {
        answer(r, BNS_OK, s->off);
        return;
    }
    in_drop(n);
    s = bns_alloc_zero(bns_rn_alloc(n), sizeof *s);
    if (s == NULL) {
        answer(r, BNS_E_NOMEM, 0);
        return;
    }
    s->from = from;
    s->stream = stream;
    s->term = bns_get_u64le(p.ptr + 9);
    meta.index = bns_get_u64le(p.ptr + 17);
    meta.term = bns_get_u64le(p.ptr + 25);
    s->bytes = bns_get_u64le(p.ptr + 33);
    s->meta = meta;
    s->req = r;
    n->snap_in = s;
    n->sm_calls++;
    BNS_LOG(n->env->log, BNS_LOG_INFO, "raft", "receiving a snapshot", BNS_HEX("from", from),
            BNS_U64("index", meta.index), BNS_U64("bytes", s->bytes));
    n->ops->install_begin(n->sm, &s->meta, s->bytes, in_done, n);
}

static void in_chunk(struct bns_raft_node *n, struct bns_rpc_request *r, struct bns_slice p)
{
    struct bns_rn_snap_in *s = n->snap_in;
    struct bns_slice data = bns_slice_skip(p, 21);

    if (p.len <= 21 || data.len > BNS_RN_SNAP_CHUNK || data.len > s->bytes - s->off ||
        bns_get_u64le(p.ptr + 9) != s->off ||
        bns_get_u32le(p.ptr + 17) != bns_crc32c(0, data.ptr, data.len)) {
        answer(r, BNS_E_PROTO, s->off);
        return;
    }
    s->req = r;
    s->chunk_len = data.len;
    s->crc_next = bns_crc32c(s->crc, data.ptr, data.len);
    memcpy(s->data, data.ptr, data.len); /* the request's payload is ours for this call only */
    n->sm_calls++;
    n->ops->install_chunk(n->sm, s->off, bns_slice(s->data, data.len), in_done, n);
}

static void in_end(struct bns_raft_node *n, struct bns_rpc_request *r, struct bns_slice p)
{
    struct bns_rn_snap_in *s = n->snap_in;
    struct bns_raft_in in = {
        .kind = BNS_RAFT_IN_SNAPSHOT_RECEIVED, .snap = &s->meta, .peer = s->from, .term = s->term};

    if (p.len != 13 || s->off != s->bytes || bns_get_u32le(p.ptr + 9) != s->crc) {
        answer(r, BNS_E_CORRUPT, 0);
        in_drop(n);
        return;
    }
    s->whole = true;
    answer(r, BNS_OK, s->off);
    bns_rn_step(n, &in);
    if (!n->install_wanted && !n->installing)
        in_drop(n); /* stale: what is here is newer */
}

void bns_rn_snap_request(struct bns_raft_node *n, struct bns_rpc_request *r, uint64_t from,
                         struct bns_slice payload)
{
    struct bns_rn_snap_in *s = n->snap_in;

    if (payload.len < 9) {
        answer(r, BNS_E_PROTO, 0);
    } else if (n->installing || n->install_wanted || (s != NULL && s->req != NULL)) {
        answer(r, BNS_E_BUSY, 0);
    } else if (payload.ptr[0] == BEGIN) {
        in_begin(n, r, from, payload);
    } else if (s == NULL || s->from != from || s->stream != bns_get_u64le(payload.ptr + 1)) {
        answer(r, BNS_E_NOTFOUND, 0);
    } else if (payload.ptr[0] == CHUNK) {
        in_chunk(n, r, payload);
    } else if (payload.ptr[0] == END) {
        in_end(n, r, payload);
    } else {
        answer(r, BNS_E_PROTO, 0);
    }
}

/* May run inside install_end, in the middle of a drain: the core hears of it in its own turn. */
static void installed(void *arg, int code)
{
    struct bns_raft_node *n = arg;

    n->install_over = true;
    n->install_code = code;
    bns_rn_kick(n);
}

/* A snapshot that the state machine refused (a full disk, a damaged file) leaves it as it was: the
 * core goes on applying and lets the leader try again. */
void bns_rn_snap_installed(struct bns_raft_node *n)
{
    bool ok = n->install_code == BNS_OK;
    struct bns_raft_in in = {.kind = ok ? BNS_RAFT_IN_INSTALLED : BNS_RAFT_IN_INSTALL_FAILED,
                             .index = n->install_meta.index};

    if (!n->install_over)
        return;
    n->install_over = false;
    n->installing = false;
    bns_free(bns_rn_alloc(n), n->snap_in);
    n->snap_in = NULL;
    if (ok) {
        n->applied = in.index;
        n->checkpoint_index = in.index;
        n->checkpoint_bytes = 0;
        bns_counter_add(n->m_snap_installed, 1);
        BNS_LOG(n->env->log, BNS_LOG_INFO, "raft", "snapshot installed",
                BNS_U64("index", in.index));
    } else {
        BNS_LOG(n->env->log, BNS_LOG_WARN, "raft", "snapshot not installed",
                BNS_U64("index", in.index), BNS_STR("code", bns_err_name(n->install_code)));
    }
    bns_rn_step(n, &in);
    bns_rn_wal_release(n, n->st.first_index);
}

/* Switches over as soon as the state machine is not busy with the old state. */
void bns_rn_snap_install(struct bns_raft_node *n)
{
    if (n->applying != NULL || n->checkpointing || n->installing || n->snap_in == NULL)
        return;
    BNS_ASSERT(n->snap_in->whole);
    n->install_wanted = false;
    n->installing = true;
    bns_rn_applies_drop(n);
    n->ops->install_end(n->sm, installed, n);
}

void bns_rn_snap_stop(struct bns_rn_peer *p)
{
    struct bns_raft_node *n = p->n;
    struct bns_rn_snap_out *o = p->snap;

    if (o == NULL)
        return;
    o->dead = true;
    p->snap = NULL;
    bns_timer_stop(n->env, &o->retry);
    bns_rpc_peer_free(o->link);
    o->link = NULL;
    if (o->busy)
        return; /* freed when the state machine answers */
    if (o->snap != NULL)
        n->ops->snap_close(n->sm, o->snap);
    bns_free(bns_rn_alloc(n), o);
}

void bns_rn_snap_close(struct bns_raft_node *n)
{
    for (size_t i = 0; i < BNS_RN_PEERS_MAX; i++)
        bns_rn_snap_stop(&n->peers[i]);
    if (n->snap_in != NULL && n->snap_in->req == NULL && !n->installing)
        in_drop(n);
}
