/* peer_http.c - what a member to come asks before it is one: GET /members and /version on the peer
 * port, as etcd answers them there.
 *
 * A new member knows its peer URLs and those of the others, no more. From the list it learns the id
 * that the cluster has given it, and from the header X-Etcd-Cluster-ID whose member it is.
 */
#include <inttypes.h>
#include <stdio.h>

#include "server.h"

#define LIST_MAX (1024u * 1024)

static int put_text(struct bns_buf *b, const char *text)
{
    return bns_buf_add(b, text, strlen(text));
}

/* URLs and names have been checked: neither quotes nor control bytes are in the URLs, and the name
 * is left out, which nobody asks for here. */
static int put_member(const struct etcd_roster_member *m, bool first, struct bns_buf *b)
{
    char id[64];
    int rv;

    (void)snprintf(id, sizeof id, "%s{\"id\":%" PRIu64 ",\"peerURLs\":[", first ? "" : ",", m->id);
    rv = put_text(b, id);
    for (size_t u = 0; rv == BNS_OK && u < m->peer_urls.count; u++) {
        rv = put_text(b, u == 0 ? "\"" : ",\"");
        if (rv == BNS_OK)
            rv = put_text(b, m->peer_urls.url[u]);
        if (rv == BNS_OK)
            rv = put_text(b, "\"");
    }
    return rv == BNS_OK ? put_text(b, m->learner ? "],\"isLearner\":true}" : "]}") : rv;
}

static void on_members(void *arg, struct bns_http_req *q)
{
    struct etcd_server *s = arg;
    struct etcd_roster r;
    struct bns_buf b;
    char cluster[24];
    int rv;

    etcd_roster_read(s, &r);
    bns_buf_init(&b, s->env->alloc, LIST_MAX);
    (void)snprintf(cluster, sizeof cluster, "%" PRIx64, s->cluster_id); /* fits */
    rv = bns_http_set_header(q, "X-Etcd-Cluster-ID", bns_slice_str(cluster));
    if (rv == BNS_OK)
        rv = put_text(&b, "[");
    for (size_t i = 0; rv == BNS_OK && i < r.count; i++)
        rv = put_member(&r.member[i], i == 0, &b);
    if (rv == BNS_OK)
        rv = put_text(&b, "]\n");
    if (rv == BNS_OK)
        bns_http_reply(q, 200, "application/json", bns_buf_slice(&b));
    else
        bns_http_reply_text(q, 503, "out of memory");
    bns_buf_free(&b);
}

static void on_version(void *arg, struct bns_http_req *q)
{
    (void)arg;
    bns_http_reply(q, 200, "application/json",
                   BNS_LIT("{\"etcdserver\":\"" ETCD_API_VERSION
                           "\",\"etcdcluster\":\"" ETCD_API_VERSION "\"}"));
}

int etcd_peer_http(struct etcd_server *s)
{
    int rv = bns_http_server_new(s->env, NULL, &s->peer_http);

    s->peer_routes[0] =
        (struct bns_http_route){.method = "GET", .path = "/members", .fn = on_members, .arg = s};
    s->peer_routes[1] =
        (struct bns_http_route){.method = "GET", .path = "/version", .fn = on_version, .arg = s};
    return rv == BNS_OK ? bns_http_server_routes(s->peer_http, s->peer_routes, 2) : rv;
}

void etcd_peer_http_adopt(void *arg, struct bns_stream *stream, struct bns_slice read_so_far)
{
    struct etcd_server *s = arg;

    bns_http_server_adopt(s->peer_http, stream, read_so_far);
}
