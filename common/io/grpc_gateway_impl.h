/* grpc_gateway_impl.h - what the two files of the gateway share. Nobody else includes this. */
#ifndef BNS_IO_GRPC_GATEWAY_IMPL_H
#define BNS_IO_GRPC_GATEWAY_IMPL_H

#include "codec/pb_json.h"
#include "codec/pb_json_cut.h"
#include "io/grpc_gateway.h"

struct bns_grpc_gateway {
    struct bns_env *env;
    struct bns_grpc_server *server;
    struct bns_grpc_gateway_config cfg;
    size_t open; /* requests */
};

/* A message of the answer, borrowed until release. */
struct bns_gateway_msg {
    struct bns_gateway_msg *next;
    bns_release_fn *release;
    void *arg;
    size_t bytes, count;
    struct bns_slice v[];
};

/* One HTTP request. */
struct bns_gateway_req {
    struct bns_grpc_gateway *g;
    struct bns_http_req *q;
    const struct bns_grpc_gateway_path *path;
    struct bns_grpc_call *call; /* NULL: not begun */
    enum bns_grpc_kind kind;
    uint32_t msg_bytes_max;
    uint64_t deadline_ns;
    struct bns_timer timer; /* what is due in a later turn: see pump() */
    /* in */
    struct bns_json_cut cut;
    struct bns_buf rest; /* of the body, while the handler takes nothing */
    struct bns_buf held; /* a message that waits until the handler reads */
    bool holding;
    bool read_off;
    bool eof;     /* the body is over */
    bool in_over; /* no further value is looked for */
    bool closed;  /* the call was told that no more messages come */
    /* out */
    struct bns_gateway_msg *head, *tail;
    struct bns_pb_json_walk walk; /* over the first */
    bool walking;
    size_t queued;
    bool above;    /* the handler waits for queued to fall */
    bool begun;    /* the head of a stream's answer is out */
    bool finished; /* by the call, or by us: status and text are the end */
    int status;
    char *text;
};

/* grpc_gateway.c */
void bns_gateway_close(struct bns_gateway_req *r); /* the HTTP request has been ended: frees r */
void bns_gateway_later(struct bns_gateway_req *r); /* runs the timer's work in the next turn */

/* grpc_gateway_out.c */
extern const struct bns_grpc_sink bns_gateway_sink; /* arg: the request */
void bns_gateway_drop(struct bns_gateway_req *r);   /* all messages that wait */
/* Ends the request with an error of the gateway itself. */
void bns_gateway_refuse(struct bns_gateway_req *r, int status, const char *text);
/* Writes what the client has room for; may end and free r, then false. */
bool bns_gateway_send(struct bns_gateway_req *r);

#endif
