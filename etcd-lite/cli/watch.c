/* watch.c - watch: events until the watch is cancelled, or for ever; -i: watches typed in; behind
 * "--" a command that is run for each event, with ETCD_WATCH_* in its environment. */
#include "cli.h"

#include <inttypes.h>
#include <unistd.h>

#include "client/etcd/watch.h"
#include "io/env_uv.h"

struct watching {
    struct ctl *c;
    char **command; /* NULL: none */
    int code;
};

/* ---- output ---------------------------------------------------------------------------------- */

static void print_json(const Etcdserverpb__WatchResponse *r, int64_t compacted, bool canceled)
{
    (void)fputs("{\"Header\":", stdout);
    if (r != NULL && r->header != NULL)
        ctl_json(&r->header->base);
    else
        (void)fputs("{}", stdout);
    (void)fputs(",\"Events\":[", stdout);
    for (size_t i = 0; r != NULL && i < r->n_events; i++) {
        if (i > 0)
            (void)putchar(',');
        ctl_json(&r->events[i]->base);
    }
    (void)printf("],\"CompactRevision\":%" PRId64 ",\"Canceled\":%s,\"Created\":false}\n",
                 compacted, canceled ? "true" : "false");
}

static void print_event(struct ctl *c, const Etcdserverpb__Event *e)
{
    const char *type = e->type == ETCDSERVERPB__EVENT__EVENT_TYPE__DELETE ? "DELETE" : "PUT";

    if (c->out == CTL_FIELDS) {
        (void)printf("\"Type\" : %s\n", type);
        if (e->prev_kv != NULL)
            ctl_out_kv_fields("Prev", e->prev_kv);
        ctl_out_kv_fields("", e->kv);
        return;
    }
    (void)puts(type);
    if (e->prev_kv != NULL)
        ctl_out_kv(c, e->prev_kv, false);
    ctl_out_kv(c, e->kv, false);
}

/* ---- the command ----------------------------------------------------------------------------- */

/* False: it could not be started, or has failed. */
static bool run_command(struct watching *w, int64_t revision, const Etcdserverpb__Event *e)
{
    bool deleted = e->type == ETCDSERVERPB__EVENT__EVENT_TYPE__DELETE;
    const Etcdserverpb__KeyValue *kv = e->kv;
    char *const more[] = {
        ctl_print(w->c, "ETCD_WATCH_REVISION=%" PRId64, revision),
        ctl_print(w->c, "ETCD_WATCH_EVENT_TYPE=\"%s\"", deleted ? "DELETE" : "PUT"),
        ctl_print(w->c, "ETCD_WATCH_KEY=\"%.*s\"", (int)kv->key.len, (const char *)kv->key.data),
        ctl_print(w->c, "ETCD_WATCH_VALUE=\"%.*s\"", (int)kv->value.len,
                  (const char *)kv->value.data),
        NULL,
    };
    int code = ctl_run(w->c, w->command, more);

    if (code != 0)
        (void)fprintf(stderr, "command %s error (exit status %d)\n", w->command[0], code);
    return code == 0;
}

/* ---- the watch ------------------------------------------------------------------------------- */

static void on_events(void *arg, const Etcdserverpb__WatchResponse *r)
{
    struct watching *w = arg;
    struct ctl *c = w->c;

    if (c->out == CTL_JSON)
        print_json(r, 0, false);
    else if (c->out == CTL_FIELDS)
        ctl_out_header(r->header);
    for (size_t i = 0; i < r->n_events; i++) {
        if (c->out != CTL_JSON)
            print_event(c, r->events[i]);
        if (w->command != NULL &&
            !run_command(w, r->header == NULL ? 0 : r->header->revision, r->events[i])) {
            w->code = CTL_ERROR;
            bns_env_uv_stop(c->env);
            return;
        }
    }
    (void)fflush(stdout);
}

static void on_end(void *arg, int status, const char *text, int64_t compacted)
{
    struct watching *w = arg;

    (void)fprintf(stderr, "watch was canceled (%s)\n",
                  compacted > 0 ? text : ctl_error_text(w->c, status, text));
    if (w->c->out == CTL_JSON)
        print_json(NULL, compacted, true);
    w->code = ctl_fail(CTL_INTERRUPTED, "watch is canceled by the server");
    bns_env_uv_stop(w->c->env);
}

static const struct bns_etcd_watch_handler handler = {.on_events = on_events, .on_end = on_end};

/* Key and end of words and flags, then it is opened. CTL_OK, or said what is wrong. */
static int open_watch(struct watching *w, int argc, char **argv, struct bns_etcd_watch **out)
{
    struct ctl *c = w->c;
    struct bns_etcd_watch_options o = {
        .start_revision = c->f.rev, .prev_kv = c->f.prev_kv, .handler = &handler, .arg = w};
    uint8_t *end;

    if (argc < 1)
        return ctl_fail(CTL_ARGS, "bad number of arguments");
    if (argc > 1 && c->f.prefix)
        return ctl_fail(CTL_ARGS, "`range_end` and `--prefix` are mutually exclusive");
    o.key = bns_slice_str(argv[0]);
    if (argc > 1)
        o.end = bns_slice_str(argv[1]);
    if (c->f.prefix) {
        end = bns_arena_alloc(&c->arena, o.key.len + 1);
        BNS_ASSERT(end != NULL);
        o.end = bns_etcd_prefix_end(o.key, end);
        if (o.key.len == 0)
            o.key = bns_slice("", 1); /* one zero byte: the first key */
    }
    if (bns_etcd_watch_open(c->etcd, &o, out) != BNS_OK)
        return ctl_fail(CTL_ERROR, "out of memory");
    return CTL_OK;
}

/* ---- -i: lines of stdin ---------------------------------------------------------------------- */

struct typed {
    struct watching *w;
    struct bns_job job;
    struct bns_etcd_watch *watches[64];
    size_t count;
    char line[4096];
    bool end, reading;
};

/* On a pool thread: the loop goes on meanwhile. */
static void read_line(struct bns_job *j)
{
    struct typed *y = BNS_CONTAINER(j, struct typed, job);

    y->end = fgets(y->line, sizeof y->line, stdin) == NULL;
}

static void run_line(struct typed *y)
{
    struct ctl *c = y->w->c;
    struct bns_err err = {0};
    int argc = 0;
    char **argv = ctl_words(c, y->line, &argc);

    y->line[strcspn(y->line, "\n")] = '\0';
    if (argc == 0)
        return;
    if (argc < 2 || strcmp(argv[0], "watch") != 0 || y->count == 64) {
        (void)fprintf(stderr, "Invalid command %s (only support watch)\n", y->line);
        return;
    }
    ctl_flags_defaults(c->verb->flags, &c->f);
    argc--;
    if (ctl_flags_read(c, c->verb->flags, &argc, argv + 1, &err) != BNS_OK)
        (void)fprintf(stderr, "Invalid command %s (%s)\n", y->line, err.text);
    else if (open_watch(y->w, argc, argv + 1, &y->watches[y->count]) == CTL_OK)
        y->count++;
}

static void took_line(struct bns_job *j)
{
    struct typed *y = BNS_CONTAINER(j, struct typed, job);

    y->reading = false;
    if (y->end) {
        y->w->code = ctl_fail(CTL_INPUT, "Error reading watch request line: EOF");
        bns_env_uv_stop(y->w->c->env);
        return;
    }
    run_line(y);
    y->reading = true;
    bns_pool_submit(y->w->c->env, &y->job);
}

static int interactive(struct watching *w)
{
    static struct typed y; /* a reader may still wait for stdin when the process ends */

    y.w = w;
    y.reading = true;
    y.job = (struct bns_job){.run = read_line, .done = took_line};
    bns_pool_submit(w->c->env, &y.job);
    bns_env_uv_run(w->c->env);
    (void)fflush(stdout);
    if (y.reading)
        _exit(w->code); /* the pool's thread cannot be joined: it waits for a line */
    for (size_t i = 0; i < y.count; i++)
        bns_etcd_watch_close(y.watches[i]);
    return w->code;
}

int ctl_watch(struct ctl *c, int argc, char **argv)
{
    struct watching w = {.c = c};
    struct bns_etcd_watch *watch = NULL;
    int code;

    if (c->dashes >= 0 && c->dashes < argc && !c->f.interactive) {
        w.command = argv + c->dashes;
        argc = c->dashes;
    }
    code = ctl_format(c, false);
    if (code == CTL_OK && argc < 1 && !c->f.interactive)
        code = ctl_fail(CTL_ARGS, "bad number of arguments");
    if (code == CTL_OK)
        code = ctl_connect(c);
    if (code == CTL_OK && c->f.interactive)
        return interactive(&w);
    if (code == CTL_OK)
        code = open_watch(&w, argc, argv, &watch);
    if (code != CTL_OK)
        return code;
    bns_env_uv_run(c->env);
    if (w.code == CTL_ERROR)
        bns_etcd_watch_close(watch); /* else it has ended */
    return w.code;
}
