/* h2.h - one HTTP/2 connection that carries gRPC: the part that server and client share.
 *
 * Internal to common/io (includes nghttp2). A role (server, client) embeds struct bns_h2 in its
 * connection and struct bns_h2_stream in its call, and gives a table of functions.
 *
 * Thread:   the env's loop. Every function of the role may be called from inside nghttp2 or from
 *           the pump: it may submit frames, queue messages and finish streams, but not free the
 *           connection.
 * Memory:   the hub owns pools for batches and messages; it lives until its owner and the last
 *           connection have let it go. A queued message is released when the bytes left the
 *           transport, or when its stream ended.
 */
#ifndef BNS_IO_H2_H
#define BNS_IO_H2_H

#include "base/arena.h"
#include "base/env.h"
#include "base/varint.h"
#include "codec/grpc_msg.h"

#include <nghttp2/nghttp2.h>

#define BNS_H2_BATCH_BYTES 3072u /* frame headers and small payloads of one write */
#define BNS_H2_BATCH_SLICES 48u
#define BNS_H2_COPY_MAX 1024u              /* shorter pieces are copied into the batch */
#define BNS_H2_TRANSPORT_MAX (256u * 1024) /* unsent bytes at which pumping pauses */
#define BNS_H2_PARTIAL_MAX (64u << 20)     /* received parts of messages; one alone may be larger */
#define BNS_H2_WRITABLE (64u * 1024)       /* bytes queued below which a stream is writable */
#define BNS_H2_STREAM_WINDOW (1024 * 1024)
#define BNS_H2_CONN_WINDOW (16 * 1024 * 1024)
#define BNS_H2_HEADER_LIST_MAX (16u * 1024)
#define BNS_H2_PINGS_MAX 100u /* in BNS_H2_PING_WINDOW_NS without a HEADERS or DATA of ours */
#define BNS_H2_PING_WINDOW_NS (10 * BNS_SEC)
#define BNS_H2_MSG_INLINE 384u

struct bns_h2;
struct bns_h2_stream;
struct bns_h2_batch;

/* One queued message: its prefix and slices, borrowed until release. */
struct bns_h2_msg {
    struct bns_h2_msg *next;
    uint32_t refs; /* the queue, and each batch that borrows from it */
    bool pooled;
    bns_release_fn *release;
    void *arg;
    size_t bytes; /* with prefix */
    size_t count; /* slices, the prefix is v[0] */
    struct bns_slice *v;
    uint8_t prefix[BNS_GRPC_PREFIX_BYTES];
    /* slices or copied bytes */
    _Alignas(16) uint8_t space[];
};

struct bns_h2_role {
    /* A peer opened a stream: returns its user data by bns_h2_stream_open(). Server only. */
    int (*begin)(struct bns_h2 *h, int32_t id);
    /* One header field; over the list limit it is no longer called. */
    int (*header)(struct bns_h2_stream *s, nghttp2_headers_category cat, struct bns_slice name,
                  struct bns_slice value);
    void (*headers_end)(struct bns_h2_stream *s, nghttp2_headers_category cat, bool end);
    void (*message)(struct bns_h2_stream *s, struct bns_slice msg);
    /* Bad framing of messages: gRPC status and text. The stream takes no more input. */
    void (*bad)(struct bns_h2_stream *s, int status, const char *text);
    void (*half_close)(struct bns_h2_stream *s); /* after the last message */
    /* All queued bytes are in DATA frames and the stream is ending: add flags, submit trailers. */
    int (*last)(struct bns_h2_stream *s, uint32_t *data_flags);
    void (*ended)(struct bns_h2_stream *s);    /* our END_STREAM has been sent */
    void (*writable)(struct bns_h2_stream *s); /* queued fell below BNS_H2_WRITABLE */
    void (*wake)(struct bns_h2_stream *s);     /* bns_h2_stream_wake() was called */
    /* The stream is gone; code is HTTP/2's. The role unlinks it with bns_h2_stream_close(). */
    void (*closed)(struct bns_h2_stream *s, uint32_t code);
    /* GOAWAY, SETTINGS, PING of the peer. May be NULL. */
    void (*control)(struct bns_h2 *h, const nghttp2_frame *f);
    void (*open)(struct bns_h2 *h); /* a dialled transport is up; may be NULL */
    /* The transport is gone, the session freed, all streams told: free the connection. */
    void (*gone)(struct bns_h2 *h, int code);
};

/* h2_mem.c: nghttp2's memory, its frame buffers in slabs. */
struct bns_h2_mem {
    const struct bns_alloc *alloc;
    struct bns_list slabs;
    uintptr_t lo, hi; /* no slab lies outside */
    bool slab;
};
/* *out stands on m, which stays where it is. */
void bns_h2_mem_init(struct bns_h2_mem *m, struct bns_env *env, bool server, nghttp2_mem *out);
void bns_h2_mem_free(struct bns_h2_mem *m);

/* What the connections of one server or one client share. */
struct bns_h2_hub {
    struct bns_env *env;
    const struct bns_h2_role *role;
    bool server;
    uint32_t refs;
    nghttp2_mem mem;
    struct bns_h2_mem memory; /* what mem stands on */
    struct bns_list dirty;    /* connections with something to pump */
    struct bns_task flush;
    bool posted;
    struct bns_h2_batch *batches; /* pool */
    struct bns_h2_msg *msgs;      /* pool */
    uint32_t batches_count, msgs_count;
    uint64_t reset_burst, reset_rate;
    uint32_t queued_max;
    struct bns_counter *bytes_in, *bytes_out, *floods;
};

struct bns_h2 {
    struct bns_h2_hub *hub;
    struct bns_stream *stream;
    nghttp2_session *session; /* NULL before the preface was seen, and after the end */
    struct bns_list dirty;
    struct bns_list streams; /* struct bns_h2_stream.node */
    struct bns_list wake;    /* struct bns_h2_stream.wake */
    struct bns_h2_batch *batch;
    size_t queued;        /* payload bytes queued by its streams */
    size_t streams_count; /* open */
    size_t partial;       /* bytes of messages that its streams have received in part */
    uint64_t recv_ns;     /* last bytes of the peer */
    uint64_t ping_ns;     /* start of the window that pings are counted in */
    uint64_t reset_ns;    /* last refill */
    uint64_t reset_tokens;
    uint32_t pings;
    int code;     /* why the transport closed */
    bool busy;    /* inside nghttp2 or the pump */
    bool open;    /* the transport takes bytes */
    bool blocked; /* the transport is full: neither pumped nor read */
    bool over;    /* over the byte budget: nothing is delivered */
    bool closing; /* close when nothing is left to send */
    bool closed;  /* bns_stream_close or reset was called */
    bool doomed;  /* bns_h2_abort() was called inside */
    bool lost;    /* the streams end because the connection does */
};

struct bns_h2_stream {
    struct bns_h2 *h; /* NULL after the end */
    int32_t id;
    struct bns_list node; /* h->streams */
    struct bns_list wake; /* h->wake */
    /* out */
    struct bns_h2_msg *head, *tail;
    size_t at_slice, at_byte; /* what of head was sent */
    size_t queued;            /* bytes not yet in a DATA frame */
    bool submitted;           /* response headers, or the request */
    bool deferred;
    bool end;   /* nothing more will be queued */
    bool above; /* owes a writable */
    bool sent;  /* our END_STREAM is out */
    /* in */
    struct bns_grpc_split split;
    size_t partial;      /* of h->partial */
    struct bns_buf held; /* DATA not yet delivered, not yet consumed */
    size_t header_bytes;
    bool paused; /* the handler takes no messages */
    bool deaf;   /* input is consumed and dropped */
    bool feeding;
    bool remote_end; /* the peer's END_STREAM has come */
    bool half_told;
};

/* h2.c: hub and connection. */
BNS_MUST_CHECK int bns_h2_hub_new(struct bns_env *env, const struct bns_h2_role *role, bool server,
                                  struct bns_h2_hub **out);
void bns_h2_hub_put(struct bns_h2_hub *hub); /* the owner's or a connection's reference */

/* Takes the stream. On error the stream is untouched. */
void bns_h2_init(struct bns_h2 *h, struct bns_h2_hub *hub, struct bns_stream *stream);
extern const struct bns_stream_events bns_h2_events; /* arg: struct bns_h2 */
/* Makes the session and submits our SETTINGS. BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_h2_start(struct bns_h2 *h, const nghttp2_settings_entry *v, size_t n);
void bns_h2_feed(struct bns_h2 *h, struct bns_slice data); /* bytes from the peer */
void bns_h2_kick(struct bns_h2 *h);  /* pump in the next turn, or at the end of this one */
void bns_h2_pump(struct bns_h2 *h);  /* send what there is now */
void bns_h2_close(struct bns_h2 *h); /* when all is sent */
/* GOAWAY with a reason and a text, then close. */
void bns_h2_refuse(struct bns_h2 *h, uint32_t code, const char *text);
/* Drops session and streams (each is told `closed`) and resets the transport; gone follows. From
 * inside a function of the role: when that has returned. */
void bns_h2_abort(struct bns_h2 *h);
void bns_h2_doom(struct bns_h2 *h); /* the same at the next pump, never inside this call */

/* h2_stream.c: one stream. */
void bns_h2_stream_open(struct bns_h2_stream *s, struct bns_h2 *h, int32_t id, uint32_t msg_max);
void bns_h2_stream_close(struct bns_h2_stream *s); /* unlink, release all that is queued */
BNS_MUST_CHECK int bns_h2_stream_send(struct bns_h2_stream *s, const struct bns_slice *v, size_t n,
                                      bns_release_fn *release, void *arg);
BNS_MUST_CHECK int bns_h2_stream_copy(struct bns_h2_stream *s, struct bns_slice msg);
void bns_h2_stream_end(struct bns_h2_stream *s);   /* after what is queued, `last` */
void bns_h2_stream_clear(struct bns_h2_stream *s); /* drops what is queued and not sent */
void bns_h2_stream_read(struct bns_h2_stream *s, bool on);
void bns_h2_stream_deaf(struct bns_h2_stream *s); /* drops all further input */
void bns_h2_stream_data(struct bns_h2_stream *s, struct bns_slice data);
void bns_h2_stream_eof(struct bns_h2_stream *s);   /* END_STREAM came */
void bns_h2_stream_wake(struct bns_h2_stream *s);  /* role->wake at the next pump */
void bns_h2_stream_woken(struct bns_h2_stream *s); /* what role->wake does for an open stream */
nghttp2_data_provider bns_h2_stream_provider(struct bns_h2_stream *s);
void bns_h2_msg_put(struct bns_h2_hub *hub, struct bns_h2_msg *m, int code);
int bns_h2_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *framehd,
                     size_t length, nghttp2_data_source *source, void *arg);

/* h2_batch.c: what one write to the transport is made of. */
BNS_MUST_CHECK int bns_h2_batch_copy(struct bns_h2 *h, const void *ptr, size_t len);
BNS_MUST_CHECK int bns_h2_batch_borrow(struct bns_h2 *h, struct bns_slice s, struct bns_h2_msg *m);
BNS_MUST_CHECK int bns_h2_batch_flush(struct bns_h2 *h);
size_t bns_h2_batch_bytes(const struct bns_h2 *h);
void bns_h2_batch_drop(struct bns_h2 *h);
void bns_h2_batch_pool_free(struct bns_h2_hub *hub);
void bns_h2_msg_pool_free(struct bns_h2_hub *hub);

#endif
