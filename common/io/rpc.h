/* rpc.h - internal RPC between the nodes of one cluster: one-way messages and requests.
 *
 * Clients always use the real systems' protocols; this carries Raft messages and snapshot chunks.
 * Frames: codec/frame.h. The first frame each way is HELLO; a wrong cluster, or another node than
 * the one dialled, closes the connection with BNS_E_PROTO and one warning a minute. A connection
 * without any frame for 3 pings (ping each second when idle) is closed.
 *
 * Thread:  the env's loop.
 * Memory:  payload slices given to send and call are borrowed until release runs; payloads given to
 *          callbacks are borrowed for the call.
 * Bounds:  frame at most 64 MiB, bytes queued per peer (BNS_E_BUSY), requests open per connection.
 */
#ifndef BNS_IO_RPC_H
#define BNS_IO_RPC_H

#include "base/env.h"
#include "io/tls.h"

struct bns_rpc_identity {
    uint8_t cluster_id[16];
    uint64_t node_id;
    uint64_t incarnation; /* larger at each start */
    uint64_t features;
};

/* ---- server: accepts other nodes ------------------------------------------------------------- */
struct bns_rpc_server;
struct bns_rpc_request; /* waits for its answer; lives until bns_rpc_reply() */

struct bns_rpc_handler {
    void (*on_oneway)(void *arg, uint64_t from, uint16_t method, struct bns_slice payload);
    /* Answer now or later with bns_rpc_reply(), exactly once, also when the peer has gone. */
    void (*on_request)(void *arg, struct bns_rpc_request *r, uint64_t from, uint16_t method,
                       struct bns_slice payload);
};

BNS_MUST_CHECK int bns_rpc_server_new(struct bns_env *env, const struct bns_rpc_identity *id,
                                      const struct bns_rpc_handler *h, void *arg,
                                      struct bns_rpc_server **out);
BNS_MUST_CHECK int bns_rpc_server_listen(struct bns_rpc_server *s, const char *host, uint16_t port,
                                         uint16_t *out_port, struct bns_err *err);
/* With TLS; `tls` is borrowed for the server's life, NULL: without. */
BNS_MUST_CHECK int bns_rpc_server_listen_tls(struct bns_rpc_server *s, struct bns_tls *tls,
                                             const char *host, uint16_t port, uint16_t *out_port,
                                             struct bns_err *err);
/* Takes over an accepted stream with the bytes already read (one port, several protocols). */
void bns_rpc_server_adopt(struct bns_rpc_server *s, struct bns_stream *stream,
                          struct bns_slice read_so_far);
/* A connection that begins with an HTTP request (GET) is given away, with the bytes read, before
 * any HELLO: an HTTP server adopts it. Without it such a connection is closed as a stranger's. */
typedef void bns_rpc_http_fn(void *arg, struct bns_stream *stream, struct bns_slice read_so_far);
void bns_rpc_server_http(struct bns_rpc_server *s, bns_rpc_http_fn *fn, void *arg);
/* Closes all connections; no callback runs afterwards; requests not yet answered may still be
 * replied to (dropped); open streams are told BNS_E_OFF first. NULL is fine. */
void bns_rpc_server_free(struct bns_rpc_server *s);
/* payload is copied. code: BNS_OK or an error code, which the caller's done gets. */
void bns_rpc_reply(struct bns_rpc_request *r, int code, struct bns_slice payload);

/* ---- streams: many messages each way, with back-pressure ------------------------------------- */
/* A stream is opened by the dialler; its method has BNS_RPC_STREAM_BIT set. Each side may have sent
 * BNS_RPC_WINDOW bytes that the other has not acknowledged, so a slow receiver slows the sender and
 * nothing piles up. Use a peer of its own for bulk, so that it does not delay small messages. */
#define BNS_RPC_STREAM_BIT 0x8000u
#define BNS_RPC_WINDOW (1024u * 1024)

struct bns_rpc_peer;
struct bns_rpc_stream;

/* Any of these may close the stream, free the peer or the server. */
struct bns_rpc_stream_events {
    /* Borrowed for the call. bns_rpc_stream_ack() when the bytes have been dealt with. */
    void (*on_data)(void *arg, struct bns_slice data);
    void (*on_end)(void *arg);      /* the other side sends no more; may be NULL */
    void (*on_writable)(void *arg); /* room again after BNS_E_BUSY; may be NULL */
    /* Once, last, unless we closed it: the code of the server's close, BNS_E_CANCELED by the
     * dialler or with the peer, BNS_E_OFF with the connection. */
    void (*on_close)(void *arg, int code);
};

/* Calls bns_rpc_stream_accept() or bns_rpc_stream_close() before it returns. */
typedef void bns_rpc_stream_fn(void *arg, struct bns_rpc_stream *s, uint64_t from, uint16_t method,
                               struct bns_slice payload);
/* arg as given to bns_rpc_server_new(). Without it streams are refused as BNS_E_UNSUPPORTED. */
void bns_rpc_server_streams(struct bns_rpc_server *s, bns_rpc_stream_fn *fn);
void bns_rpc_stream_accept(struct bns_rpc_stream *s, const struct bns_rpc_stream_events *ev,
                           void *arg);

struct bns_rpc_stream_options {
    uint16_t method; /* with BNS_RPC_STREAM_BIT */
    struct bns_slice payload;
    const struct bns_rpc_stream_events *ev; /* copied */
    void *arg;
};
/* The payload is copied. BNS_E_OFF: not connected; BNS_E_BUSY: too many streams; BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_rpc_stream_open(struct bns_rpc_peer *p,
                                       const struct bns_rpc_stream_options *o,
                                       struct bns_rpc_stream **out);
/* One message of at most BNS_RPC_WINDOW bytes, borrowed until release. BNS_E_BUSY: no room now,
 * on_writable follows; BNS_E_TOOBIG; BNS_E_OFF: after our end; BNS_E_NOMEM. On error release does
 * not run, and the stream goes on. */
BNS_MUST_CHECK int bns_rpc_stream_write(struct bns_rpc_stream *s, const struct bns_slice *v,
                                        size_t n, bns_release_fn *release, void *arg);
void bns_rpc_stream_ack(struct bns_rpc_stream *s, size_t bytes);
void bns_rpc_stream_end(struct bns_rpc_stream *s); /* we send no more */
/* The server answers `code`, the dialler cancels (code is ignored). s is gone, on_close does not
 * run. */
void bns_rpc_stream_close(struct bns_rpc_stream *s, int code);

/* ---- peer: a connection that we dial, and dial again (backoff 50 ms .. 1 s with jitter) ------ */
struct bns_rpc_peer;

#define BNS_RPC_ADDRS_MAX 4

struct bns_rpc_peer_config {
    uint64_t node_id; /* who must answer; 0 = anyone of the cluster */
    const char *host; /* copied; a name is looked up at every dial */
    uint16_t port;
    /* Further addresses of the same node, copied: a dial that fails is followed by one of the next.
     * At most BNS_RPC_ADDRS_MAX - 1. */
    const struct bns_endpoint *more;
    size_t more_count;
    struct bns_tls *tls;        /* borrowed for the peer's life; NULL: plain */
    struct bns_hist *rtt;       /* observes each ping's round trip; may be NULL */
    uint32_t queue_bytes_max;   /* 0 = 16 MiB */
    void (*on_up)(void *arg);   /* HELLO done; may be NULL */
    void (*on_down)(void *arg); /* was up and is not any more; may be NULL */
    void *arg;
};

BNS_MUST_CHECK int bns_rpc_peer_new(struct bns_env *env, const struct bns_rpc_identity *id,
                                    const struct bns_rpc_peer_config *cfg,
                                    struct bns_rpc_peer **out, struct bns_err *err);
/* Open calls end with BNS_E_CANCELED before this returns; no other callback runs. NULL is fine. May
 * be called inside a callback of this very peer. */
void bns_rpc_peer_free(struct bns_rpc_peer *p);
bool bns_rpc_peer_up(const struct bns_rpc_peer *p);
size_t bns_rpc_peer_calls(const struct bns_rpc_peer *p); /* open ones */

/* Sends one message if the peer is up. BNS_E_OFF: not connected; BNS_E_BUSY: queue full;
 * BNS_E_NOMEM. On error release does not run. Nothing tells whether it arrived. */
BNS_MUST_CHECK int bns_rpc_send(struct bns_rpc_peer *p, uint16_t method, const struct bns_slice *v,
                                size_t n, bns_release_fn *release, void *arg);

/* done runs exactly once, on the loop: the reply's code and payload, or BNS_E_TIMEOUT, BNS_E_OFF
 * (connection lost), BNS_E_CANCELED. */
typedef void bns_rpc_done(void *arg, int code, struct bns_slice payload);
struct bns_rpc_call_options {
    uint16_t method;
    uint64_t deadline_ns; /* absolute */
    bns_rpc_done *done;
    void *arg;
};
/* The payload is copied. Waits for the connection while the deadline allows. BNS_E_BUSY, NOMEM. */
BNS_MUST_CHECK int bns_rpc_call(struct bns_rpc_peer *p, const struct bns_rpc_call_options *o,
                                const struct bns_slice *v, size_t n);

#endif
