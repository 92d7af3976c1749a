/* federate.c - the metrics of many nodes, asked for at once and merged.
 *
 * Whom to ask, whom to give up and when it is over is decided by proto/fanout.h; here its outputs
 * are carried out, by one HTTP request each. A target that needs no request (its text was given, or
 * it is known to be down) has its verdict at hand when it is asked.
 *
 * The merge: the format wants all samples of one family in one place, and nodes bring their own
 * order. So each answer is cut into runs (lines that stand together and belong to one family), the
 * runs are sorted by family, node and place, and written one after the other, HELP and TYPE of the
 * first that has them in front. The bodies are kept as they came; a run is two pointers.
 *
 * Invariants: every sample line that parsed is written once; no line is written that did not.
 */
#include "app/federate.h"

#include "codec/expo.h"
#include "io/http.h"
#include "proto/fanout.h"

#include <inttypes.h>
#include <stdlib.h>

#define BODY_BYTES_MAX (2u * 1024 * 1024)
#define RUNS_MAX 1000000u
#define DEADLINE_NS BNS_SEC
#define OUR_BYTES_MAX 1024 /* our labels, and "exported_" in front of theirs */
#define LABEL_BYTES_MIN 4  /* a="" */

struct node {
    struct bns_federate *f;
    struct bns_federate_target is;
    struct bns_federate_answer got;
    struct bns_http_fetch *fetch; /* NULL when none is under way */
    struct bns_buf body;
    struct bns_slice text; /* body, or the target's own */
    bool settled;          /* without a request; the fan-out has to be told */
};

struct bns_federate {
    struct bns_env *env;
    void (*done)(void *arg);
    void *arg;
    struct bns_fanout *fanout;
    struct bns_timer timer; /* the fan-out's deadline; then done, which is told in a later turn */
    uint64_t started_ns;
    uint64_t body_bytes_max;
    bool over;
    size_t count;
    struct node nodes[];
};

/* Lines of one family that stand together in one node's text. */
struct run {
    struct bns_slice family, help, type;
    struct bns_slice lines;
    size_t node, place;
};

struct runs {
    struct run *v;
    size_t count, cap;
    const struct bns_alloc *alloc;
};

/* Families that are ours; a node that sends one of these names has its lines dropped. */
static const char *const own_families[] = {"up", "scrape_duration_seconds",
                                           "scrape_samples_scraped", "scrape_bad_lines"};

static bool is_own(struct bns_slice name)
{
    for (size_t i = 0; i < sizeof own_families / sizeof own_families[0]; i++)
        if (bns_slice_eq(name, bns_slice_str(own_families[i])))
            return true;
    return false;
}

/* May the line stand in the merged text? With our labels in front it must stay within the format's
 * bounds, and its family must not be one of ours. */
static bool usable(const struct bns_expo_line *line)
{
    struct bns_slice left = line->labels, name, value;
    size_t labels = 0;

    if (is_own(line->name) || line->line.len > BNS_EXPO_LINE_BYTES_MAX - OUR_BYTES_MAX)
        return false;
    if (left.len / LABEL_BYTES_MIN <= BNS_EXPO_LABELS_MAX - 2)
        return true;
    while (bns_expo_label(&left, &name, &value))
        labels++;
    return labels <= BNS_EXPO_LABELS_MAX - 2;
}

/* Counts what the text holds. */
static void look(struct node *n)
{
    struct bns_expo x = {.rest = n->text};
    struct bns_expo_line line;
    int rv;

    while ((rv = bns_expo_next(&x, &line)) != BNS_E_NOTFOUND) {
        if (rv != BNS_OK || !usable(&line))
            n->got.bad_lines++;
        else if (line.kind == BNS_EXPO_SAMPLE)
            n->got.samples++;
    }
}

/* The request of a node is over, or was never needed. */
static void settle(struct node *n)
{
    n->got.took = bns_now_ns(n->f->env) - n->f->started_ns;
}

static void tell(struct bns_federate *f, enum bns_fanout_in_kind kind, const struct node *n)
{
    const struct bns_fanout_in in = {.kind = kind,
                                     .branch = n == NULL ? 0 : (uint32_t)(n - f->nodes)};
    int rv = bns_fanout_step(f->fanout, bns_now_ns(f->env), &in);

    BNS_ASSERT(rv == BNS_OK);
}

static void carry_on(struct bns_federate *f);

static void on_answer(void *arg, int code, const struct bns_http_answer *a)
{
    struct node *n = arg;

    n->fetch = NULL;
    n->got.code = code;
    if (code == BNS_OK) {
        n->got.status = a->status;
        if (a->status == 200)
            n->got.code = bns_buf_add(&n->body, a->body.ptr, a->body.len);
        n->got.up = a->status == 200 && n->got.code == BNS_OK;
        if (n->got.up) {
            n->text = bns_buf_slice(&n->body);
            look(n);
        }
    }
    settle(n);
    tell(n->f, n->got.up ? BNS_FANOUT_IN_GOOD : BNS_FANOUT_IN_BAD, n);
    carry_on(n->f);
}

static void ask(struct node *n)
{
    const struct bns_http_fetch_opts o = {
        .host = "127.0.0.1",
        .port = n->is.port,
        .target = n->is.path == NULL ? "/metrics" : n->is.path,
        .timeout_ns = BNS_NEVER / 4, /* the fan-out cancels */
        .body_bytes_max = n->f->body_bytes_max,
    };

    if (n->is.text.ptr != NULL) {
        n->got.up = true;
        n->text = n->is.text;
        look(n);
    } else {
        n->got.code = BNS_E_DROPPED;
        if (n->is.port != 0)
            n->got.code = bns_http_fetch(n->f->env, &o, on_answer, n, &n->fetch, NULL);
        if (n->got.code == BNS_OK)
            return;
    }
    settle(n);
    n->settled = true;
}

/* The answer itself may be what told the fan-out that time is up: then it is here, and stays. */
static void give_up(struct node *n)
{
    if (n->fetch == NULL)
        return;
    bns_http_fetch_cancel(n->fetch);
    n->fetch = NULL;
    n->got.code = BNS_E_TIMEOUT;
    settle(n);
}

static void drain(struct bns_federate *f)
{
    struct bns_fanout_out o;

    while (bns_fanout_next(f->fanout, &o)) {
        if (o.kind == BNS_FANOUT_SEND)
            ask(&f->nodes[o.branch]);
        else if (o.kind == BNS_FANOUT_CANCEL)
            give_up(&f->nodes[o.branch]);
        else
            f->over = true;
    }
}

static struct node *settled_at_once(struct bns_federate *f)
{
    for (size_t i = 0; i < f->count; i++)
        if (f->nodes[i].settled)
            return &f->nodes[i];
    return NULL;
}

/* Carries out what the fan-out wants, and tells it what that settled at once. */
static void carry_on(struct bns_federate *f)
{
    struct node *n;

    drain(f);
    while ((n = settled_at_once(f)) != NULL) {
        n->settled = false;
        tell(f, n->got.up ? BNS_FANOUT_IN_GOOD : BNS_FANOUT_IN_BAD, n);
        drain(f);
    }
    bns_timer_start(f->env, &f->timer,
                    f->over ? bns_now_ns(f->env) : bns_fanout_deadline(f->fanout));
}

static void on_timer(void *arg)
{
    struct bns_federate *f = arg;

    if (f->over) {
        f->done(f->arg); /* f may be freed now */
        return;
    }
    tell(f, BNS_FANOUT_IN_TIMER, NULL);
    carry_on(f);
}

int bns_federate_start(struct bns_env *env, const struct bns_federate_opts *o,
                       void (*done)(void *arg), void *arg, struct bns_federate **out)
{
    const struct bns_fanout_config cfg = {
        .branches = (uint32_t)o->targets_count,
        .total_ns = o->deadline_ns == 0 ? DEADLINE_NS : o->deadline_ns,
    };
    struct bns_federate *f;
    int rv;

    if (o->targets_count > BNS_FEDERATE_TARGETS_MAX)
        return BNS_E_INVALID;
    f = bns_alloc_zero(env->alloc, sizeof *f + o->targets_count * sizeof f->nodes[0]);
    if (f == NULL)
        return BNS_E_NOMEM;
    rv = bns_fanout_init(&f->fanout, bns_now_ns(env), &cfg, env->alloc);
    if (rv != BNS_OK) {
        bns_free(env->alloc, f);
        return rv;
    }
    f->env = env;
    f->done = done;
    f->arg = arg;
    f->started_ns = bns_now_ns(env);
    f->body_bytes_max = o->body_bytes_max == 0 ? BODY_BYTES_MAX : o->body_bytes_max;
    f->count = o->targets_count;
    bns_timer_init(&f->timer, on_timer, f);
    for (size_t i = 0; i < f->count; i++) {
        f->nodes[i].f = f;
        f->nodes[i].is = o->targets[i];
        bns_buf_init(&f->nodes[i].body, env->alloc, (size_t)f->body_bytes_max);
    }
    carry_on(f);
    *out = f;
    return BNS_OK;
}

void bns_federate_free(struct bns_federate *f)
{
    if (f == NULL)
        return;
    bns_timer_stop(f->env, &f->timer);
    bns_fanout_free(f->fanout);
    for (size_t i = 0; i < f->count; i++) {
        if (f->nodes[i].fetch != NULL)
            bns_http_fetch_cancel(f->nodes[i].fetch);
        bns_buf_free(&f->nodes[i].body);
    }
    bns_free(f->env->alloc, f);
}

const struct bns_federate_answer *bns_federate_answer(const struct bns_federate *f, size_t target)
{
    BNS_ASSERT(target < f->count);
    return &f->nodes[target].got;
}

bool bns_federate_value(const struct bns_federate *f, size_t target, const char *name, double *out)
{
    struct bns_expo x;
    struct bns_expo_line line;
    double sum = 0;
    bool found = false;
    int rv;

    BNS_ASSERT(target < f->count);
    x = (struct bns_expo){.rest = f->nodes[target].text};
    while ((rv = bns_expo_next(&x, &line)) != BNS_E_NOTFOUND) {
        if (rv != BNS_OK || line.kind != BNS_EXPO_SAMPLE ||
            !bns_slice_eq(line.name, bns_slice_str(name)))
            continue;
        sum += line.number;
        found = true;
    }
    if (found)
        *out = sum;
    return found;
}

/* ---- the merge ------------------------------------------------------------------------------- */
static struct run *add_run(struct runs *r)
{
    if (r->count == r->cap) {
        size_t cap = r->cap == 0 ? 256 : 2 * r->cap;
        struct run *v = cap > RUNS_MAX ? NULL : bns_resize(r->alloc, r->v, cap * sizeof *v);

        if (v == NULL)
            return NULL;
        r->v = v;
        r->cap = cap;
    }
    r->v[r->count] = (struct run){.place = r->count};
    return &r->v[r->count++];
}

/* HELP or TYPE: what is told about the family that follows. */
static void note(struct run *next, const struct bns_expo_line *line)
{
    if (!bns_slice_eq(next->family, line->name))
        *next = (struct run){.family = line->name};
    if (line->kind == BNS_EXPO_HELP)
        next->help = line->text;
    else
        next->type = line->text;
}

static int cut_runs(struct runs *r, struct bns_slice text, size_t node)
{
    struct bns_expo x = {.rest = text};
    struct bns_expo_line line;
    struct run next = {.node = 0};
    bool open = false; /* the last run goes on */
    int rv;

    while ((rv = bns_expo_next(&x, &line)) != BNS_E_NOTFOUND) {
        struct run *run = open ? &r->v[r->count - 1] : NULL;

        if (rv != BNS_OK || !usable(&line)) {
            open = false;
            continue;
        }
        if (line.kind != BNS_EXPO_SAMPLE) {
            note(&next, &line);
            open = false;
            continue;
        }
        if (run == NULL || !bns_expo_in_family(line.name, run->family, run->type)) {
            bool known = bns_expo_in_family(line.name, next.family, next.type);
            size_t place = r->count;

            run = add_run(r);
            if (run == NULL)
                return BNS_E_NOMEM;
            *run = known ? next : (struct run){.family = line.name};
            run->node = node;
            run->place = place;
            run->lines = bns_slice(line.line.ptr, 0);
            open = true;
        }
        run->lines.len = (size_t)(line.line.ptr + line.line.len - run->lines.ptr);
    }
    return BNS_OK;
}

static int compare(const void *a, const void *b)
{
    const struct run *x = a, *y = b;
    int c = bns_slice_cmp(x->family, y->family);

    return c != 0 ? c : (x->place > y->place) - (x->place < y->place);
}

static int add_slice(struct bns_buf *out, struct bns_slice s)
{
    return bns_buf_add(out, s.ptr, s.len);
}

/* name{system="s",node="n",labels...} value stamp */
static int put_sample(struct bns_buf *out, const struct node *n, const struct bns_expo_line *line)
{
    struct bns_slice left = line->labels, name, value;
    int rv = add_slice(out, line->name);

    if (rv == BNS_OK)
        rv = bns_buf_fmt(out, "{system=\"%s\",node=\"%s\"", n->is.system, n->is.node);
    while (rv == BNS_OK && bns_expo_label(&left, &name, &value)) {
        bool taken = bns_slice_eq(name, BNS_LIT("system")) || bns_slice_eq(name, BNS_LIT("node"));

        rv = bns_buf_fmt(out, ",%s%.*s=\"", taken ? "exported_" : "", (int)name.len, name.ptr);
        if (rv == BNS_OK)
            rv = add_slice(out, value);
        if (rv == BNS_OK)
            rv = bns_buf_byte(out, '"');
    }
    if (rv == BNS_OK)
        rv = bns_buf_str(out, "} ");
    if (rv == BNS_OK)
        rv = add_slice(out, line->value);
    if (rv == BNS_OK && line->stamp.len > 0)
        rv = bns_buf_byte(out, ' ');
    if (rv == BNS_OK && line->stamp.len > 0)
        rv = add_slice(out, line->stamp);
    return rv == BNS_OK ? bns_buf_byte(out, '\n') : rv;
}

static int put_head(struct bns_buf *out, struct bns_slice family, const char *kind,
                    struct bns_slice text)
{
    int rv = bns_buf_fmt(out, "# %s ", kind);

    if (rv == BNS_OK)
        rv = add_slice(out, family);
    if (rv == BNS_OK)
        rv = bns_buf_byte(out, ' ');
    if (rv == BNS_OK)
        rv = add_slice(out, text);
    return rv == BNS_OK ? bns_buf_byte(out, '\n') : rv;
}

/* The runs [from, to) are of one family. */
static int put_family(const struct bns_federate *f, const struct run *v, size_t count,
                      struct bns_buf *out)
{
    struct bns_slice help = {0}, type = {0};
    int rv = BNS_OK;

    for (size_t i = 0; i < count; i++) {
        help = help.ptr == NULL ? v[i].help : help;
        type = type.ptr == NULL ? v[i].type : type;
    }
    if (help.ptr != NULL)
        rv = put_head(out, v->family, "HELP", help);
    if (rv == BNS_OK && type.ptr != NULL)
        rv = put_head(out, v->family, "TYPE", type);
    for (size_t i = 0; rv == BNS_OK && i < count; i++) {
        struct bns_expo x = {.rest = v[i].lines};
        struct bns_expo_line line;

        while (rv == BNS_OK && bns_expo_next(&x, &line) == BNS_OK)
            if (line.kind == BNS_EXPO_SAMPLE)
                rv = put_sample(out, &f->nodes[v[i].node], &line);
    }
    return rv;
}

static double own_value(const struct node *n, size_t which)
{
    switch (which) {
    case 0:
        return n->got.up ? 1 : 0;
    case 1:
        return (double)n->got.took / 1e9;
    case 2:
        return (double)n->got.samples;
    default:
        return (double)n->got.bad_lines;
    }
}

static int put_own(const struct bns_federate *f, struct bns_buf *out)
{
    static const char *const help[] = {
        "1 when the node answered in time.",
        "How long the node took to answer.",
        "Samples in the answer.",
        "Lines of the answer that were not in the format, and were dropped.",
    };
    int rv = BNS_OK;

    for (size_t k = 0; k < sizeof own_families / sizeof own_families[0] && rv == BNS_OK; k++) {
        const char *name = own_families[k];

        rv = bns_buf_fmt(out, "# HELP %s %s\n# TYPE %s gauge\n", name, help[k], name);
        for (size_t i = 0; i < f->count && rv == BNS_OK; i++)
            rv =
                bns_buf_fmt(out, "%s{system=\"%s\",node=\"%s\"} %.9g\n", name,
                            f->nodes[i].is.system, f->nodes[i].is.node, own_value(&f->nodes[i], k));
    }
    return rv;
}

int bns_federate_text(const struct bns_federate *f, struct bns_buf *out)
{
    struct runs r = {.alloc = f->env->alloc};
    int rv = BNS_OK;

    for (size_t i = 0; i < f->count && rv == BNS_OK; i++)
        rv = cut_runs(&r, f->nodes[i].text, i);
    if (r.count > 0)
        qsort(r.v, r.count, sizeof r.v[0], compare);
    if (rv == BNS_OK)
        rv = put_own(f, out);
    for (size_t i = 0, end; rv == BNS_OK && i < r.count; i = end) {
        for (end = i + 1; end < r.count && bns_slice_eq(r.v[end].family, r.v[i].family); end++)
            continue;
        rv = put_family(f, &r.v[i], end - i, out);
    }
    bns_free(r.alloc, r.v);
    return rv;
}
