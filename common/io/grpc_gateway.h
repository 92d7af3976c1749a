/* grpc_gateway.h - gRPC methods for clients that speak JSON over HTTP/1.1.
 *
 * POST of a JSON value to a path of the table is a call of its method: the value becomes the
 * request message (codec/pb_json.h has the mapping), the answer message becomes JSON. A method that
 * streams answers gives one line {"result":...} a message, and takes one JSON value after another,
 * before and after the answer has begun. The calls are local calls (grpc_local.h): whatever is
 * registered on the server is reached, with the same limits and deadlines; what is not answers 501.
 *
 * Metadata: "Authorization" as `authorization`, "Grpc-Metadata-X" as `x`; "Grpc-Timeout" is the
 *           deadline. Nothing else is passed on, and no certificate (bns_grpc_is_local()).
 * Errors:   {"error":text,"message":text,"code":gRPC code} with an HTTP status; in the middle of a
 *           stream one last line {"error":{...}}. Bad JSON and values that do not fit: 400, code 3.
 * Thread:   the env's loop.
 * Bounds:   a JSON value has at most twice the bytes of the method's message limit and 64 KiB more,
 *           and elements_max elements. Messages of the answer wait as bytes until the client has
 *           taken what went before, and are turned into JSON piece by piece: bns_grpc_queued()
 *           counts them, as for HTTP/2.
 */
#ifndef BNS_IO_GRPC_GATEWAY_H
#define BNS_IO_GRPC_GATEWAY_H

#include <protobuf-c/protobuf-c.h>

#include "io/grpc_local.h"
#include "io/http.h"

struct bns_grpc_gateway;

struct bns_grpc_gateway_path {
    const char *path;   /* "/v3/kv/range" */
    const char *method; /* "/etcdserverpb.KV/Range" */
    const ProtobufCMessageDescriptor *request, *answer;
};

struct bns_grpc_gateway_config {
    const struct bns_grpc_gateway_path *paths; /* borrowed for the gateway's life */
    size_t paths_count;
    /* Paths that begin with one of these (the last is NULL) are looked up with prefix_now instead.
     * NULL: none. */
    const char *const *prefixes_old;
    const char *prefix_now;
    size_t elements_max; /* of one JSON value: commas, colons, opening brackets; 0 = 65,536 */
};

/* BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_grpc_gateway_new(struct bns_env *env, struct bns_grpc_server *server,
                                        const struct bns_grpc_gateway_config *cfg,
                                        struct bns_grpc_gateway **out);
/* For routes: `arg` is the gateway. Method "*", `stream`, body_bytes_max UINT64_MAX. */
bns_http_fn bns_grpc_gateway_serve;
/* The HTTP status of a gRPC status. */
int bns_grpc_gateway_status(int grpc_status);
/* When no request is open: after the HTTP server is freed. NULL is fine. */
void bns_grpc_gateway_free(struct bns_grpc_gateway *g);

#endif
