/* check_bank.h - money is moved between accounts: no read may see it appear or vanish.
 *
 *     wrong-total         the balances of a read do not add up to the total
 *     negative-balance    a balance is under zero (unless cfg->negative_ok)
 *     other-accounts      a read shows other accounts than the first one, or one twice
 *     two-states          two reads of the same revision differ
 *     revision-went-back  a read that began after another had ended shows an older revision
 *     impossible-balance  no choice among the transfers that were under way, or whose outcome
 *                         nobody knows, explains a balance, given the first read and the transfers
 *                         that were acknowledged since: one was lost, or counted twice
 * The last three are left out with cfg->no_realtime. Revisions are compared where both reads have
 * one.
 *
 * Bounds: BNS_BANK_ACCOUNTS_MAX accounts, BNS_BANK_OPS_MAX operations. Time: reads x accounts +
 * operations x log operations.
 */
#ifndef BNS_SIM_CHECK_BANK_H
#define BNS_SIM_CHECK_BANK_H

#include "sim/check.h"

#define BNS_BANK_ACCOUNTS_MAX 1024u
#define BNS_BANK_OPS_MAX 1000000u
#define BNS_BANK_MONEY_MAX INT64_C(1000000000000000)

struct bns_bank_account {
    uint64_t id;
    int64_t balance;
};

struct bns_bank_op {
    uint64_t call, ret; /* ret: BNS_CHECK_OPEN unless it ended ok */
    enum bns_check_end end;
    bool transfer;
    uint64_t from, to;                       /* transfer */
    int64_t amount;                          /* transfer */
    uint64_t rev;                            /* read: of the snapshot; 0: not told */
    const struct bns_bank_account *accounts; /* read that ended ok; borrowed; any order */
    size_t accounts_count;
};

BNS_MUST_CHECK int bns_check_bank(const struct bns_check_cfg *cfg, const struct bns_bank_op *ops,
                                  size_t count, struct bns_verdict *v);

#endif
