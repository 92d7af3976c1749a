/* discovery.c - see discovery.h. As in etcd: _etcd-server-ssl._tcp.DOMAIN names members with https,
 * _etcd-server._tcp.DOMAIN those with http; with --discovery-srv-name S "-S" stands behind both.
 *
 * A record has no name of a member. We are the one at whose address we say we are found (by
 *   --initial-advertise-peer-urls, address and port); the others are called 0, 1, ...: names are no
 *   part of any id, and each member tells its own once it runs.
 * All members must see the same records: ids are made of them. So here, other than in etcd, nothing
 *   is left out because a name server does not answer or a host has no address: the start fails.
 * What was found is kept in DATA-DIR/discovered, before the directory gets its identity. From then
 *   on no name server is asked: as in etcd the records are for the first start alone. A start that
 *   came to no identity looks up again. A directory that became a member's in another way (restored
 *   from a snapshot, or started with --initial-cluster) has to be told its members that way.
 */
#include "discovery.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "identity.h"
#include "io/srv.h"
#include "store/vfs_posix.h"

#define KEPT "discovered"
#define TEXT_MAX (ETCD_MEMBERS_MAX * (BNS_HOST_MAX + 64u))
#define ADDRS_MAX 16u

struct found {
    struct etcd_options *o;
    struct etcd_urls own; /* as advertised */
    struct bns_buf text;
    unsigned others;
    bool self;
};

/* ---- who we are ------------------------------------------------------------------------------ */

static int addresses(const char *host, uint16_t port, struct addrinfo **out, struct bns_err *err)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    char service[8];
    int rv;

    (void)snprintf(service, sizeof service, "%u", port); /* fits */
    *out = NULL;
    rv = getaddrinfo(host, service, &hints, out);
    if (rv != 0)
        return bns_err_set(err, BNS_E_NOTFOUND, "lookup %s: %s", host, gai_strerror(rv));
    return BNS_OK;
}

static bool share(const struct addrinfo *a, const struct addrinfo *b)
{
    for (; a != NULL; a = a->ai_next) {
        for (const struct addrinfo *c = b; c != NULL; c = c->ai_next) {
            if (a->ai_addrlen == c->ai_addrlen &&
                memcmp(a->ai_addr, c->ai_addr, a->ai_addrlen) == 0)
                return true;
        }
    }
    return false;
}

/* The advertised URL that leads to the same place as the record; "": none. */
static int match(const struct found *f, const struct bns_srv *srv, const char **url,
                 struct bns_err *err)
{
    struct addrinfo *theirs, *ours;
    int rv = addresses(srv->target, srv->port, &theirs, err);

    *url = "";
    for (size_t i = 0; rv == BNS_OK && (*url)[0] == '\0' && i < f->own.count; i++) {
        struct etcd_url u;

        rv = etcd_url_parse(f->own.url[i], &u, err);
        if (rv == BNS_OK && u.port == srv->port) {
            rv = addresses(u.host, u.port, &ours, err);
            if (rv == BNS_OK && share(theirs, ours))
                *url = f->own.url[i];
            if (rv == BNS_OK)
                freeaddrinfo(ours);
        }
    }
    if (theirs != NULL)
        freeaddrinfo(theirs);
    return rv;
}

/* ---- the records ----------------------------------------------------------------------------- */

static int add(struct found *f, const struct bns_srv *srv, const char *scheme, const char *service,
               struct bns_err *err)
{
    const char *url, *comma = f->text.len == 0 ? "" : ",";
    char number[16];
    int rv = match(f, srv, &url, err);

    if (rv != BNS_OK)
        return rv;
    if (url[0] != '\0' && (strncmp(url, scheme, strlen(scheme)) != 0 || url[strlen(scheme)] != ':'))
        return bns_err_set(err, BNS_E_INVALID,
                           "bootstrap at %s://%s:%u from DNS for %s has scheme mismatch with "
                           "expected peer %s",
                           scheme, srv->target, srv->port, service, url);
    f->self = f->self || url[0] != '\0';
    do {
        (void)snprintf(number, sizeof number, "%u", f->others++); /* fits */
    } while (strcmp(number, f->o->name) == 0);
    if (bns_buf_fmt(&f->text, "%s%s=%s://%s:%u", comma, url[0] != '\0' ? f->o->name : number,
                    scheme, srv->target, srv->port) != BNS_OK)
        return bns_err_set(err, BNS_E_INVALID, "more members than %u", ETCD_MEMBERS_MAX);
    return BNS_OK;
}

/* BNS_E_NOTFOUND: there are no such records. */
static int ask(struct found *f, struct bns_prng *prng, const char *scheme, const char *service,
               struct bns_err *err)
{
    const struct etcd_more *m = &f->o->more;
    struct bns_srv srv[BNS_SRV_MAX];
    char name[1024];
    size_t count = 0;
    int len = snprintf(name, sizeof name, "_%s%s%s._tcp.%s", service,
                       m->discovery_srv_name[0] == '\0' ? "" : "-", m->discovery_srv_name,
                       m->discovery_srv);
    int rv = len < 0 || (size_t)len >= sizeof name
                 ? bns_err_set(err, BNS_E_INVALID, "the name is too long")
                 : bns_srv_lookup(name, prng, srv, &count, err);

    if (rv == BNS_E_NOTFOUND) {
        bns_err_wrap(err, "error querying DNS SRV records for _%s", service);
        return rv;
    }
    for (size_t i = 0; rv == BNS_OK && i < count; i++) {
        rv = add(f, &srv[i], scheme, service, err);
        rv = rv == BNS_E_NOTFOUND ? BNS_E_IO : rv; /* of the host: the record is there */
    }
    if (rv != BNS_OK)
        bns_err_wrap(err, "error querying DNS SRV records for _%s", service);
    return rv;
}

static int look_up(struct found *f, struct bns_err *err)
{
    struct bns_err plain = {0};
    struct bns_prng prng;
    int tls, rv;

    bns_prng_seed(&prng, 0); /* members are sorted: the order means nothing */
    tls = ask(f, &prng, "https", "etcd-server-ssl", err);
    if (tls != BNS_OK && tls != BNS_E_NOTFOUND)
        return tls;
    rv = ask(f, &prng, "http", "etcd-server", &plain);
    if (rv == BNS_E_NOTFOUND)
        return tls; /* with the text of the first, as etcd */
    if (rv != BNS_OK) {
        *err = plain;
        return rv;
    }
    return BNS_OK;
}

/* ---- what is kept ---------------------------------------------------------------------------- */

static int path_of(const struct etcd_options *o, char out[BNS_PATH_MAX], struct bns_err *err)
{
    int len = snprintf(out, BNS_PATH_MAX, "%s/" KEPT, o->data_dir);

    if (len < 0 || len >= BNS_PATH_MAX)
        return bns_err_set(err, BNS_E_INVALID, "%s: the path is too long", o->data_dir);
    return BNS_OK;
}

/* BNS_E_NOTFOUND: nobody's yet. */
static int whose(const struct etcd_options *o, struct bns_vfs *vfs, struct bns_err *err)
{
    struct etcd_identity *is = bns_alloc(bns_alloc_libc(), sizeof *is);
    int rv = is == NULL ? bns_err_set(err, BNS_E_NOMEM, "out of memory")
                        : etcd_identity_read(vfs, o->data_dir, is, err);

    bns_free(bns_alloc_libc(), is);
    return rv;
}

static int read_file(struct found *f, struct bns_vfs *vfs, struct bns_err *err)
{
    char path[BNS_PATH_MAX], text[TEXT_MAX + 1];
    struct bns_file *file = NULL;
    size_t got = 0;
    int rv = path_of(f->o, path, err);

    if (rv == BNS_OK)
        rv = bns_vfs_open(vfs, path, BNS_OPEN_READ, &file, err);
    if (rv == BNS_OK)
        rv = bns_file_read_at(file, 0, text, sizeof text, &got, err);
    if (rv == BNS_OK &&
        (got < 2 || got == sizeof text || text[got - 1] != '\n' || memchr(text, '\0', got) != NULL))
        rv = bns_err_set(err, BNS_E_CORRUPT, "%s: damaged", path);
    if (rv == BNS_OK)
        rv = bns_buf_add(&f->text, text, got - 1);
    bns_file_close(file);
    return rv;
}

/* BNS_E_NOTFOUND: the directory is nobody's yet. */
static int read_kept(struct found *f, struct bns_err *err)
{
    struct bns_vfs *vfs = bns_vfs_posix(bns_alloc_libc());
    int rv = vfs == NULL ? bns_err_set(err, BNS_E_NOMEM, "out of memory") : whose(f->o, vfs, err);

    if (rv == BNS_OK) {
        rv = read_file(f, vfs, err);
        if (rv == BNS_E_NOTFOUND)
            rv = bns_err_set(err, BNS_E_INVALID,
                             "%s is a member's already, and was not found by SRV records: start it "
                             "with --initial-cluster",
                             f->o->data_dir);
    }
    bns_vfs_posix_free(vfs);
    return rv;
}

int etcd_discovery_keep(const struct etcd_options *o, struct bns_vfs *vfs, struct bns_err *err)
{
    char path[BNS_PATH_MAX];
    struct bns_buf text;
    int rv;

    if (!o->discovered || o->memory)
        return BNS_OK;
    bns_buf_init(&text, bns_alloc_libc(), TEXT_MAX + 1);
    rv = path_of(o, path, err);
    if (rv == BNS_OK)
        rv = bns_buf_fmt(&text, "%s\n", o->initial_cluster);
    if (rv == BNS_OK)
        rv = etcd_identity_file(vfs, o->data_dir, path, bns_buf_slice(&text), err);
    bns_buf_free(&text);
    return rv;
}

int etcd_discover(struct etcd_options *o, struct bns_arena *arena, struct bns_err *err)
{
    struct found f = {.o = o};
    int rv;

    if (o->initial_cluster != NULL && o->initial_cluster[0] != '\0')
        return bns_err_set(err, BNS_E_INVALID,
                           "multiple discovery or bootstrap flags are set. Choose one of "
                           "\"initial-cluster\", \"discovery\" or \"discovery-srv\"");
    bns_buf_init(&f.text, bns_alloc_libc(), TEXT_MAX);
    rv = etcd_urls_parse(o->initial_advertise_peer_urls, &f.own, err);
    if (rv != BNS_OK)
        bns_err_wrap(err, "--initial-advertise-peer-urls");
    if (rv == BNS_OK)
        rv = o->memory ? BNS_E_NOTFOUND : read_kept(&f, err);
    if (rv == BNS_E_NOTFOUND) {
        rv = look_up(&f, err);
        if (rv == BNS_OK && !f.self)
            rv = bns_err_set(err, BNS_E_INVALID,
                             "cannot find local etcd member \"%s\" in SRV records", o->name);
        if (rv != BNS_OK)
            bns_err_wrap(err, "error setting up initial cluster");
        o->discovered = rv == BNS_OK;
    }
    if (rv == BNS_OK) {
        o->initial_cluster = bns_arena_dup(arena, (const char *)f.text.ptr, f.text.len);
        rv = o->initial_cluster != NULL ? BNS_OK : bns_err_set(err, BNS_E_NOMEM, "out of memory");
    }
    bns_buf_free(&f.text);
    return rv;
}
