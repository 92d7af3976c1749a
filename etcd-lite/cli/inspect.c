/* inspect.c - inspect raft, members, index, leases, watchers: a member's inside, as tables or JSON.
 *
 * Asks each endpoint for /inspect/... over HTTP (src/inspect.c), page after page until --limit is
 * reached, and puts the pages together. With --user a token is asked for first: with auth on only
 * root may look.
 */
#include "cli.h"

#include <jansson.h>

#include "codec/base64.h"
#include "io/env_uv.h"
#include "io/http.h"
#include "members.h"

#define PAGE 1000
#define COLUMNS_MAX 12u

enum shown { AS_IS, AS_KEY, AS_BYTES, AS_MS, AS_LIST };

struct column {
    const char *head, *name; /* name: "a.b" is b of a; NULL: the endpoint */
    enum shown shown;
};

/* One table: a row a member when rows is NULL, else a row an element of that array. */
struct table {
    const char *rows;
    struct column columns[COLUMNS_MAX]; /* up to one without a head */
};

/* ---- one answer ------------------------------------------------------------------------------ */

struct fetched {
    struct ctl *c;
    bool over;
    int code, status;
    json_t *json;
};

static void arrived(void *arg, int code, const struct bns_http_answer *a)
{
    struct fetched *f = arg;

    f->code = code;
    if (code == BNS_OK) {
        f->status = a->status;
        f->json = json_loadb((const char *)a->body.ptr, a->body.len, 0, NULL);
    }
    f->over = true;
    bns_env_uv_stop(f->c->env);
}

/* NULL: said why not. */
static json_t *fetch(struct ctl *c, const char *endpoint, const char *token, const char *target)
{
    struct bns_http1_header auth = {BNS_LIT("authorization"),
                                    bns_slice_str(token == NULL ? "" : token)};
    struct bns_http_fetch_opts o = {.target = target,
                                    .headers = &auth,
                                    .headers_count = token == NULL ? 0 : 1,
                                    .timeout_ns = (uint64_t)c->f.command_timeout_ns,
                                    .body_bytes_max = 128u * 1024 * 1024,
                                    .tls = c->tls};
    const char *url =
        strstr(endpoint, "://") != NULL ? endpoint : ctl_print(c, "http://%s", endpoint);
    struct fetched f = {.c = c};
    struct bns_err err = {0};
    struct etcd_url at;
    const char *said;

    if (etcd_url_parse(url, &at, &err) != BNS_OK) {
        (void)ctl_fail(CTL_ARGS, "%s", err.text);
        return NULL;
    }
    o.host = at.host;
    o.port = at.port;
    if (bns_http_fetch(c->env, &o, arrived, &f, NULL, &err) != BNS_OK) {
        (void)ctl_fail(CTL_ERROR, "%s", err.text);
        return NULL;
    }
    while (!f.over)
        bns_env_uv_run(c->env);
    if (f.code == BNS_OK && f.status == 200 && f.json != NULL)
        return f.json;
    said = json_string_value(json_object_get(f.json, "error"));
    if (f.code != BNS_OK)
        (void)ctl_fail(CTL_ERROR, "%s: %s", endpoint, bns_err_default_text(f.code));
    else if (said != NULL)
        (void)ctl_fail(CTL_ERROR, "%s: %s", endpoint, said);
    else
        (void)ctl_fail(CTL_ERROR, "%s: HTTP status %d: no inspection there", endpoint, f.status);
    json_decref(f.json);
    return NULL;
}

/* *token NULL: none is needed. CTL_OK, or said why there is none. */
static int get_token(struct ctl *c, const char *endpoint, const char **token)
{
    Etcdserverpb__AuthenticateRequest req = ETCDSERVERPB__AUTHENTICATE_REQUEST__INIT;
    const Etcdserverpb__AuthenticateResponse *r;
    struct bns_etcd *etcd = ctl_client(c, &endpoint, 1); /* makes loop and TLS, too */
    const char *colon = strchr(c->f.user, ':');
    struct ctl_reply reply;

    *token = NULL;
    if (etcd == NULL)
        return CTL_ARGS;
    if (c->f.user[0] == '\0') {
        bns_etcd_free(etcd);
        return CTL_OK;
    }
    req.name = ctl_print(c, "%s", c->f.user);
    req.password = ctl_print(c, "%s", c->f.password);
    if (c->f.password[0] == '\0' && colon != NULL) {
        req.name[colon - c->f.user] = '\0';
        req.password = ctl_print(c, "%s", colon + 1);
    }
    reply = ctl_ask_at(c, etcd, BNS_ETCD_AUTHENTICATE, &req.base);
    bns_etcd_free(etcd);
    if (reply.status != BNS_GRPC_OK && strstr(reply.text, "authentication is not enabled") == NULL)
        return ctl_reply_fail(c, reply.status, reply.text);
    r = reply.status == BNS_GRPC_OK ? reply.msg : NULL;
    *token = r == NULL ? NULL : r->token;
    return CTL_OK;
}

/* ---- pages ----------------------------------------------------------------------------------- */

/* A query parameter's value: what base64 has beside letters and digits. */
static const char *escape(struct ctl *c, const char *text)
{
    char *out = ctl_print(c, "%s", "");

    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '+' || *p == '/' || *p == '=')
            out = ctl_print(c, "%s%%%02X", out, (unsigned char)*p);
        else
            out = ctl_print(c, "%s%c", out, *p);
    }
    return out;
}

/* Both arrays have the largest first; the `top` largest of both stay in `into`. */
static void merge_largest(json_t *into, const json_t *more, size_t top)
{
    size_t at = 0, i;
    json_t *v;

    json_array_foreach(more, i, v)
    {
        json_int_t bytes = json_integer_value(json_object_get(v, "bytes"));

        while (at < json_array_size(into) &&
               json_integer_value(json_object_get(json_array_get(into, at), "bytes")) >= bytes)
            at++;
        BNS_ASSERT(json_array_insert(into, at, v) == 0);
    }
    while (json_array_size(into) > top)
        BNS_ASSERT(json_array_remove(into, json_array_size(into) - 1) == 0);
}

/* Puts the next page behind what there is. */
static void merge(struct ctl *c, json_t *all, json_t *page, const char *rows)
{
    json_t *into = json_object_get(all, rows), *more = json_object_get(page, rows);
    json_t *looked = json_object_get(page, "looked_at"), *next = json_object_get(page, "next");

    if (looked != NULL) {
        json_t *sum = json_integer(json_integer_value(looked) +
                                   json_integer_value(json_object_get(all, "looked_at")));

        merge_largest(into, more, (size_t)c->f.top);
        BNS_ASSERT(json_object_set_new(all, "looked_at", sum) == 0);
    } else {
        BNS_ASSERT(json_array_extend(into, more) == 0);
    }
    (void)json_object_del(all, "next"); /* there may be none */
    if (next != NULL)
        BNS_ASSERT(json_object_set(all, "next", next) == 0);
}

/* How many of what --limit counts a page has: a page may end early. */
static int64_t rows_of(const json_t *page, const char *rows)
{
    const json_t *looked = json_object_get(page, "looked_at");

    return looked != NULL ? json_integer_value(looked)
                          : (int64_t)json_array_size(json_object_get(page, rows));
}

/* What one member says, --limit of it (0: all). NULL: said why not. */
static json_t *ask_pages(struct ctl *c, const char *endpoint, const char *token, const char *what,
                         const char *rows)
{
    const char *from = "";
    json_t *all = NULL;
    int64_t left = c->f.limit;

    do {
        int64_t limit = left == 0 || left > PAGE ? PAGE : left;
        const char *target =
            rows == NULL
                ? ctl_print(c, "/inspect/%s", what)
                : ctl_print(c, "/inspect/%s?limit=%lld&top=%lld&stream=%lld%s", what,
                            (long long)limit, (long long)c->f.top, (long long)c->f.stream, from);
        json_t *page = fetch(c, endpoint, token, target);
        const char *next = json_string_value(json_object_get(page, "next"));
        int64_t got = page == NULL || rows == NULL ? limit : rows_of(page, rows);

        if (page == NULL) {
            json_decref(all);
            return NULL;
        }
        if (next != NULL)
            from = ctl_print(c, strcmp(what, "index") == 0 ? "&from=%s" : "&cursor=%s",
                             escape(c, next));
        if (all == NULL) {
            all = page;
        } else {
            merge(c, all, page, rows);
            json_decref(page);
        }
        if (left > 0 && (left -= got < left ? got : left) == 0)
            break;
    } while (json_object_get(all, "next") != NULL);
    return all;
}

/* ---- tables ---------------------------------------------------------------------------------- */

static const char *key_text(struct ctl *c, const char *base64)
{
    const char *out = base64;
    struct bns_buf b, text;
    int rv;

    bns_buf_init(&b, bns_alloc_libc(), 16384);
    bns_buf_init(&text, bns_alloc_libc(), 4 * 16384 + 1);
    rv = bns_base64_decode(&b, bns_slice_str(base64));
    for (size_t i = 0; i < b.len && rv == BNS_OK; i++)
        rv = b.ptr[i] >= ' ' && b.ptr[i] < 0x7f ? bns_buf_byte(&text, b.ptr[i])
                                                : bns_buf_fmt(&text, "\\x%02x", b.ptr[i]);
    if (rv == BNS_OK)
        out = ctl_print(c, "%.*s", (int)text.len, text.len == 0 ? "" : (const char *)text.ptr);
    bns_buf_free(&b);
    bns_buf_free(&text);
    return out;
}

static const char *list_text(struct ctl *c, const json_t *list)
{
    char *out = ctl_print(c, "%s", "");
    size_t i;
    json_t *v;

    json_array_foreach(list, i, v)
    {
        out = ctl_print(c, "%s%s%s", out, i == 0 ? "" : ",", json_string_value(v));
    }
    return out;
}

static const char *cell(struct ctl *c, const json_t *v, enum shown shown)
{
    if (v == NULL || json_is_null(v))
        return "-";
    if (json_is_boolean(v))
        return json_is_true(v) ? "true" : "false";
    if (shown == AS_LIST)
        return list_text(c, v);
    if (json_is_string(v))
        return shown == AS_KEY ? key_text(c, json_string_value(v))
                               : ctl_print(c, "%s", json_string_value(v));
    if (shown == AS_BYTES)
        return ctl_bytes(c, json_integer_value(v));
    if (shown == AS_MS)
        return ctl_duration(c, (uint64_t)json_integer_value(v) * BNS_MS);
    return ctl_print(c, "%lld", (long long)json_integer_value(v));
}

static const json_t *member_of(const json_t *v, const char *name)
{
    const char *dot = strchr(name, '.');

    if (dot == NULL)
        return json_object_get(v, name);
    return json_object_get(json_object_getn(v, name, (size_t)(dot - name)), dot + 1);
}

struct answers {
    const char **at;
    json_t **said; /* NULL: nothing */
    size_t count;
};

static void put_row(struct ctl *c, const struct table *t, size_t columns, const char *endpoint,
                    const json_t *v, const char **cells)
{
    for (size_t k = 0; k < columns; k++) {
        const struct column *col = &t->columns[k];

        cells[k] = col->name == NULL ? endpoint : cell(c, member_of(v, col->name), col->shown);
    }
}

static void put_table(struct ctl *c, const struct table *t, const struct answers *a)
{
    size_t columns = 0, rows = 1;
    const char **cells;

    for (size_t i = 0; i < a->count; i++)
        rows += t->rows == NULL ? 1 : json_array_size(json_object_get(a->said[i], t->rows));
    while (columns < COLUMNS_MAX && t->columns[columns].head != NULL)
        columns++;
    cells = bns_arena_alloc(&c->arena, rows * columns * sizeof *cells);
    BNS_ASSERT(cells != NULL);
    for (size_t k = 0; k < columns; k++)
        cells[k] = t->columns[k].head;
    rows = 1;
    for (size_t i = 0; i < a->count; i++) {
        const json_t *list = t->rows == NULL ? NULL : json_object_get(a->said[i], t->rows);
        size_t n = t->rows == NULL ? a->said[i] != NULL : json_array_size(list);

        for (size_t j = 0; j < n; j++)
            put_row(c, t, columns, a->at[i], list == NULL ? a->said[i] : json_array_get(list, j),
                    cells + rows++ * columns);
    }
    if (rows > 1)
        ctl_table(cells, columns, rows);
}

static void put_json(const struct answers *a, const char *what)
{
    json_t *all = json_array();

    for (size_t i = 0; i < a->count; i++) {
        if (a->said[i] != NULL)
            BNS_ASSERT(json_array_append_new(all, json_pack("{s:s,s:O}", "endpoint", a->at[i], what,
                                                            a->said[i])) == 0);
    }
    (void)json_dumpf(all, stdout, JSON_COMPACT); /* a closed pipe is nobody's loss */
    (void)putchar('\n');
    json_decref(all);
}

/* ---- the verbs ------------------------------------------------------------------------------- */

static int inspect(struct ctl *c, const char *what, const char *rows, const struct table *tables)
{
    const char *all[CTL_ENDPOINTS_ALL];
    json_t *said[CTL_ENDPOINTS_ALL] = {0};
    struct answers a = {.at = all, .said = said};
    int code = ctl_format_status(c);

    if (code == CTL_OK && c->out == CTL_FIELDS)
        return ctl_fail(CTL_FEATURE, "fields not supported as output format");
    if (c->f.limit < 0 || c->f.top < 0 || c->f.top > 100 || c->f.stream < 0)
        return ctl_fail(CTL_ARGS, "--limit and --stream are not below 0, --top is 0 to 100");
    if (code == CTL_OK)
        code = ctl_endpoints(c, all, &a.count);
    if (code != CTL_OK)
        return code;
    for (size_t i = 0; i < a.count; i++) {
        const char *token;
        int rv = get_token(c, all[i], &token);

        if (rv == CTL_OK)
            said[i] = ask_pages(c, all[i], token, what, rows);
        if (said[i] == NULL)
            code = rv == CTL_OK ? CTL_ERROR : rv;
    }
    if (c->out == CTL_JSON)
        put_json(&a, what);
    for (; c->out != CTL_JSON && tables->columns[0].head != NULL; tables++)
        put_table(c, tables, &a);
    for (size_t i = 0; i < a.count; i++)
        json_decref(said[i]);
    return code;
}

int ctl_inspect_raft(struct ctl *c, int argc, char **argv)
{
    static const struct table t[] = {
        {NULL,
         {{"ENDPOINT", NULL, AS_IS},
          {"ID", "member", AS_IS},
          {"ROLE", "role", AS_IS},
          {"TERM", "term", AS_IS},
          {"LEADER", "leader", AS_IS},
          {"COMMIT", "commit", AS_IS},
          {"APPLIED", "applied", AS_IS},
          {"LOG FROM", "log.first", AS_IS},
          {"TO", "log.last", AS_IS},
          {"BYTES", "log.bytes", AS_BYTES},
          {"SNAPSHOT", "snapshot.index", AS_IS},
          {"VOTERS", "configuration.voters", AS_LIST}}},
        {"peers",
         {{"ENDPOINT", NULL, AS_IS},
          {"PEER", "id", AS_IS},
          {"LEARNER", "learner", AS_IS},
          {"STATE", "state", AS_IS},
          {"MATCH", "match", AS_IS},
          {"NEXT", "next", AS_IS},
          {"IN FLIGHT", "inflight", AS_IS},
          {"HEARD", "heard_ms_ago", AS_MS},
          {"CONNECTED", "connected_ms", AS_MS}}},
        {0},
    };

    (void)argc;
    (void)argv;
    return inspect(c, "raft", NULL, t);
}

int ctl_inspect_members(struct ctl *c, int argc, char **argv)
{
    static const struct table t[] = {
        {"members",
         {{"ENDPOINT", NULL, AS_IS},
          {"ID", "id", AS_IS},
          {"NAME", "name", AS_IS},
          {"LEARNER", "learner", AS_IS},
          {"LEADER", "leader", AS_IS},
          {"CONNECTED", "connected_ms", AS_MS},
          {"PEER ADDRS", "peer_urls", AS_LIST},
          {"CLIENT ADDRS", "client_urls", AS_LIST}}},
        {0},
    };

    (void)argc;
    (void)argv;
    return inspect(c, "members", NULL, t);
}

int ctl_inspect_index(struct ctl *c, int argc, char **argv)
{
    static const struct table t[] = {
        {NULL,
         {{"ENDPOINT", NULL, AS_IS},
          {"REVISION", "revision", AS_IS},
          {"COMPACTED", "compacted", AS_IS},
          {"KEYS", "keys", AS_IS},
          {"ALIVE", "alive", AS_IS},
          {"REVISIONS", "revisions", AS_IS},
          {"BYTES", "bytes", AS_BYTES},
          {"DEPTH", "depth", AS_IS},
          {"LOOKED AT", "looked_at", AS_IS}}},
        {"largest",
         {{"ENDPOINT", NULL, AS_IS},
          {"KEY", "key", AS_KEY},
          {"BYTES", "bytes", AS_BYTES},
          {"REVISIONS", "revisions", AS_IS},
          {"CREATED", "create_revision", AS_IS},
          {"MODIFIED", "mod_revision", AS_IS},
          {"DELETED", "deleted", AS_IS},
          {"LEASED", "leased", AS_IS}}},
        {0},
    };

    (void)argc;
    (void)argv;
    return inspect(c, "index", "largest", t);
}

int ctl_inspect_leases(struct ctl *c, int argc, char **argv)
{
    static const struct table t[] = {
        {"leases",
         {{"ENDPOINT", NULL, AS_IS},
          {"ID", "id", AS_IS},
          {"TTL", "ttl", AS_IS},
          {"REMAINING", "remaining", AS_IS},
          {"KEYS", "keys", AS_IS},
          {"CHECKPOINT", "checkpoint", AS_IS},
          {"REVOKING", "revoking", AS_IS}}},
        {0},
    };

    (void)argc;
    (void)argv;
    return inspect(c, "leases", "leases", t);
}

int ctl_inspect_watchers(struct ctl *c, int argc, char **argv)
{
    static const struct table streams[] = {
        {NULL,
         {{"ENDPOINT", NULL, AS_IS},
          {"REVISION", "revision", AS_IS},
          {"STREAMS", "count", AS_IS},
          {"WATCHES", "watches", AS_IS},
          {"BEHIND", "behind", AS_IS},
          {"QUEUED", "queued_bytes", AS_BYTES},
          {"EVENTS SENT", "events_sent", AS_IS}}},
        {"streams",
         {{"ENDPOINT", NULL, AS_IS},
          {"STREAM", "stream", AS_IS},
          {"CLIENT", "client", AS_IS},
          {"WATCHES", "watches", AS_IS},
          {"BEHIND", "behind", AS_IS},
          {"QUEUED", "queued_bytes", AS_BYTES}}},
        {0},
    };
    static const struct table one[] = {
        {"watchers",
         {{"ENDPOINT", NULL, AS_IS},
          {"WATCH", "id", AS_IS},
          {"KEY", "key", AS_KEY},
          {"RANGE END", "range_end", AS_KEY},
          {"NEXT REVISION", "next_revision", AS_IS},
          {"BEHIND BY", "behind_by", AS_IS}}},
        {0},
    };

    (void)argc;
    (void)argv;
    if (c->f.stream > 0)
        return inspect(c, "watchers", "watchers", one);
    return inspect(c, "watchers", "streams", streams);
}
