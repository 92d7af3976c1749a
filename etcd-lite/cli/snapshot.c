/* snapshot.c - snapshot save: the server's stream of blobs into FILE.part, synced, renamed. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "io/env_uv.h"

struct saving {
    struct ctl *c;
    struct bns_etcd_stream *stream;
    int fd, code;
    const char *part;
    uint64_t bytes;
    bool over;
};

static void leave(struct saving *s, int code)
{
    s->code = code;
    s->over = true;
    bns_env_uv_stop(s->c->env);
}

static bool write_all(int fd, const uint8_t *p, size_t n)
{
    while (n > 0) {
        ssize_t w = write(fd, p, n);

        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return false;
        p += w;
        n -= (size_t)w;
    }
    return true;
}

static void on_blob(void *arg, struct bns_slice msg)
{
    struct saving *s = arg;
    const Etcdserverpb__SnapshotResponse *r;
    ProtobufCMessage *m;
    struct bns_arena arena;

    if (s->over)
        return;
    bns_arena_init(&arena, bns_alloc_libc(), SIZE_MAX);
    if (bns_etcd_unpack(BNS_ETCD_SNAPSHOT, msg, &arena, &m) != BNS_OK) {
        leave(s, ctl_fail(CTL_INTERRUPTED, "the server's answer cannot be read"));
    } else {
        r = (const void *)m;
        s->bytes += r->blob.len;
        if (!write_all(s->fd, r->blob.data, r->blob.len))
            leave(s, ctl_fail(CTL_INTERRUPTED, "write %s: %s", s->part, strerror(errno)));
    }
    bns_arena_free(&arena);
}

static void on_end(void *arg, int status, const char *text)
{
    struct saving *s = arg;

    s->stream = NULL;
    if (s->over)
        return;
    if (status != BNS_GRPC_OK)
        leave(s, ctl_fail(CTL_INTERRUPTED, "%s", ctl_error_text(s->c, status, text)));
    else if (s->bytes % 512 != 32)
        leave(s, ctl_fail(CTL_INTERRUPTED,
                          "sha256 checksum not found [bytes: %llu]: the snapshot is cut short",
                          (unsigned long long)s->bytes));
    else if (fsync(s->fd) != 0)
        leave(s, ctl_fail(CTL_INTERRUPTED, "fsync %s: %s", s->part, strerror(errno)));
    else
        leave(s, CTL_OK);
}

int ctl_snapshot_save(struct ctl *c, int argc, char **argv)
{
    static const struct bns_etcd_stream_handler handler = {on_blob, on_end};
    Etcdserverpb__SnapshotRequest req = ETCDSERVERPB__SNAPSHOT_REQUEST__INIT;
    struct saving s = {.c = c, .fd = -1};
    const struct bns_etcd_stream_options o = {.method = BNS_ETCD_SNAPSHOT,
                                              .first = &req.base,
                                              .last = true,
                                              .handler = &handler,
                                              .arg = &s};

    if (argc != 1)
        return ctl_fail(CTL_ARGS, "snapshot save expects one argument");
    if (c->f.endpoints_count != 1)
        return ctl_fail(CTL_ARGS, "snapshot must be requested to one selected node, not multiple");
    if (ctl_connect(c) != CTL_OK)
        return CTL_ARGS;
    s.part = ctl_print(c, "%s.part", argv[0]);
    s.fd = open(s.part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (s.fd < 0)
        return ctl_fail(CTL_INTERRUPTED, "could not open %s (open %s: %s)", s.part, s.part,
                        errno == ENOENT ? "no such file or directory" : strerror(errno));
    if (bns_etcd_stream_open(c->etcd, &o, &s.stream) == BNS_OK)
        bns_env_uv_run(c->env);
    else
        s.code = ctl_fail(CTL_ERROR, "out of memory");
    bns_etcd_stream_close(s.stream);
    if (close(s.fd) != 0 && s.code == CTL_OK)
        s.code = ctl_fail(CTL_INTERRUPTED, "close %s: %s", s.part, strerror(errno));
    if (s.code == CTL_OK && rename(s.part, argv[0]) != 0)
        s.code = ctl_fail(CTL_INTERRUPTED, "could not rename %s to %s (%s)", s.part, argv[0],
                          strerror(errno));
    if (s.code == CTL_OK)
        (void)printf("Snapshot saved at %s\n", argv[0]);
    else
        (void)unlink(s.part);
    return s.code;
}
