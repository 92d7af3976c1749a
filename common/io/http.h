/* http.h - HTTP/1.1 server and client on byte streams: any env, also the simulator's.
 *
 * Thread:   the env's loop.
 * Requests: a handler gets a request and answers now or later. The request is valid until the
 *           handler ends it, by bns_http_reply*(), bns_http_end() or bns_http_abort(), and it must
 *           end it; when the connection is lost meanwhile, calls do nothing and writes answer
 *           BNS_E_OFF. A further request on the same connection is handled only after that.
 * Bounds:   request line 8 KiB, head 64 KiB and 100 lines, body per route, connections; a head must
 *           be complete within 10 s, a body must move every 30 s, a reader of the answer too; an
 *           idle connection is closed after 60 s.
 */
#ifndef BNS_IO_HTTP_H
#define BNS_IO_HTTP_H

#include "base/env.h"
#include "codec/http1.h"
#include "io/tls.h"

struct bns_http_server;
struct bns_http_req;

/* ---- server ---------------------------------------------------------------------------------- */
struct bns_http_config {
    uint32_t connections_max;            /* 0 = 4,096; more are reset */
    uint64_t head_ns, idle_ns, stall_ns; /* 0 = 10 s, 60 s, 30 s */
    const char *server_name;             /* the Server header; NULL = none */
    /* Sees each request before its handler: may set headers of the answer, or answer, then true.
     * NULL: none. */
    bool (*before)(void *arg, struct bns_http_req *q);
    void *before_arg;
};

typedef void bns_http_fn(void *arg, struct bns_http_req *q);

/* Collected (default): fn is called when the whole body is there. `stream`: at the head, and the
 * body comes through bns_http_on_body(). A GET route answers HEAD too. */
struct bns_http_route {
    const char *method; /* "*" = any */
    const char *path;   /* "/metrics", or a prefix: "/webhdfs/v1" with `prefix` */
    bns_http_fn *fn;
    void *arg;
    uint64_t body_bytes_max; /* 0 = 1 MiB; over it 413 */
    bool prefix;             /* the longest matching path wins, an exact one before a prefix */
    bool stream;
};

/* cfg may be NULL. BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_http_server_new(struct bns_env *env, const struct bns_http_config *cfg,
                                       struct bns_http_server **out);
/* The array is borrowed for the server's life; may be called several times. BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_http_server_routes(struct bns_http_server *s,
                                          const struct bns_http_route *routes, size_t n);
/* At most BNS_HTTP_LISTENERS_MAX times. */
#define BNS_HTTP_LISTENERS_MAX 4
BNS_MUST_CHECK int bns_http_server_listen(struct bns_http_server *s, const char *host,
                                          uint16_t port, uint16_t *out_port, struct bns_err *err);
/* With TLS; `tls` is borrowed for the server's life, NULL: without. */
BNS_MUST_CHECK int bns_http_server_listen_tls(struct bns_http_server *s, struct bns_tls *tls,
                                              const char *host, uint16_t port, uint16_t *out_port,
                                              struct bns_err *err);
/* Takes over an accepted stream with the bytes already read (copied or handled before return). */
void bns_http_server_adopt(struct bns_http_server *s, struct bns_stream *stream,
                           struct bns_slice read_so_far);
/* Stops listening; idle connections close, others after their answer, all of them after timeout_ns;
 * then done, in a later turn. Call it once. */
void bns_http_server_drain(struct bns_http_server *s, uint64_t timeout_ns, void (*done)(void *arg),
                           void *arg);
/* Drops all connections; requests that are open stay valid until their handler ends them. */
void bns_http_server_free(struct bns_http_server *s); /* NULL is fine */

/* ---- the request ----------------------------------------------------------------------------- */
struct bns_slice bns_http_method(const struct bns_http_req *q);
struct bns_slice bns_http_path(const struct bns_http_req *q); /* still encoded, without the query */
struct bns_slice bns_http_query(const struct bns_http_req *q); /* behind the '?', still encoded */
/* name in lower case; the first of that name. */
bool bns_http_header(const struct bns_http_req *q, const char *name, struct bns_slice *out);
/* All of them, as they came: names in any case. */
const struct bns_http1_header *bns_http_headers(const struct bns_http_req *q, size_t *count);
bool bns_http_secure(const struct bns_http_req *q); /* over TLS */
/* The decoded value of the first query parameter of that name, appended to out with no NUL.
 * BNS_E_NOTFOUND, BNS_E_INVALID, BNS_E_NOMEM, BNS_E_TOOBIG. */
BNS_MUST_CHECK int bns_http_param(const struct bns_http_req *q, const char *name,
                                  struct bns_buf *out);
struct bns_slice bns_http_body(const struct bns_http_req *q); /* collected routes */
void bns_http_peer(const struct bns_http_req *q, struct bns_net_addr *out);
bool bns_http_gone(const struct bns_http_req *q); /* the connection is lost */

/* Each may be set once, inside the handler's first call. The callbacks are not called after the
 * request was ended. body: data, then an empty slice at the end of the body. */
void bns_http_on_body(struct bns_http_req *q, void (*fn)(void *arg, struct bns_slice data),
                      void *arg);
void bns_http_on_writable(struct bns_http_req *q, void (*fn)(void *arg), void *arg);
void bns_http_on_gone(struct bns_http_req *q, void (*fn)(void *arg), void *arg);
void bns_http_body_read(struct bns_http_req *q, bool on); /* back-pressure of a streamed body */

/* ---- the answer ------------------------------------------------------------------------------ */
/* Adds a header before the answer begins; copied. BNS_E_NOMEM, BNS_E_INVALID (control bytes). */
BNS_MUST_CHECK int bns_http_set_header(struct bns_http_req *q, const char *name,
                                       struct bns_slice value);
/* The whole answer; the body is copied. content_type may be NULL. Ends the request. */
void bns_http_reply(struct bns_http_req *q, int status, const char *content_type,
                    struct bns_slice body);
void bns_http_reply_text(struct bns_http_req *q, int status, const char *text);
/* The same without a copy: release(arg, code) is called once, later, whatever happens (also when
 * the connection is gone). release may be NULL for bytes that outlive the connection. */
void bns_http_reply_slices(struct bns_http_req *q, int status, const struct bns_slice *v, size_t n,
                           bns_release_fn *release, void *arg);
/* Begins an answer in pieces: length bytes will follow, or BNS_HTTP_CHUNKED. */
#define BNS_HTTP_CHUNKED UINT64_MAX
BNS_MUST_CHECK int bns_http_begin(struct bns_http_req *q, int status, uint64_t length);
/* One piece; borrowed until release (bytes of the request itself are gone before that: copy them).
 * On error release is not called. BNS_E_OFF: the connection is
 * gone; BNS_E_INVALID: more than `length`; BNS_E_NOMEM. Watch bns_http_queued(): on_writable comes
 * when it falls below BNS_STREAM_LOW_MARK. */
BNS_MUST_CHECK int bns_http_write(struct bns_http_req *q, const struct bns_slice *v, size_t n,
                                  bns_release_fn *release, void *arg);
size_t bns_http_queued(const struct bns_http_req *q);
void bns_http_end(struct bns_http_req *q);   /* after begin; fewer than `length` bytes: abort */
void bns_http_abort(struct bns_http_req *q); /* resets the connection */

/* ---- client: one request on a connection of its own ------------------------------------------ */
struct bns_http_fetch;

struct bns_http_fetch_opts {
    const char *host; /* numeric, or a name */
    uint16_t port;
    const char *method; /* NULL = GET */
    const char *target; /* NULL = "/" */
    const struct bns_http1_header *headers;
    size_t headers_count;
    struct bns_slice body;   /* copied */
    uint64_t timeout_ns;     /* 0 = 10 s, for all of it */
    uint64_t body_bytes_max; /* of the answer; 0 = 16 MiB */
    struct bns_tls *tls;     /* borrowed until done; NULL: plain */
    const char *server_name; /* of the certificate; NULL = host */
};

struct bns_http_answer {
    int status;
    const struct bns_http1_head *head;
    struct bns_slice body;
};

/* code BNS_OK: `a` is borrowed for the call. Else NULL: BNS_E_DROPPED, BNS_E_TIMEOUT, BNS_E_PROTO,
 * BNS_E_TOOBIG, BNS_E_NOMEM; of TLS BNS_E_UNAUTH. */
typedef void bns_http_done_fn(void *arg, int code, const struct bns_http_answer *a);

/* done is called once, in a later turn, unless cancelled. On error it is not. *out may be NULL. */
BNS_MUST_CHECK int bns_http_fetch(struct bns_env *env, const struct bns_http_fetch_opts *o,
                                  bns_http_done_fn *done, void *arg, struct bns_http_fetch **out,
                                  struct bns_err *err);
void bns_http_fetch_cancel(struct bns_http_fetch *f); /* before done */

#endif
