/* quorum.c - majority arithmetic, for simple and joint configurations.
 *
 * The value a majority has reached is the middle of the sorted values: with n voters sorted upward,
 * at position (n - 1) / 2 exactly n / 2 + 1 voters have that value or more. n is at most 16, so
 * insertion into a small array on the stack is the fastest sort there is.
 *
 * Invariants: joint result = the smaller of both halves (reached), and lost as soon as one half is
 * lost (votes). tests/test_raft_quorum.c compares both with brute force over all subsets.
 */
#include "proto/quorum.h"

static uint64_t reached(const uint64_t *ids, size_t n, bns_quorum_value *value, const void *arg)
{
    uint64_t sorted[BNS_RAFT_PEERS_MAX];

    if (n == 0)
        return UINT64_MAX;
    BNS_ASSERT(n <= BNS_RAFT_PEERS_MAX);
    for (size_t i = 0; i < n; i++) {
        uint64_t v = value(arg, ids[i]);
        size_t at = i;
        for (; at > 0 && sorted[at - 1] > v; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = v;
    }
    return sorted[(n - 1) / 2];
}

uint64_t bns_quorum_reached(const struct bns_raft_conf *c, bns_quorum_value *value, const void *arg)
{
    uint64_t now = reached(c->voters, c->voters_count, value, arg);
    uint64_t old = reached(c->voters_old, c->voters_old_count, value, arg);
    return now < old ? now : old;
}

static enum bns_quorum_result votes(const uint64_t *ids, size_t n, bns_quorum_value *vote,
                                    const void *arg)
{
    size_t yes = 0;
    size_t no = 0;

    if (n == 0)
        return BNS_QUORUM_WON;
    for (size_t i = 0; i < n; i++) {
        uint64_t v = vote(arg, ids[i]);
        yes += v == BNS_VOTE_YES;
        no += v == BNS_VOTE_NO;
    }
    if (yes >= n / 2 + 1)
        return BNS_QUORUM_WON;
    /* lost once the votes still open cannot make a majority any more */
    return n - no < n / 2 + 1 ? BNS_QUORUM_LOST : BNS_QUORUM_PENDING;
}

enum bns_quorum_result bns_quorum_votes(const struct bns_raft_conf *c, bns_quorum_value *vote,
                                        const void *arg)
{
    enum bns_quorum_result now = votes(c->voters, c->voters_count, vote, arg);
    enum bns_quorum_result old = votes(c->voters_old, c->voters_old_count, vote, arg);

    if (now == BNS_QUORUM_LOST || old == BNS_QUORUM_LOST)
        return BNS_QUORUM_LOST;
    return now == BNS_QUORUM_WON && old == BNS_QUORUM_WON ? BNS_QUORUM_WON : BNS_QUORUM_PENDING;
}

static bool has(const uint64_t *ids, size_t n, uint64_t id)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

bool bns_raft_conf_is_voter(const struct bns_raft_conf *c, uint64_t id)
{
    return has(c->voters, c->voters_count, id) || has(c->voters_old, c->voters_old_count, id);
}

bool bns_raft_conf_is_learner(const struct bns_raft_conf *c, uint64_t id)
{
    return has(c->learners, c->learners_count, id);
}

static bool sorted_ids(const uint64_t *ids, size_t n)
{
    if (n > BNS_RAFT_PEERS_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        if (ids[i] == 0 || (i > 0 && ids[i - 1] >= ids[i]))
            return false;
    return true;
}

/* Adds the ids to the sorted set; false when it would not fit. */
static bool merge(uint64_t *set, size_t *count, const uint64_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t at = *count;
        if (has(set, *count, ids[i]))
            continue;
        if (*count == BNS_RAFT_PEERS_MAX)
            return false;
        for (; at > 0 && set[at - 1] > ids[i]; at--)
            set[at] = set[at - 1];
        set[at] = ids[i];
        (*count)++;
    }
    return true;
}

bool bns_raft_conf_valid(const struct bns_raft_conf *c)
{
    uint64_t set[BNS_RAFT_PEERS_MAX];
    size_t count = 0;

    if (c->voters_count == 0 || !sorted_ids(c->voters, c->voters_count) ||
        !sorted_ids(c->voters_old, c->voters_old_count) ||
        !sorted_ids(c->learners, c->learners_count))
        return false;
    for (size_t i = 0; i < c->learners_count; i++)
        if (bns_raft_conf_is_voter(c, c->learners[i]))
            return false;
    return merge(set, &count, c->voters, c->voters_count) &&
           merge(set, &count, c->voters_old, c->voters_old_count) &&
           merge(set, &count, c->learners, c->learners_count);
}

size_t bns_raft_conf_members(const struct bns_raft_conf *c, uint64_t out[BNS_RAFT_PEERS_MAX])
{
    size_t count = 0;
    bool fits = merge(out, &count, c->voters, c->voters_count) &&
                merge(out, &count, c->voters_old, c->voters_old_count) &&
                merge(out, &count, c->learners, c->learners_count);
    BNS_ASSERT(fits);
    return count;
}
