/* server.h - listening, and the connections of clients: frames in, answers out in order.
 *
 *     size i32 | request header | body       ->   struct kafka_request (request.h)   ->   handler
 *     size i32 | response header | body      <-   kafka_reply()
 *
 * Bounds. A frame is at most request_bytes_max long and its buffer grows with what has come. Of one
 * connection at most requests_max requests are under way, and no more is read while answers of
 * more than KAFKA_CONN_OUT_MAX bytes wait to be sent. All connections together hold at most
 * inflight_bytes_max of requests, plus one each: above it no new frame is begun. A frame that
 * stands still is given up after frame_ns, a connection on which nothing moves after idle_ns.
 *
 * Bytes that are no request, an API that is not served or a version of it that is not: the
 * connection is closed, and one line of the log tells client, software, key and version.
 * ApiVersions alone is answered at any version (KIP-511).
 *
 * Thread:  the loop. Errors: of each call.
 */
#ifndef KAFKA_BROKER_SERVER_H
#define KAFKA_BROKER_SERVER_H

#include "broker/request.h"

#define KAFKA_CONN_OUT_MAX (1024u * 1024)
#define KAFKA_LISTENERS_MAX 4

struct kafka_server_cfg {
    uint32_t request_bytes_max; /* socket.request.max.bytes */
    uint32_t requests_max;      /* under way, of one connection */
    uint32_t conns_max;         /* max.connections */
    uint64_t inflight_bytes_max;
    uint64_t idle_ns;  /* connections.max.idle.ms; 0: never */
    uint64_t frame_ns; /* a frame of which nothing comes */
};
void kafka_server_cfg_default(struct kafka_server_cfg *cfg);

struct kafka_server_start {
    struct bns_env *env;
    struct kafka_broker *broker; /* given to the handlers */
    struct kafka_server_cfg cfg;
    const struct kafka_entry *entries; /* borrowed */
    size_t entries_count;
};

/* BNS_E_NOMEM. */
BNS_MUST_CHECK int kafka_server_new(const struct kafka_server_start *start,
                                    struct kafka_server **out);
/* `l` is borrowed until the end and learns its port. BNS_E_ADDRINUSE, BNS_E_INVALID. */
BNS_MUST_CHECK int kafka_server_listen(struct kafka_server *s, struct kafka_listener *l,
                                       struct bns_err *err);
/* No new connections and no new requests; what is under way is answered. */
void kafka_server_drain(struct kafka_server *s);
/* Called when a drained server has no request and no connection left, maybe more than once; from
 * within a call of the server: it must not be freed there. */
void kafka_server_on_quiet(struct kafka_server *s, void (*fn)(void *arg), void *arg);
/* Something that on_quiet waited for is over. */
void kafka_server_fed(struct kafka_server *s);
bool kafka_server_busy(const struct kafka_server *s); /* a request is not answered, or not sent */
/* Closes all connections. Requests of which a handler still has hold are ended by it later: free
 * the server only when there is none (kafka_server_requests() == 0). NULL is fine. */
void kafka_server_close(struct kafka_server *s);
void kafka_server_free(struct kafka_server *s);

size_t kafka_server_conns(const struct kafka_server *s);
size_t kafka_server_requests(
    const struct kafka_server *s); /* in the hands of handlers, or unsent */
uint64_t kafka_server_inflight(const struct kafka_server *s); /* bytes of requests */
const struct kafka_entry *kafka_server_entry(const struct kafka_server *s, int key);
const struct kafka_entry *kafka_server_entries(const struct kafka_server *s, size_t *count);

#endif
