/* check_set.h - a set to which elements are only added: is each acknowledged one read ever after?
 * Jepsen's set-full.
 *
 * An element is known from the end of its acknowledged add, or of the first read that shows it.
 *     duplicate  one read shows an element twice
 *     phantom    a read shows what nobody added, or what was added only after the read ended
 *     revived    a read shows an element whose add failed
 *     lost       known, and the last reads that began after that do not show it
 *     stale      known, missing in a read that began after that, and shown again by a later one
 *                (not an anomaly with cfg->no_realtime)
 * An element that no read could show (none began after its add) is not judged.
 *
 * Bounds: BNS_SET_ADDS_MAX adds, BNS_SET_READS_MAX reads, BNS_SET_WORK_MAX; time: elements read x
 * log adds + adds x reads.
 */
#ifndef BNS_SIM_CHECK_SET_H
#define BNS_SIM_CHECK_SET_H

#include "sim/check.h"

#define BNS_SET_ADDS_MAX 1000000u
#define BNS_SET_READS_MAX 100000u
#define BNS_SET_WORK_MAX UINT64_C(4000000000) /* adds x reads */

struct bns_set_op {
    uint64_t call, ret; /* ret: BNS_CHECK_OPEN unless it ended ok */
    enum bns_check_end end;
    bool add;
    uint64_t key;         /* which set */
    uint64_t value;       /* add: each value once a set */
    const uint64_t *list; /* read that ended ok: what it showed; borrowed */
    size_t list_count;
};

BNS_MUST_CHECK int bns_check_set(const struct bns_check_cfg *cfg, const struct bns_set_op *ops,
                                 size_t count, struct bns_verdict *v);

#endif
