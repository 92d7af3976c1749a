/* conn.h - inside of the server: a connection and the server as conn.c, request.c, server.c see
 * them. */
#ifndef KAFKA_BROKER_CONN_H
#define KAFKA_BROKER_CONN_H

#include "base/buf.h"
#include "broker/server.h"

#define KAFKA_REST_MAX (1024u * 1024) /* read before it could be stopped */
#define KAFKA_ARENA_MAX (128u * 1024 * 1024)

enum { KAFKA_REQ_ASKED, KAFKA_REQ_ANSWERED, KAFKA_REQ_SENT };

struct kafka_conn {
    struct kafka_server *server; /* NULL: gone, the connection lives for its posted task alone */
    struct bns_env *env;
    const struct kafka_listener *listener;
    struct bns_stream *stream;
    struct bns_list node;   /* server->conns */
    struct bns_list hungry; /* server->hungry, when it waits for room */
    struct bns_list asked;  /* requests not answered, or behind such a one; in order */
    struct bns_list sent;   /* answers given to the stream */
    size_t asked_count;
    uint64_t out_bytes; /* of answers, encoded and not sent */

    uint8_t head[4]; /* of a frame: its length */
    size_t head_len;
    uint8_t *frame; /* NULL: none is begun */
    size_t frame_len, frame_cap, frame_size;
    struct bns_buf rest; /* behind what was read when reading stopped */

    struct bns_timer timer;
    uint64_t timer_ns; /* when it fires */
    uint64_t moved_ns; /* when a byte came or went */
    struct bns_task task;
    bool posted;
    bool off;       /* reading has stopped */
    bool consuming; /* in the loop over frames */
    bool closing;   /* no further request is taken */
    bool dead;      /* on_close was called */
    char software[64];
    char peer[64];
};

struct kafka_server {
    struct bns_env *env;
    struct kafka_broker *broker;
    struct kafka_server_cfg cfg;
    const struct kafka_entry *entries;
    size_t entries_count;
    struct {
        struct kafka_server *server;
        struct bns_listener *listener;
        struct kafka_listener *what;
    } listeners[KAFKA_LISTENERS_MAX];
    size_t listeners_count;
    struct bns_list conns, hungry;
    size_t conns_count;
    size_t requests;   /* not freed */
    uint64_t inflight; /* bytes of their frames, and of half ones */
    uint64_t warned_ns, refused_ns;
    bool draining;
    void (*on_quiet)(void *arg);
    void *on_quiet_arg;
};

/* conn.c */
BNS_MUST_CHECK int kafka_conn_new(struct kafka_server *s, const struct kafka_listener *l,
                                  struct bns_stream *stream);
void kafka_conn_flush(struct kafka_conn *c);  /* sends what is answered, in order */
bool kafka_conn_resume(struct kafka_conn *c); /* in a later turn, if it may read again */
void kafka_conn_stop(struct kafka_conn *c);   /* no further request; closes when all is sent */
/* Closes, behind the answers of earlier requests, with one line in the log. */
void kafka_conn_refuse(struct kafka_conn *c, const struct bns_err *err);
void kafka_conn_drop(struct kafka_conn *c); /* at once, from kafka_server_close() */
void kafka_conn_part(struct kafka_conn *c); /* the server goes: nothing of it is touched again */

/* request.c */
/* Makes a request of a whole frame, which becomes its own, and hands it to its handler. */
void kafka_request_begin(struct kafka_conn *c, uint8_t *frame, size_t len, size_t cap);
void kafka_request_free(struct kafka_request *q);

#endif
