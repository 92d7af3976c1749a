/* grpc.h - gRPC over HTTP/2 (nghttp2) on byte streams: server and client, all four call kinds.
 *
 * Source:  gRPC "PROTOCOL-HTTP2", RFC 9113.
 * Thread:  the env's loop. An answer from another thread goes through bns_post().
 * Memory:  messages given to callbacks are borrowed for the call. Slices given to send stay
 *          borrowed until their release callback runs: when the transport has taken them, or soon
 *          after the call has ended.
 * Bounds:  per method a message limit; header list 16 KiB; per connection 65,536 open calls and a
 *          byte budget of queued responses, above which nothing more is delivered to handlers; RST
 *          and PING floods are answered with GOAWAY ENHANCE_YOUR_CALM.
 * Life:    a server call lives until on_end ran AND the handler has called bns_grpc_finish(): after
 *          on_end(RESET, CLOSED, DEADLINE) the handler still owes one finish (work may go on
 *          detached), whose result is dropped. After finish the handler must not touch the call;
 *          on_end(DONE) may still come.
 *          A handler that was told nothing yet (no on_start, no message) is not told on_end either,
 *          and owes nothing.
 */
#ifndef BNS_IO_GRPC_H
#define BNS_IO_GRPC_H

#include "base/arena.h"
#include "base/env.h"
#include "io/tls.h"

enum bns_grpc_kind {
    BNS_GRPC_UNARY,
    BNS_GRPC_CLIENT_STREAM,
    BNS_GRPC_SERVER_STREAM,
    BNS_GRPC_BIDI
};

enum bns_grpc_status {
    BNS_GRPC_OK = 0,
    BNS_GRPC_CANCELLED = 1,
    BNS_GRPC_UNKNOWN = 2,
    BNS_GRPC_INVALID_ARGUMENT = 3,
    BNS_GRPC_DEADLINE_EXCEEDED = 4,
    BNS_GRPC_NOT_FOUND = 5,
    BNS_GRPC_ALREADY_EXISTS = 6,
    BNS_GRPC_PERMISSION_DENIED = 7,
    BNS_GRPC_RESOURCE_EXHAUSTED = 8,
    BNS_GRPC_FAILED_PRECONDITION = 9,
    BNS_GRPC_ABORTED = 10,
    BNS_GRPC_OUT_OF_RANGE = 11,
    BNS_GRPC_UNIMPLEMENTED = 12,
    BNS_GRPC_INTERNAL = 13,
    BNS_GRPC_UNAVAILABLE = 14,
    BNS_GRPC_DATA_LOSS = 15,
    BNS_GRPC_UNAUTHENTICATED = 16
};

/* Metadata: names in lower case; values of names that end in "-bin" are the decoded bytes. */
struct bns_grpc_md {
    struct bns_slice name;
    struct bns_slice value;
};

struct bns_grpc_server;
struct bns_grpc_call; /* one call on the server */

enum bns_grpc_end {
    BNS_GRPC_END_RESET,    /* the client cancelled */
    BNS_GRPC_END_DEADLINE, /* its deadline passed: status 4 has been sent */
    BNS_GRPC_END_CLOSED,   /* the connection is gone */
    BNS_GRPC_END_DONE      /* finished, and all was sent, or the client left meanwhile */
};

/* Any member but on_message may be NULL. Unary and server-stream: on_message comes exactly once,
 * then on_half_close. */
struct bns_grpc_handler {
    void (*on_start)(struct bns_grpc_call *c);
    void (*on_message)(struct bns_grpc_call *c, struct bns_slice msg);
    void (*on_half_close)(struct bns_grpc_call *c);
    void (*on_writable)(struct bns_grpc_call *c);
    void (*on_end)(struct bns_grpc_call *c, enum bns_grpc_end why); /* once */
};

struct bns_grpc_method {
    const char *path; /* "/etcdserverpb.KV/Put" */
    enum bns_grpc_kind kind;
    uint32_t msg_bytes_max; /* request messages; 0 = 4 MiB; at most 128 MiB */
    uint32_t streams_max;   /* concurrent calls of this method per connection; 0 = no limit */
    struct bns_grpc_handler handler;
    void *arg; /* bns_grpc_arg() */
};

/* May a call run? Its path and metadata are there, its messages are not. HOLD: not known yet, the
 * function is called again soon. */
enum bns_grpc_admission { BNS_GRPC_ADMIT, BNS_GRPC_HOLD, BNS_GRPC_REFUSE };
struct bns_grpc_refusal { /* with BNS_GRPC_REFUSE */
    int status;
    const char *text; /* copied */
};
typedef enum bns_grpc_admission bns_grpc_admit_fn(void *arg, struct bns_grpc_call *c,
                                                  struct bns_slice path, uint64_t first_asked_ns,
                                                  struct bns_grpc_refusal *why);

struct bns_grpc_config {
    uint32_t streams_max;             /* per connection; 0 = 2^32-1 as etcd */
    uint32_t queued_bytes_max;        /* queued per connection before reading stops; 0 = 16 MiB */
    uint32_t connections_max;         /* 0 = by RLIMIT_NOFILE */
    uint32_t reset_burst, reset_rate; /* 0 = 20,000 and 5,000/s */
    uint64_t keepalive_ns, keepalive_timeout_ns; /* 0 = 2 h, 20 s */
    /* One port, two protocols: a connection that does not begin with the HTTP/2 preface is handed
     * over with the bytes read so far. NULL: closed. */
    void (*on_http1)(void *arg, struct bns_stream *s, struct bns_slice read_so_far);
    bns_grpc_admit_fn *admit; /* asked before a handler hears of a call; NULL: all may run */
    bool handling_seconds; /* a histogram for each method: from the start to the status */
    void *arg;
};

BNS_MUST_CHECK int bns_grpc_server_new(struct bns_env *env, const struct bns_grpc_config *cfg,
                                       struct bns_grpc_server **out);
/* The table is borrowed for the server's life. An unknown method answers 12 "unknown method X for
 * service Y" (or "unknown service Y"). BNS_E_EXISTS on a duplicate path. */
BNS_MUST_CHECK int bns_grpc_server_methods(struct bns_grpc_server *s,
                                           const struct bns_grpc_method *m, size_t n);
BNS_MUST_CHECK int bns_grpc_server_listen(struct bns_grpc_server *s, const char *host,
                                          uint16_t port, uint16_t *out_port, struct bns_err *err);
/* With TLS; `tls` is borrowed for the server's life, NULL: without. */
BNS_MUST_CHECK int bns_grpc_server_listen_tls(struct bns_grpc_server *s, struct bns_tls *tls,
                                              const char *host, uint16_t port, uint16_t *out_port,
                                              struct bns_err *err);
/* Takes over an accepted stream with the bytes already read. */
void bns_grpc_server_adopt(struct bns_grpc_server *s, struct bns_stream *stream,
                           struct bns_slice read_so_far);
/* GOAWAY; open calls may finish, at timeout_ns the rest end with 14 and this text; then done. */
void bns_grpc_server_drain(struct bns_grpc_server *s, const char *status_text, uint64_t timeout_ns,
                           void (*done)(void *arg), void *arg);
void bns_grpc_server_free(struct bns_grpc_server *s); /* drops all at once; NULL is fine */

void *bns_grpc_arg(const struct bns_grpc_call *c);
/* Is the connection over its budget of queued responses? False when it is gone. For who can put off
 * the work that would add to them. */
bool bns_grpc_over(const struct bns_grpc_call *c);
void bns_grpc_set_ctx(struct bns_grpc_call *c, void *ctx);
void *bns_grpc_ctx(const struct bns_grpc_call *c);
struct bns_arena *bns_grpc_arena(struct bns_grpc_call *c); /* freed with the call */
uint64_t bns_grpc_deadline(const struct bns_grpc_call *c); /* BNS_NEVER = none */
bool bns_grpc_metadata(const struct bns_grpc_call *c, const char *name, struct bns_slice *out);
void bns_grpc_peer(const struct bns_grpc_call *c, struct bns_net_addr *out);
/* The common name of the client's verified certificate; false: none, or the connection is gone. */
bool bns_grpc_peer_cn(const struct bns_grpc_call *c, char *out, size_t out_len);

/* One message of n slices (the 5-byte prefix is added). BNS_E_OFF: the call has ended (release is
 * not called); BNS_E_NOMEM. release may be NULL only if the bytes outlive the call. */
BNS_MUST_CHECK int bns_grpc_send(struct bns_grpc_call *c, const struct bns_slice *v, size_t n,
                                 bns_release_fn *release, void *arg);
/* Copies the bytes: for small answers. */
BNS_MUST_CHECK int bns_grpc_send_copy(struct bns_grpc_call *c, struct bns_slice msg);
size_t bns_grpc_queued(const struct bns_grpc_call *c); /* bytes; on_writable below 64 KiB */
void bns_grpc_read(struct bns_grpc_call *c, bool on);  /* off = take no messages: flow control */
/* Ends the call; text is copied, percent-encoded. Trailers (may be NULL) are copied. Without any
 * message sent and a status other than OK: trailers-only. */
void bns_grpc_finish(struct bns_grpc_call *c, int status, const char *text,
                     const struct bns_grpc_md *trailers, size_t trailers_count);

/* ---- client -------------------------------------------------------------------------------- */
struct bns_grpc_client; /* one connection, many calls; dials again after a failure */
struct bns_grpc_ccall;

struct bns_grpc_client_handler {
    void (*on_open)(struct bns_grpc_ccall *c); /* response headers arrived; may be NULL */
    void (*on_message)(struct bns_grpc_ccall *c, struct bns_slice msg);
    void (*on_writable)(struct bns_grpc_ccall *c); /* may be NULL */
    /* Last, never inside a call of this module but bns_grpc_client_free(); the call is freed
     * afterwards. Lost connections: 14. */
    void (*on_status)(struct bns_grpc_ccall *c, int status, const char *text);
};

/* Nothing is dialled before the first call. A call that finds no connection dials one; when that
 * fails, or the connection is lost, its calls end with 14, and the next call dials again. */
BNS_MUST_CHECK int bns_grpc_client_new(struct bns_env *env, const char *host, uint16_t port,
                                       struct bns_grpc_client **out, struct bns_err *err);
/* Before the first call: dial with TLS. The server's certificate must have `server_name`, NULL: the
 * host. `tls` is borrowed for the client's life. BNS_E_INVALID: the name is too long. */
BNS_MUST_CHECK int bns_grpc_client_tls(struct bns_grpc_client *c, struct bns_tls *tls,
                                       const char *server_name);
/* Open calls end with 1, inside this call. Not from on_open, on_message, on_writable. NULL is
 * fine. */
void bns_grpc_client_free(struct bns_grpc_client *c);

/* Is there a connection that takes new calls, its handshake done? And when did its server last send
 * anything; 0: never, or there is none. */
bool bns_grpc_client_connected(const struct bns_grpc_client *c);
uint64_t bns_grpc_client_heard_ns(const struct bns_grpc_client *c);
/* Since when is it dialling? 0: it is not. */
uint64_t bns_grpc_client_dialling_ns(const struct bns_grpc_client *c);

struct bns_grpc_call_options {
    const char *path;
    const struct bns_grpc_md *md;
    size_t md_count;
    uint64_t deadline_ns; /* absolute, 0 or BNS_NEVER = none */
};
/* h is borrowed until on_status. */
BNS_MUST_CHECK int bns_grpc_call_start(struct bns_grpc_client *c,
                                       const struct bns_grpc_call_options *o,
                                       const struct bns_grpc_client_handler *h, void *arg,
                                       struct bns_grpc_ccall **out);
void *bns_grpc_ccall_arg(const struct bns_grpc_ccall *c);
bool bns_grpc_ccall_trailer(const struct bns_grpc_ccall *c, const char *name,
                            struct bns_slice *out);
/* In on_status: the server has surely not begun the call (no connection, or it was refused). */
bool bns_grpc_ccall_unsent(const struct bns_grpc_ccall *c);
BNS_MUST_CHECK int bns_grpc_ccall_send(struct bns_grpc_ccall *c, const struct bns_slice *v,
                                       size_t n, bns_release_fn *release, void *arg);
BNS_MUST_CHECK int bns_grpc_ccall_send_copy(struct bns_grpc_ccall *c, struct bns_slice msg);
size_t bns_grpc_ccall_queued(const struct bns_grpc_ccall *c); /* on_writable below 64 KiB */
void bns_grpc_ccall_half_close(struct bns_grpc_ccall *c);
void bns_grpc_ccall_read(struct bns_grpc_ccall *c, bool on);
void bns_grpc_ccall_cancel(struct bns_grpc_ccall *c); /* on_status(1) follows in a later turn */
/* Unary in one call: sends a copy of request, half-closes. */
BNS_MUST_CHECK int bns_grpc_unary(struct bns_grpc_client *c, const struct bns_grpc_call_options *o,
                                  struct bns_slice request, const struct bns_grpc_client_handler *h,
                                  void *arg);

#endif
