/* identity.c - see identity.h. */
#include "identity.h"

#include <inttypes.h>
#include <stdio.h>

#define FORMAT 1u

static int create(struct bns_vfs *vfs, const char *dir, const char *path, struct bns_slice text,
                  struct bns_err *err)
{
    struct bns_file *f = NULL;
    char tmp[BNS_PATH_MAX + 8];
    int rv;

    (void)snprintf(tmp, sizeof tmp, "%s.tmp", path); /* path is shorter than BNS_PATH_MAX */
    rv = bns_vfs_open(vfs, tmp, BNS_OPEN_CREATE | BNS_OPEN_WRITE | BNS_OPEN_TRUNC, &f, err);
    if (rv == BNS_OK)
        rv = bns_file_write_at(f, 0, &text, 1, err);
    if (rv == BNS_OK)
        rv = bns_file_sync(f, false, err);
    bns_file_close(f);
    if (rv == BNS_OK)
        rv = bns_vfs_rename(vfs, tmp, path, err);
    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(vfs, dir, err);
    return rv;
}

static int compare(const char *path, const char *text, uint64_t cluster_id, uint64_t member_id,
                   struct bns_err *err)
{
    unsigned format = 0;
    uint64_t cluster = 0, member = 0;

    if (sscanf(text, "etcd-lite format %u", &format) != 1)
        return bns_err_set(err, BNS_E_CORRUPT,
                           "%s: not an identity file of etcd-lite: is this "
                           "another program's directory?",
                           path);
    if (format > FORMAT)
        return bns_err_set(
            err, BNS_E_UNSUPPORTED,
            "%s: format %u is newer than this program's (%u): run the newer etcd-lite", path,
            format, FORMAT);
    if (sscanf(text, "etcd-lite format %u cluster %" SCNx64 " member %" SCNx64, &format, &cluster,
               &member) != 3)
        return bns_err_set(err, BNS_E_CORRUPT, "%s: damaged identity file", path);
    if (cluster != cluster_id)
        return bns_err_set(
            err, BNS_E_INVALID,
            "%s: the data belong to cluster %" PRIx64 ", the flags say cluster %" PRIx64
            ": use the --initial-cluster and --initial-cluster-token that made it, or "
            "another --data-dir",
            path, cluster, cluster_id);
    if (member != member_id)
        return bns_err_set(err, BNS_E_INVALID,
                           "%s: the data belong to member %" PRIx64
                           ", the flags say member %" PRIx64 ": use another --data-dir",
                           path, member, member_id);
    return BNS_OK;
}

int etcd_identity_check(struct bns_vfs *vfs, const char *dir, uint64_t cluster_id,
                        uint64_t member_id, struct bns_err *err)
{
    struct bns_file *f = NULL;
    char path[BNS_PATH_MAX], text[256];
    size_t got = 0;
    int len = snprintf(path, sizeof path, "%s/identity", dir);
    int rv;

    if (len < 0 || (size_t)len >= sizeof path)
        return bns_err_set(err, BNS_E_INVALID, "%s: the path is too long", dir);
    rv = bns_vfs_open(vfs, path, BNS_OPEN_READ, &f, err);
    if (rv == BNS_OK) {
        rv = bns_file_read_at(f, 0, text, sizeof text - 1, &got, err);
        bns_file_close(f);
        text[got] = 0;
        return rv != BNS_OK ? rv : compare(path, text, cluster_id, member_id, err);
    }
    if (rv != BNS_E_NOTFOUND)
        return rv;
    len = snprintf(text, sizeof text,
                   "etcd-lite format %u\ncluster %016" PRIx64 "\nmember %016" PRIx64 "\n", FORMAT,
                   cluster_id, member_id);
    return create(vfs, dir, path, bns_slice(text, (size_t)len), err);
}
