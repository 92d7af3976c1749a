/* grpc_client.h - what grpc_client.c and grpc_ccall.c share. Nobody else includes this. */
#ifndef BNS_IO_GRPC_CLIENT_H
#define BNS_IO_GRPC_CLIENT_H

#include "io/grpc_impl.h"

#define BNS_GRPC_CCALL_INLINE 512u
#define BNS_GRPC_CLIENT_MSG_MAX (128u * 1024 * 1024)

struct bns_grpc_cconn {
    struct bns_h2 h;                /* first */
    struct bns_grpc_client *client; /* NULL once the client is freed */
    struct bns_list node;
    uint64_t dial_ns; /* when it was dialled */
    bool was_open;
};

struct bns_grpc_client {
    struct bns_env *env;
    struct bns_h2_hub *hub;
    struct bns_list conns;
    struct bns_grpc_cconn *current; /* takes new calls; NULL: dial */
    struct bns_list ended;          /* calls that owe on_status */
    struct bns_grpc_ccall *pool;
    uint32_t pool_count;
    struct bns_task tell;
    uint32_t refs; /* the owner, and the task while it is posted */
    bool freed;
    struct bns_tls *tls; /* NULL: plain */
    uint16_t port;
    char host[64];
    char server_name[256]; /* empty: the host */
    char authority[80];
};

struct bns_grpc_ccall {
    struct bns_h2_stream s; /* first */
    struct bns_grpc_client *client;
    struct bns_list node; /* client->ended */
    struct bns_grpc_ccall *next;
    const struct bns_grpc_client_handler *handler;
    void *arg;
    struct bns_timer timer;
    struct bns_grpc_field *fields; /* headers and trailers of the response */
    const char *message;
    int status; /* -1: not known yet */
    int http_status;
    bool ended;
    bool unsent; /* no server has begun it */
    bool bad_md;
    struct bns_arena arena;
    _Alignas(16) uint8_t space[BNS_GRPC_CCALL_INLINE];
};

extern const struct bns_h2_role bns_grpc_client_role;

/* grpc_client.c */
BNS_MUST_CHECK int bns_grpc_client_conn(struct bns_grpc_client *c, struct bns_grpc_cconn **out);
void bns_grpc_client_ended(struct bns_grpc_client *c, struct bns_grpc_ccall *call);

/* grpc_ccall.c */
int bns_grpc_ccall_header(struct bns_h2_stream *s, nghttp2_headers_category cat,
                          struct bns_slice name, struct bns_slice value);
void bns_grpc_ccall_headers_end(struct bns_h2_stream *s, nghttp2_headers_category cat, bool end);
void bns_grpc_ccall_message(struct bns_h2_stream *s, struct bns_slice msg);
void bns_grpc_ccall_bad(struct bns_h2_stream *s, int status, const char *text);
void bns_grpc_ccall_eof(struct bns_h2_stream *s);
int bns_grpc_ccall_last(struct bns_h2_stream *s, uint32_t *data_flags);
void bns_grpc_ccall_sent(struct bns_h2_stream *s);
void bns_grpc_ccall_writable(struct bns_h2_stream *s);
void bns_grpc_ccall_closed(struct bns_h2_stream *s, uint32_t code);
void bns_grpc_ccall_deliver(struct bns_grpc_ccall *c); /* on_status, then frees the call */
void bns_grpc_ccall_pool_free(struct bns_grpc_client *c);

#endif
