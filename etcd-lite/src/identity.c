/* identity.c - see identity.h. */
#include "identity.h"

#include <inttypes.h>
#include <stdio.h>

#include "restore.h"

#define FORMAT 1u
#define TEXT_MAX (2048u + ETCD_ROSTER_MAX * (64u + ETCD_URLS_MAX * ETCD_URL_MAX))

int etcd_identity_file(struct bns_vfs *vfs, const char *dir, const char *path,
                       struct bns_slice text, struct bns_err *err)
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

static int parse_told(const char *path, const char *text, struct etcd_roster *out,
                      struct bns_err *err)
{
    while (*text != 0) {
        struct etcd_roster_member *m = &out->member[out->count];
        const char *end = strchr(text, '\n');
        char urls[ETCD_URLS_MAX * ETCD_URL_MAX];
        size_t len = 0;
        char kind[8];
        int at = 0;

        if (end == NULL || out->count == ETCD_ROSTER_MAX ||
            sscanf(text, "%7s %" SCNx64 " %n", kind, &m->id, &at) != 2 || at == 0 ||
            text + at >= end)
            return bns_err_set(err, BNS_E_CORRUPT, "%s: damaged identity file", path);
        m->learner = strcmp(kind, "learner") == 0;
        if (!m->learner && strcmp(kind, "peer") != 0)
            return bns_err_set(err, BNS_E_CORRUPT, "%s: damaged identity file", path);
        len = (size_t)(end - text) - (size_t)at;
        if (len >= sizeof urls)
            return bns_err_set(err, BNS_E_CORRUPT, "%s: damaged identity file", path);
        memcpy(urls, text + at, len);
        urls[len] = 0;
        if (etcd_urls_parse(urls, &m->peer_urls, err) != BNS_OK)
            return bns_err_set(err, BNS_E_CORRUPT, "%s: damaged identity file", path);
        out->count++;
        text = end + 1;
    }
    return BNS_OK;
}

static size_t print_told(const struct etcd_roster *r, char *text, size_t size)
{
    size_t len = 0;

    for (size_t i = 0; i < r->count; i++) {
        const struct etcd_roster_member *m = &r->member[i];

        len += (size_t)snprintf(text + len, size - len, "%s %016" PRIx64 " ",
                                m->learner ? "learner" : "peer", m->id);
        for (size_t u = 0; u < m->peer_urls.count; u++)
            len += (size_t)snprintf(text + len, size - len, "%s%s", u == 0 ? "" : ",",
                                    m->peer_urls.url[u]);
        len += (size_t)snprintf(text + len, size - len, "\n");
    }
    return len; /* it fits: TEXT_MAX */
}

static int parse(const char *path, const char *text, struct etcd_identity *out, struct bns_err *err)
{
    unsigned format = 0;
    int end = 0;

    if (strcmp(text, ETCD_RESTORE_UNFINISHED) == 0)
        return bns_err_set(err, BNS_E_CORRUPT,
                           "%s: a restore into this directory was not finished: remove the "
                           "directory and restore again",
                           path);
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
    if (sscanf(text, "etcd-lite format %u cluster %" SCNx64 " member %" SCNx64 "%n", &format,
               &out->cluster_id, &out->member_id, &end) != 3 ||
        text[end] != '\n')
        return bns_err_set(err, BNS_E_CORRUPT, "%s: damaged identity file", path);
    if (strncmp(text + end, "\njoined\n", 8) != 0)
        return BNS_OK;
    out->joined = true;
    return parse_told(path, text + end + 8, &out->told, err);
}

static int compare(const char *path, const struct etcd_identity *is,
                   const struct etcd_identity *mine, struct bns_err *err)
{
    if (is->joined)
        return BNS_OK;
    if (is->cluster_id != mine->cluster_id)
        return bns_err_set(
            err, BNS_E_INVALID,
            "%s: the data belong to cluster %" PRIx64 ", the flags say cluster %" PRIx64
            ": use the --initial-cluster and --initial-cluster-token that made it, or "
            "another --data-dir",
            path, is->cluster_id, mine->cluster_id);
    if (is->member_id != mine->member_id)
        return bns_err_set(err, BNS_E_INVALID,
                           "%s: the data belong to member %" PRIx64
                           ", the flags say member %" PRIx64 ": use another --data-dir",
                           path, is->member_id, mine->member_id);
    return BNS_OK;
}

static int path_of(const char *dir, char out[BNS_PATH_MAX], struct bns_err *err)
{
    int len = snprintf(out, BNS_PATH_MAX, "%s/identity", dir);

    if (len < 0 || len >= BNS_PATH_MAX)
        return bns_err_set(err, BNS_E_INVALID, "%s: the path is too long", dir);
    return BNS_OK;
}

int etcd_identity_read(struct bns_vfs *vfs, const char *dir, struct etcd_identity *out,
                       struct bns_err *err)
{
    struct bns_file *f = NULL;
    char path[BNS_PATH_MAX], text[TEXT_MAX];
    size_t got = 0;
    int rv = path_of(dir, path, err);

    if (rv == BNS_OK)
        rv = bns_vfs_open(vfs, path, BNS_OPEN_READ, &f, err);
    if (rv != BNS_OK)
        return rv;
    rv = bns_file_read_at(f, 0, text, sizeof text - 1, &got, err);
    bns_file_close(f);
    text[got] = 0;
    memset(out, 0, sizeof *out);
    return rv == BNS_OK ? parse(path, text, out, err) : rv;
}

int etcd_identity_check(struct bns_vfs *vfs, const char *dir, const struct etcd_identity *mine,
                        struct etcd_identity *out, struct bns_err *err)
{
    char path[BNS_PATH_MAX], text[TEXT_MAX];
    size_t len;
    int rv = path_of(dir, path, err);

    if (rv != BNS_OK)
        return rv;
    rv = etcd_identity_read(vfs, dir, out, err);
    if (rv == BNS_OK)
        return compare(path, out, mine, err);
    if (rv != BNS_E_NOTFOUND)
        return rv;
    *out = *mine;
    len = (size_t)snprintf(
        text, sizeof text, "etcd-lite format %u\ncluster %016" PRIx64 "\nmember %016" PRIx64 "\n%s",
        FORMAT, mine->cluster_id, mine->member_id, mine->joined ? "joined\n" : "");
    if (mine->joined)
        len += print_told(&mine->told, text + len, sizeof text - len);
    return etcd_identity_file(vfs, dir, path, bns_slice(text, len), err);
}
