/* members.h - the static members of a cluster, and the ids that etcd derives from them.
 *
 * Member id = first 8 bytes, big endian, of SHA-1(sorted peer URLs of the member, concatenated,
 * then the cluster token). Cluster id = the same of the sorted member ids, each as 8 bytes big
 * endian. Scripts rely on these ids, so they are computed exactly as etcd does.
 *
 * Thread: any. Memory: fixed sizes, nothing allocated.
 */
#ifndef ETCD_MEMBERS_H
#define ETCD_MEMBERS_H

#include "base/err.h"
#include "base/host.h"
#include "base/slice.h"

#define ETCD_MEMBERS_MAX 9
#define ETCD_URLS_MAX 4
#define ETCD_URL_MAX 256
#define ETCD_NAME_MAX 128

struct etcd_urls {
    char url[ETCD_URLS_MAX][ETCD_URL_MAX];
    size_t count;
};

struct etcd_member {
    uint64_t id;
    char name[ETCD_NAME_MAX];
    struct etcd_urls peer_urls;
};

struct etcd_members {
    uint64_t cluster_id;
    struct etcd_member member[ETCD_MEMBERS_MAX]; /* sorted by id */
    size_t count;
};

/* Whoever belongs to a cluster: as many as Raft takes. */
#define ETCD_ROSTER_MAX 16

struct etcd_roster_member {
    uint64_t id;
    char name[ETCD_NAME_MAX]; /* empty: never started */
    struct etcd_urls peer_urls;
    bool learner;
};

struct etcd_roster {
    struct etcd_roster_member member[ETCD_ROSTER_MAX]; /* by id */
    size_t count;
};

/* A URL taken apart: "http://host:port"; the host is "127.0.0.1", "::1", "localhost", a name. */
struct etcd_url {
    bool tls;
    char host[BNS_HOST_MAX];
    uint16_t port;
};

/* BNS_E_INVALID: no scheme, another scheme than http and https, a host that is neither an address
 * nor a name, no port, a path. */
BNS_MUST_CHECK int etcd_url_parse(const char *url, struct etcd_url *out, struct bns_err *err);
/* "http://a:1,http://b:2", each checked, sorted. */
BNS_MUST_CHECK int etcd_urls_parse(const char *list, struct etcd_urls *out, struct bns_err *err);
/* --initial-cluster: "n1=http://a:2380,n2=http://b:2380"; a name may come again: another URL. */
BNS_MUST_CHECK int etcd_members_parse(const char *list, const char *token, struct etcd_members *out,
                                      struct bns_err *err);
const struct etcd_member *etcd_members_named(const struct etcd_members *m, const char *name);
const struct etcd_roster_member *etcd_roster_find(const struct etcd_roster *r, uint64_t id);
const struct etcd_member *etcd_members_find(const struct etcd_members *m, uint64_t id);

#endif
