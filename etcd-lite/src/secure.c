/* secure.c - see secure.h.
 *
 * As in etcd: https URLs need a certificate and a key, http URLs ignore them with a warning; a
 * trusted CA file alone asks clients for certificates, as --client-cert-auth does; one certificate
 * serves both ways between peers, unless another one is given to dial with.
 */
#include "secure.h"

#include <stdio.h>
#include <string.h>

#include "options.h"

/* ---- tables ---------------------------------------------------------------------------------- */
size_t etcd_secure_flags(struct etcd_secure_options *o, struct bns_cli_flag *out)
{
    struct etcd_secure_side *c = &o->client, *p = &o->peer;
    const struct bns_cli_flag flags[] = {
        {"cert-file", 0, BNS_VALUE_STR, &c->cert_file, "certificate for clients, PEM", NULL},
        {"key-file", 0, BNS_VALUE_STR, &c->key_file, "its key", NULL},
        {"client-cert-auth", 0, BNS_VALUE_BOOL, &c->client_cert_auth,
         "accept only clients with a certificate", NULL},
        {"trusted-ca-file", 0, BNS_VALUE_STR, &c->trusted_ca_file,
         "who must have signed the certificates of clients", NULL},
        {"client-cert-allowed-hostname", 0, BNS_VALUE_STR, &c->allowed_hostname,
         "name that the certificates of clients must have", NULL},
        {"peer-cert-file", 0, BNS_VALUE_STR, &p->cert_file, "certificate for other members", NULL},
        {"peer-key-file", 0, BNS_VALUE_STR, &p->key_file, "its key", NULL},
        {"peer-client-cert-file", 0, BNS_VALUE_STR, &p->client_cert_file,
         "certificate to dial members with, if another", NULL},
        {"peer-client-key-file", 0, BNS_VALUE_STR, &p->client_key_file, "its key", NULL},
        {"peer-client-cert-auth", 0, BNS_VALUE_BOOL, &p->client_cert_auth,
         "accept only members with a certificate", NULL},
        {"peer-trusted-ca-file", 0, BNS_VALUE_STR, &p->trusted_ca_file,
         "who must have signed the certificates of members", NULL},
        {"peer-cert-allowed-cn", 0, BNS_VALUE_STR, &p->allowed_cn,
         "common name that members must have", NULL},
        {"peer-cert-allowed-hostname", 0, BNS_VALUE_STR, &p->allowed_hostname,
         "name that the certificates of members must have", NULL},
        {"client-crl-file", 0, BNS_VALUE_STR, &c->crl_file,
         "revoked certificates of clients, PEM or DER", NULL},
        {"peer-crl-file", 0, BNS_VALUE_STR, &p->crl_file, "of other members", NULL},
        {"auto-tls", 0, BNS_VALUE_BOOL, &c->auto_tls,
         "make a certificate for clients in the data directory", NULL},
        {"peer-auto-tls", 0, BNS_VALUE_BOOL, &p->auto_tls,
         "likewise for other members, which is not verified", NULL},
        {"self-signed-cert-validity", 0, BNS_VALUE_U64, &o->self_signed_years,
         "years that such a certificate is good for", NULL},
        {"cipher-suites", 0, BNS_VALUE_LIST, &o->cipher_suites,
         "of TLS 1.2, Go's names, separated by commas", NULL},
        {"tls-min-version", 0, BNS_VALUE_STR, &o->version_min, "TLS1.2 or TLS1.3", NULL},
        {"tls-max-version", 0, BNS_VALUE_STR, &o->version_max, "TLS1.2 or TLS1.3", NULL},
    };

    _Static_assert(sizeof flags / sizeof flags[0] <= ETCD_SECURE_FLAGS, "room for all flags");
    memcpy(out, flags, sizeof flags);
    return sizeof flags / sizeof flags[0];
}

static size_t side_keys(const char *section, struct etcd_secure_side *s, struct bns_config_key *out)
{
    const struct bns_config_key keys[] = {
        {section, "cert-file", BNS_VALUE_STR, &s->cert_file},
        {section, "key-file", BNS_VALUE_STR, &s->key_file},
        {section, "client-cert-file", BNS_VALUE_STR, &s->client_cert_file},
        {section, "client-key-file", BNS_VALUE_STR, &s->client_key_file},
        {section, "client-cert-auth", BNS_VALUE_BOOL, &s->client_cert_auth},
        {section, "trusted-ca-file", BNS_VALUE_STR, &s->trusted_ca_file},
        {section, "allowed-cn", BNS_VALUE_STR, &s->allowed_cn},
        {section, "allowed-hostname", BNS_VALUE_STR, &s->allowed_hostname},
        {section, "auto-tls", BNS_VALUE_BOOL, &s->auto_tls},
    };

    memcpy(out, keys, sizeof keys);
    return sizeof keys / sizeof keys[0];
}

size_t etcd_secure_keys(struct etcd_secure_options *o, struct bns_config_key *out)
{
    size_t n = 0;

    out[n++] = (struct bns_config_key){"", "cipher-suites", BNS_VALUE_LIST, &o->cipher_suites};
    out[n++] = (struct bns_config_key){"", "tls-min-version", BNS_VALUE_STR, &o->version_min};
    out[n++] = (struct bns_config_key){"", "tls-max-version", BNS_VALUE_STR, &o->version_max};
    out[n++] = (struct bns_config_key){"", "self-signed-cert-validity", BNS_VALUE_U64,
                                       &o->self_signed_years};
    out[n++] = (struct bns_config_key){"", "client-crl-file", BNS_VALUE_STR, &o->client.crl_file};
    out[n++] = (struct bns_config_key){"", "peer-crl-file", BNS_VALUE_STR, &o->peer.crl_file};
    n += side_keys("client-transport-security", &o->client, out + n);
    n += side_keys("peer-transport-security", &o->peer, out + n);
    BNS_ASSERT(n <= ETCD_SECURE_FLAGS);
    return n;
}

/* ---- rules ----------------------------------------------------------------------------------- */
static const struct {
    const char *go, *openssl; /* NULL: of TLS 1.3, always on */
} suites[] = {
    {"TLS_AES_128_GCM_SHA256", NULL},
    {"TLS_AES_256_GCM_SHA384", NULL},
    {"TLS_CHACHA20_POLY1305_SHA256", NULL},
    {"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"},
    {"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"},
    {"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "ECDHE-ECDSA-CHACHA20-POLY1305"},
    {"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"},
    {"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"},
    {"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384"},
    {"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"},
    {"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305"},
    {"TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "ECDHE-ECDSA-AES128-SHA"},
    {"TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", "ECDHE-ECDSA-AES256-SHA"},
    {"TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", "ECDHE-ECDSA-AES128-SHA256"},
    {"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "ECDHE-RSA-AES128-SHA"},
    {"TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", "ECDHE-RSA-AES256-SHA"},
    {"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", "ECDHE-RSA-AES128-SHA256"},
    {"TLS_RSA_WITH_AES_128_GCM_SHA256", "AES128-GCM-SHA256"},
    {"TLS_RSA_WITH_AES_256_GCM_SHA384", "AES256-GCM-SHA384"},
    {"TLS_RSA_WITH_AES_128_CBC_SHA", "AES128-SHA"},
    {"TLS_RSA_WITH_AES_256_CBC_SHA", "AES256-SHA"},
    {"TLS_RSA_WITH_AES_128_CBC_SHA256", "AES128-SHA256"},
};

static int add_suite(char out[], size_t out_len, struct bns_slice name, struct bns_err *err)
{
    size_t len = strlen(out);

    for (size_t i = 0; i < sizeof suites / sizeof suites[0]; i++) {
        if (!bns_slice_eq(bns_slice_str(suites[i].go), name))
            continue;
        if (suites[i].openssl != NULL)
            (void)snprintf(out + len, out_len - len, "%s%s", len == 0 ? "" : ":",
                           suites[i].openssl); /* all of them fit */
        return BNS_OK;
    }
    return bns_err_set(err, BNS_E_INVALID, "unexpected TLS cipher suite \"%.*s\"", (int)name.len,
                       (const char *)name.ptr);
}

static int derive_suites(struct etcd_secure_options *o, struct bns_arena *arena,
                         struct bns_err *err)
{
    const char *rest = o->cipher_suites;
    char list[2048] = "";
    int rv = BNS_OK;

    while (rv == BNS_OK && rest != NULL && *rest != '\0') {
        const char *comma = strchr(rest, ',');
        size_t len = comma == NULL ? strlen(rest) : (size_t)(comma - rest);

        if (strlen(list) > sizeof list - 64)
            return bns_err_set(err, BNS_E_INVALID, "--cipher-suites: too many");
        rv = add_suite(list, sizeof list, bns_slice(rest, len), err);
        rest = comma == NULL ? NULL : comma + 1;
    }
    if (rv != BNS_OK || o->cipher_suites == NULL || *o->cipher_suites == '\0')
        return rv;
    if (list[0] == '\0') {
        o->min = BNS_TLS_1_3;
        return BNS_OK;
    }
    o->ciphers = bns_arena_dup(arena, list, strlen(list));
    return o->ciphers == NULL ? bns_err_set(err, BNS_E_NOMEM, "out of memory") : BNS_OK;
}

static int version(const char *text, enum bns_tls_version *out, struct bns_err *err)
{
    *out = BNS_TLS_DEFAULT;
    if (text == NULL || *text == '\0')
        return BNS_OK;
    if (strcmp(text, "TLS1.2") == 0)
        *out = BNS_TLS_1_2;
    else if (strcmp(text, "TLS1.3") == 0)
        *out = BNS_TLS_1_3;
    else
        return bns_err_set(err, BNS_E_INVALID,
                           "unexpected TLS version \"%s\" (must be one of: TLS1.2, TLS1.3)", text);
    return BNS_OK;
}

static int derive_versions(struct etcd_secure_options *o, struct bns_err *err)
{
    int rv = version(o->version_min, &o->min, err);

    if (rv == BNS_OK)
        rv = version(o->version_max, &o->max, err);
    if (rv != BNS_OK)
        return rv;
    if (o->max == BNS_TLS_1_2 && o->min == BNS_TLS_1_3)
        return bns_err_set(err, BNS_E_INVALID, "min version (%s) is greater than max version (%s)",
                           o->version_min, o->version_max);
    if (o->min == BNS_TLS_1_3 && o->cipher_suites != NULL && *o->cipher_suites != '\0')
        return bns_err_set(err, BNS_E_INVALID,
                           "cipher suites cannot be configured when only TLS1.3 is enabled");
    return BNS_OK;
}

static bool given(const char *text)
{
    return text != NULL && *text != '\0';
}

static bool empty(const struct etcd_secure_side *s)
{
    return !given(s->cert_file) && !given(s->key_file);
}

static int check_client_urls(const struct etcd_options *o, const struct etcd_urls *urls, bool *tls,
                             struct bns_err *err)
{
    for (size_t i = 0; i < urls->count; i++) {
        struct etcd_url u;
        int rv = etcd_url_parse(urls->url[i], &u, err);

        if (rv != BNS_OK)
            return rv;
        if (u.tls && empty(&o->secure.client))
            return bns_err_set(err, BNS_E_INVALID,
                               "TLS key/cert (--cert-file, --key-file) must be provided for client "
                               "url %s with HTTPS scheme",
                               urls->url[i]);
        *tls = *tls || u.tls;
    }
    return BNS_OK;
}

/* The members are dialled; one member's URLs are of one kind, as they are tried in turn. */
static int check_peer_urls(const struct etcd_options *o, bool *dial, struct bns_err *err)
{
    if (o->peer.tls && empty(&o->secure.peer))
        return bns_err_set(err, BNS_E_INVALID,
                           "cannot listen on TLS for %s: KeyFile and CertFile are not presented "
                           "(--peer-cert-file, --peer-key-file)",
                           o->peer_listen.url[0]);
    for (size_t i = 0; i < o->members.count; i++) {
        const struct etcd_urls *urls = &o->members.member[i].peer_urls;
        struct etcd_url first, u;
        int rv = etcd_url_parse(urls->url[0], &first, err);

        for (size_t k = 1; rv == BNS_OK && k < urls->count; k++) {
            rv = etcd_url_parse(urls->url[k], &u, err);
            if (rv == BNS_OK && u.tls != first.tls)
                rv = bns_err_set(err, BNS_E_INVALID,
                                 "--initial-cluster: member %s has http and https URLs; use one "
                                 "of them for all",
                                 o->members.member[i].name);
        }
        if (rv != BNS_OK)
            return rv;
        *dial = *dial || first.tls;
    }
    return BNS_OK;
}

int etcd_secure_derive(struct etcd_options *o, struct bns_arena *arena, struct bns_err *err)
{
    struct etcd_secure_options *s = &o->secure;
    int rv = derive_versions(s, err);

    if (rv == BNS_OK)
        rv = derive_suites(s, arena, err);
    if (rv == BNS_OK && given(s->peer.allowed_cn) && given(s->peer.allowed_hostname))
        rv = bns_err_set(err, BNS_E_INVALID,
                         "AllowedCN and AllowedHostname are mutually exclusive (cn=\"%s\", "
                         "hostname=\"%s\")",
                         s->peer.allowed_cn, s->peer.allowed_hostname);
    if (rv == BNS_OK)
        rv = etcd_secure_auto_derive(o, arena, err);
    if (rv == BNS_OK)
        rv = check_client_urls(o, &o->client_urls, &s->client_tls, err);
    if (rv == BNS_OK)
        rv = check_client_urls(o, &o->client_http, &s->client_tls, err);
    if (rv == BNS_OK)
        rv = check_client_urls(o, &o->more.metrics_urls, &s->client_tls, err);
    if (rv == BNS_OK)
        rv = check_peer_urls(o, &s->peer_dial, err);
    s->peer_serve = o->peer.tls;
    return rv;
}

static void warn_list(const struct etcd_urls *urls, const struct etcd_secure_side *s,
                      const char *what, const char *program)
{
    for (size_t i = 0; i < urls->count; i++) {
        if (strncmp(urls->url[i], "https:", 6) == 0)
            continue;
        if (!empty(s))
            (void)fprintf(stderr,
                          "%s: warning: scheme is HTTP while key and cert files are present; "
                          "ignoring key and cert files: %s %s\n",
                          program, what, urls->url[i]); /* nothing to do if stderr is closed */
        if (s->client_cert_auth)
            (void)fprintf(stderr,
                          "%s: warning: scheme is HTTP while --client-cert-auth is enabled; "
                          "ignoring client cert auth for this URL: %s %s\n",
                          program, what, urls->url[i]); /* as above */
    }
}

void etcd_secure_warn(const struct etcd_options *o, const char *program)
{
    warn_list(&o->client_urls, &o->secure.client, "client URL", program);
    warn_list(&o->client_http, &o->secure.client, "client HTTP URL", program);
    warn_list(&o->peer_listen, &o->secure.peer, "peer URL", program);
}

/* ---- the two sides --------------------------------------------------------------------------- */
static struct bns_tls_config config_of(const struct etcd_secure_options *o,
                                       const struct etcd_secure_side *s)
{
    return (struct bns_tls_config){
        .cert_file = s->cert_file,
        .key_file = s->key_file,
        .client_cert_file = s->client_cert_file,
        .client_key_file = s->client_key_file,
        .ca_file = s->trusted_ca_file,
        .crl_file = s->crl_file,
        .client_cert_auth = s->client_cert_auth || given(s->trusted_ca_file),
        .allowed_cn = given(s->allowed_cn) ? s->allowed_cn : NULL,
        .allowed_hostname = given(s->allowed_hostname) ? s->allowed_hostname : NULL,
        .ciphers = o->ciphers,
        .version_min = o->min,
        .version_max = o->max,
        .skip_verify = s == &o->peer && s->fixtures != NULL,
    };
}

int etcd_secure_open(struct bns_env *env, const struct etcd_secure_options *o,
                     struct etcd_secure *out, struct bns_err *err)
{
    struct bns_tls_config cfg;
    int rv = etcd_secure_auto_make(env, o, &o->client, err);

    *out = (struct etcd_secure){0};
    if (rv == BNS_OK)
        rv = etcd_secure_auto_make(env, o, &o->peer, err);
    if (rv == BNS_OK && o->client_tls) {
        cfg = config_of(o, &o->client);
        cfg.name = "client";
        cfg.serve = true;
        rv = bns_tls_new(env, &cfg, &out->client, err);
    }
    if (rv == BNS_OK && (o->peer_serve || o->peer_dial)) {
        cfg = config_of(o, &o->peer);
        cfg.name = "peer";
        cfg.serve = o->peer_serve;
        cfg.dial = o->peer_dial;
        rv = bns_tls_new(env, &cfg, &out->peer, err);
    }
    return rv;
}

bool etcd_secure_reload(struct etcd_secure *s)
{
    if (s->client != NULL)
        bns_tls_reload(s->client);
    if (s->peer != NULL)
        bns_tls_reload(s->peer);
    return s->client != NULL || s->peer != NULL;
}

static void peer_stopped(void *arg)
{
    struct etcd_secure *s = arg;

    s->stopped(s->stopped_arg);
}

static void client_stopped(void *arg)
{
    struct etcd_secure *s = arg;

    if (s->peer != NULL)
        bns_tls_stop(s->peer, peer_stopped, s);
    else
        peer_stopped(s);
}

void etcd_secure_stop(struct etcd_secure *s, void (*done)(void *arg), void *arg)
{
    s->stopped = done;
    s->stopped_arg = arg;
    if (s->client != NULL)
        bns_tls_stop(s->client, client_stopped, s);
    else
        client_stopped(s);
}

void etcd_secure_free(struct etcd_secure *s)
{
    bns_tls_free(s->client);
    bns_tls_free(s->peer);
}
