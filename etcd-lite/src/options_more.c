/* options_more.c - etcd's flags for logs, for who watches from outside, and for what works in
 * another way here, or not at all.
 *
 * A command line that starts etcd should start this. So a flag of etcd 3.4 to 3.6 is one of
 *   served    it does here what it does there
 *   TAKES     it tunes something that is not here (bbolt's batches, the files of the log), and no
 *             answer to a client depends on it
 *   WARNS     the same, but who set it will miss something: one line says what
 *   REFUSES   with this value clients, or operators, would get something else: no start, and the
 *             line says why
 * Nothing else: what is not in a table is an unknown flag, named with the nearest one.
 *
 * --feature-gates (etcd 3.6) sets the same fields as the flags of its features.
 */
#include "options_more.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "options.h"

#define KEEPALIVE_MAX (366 * 86400 * BNS_SEC)

/* ---- flags without an effect ----------------------------------------------------------------- */
enum effect { TAKES, WARNS, REFUSES };

static const struct taken {
    const char *name;
    enum bns_value_kind kind;
    enum effect effect;
    const char *plain; /* the value that is nothing special; NULL: any */
    const char *more;  /* text alone: further such values, separated by '|' */
    const char *why;
} table[] = {
    /* the log: which files of it are kept, and how long the store's batches are */
    {"max-snapshots", BNS_VALUE_U64, TAKES, NULL, NULL, "old snapshots go by themselves"},
    {"max-wals", BNS_VALUE_U64, TAKES, NULL, NULL, "old files of the log go by themselves"},
    {"backend-batch-interval", BNS_VALUE_DURATION, TAKES, NULL, NULL,
     "the store commits what is queued"},
    {"backend-batch-limit", BNS_VALUE_U64, TAKES, NULL, NULL, "the store commits what is queued"},
    {"backend-bbolt-freelist-type", BNS_VALUE_STR, TAKES, "map", "array", "the store is no bbolt"},
    {"experimental-backend-bbolt-freelist-type", BNS_VALUE_STR, TAKES, "map", "array",
     "the store is no bbolt"},
    {"compaction-batch-limit", BNS_VALUE_U64, TAKES, NULL, NULL, "slices are cut by time"},
    {"experimental-compaction-batch-limit", BNS_VALUE_U64, TAKES, NULL, NULL,
     "slices are cut by time"},
    {"compaction-sleep-interval", BNS_VALUE_DURATION, TAKES, NULL, NULL, "slices are cut by time"},
    {"experimental-compaction-sleep-interval", BNS_VALUE_DURATION, TAKES, NULL, NULL,
     "slices are cut by time"},
    {"bootstrap-defrag-threshold-megabytes", BNS_VALUE_U64, WARNS, "0", NULL,
     "free pages are given back by Defragment alone, which stops nobody"},
    {"experimental-bootstrap-defrag-threshold-megabytes", BNS_VALUE_U64, WARNS, "0", NULL,
     "free pages are given back by Defragment alone, which stops nobody"},
    {"memory-mlock", BNS_VALUE_BOOL, REFUSES, "false", NULL, "pages are not locked in memory"},
    {"experimental-memory-mlock", BNS_VALUE_BOOL, REFUSES, "false", NULL,
     "pages are not locked in memory"},
    {"experimental-txn-mode-write-with-shared-buffer", BNS_VALUE_BOOL, TAKES, NULL, NULL,
     "no read waits for a write"},
    {"experimental-stop-grpc-service-on-defrag", BNS_VALUE_BOOL, TAKES, NULL, NULL,
     "Defragment stops nobody"},
    {"force-new-cluster", BNS_VALUE_BOOL, REFUSES, "false", NULL,
     "take a snapshot and restore it as a new cluster of one"},
    /* members */
    {"pre-vote", BNS_VALUE_BOOL, WARNS, "true", NULL, "an election always begins with a pre-vote"},
    {"initial-election-tick-advance", BNS_VALUE_BOOL, TAKES, NULL, NULL, "of the first election"},
    {"wait-cluster-ready-timeout", BNS_VALUE_DURATION, TAKES, NULL, NULL,
     "a member is ready once it knows a leader"},
    {"experimental-wait-cluster-ready-timeout", BNS_VALUE_DURATION, TAKES, NULL, NULL,
     "a member is ready once it knows a leader"},
    {"downgrade-check-time", BNS_VALUE_DURATION, TAKES, NULL, NULL, "there is one version"},
    {"experimental-downgrade-check-time", BNS_VALUE_DURATION, TAKES, NULL, NULL,
     "there is one version"},
    {"experimental-peer-skip-client-san-verification", BNS_VALUE_BOOL, TAKES, NULL, NULL,
     "the address a member dials from is not compared with its certificate"},
    {"set-member-localaddr", BNS_VALUE_BOOL, REFUSES, "false", NULL,
     "the address to dial from is the system's choice"},
    {"experimental-set-member-localaddr", BNS_VALUE_BOOL, REFUSES, "false", NULL,
     "the address to dial from is the system's choice"},
    {"discovery", BNS_VALUE_STR, REFUSES, "", NULL, "name the members in --initial-cluster"},
    {"discovery-endpoints", BNS_VALUE_STR, REFUSES, "", NULL,
     "name the members in --initial-cluster"},
    {"discovery-token", BNS_VALUE_STR, REFUSES, "", NULL, "name the members in --initial-cluster"},
    {"discovery-proxy", BNS_VALUE_STR, TAKES, NULL, NULL, "there is no discovery"},
    {"discovery-fallback", BNS_VALUE_STR, TAKES, "exit", "proxy", "there is no discovery"},
    /* connections */
    {"grpc-keepalive-min-time", BNS_VALUE_DURATION, TAKES, NULL, NULL,
     "clients may ping more often, up to a flood"},
    {"socket-reuse-address", BNS_VALUE_BOOL, TAKES, NULL, NULL, "addresses always are"},
    {"socket-reuse-port", BNS_VALUE_BOOL, REFUSES, "false", NULL,
     "two servers on one port are not possible here"},
    /* links of members are watched by pings */
    {"raft-read-timeout", BNS_VALUE_DURATION, TAKES, NULL, NULL, "pings end a link that is dead"},
    {"raft-write-timeout", BNS_VALUE_DURATION, TAKES, NULL, NULL, "pings end a link that is dead"},
    /* version 2 */
    {"enable-v2", BNS_VALUE_BOOL, REFUSES, "false", NULL, "the API v2 does not exist here"},
    {"experimental-enable-v2v3", BNS_VALUE_STR, REFUSES, "", NULL,
     "the API v2 does not exist here"},
    {"v2-deprecation", BNS_VALUE_STR, TAKES, "write-only", "not-yet|write-only-drop-data|gone",
     "the API v2 does not exist here"},
    {"proxy", BNS_VALUE_STR, REFUSES, "off", NULL, "there is no proxy of the API v2"},
    {"proxy-failure-wait", BNS_VALUE_U64, TAKES, NULL, NULL, "there is no proxy of the API v2"},
    {"proxy-refresh-interval", BNS_VALUE_U64, TAKES, NULL, NULL, "there is no proxy of the API v2"},
    {"proxy-dial-timeout", BNS_VALUE_U64, TAKES, NULL, NULL, "there is no proxy of the API v2"},
    {"proxy-write-timeout", BNS_VALUE_U64, TAKES, NULL, NULL, "there is no proxy of the API v2"},
    {"proxy-read-timeout", BNS_VALUE_U64, TAKES, NULL, NULL, "there is no proxy of the API v2"},
    /* watching it */
    {"enable-pprof", BNS_VALUE_BOOL, WARNS, "false", NULL, "there are no pages /debug/pprof"},
    {"warning-unary-request-duration", BNS_VALUE_STR, WARNS, "300ms", NULL,
     "answers that took longer than --warning-apply-duration are logged"},
    {"experimental-warning-unary-request-duration", BNS_VALUE_STR, WARNS, "300ms", NULL,
     "answers that took longer than --warning-apply-duration are logged"},
    {"enable-distributed-tracing", BNS_VALUE_BOOL, REFUSES, "false", NULL, "there are no traces"},
    {"experimental-enable-distributed-tracing", BNS_VALUE_BOOL, REFUSES, "false", NULL,
     "there are no traces"},
    {"distributed-tracing-address", BNS_VALUE_STR, TAKES, NULL, NULL, "there are no traces"},
    {"experimental-distributed-tracing-address", BNS_VALUE_STR, TAKES, NULL, NULL,
     "there are no traces"},
    {"distributed-tracing-service-name", BNS_VALUE_STR, TAKES, NULL, NULL, "there are no traces"},
    {"experimental-distributed-tracing-service-name", BNS_VALUE_STR, TAKES, NULL, NULL,
     "there are no traces"},
    {"distributed-tracing-instance-id", BNS_VALUE_STR, TAKES, NULL, NULL, "there are no traces"},
    {"experimental-distributed-tracing-instance-id", BNS_VALUE_STR, TAKES, NULL, NULL,
     "there are no traces"},
    {"distributed-tracing-sampling-rate", BNS_VALUE_U64, TAKES, NULL, NULL, "there are no traces"},
    {"experimental-distributed-tracing-sampling-rate", BNS_VALUE_U64, TAKES, NULL, NULL,
     "there are no traces"},
    /* logs */
    {"log-package-levels", BNS_VALUE_STR, REFUSES, "", NULL, "--log-level is that of all"},
    {"enable-log-rotation", BNS_VALUE_BOOL, REFUSES, "false", NULL,
     "give --log-outputs=stderr to what rotates logs here"},
    {"log-rotation-config-json", BNS_VALUE_STR, TAKES, NULL, NULL, "see --enable-log-rotation"},
};

#define TABLE_COUNT (sizeof table / sizeof table[0])
_Static_assert(TABLE_COUNT <= ETCD_TAKEN_MAX, "a place for each value");

static void *place(struct etcd_taken *v, enum bns_value_kind kind)
{
    switch (kind) {
    case BNS_VALUE_BOOL:
        return &v->is;
    case BNS_VALUE_STR:
    case BNS_VALUE_LIST:
        return &v->text;
    default:
        return &v->u64;
    }
}

void etcd_more_defaults(struct etcd_more *m)
{
    *m = (struct etcd_more){
        .gateway = true, .metrics = "basic", .discovery_srv = "", .discovery_srv_name = ""};
    for (size_t i = 0; i < TABLE_COUNT; i++) {
        const char *plain = table[i].plain;

        if (plain != NULL) /* of its kind, so it is taken */
            BNS_ASSERT(bns_value_set(table[i].kind, place(&m->taken[i], table[i].kind), plain,
                                     NULL) == BNS_OK);
    }
}

static bool among(const char *word, const char *list)
{
    size_t len = strlen(word);

    while (list != NULL) {
        const char *end = strchr(list, '|');
        size_t n = end == NULL ? strlen(list) : (size_t)(end - list);

        if (n == len && memcmp(list, word, len) == 0)
            return true;
        list = end == NULL ? NULL : end + 1;
    }
    return false;
}

/* Is the value the plain one, or as good? Its text for messages otherwise. */
static bool is_plain(const struct taken *t, const struct etcd_taken *v, char text[32],
                     const char **said)
{
    struct etcd_taken plain = {0};

    *said = text;
    if (t->plain == NULL)
        return true;
    if (t->kind == BNS_VALUE_STR) {
        *said = v->text;
        return strcmp(v->text, t->plain) == 0 || among(v->text, t->more);
    }
    BNS_ASSERT(bns_value_set(t->kind, place(&plain, t->kind), t->plain, NULL) == BNS_OK);
    if (t->kind == BNS_VALUE_BOOL)
        (void)snprintf(text, 32, "%s", v->is ? "true" : "false"); /* fits */
    else
        (void)snprintf(text, 32, "%llu", (unsigned long long)v->u64); /* fits */
    return plain.is == v->is && plain.u64 == v->u64;
}

static int check_taken(struct etcd_options *o, struct bns_err *err)
{
    for (size_t i = 0; i < TABLE_COUNT; i++) {
        const struct taken *t = &table[i];
        const char *said;
        char text[32];

        if (is_plain(t, &o->more.taken[i], text, &said))
            continue;
        if (t->effect == TAKES) /* a word that etcd does not know either */
            return bns_err_set(err, BNS_E_INVALID, "--%s \"%.64s\" is none of %s|%s", t->name, said,
                               t->plain, t->more);
        if (t->effect == REFUSES)
            return bns_err_set(err, BNS_E_INVALID, "--%s=%.64s is not supported: %s", t->name, said,
                               t->why);
        etcd_options_warn(o, "--%s=%.64s has no effect: %s", t->name, said, t->why);
    }
    return BNS_OK;
}

/* ---- the others ------------------------------------------------------------------------------ */
size_t etcd_more_flags(struct etcd_options *o, struct bns_cli_flag *out)
{
    struct etcd_more *m = &o->more;
    const struct bns_cli_flag flags[] = {
        {"wal-dir", 0, BNS_VALUE_STR, &o->wal_dir, "a directory of its own for the log", NULL},
        {"log-level", 0, BNS_VALUE_STR, &o->log_level, "debug, info, warn, error; panic: none",
         NULL},
        {"log-format", 0, BNS_VALUE_STR, &o->log_format, "logfmt, json, console (as logfmt)", NULL},
        {"logger", 0, BNS_VALUE_STR, &m->logger, "zap: logs are JSON; capnslog: they are logfmt",
         NULL},
        {"log-outputs", 0, BNS_VALUE_LIST, &m->log_outputs,
         "where logs go: default, stderr, stdout, or a file", NULL},
        {"debug", 0, BNS_VALUE_BOOL, &m->debug, "as --log-level=debug", NULL},
        {"listen-metrics-urls", 0, BNS_VALUE_STR, &m->metrics_urls_text,
         "further URLs to serve /metrics, /health, /livez and /readyz on", NULL},
        {"metrics", 0, BNS_VALUE_STR, &m->metrics,
         "basic; extensive: with a histogram grpc_server_handling_seconds for each method", NULL},
        {"discovery-srv", 0, BNS_VALUE_STR, &m->discovery_srv,
         "domain whose SRV records name the members, instead of --initial-cluster", NULL},
        {"discovery-srv-name", 0, BNS_VALUE_STR, &m->discovery_srv_name,
         "stands behind etcd-server in the names of those records", NULL},
        {"feature-gates", 0, BNS_VALUE_STR, &m->feature_gates,
         "Name=true,...: InitialCorruptCheck, CompactHashCheck, LeaseCheckpoint, ...", NULL},
        {"grpc-keepalive-interval", 0, BNS_VALUE_DURATION, &m->keepalive_ns,
         "clients that were silent for so long are asked whether they live; 0 = 2h", NULL},
        {"grpc-keepalive-timeout", 0, BNS_VALUE_DURATION, &m->keepalive_timeout_ns,
         "for their answer; 0 = 20s", NULL},
        {"enable-grpc-gateway", 0, BNS_VALUE_BOOL, &m->gateway, "serve JSON too; =false: do not",
         NULL},
        {"snapshot-catchup-entries", 0, BNS_VALUE_U64, &o->trailing_entries,
         "kept of the log behind a checkpoint, for members that lag; 0 = the default", NULL},
        {"experimental-snapshot-catchup-entries", 0, BNS_VALUE_U64, &o->trailing_entries,
         "its name in older releases", NULL},
    };
    size_t n = sizeof flags / sizeof flags[0];

    _Static_assert(sizeof flags / sizeof flags[0] + TABLE_COUNT <= ETCD_MORE_FLAGS,
                   "room for all flags");
    memcpy(out, flags, sizeof flags);
    for (size_t i = 0; i < TABLE_COUNT; i++)
        out[n++] = (struct bns_cli_flag){
            table[i].name, 0, table[i].kind, place(&m->taken[i], table[i].kind), NULL, NULL};
    return n;
}

/* ---- feature gates --------------------------------------------------------------------------- */
/* What a gate sets; NULL: nothing depends on it here. */
static int set_gate(struct etcd_options *o, struct bns_slice name, bool on, struct bns_err *err)
{
    const struct {
        const char *name;
        bool *dst;
    } gates[] = {
        {"InitialCorruptCheck", &o->initial_corrupt_check},
        {"CompactHashCheck", &o->compact_hash_check},
        {"LeaseCheckpoint", &o->lease_checkpoint},
        {"LeaseCheckpointPersist", &o->lease_checkpoint_persist},
        {"StopGRPCServiceOnDefrag", NULL},
        {"TxnModeWriteWithSharedBuffer", NULL},
        {"AllAlpha", NULL}, /* a name for the others, which have a word here */
        {"AllBeta", NULL},
        {"SetMemberLocalAddr", NULL},
    };

    for (size_t i = 0; i < sizeof gates / sizeof gates[0]; i++) {
        if (!bns_slice_eq(name, bns_slice_str(gates[i].name)))
            continue;
        if (gates[i].dst != NULL)
            *gates[i].dst = on;
        else if (on && strcmp(gates[i].name, "SetMemberLocalAddr") == 0)
            return bns_err_set(err, BNS_E_INVALID,
                               "--feature-gates: SetMemberLocalAddr=true is not supported: the "
                               "address to dial from is the system's choice");
        else if (on && strncmp(gates[i].name, "All", 3) == 0)
            return bns_err_set(err, BNS_E_INVALID,
                               "--feature-gates: %s=true is not supported: name the gates",
                               gates[i].name);
        return BNS_OK;
    }
    return bns_err_set(err, BNS_E_INVALID, "--feature-gates: unrecognized feature gate: %.*s",
                       (int)name.len, (const char *)name.ptr);
}

static int derive_gates(struct etcd_options *o, struct bns_err *err)
{
    const char *rest = o->more.feature_gates;

    while (rest != NULL && *rest != '\0') {
        size_t len = strcspn(rest, ","), name_len = strcspn(rest, "=,");
        char word[8] = "";
        bool on;
        int rv;

        if (name_len == len)
            return bns_err_set(err, BNS_E_INVALID, "--feature-gates: missing bool value for %.*s",
                               (int)len, rest);
        if (len - name_len - 1 < sizeof word)
            memcpy(word, rest + name_len + 1, len - name_len - 1);
        if (bns_value_set(BNS_VALUE_BOOL, &on, word, NULL) != BNS_OK)
            return bns_err_set(err, BNS_E_INVALID, "--feature-gates: invalid value of %.*s",
                               (int)len, rest);
        rv = set_gate(o, bns_slice(rest, name_len), on, err);
        if (rv != BNS_OK)
            return rv;
        rest += len;
        rest += *rest == ',' ? 1 : 0;
    }
    return BNS_OK;
}

/* ---- logs ------------------------------------------------------------------------------------ */
static int derive_level(struct etcd_options *o, struct bns_err *err)
{
    static const struct {
        const char *name;
        int level;
    } levels[] = {
        {"debug", BNS_LOG_DEBUG},   {"info", BNS_LOG_INFO},      {"warn", BNS_LOG_WARN},
        {"error", BNS_LOG_ERROR},   {"dpanic", BNS_LOG_NOTHING}, {"panic", BNS_LOG_NOTHING},
        {"fatal", BNS_LOG_NOTHING}, /* what ends a process is told without the log */
    };

    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        if (strcmp(o->log_level, levels[i].name) == 0) {
            o->level = o->more.debug ? BNS_LOG_DEBUG : (enum bns_log_level)levels[i].level;
            return BNS_OK;
        }
    }
    return bns_err_set(err, BNS_E_INVALID,
                       "--log-level \"%s\" is none of debug, info, warn, error, panic, fatal",
                       o->log_level);
}

/* etcd's "console" is text for people: what that is here is logfmt. */
static int derive_format(struct etcd_options *o, struct bns_err *err)
{
    const char *logger = o->more.logger;

    if (logger != NULL && strcmp(logger, "zap") != 0 && strcmp(logger, "capnslog") != 0)
        return bns_err_set(err, BNS_E_INVALID, "unknown logger option \"%s\": zap or capnslog",
                           logger);
    o->format = BNS_LOG_LOGFMT;
    if (o->log_format == NULL) {
        if (logger == NULL ? o->as_etcd : strcmp(logger, "zap") == 0)
            o->format = BNS_LOG_JSON;
        return BNS_OK;
    }
    if (strcmp(o->log_format, "json") == 0)
        o->format = BNS_LOG_JSON;
    else if (strcmp(o->log_format, "logfmt") != 0 && strcmp(o->log_format, "console") != 0)
        return bns_err_set(err, BNS_E_INVALID,
                           "--log-format \"%s\" is neither logfmt nor json nor console",
                           o->log_format);
    return BNS_OK;
}

static int derive_outputs(const struct etcd_options *o, struct bns_err *err)
{
    const char *to = o->more.log_outputs;

    if (to == NULL)
        return BNS_OK;
    if (*to == '\0' || strchr(to, ',') != NULL)
        return bns_err_set(err, BNS_E_INVALID, "--log-outputs \"%s\": one output is supported", to);
    if (strcmp(to, "systemd/journal") == 0 && getenv("JOURNAL_STREAM") == NULL)
        return bns_err_set(err, BNS_E_INVALID,
                           "--log-outputs %s: stderr is not the journal's: run it as a service, or "
                           "choose stderr",
                           to);
    return BNS_OK;
}

int etcd_log_redirect(const struct etcd_options *o, struct bns_err *err)
{
    const char *to = o->more.log_outputs;
    int fd, got;

    if (to == NULL || strcmp(to, "default") == 0 || strcmp(to, "stderr") == 0 ||
        strcmp(to, "systemd/journal") == 0)
        return BNS_OK;
    if (strcmp(to, "stdout") == 0) {
        got = dup2(STDOUT_FILENO, STDERR_FILENO);
    } else {
        fd = open(to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd < 0)
            return bns_err_set(err, BNS_E_IO, "--log-outputs %s: %s", to, strerror(errno));
        got = dup2(fd, STDERR_FILENO);
        (void)close(fd); /* nothing was written through it */
    }
    return got < 0 ? bns_err_set(err, BNS_E_IO, "--log-outputs %s: %s", to, strerror(errno))
                   : BNS_OK;
}

void etcd_options_warn(const struct etcd_options *o, const char *fmt, ...)
{
    char text[1024];
    struct bns_log log;
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap); /* a longer one is cut */
    va_end(ap);
    if (o->format == BNS_LOG_LOGFMT) {
        (void)fprintf(stderr, "etcd-lite: warning: %s\n", text); /* stderr may be closed */
        return;
    }
    bns_log_stderr(&log);
    log.format = o->format;
    BNS_LOG(&log, BNS_LOG_WARN, "etcd", "options", BNS_STR("warning", text));
}

/* ---- all ------------------------------------------------------------------------------------- */
int etcd_more_derive(struct etcd_options *o, struct bns_err *err)
{
    const struct etcd_more *m = &o->more;
    int rv = derive_level(o, err);

    if (rv == BNS_OK)
        rv = derive_format(o, err);
    if (rv == BNS_OK)
        rv = derive_outputs(o, err);
    if (rv == BNS_OK)
        rv = check_taken(o, err);
    if (rv == BNS_OK)
        rv = derive_gates(o, err);
    if (rv == BNS_OK &&
        (m->keepalive_ns > KEEPALIVE_MAX || m->keepalive_timeout_ns > KEEPALIVE_MAX))
        rv = bns_err_set(err, BNS_E_INVALID,
                         "--grpc-keepalive-interval and --grpc-keepalive-timeout: at most a year");
    return rv;
}
