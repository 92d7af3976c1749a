/* discovery.c - --discovery-srv DOMAIN: the endpoints that _etcd-client-ssl._tcp.DOMAIN (https) and
 * _etcd-client._tcp.DOMAIN (http) name, as etcdctl; with --discovery-srv-name S "-S" stands behind
 * both. With --insecure-discovery=false those with http are left out, loudly, and certificates must
 * be the domain's.
 */
#include "cli.h"

#include "io/srv.h"

struct found {
    const char *endpoints[CTL_ENDPOINTS_MAX];
    size_t count;
};

static int add(struct ctl *c, struct found *f, const char *scheme, const struct bns_srv *srv)
{
    /* as etcdctl has it: with the dot that says that the name is whole */
    const char *url = ctl_print(c, "%s://%s.:%u", scheme, srv->target, srv->port);

    if (!c->f.insecure_discovery && strcmp(scheme, "http") == 0) {
        (void)fprintf(stderr, "ignoring discovered insecure endpoint \"%s\"\n", url);
        return CTL_OK;
    }
    if (f->count == CTL_ENDPOINTS_MAX)
        return ctl_fail(CTL_ERROR, "more than %u endpoints", CTL_ENDPOINTS_MAX);
    f->endpoints[f->count++] = url;
    return CTL_OK;
}

static int ask(struct ctl *c, const char *suffix, struct bns_prng *prng,
               struct bns_srv srv[BNS_SRV_MAX], size_t *count, struct bns_err *err)
{
    const char *more = c->f.discovery_name, *dash = more[0] == '\0' ? "" : "-";
    const char *name =
        ctl_print(c, "_etcd-client%s%s%s._tcp.%s", suffix, dash, more, c->f.discovery);

    return bns_srv_lookup(name, prng, srv, count, err);
}

int ctl_discover(struct ctl *c)
{
    struct bns_srv tls[BNS_SRV_MAX], plain[BNS_SRV_MAX];
    struct bns_err tls_err = {0}, plain_err = {0};
    size_t tls_count = 0, plain_count = 0;
    struct found f = {.count = 0};
    struct bns_prng prng;
    int tls_rv, plain_rv, code = CTL_OK;

    if (c->f.discovery[0] == '\0')
        return CTL_OK;
    code = ctl_prepare(c);
    if (code != CTL_OK)
        return code;
    prng = bns_prng_split(&c->env->prng);
    tls_rv = ask(c, "-ssl", &prng, tls, &tls_count, &tls_err);
    plain_rv = ask(c, "", &prng, plain, &plain_count, &plain_err);
    if (tls_rv != BNS_OK && plain_rv != BNS_OK)
        return ctl_fail(CTL_ERROR, "dns lookup errors: %s and %s", tls_err.text, plain_err.text);
    for (size_t i = 0; code == CTL_OK && tls_rv == BNS_OK && i < tls_count; i++)
        code = add(c, &f, "https", &tls[i]);
    for (size_t i = 0; code == CTL_OK && plain_rv == BNS_OK && i < plain_count; i++)
        code = add(c, &f, "http", &plain[i]);
    if (code == CTL_OK && f.count > 0) { /* else those of --endpoints stand */
        memcpy(c->f.endpoints, f.endpoints, sizeof f.endpoints);
        c->f.endpoints_count = f.count;
    }
    return code;
}
