/* grpc_local.h - calls on a gRPC server that come another way than HTTP/2: by a gateway.
 *
 * A local call goes through the same method table, handlers, limits, deadlines, metrics and drain
 * as one from the network. Only its transport differs: messages are pushed by whoever started it,
 * and what the handler sends goes to a sink.
 *
 * Thread:  the server's loop.
 * Life:    a call belongs to its starter from bns_grpc_local_start() to bns_grpc_local_close(),
 *          which must come, once, after finish() of the sink or before (the client has gone), but
 *          not from inside a function of the sink. After finish() only close is allowed.
 */
#ifndef BNS_IO_GRPC_LOCAL_H
#define BNS_IO_GRPC_LOCAL_H

#include "io/grpc.h"

/* Called inside calls of this module or of grpc.h: they may note and queue, not call back. */
struct bns_grpc_sink {
    /* One message; the slices are borrowed until release(arg, code) is called: in a later turn,
     * once, unless an error is returned. release may be NULL. */
    int (*send)(void *arg, const struct bns_slice *v, size_t n, bns_release_fn *release,
                void *release_arg);
    /* The end. text (may be NULL) is borrowed. drop: what is queued is not to be sent. */
    void (*finish)(void *arg, int status, const char *text, bool drop);
    size_t (*queued)(void *arg);      /* bytes of messages that were not sent on */
    void (*read)(void *arg, bool on); /* off: push no message, nor the half close */
    void (*peer)(void *arg, struct bns_net_addr *out);
};

struct bns_grpc_local_options {
    struct bns_slice path;        /* copied */
    const struct bns_grpc_md *md; /* copied; "-bin" values still encoded */
    size_t md_count;
    uint64_t deadline_ns; /* absolute; 0 or BNS_NEVER = none */
};

/* The handler may be called, and finish() too (unknown method, bad metadata, draining), before this
 * returns. BNS_E_NOMEM: there is no call. */
BNS_MUST_CHECK int bns_grpc_local_start(struct bns_grpc_server *s,
                                        const struct bns_grpc_local_options *o,
                                        const struct bns_grpc_sink *sink, void *arg,
                                        struct bns_grpc_call **out);
/* The kind of a method, and how long its messages may be; false: not registered. */
bool bns_grpc_local_method(struct bns_grpc_server *s, struct bns_slice path,
                           enum bns_grpc_kind *kind, uint32_t *msg_bytes_max);
/* Nothing happens when the call has ended meanwhile. */
void bns_grpc_local_message(struct bns_grpc_call *c, struct bns_slice msg);
void bns_grpc_local_half_close(struct bns_grpc_call *c);
void bns_grpc_local_writable(struct bns_grpc_call *c); /* queued() fell below 64 KiB */
/* Ends the call in the server's name; finish() is called. */
void bns_grpc_local_fail(struct bns_grpc_call *c, int status, const char *text);
/* All was sent, or the client is gone (the handler is told END_RESET unless it has finished). */
void bns_grpc_local_close(struct bns_grpc_call *c);

/* Did the call come by a gateway? Then nothing of the connection (a client certificate) speaks for
 * whoever calls. */
bool bns_grpc_is_local(const struct bns_grpc_call *c);

#endif
