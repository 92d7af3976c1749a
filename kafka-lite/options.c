/* options.c - the broker's configuration under Kafka's own names.
 *
 *   kafka-lite [server.properties] [--override key=value]... [flags]
 *
 * A properties file is read as Java reads one: `key=value`, `key: value`, `key value`, comments
 * with # or !, a line that ends with a backslash goes on. A variable KAFKA_LOG_DIRS is log.dirs:
 * `_` is a dot, `__` an underscore, `___` a dash, as Apache Kafka's container has it. Keys that
 * nobody knows are named in one line and passed over; a bad value of a known one ends the program.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "meta/config_table.h"
#include "options.h"
#include "wire/uuid.h"

#define FILE_MAX (1024u * 1024)
#define KEYS_MAX 1000u

static int put(struct kafka_options *o, struct bns_slice key, struct bns_slice value,
               struct bns_err *err)
{
    struct kafka_config_set *s = &o->statics;
    uint32_t at = 0;
    int c = 1;

    while (at < s->count && (c = bns_slice_cmp(s->entries[at].key, key)) < 0)
        at++;
    if (at < s->count && c == 0) {
        s->entries[at].value = value;
        return BNS_OK;
    }
    if (s->count == s->cap)
        return bns_err_set(err, BNS_E_TOOBIG, "more than %u configuration keys", KEYS_MAX);
    memmove(&s->entries[at + 1], &s->entries[at], (s->count - at) * sizeof s->entries[0]);
    s->entries[at] = (struct kafka_config_entry){key, value};
    s->count++;
    return BNS_OK;
}

/* ---- properties ------------------------------------------------------------------------------ */

static bool blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\f' || c == '\r';
}

/* Takes one logical line off the front, continuations joined, in place; false: the end. */
static bool next_line(uint8_t *text, size_t len, size_t *at, struct bns_slice *line)
{
    size_t to = *at, begin = *at;

    if (*at >= len)
        return false;
    while (*at < len && text[*at] != '\n') {
        if (text[*at] == '\\' && *at + 1 < len &&
            (text[*at + 1] == '\n' || text[*at + 1] == '\r')) {
            *at += text[*at + 1] == '\r' && *at + 2 < len && text[*at + 2] == '\n' ? 3 : 2;
            while (*at < len && blank(text[*at]))
                (*at)++;
            continue;
        }
        text[to++] = text[(*at)++];
    }
    (*at)++;
    *line = bns_slice(text + begin, to - begin);
    return true;
}

static int take_line(struct kafka_options *o, struct bns_slice line, struct bns_err *err)
{
    struct bns_slice key, value;
    size_t n = 0;

    while (line.len > 0 && blank(line.ptr[0]))
        line = bns_slice_skip(line, 1);
    while (line.len > 0 && blank(line.ptr[line.len - 1]))
        line.len--;
    if (line.len == 0 || line.ptr[0] == '#' || line.ptr[0] == '!')
        return BNS_OK;
    while (n < line.len && line.ptr[n] != '=' && line.ptr[n] != ':' && !blank(line.ptr[n]))
        n++;
    key = bns_slice(line.ptr, n);
    value = bns_slice_skip(line, n);
    while (value.len > 0 && blank(value.ptr[0]))
        value = bns_slice_skip(value, 1);
    if (value.len > 0 && (value.ptr[0] == '=' || value.ptr[0] == ':'))
        value = bns_slice_skip(value, 1);
    while (value.len > 0 && blank(value.ptr[0]))
        value = bns_slice_skip(value, 1);
    return put(o, key, value, err);
}

static int load(struct kafka_options *o, const char *path, struct bns_err *err)
{
    FILE *f = fopen(path, "rb");
    uint8_t *text = bns_arena_alloc(o->arena, FILE_MAX + 1);
    struct bns_slice line;
    size_t len, at = 0;
    int rv = BNS_OK;

    if (f == NULL)
        return bns_err_set(err, BNS_E_INVALID, "%s: cannot be read", path);
    len = text == NULL ? 0 : fread(text, 1, FILE_MAX + 1, f);
    (void)fclose(f); /* only read */
    if (text == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory", path);
    if (len > FILE_MAX)
        return bns_err_set(err, BNS_E_TOOBIG, "%s: more than %u bytes", path, FILE_MAX);
    while (rv == BNS_OK && next_line(text, len, &at, &line))
        rv = take_line(o, line, err);
    return rv;
}

/* KAFKA_LOG_DIRS=x is log.dirs=x. */
static int take_variable(struct kafka_options *o, const char *entry, struct bns_err *err)
{
    static const char *const not_keys[] = {
        "HEAP_OPTS", "OPTS", "JVM_PERFORMANCE_OPTS", "LOG4J_OPTS", "JMX_OPTS", "HOME", "VERSION"};
    const char *eq = strchr(entry, '=');
    struct bns_slice name;
    char *key;
    size_t n = 0;

    if (strncmp(entry, "KAFKA_", 6) != 0 || eq == NULL || eq[1] == '\0')
        return BNS_OK;
    name = bns_slice(entry + 6, (size_t)(eq - entry) - 6);
    for (size_t i = 0; i < sizeof not_keys / sizeof not_keys[0]; i++) {
        if (bns_slice_eq(name, bns_slice_str(not_keys[i])))
            return BNS_OK;
    }
    key = bns_arena_alloc(o->arena, name.len + 1);
    if (key == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory");
    for (size_t i = 0; i < name.len; i++) {
        size_t run = 0;

        if (name.ptr[i] != '_') {
            key[n++] = (char)tolower(name.ptr[i]);
            continue;
        }
        while (run < 3 && i + run < name.len && name.ptr[i + run] == '_')
            run++;
        key[n++] = run == 1 ? '.' : run == 2 ? '_' : '-';
        i += run - 1;
    }
    return put(o, bns_slice(key, n), bns_slice_str(eq + 1), err);
}

/* ---- what the values say --------------------------------------------------------------------- */

static struct bns_slice get(const struct kafka_options *o, const char *key)
{
    const struct kafka_config_entry *e = kafka_config_find(&o->statics, bns_slice_str(key));

    return e == NULL ? bns_slice(NULL, 0) : e->value;
}

static int check_all(struct kafka_options *o, struct bns_err *err)
{
    for (uint32_t i = 0; i < o->statics.count; i++) {
        struct kafka_config_entry *e = &o->statics.entries[i];
        const struct kafka_config_key *k = kafka_broker_key(e->key);
        int rv = k == NULL ? BNS_OK : kafka_config_check(k, e->value, err);

        if (rv != BNS_OK)
            return bns_err_wrap(err, "%.*s", (int)e->key.len, (const char *)e->key.ptr);
        if (k == NULL && !bns_slice_eq(e->key, BNS_LIT("cluster.id")))
            (void)fprintf(stderr, "kafka-lite: %.*s is not known and passed over\n",
                          (int)e->key.len, (const char *)e->key.ptr); /* stderr may be closed */
    }
    return BNS_OK;
}

static int number(const struct kafka_options *o, const char *key, int64_t preset, int64_t *out,
                  struct bns_err *err)
{
    struct bns_slice text = get(o, key);

    *out = preset;
    if (text.ptr == NULL || kafka_config_number(text, out) == BNS_OK)
        return BNS_OK;
    return bns_err_set(err, BNS_E_INVALID, "%s: \"%.*s\" is not a number", key, (int)text.len,
                       (const char *)text.ptr);
}

/* NAME://host:port; an empty host is loopback, brackets stand around IPv6. */
static int parse_endpoint(struct bns_slice s, struct bns_slice *name, struct bns_slice *host,
                          uint16_t *port)
{
    size_t n = 0, colon;
    unsigned long v = 0;

    while (n + 2 < s.len && memcmp(s.ptr + n, "://", 3) != 0)
        n++;
    if (n == 0 || n + 2 >= s.len)
        return BNS_E_INVALID;
    *name = bns_slice(s.ptr, n);
    s = bns_slice_skip(s, n + 3);
    for (colon = s.len; colon > 0 && s.ptr[colon - 1] != ':';)
        colon--;
    if (colon == 0 || colon == s.len || s.len - colon > 5)
        return BNS_E_INVALID;
    for (size_t i = colon; i < s.len; i++) {
        if (!isdigit(s.ptr[i]))
            return BNS_E_INVALID;
        v = 10 * v + (unsigned long)(s.ptr[i] - '0');
    }
    *host = bns_slice(s.ptr, colon - 1);
    if (host->len >= 2 && host->ptr[0] == '[' && host->ptr[host->len - 1] == ']')
        *host = bns_slice(host->ptr + 1, host->len - 2);
    *port = (uint16_t)v;
    return v > 65535 ? BNS_E_INVALID : BNS_OK;
}

/* listener.security.protocol.map: NAME:PLAINTEXT */
static bool plain(const struct kafka_options *o, struct bns_slice name)
{
    struct bns_slice list = get(o, "listener.security.protocol.map"), one;

    while (list.ptr != NULL && kafka_config_element(&list, &one)) {
        if (one.len > name.len && memcmp(one.ptr, name.ptr, name.len) == 0 &&
            bns_slice_eq(bns_slice_skip(one, name.len), BNS_LIT(":PLAINTEXT")))
            return true;
    }
    return false;
}

static int add_listener(struct kafka_options *o, struct bns_slice one, struct bns_err *err)
{
    struct kafka_broker_cfg *b = &o->broker;
    struct kafka_listener *l = &b->listeners[b->listeners_count];
    struct bns_slice name, host;

    if (b->listeners_count == KAFKA_LISTENERS_MAX)
        return bns_err_set(err, BNS_E_INVALID, "listeners: more than %d", KAFKA_LISTENERS_MAX);
    if (parse_endpoint(one, &name, &host, &l->port) != BNS_OK || host.len >= sizeof l->host)
        return bns_err_set(err, BNS_E_INVALID, "listeners: \"%.*s\" is not NAME://host:port",
                           (int)one.len, (const char *)one.ptr);
    if (bns_slice_eq(name, BNS_LIT("CONTROLLER")))
        return BNS_OK; /* one node needs none */
    l->name = bns_arena_str(o->arena, name);
    if (l->name == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory");
    if (!bns_slice_eq(name, BNS_LIT("PLAINTEXT")) && !plain(o, name))
        return bns_err_set(err, BNS_E_INVALID,
                           "listeners: %.*s is not PLAINTEXT: TLS and SASL are "
                           "not served",
                           (int)name.len, (const char *)name.ptr);
    if (host.len == 0)
        host = BNS_LIT("0.0.0.0");
    if (bns_slice_eq(host, BNS_LIT("localhost")))
        host = BNS_LIT("127.0.0.1");
    memcpy(l->host, host.ptr, host.len);
    l->host[host.len] = '\0';
    memcpy(l->advertised_host, host.ptr, host.len + 1 <= sizeof l->advertised_host ? host.len : 0);
    if (strcmp(l->host, "0.0.0.0") == 0 || strcmp(l->host, "::") == 0) {
        (void)snprintf(l->advertised_host, sizeof l->advertised_host, "localhost");   /* it fits */
        (void)fprintf(stderr, "kafka-lite: listens on all addresses, without TLS\n"); /* as told */
    }
    b->listeners_count++;
    return BNS_OK;
}

static int advertise(struct kafka_options *o, struct bns_slice one, struct bns_err *err)
{
    struct bns_slice name, host;
    uint16_t port;

    if (parse_endpoint(one, &name, &host, &port) != BNS_OK || host.len == 0 || host.len > 255)
        return bns_err_set(err, BNS_E_INVALID,
                           "advertised.listeners: \"%.*s\" is not NAME://host:port", (int)one.len,
                           (const char *)one.ptr);
    for (size_t i = 0; i < o->broker.listeners_count; i++) {
        struct kafka_listener *l = &o->broker.listeners[i];

        if (!bns_slice_eq(name, bns_slice_str(l->name)))
            continue;
        memcpy(l->advertised_host, host.ptr, host.len);
        l->advertised_host[host.len] = '\0';
        l->advertised_port = port;
        return BNS_OK;
    }
    return bns_err_set(err, BNS_E_INVALID, "advertised.listeners: %.*s is no listener",
                       (int)name.len, (const char *)name.ptr);
}

static int each(struct kafka_options *o, const char *key, const char *preset,
                int (*fn)(struct kafka_options *o, struct bns_slice one, struct bns_err *err),
                struct bns_err *err)
{
    struct bns_slice list = get(o, key), one;
    int rv = BNS_OK;

    if (list.ptr == NULL)
        list = bns_slice_str(preset);
    while (rv == BNS_OK && kafka_config_element(&list, &one)) {
        if (one.len > 0)
            rv = fn(o, one, err);
    }
    return rv;
}

static int apply(struct kafka_options *o, struct bns_err *err)
{
    struct bns_slice dirs = get(o, "log.dirs"), id = get(o, "cluster.id"), flush;
    int64_t node, request_max, idle, conns;
    int rv = check_all(o, err);

    if (dirs.ptr == NULL)
        dirs = get(o, "log.dir");
    if (rv == BNS_OK && dirs.ptr != NULL && o->data_dir == NULL)
        o->data_dir = bns_arena_str(o->arena, dirs);
    if (o->data_dir == NULL)
        o->data_dir = "kafka-lite-data";
    if (rv == BNS_OK && strchr(o->data_dir, ',') != NULL)
        rv = bns_err_set(err, BNS_E_INVALID, "log.dirs: one directory, not several");
    if (rv == BNS_OK)
        rv = number(o, get(o, "node.id").ptr != NULL ? "node.id" : "broker.id", 1, &node, err);
    if (rv == BNS_OK && (node < 0 || node > INT32_MAX))
        rv = bns_err_set(err, BNS_E_INVALID, "node.id: 0 to 2147483647");
    if (rv == BNS_OK)
        rv = number(o, "socket.request.max.bytes", 104857600, &request_max, err);
    if (rv == BNS_OK)
        rv = number(o, "connections.max.idle.ms", 600000, &idle, err);
    if (rv == BNS_OK)
        rv = number(o, "max.connections", 20000, &conns, err);
    if (rv == BNS_OK)
        rv = each(o, "listeners", "PLAINTEXT://127.0.0.1:9092", add_listener, err);
    if (rv == BNS_OK)
        rv = each(o, "advertised.listeners", "", advertise, err);
    if (rv != BNS_OK)
        return rv;
    if (o->broker.listeners_count == 0)
        return bns_err_set(err, BNS_E_INVALID, "listeners: none");
    flush = get(o, "lite.flush");
    o->broker.flush = bns_slice_eq(flush, BNS_LIT("os")) ? KAFKA_FLUSH_OS : KAFKA_FLUSH_GROUP;
    o->broker.cluster_id = id.ptr == NULL ? "" : bns_arena_str(o->arena, id);
    o->broker.node_id = (int32_t)node;
    o->broker.data_dir = o->data_dir;
    o->broker.statics = &o->statics;
    kafka_server_cfg_default(&o->broker.server);
    o->broker.server.request_bytes_max = (uint32_t)request_max;
    o->broker.server.idle_ns = idle < 0 ? 0 : (uint64_t)idle * BNS_MS;
    o->broker.server.conns_max = conns > 20000 || conns < 1 ? 20000 : (uint32_t)conns;
    return o->broker.cluster_id == NULL ? bns_err_set(err, BNS_E_NOMEM, "no memory") : BNS_OK;
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* --override key=value, any number of times, taken out of argv. */
static int take_overrides(struct kafka_options *o, int *argc, char **argv, struct bns_err *err)
{
    int n = 1;

    for (int i = 1; i < *argc; i++) {
        const char *eq;

        if (strcmp(argv[i], "--override") != 0 || i + 1 == *argc) {
            argv[n++] = argv[i];
            continue;
        }
        eq = strchr(argv[++i], '=');
        if (eq == NULL)
            return bns_err_set(err, BNS_E_INVALID, "--override %s: not key=value", argv[i]);
        if (put(o, bns_slice(argv[i], (size_t)(eq - argv[i])), bns_slice_str(eq + 1), err) !=
            BNS_OK)
            return BNS_E_TOOBIG;
    }
    *argc = n;
    return BNS_OK;
}

static int gather(struct kafka_options *o, const char *file, int argc, char **overrides,
                  char *const *environ, struct bns_err *err)
{
    const char *cluster = getenv("CLUSTER_ID");
    int rv = BNS_OK;

    if (file != NULL)
        rv = load(o, file, err);
    if (rv == BNS_OK && cluster != NULL && cluster[0] != '\0')
        rv = put(o, BNS_LIT("cluster.id"), bns_slice_str(cluster), err);
    for (size_t i = 0; rv == BNS_OK && environ[i] != NULL; i++)
        rv = take_variable(o, environ[i], err);
    if (rv == BNS_OK)
        rv = take_overrides(o, &argc, overrides, err);
    return rv == BNS_OK ? apply(o, err) : rv;
}

bool kafka_options_read(struct kafka_options *o, struct bns_arena *arena, int argc, char **argv,
                        char *const *environ, int *code)
{
    const char *admin = "", *override = NULL;
    bool json = false, debug = false;
    const struct bns_cli_flag flags[] = {
        {"data-dir", 0, BNS_VALUE_STR, &o->data_dir, "directory of the logs (log.dirs)", NULL},
        {"ports-file", 0, BNS_VALUE_STR, &o->ports_file, "where the ports are written", NULL},
        {"admin", 0, BNS_VALUE_STR, &admin, "port of /metrics, /healthz, /readyz on loopback; off",
         NULL},
        {"override", 0, BNS_VALUE_STR, &override, "key=value over the file; repeatable", NULL},
        {"log-json", 0, BNS_VALUE_BOOL, &json, "log lines as JSON", NULL},
        {"debug", 0, BNS_VALUE_BOOL, &debug, "more log lines", NULL},
        {0}};
    const struct bns_cli cli = {.program = "kafka-lite",
                                .usage = "kafka-lite [server.properties] [flags]",
                                .about = "A broker that Kafka's clients talk to.",
                                .version = BNS_VERSION,
                                .flags = flags};
    struct bns_cli_words words = {0};
    struct bns_err err = {0};
    char **copy;
    int all = argc, rv;

    memset(o, 0, sizeof *o);
    o->arena = arena;
    o->level = BNS_LOG_INFO;
    o->statics.entries = bns_arena_alloc(arena, KEYS_MAX * sizeof *o->statics.entries);
    o->statics.cap = KEYS_MAX;
    copy = bns_arena_dup(arena, argv, ((size_t)argc + 1) * sizeof *argv);
    *code = BNS_EXIT_USAGE;
    if (copy == NULL || o->statics.entries == NULL)
        return false;
    rv = bns_cli_parse(&cli, argc, argv, &words, &err);
    if (rv == BNS_OK && bns_cli_answered(&cli, &words)) {
        *code = BNS_EXIT_OK;
        return false;
    }
    if (rv == BNS_OK) {
        *code = BNS_EXIT_CONFIG;
        rv = gather(o, words.count > 0 ? argv[1] : NULL, all, copy, environ, &err);
    }
    if (rv == BNS_OK && strcmp(admin, "off") != 0) {
        o->admin = true;
        o->admin_port = 9644;
        if (admin[0] != '\0')
            rv = bns_value_set(BNS_VALUE_U64, &o->admin_port, admin, &err);
    }
    o->admin_host = "127.0.0.1";
    o->level = debug ? BNS_LOG_DEBUG : BNS_LOG_INFO;
    o->format = json ? BNS_LOG_JSON : BNS_LOG_LOGFMT;
    if (rv != BNS_OK)
        (void)fprintf(stderr, "kafka-lite: %s\n", err.text); /* stderr may be closed */
    return rv == BNS_OK;
}
