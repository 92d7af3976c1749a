/* metrics.c - a registry of counters, gauges and histograms, written as Prometheus text 0.0.4.
 *
 * A family (one name, one help, one type) holds its series, one a label set. Both lists are sorted
 * when something is added, which is rare; reading them out is then a walk. Updating a metric is an
 * addition on memory that the registry owns and never moves.
 *
 * Histogram buckets are fixed, about 2.5 apart from 100 us to 30 s (or the part of them that
 * Prometheus' libraries have), or each the double of the one before: two daemons' histograms can
 * always be added up. Counts are kept per bucket and summed when they are written.
 */
#include "base/metrics.h"

#include <math.h>
#include <stdio.h>

enum kind { COUNTER, GAUGE, HIST };

#define BUCKETS 17
#define DOUBLE_BUCKETS_MAX 24
#define PLAIN_FIRST 5 /* 5 ms */
#define PLAIN_BUCKETS 11
static const struct {
    double le;
    const char *text;
} bounds[BUCKETS] = {
    {0.0001, "0.0001"}, {0.00025, "0.00025"}, {0.0005, "0.0005"}, {0.001, "0.001"},
    {0.0025, "0.0025"}, {0.005, "0.005"},     {0.01, "0.01"},     {0.025, "0.025"},
    {0.05, "0.05"},     {0.1, "0.1"},         {0.25, "0.25"},     {0.5, "0.5"},
    {1, "1"},           {2.5, "2.5"},         {5, "5"},           {10, "10"},
    {30, "30"},
};

struct bns_hist {
    uint64_t buckets[DOUBLE_BUCKETS_MAX + 1]; /* behind the last bound: above every bound */
    double first;           /* each bound is the double of the one before; 0: those above */
    uint32_t from, bounded; /* the first of those above; how many there are */
    uint64_t count;
    double sum;
};

struct series {
    struct series *next;
    union {
        struct bns_counter counter;
        struct bns_gauge gauge;
        struct bns_hist hist;
    };
    char labels[]; /* without the braces; "" = none */
};

struct family {
    struct family *next;
    const char *name;
    const char *help;
    enum kind kind;
    const char *of; /* an alias: the family whose series are written */
    struct series *series;
};

struct hook {
    struct hook *next;
    void (*fn)(void *arg);
    void *arg;
};

struct bns_metrics {
    const struct bns_alloc *alloc;
    struct family *families;
    struct hook *hooks;
    struct hook **hooks_end;
};

int bns_metrics_new(const struct bns_alloc *alloc, struct bns_metrics **out)
{
    struct bns_metrics *m = bns_alloc_zero(alloc, sizeof *m);

    if (m == NULL)
        return BNS_E_NOMEM;
    m->alloc = alloc;
    m->hooks_end = &m->hooks;
    *out = m;
    return BNS_OK;
}

void bns_metrics_free(struct bns_metrics *m)
{
    const struct bns_alloc *alloc;

    if (m == NULL)
        return;
    alloc = m->alloc;
    while (m->families != NULL) {
        struct family *f = m->families;
        m->families = f->next;
        while (f->series != NULL) {
            struct series *s = f->series;
            f->series = s->next;
            bns_free(alloc, s);
        }
        bns_free(alloc, f);
    }
    while (m->hooks != NULL) {
        struct hook *h = m->hooks;
        m->hooks = h->next;
        bns_free(alloc, h);
    }
    bns_free(alloc, m);
}

/* The family of that name, made when it is new. Names are ours: a second kind is a bug. */
static struct family *family(struct bns_metrics *m, const char *name, const char *help,
                             enum kind kind)
{
    struct family **p = &m->families;
    struct family *f;

    while (*p != NULL && strcmp((*p)->name, name) < 0)
        p = &(*p)->next;
    if (*p != NULL && strcmp((*p)->name, name) == 0) {
        BNS_ASSERT((*p)->kind == kind);
        return *p;
    }
    f = bns_alloc_zero(m->alloc, sizeof *f);
    if (f == NULL)
        return NULL;
    f->name = name;
    f->help = help;
    f->kind = kind;
    f->next = *p;
    *p = f;
    return f;
}

static struct series *series(struct bns_metrics *m, const char *name, const char *labels,
                             const char *help, enum kind kind)
{
    struct series **p;
    struct series *s;
    struct family *f;

    if (m == NULL)
        return NULL;
    if (labels == NULL)
        labels = "";
    f = family(m, name, help, kind);
    if (f == NULL)
        return NULL;
    for (p = &f->series; *p != NULL; p = &(*p)->next) {
        int c = strcmp((*p)->labels, labels);
        if (c == 0)
            return *p;
        if (c > 0)
            break;
    }
    s = bns_alloc_zero(m->alloc, sizeof *s + strlen(labels) + 1);
    if (s == NULL)
        return NULL;
    memcpy(s->labels, labels, strlen(labels) + 1);
    s->next = *p;
    *p = s;
    return s;
}

struct bns_counter *bns_counter(struct bns_metrics *m, const char *name, const char *labels,
                                const char *help)
{
    struct series *s = series(m, name, labels, help, COUNTER);
    return s == NULL ? NULL : &s->counter;
}

struct bns_gauge *bns_gauge(struct bns_metrics *m, const char *name, const char *labels,
                            const char *help)
{
    struct series *s = series(m, name, labels, help, GAUGE);
    return s == NULL ? NULL : &s->gauge;
}

struct bns_hist *bns_hist(struct bns_metrics *m, const char *name, const char *labels,
                          const char *help)
{
    struct series *s = series(m, name, labels, help, HIST);

    if (s == NULL)
        return NULL;
    if (s->hist.bounded == 0)
        s->hist.bounded = BUCKETS;
    return &s->hist;
}

static struct bns_hist *doubling(struct bns_hist *h, double first, uint32_t count)
{
    BNS_ASSERT(count > 0 && count <= DOUBLE_BUCKETS_MAX);
    if (h != NULL) {
        h->first = first;
        h->bounded = count;
    }
    return h;
}

struct bns_hist *bns_hist_pow2(struct bns_metrics *m, const char *name, const char *labels,
                               const char *help)
{
    return doubling(bns_hist(m, name, labels, help), 1, DOUBLE_BUCKETS_MAX);
}

struct bns_hist *bns_hist_double(struct bns_metrics *m, const char *name, const char *help,
                                 double first, uint32_t count)
{
    BNS_ASSERT(first > 0);
    return doubling(bns_hist(m, name, NULL, help), first, count);
}

struct bns_hist *bns_hist_plain(struct bns_metrics *m, const char *name, const char *labels,
                                const char *help)
{
    struct bns_hist *h = bns_hist(m, name, labels, help);

    if (h != NULL) {
        h->from = PLAIN_FIRST;
        h->bounded = PLAIN_BUCKETS;
    }
    return h;
}

int bns_metrics_alias(struct bns_metrics *m, const char *name, const char *of, const char *help)
{
    struct family *f;

    if (m == NULL)
        return BNS_OK;
    f = family(m, name, help, COUNTER); /* its kind will be that of the other one */
    if (f == NULL)
        return BNS_E_NOMEM;
    BNS_ASSERT(f->series == NULL);
    f->of = of;
    return BNS_OK;
}

int bns_metrics_hook(struct bns_metrics *m, void (*fn)(void *arg), void *arg)
{
    struct hook *h;

    if (m == NULL)
        return BNS_OK;
    h = bns_alloc(m->alloc, sizeof *h);
    if (h == NULL)
        return BNS_E_NOMEM;
    *h = (struct hook){NULL, fn, arg};
    *m->hooks_end = h;
    m->hooks_end = &h->next;
    return BNS_OK;
}

void bns_counter_add(struct bns_counter *c, uint64_t n)
{
    if (c != NULL)
        c->value += n;
}

void bns_gauge_set(struct bns_gauge *g, double v)
{
    if (g != NULL)
        g->value = v;
}

static double bound(const struct bns_hist *h, size_t i)
{
    return h->first > 0 ? h->first * (double)(UINT64_C(1) << i) : bounds[h->from + i].le;
}

void bns_hist_observe(struct bns_hist *h, double seconds)
{
    size_t i = 0;

    if (h == NULL)
        return;
    while (i < h->bounded && !(seconds <= bound(h, i)))
        i++;
    h->buckets[i]++;
    h->count++;
    h->sum += seconds;
}

uint64_t bns_hist_count(const struct bns_hist *h)
{
    return h == NULL ? 0 : h->count;
}

int bns_metrics_label(struct bns_buf *out, const char *name, struct bns_slice value)
{
    size_t start = out->len;
    int rv = bns_buf_fmt(out, "%s%s=\"", start == 0 ? "" : ",", name);

    for (size_t i = 0; rv == BNS_OK && i < value.len; i++) {
        uint8_t c = value.ptr[i];
        if (c == '\\')
            rv = bns_buf_str(out, "\\\\");
        else if (c == '"')
            rv = bns_buf_str(out, "\\\"");
        else if (c == '\n')
            rv = bns_buf_str(out, "\\n");
        else
            rv = bns_buf_byte(out, c);
    }
    if (rv == BNS_OK)
        rv = bns_buf_byte(out, '"');
    if (rv != BNS_OK)
        out->len = start;
    return rv;
}

/* The shortest of 15 or 17 digits that reads back as v. */
static int put_double(struct bns_buf *out, double v)
{
    char text[40];

    if (isnan(v))
        return bns_buf_str(out, "NaN\n");
    if (isinf(v))
        return bns_buf_str(out, v > 0 ? "+Inf\n" : "-Inf\n");
    (void)snprintf(text, sizeof text, "%.15g", v); /* 24 characters at most */
    {
        double back = 0;
        if (sscanf(text, "%lf", &back) != 1 || back < v || back > v)
            (void)snprintf(text, sizeof text, "%.17g", v);
    }
    return bns_buf_fmt(out, "%s\n", text);
}

/* name{labels} or name, then a space. */
static int put_name(struct bns_buf *out, const char *name, const char *suffix, const char *labels)
{
    if (labels[0] == '\0')
        return bns_buf_fmt(out, "%s%s ", name, suffix);
    return bns_buf_fmt(out, "%s%s{%s} ", name, suffix, labels);
}

static int put_bound(struct bns_buf *out, const struct bns_hist *h, size_t i)
{
    if (i == h->bounded)
        return bns_buf_fmt(out, "+Inf");
    if (h->first > 0)
        return bns_buf_fmt(out, "%.15g", bound(h, i));
    return bns_buf_fmt(out, "%s", bounds[h->from + i].text);
}

static int put_hist(struct bns_buf *out, const char *name, const struct series *s)
{
    const char *comma = s->labels[0] == '\0' ? "" : ",";
    uint64_t sum = 0;
    int rv;

    for (size_t i = 0; i <= s->hist.bounded; i++) {
        sum += s->hist.buckets[i];
        rv = bns_buf_fmt(out, "%s_bucket{%s%sle=\"", name, s->labels, comma);
        if (rv == BNS_OK)
            rv = put_bound(out, &s->hist, i);
        if (rv == BNS_OK)
            rv = bns_buf_fmt(out, "\"} %llu\n", (unsigned long long)sum);
        if (rv != BNS_OK)
            return rv;
    }
    rv = put_name(out, name, "_sum", s->labels);
    if (rv == BNS_OK)
        rv = put_double(out, s->hist.sum);
    if (rv == BNS_OK)
        rv = put_name(out, name, "_count", s->labels);
    if (rv == BNS_OK)
        rv = bns_buf_fmt(out, "%llu\n", (unsigned long long)s->hist.count);
    return rv;
}

/* HELP texts escape backslash and line feed. */
static int put_head(struct bns_buf *out, const struct family *f)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    int rv = bns_buf_fmt(out, "# HELP %s ", f->name);

    for (const char *p = f->help; rv == BNS_OK && *p != '\0'; p++) {
        if (*p == '\\')
            rv = bns_buf_str(out, "\\\\");
        else if (*p == '\n')
            rv = bns_buf_str(out, "\\n");
        else
            rv = bns_buf_byte(out, (uint8_t)*p);
    }
    if (rv == BNS_OK)
        rv = bns_buf_fmt(out, "\n# TYPE %s %s\n", f->name, kinds[f->kind]);
    return rv;
}

static int put_series(struct bns_buf *out, const struct family *f, const struct series *s)
{
    int rv;

    if (f->kind == HIST)
        return put_hist(out, f->name, s);
    rv = put_name(out, f->name, "", s->labels);
    if (rv != BNS_OK)
        return rv;
    if (f->kind == GAUGE)
        return put_double(out, s->gauge.value);
    return bns_buf_fmt(out, "%llu\n", (unsigned long long)s->counter.value);
}

static int put_family(struct bns_buf *out, const struct bns_metrics *m, const struct family *f)
{
    const struct family *from = f;
    struct family shown = *f;
    int rv;

    if (f->of != NULL) {
        for (from = m->families; from != NULL && strcmp(from->name, f->of) != 0;)
            from = from->next;
    }
    if (from == NULL || from->series == NULL)
        return BNS_OK;
    shown.kind = from->kind;
    rv = put_head(out, &shown);
    for (const struct series *s = from->series; rv == BNS_OK && s != NULL; s = s->next)
        rv = put_series(out, &shown, s);
    return rv;
}

int bns_metrics_text(struct bns_metrics *m, struct bns_buf *out)
{
    size_t start = out->len;
    int rv = BNS_OK;

    for (struct hook *h = m->hooks; h != NULL; h = h->next)
        h->fn(h->arg);
    for (const struct family *f = m->families; rv == BNS_OK && f != NULL; f = f->next)
        rv = put_family(out, m, f);
    if (rv != BNS_OK)
        out->len = start;
    return rv;
}
