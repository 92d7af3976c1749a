/* etcd_try.c - the C client of common/client/etcd as a program that is told what to do, for the
 * tests of tests/matrix: against etcd-lite and against the real etcd.
 *
 *   etcd_try --endpoints 127.0.0.1:2379
 *
 * One command a line comes in, and what happens goes out, one line each, as it happens:
 *   put KEY VALUE [LEASE]             put KEY ok | put KEY error STATUS TEXT
 *   get KEY | count PREFIX            get KEY VALUE | get KEY - | count PREFIX N
 *   del KEY, compact REVISION         ... ok
 *   swap KEY VALUE REVISION           swap KEY yes | swap KEY no
 *   watch NAME KEY [REVISION]         watch NAME created, put KEY VALUE REVISION, delete ...
 *   watchall NAME PREFIX [REVISION]   likewise
 *   lease NAME SECONDS                lease NAME granted ID, kept, lost STATUS TEXT
 *   lock NAME WHAT LEASE [VALUE]      lock NAME held TOKEN, lost ...; LEASE: a lease's NAME
 *   proclaim NAME VALUE               proclaim NAME yes | no
 *   observe NAME WHAT                 observe NAME leader VALUE, none
 *   member NAME PREFIX VALUE SECONDS  member NAME up REVISION, down ...
 *   peers NAME PREFIX                 peers NAME there WHO VALUE REVISION, gone WHO, synced
 *   close NAME                        close NAME ok: a watch, lease (revoked), lock, ...
 * The end of the input closes everything.
 *
 * Lines are read by a job of the pool, which waits there; the loop goes on meanwhile.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/cli.h"
#include "client/etcd/lease.h"
#include "client/etcd/lock.h"
#include "client/etcd/peers.h"
#include "client/etcd/watch.h"
#include "io/env_uv.h"
#include "io/tls.h"
#include "store/vfs_posix.h"

#define THINGS_MAX 64u
#define WORDS_MAX 8u
#define LINE_MAX_BYTES 4096

enum kind { FREE, WATCH, LEASE, LOCK, OBSERVE, MEMBER, PEERS };

struct thing { /* what stays open */
    enum kind kind;
    char name[32];
    void *it;
    int64_t lease; /* of a LEASE */
};

struct call { /* one that is under way */
    char what[16], key[256];
};

static struct bns_env *env;
static struct bns_etcd *client;
static struct thing things[THINGS_MAX];

struct reader {
    struct bns_job job;
    char line[LINE_MAX_BYTES];
    bool over;
};
static struct reader reader;

static void say(const char *fmt, ...) BNS_PRINTF(1, 2);
static void say(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vprintf(fmt, ap); /* who does not read it any more has closed our input, too */
    va_end(ap);
    (void)putchar('\n');
    (void)fflush(stdout);
}

/* ---- what stays open ------------------------------------------------------------------------- */

static struct thing *find(const char *name)
{
    for (size_t i = 0; i < THINGS_MAX; i++) {
        if (things[i].kind != FREE && strcmp(things[i].name, name) == 0)
            return &things[i];
    }
    return NULL;
}

static struct thing *take(enum kind kind, const char *name)
{
    for (size_t i = 0; i < THINGS_MAX; i++) {
        if (things[i].kind == FREE && strlen(name) < sizeof things[i].name) {
            things[i] = (struct thing){.kind = kind};
            (void)snprintf(things[i].name, sizeof things[i].name, "%s", name); /* fits */
            return &things[i];
        }
    }
    return NULL;
}

static const char *kind_name(const struct thing *t)
{
    static const char *const names[] = {"", "watch", "lease", "lock", "observe", "member", "peers"};

    return names[t->kind];
}

static void lost(void *arg, int status, const char *text)
{
    struct thing *t = arg;

    say("%s %s lost %d %s", kind_name(t), t->name, status, text);
    t->kind = FREE;
}

static void unlocked(void *arg, const struct bns_etcd_answer *a)
{
    (void)arg;
    say("unlocked %d %s", a->status, a->text);
}

static void close_thing(struct thing *t)
{
    switch (t->kind) {
    case WATCH:
        bns_etcd_watch_close(t->it);
        break;
    case LEASE:
        bns_etcd_lease_close(t->it, true);
        break;
    case LOCK:
        bns_etcd_lock_close(t->it, unlocked, NULL);
        break;
    case OBSERVE:
        bns_etcd_observe_close(t->it);
        break;
    case MEMBER:
        bns_etcd_member_close(t->it);
        break;
    case PEERS:
        bns_etcd_peers_close(t->it);
        break;
    case FREE:
        break;
    }
    t->kind = FREE;
}

/* ---- callbacks ------------------------------------------------------------------------------- */

static void on_created(void *arg, int64_t revision)
{
    (void)revision;
    say("watch %s created", ((struct thing *)arg)->name);
}

static void on_events(void *arg, const Etcdserverpb__WatchResponse *r)
{
    struct thing *t = arg;

    for (size_t i = 0; i < r->n_events; i++) {
        const Etcdserverpb__KeyValue *kv = r->events[i]->kv;

        if (r->events[i]->type == ETCDSERVERPB__EVENT__EVENT_TYPE__DELETE)
            say("watch %s delete %.*s %" PRId64, t->name, (int)kv->key.len,
                (const char *)kv->key.data, kv->mod_revision);
        else
            say("watch %s put %.*s %.*s %" PRId64, t->name, (int)kv->key.len,
                (const char *)kv->key.data, (int)kv->value.len, (const char *)kv->value.data,
                kv->mod_revision);
    }
}

static void on_watch_end(void *arg, int status, const char *text, int64_t compacted)
{
    struct thing *t = arg;

    say("watch %s lost %d %s (%" PRId64 ")", t->name, status, text, compacted);
    t->kind = FREE;
}

static void on_granted(void *arg, int64_t id, int64_t ttl)
{
    struct thing *t = arg;

    t->lease = id;
    say("lease %s granted %" PRIx64 " %" PRId64, t->name, (uint64_t)id, ttl);
}

static void on_kept(void *arg, int64_t ttl)
{
    say("lease %s kept %" PRId64, ((struct thing *)arg)->name, ttl);
}

static void on_held(void *arg, struct bns_slice key, int64_t token)
{
    say("lock %s held %" PRId64 " %.*s", ((struct thing *)arg)->name, token, (int)key.len,
        (const char *)key.ptr);
}

static void on_leader(void *arg, const Etcdserverpb__KeyValue *kv)
{
    say("observe %s leader %.*s", ((struct thing *)arg)->name, (int)kv->value.len,
        (const char *)kv->value.data);
}

static void on_none(void *arg)
{
    say("observe %s none", ((struct thing *)arg)->name);
}

static void on_up(void *arg, int64_t revision)
{
    say("member %s up %" PRId64, ((struct thing *)arg)->name, revision);
}

static void on_down(void *arg, int status, const char *text)
{
    say("member %s down %d %s", ((struct thing *)arg)->name, status, text);
}

static void on_peer(void *arg, struct bns_slice name, struct bns_slice value, int64_t revision)
{
    say("peers %s there %.*s %.*s %" PRId64, ((struct thing *)arg)->name, (int)name.len,
        (const char *)name.ptr, (int)value.len, (const char *)value.ptr, revision);
}

static void on_gone(void *arg, struct bns_slice name)
{
    say("peers %s gone %.*s", ((struct thing *)arg)->name, (int)name.len, (const char *)name.ptr);
}

static void on_synced(void *arg)
{
    say("peers %s synced", ((struct thing *)arg)->name);
}

static const struct bns_etcd_watch_handler watching = {on_created, on_events, NULL, on_watch_end};
static const struct bns_etcd_lease_handler leasing = {on_granted, on_kept, lost};
static const struct bns_etcd_lock_handler locking = {on_held, lost};
static const struct bns_etcd_observe_handler observing = {on_leader, on_none, lost};
static const struct bns_etcd_member_handler registering = {on_up, on_down};
static const struct bns_etcd_peers_handler viewing = {on_peer, on_gone, on_synced, lost};

/* ---- calls ----------------------------------------------------------------------------------- */

static void told(void *arg, const struct bns_etcd_answer *a)
{
    struct call *k = arg;
    const Etcdserverpb__RangeResponse *r = (const void *)a->msg;

    if (a->status != BNS_GRPC_OK) {
        say("%s %s error %d %s%s%s%s", k->what, k->key, a->status, a->text,
            a->cause[0] == '\0' ? "" : ": ", a->cause, a->unknown ? " (unknown)" : "");
    } else if (strcmp(k->what, "count") == 0) {
        say("count %s %" PRId64, k->key, r->count);
    } else if (strcmp(k->what, "get") == 0) {
        if (r->n_kvs == 0)
            say("get %s -", k->key);
        else
            say("get %s %.*s", k->key, (int)r->kvs[0]->value.len,
                (const char *)r->kvs[0]->value.data);
    } else if (strcmp(k->what, "swap") == 0 || strcmp(k->what, "proclaim") == 0) {
        const Etcdserverpb__TxnResponse *t = (const void *)a->msg;

        say("%s %s %s", k->what, k->key, t->succeeded ? "yes" : "no");
    } else {
        const Etcdserverpb__PutResponse *p = (const void *)a->msg; /* all begin with the header */

        say("%s %s ok %" PRId64, k->what, k->key, p->header == NULL ? 0 : p->header->revision);
    }
    free(k);
}

static struct call *new_call(char **w)
{
    struct call *k = calloc(1, sizeof *k);

    if (k == NULL)
        abort();
    (void)snprintf(k->what, sizeof k->what, "%s", w[0]);
    (void)snprintf(k->key, sizeof k->key, "%s", w[1]);
    return k;
}

static int64_t lease_id(const char *name)
{
    struct thing *t = name == NULL ? NULL : find(name);

    return t == NULL || t->kind != LEASE ? 0 : t->lease;
}

static int put(char **w, struct call *k)
{
    return bns_etcd_put(client, bns_slice_str(w[1]), bns_slice_str(w[2]), lease_id(w[3]), told, k);
}

static int swap(char **w, struct call *k)
{
    const struct bns_etcd_cas o = {.key = bns_slice_str(w[1]),
                                   .value = bns_slice_str(w[2]),
                                   .revision = strtoll(w[3], NULL, 10)};

    return bns_etcd_put_if(client, &o, told, k);
}

static int compact(char **w, struct call *k)
{
    Etcdserverpb__CompactionRequest req = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    const struct bns_etcd_call_options o = {.method = BNS_ETCD_COMPACT, .request = &req.base};

    req.has_revision = req.has_physical = req.physical = true;
    req.revision = strtoll(w[1], NULL, 10);
    return bns_etcd_call(client, &o, told, k, NULL);
}

static int get(char **w, struct call *k)
{
    uint8_t end[LINE_MAX_BYTES];
    bool all = strcmp(w[0], "count") == 0;
    struct bns_slice key = bns_slice_str(w[1]);

    return bns_etcd_get(client, key, all ? bns_etcd_prefix_end(key, end) : bns_slice(NULL, 0), told,
                        k);
}

static int del(char **w, struct call *k)
{
    return bns_etcd_del(client, bns_slice_str(w[1]), bns_slice(NULL, 0), told, k);
}

/* NAME VALUE */
static int proclaim(char **w, struct call *k)
{
    struct thing *t = find(w[1]);

    if (t == NULL || t->kind != LOCK)
        return BNS_E_INVALID;
    return bns_etcd_lock_proclaim(t->it, bns_slice_str(w[2]), told, k);
}

/* ---- what is opened -------------------------------------------------------------------------- */

static int watch_open(struct thing *t, char **w)
{
    uint8_t end[LINE_MAX_BYTES];
    struct bns_etcd_watch_options o = {.key = bns_slice_str(w[2]),
                                       .start_revision = w[3] == NULL ? 0 : strtoll(w[3], NULL, 10),
                                       .handler = &watching,
                                       .arg = t};

    if (strcmp(w[0], "watchall") == 0)
        o.end = bns_etcd_prefix_end(o.key, end);
    return bns_etcd_watch_open(client, &o, (void *)&t->it);
}

static int lease_open(struct thing *t, char **w)
{
    const struct bns_etcd_lease_options o = {
        .ttl_s = strtoll(w[2], NULL, 10), .handler = &leasing, .arg = t};

    return bns_etcd_lease_open(client, &o, (void *)&t->it);
}

static int lock_open(struct thing *t, char **w)
{
    const struct bns_etcd_lock_options o = {.name = bns_slice_str(w[2]),
                                            .value = bns_slice_str(w[4] == NULL ? "" : w[4]),
                                            .lease = lease_id(w[3]),
                                            .handler = &locking,
                                            .arg = t};

    return bns_etcd_lock_open(client, &o, (void *)&t->it);
}

static int observe_open(struct thing *t, char **w)
{
    return bns_etcd_observe_open(client, bns_slice_str(w[2]), &observing, t, (void *)&t->it);
}

static int member_open(struct thing *t, char **w)
{
    const struct bns_etcd_member_options o = {.prefix = bns_slice_str(w[2]),
                                              .name = bns_slice_str(w[1]),
                                              .value = bns_slice_str(w[3]),
                                              .ttl_s = strtoll(w[4], NULL, 10),
                                              .handler = &registering,
                                              .arg = t};

    return bns_etcd_member_open(client, &o, (void *)&t->it);
}

static int peers_open(struct thing *t, char **w)
{
    return bns_etcd_peers_open(client, bns_slice_str(w[2]), &viewing, t, (void *)&t->it);
}

/* ---- commands -------------------------------------------------------------------------------- */

static const struct command {
    const char *name;
    int words; /* at least, with its own */
    int (*call)(char **w, struct call *k);
    enum kind kind;
    int (*open)(struct thing *t, char **w);
} commands[] = {
    {"put", 3, put, FREE, NULL},
    {"get", 2, get, FREE, NULL},
    {"count", 2, get, FREE, NULL},
    {"del", 2, del, FREE, NULL},
    {"swap", 4, swap, FREE, NULL},
    {"compact", 2, compact, FREE, NULL},
    {"proclaim", 3, proclaim, FREE, NULL},
    {"watch", 3, NULL, WATCH, watch_open},
    {"watchall", 3, NULL, WATCH, watch_open},
    {"lease", 3, NULL, LEASE, lease_open},
    {"lock", 4, NULL, LOCK, lock_open},
    {"observe", 3, NULL, OBSERVE, observe_open},
    {"member", 5, NULL, MEMBER, member_open},
    {"peers", 3, NULL, PEERS, peers_open},
};

static int obey(const struct command *c, char **w)
{
    struct thing *t;
    struct call *k;
    int rv;

    if (c->call != NULL) {
        k = new_call(w);
        rv = c->call(w, k);
        if (rv != BNS_OK)
            free(k);
        return rv;
    }
    t = take(c->kind, w[1]);
    if (t == NULL)
        return BNS_E_BUSY;
    rv = c->open(t, w);
    if (rv != BNS_OK)
        t->kind = FREE;
    return rv;
}

static void run_line(char *line)
{
    char *w[WORDS_MAX + 1] = {NULL}, *save = NULL;
    int n = 0, rv = BNS_E_INVALID;

    for (char *p = strtok_r(line, " \n", &save); p != NULL && n < (int)WORDS_MAX;
         p = strtok_r(NULL, " \n", &save))
        w[n++] = p;
    if (n == 0)
        return;
    if (n == 2 && strcmp(w[0], "close") == 0 && find(w[1]) != NULL) {
        close_thing(find(w[1]));
        say("close %s ok", w[1]);
        return;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, w[0]) == 0 && n >= commands[i].words)
            rv = obey(&commands[i], w);
    }
    if (rv != BNS_OK)
        say("%s %s refused %s", w[0], n > 1 ? w[1] : "", bns_err_default_text(rv));
}

static void read_line(struct bns_job *j)
{
    struct reader *r = BNS_CONTAINER(j, struct reader, job);

    r->over = fgets(r->line, sizeof r->line, stdin) == NULL;
}

static void line_read(struct bns_job *j)
{
    struct reader *r = BNS_CONTAINER(j, struct reader, job);

    if (r->over) {
        bns_env_uv_stop(env);
        return;
    }
    run_line(r->line);
    bns_pool_submit(env, j);
}

static const char *endpoints_text = "127.0.0.1:2379", *cacert, *cert, *key, *server_name, *user,
                  *password;
static uint64_t timeout_ns = 5 * BNS_SEC;

static int connect_all(struct bns_tls **tls, struct bns_err *err)
{
    const struct bns_tls_config cfg = {.name = "client",
                                       .dial = true,
                                       .client_cert_file = cert,
                                       .client_key_file = key,
                                       .ca_file = cacert};
    struct bns_etcd_options o = {.server_name = server_name,
                                 .user = user,
                                 .password = password,
                                 .call_timeout_ns = timeout_ns,
                                 .first_endpoint = true};
    static char text[2048];
    const char *list[BNS_ETCD_ENDPOINTS_MAX];
    char *save = NULL;
    int rv = BNS_OK;

    (void)snprintf(text, sizeof text, "%s", endpoints_text);
    for (char *p = strtok_r(text, ",", &save); p != NULL && o.endpoints_count < 16;
         p = strtok_r(NULL, ",", &save))
        list[o.endpoints_count++] = p;
    o.endpoints = list;
    if (cacert != NULL)
        rv = bns_tls_new(env, &cfg, tls, err);
    o.tls = *tls;
    return rv == BNS_OK ? bns_etcd_new(env, &o, &client, err) : rv;
}

static struct bns_task last;

static void stop(struct bns_task *t)
{
    (void)t;
    bns_env_uv_stop(env);
}

static void drained(void *arg)
{
    (void)arg;
    bns_etcd_free(client);
    last.fn = stop; /* behind what the client has posted */
    bns_post(env, &last);
}

static int run(struct bns_err *err)
{
    struct bns_vfs *vfs = bns_vfs_posix(bns_alloc_libc());
    struct bns_tls *tls = NULL;
    int rv = vfs == NULL ? BNS_E_NOMEM : bns_env_uv_new(bns_alloc_libc(), vfs, &env, err);

    if (rv == BNS_OK)
        rv = connect_all(&tls, err);
    if (rv == BNS_OK) {
        reader.job.run = read_line;
        reader.job.done = line_read;
        bns_pool_submit(env, &reader.job);
        bns_env_uv_run(env);
        for (size_t i = 0; i < THINGS_MAX; i++)
            close_thing(&things[i]);
        bns_etcd_drain(client, drained, NULL);
        bns_env_uv_run(env);
    }
    bns_tls_free(tls);
    bns_env_uv_free(env);
    bns_vfs_posix_free(vfs);
    return rv;
}

int main(int argc, char **argv)
{
    const struct bns_cli_flag flags[] = {
        {"endpoints", 0, BNS_VALUE_LIST, &endpoints_text, "who serves", NULL},
        {"cacert", 0, BNS_VALUE_STR, &cacert, "who is trusted: TLS", NULL},
        {"cert", 0, BNS_VALUE_STR, &cert, "our certificate", NULL},
        {"key", 0, BNS_VALUE_STR, &key, "its key", NULL},
        {"server-name", 0, BNS_VALUE_STR, &server_name, "in certificates of servers", NULL},
        {"user", 0, BNS_VALUE_STR, &user, "a user of auth", NULL},
        {"password", 0, BNS_VALUE_STR, &password, "its password", NULL},
        {"timeout", 0, BNS_VALUE_DURATION, &timeout_ns, "of a call", NULL},
        {0},
    };
    const struct bns_cli cli = {.program = "etcd_try",
                                .usage = "etcd_try [flags]",
                                .about = "Tries the C client of etcd; commands by lines.",
                                .version = "1",
                                .flags = flags};
    struct bns_cli_words words = {0};
    struct bns_err err = {0};

    if (bns_cli_parse(&cli, argc, argv, &words, &err) != BNS_OK) {
        (void)fprintf(stderr, "etcd_try: %s\n", err.text);
        return BNS_EXIT_USAGE;
    }
    if (bns_cli_answered(&cli, &words))
        return BNS_EXIT_OK;
    if (run(&err) != BNS_OK) {
        (void)fprintf(stderr, "etcd_try: %s\n", err.text);
        return BNS_EXIT_FAILURE;
    }
    return BNS_EXIT_OK;
}
