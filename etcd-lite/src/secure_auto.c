/* secure_auto.c - --auto-tls and --peer-auto-tls: a side that makes its own certificate.
 *
 * As in etcd: cert.pem and key.pem in <data-dir>/fixtures/client and .../fixtures/peer, for the
 *   hosts of the side's listen URLs, made at the first start that finds no pair there and used as
 *   they are from then on; a certificate that was given wins, with a warning.
 * Members: nobody signed the others' certificates, so none is verified, neither by who dials nor
 *   by who is dialled; what lies on the wire is encrypted, and no more. Flags that would have them
 *   verified are void, which is said.
 * Clients: the server shows its own certificate, and asks for theirs when it was told to. (etcd
 *   forgets --client-cert-auth and --trusted-ca-file here, which would open the door.)
 */
#include <stdio.h>

#include "io/tls_self.h"
#include "options.h"
#include "store/vfs.h"

static bool given(const char *text)
{
    return text != NULL && *text != '\0';
}

static int join(struct bns_arena *arena, const char *dir, const char *rest, const char **out,
                struct bns_err *err)
{
    char text[BNS_PATH_MAX];
    int len = snprintf(text, sizeof text, "%s/%s", dir, rest);

    if (len < 0 || len >= (int)sizeof text)
        return bns_err_set(err, BNS_E_INVALID, "--data-dir %s: the path is too long", dir);
    *out = bns_arena_dup(arena, text, (size_t)len);
    return *out == NULL ? bns_err_set(err, BNS_E_NOMEM, "out of memory") : BNS_OK;
}

static int add_hosts(struct etcd_secure_side *s, const struct etcd_urls *urls,
                     struct bns_arena *arena, struct bns_err *err)
{
    for (size_t i = 0; i < urls->count; i++) {
        struct etcd_url u;
        int rv = etcd_url_parse(urls->url[i], &u, err);

        if (rv != BNS_OK)
            return rv;
        BNS_ASSERT(s->hosts_count < ETCD_SECURE_HOSTS);
        s->hosts[s->hosts_count] = bns_arena_dup(arena, u.host, strlen(u.host));
        if (s->hosts[s->hosts_count++] == NULL)
            return bns_err_set(err, BNS_E_NOMEM, "out of memory");
    }
    return BNS_OK;
}

static int use_fixtures(const struct etcd_options *o, struct etcd_secure_side *s, const char *name,
                        struct bns_arena *arena, struct bns_err *err)
{
    int rv = join(arena, o->data_dir, name, &s->fixtures, err);

    if (rv == BNS_OK)
        rv = join(arena, s->fixtures, "cert.pem", &s->cert_file, err);
    if (rv == BNS_OK)
        rv = join(arena, s->fixtures, "key.pem", &s->key_file, err);
    s->client_cert_file = s->client_key_file = NULL;
    return rv;
}

/* True: the side makes its certificate. */
static bool wanted(const struct etcd_options *o, const struct etcd_secure_side *s, const char *name)
{
    if (!s->auto_tls)
        return false;
    if (!given(s->cert_file) && !given(s->key_file))
        return true;
    etcd_options_warn(o, "ignoring %s auto TLS since certs given", name);
    return false;
}

int etcd_secure_auto_derive(struct etcd_options *o, struct bns_arena *arena, struct bns_err *err)
{
    struct etcd_secure_side *c = &o->secure.client, *p = &o->secure.peer;
    int rv = BNS_OK;

    if (wanted(o, c, "client")) {
        rv = use_fixtures(o, c, "fixtures/client", arena, err);
        if (rv == BNS_OK)
            rv = add_hosts(c, &o->client_urls, arena, err);
        if (rv == BNS_OK)
            rv = add_hosts(c, &o->client_http, arena, err);
    }
    if (rv != BNS_OK || !wanted(o, p, "peer"))
        return rv;
    if (p->client_cert_auth || given(p->trusted_ca_file) || given(p->allowed_cn) ||
        given(p->allowed_hostname) || given(p->crl_file))
        etcd_options_warn(o, "--peer-auto-tls: certificates of members are not verified: "
                             "--peer-client-cert-auth, --peer-trusted-ca-file, --peer-crl-file "
                             "and allowed names of members are ignored");
    p->client_cert_auth = false;
    p->trusted_ca_file = p->allowed_cn = p->allowed_hostname = p->crl_file = NULL;
    rv = use_fixtures(o, p, "fixtures/peer", arena, err);
    return rv == BNS_OK ? add_hosts(p, &o->peer_listen, arena, err) : rv;
}

static int make_dirs(struct bns_vfs *vfs, const char *fixtures, struct bns_err *err)
{
    char dir[BNS_PATH_MAX];
    size_t len = (size_t)(strrchr(fixtures, '/') - fixtures); /* <data-dir>/fixtures */
    size_t data_len;
    int rv;

    BNS_ASSERT(len < sizeof dir);
    memcpy(dir, fixtures, len);
    dir[len] = '\0';
    data_len = (size_t)(strrchr(dir, '/') - dir);
    dir[data_len] = '\0';
    rv = bns_vfs_mkdir(vfs, dir, err);
    dir[data_len] = '/';
    if (rv == BNS_OK)
        rv = bns_vfs_mkdir(vfs, dir, err);
    if (rv == BNS_OK)
        rv = bns_vfs_mkdir(vfs, fixtures, err);
    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(vfs, dir, err);
    dir[data_len] = '\0';
    return rv == BNS_OK ? bns_vfs_sync_dir(vfs, dir, err) : rv;
}

int etcd_secure_auto_make(struct bns_env *env, const struct etcd_secure_options *o,
                          const struct etcd_secure_side *s, struct bns_err *err)
{
    const struct bns_tls_self self = {
        .dir = s->fixtures,
        .organization = "etcd",
        .hosts = s->hosts,
        .hosts_count = s->hosts_count,
        .years = o->self_signed_years > UINT32_MAX ? UINT32_MAX : (uint32_t)o->self_signed_years};
    bool made = false;
    int rv;

    if (s->fixtures == NULL)
        return BNS_OK;
    rv = make_dirs(env->vfs, s->fixtures, err);
    if (rv == BNS_OK)
        rv = bns_tls_self(env, &self, &made, err);
    if (rv == BNS_OK && made)
        BNS_LOG(env->log, BNS_LOG_WARN, "etcd", "automatically generate certificates",
                BNS_STR("cert_file", s->cert_file), BNS_STR("key_file", s->key_file),
                BNS_U64("years", self.years));
    return rv;
}
