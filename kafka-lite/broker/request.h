/* request.h - one request of a client: decoded, answered once, now or in any later turn.
 *
 * A handler is called with the request and owns it from then on. It ends it by one of the calls
 * below, exactly once; until then everything in it stays where it is. Answers leave in the order of
 * the requests of their connection, whatever the order in which they are given.
 *
 * Thread:  the loop.
 * Memory:  `msg` and what it points to live until the request ends. The answer and everything in it
 *          has to live until kafka_reply() returns, but for strings, bytes and records of more than
 *          1 KiB: these are sent from where they are, which has to last until the request is freed.
 *          What the handler takes from `arena` does; for memory of its own it sets `on_free`, which
 *          may only free: it may come when broker and server are not there any more.
 *
 * The client may go away before it is answered. The request then stays the handler's; `on_gone`,
 * when set, is told, so that what only waits can end at once.
 */
#ifndef KAFKA_BROKER_REQUEST_H
#define KAFKA_BROKER_REQUEST_H

#include "base/env.h"
#include "broker/errors.h"
#include "messages.h"
#include "wire/wire.h"

struct kafka_broker;
struct kafka_conn;
struct kafka_server;

/* Where clients come in, and what they are told to connect to. */
struct kafka_listener {
    const char *name; /* "PLAINTEXT" */
    char host[64];    /* numeric */
    uint16_t port;    /* 0: any free one; the real one once it listens */
    char advertised_host[256];
    uint16_t advertised_port; /* 0: the same as `port` */
};

struct kafka_request {
    struct kafka_broker *broker;
    struct bns_env *env;
    const struct kafka_api *api;
    struct kafka_form form;
    int32_t correlation;
    struct bns_slice client_id;            /* ptr NULL: none */
    const struct kafka_listener *listener; /* on which it came */
    void *msg;                             /* by api->request; the handler's to change */
    struct bns_arena arena;
    uint64_t arrived_ns;

    void *arg;                                /* the handler's, with both hooks; NULL at first */
    void (*on_gone)(struct kafka_request *q); /* the client is not there any more */
    void (*on_free)(struct kafka_request *q); /* nothing of the request is needed any more */
    struct bns_list waiting;                  /* the handler's: for a list of those it parks */

    /* The connection's. */
    struct kafka_conn *conn;     /* NULL: gone */
    struct kafka_server *server; /* NULL: gone too */
    struct bns_list node;        /* of the connection: those under way, then those being sent */
    uint8_t *frame;
    size_t frame_cap;
    struct kafka_bytes out;
    uint8_t state;
    const char *close_why; /* instead of an answer */
    bool unsupported;  /* ApiVersions of a version that is not served; msg is at its defaults, and
                       * the answer is one of version 0 (KIP-511) */
    uint64_t room[96]; /* the arena's first bytes */
};

/* `response` is encoded by q->api->response at q's version. When that fails (no memory, or more
 * than 2 GiB) the connection is closed. */
void kafka_reply(struct kafka_request *q, const void *response);
/* Nothing is sent (Produce with acks=0). */
void kafka_reply_nothing(struct kafka_request *q);
/* The connection is closed behind the answers of earlier requests; `why` goes to the log. */
void kafka_reply_close(struct kafka_request *q, const char *why);

/* From the request's arena, at its defaults. NULL: no memory; kafka_reply_close() is the answer. */
void *kafka_response_new(struct kafka_request *q);
/* An array of `count` zeroed elements (count >= 0; never NULL for 0). NULL: no memory. */
void *kafka_request_array(struct kafka_request *q, int32_t count, size_t size);
/* The peer's address as text, of at most 63 letters: "10.0.0.4". */
void kafka_request_peer(const struct kafka_request *q, char dst[64]);
/* What ApiVersions said; "" before. */
const char *kafka_request_software(const struct kafka_request *q);

typedef void kafka_handler_fn(struct kafka_request *q);

/* One served API. */
struct kafka_entry {
    int16_t key;
    int16_t first, last; /* versions */
    int16_t shown_first; /* what ApiVersions says instead of `first` (Produce says 0) */
    kafka_handler_fn *handle;
};

#endif
