/* quorum.h - majority arithmetic, for simple and joint configurations.
 *
 * A joint configuration (Ongaro's thesis, section 4.3) decides only when the majority of the
 * incoming voters AND the majority of the outgoing voters agree. An empty half agrees with
 * anything.
 *
 * Pure. Values are asked for by member id through a callback.
 */
#ifndef BNS_PROTO_QUORUM_H
#define BNS_PROTO_QUORUM_H

#include "proto/raft.h"

typedef uint64_t bns_quorum_value(const void *arg, uint64_t id);

enum bns_quorum_vote { BNS_VOTE_NONE = 0, BNS_VOTE_YES = 1, BNS_VOTE_NO = 2 };
enum bns_quorum_result { BNS_QUORUM_PENDING, BNS_QUORUM_WON, BNS_QUORUM_LOST };

/* The highest v such that a quorum has a value >= v; UINT64_MAX without voters. Works for match
 * indexes, read rounds and times alike. */
uint64_t bns_quorum_reached(const struct bns_raft_conf *c, bns_quorum_value *value,
                            const void *arg);

/* What the votes (value() returns an enum bns_quorum_vote) amount to. */
enum bns_quorum_result bns_quorum_votes(const struct bns_raft_conf *c, bns_quorum_value *vote,
                                        const void *arg);

bool bns_raft_conf_is_voter(const struct bns_raft_conf *c, uint64_t id);
bool bns_raft_conf_is_learner(const struct bns_raft_conf *c, uint64_t id);
/* Sorted, no duplicates, no zero id, at least one voter, at most BNS_RAFT_PEERS_MAX members. */
bool bns_raft_conf_valid(const struct bns_raft_conf *c);
/* All members once, sorted, into out; how many. The configuration must be valid. */
size_t bns_raft_conf_members(const struct bns_raft_conf *c, uint64_t out[BNS_RAFT_PEERS_MAX]);

#endif
