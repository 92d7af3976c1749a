/* etcd_int.h - what the files of the etcd client share. Nobody else includes this. */
#ifndef BNS_CLIENT_ETCD_ETCD_INT_H
#define BNS_CLIENT_ETCD_ETCD_INT_H

#include "base/arena.h"
#include "base/host.h"
#include "client/etcd/etcd.h"
#include "codec/pb.h"

#define BNS_ETCD_ANSWER_MAX (128u * 1024 * 1024)
#define BNS_ETCD_HINT_MAX 192u
#define BNS_ETCD_GIVEN_UP "the server was silent: its connection was given up"

struct bns_etcd_ep {
    struct bns_etcd *c;
    struct bns_endpoint at;
    struct bns_grpc_client *grpc; /* NULL: made when it is needed */
    struct bns_timer timer;       /* the dial has taken too long, or the connection is to go */
    bool drop;
};

enum bns_etcd_auth {
    BNS_ETCD_AUTH_NONE,
    BNS_ETCD_AUTH_NEED,
    BNS_ETCD_AUTH_ASK,
    BNS_ETCD_AUTH_HAVE
};

struct bns_etcd {
    struct bns_env *env;
    struct bns_etcd_ep ep[BNS_ETCD_ENDPOINTS_MAX];
    size_t eps_count, current;
    struct bns_tls *tls;
    char server_name[256];
    uint64_t dial_timeout_ns, call_timeout_ns;
    uint32_t calls_max, calls_count;
    struct bns_list calls;   /* struct bns_etcd_call.node */
    struct bns_list streams; /* struct bns_etcd_stream.node */
    struct bns_arena arena;  /* user and password */
    const char *user, *password;
    enum bns_etcd_auth auth;
    uint32_t token_gen; /* counts tokens */
    char token[512];    /* "": none is needed */
    unsigned busy;      /* callbacks of the owner on the stack */
    bool freed;
    struct bns_timer drain;     /* runs drained */
    void (*drained)(void *arg); /* NULL: nobody waits */
    void *drained_arg;
};

enum bns_etcd_call_state {
    BNS_ETCD_WAIT,
    BNS_ETCD_SENT,
    BNS_ETCD_PAUSE,
    BNS_ETCD_ENDING,
    BNS_ETCD_TOLD /* whoever told it frees it */
};

struct bns_etcd_call {
    struct bns_etcd *c;
    struct bns_list node;
    enum bns_etcd_method method;
    enum bns_etcd_call_state state;
    struct bns_grpc_ccall *cc; /* in SENT */
    struct bns_timer timer;    /* WAIT: the deadline; PAUSE: its end; ENDING: now */
    struct bns_buf request;
    struct bns_arena arena; /* of the answer */
    ProtobufCMessage *msg;
    bns_etcd_done *done; /* NULL: cancelled, or told already */
    struct bns_etcd_session *session;
    void *arg;
    uint64_t deadline_ns, sent_ns;
    size_t ep;
    uint32_t tries, token_gen;
    bool again;   /* it only reads: may be sent again when it may have happened */
    bool unbegun; /* its request could not be queued, or never left */
    bool bad;     /* its answer could not be read */
    int status;   /* in ENDING */
    char cause[BNS_ETCD_HINT_MAX];
};

struct bns_etcd_stream {
    struct bns_etcd *c;
    struct bns_list node;
    enum bns_etcd_method method;
    struct bns_grpc_ccall *cc; /* NULL: waits for a token, or ends */
    struct bns_timer timer;    /* the end, when it has none of gRPC */
    struct bns_buf first;
    const struct bns_etcd_stream_handler *handler; /* NULL: closed */
    void *arg;
    size_t ep;
    uint32_t token_gen;
    bool last, suspect, telling, off;
    int status;
    char text[BNS_ETCD_HINT_MAX];
};

struct bns_etcd_info {
    const char *path;
    const ProtobufCMessageDescriptor *response;
    bool again;
};
extern const struct bns_etcd_info bns_etcd_info[BNS_ETCD_METHODS_COUNT];

/* client.c */
/* The gRPC client of the endpoint that serves now. BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_etcd_pick(struct bns_etcd *c, size_t *ep, struct bns_grpc_client **out);
void bns_etcd_ep_failed(struct bns_etcd *c, size_t ep); /* the next one serves from now on */
void bns_etcd_ep_drop(struct bns_etcd *c, size_t ep);   /* its connection goes, soon */
/* Metadata of a call in md, which has room for 3; returns how many. */
size_t bns_etcd_metadata(struct bns_etcd *c, enum bns_etcd_method m, struct bns_grpc_md *md);
/* May a call of that method be sent? If not, a token has been asked for. */
bool bns_etcd_ready(struct bns_etcd *c, enum bns_etcd_method m);
/* Does this error mean that a new token helps? Then the old one is forgotten. */
bool bns_etcd_token_bad(struct bns_etcd *c, uint32_t gen, int status, const char *text);
void bns_etcd_call_gone(struct bns_etcd *c); /* one call fewer */
void bns_etcd_let_go(struct bns_etcd *c);    /* frees the struct, once nobody needs it */
/* call.c, stream.c: what waits for the token goes on, or ends with this */
void bns_etcd_calls_token(struct bns_etcd *c, int status, const char *text);
void bns_etcd_streams_token(struct bns_etcd *c, int status, const char *text);
void bns_etcd_calls_end(struct bns_etcd *c);
void bns_etcd_streams_end(struct bns_etcd *c);

#endif
