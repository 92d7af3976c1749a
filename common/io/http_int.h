/* http_int.h - what the files of the HTTP server share. Nobody else includes this. */
#ifndef BNS_IO_HTTP_INT_H
#define BNS_IO_HTTP_INT_H

#include "io/http.h"

#include "base/rcbuf.h"

struct bns_http_conn {
    struct bns_http_server *s; /* NULL: freed; only on_close is awaited */
    struct bns_env *env;
    struct bns_stream *stream;
    struct bns_list node; /* s->conns */
    struct bns_timer timer;
    struct bns_timer resume;
    struct bns_http_req *q; /* the message that is read or answered now */
    struct bns_buf pend;    /* bytes of later messages, or of a body that is held back */
    uint64_t sent;          /* bytes given to the stream */
    uint64_t taken_last;    /* of them, by the kernel, at the last look; UINT64_MAX: all */
    bool running;           /* the parse loop is on the stack */
    bool closing;           /* nothing is read or answered any more */
    bool unread;            /* reading is off: pend is full */
};

struct bns_http_req {
    struct bns_http1 parser; /* this and the next three are kept from one use to the next */
    struct bns_buf body;
    struct bns_buf extra; /* header lines set by the handler */
    struct bns_env *env;
    struct bns_http_conn *c; /* NULL: gone */
    struct bns_list node;    /* s->cache */
    const struct bns_http_route *route;
    struct bns_slice path, query;
    void (*on_body)(void *arg, struct bns_slice data);
    void *on_body_arg;
    void (*on_writable)(void *arg);
    void *on_writable_arg;
    void (*on_gone)(void *arg);
    void *on_gone_arg;
    uint64_t length; /* of the answer, or BNS_HTTP_CHUNKED */
    uint64_t written;
    bool head_seen;
    bool handled;   /* the handler has it */
    bool ended;     /* the handler is through */
    bool body_done; /* the whole message was read */
    bool body_off;
    bool begun;    /* the head of the answer is out */
    bool bodiless; /* HEAD, 204, 304 */
    bool framed;   /* chunks */
    bool close;    /* the connection ends with this answer */
};

struct bns_http_server {
    struct bns_env *env;
    struct bns_http_config cfg;
    struct bns_list conns;
    struct bns_list cache; /* requests to use again */
    size_t cache_count;
    uint32_t conns_count;
    struct {
        const struct bns_http_route *v;
        size_t n;
    } tables[16];
    size_t tables_count;
    struct bns_tls_listener *listeners[BNS_HTTP_LISTENERS_MAX];
    size_t listeners_count;
    struct bns_buf scratch; /* heads are built here */
    int64_t date_s;
    char date[48];                  /* of date_s, HTTP form */
    struct bns_counter *answers[6]; /* by the first digit of the status */
    bool draining;
    struct bns_timer drain_timer;
    void (*drained)(void *arg);
    void *drained_arg;
};

/* http_server.c */
void bns_http_settle(struct bns_http_req *q); /* q->ended was set: last thing in a call */
void bns_http_conn_close(struct bns_http_conn *c, bool now);

/* http_route.c */
const struct bns_http_route *bns_http_find_route(const struct bns_http_server *s,
                                                 struct bns_slice method, struct bns_slice path);

#endif
