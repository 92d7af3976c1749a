/* watch.c - watch: events until the watch is cancelled, or for ever; -i: watches typed in; behind
 * "--" a command that is run for each event, with ETCD_WATCH_* in its environment. */
#include "cli.h"

#include <inttypes.h>
#include <unistd.h>

#include "client/etcd/watch.h"
#include "io/env_uv.h"

struct watching {
    struct ctl *c;
    struct bns_etcd_watch *watch; /* NULL: none, or it has ended */
    char **command;               /* NULL: none */
    bool typed, progress;         /* of -i; its progress is to be told */
    int code;
    struct bns_arena arena; /* of -i: the words of its line */
};

/* ---- output ---------------------------------------------------------------------------------- */

static void print_json(const Etcdserverpb__WatchResponse *r)
{
    (void)fputs("{\"Header\":", stdout);
    if (r->header != NULL)
        ctl_json(&r->header->base);
    else
        (void)fputs("{}", stdout);
    (void)fputs(",\"Events\":[", stdout);
    for (size_t i = 0; i < r->n_events; i++) {
        if (i > 0)
            (void)putchar(',');
        ctl_json(&r->events[i]->base);
    }
    (void)printf("],\"CompactRevision\":%" PRId64 ",\"Canceled\":%s,\"Created\":false}\n",
                 r->compact_revision, r->canceled ? "true" : "false");
}

/* Without the id of the watch and what else etcdctl does not hand on. */
static void print_protobuf(const Etcdserverpb__WatchResponse *r)
{
    Etcdserverpb__WatchResponse w = ETCDSERVERPB__WATCH_RESPONSE__INIT;

    w.header = r->header;
    w.n_events = r->n_events;
    w.events = r->events;
    w.has_canceled = w.canceled = r->canceled;
    w.has_compact_revision = r->compact_revision > 0;
    w.compact_revision = r->compact_revision;
    ctl_out_protobuf(&w.base);
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

/* As Go prints a list of strings with %q. */
static void print_words(FILE *to, char *const *words)
{
    (void)fputc('[', to);
    for (size_t i = 0; words[i] != NULL; i++)
        (void)fprintf(to, "%s\"%s\"", i == 0 ? "" : " ", words[i]);
    (void)fputc(']', to);
}

/* False: it could not be started, or has failed. */
static bool run_command(struct watching *w, int64_t revision, const Etcdserverpb__Event *e)
{
    bool deleted = e->type == ETCDSERVERPB__EVENT__EVENT_TYPE__DELETE;
    const Etcdserverpb__KeyValue *kv = e->kv;
    struct ctl_scratch kept = ctl_scratch(w->c);
    char *const more[] = {
        ctl_print(w->c, "ETCD_WATCH_REVISION=%" PRId64, revision),
        ctl_print(w->c, "ETCD_WATCH_EVENT_TYPE=\"%s\"", deleted ? "DELETE" : "PUT"),
        ctl_quoted(w->c, "ETCD_WATCH_KEY=", &kv->key),
        ctl_quoted(w->c, "ETCD_WATCH_VALUE=", &kv->value),
        NULL,
    };
    int code = ctl_run(w->c, w->command, more);

    if (code != 0) {
        (void)fputs("command ", stderr);
        print_words(stderr, w->command);
        (void)fprintf(stderr, " error (%s)\n", ctl_run_text(w->c, w->command, code));
    }
    ctl_scratch_end(w->c, kept);
    return code == 0;
}

/* ---- the watch ------------------------------------------------------------------------------- */

static void on_events(void *arg, const Etcdserverpb__WatchResponse *r)
{
    struct watching *w = arg;
    struct ctl *c = w->c;

    if (c->out == CTL_JSON)
        print_json(r);
    else if (c->out == CTL_PROTOBUF)
        print_protobuf(r);
    else if (c->out == CTL_FIELDS)
        ctl_out_header(r->header);
    for (size_t i = 0; i < r->n_events && (c->out == CTL_SIMPLE || c->out == CTL_FIELDS); i++)
        print_event(c, r->events[i]);
    for (size_t i = 0; i < r->n_events && w->command != NULL; i++) {
        if (!run_command(w, r->header == NULL ? 0 : r->header->revision, r->events[i])) {
            w->code = CTL_ERROR;
            bns_env_uv_stop(c->env);
            return;
        }
    }
    (void)fflush(stdout);
}

static void on_progress(void *arg, int64_t revision)
{
    struct watching *w = arg;

    if (!w->progress)
        return;
    w->progress = false;
    (void)printf("progress notify: %" PRId64 "\n", revision);
    (void)fflush(stdout);
}

static void on_end(void *arg, int status, const char *text, int64_t compacted)
{
    struct watching *w = arg;
    Etcdserverpb__WatchResponse last = ETCDSERVERPB__WATCH_RESPONSE__INIT;
    Etcdserverpb__ResponseHeader header = *bns_etcd_watch_header(w->watch);

    last.header = &header;
    last.canceled = true;
    last.compact_revision = compacted;
    w->watch = NULL;
    (void)fprintf(stderr, "watch was canceled (%s)\n",
                  compacted > 0 ? text : ctl_error_text(w->c, status, text));
    if (w->c->out == CTL_JSON)
        print_json(&last);
    if (w->c->out == CTL_PROTOBUF)
        print_protobuf(&last);
    if (w->typed)
        return; /* more may be typed */
    w->code = ctl_fail(CTL_INTERRUPTED, "watch is canceled by the server");
    bns_env_uv_stop(w->c->env);
}

static const struct bns_etcd_watch_handler handler = {
    .on_events = on_events, .on_progress = on_progress, .on_end = on_end};

/* Key and end of words and flags, then it is opened. CTL_OK, or said what is wrong. */
static int open_watch(struct watching *w, int argc, char **argv)
{
    struct ctl *c = w->c;
    struct bns_etcd_watch_options o = {
        .start_revision = c->f.rev, .prev_kv = c->f.prev_kv, .handler = &handler, .arg = w};
    uint8_t *end;

    if (c->dashes >= 0 && c->dashes < argc) {
        w->command = argv + c->dashes;
        argc = c->dashes;
    }
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
    if (bns_etcd_watch_open(c->etcd, &o, &w->watch) != BNS_OK) {
        w->watch = NULL;
        return ctl_fail(CTL_ERROR, "out of memory");
    }
    return CTL_OK;
}

/* ---- -i: lines of stdin ---------------------------------------------------------------------- */

#define TYPED_MAX 64u

struct typed {
    struct ctl *c;
    struct bns_job job;
    struct watching watches[TYPED_MAX];
    char line[4096];
    bool end, reading;
};

/* On a pool thread: the loop goes on meanwhile. */
static void read_line(struct bns_job *j)
{
    struct typed *y = BNS_CONTAINER(j, struct typed, job);

    y->end = fgets(y->line, sizeof y->line, stdin) == NULL;
}

/* A place for one more watch; NULL: all are open. */
static struct watching *place(struct typed *y)
{
    for (size_t i = 0; i < TYPED_MAX; i++) {
        struct watching *w = &y->watches[i];

        if (w->watch == NULL) {
            bns_arena_free(&w->arena);
            *w = (struct watching){.c = y->c, .typed = true, .arena = w->arena};
            return w;
        }
    }
    return NULL;
}

static void type_watch(struct typed *y, int argc, char **argv)
{
    struct ctl *c = y->c;
    struct bns_err err = {0};
    struct watching *w = place(y);

    ctl_flags_defaults(c->verb->flags, &c->f);
    if (w == NULL)
        (void)fprintf(stderr, "Invalid command %s (%u watches are open)\n", y->line, TYPED_MAX);
    else if (ctl_flags_read(c, c->verb->flags, &argc, argv, &err) != BNS_OK)
        (void)fprintf(stderr, "Invalid command %s (%s)\n", y->line, err.text);
    else if (open_watch(w, argc, argv) == CTL_OK) {
        w->arena = c->arena; /* with the words of its command */
        bns_arena_init(&c->arena, bns_alloc_libc(), SIZE_MAX);
    }
}

static void run_line(struct typed *y)
{
    struct ctl *c = y->c;
    int argc = 0;
    char **argv = ctl_words(c, y->line, &argc);

    y->line[strcspn(y->line, "\n")] = '\0';
    if (argc == 0) {
        (void)fprintf(stderr, "Invalid command: %s (watch and progress supported)\n", y->line);
    } else if (strcmp(argv[0], "progress") == 0) {
        for (size_t i = 0; i < TYPED_MAX; i++) {
            struct watching *w = &y->watches[i];

            w->progress = w->watch != NULL;
            if (w->progress)
                bns_etcd_watch_ask(w->watch);
        }
    } else if (strcmp(argv[0], "watch") != 0) {
        (void)fprintf(stderr, "Invalid command %s (only support watch)\n", y->line);
    } else if (argc < 2) {
        (void)fprintf(stderr, "Invalid command %s (command type or key is not provided)\n",
                      y->line);
    } else {
        type_watch(y, argc - 1, argv + 1);
    }
}

static void took_line(struct bns_job *j)
{
    struct typed *y = BNS_CONTAINER(j, struct typed, job);
    struct ctl_scratch kept;

    y->reading = !y->end;
    if (y->end) {
        bns_env_uv_stop(y->c->env);
        return;
    }
    kept = ctl_scratch(y->c);
    run_line(y);
    ctl_scratch_end(y->c, kept);
    bns_pool_submit(y->c->env, &y->job);
}

static int interactive(struct ctl *c)
{
    static struct typed y; /* a reader may still wait for stdin when the process ends */
    int code;

    y.c = c;
    y.reading = true;
    for (size_t i = 0; i < TYPED_MAX; i++)
        bns_arena_init(&y.watches[i].arena, bns_alloc_libc(), SIZE_MAX);
    y.job = (struct bns_job){.run = read_line, .done = took_line};
    bns_pool_submit(c->env, &y.job);
    bns_env_uv_run(c->env);
    (void)fflush(stdout);
    if (y.reading)
        _exit(CTL_ERROR); /* a command has failed; the pool's thread waits for a line */
    code = ctl_fail(CTL_INPUT, "Error reading watch request line: EOF");
    for (size_t i = 0; i < TYPED_MAX; i++) {
        bns_etcd_watch_close(y.watches[i].watch);
        bns_arena_free(&y.watches[i].arena);
    }
    return code;
}

int ctl_watch(struct ctl *c, int argc, char **argv)
{
    struct watching w = {.c = c};
    int code = ctl_format(c, false);

    if (code == CTL_OK && argc < 1 && !c->f.interactive)
        code = ctl_fail(CTL_ARGS, "bad number of arguments");
    if (code == CTL_OK)
        code = ctl_connect(c);
    if (code == CTL_OK && c->f.interactive)
        return interactive(c);
    if (code == CTL_OK)
        code = open_watch(&w, argc, argv);
    if (code != CTL_OK)
        return code;
    bns_env_uv_run(c->env);
    bns_etcd_watch_close(w.watch);
    return w.code;
}
