/* roster.c - the members as the store has them, and in the forms others want them.
 */
#include <stdio.h>

#include "base/varint.h"
#include "cluster.h"
#include "codec/pb.h"
#include "kv_bucket.h"
#include "server.h"

static void take_url(struct etcd_urls *urls, struct bns_slice url)
{
    if (urls->count == ETCD_URLS_MAX || url.len >= ETCD_URL_MAX)
        return; /* never let in: cluster.c and members.c bound them */
    memcpy(urls->url[urls->count], url.ptr, url.len);
    urls->url[urls->count++][url.len] = 0;
}

static void take_name(struct etcd_roster_member *m, struct bns_slice name)
{
    size_t len = name.len < ETCD_NAME_MAX ? name.len : ETCD_NAME_MAX - 1;

    if (len == 0)
        return;
    memcpy(m->name, name.ptr, len);
    m->name[len] = 0;
}

/* What it has published stands above what the others said when the cluster was made. */
static void take_published(struct etcd_roster_member *m, struct bns_slice published)
{
    struct bns_pb_field f = {0};
    struct bns_slice attr = {0};

    while (published.len > 0 && bns_pb_next(&published, &f) == BNS_OK) {
        if (f.id == 2)
            attr = f.bytes;
    }
    while (attr.len > 0 && bns_pb_next(&attr, &f) == BNS_OK) {
        if (f.id == 1)
            take_name(m, f.bytes);
    }
}

void etcd_roster_take(struct bns_slice rest, struct etcd_roster_member *m)
{
    struct bns_pb_field f = {0};

    while (rest.len > 0 && bns_pb_next(&rest, &f) == BNS_OK) {
        if (f.id == 1)
            m->id = f.u64;
        else if (f.id == 2)
            take_name(m, f.bytes);
        else if (f.id == 3)
            take_url(&m->peer_urls, f.bytes);
        else if (f.id == 5)
            m->learner = f.u64 != 0;
    }
}

void etcd_roster_read(const struct etcd_server *s, struct etcd_roster *out)
{
    const struct etcd_members *flags = &s->opt->members;
    const struct etcd_bucket_row *row = NULL;

    memset(out, 0, sizeof *out);
    while (out->count < ETCD_ROSTER_MAX &&
           (row = etcd_bucket_next(s->kv, ETCD_BUCKET_MEMBERS, row)) != NULL)
        etcd_roster_take(etcd_bucket_value(row), &out->member[out->count++]);
    if (out->count == 0 && s->joined)
        *out = s->told;
    for (size_t i = 0; out->count == i && !s->joined && i < flags->count; i++) {
        struct etcd_roster_member *m = &out->member[out->count++];

        m->id = flags->member[i].id;
        take_name(m, bns_slice_str(flags->member[i].name));
        m->peer_urls = flags->member[i].peer_urls;
    }
    for (size_t i = 0; i < out->count; i++)
        take_published(&out->member[i], etcd_kv_member(s->kv, out->member[i].id));
}

_Static_assert(ETCD_ROSTER_MAX == BNS_RAFT_PEERS_MAX, "as many as Raft takes");
_Static_assert(ETCD_URLS_MAX <= BNS_RPC_ADDRS_MAX, "every peer URL is dialled");

int etcd_peer_addr(uint64_t id, const struct etcd_urls *urls, struct bns_raft_peer_addr *out,
                   struct bns_err *err)
{
    *out = (struct bns_raft_peer_addr){.id = id, .more_count = urls->count - 1};
    out->tls = strncmp(urls->url[0], "https:", 6) == 0;
    for (size_t k = 0; k < urls->count; k++) {
        struct etcd_url u;
        int rv = etcd_url_parse(urls->url[k], &u, err);

        if (rv != BNS_OK)
            return rv;
        memcpy(k == 0 ? out->host : out->more[k - 1].host, u.host, sizeof u.host);
        *(k == 0 ? &out->port : &out->more[k - 1].port) = u.port;
    }
    return BNS_OK;
}

/* ---- as messages ---------------------------------------------------------------------------- */

/* Attributes, which are 2 of what was published: client URLs (2) become 4. */
static int put_client_urls(struct bns_slice published, struct bns_buf *out)
{
    struct bns_pb_field f = {0};
    struct bns_slice attr = {0};
    int rv = BNS_OK;

    while (rv == BNS_OK && published.len > 0) {
        rv = bns_pb_next(&published, &f);
        if (rv == BNS_OK && f.id == 2)
            attr = f.bytes;
    }
    while (rv == BNS_OK && attr.len > 0) {
        rv = bns_pb_next(&attr, &f);
        if (rv == BNS_OK && f.id == 2)
            rv = bns_pb_put_bytes(out, 4, f.bytes);
    }
    return rv;
}

int etcd_roster_put_one(const struct etcd_server *s, uint32_t field,
                        const struct etcd_roster_member *m, struct bns_buf *out)
{
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, s->env->alloc, 32768);
    rv = bns_pb_put_u64(&b, 1, m->id);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes(&b, 2, bns_slice_str(m->name));
    for (size_t i = 0; rv == BNS_OK && i < m->peer_urls.count; i++)
        rv = bns_pb_put_bytes(&b, 3, bns_slice_str(m->peer_urls.url[i]));
    if (rv == BNS_OK)
        rv = put_client_urls(etcd_kv_member(s->kv, m->id), &b);
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(&b, 5, m->learner ? 1 : 0);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes_always(out, field, bns_buf_slice(&b));
    bns_buf_free(&b);
    return rv;
}

int etcd_roster_put(const struct etcd_server *s, uint32_t field, struct bns_buf *out)
{
    struct etcd_roster r;
    int rv = BNS_OK;

    etcd_roster_read(s, &r);
    for (size_t i = 0; rv == BNS_OK && i < r.count; i++)
        rv = etcd_roster_put_one(s, field, &r.member[i], out);
    return rv;
}
