/* rpc_int.h - what the files of the internal RPC share. Nobody else includes this. */
#ifndef BNS_IO_RPC_INT_H
#define BNS_IO_RPC_INT_H

#include "io/rpc.h"

#include "base/rcbuf.h"
#include "codec/frame.h"

#define BNS_RPC_PING_NS (1 * BNS_SEC)
#define BNS_RPC_DEAD_NS (4 * BNS_SEC) /* three pings without an answer */
#define BNS_RPC_QUEUE_MAX (16u * 1024 * 1024)

struct bns_rpc_conn;

/* What a connection tells its owner (a server or a peer); none is called after on_dead, nor after
 * bns_rpc_conn_drop(). An owner may drop the connection, or itself, in any of them. */
struct bns_rpc_conn_ops {
    /* The HELLO of the other side, of our cluster. Error: the connection is dropped with it. */
    int (*on_hello)(void *owner, const struct bns_hello *h, struct bns_err *err);
    int (*on_frame)(void *owner, const struct bns_frame *f); /* error: likewise */
    void (*on_dead)(void *owner, int code);
    /* Accepted, and it begins like a request of HTTP. True: taken, the connection is gone. May be
     * NULL. */
    bool (*on_http)(void *owner, struct bns_stream *stream, struct bns_slice read_so_far);
};

struct bns_rpc_conn {
    struct bns_env *env;
    struct bns_stream *stream;
    struct bns_frame_reader reader;
    struct bns_rpc_identity me;
    const struct bns_rpc_conn_ops *ops; /* NULL: the owner has left */
    void *owner;
    struct bns_timer timer;
    struct bns_list streams; /* struct bns_rpc_stream */
    size_t streams_count;
    uint64_t streams_pass; /* of waking those that wait for room */
    uint64_t heard_ns;
    uint64_t pinged_ns; /* 0: no ping is on its way */
    struct bns_hist *rtt;
    uint64_t *warned_ns; /* the owner's, for the warning a minute */
    uint32_t queue_max;
    bool dials;
    bool greeted; /* their HELLO is in */
    bool dead;    /* the owner is gone; only on_close is awaited */
    bool held;    /* reading is off until the queue falls */
};

/* rpc_conn.c. The caller sets env, me, ops, owner, warned_ns, queue_max, dials, then stream. */
void bns_rpc_conn_init(struct bns_rpc_conn *c);
extern const struct bns_stream_events bns_rpc_conn_events; /* arg = the connection */
void bns_rpc_conn_start(struct bns_rpc_conn *c, struct bns_slice read_so_far); /* accepted */
/* Without on_dead. now: reset, else what is queued is still written. */
void bns_rpc_conn_drop(struct bns_rpc_conn *c, bool now);
/* payload borrowed until release; on error (BNS_E_NOMEM, BNS_E_OFF, BNS_E_TOOBIG) not called. */
int bns_rpc_conn_send(struct bns_rpc_conn *c, const struct bns_frame *f, const struct bns_slice *v,
                      size_t n, bns_release_fn *release, void *arg);
int bns_rpc_conn_send_copy(struct bns_rpc_conn *c, const struct bns_frame *f);
/* Something cannot be told to the other side: the connection breaks, in a later turn. */
void bns_rpc_conn_break(struct bns_rpc_conn *c);

/* rpc_stream.c */
struct bns_rpc_stream *bns_rpc_stream_new(struct bns_rpc_conn *c, uint64_t id, uint16_t method);
void bns_rpc_stream_forget(struct bns_rpc_stream *s); /* without a word to anyone */
void bns_rpc_stream_opened(struct bns_rpc_stream *s, bns_rpc_stream_fn *fn, void *arg,
                           uint64_t from, struct bns_slice payload);
/* DATA, END, CREDIT; CANCEL and RESPONSE when *found. Error: the connection is dropped with it. */
int bns_rpc_streams_frame(struct bns_rpc_conn *c, const struct bns_frame *f, bool *found);
void bns_rpc_streams_wake(struct bns_rpc_conn *c);
void bns_rpc_streams_end(struct bns_rpc_conn *c, int code);

#endif
