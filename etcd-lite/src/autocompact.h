/* autocompact.h - when to compact, and to which revision, as etcd's two modes do it. Pure: clock
 * and revision are handed in.
 *
 * periodic:  keeps the history of `period`. The revision is noted every tenth of it (of an hour
 *            when it is longer). The first compaction comes after one period, then one every period
 *            (every hour when it is longer), to the revision noted a period ago.
 * revision:  every five minutes, to what is `keep` revisions back.
 * Only the leader compacts; every member keeps the notes, so that a new leader goes on.
 *
 * Thread: the loop. Memory: the notes, from the allocator given.
 */
#ifndef ETCD_AUTOCOMPACT_H
#define ETCD_AUTOCOMPACT_H

#include "base/alloc.h"
#include "base/err.h"

#define ETCD_AUTOCOMPACT_NOTES_MAX 100001u /* periods of up to 10,000 hours */

struct etcd_autocompact_cfg {
    bool by_revision;
    uint64_t period_ns; /* by time; 0 = off */
    int64_t keep;       /* by revision; 0 = off */
};

struct etcd_autocompact {
    const struct bns_alloc *alloc;
    struct etcd_autocompact_cfg cfg;
    uint64_t next_ns; /* of the next etcd_autocompact_step(); BNS_NEVER = off */
    uint64_t retry_ns, wait_ns, last_ns;
    int64_t *notes; /* a ring */
    size_t notes_cap, notes_count, notes_first;
    int64_t last_rev;
};

/* mode "periodic" (or empty) and "revision"; retention: a number (hours, revisions) or, periodic, a
 * duration. "0" = off. BNS_E_INVALID. */
BNS_MUST_CHECK int etcd_autocompact_parse(const char *mode, const char *retention,
                                          struct etcd_autocompact_cfg *out, struct bns_err *err);
BNS_MUST_CHECK int etcd_autocompact_init(struct etcd_autocompact *a, const struct bns_alloc *alloc,
                                         const struct etcd_autocompact_cfg *cfg, uint64_t now_ns);
void etcd_autocompact_free(struct etcd_autocompact *a);
/* At next_ns or later. The revision to compact to, 0 = none now; the caller says in
 * etcd_autocompact_done() that it has been taken care of, else it is asked for again. */
int64_t etcd_autocompact_step(struct etcd_autocompact *a, uint64_t now_ns, int64_t revision,
                              bool leader);
void etcd_autocompact_done(struct etcd_autocompact *a, uint64_t now_ns, int64_t rev);

#endif
