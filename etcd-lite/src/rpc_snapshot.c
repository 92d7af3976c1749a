/* rpc_snapshot.c - Maintenance.Snapshot: the whole store as the file that etcd itself would have.
 *
 * One call is one stream: the file in blobs of 32 KiB, then its SHA-256 as the last blob. A blob is
 * read from disk only when the one before has been taken by the transport, so a client that does
 * not read holds a file on disk, and a chunk or two in memory. How many files there may be at a
 * time is bounded, too. Members answer from their own store, as etcd's do.
 *
 * Who wants a place when there is none gets that of the client that has taken nothing for longest,
 * if that is at least STALL_NS; it is told what the other would have been.
 */
#include "base/buf.h"
#include "bolt_export.h"
#include "bolt_kv.h"
#include "codec/crypto.h"
#include "codec/pb.h"
#include "server.h"

#define CALLS_MAX 4u
#define QUEUED_MAX (64u * 1024)
#define STALL_NS (60 * BNS_SEC)
#define TEXT_STOPPED "etcdserver: server stopped"
#define TEXT_BUSY "etcdserver: too many requests"

struct snap_call {
    struct bns_list node; /* server.snapshots */
    struct etcd_server *s;
    struct bns_grpc_call *call;
    struct etcd_dump *dump;
    uint64_t left;     /* bytes of the file */
    uint64_t moved_ns; /* the last blob was given to the transport */
    bool opened, reading, digest;
};

/* Ends the call; c is gone. */
static void end(struct snap_call *c, int status, const char *text)
{
    struct etcd_server *s = c->s;

    bns_list_del(&c->node);
    s->snapshots_count--;
    bns_grpc_set_ctx(c->call, NULL);
    etcd_dump_close(c->dump);
    bns_grpc_finish(c->call, status, text, NULL, 0);
    bns_free(s->env->alloc, c);
}

static void pump(struct snap_call *c)
{
    if (!c->opened || c->reading || bns_grpc_queued(c->call) >= QUEUED_MAX)
        return;
    c->reading = true;
    etcd_dump_read(c->dump);
}

static int send_blob(struct snap_call *c, struct bns_slice blob)
{
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, c->s->env->alloc, ETCD_DUMP_CHUNK + 256);
    rv = bns_pb_put_u64(&b, 2, c->left);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes(&b, 3, blob);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes(&b, 4, BNS_LIT(ETCD_STORAGE_VERSION));
    if (rv == BNS_OK)
        rv = bns_grpc_send_copy(c->call, bns_buf_slice(&b));
    bns_buf_free(&b);
    return rv;
}

static void fail(struct snap_call *c, int code, const char *text)
{
    BNS_LOG(c->s->env->log, BNS_LOG_WARN, "etcd", "no snapshot for a client",
            BNS_STR("error", text));
    if (code == BNS_E_SHUTDOWN)
        end(c, BNS_GRPC_UNAVAILABLE, TEXT_STOPPED);
    else if (code == BNS_E_NOMEM || code == BNS_E_NOSPACE || code == BNS_E_TOOBIG)
        end(c, BNS_GRPC_RESOURCE_EXHAUSTED, text);
    else
        end(c, BNS_GRPC_UNKNOWN, text);
}

static void dumped(void *arg, int code, struct bns_slice bytes, const char *text)
{
    struct snap_call *c = arg;

    c->reading = false;
    if (code != BNS_OK) {
        fail(c, code, text);
        return;
    }
    if (!c->opened) {
        c->opened = true;
        c->left = etcd_dump_bytes(c->dump);
        BNS_LOG(c->s->env->log, BNS_LOG_INFO, "etcd", "sending database snapshot to client",
                BNS_U64("bytes", c->left));
        pump(c);
        return;
    }
    c->moved_ns = bns_now_ns(c->s->env);
    c->digest = c->left == 0;
    BNS_ASSERT(bytes.len <= c->left || c->digest);
    c->left -= c->digest ? 0 : bytes.len;
    code = send_blob(c, bytes);
    if (code != BNS_OK) { /* the client has gone, or there is no memory */
        fail(c, code, "out of memory");
    } else if (c->digest) {
        BNS_LOG(c->s->env->log, BNS_LOG_INFO, "etcd",
                "successfully sent database snapshot to client",
                BNS_U64("bytes", etcd_dump_bytes(c->dump)));
        end(c, BNS_GRPC_OK, "");
    } else {
        pump(c);
    }
}

static int open_dump(struct snap_call *c)
{
    struct etcd_server *s = c->s;
    struct etcd_roster roster;
    struct bns_buf members;
    int rv = BNS_OK;

    etcd_roster_read(s, &roster);
    bns_buf_init(&members, s->env->alloc, 1024 * 1024);
    for (size_t i = 0; rv == BNS_OK && i < roster.count; i++)
        rv = etcd_roster_put_one(s, 2, &roster.member[i], &members);
    if (rv == BNS_OK)
        rv = etcd_dump_open(s->kv, bns_buf_slice(&members), dumped, c, &c->dump);
    bns_buf_free(&members);
    return rv;
}

static void make_room(struct etcd_server *s)
{
    uint64_t now = bns_now_ns(s->env);
    struct snap_call *idle = NULL;

    if (s->snapshots_count < CALLS_MAX)
        return;
    BNS_LIST_EACH(n, &s->snapshots)
    {
        struct snap_call *c = BNS_CONTAINER(n, struct snap_call, node);

        if (c->opened && !c->reading && now - c->moved_ns >= STALL_NS &&
            (idle == NULL || c->moved_ns < idle->moved_ns))
            idle = c;
    }
    if (idle == NULL)
        return;
    BNS_LOG(s->env->log, BNS_LOG_WARN, "etcd", "a client takes nothing of its snapshot: ended",
            BNS_U64("left", idle->left));
    end(idle, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_BUSY);
}

static void on_message(struct bns_grpc_call *call, struct bns_slice msg)
{
    struct etcd_server *s = bns_grpc_arg(call);
    struct snap_call *c;

    if (etcd_decode(call, &etcdserverpb__snapshot_request__descriptor, msg) == NULL)
        return;
    if (s->stopping) {
        bns_grpc_finish(call, BNS_GRPC_UNAVAILABLE, TEXT_STOPPED, NULL, 0);
        return;
    }
    make_room(s);
    c = s->snapshots_count >= CALLS_MAX ? NULL : bns_alloc_zero(s->env->alloc, sizeof *c);
    if (c != NULL) {
        c->s = s;
        c->call = call;
    }
    if (c == NULL || open_dump(c) != BNS_OK) {
        bns_free(s->env->alloc, c);
        bns_grpc_finish(call, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_BUSY, NULL, 0);
        return;
    }
    bns_list_push(&s->snapshots, &c->node);
    s->snapshots_count++;
    bns_grpc_set_ctx(call, c);
}

static void on_writable(struct bns_grpc_call *call)
{
    struct snap_call *c = bns_grpc_ctx(call);

    if (c != NULL)
        pump(c);
}

static void on_end(struct bns_grpc_call *call, enum bns_grpc_end why)
{
    struct snap_call *c = bns_grpc_ctx(call);

    (void)why; /* of one that we ended, nothing is left to do */
    if (c != NULL)
        end(c, BNS_GRPC_CANCELLED, "");
}

void etcd_snapshots_end(struct etcd_server *s)
{
    while (!bns_list_empty(&s->snapshots))
        end(BNS_CONTAINER(s->snapshots.next, struct snap_call, node), BNS_GRPC_UNAVAILABLE,
            TEXT_STOPPED);
}

int etcd_snapshot_service(struct etcd_server *s)
{
    s->snapshot_methods[0] = (struct bns_grpc_method){
        .path = "/etcdserverpb.Maintenance/Snapshot",
        .kind = BNS_GRPC_SERVER_STREAM,
        .handler = {.on_message = on_message, .on_writable = on_writable, .on_end = on_end},
        .arg = s};
    return bns_grpc_server_methods(s->grpc, s->snapshot_methods, 1);
}
