/* metrics.h - counters, gauges, histograms; Prometheus text 0.0.4.
 *
 * Thread:  a registry belongs to one loop. A worker hands its numbers over with its completion.
 * Memory:  metrics live until the registry is closed. Names and help are borrowed constants;
 *          labels are copied.
 */
#ifndef BNS_BASE_METRICS_H
#define BNS_BASE_METRICS_H

#include "base/alloc.h"
#include "base/buf.h"

struct bns_metrics;

struct bns_counter {
    uint64_t value;
};
struct bns_gauge {
    double value;
};
struct bns_hist; /* fixed log buckets */

BNS_MUST_CHECK int bns_metrics_new(const struct bns_alloc *alloc, struct bns_metrics **out);
void bns_metrics_free(struct bns_metrics *m);

/* Same name and labels give the same object. labels: "grpc_method=\"Put\",x=\"y\"" or NULL.
 * NULL when out of memory: the helpers below accept NULL and do nothing. */
struct bns_counter *bns_counter(struct bns_metrics *m, const char *name, const char *labels,
                                const char *help);
struct bns_gauge *bns_gauge(struct bns_metrics *m, const char *name, const char *labels,
                            const char *help);
struct bns_hist *bns_hist(struct bns_metrics *m, const char *name, const char *labels,
                          const char *help); /* 100 us .. 30 s */
/* Buckets 1, 2, 4 .. 2^23, as etcd counts seconds that may be years. */
struct bns_hist *bns_hist_pow2(struct bns_metrics *m, const char *name, const char *labels,
                               const char *help);
/* Buckets first, 2 first, 4 first ...: `count` of them, at most 24. */
struct bns_hist *bns_hist_double(struct bns_metrics *m, const char *name, const char *help,
                                 double first, uint32_t count);
/* 5 ms .. 10 s: what Prometheus' own libraries take when nobody says more. */
struct bns_hist *bns_hist_plain(struct bns_metrics *m, const char *name, const char *labels,
                                const char *help);

/* Appends name="value" to a label set that is being built in `out` (with a comma when `out` is not
 * empty), the value escaped: the way to put text from outside into labels. End it with a NUL byte.
 * BNS_E_NOMEM, BNS_E_TOOBIG: `out` is unchanged. */
BNS_MUST_CHECK int bns_metrics_label(struct bns_buf *out, const char *name, struct bns_slice value);

/* The family `of` is written under `name` too, with the same numbers: names that dashboards of
 * another program use. Borrowed. A family that does not exist is left out. BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_metrics_alias(struct bns_metrics *m, const char *name, const char *of,
                                     const char *help);

/* Called before each scrape, to refresh gauges that are cheap to compute late. */
BNS_MUST_CHECK int bns_metrics_hook(struct bns_metrics *m, void (*fn)(void *arg), void *arg);

void bns_counter_add(struct bns_counter *c, uint64_t n);
void bns_gauge_set(struct bns_gauge *g, double v);
void bns_hist_observe(struct bns_hist *h, double seconds);
uint64_t bns_hist_count(const struct bns_hist *h);

/* Appends the whole text, families sorted by name. */
BNS_MUST_CHECK int bns_metrics_text(struct bns_metrics *m, struct bns_buf *out);

#endif
