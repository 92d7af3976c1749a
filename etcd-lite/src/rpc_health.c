/* rpc_health.c - grpc.health.v1.Health: Check, and Watch which says it again when it changes.
 *
 * As with etcd only the service "" has a state: SERVING while this member serves. Other names are
 * NOT_FOUND for Check and SERVICE_UNKNOWN for Watch. A stop tells those who watch NOT_SERVING.
 */
#include "codec/pb.h"
#include "rpc_health.h"
#include "server.h"

enum serving { SERVING = 1, NOT_SERVING = 2, SERVICE_UNKNOWN = 3 };

/* HealthCheckRequest{1: service}: is it the whole server that is asked for? False: the call has
 * been finished. */
static bool read_service(struct bns_grpc_call *c, struct bns_slice msg, bool *whole)
{
    struct bns_pb_field f = {0};

    *whole = true;
    while (msg.len > 0) {
        if (bns_pb_next(&msg, &f) != BNS_OK || (f.id == 1 && f.wire != 2)) {
            bns_grpc_finish(c, BNS_GRPC_INTERNAL,
                            "grpc: error unmarshalling request: damaged message", NULL, 0);
            return false;
        }
        if (f.id == 1)
            *whole = f.bytes.len == 0;
    }
    return true;
}

static int send(struct bns_grpc_call *c, enum serving what)
{
    const uint8_t msg[2] = {1 << 3, (uint8_t)what};

    return bns_grpc_send_copy(c, bns_slice(msg, sizeof msg));
}

static void on_check(struct bns_grpc_call *c, struct bns_slice msg)
{
    struct etcd_server *s = bns_grpc_arg(c);
    bool whole;

    if (!read_service(c, msg, &whole))
        return;
    if (!whole)
        bns_grpc_finish(c, BNS_GRPC_NOT_FOUND, "unknown service", NULL, 0);
    else if (send(c, s->stopping ? NOT_SERVING : SERVING) == BNS_E_NOMEM)
        bns_grpc_finish(c, BNS_GRPC_RESOURCE_EXHAUSTED, "etcdserver: out of memory", NULL, 0);
    else
        bns_grpc_finish(c, BNS_GRPC_OK, NULL, NULL, 0);
}

struct watcher {
    struct bns_list node;
    struct bns_grpc_call *call;
};

static void end(struct watcher *w, int status, const char *text)
{
    bns_list_del(&w->node); /* its memory is the call's */
    bns_grpc_set_ctx(w->call, NULL);
    bns_grpc_finish(w->call, status, text, NULL, 0);
}

static void on_watch(struct bns_grpc_call *c, struct bns_slice msg)
{
    struct etcd_server *s = bns_grpc_arg(c);
    struct watcher *w = bns_arena_alloc(bns_grpc_arena(c), sizeof *w);
    bool whole;

    if (w == NULL) {
        bns_grpc_finish(c, BNS_GRPC_RESOURCE_EXHAUSTED, "etcdserver: out of memory", NULL, 0);
        return;
    }
    if (!read_service(c, msg, &whole))
        return;
    w->call = c;
    bns_grpc_set_ctx(c, w);
    bns_list_push(&s->health.watchers, &w->node);
    if (s->stopping)
        end(w, BNS_GRPC_UNAVAILABLE, "etcdserver: server stopped");
    else if (send(c, whole ? SERVING : SERVICE_UNKNOWN) == BNS_E_NOMEM)
        end(w, BNS_GRPC_RESOURCE_EXHAUSTED, "etcdserver: out of memory");
}

static void on_watch_end(struct bns_grpc_call *c, enum bns_grpc_end why)
{
    struct watcher *w = bns_grpc_ctx(c);

    if (w != NULL && why != BNS_GRPC_END_DONE)
        end(w, BNS_GRPC_CANCELLED, "context canceled");
}

void etcd_health_end(struct etcd_server *s)
{
    while (!bns_list_empty(&s->health.watchers)) {
        struct watcher *w = BNS_CONTAINER(s->health.watchers.next, struct watcher, node);

        if (send(w->call, NOT_SERVING) != BNS_OK)
            BNS_LOG(s->env->log, BNS_LOG_DEBUG, "etcd",
                    "a health watcher was not told of the stop");
        end(w, BNS_GRPC_UNAVAILABLE, "etcdserver: server stopped");
    }
}

int etcd_health_service(struct etcd_server *s)
{
    struct bns_grpc_method *m = s->health.methods;

    bns_list_init(&s->health.watchers);
    m[0] = (struct bns_grpc_method){.path = "/grpc.health.v1.Health/Check",
                                    .kind = BNS_GRPC_UNARY,
                                    .handler = {.on_message = on_check},
                                    .arg = s};
    m[1] = (struct bns_grpc_method){.path = "/grpc.health.v1.Health/Watch",
                                    .kind = BNS_GRPC_SERVER_STREAM,
                                    .handler = {.on_message = on_watch, .on_end = on_watch_end},
                                    .arg = s};
    return bns_grpc_server_methods(s->grpc, m, 2);
}
