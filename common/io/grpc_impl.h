/* grpc_impl.h - what the files of the gRPC server share. Nobody else includes this. */
#ifndef BNS_IO_GRPC_IMPL_H
#define BNS_IO_GRPC_IMPL_H

#include "base/hmap.h"
#include "io/grpc.h"
#include "io/grpc_local.h"
#include "io/h2.h"

#define BNS_GRPC_CODES 17
#define BNS_GRPC_CALL_INLINE 896u /* bytes of the arena that lie in the call */
#define BNS_GRPC_HELD_MAX 1024u   /* calls not started while a connection is over its budget */
#define BNS_GRPC_CALLS_MAX 65536u /* open on one connection; further ones may be tried again */
#define BNS_GRPC_ARENA_MAX ((size_t)256 * 1024 * 1024)
#define BNS_GRPC_MSG_MAX (4u * 1024 * 1024) /* of a message, where the method says nothing */
#define BNS_GRPC_HANDSHAKE_NS (10 * BNS_SEC)

/* A method as the server keeps it. */
struct bns_grpc_entry {
    struct bns_hnode node;
    const struct bns_grpc_method *m;
    struct bns_slice path;
    struct bns_counter *started, *received, *sent;
    struct bns_counter *handled[BNS_GRPC_CODES]; /* made at first use */
    struct bns_hist *seconds;                    /* NULL: not asked for */
};

struct bns_grpc_table { /* one call of bns_grpc_server_methods() */
    struct bns_grpc_table *next;
    size_t count;
    struct bns_grpc_entry entries[];
};

struct bns_grpc_listen {
    struct bns_list node;
    struct bns_tls_listener *listener;
};

struct bns_grpc_server {
    struct bns_env *env;
    struct bns_grpc_config cfg;
    struct bns_h2_hub *hub;
    struct bns_hmap methods;
    uint64_t seed;
    struct bns_grpc_table *tables;
    struct bns_list listeners;
    struct bns_list conns;
    size_t conns_count;
    uint64_t tls_log_ns;
    struct bns_list calls; /* all that are not freed */
    struct bns_grpc_call *pool;
    uint32_t pool_count;
    uint32_t locals; /* calls with a sink */
    /* drain */
    bool draining;
    bool expired; /* the time of the drain is over */
    struct bns_timer drain_timer;
    char drain_text[128];
    void (*drain_done)(void *arg);
    void *drain_arg;
    struct bns_gauge *conns_gauge;
    struct bns_list held; /* calls: struct bns_grpc_call.hold (grpc_admit.c) */
    uint32_t held_count;
    struct bns_timer hold_timer;
};

enum bns_grpc_conn_state {
    BNS_GRPC_SNIFF,    /* HTTP/1.1 or HTTP/2: not known yet */
    BNS_GRPC_GREETING, /* our SETTINGS are out, the client's acknowledgement is not here */
    BNS_GRPC_UP
};

struct bns_grpc_conn {
    struct bns_h2 h;                /* first */
    struct bns_grpc_server *server; /* NULL once the server is freed */
    struct bns_list node;
    struct bns_timer timer;
    enum bns_grpc_conn_state state;
    uint64_t since_ns;  /* accepted */
    uint64_t pinged_ns; /* keepalive PING without an answer, 0 = none */
    bool draining, goaway_sent;
    uint8_t sniffed;
    uint8_t sniff[24];
    uint32_t waiting; /* calls not started, over budget */
};

struct bns_grpc_field {
    struct bns_grpc_md md;
    struct bns_grpc_field *next;
};

struct bns_grpc_call {
    struct bns_h2_stream s; /* first */
    /* A call without an HTTP/2 stream (s.h is NULL from the start): its answers go here. */
    const struct bns_grpc_sink *sink;
    void *sink_arg;
    struct bns_grpc_server *server; /* NULL once the server is freed */
    struct bns_list node;           /* server->calls; in the pool: unused */
    struct bns_grpc_call *next;     /* pool */
    const struct bns_alloc *alloc;
    struct bns_env *env;
    struct bns_grpc_entry *method; /* NULL: none found */
    const struct bns_grpc_handler *handler;
    void *handler_arg;
    void *ctx;
    uint64_t deadline;
    struct bns_timer timer;
    struct bns_grpc_field *fields;
    struct bns_slice path, type;
    const nghttp2_nv *trailers;
    size_t trailers_count;
    int status;
    uint32_t depth; /* callbacks of the handler on the stack */
    bool post;      /* :method is POST */
    bool started;   /* the method is known and may run */
    bool told;      /* the handler knows the call */
    bool waiting;   /* start when the connection is below its budget */
    bool ended;     /* on_end ran, or need not */
    bool finished;  /* the handler is through */
    bool counted;   /* handled_total */
    bool bad_md;    /* metadata that does not decode */
    bool local;     /* has, or had, a sink */
    bool held;      /* the server does not know yet whether it may run */
    struct bns_list hold;
    struct bns_slice held_msg; /* a local call's, in its arena; ptr NULL: none */
    bool held_eof;
    uint64_t asked_ns; /* when that was asked first, plus 1; 0 = never */
    uint64_t began_ns; /* started; 0 = not, or nobody wants to know */
    uint32_t messages;
    struct bns_arena arena;
    _Alignas(16) uint8_t space[BNS_GRPC_CALL_INLINE];
};

/* grpc_conn.c */
extern const struct bns_h2_role bns_grpc_role;
void bns_grpc_conn_accept(struct bns_grpc_server *s, struct bns_stream *stream,
                          struct bns_slice data);
void bns_grpc_conn_drain(struct bns_grpc_conn *c);
/* Closes the connection when it is draining and idle. */
void bns_grpc_conn_idle(struct bns_grpc_conn *c);

/* grpc_server.c */
struct bns_grpc_entry *bns_grpc_find(struct bns_grpc_server *s, struct bns_slice path);
bool bns_grpc_has_service(const struct bns_grpc_server *s, struct bns_slice service);
void bns_grpc_conn_gone(struct bns_grpc_server *s);  /* a connection was freed */
void bns_grpc_local_gone(struct bns_grpc_server *s); /* a call with a sink was closed */
/* began_ns: 0 = it was never started */
void bns_grpc_count(struct bns_grpc_server *s, struct bns_grpc_entry *e, int status,
                    uint64_t began_ns);

/* grpc_call.c: functions of the role that concern a call. */
int bns_grpc_call_begin(struct bns_h2 *h, int32_t id);
int bns_grpc_call_header(struct bns_h2_stream *s, nghttp2_headers_category cat,
                         struct bns_slice name, struct bns_slice value);
void bns_grpc_call_headers_end(struct bns_h2_stream *s, nghttp2_headers_category cat, bool end);
void bns_grpc_call_message(struct bns_h2_stream *s, struct bns_slice msg);
void bns_grpc_call_bad(struct bns_h2_stream *s, int status, const char *text);
void bns_grpc_call_half_close(struct bns_h2_stream *s);
int bns_grpc_call_last(struct bns_h2_stream *s, uint32_t *data_flags);
void bns_grpc_call_sent(struct bns_h2_stream *s);
void bns_grpc_call_writable(struct bns_h2_stream *s);
void bns_grpc_call_wake(struct bns_h2_stream *s);
void bns_grpc_call_closed(struct bns_h2_stream *s, uint32_t code);
/* Ends the call in the server's name: the handler is told END_RESET, or `why`. */
void bns_grpc_call_fail(struct bns_grpc_call *c, int status, const char *text,
                        enum bns_grpc_end why);
void bns_grpc_call_pool_free(struct bns_grpc_server *s);
struct bns_grpc_call *bns_grpc_call_new(struct bns_grpc_server *s); /* NULL: no memory */
/* Looks up c->path; false: refused. Then bns_grpc_call_run(), now or later. */
bool bns_grpc_call_prepare(struct bns_grpc_call *c);
void bns_grpc_call_run(struct bns_grpc_call *c);
/* The transport is gone: tells the handler, and frees the call when that is through with it. */
void bns_grpc_call_detached(struct bns_grpc_call *c, int status, enum bns_grpc_end why);

void bns_grpc_call_leave(struct bns_grpc_call *c);         /* c->depth was raised; c may be freed */
void bns_grpc_call_begin_handler(struct bns_grpc_call *c); /* it has been admitted */

/* grpc_admit.c */
void bns_grpc_hold_init(struct bns_grpc_server *s);
/* May it run? False: it has been refused, or is held and will be asked about again. */
bool bns_grpc_admitted(struct bns_grpc_call *c);
void bns_grpc_unhold(struct bns_grpc_call *c); /* no-op when it is not held */
/* A local call is held, so what its starter pushes is kept: at most one message. False: it is not
 * held. */
bool bns_grpc_keep_message(struct bns_grpc_call *c, struct bns_slice msg);
bool bns_grpc_keep_end(struct bns_grpc_call *c);

/* grpc_local.c */
BNS_MUST_CHECK int bns_grpc_local_copy(struct bns_grpc_call *c, struct bns_slice msg);

/* grpc_reply.c: what the server says at the end of a call. */
/* Builds c->trailers in the arena; text and md are copied. BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_grpc_trailers(struct bns_grpc_call *c, int status, const char *text,
                                     const struct bns_grpc_md *md, size_t md_count);
BNS_MUST_CHECK int bns_grpc_submit_headers(struct bns_grpc_call *c); /* and DATA to follow */
BNS_MUST_CHECK int bns_grpc_submit_only(struct bns_grpc_call *c);    /* trailers-only */
BNS_MUST_CHECK int bns_grpc_submit_http(struct bns_grpc_call *c, const char *status);
/* Adds a metadata field of the request; "-bin" values are decoded. */
BNS_MUST_CHECK int bns_grpc_field_add(struct bns_arena *a, struct bns_grpc_field **list,
                                      struct bns_slice name, struct bns_slice value, bool *bad);
bool bns_grpc_field_get(const struct bns_grpc_field *f, const char *name, struct bns_slice *out);
/* The wire form of a value (base64 for "-bin"), in the arena. */
BNS_MUST_CHECK int bns_grpc_value(struct bns_arena *a, const struct bns_grpc_md *md,
                                  struct bns_slice *out);
/* Copies the percent-encoded, or decoded, text into the arena. */
BNS_MUST_CHECK int bns_grpc_encode_text(struct bns_arena *a, struct bns_slice in,
                                        struct bns_slice *out);
const char *bns_grpc_decode_text(struct bns_arena *a, struct bns_slice in); /* NULL: no memory */

#endif
