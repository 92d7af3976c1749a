/* options.c - see options.h. */
#include "options.h"

#include <stdio.h>
#include <string.h>

#include "app/config.h"
#include "base/time.h"
#include "discovery.h"

#define ETCD_API_VERSION "3.6.0"

#define DEFAULT_CLIENT "http://localhost:2379"
#define DEFAULT_PEER "http://localhost:2380"

#if defined(__x86_64__)
#define ARCH "amd64"
#elif defined(__aarch64__)
#define ARCH "arm64"
#else
#define ARCH "other"
#endif

static const char default_peer[] = DEFAULT_PEER;

static void defaults(struct etcd_options *o)
{
    *o = (struct etcd_options){
        .name = "default",
        .listen_client_urls = DEFAULT_CLIENT,
        .advertise_client_urls = NULL,
        .listen_peer_urls = default_peer,
        .initial_advertise_peer_urls = DEFAULT_PEER,
        .initial_cluster_token = "etcd-cluster",
        .initial_cluster_state = "new",
        .cors = "*",
        .host_whitelist = "*",
        .log_level = "info",
        .heartbeat_ms = 100,
        .election_ms = 1000,
        .snapshot_count = 10000,
        .quota_bytes = 0,
        .txn_ops_max = 128,
        .request_bytes_max = 1536 * 1024,
        .streams_max = UINT32_MAX,
        .watch_progress_ns = 600 * BNS_SEC,
        .auth_token = "simple",
        .auth_token_ttl_s = 300,
        .warning_apply_ns = 100 * BNS_MS,
        .bcrypt_cost = 10,
        .segment_bytes = 16u * 1024 * 1024,
        .reserve_bytes = 64u * 1024 * 1024,
        .lease_checkpoint = true,
        .auto_disarm = true,
        .compaction_mode = "periodic",
        .compaction_retention = "0",
        .compact_hash_check_ns = 60 * BNS_SEC,
        .strict_reconfig = true,
        .learners_max = 1,
        .secure = {.self_signed_years = 1},
    };
    etcd_more_defaults(&o->more);
}

static int print(struct bns_arena *arena, const char **out, const char *fmt, const char *a,
                 const char *b)
{
    char text[1024];
    int len = snprintf(text, sizeof text, fmt, a, b);

    if (len < 0 || (size_t)len >= sizeof text)
        return BNS_E_TOOBIG;
    *out = bns_arena_dup(arena, text, (size_t)len);
    return *out == NULL ? BNS_E_NOMEM : BNS_OK;
}

static int urls(const char *flag, const char *list, struct etcd_urls *out, struct bns_err *err)
{
    int rv = etcd_urls_parse(list, out, err);

    if (rv != BNS_OK)
        bns_err_wrap(err, "--%s", flag);
    return rv;
}

static bool is_loopback(const char *host)
{
    return strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
           strcmp(host, "::1") == 0;
}

static int check_values(const struct etcd_options *o, struct bns_err *err)
{
    if (o->heartbeat_ms == 0 || o->election_ms < 5 * o->heartbeat_ms || o->election_ms > 50000)
        return bns_err_set(err, BNS_E_INVALID,
                           "--election-timeout[%llums] should be at least as 5 times as "
                           "--heartbeat-interval[%llums], and at most 50000",
                           (unsigned long long)o->election_ms, (unsigned long long)o->heartbeat_ms);
    if (o->txn_ops_max == 0 || o->txn_ops_max > 100000)
        return bns_err_set(err, BNS_E_INVALID, "--max-txn-ops %llu is not in 1..100000",
                           (unsigned long long)o->txn_ops_max);
    if (o->request_bytes_max == 0 || o->request_bytes_max > 10u * 1024 * 1024)
        return bns_err_set(err, BNS_E_INVALID, "--max-request-bytes %llu is not in 1..10485760",
                           (unsigned long long)o->request_bytes_max);
    if (o->snapshot_count == 0 || o->streams_max == 0 || o->streams_max > UINT32_MAX)
        return bns_err_set(err, BNS_E_INVALID,
                           "--snapshot-count and --max-concurrent-streams must be positive");
    if (o->watch_progress_ns < BNS_MS || o->watch_progress_ns > 366 * 86400 * BNS_SEC)
        return bns_err_set(err, BNS_E_INVALID,
                           "--watch-progress-notify-interval must lie between 1ms and a year");
    if (o->auth_token_ttl_s == 0 || o->auth_token_ttl_s > 366 * 86400)
        return bns_err_set(err, BNS_E_INVALID, "--auth-token-ttl %llu is not in 1..31622400",
                           (unsigned long long)o->auth_token_ttl_s);
    if (strcmp(o->initial_cluster_state, "new") != 0 &&
        strcmp(o->initial_cluster_state, "existing") != 0)
        return bns_err_set(err, BNS_E_INVALID,
                           "--initial-cluster-state \"%s\" is neither new nor existing",
                           o->initial_cluster_state);
    if (o->learners_max == 0 || o->learners_max > ETCD_ROSTER_MAX)
        return bns_err_set(err, BNS_E_INVALID, "--max-learners %llu is not in 1..%d",
                           (unsigned long long)o->learners_max, ETCD_ROSTER_MAX);
    return BNS_OK;
}

/* A name could mean several addresses, or another one tomorrow: etcd refuses it here, so do we. */
static int listen_urls(const char *flag, const char *list, struct etcd_urls *out,
                       struct bns_err *err)
{
    int rv = urls(flag, list, out, err);

    for (size_t i = 0; rv == BNS_OK && i < out->count; i++) {
        struct etcd_url u;

        rv = etcd_url_parse(out->url[i], &u, err);
        if (rv == BNS_OK && strcmp(u.host, "localhost") != 0 &&
            bns_host_kind(u.host) != BNS_HOST_NUMERIC) {
            rv =
                bns_err_set(err, BNS_E_INVALID, "expected IP in URL for binding (%s)", out->url[i]);
            bns_err_wrap(err, "--%s", flag);
        }
    }
    return rv;
}

static bool same_urls(const struct etcd_urls *a, const struct etcd_urls *b)
{
    bool same = a->count == b->count;

    for (size_t i = 0; same && i < a->count; i++)
        same = strcmp(a->url[i], b->url[i]) == 0;
    return same;
}

/* simple[,ttl]; a cost that bcrypt does not know becomes the default, as with etcd. */
static int derive_auth(struct etcd_options *o, struct bns_err *err)
{
    const char *t = o->auth_token;
    uint64_t ttl = 0;

    if (o->bcrypt_cost < 4 || o->bcrypt_cost > 31)
        o->bcrypt_cost = 10;
    if (strcmp(t, "simple") == 0)
        return BNS_OK;
    if (strncmp(t, "simple,", 7) == 0) {
        for (t += 7; *t >= '0' && *t <= '9' && ttl < 1000000000; t++)
            ttl = ttl * 10 + (uint64_t)(*t - '0');
        o->auth_token_ttl_s = ttl;
        if (*t == 0 && ttl > 0)
            return BNS_OK;
    }
    if (strncmp(o->auth_token, "jwt", 3) == 0)
        return bns_err_set(err, BNS_E_INVALID,
                           "--auth-token %s: tokens of the type jwt are not supported; use "
                           "\"simple\"",
                           o->auth_token);
    return bns_err_set(err, BNS_E_INVALID, "--auth-token %s: use \"simple\" or \"simple,SECONDS\"",
                       o->auth_token);
}

/* The first URL that others can reach and that is not encrypted; NULL: there is none. */
static const char *exposed(const struct etcd_options *o)
{
    const struct etcd_urls *lists[] = {&o->client_urls, &o->client_http, &o->more.metrics_urls,
                                       &o->peer_listen};

    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        for (size_t k = 0; k < lists[i]->count; k++) {
            struct etcd_url u;

            if (etcd_url_parse(lists[i]->url[k], &u, NULL) == BNS_OK && !u.tls &&
                !is_loopback(u.host))
                return lists[i]->url[k];
        }
    }
    return NULL;
}

/* Called as etcd it starts as etcd does, which knows no --insecure. */
static int check_exposed(const struct etcd_options *o, struct bns_err *err)
{
    const char *url = o->insecure ? NULL : exposed(o);

    if (url == NULL)
        return BNS_OK;
    if (!o->as_etcd)
        return bns_err_set(err, BNS_E_INVALID,
                           "%s is reachable from other machines without TLS: use an https URL with "
                           "certificates, a loopback address, or allow it with --insecure",
                           url);
    etcd_options_warn(o, "%s is reachable from other machines without TLS or passwords", url);
    return BNS_OK;
}

static int derive(struct etcd_options *o, struct bns_arena *arena, struct bns_err *err)
{
    struct etcd_urls advertised_peer;
    int rv = etcd_more_derive(o, err);

    if (rv == BNS_OK)
        rv = derive_auth(o, err);
    if (rv == BNS_OK)
        rv = check_values(o, err);
    if (rv == BNS_OK)
        rv = etcd_maint_derive(o, err);
    o->peer_default = o->listen_peer_urls == default_peer;
    o->joins = strcmp(o->initial_cluster_state, "existing") == 0;

    if (rv == BNS_OK && o->data_dir == NULL)
        rv = print(arena, &o->data_dir, "%s%s", o->name, ".etcd");
    if (rv == BNS_OK && o->more.discovery_srv[0] != '\0')
        rv = etcd_discover(o, arena, err);
    if (rv == BNS_OK && o->initial_cluster == NULL)
        rv = print(arena, &o->initial_cluster, "%s=%s", o->name, o->initial_advertise_peer_urls);
    if (o->advertise_client_urls == NULL)
        o->advertise_client_urls = o->listen_client_urls;
    if (rv == BNS_OK)
        rv = listen_urls("listen-client-urls", o->listen_client_urls, &o->client_urls, err);
    if (rv == BNS_OK && o->listen_client_http_urls != NULL)
        rv = listen_urls("listen-client-http-urls", o->listen_client_http_urls, &o->client_http,
                         err);
    if (rv == BNS_OK && o->more.metrics_urls_text != NULL && *o->more.metrics_urls_text != '\0')
        rv = listen_urls("listen-metrics-urls", o->more.metrics_urls_text, &o->more.metrics_urls,
                         err);
    if (rv == BNS_OK)
        rv = urls("advertise-client-urls", o->advertise_client_urls, &o->advertised, err);
    if (rv == BNS_OK)
        rv = listen_urls("listen-peer-urls", o->listen_peer_urls, &o->peer_listen, err);
    if (rv == BNS_OK && o->peer_listen.count > 1)
        rv = bns_err_set(err, BNS_E_INVALID, "--listen-peer-urls: %zu URLs, but one is supported",
                         o->peer_listen.count);
    if (rv == BNS_OK)
        rv = urls("initial-advertise-peer-urls", o->initial_advertise_peer_urls, &advertised_peer,
                  err);
    if (rv == BNS_OK)
        rv = etcd_members_parse(o->initial_cluster, o->initial_cluster_token, &o->members, err);
    if (rv == BNS_OK)
        rv = etcd_url_parse(o->client_urls.url[0], &o->client, err);
    if (rv == BNS_OK)
        rv = etcd_url_parse(o->peer_listen.url[0], &o->peer, err);
    if (rv != BNS_OK)
        return rv;
    o->self = etcd_members_named(&o->members, o->name);
    if (o->self == NULL)
        return bns_err_set(err, BNS_E_INVALID,
                           "--initial-cluster has no member named \"%s\": "
                           "--name must be one of its names",
                           o->name);
    if (o->more.discovery_srv[0] != '\0') { /* compared by where they lead to */
        if (o->self->peer_urls.count != advertised_peer.count)
            return bns_err_set(err, BNS_E_INVALID,
                               "--initial-advertise-peer-urls has %zu URLs, of which the SRV "
                               "records have %zu",
                               advertised_peer.count, o->self->peer_urls.count);
    } else if (!same_urls(&o->self->peer_urls, &advertised_peer))
        return bns_err_set(err, BNS_E_INVALID,
                           "--initial-cluster gives %s the peer URL %s, but "
                           "--initial-advertise-peer-urls is %s",
                           o->name, o->self->peer_urls.url[0], advertised_peer.url[0]);
    rv = etcd_secure_derive(o, arena, err);
    return rv == BNS_OK ? check_exposed(o, err) : rv;
}

static int refuse(const char *program, const struct bns_err *err, int code)
{
    (void)fprintf(stderr, "%s: %s\n", program, err->text); /* nothing to do if stderr is closed */
    return code;
}

#define FLAGS_MAX (48 + ETCD_MAINT_FLAGS + ETCD_SECURE_FLAGS + ETCD_MORE_FLAGS)

/* All flags; each is also a variable ETCD_<NAME> and a key of the configuration file. */
static void flag_table(struct etcd_options *o, struct bns_cli_flag out[FLAGS_MAX])
{
    const struct bns_cli_flag flags[] = {
        {"name", 0, BNS_VALUE_STR, &o->name, "human-readable name of this member", NULL},
        {"data-dir", 0, BNS_VALUE_STR, &o->data_dir, "path to the data directory", NULL},
        {"listen-client-urls", 0, BNS_VALUE_STR, &o->listen_client_urls,
         "URLs to listen on for clients", NULL},
        {"listen-client-http-urls", 0, BNS_VALUE_STR, &o->listen_client_http_urls,
         "URLs to listen on for HTTP alone; gRPC alone is then served on the others", NULL},
        {"advertise-client-urls", 0, BNS_VALUE_STR, &o->advertise_client_urls,
         "client URLs to tell the other members and clients", NULL},
        {"listen-peer-urls", 0, BNS_VALUE_STR, &o->listen_peer_urls,
         "URLs to listen on for other members", NULL},
        {"initial-advertise-peer-urls", 0, BNS_VALUE_STR, &o->initial_advertise_peer_urls,
         "this member's peer URLs, as the others know them", NULL},
        {"initial-cluster", 0, BNS_VALUE_STR, &o->initial_cluster,
         "the members: name=peer URL, separated by commas", NULL},
        {"initial-cluster-token", 0, BNS_VALUE_STR, &o->initial_cluster_token,
         "token of the cluster, part of its ids", NULL},
        {"initial-cluster-state", 0, BNS_VALUE_STR, &o->initial_cluster_state,
         "new, or existing: join a cluster that has added this member", NULL},
        {"strict-reconfig-check", 0, BNS_VALUE_BOOL, &o->strict_reconfig,
         "refuse changes of members that may cost the quorum", NULL},
        {"max-learners", 0, BNS_VALUE_U64, &o->learners_max, "learners in the cluster", NULL},
        {"experimental-max-learners", 0, BNS_VALUE_U64, &o->learners_max,
         "its name in older releases", NULL},
        {"heartbeat-interval", 0, BNS_VALUE_U64, &o->heartbeat_ms, "milliseconds", NULL},
        {"election-timeout", 0, BNS_VALUE_U64, &o->election_ms, "milliseconds", NULL},
        {"snapshot-count", 0, BNS_VALUE_U64, &o->snapshot_count,
         "applied entries between two checkpoints", NULL},
        {"max-txn-ops", 0, BNS_VALUE_U64, &o->txn_ops_max, "operations in one transaction", NULL},
        {"max-request-bytes", 0, BNS_VALUE_U64, &o->request_bytes_max, "bytes of one write", NULL},
        {"max-concurrent-streams", 0, BNS_VALUE_U64, &o->streams_max, "per connection", NULL},
        {"watch-progress-notify-interval", 0, BNS_VALUE_DURATION, &o->watch_progress_ns,
         "between two progress notices of a watch", NULL},
        {"experimental-watch-progress-notify-interval", 0, BNS_VALUE_DURATION,
         &o->watch_progress_ns, "its name in older releases", NULL},
        {"auth-token", 0, BNS_VALUE_STR, &o->auth_token, "simple[,seconds]", NULL},
        {"auth-token-ttl", 0, BNS_VALUE_U64, &o->auth_token_ttl_s,
         "seconds that a token lives after its last use", NULL},
        {"bcrypt-cost", 0, BNS_VALUE_U64, &o->bcrypt_cost, "of new passwords, 4 to 31", NULL},
        {"experimental-enable-lease-checkpoint", 0, BNS_VALUE_BOOL, &o->lease_checkpoint,
         "what is left of leases survives the leader; on unless =false", NULL},
        {"experimental-enable-lease-checkpoint-persist", 0, BNS_VALUE_BOOL,
         &o->lease_checkpoint_persist, "accepted: they survive a restart anyway", NULL},
        {"unsafe-no-fsync", 0, BNS_VALUE_BOOL, &o->unsafe_no_fsync,
         "lose data on power loss, for tests", NULL},
        {"insecure", 0, BNS_VALUE_BOOL, &o->insecure,
         "listen without TLS on addresses that others can reach", NULL},
        {"cors", 0, BNS_VALUE_STR, &o->cors, "origins of pages that may ask; * = any", NULL},
        {"host-whitelist", 0, BNS_VALUE_STR, &o->host_whitelist, "names of us; * = any", NULL},
        {"ports-file", 0, BNS_VALUE_STR, &o->ports_file,
         "written with the ports in use once ready (for port 0)", NULL},
        {"config-file", 0, BNS_VALUE_STR, &o->config_file,
         "YAML with these names as keys; variables and flags win over it", NULL},
        {NULL, 0, BNS_VALUE_STR, NULL, NULL, NULL},
    };

    const size_t count = sizeof flags / sizeof flags[0];
    size_t more;

    _Static_assert(sizeof flags / sizeof flags[0] + ETCD_MAINT_FLAGS + ETCD_SECURE_FLAGS +
                           ETCD_MORE_FLAGS <=
                       FLAGS_MAX,
                   "room for all flags");
    memcpy(out, flags, sizeof flags);
    more = etcd_secure_flags(&o->secure, out + count - 1);
    more += etcd_maint_flags(o, out + count - 1 + more);
    more += etcd_more_flags(o, out + count - 1 + more);
    out[count - 1 + more] = flags[count - 1];
}

/* TLS flags are keys of their own in the file. */
static bool is_secure(const struct etcd_options *o, const void *dst)
{
    const char *at = dst, *from = (const char *)&o->secure;

    return at >= from && at < from + sizeof o->secure;
}

static int load_file(struct etcd_options *o, const struct bns_cli_flag *flags,
                     struct bns_arena *arena, struct bns_err *err)
{
    struct bns_config_key keys[FLAGS_MAX] = {0};
    size_t n = 0;

    for (size_t i = 0; flags[i].name != NULL; i++) {
        if (!is_secure(o, flags[i].dst))
            keys[n++] = (struct bns_config_key){"", flags[i].name, flags[i].kind, flags[i].dst};
    }
    n += etcd_secure_keys(&o->secure, keys + n);
    BNS_ASSERT(n < sizeof keys / sizeof keys[0]);
    return bns_config_load(o->config_file, keys, arena, err);
}

/* Environment, then flags; BNS_E_INVALID is a mistake of usage. */
static int read_words(const struct bns_cli *cli, int argc, char **argv, char **envp,
                      struct bns_cli_words *words, struct bns_err *err)
{
    int rv = bns_cli_env(cli, "ETCD_", envp, err);

    if (rv == BNS_OK)
        rv = bns_cli_parse(cli, argc, argv, words, err);
    if (rv == BNS_OK && words->count > 0 && !words->help && !words->version)
        rv = bns_err_set(err, BNS_E_INVALID, "\"%s\" is not a flag", argv[1]);
    return rv;
}

/* etcd's four lines; scripts cut the first one. */
static const char version_as_etcd[] =
    "etcd Version: " ETCD_API_VERSION "\nGit SHA: etcd-lite-" BNS_VERSION
    "\nGo Version: none, this is C\nGo OS/Arch: linux/" ARCH;

static bool called_etcd(const char *program)
{
    const char *slash = strrchr(program, '/');

    return strcmp(slash == NULL ? program : slash + 1, "etcd") == 0;
}

enum etcd_options_result etcd_options_read(struct etcd_options *o, struct bns_arena *arena,
                                           int argc, char **argv, char **envp, int *exit_code)
{
    bool as_etcd = called_etcd(argv[0]);
    struct bns_cli_flag flags[FLAGS_MAX];
    const struct bns_cli cli = {
        .program = "etcd-lite",
        .usage = "etcd-lite [flags]",
        .about = "A replicated key-value store that speaks etcd's v3 API. Flags may also be given "
                 "as ETCD_* variables (ETCD_DATA_DIR). Further flags of etcd are taken that tune "
                 "what is not here.",
        .version = as_etcd ? version_as_etcd
                           : "etcd Version: " ETCD_API_VERSION "\netcd-lite " BNS_VERSION,
        .flags = flags,
    };
    struct bns_cli_words words = {0};
    struct bns_err err = {0};

    defaults(o);
    o->as_etcd = as_etcd;
    flag_table(o, flags);
    *exit_code = BNS_EXIT_OK;
    if (read_words(&cli, argc, argv, envp, &words, &err) != BNS_OK) {
        *exit_code = refuse(cli.program, &err, BNS_EXIT_USAGE);
        return ETCD_EXIT;
    }
    if (bns_cli_answered(&cli, &words))
        return ETCD_EXIT;
    if (o->config_file != NULL) {
        if (load_file(o, flags, arena, &err) != BNS_OK) {
            *exit_code = refuse(cli.program, &err, BNS_EXIT_CONFIG);
            return ETCD_EXIT;
        }
        /* once more, over what the file said; it went well the first time */
        if (read_words(&cli, argc, argv, envp, &words, &err) != BNS_OK) {
            *exit_code = refuse(cli.program, &err, BNS_EXIT_USAGE);
            return ETCD_EXIT;
        }
    }
    if (derive(o, arena, &err) != BNS_OK) {
        *exit_code = refuse(cli.program, &err, BNS_EXIT_CONFIG);
        return ETCD_EXIT;
    }
    etcd_secure_warn(o, cli.program);
    return ETCD_RUN;
}
