/* raft_impl.h - what the files of the Raft core share. Not for use outside raft*.c.
 *
 * Names: raft_<verb> are shared by these files; everything else is static.
 */
#ifndef BNS_PROTO_RAFT_IMPL_H
#define BNS_PROTO_RAFT_IMPL_H

#include "base/env.h"
#include "base/prng.h"
#include "proto/quorum.h"
#include "proto/raft.h"

#define RAFT_READ_RETRY_NS (500ull * 1000 * 1000)
#define RAFT_NUMBER_MAX (1ull << 62) /* terms and indexes of peers above this are nonsense */
#define RAFT_MSG_ENTRIES 16384u      /* entries in one message */
#define RAFT_STEPS_PER_DRAIN 65536u  /* answers that may wait: more is a driver that forgot */

/* ---- the log ------------------------------------------------------------------------------- */
struct raft_slot {
    uint64_t end; /* running byte count, this entry included: sums of ranges in O(1) */
    uint64_t seq; /* the PERSIST that carries it; 0 = not handed out yet */
};

struct raft_log {
    const struct bns_alloc *alloc;
    uint64_t snap_index, snap_term; /* the log begins behind this */
    uint64_t snap_end;              /* running byte count at snap_index */
    struct bns_raft_entry *entries; /* entries[head] is snap_index + 1; contiguous */
    struct raft_slot *slots;        /* parallel to entries */
    size_t head, count, cap;
    uint64_t handed;        /* highest index handed out in a PERSIST */
    uint64_t durable;       /* highest index known to be on this disk */
    uint64_t truncate_from; /* for the next PERSIST; 0 = nothing to cut */
    bool cut;               /* for the next PERSIST: the log starts anew behind snap */
};

void raft_log_init(struct raft_log *l, const struct bns_alloc *alloc, uint64_t index,
                   uint64_t term);
void raft_log_close(struct raft_log *l);
BNS_MUST_CHECK int raft_log_reserve(struct raft_log *l, size_t more);
void raft_log_append(struct raft_log *l, const struct bns_raft_entry *e); /* room was reserved */
void raft_log_truncate(struct raft_log *l, uint64_t from);
void raft_log_trim(struct raft_log *l, uint64_t index); /* forgets index and what is before */
void raft_log_reset(struct raft_log *l, uint64_t index, uint64_t term);
void raft_log_stored(struct raft_log *l, uint64_t seq);
uint64_t raft_log_term(const struct raft_log *l, uint64_t index); /* 0 = not known */
const struct bns_raft_entry *raft_log_at(const struct raft_log *l, uint64_t index);
uint64_t raft_log_bytes(const struct raft_log *l, uint64_t after, uint64_t to);
/* Highest index <= index whose term is <= term; snap_index when there is none above it. */
uint64_t raft_log_search(const struct raft_log *l, uint64_t index, uint64_t term);
/* How many entries from `from` on, at most `to`, fit into bytes_max; at least one. */
size_t raft_log_fit(const struct raft_log *l, uint64_t from, uint64_t to, uint64_t bytes_max);

static inline uint64_t raft_log_last(const struct raft_log *l)
{
    return l->snap_index + l->count;
}

/* ---- peers --------------------------------------------------------------------------------- */
enum raft_progress { RAFT_PROBE = 0, RAFT_REPLICATE = 1, RAFT_SNAPSHOT = 2 };

/* A follower's question for a read index, until its round is confirmed. */
struct raft_remote_read {
    uint64_t ctx; /* the follower's number; 0 = slot is free */
    uint64_t round;
    uint64_t index;
};

struct raft_peer {
    uint64_t id;
    bool learner;
    bool leaving; /* no member any more: only told so, until leave_ns */
    uint64_t leave_ns;
    bool no_room; /* it told that its log has no room */
    /* candidate */
    uint8_t vote;   /* enum bns_quorum_vote */
    bool vote_want; /* a request is to be sent */
    /* leader */
    enum raft_progress state;
    uint64_t match, next;
    uint64_t heard_ns;    /* when it last answered in this term */
    bool heard;           /* it has answered in this term */
    uint64_t read_ack;    /* newest read round that it confirmed */
    uint64_t commit_sent; /* commit index that it has been told */
    uint32_t inflight;    /* appends sent and not answered */
    bool paused;          /* probe: wait for an answer */
    bool poke;            /* replicate: send an empty append to find out what got lost */
    bool beat;            /* a heartbeat is to be sent */
    uint64_t match_seen;  /* match at its last heartbeat answer */
    bool snap_want;       /* SEND_SNAPSHOT is to be handed out */
    bool snap_sent;       /* the stream has ended; waiting for the installation */
    uint64_t snap_wait_ns;
    struct raft_remote_read reads[2]; /* the one in its round, and the one behind it */
};

struct raft_read {
    uint64_t cookie;
    uint64_t round; /* leader: heartbeat round; follower: number of the READ message */
    uint64_t index;
};

/* ---- the core ------------------------------------------------------------------------------ */
struct bns_raft {
    const struct bns_alloc *alloc;
    struct bns_raft_config cfg;
    uint32_t mutant;               /* for BNS_MUTANT() */
    struct bns_raft_conf conf;     /* in force: of the last committed CONF entry */
    uint64_t conf_index;           /* ... its index, or where the log began */
    uint64_t conf_last;            /* the last CONF entry in the log; > commit: one is pending */
    struct bns_raft_conf cut_conf; /* of the snapshot that the log starts anew behind */
    struct bns_rcbuf *leave;       /* joint: the data of the entry that ends it, made in time */
    bool left;                     /* the configuration in force has removed this node */
    struct bns_prng prng;
    uint64_t now_ns;

    /* persistent: handed out in PERSIST */
    uint64_t term, vote;
    uint64_t commit_handed; /* commit index in the last PERSIST */
    bool state_dirty;
    uint64_t seq;         /* of the last PERSIST */
    uint64_t seq_durable; /* of the last STORED */
    uint64_t seq_state;   /* of the last PERSIST that changed term or vote */
    struct raft_log log;

    uint64_t commit;
    uint64_t applied;    /* what the driver told */
    uint64_t apply_sent; /* what was handed out */

    enum bns_raft_role role;
    uint64_t leader;
    struct { /* what the last ROLE said */
        enum bns_raft_role role;
        uint64_t term, leader;
    } told;

    /* all members, this one too, and those that are leaving; sorted by id */
    struct raft_peer peers[BNS_RAFT_PEERS_MAX];
    size_t peers_count;
    struct raft_peer *self; /* NULL: not a member (yet) */

    uint64_t election_at;   /* follower, candidate: campaign then */
    uint64_t resend_at;     /* candidate: ask again who has not answered */
    uint64_t leader_ns;     /* follower: when the leader was last heard */
    uint64_t leader_commit; /* follower: what this leader has said to be committed */
    uint64_t beat_at;       /* leader: next heartbeats */
    uint64_t chores_at;     /* leader: next look at who leaves, and at the hand-over */
    bool transfer;          /* candidate: the campaign was ordered */

    uint64_t term_start; /* leader: index of its no-op */

    /* leader: handing over */
    uint64_t transferee;    /* 0 = no */
    uint64_t transfer_end;  /* given up then */
    uint64_t transfer_next; /* for want of room: not again before */
    bool timeout_now;       /* to be told, as soon as it has everything */
    bool no_room, leader_no_room;

    /* reads: [0, reads_ok) are confirmed, then reads_fail have failed, the others wait */
    struct raft_read *reads;
    size_t reads_head, reads_count, reads_cap;
    size_t reads_ok, reads_fail;
    uint64_t read_round;    /* newest round started */
    uint64_t read_done;     /* newest round confirmed */
    uint64_t read_retry_at; /* follower: ask again */

    /* answers waiting to be handed out; resp_sent of resp_count are */
    struct bns_raft_msg *resp;
    size_t resp_sent, resp_count, resp_cap;

    /* proposals to be forwarded; fwd_sent of fwd_count are handed out */
    struct bns_raft_entry *fwd;
    size_t fwd_sent, fwd_count, fwd_cap;
    uint64_t fwd_bytes;

    /* a snapshot that the driver is installing */
    bool installing, install_want;
    struct bns_raft_snapmeta inst;
    uint64_t inst_peer;
    struct bns_raft_snapmeta snap_out; /* borrowed by outputs */
};

/* raft.c */
struct raft_peer *raft_peer_find(struct bns_raft *r, uint64_t id);
void raft_reply(struct bns_raft *r, const struct bns_raft_msg *m); /* room was reserved */
void raft_send_init(struct bns_raft *r, struct bns_raft_out *out, uint8_t type, uint64_t to);
void raft_commit_to(struct bns_raft *r, uint64_t index);
BNS_MUST_CHECK int raft_reserve(struct bns_raft *r, size_t entries);
BNS_MUST_CHECK int raft_reserve_forward(struct bns_raft *r, size_t more);

/* raft_election.c */
void raft_become_follower(struct bns_raft *r, uint64_t term, uint64_t leader);
void raft_set_leader(struct bns_raft *r, uint64_t leader);
void raft_election_reset(struct bns_raft *r);
void raft_campaign(struct bns_raft *r, bool forced);
static inline void raft_leader_says(struct bns_raft *r, uint64_t commit)
{
    if (commit > r->leader_commit)
        r->leader_commit = commit;
}
void raft_election_timer(struct bns_raft *r);
bool raft_electable(const struct bns_raft *r);
void raft_recv_vote(struct bns_raft *r, const struct bns_raft_msg *m);
void raft_recv_vote_resp(struct bns_raft *r, const struct bns_raft_msg *m);
bool raft_sticks(const struct bns_raft *r);
bool raft_next_vote(struct bns_raft *r, struct bns_raft_out *out);

/* raft_leader.c */
void raft_become_leader(struct bns_raft *r);
void raft_leader_append(struct bns_raft *r, uint8_t kind, struct bns_rcbuf *data);
void raft_leader_timer(struct bns_raft *r);
uint64_t raft_leader_deadline(const struct bns_raft *r);
void raft_maybe_commit(struct bns_raft *r);
void raft_recv_append_resp(struct bns_raft *r, struct raft_peer *p, const struct bns_raft_msg *m);
void raft_recv_heartbeat_resp(struct bns_raft *r, struct raft_peer *p,
                              const struct bns_raft_msg *m);
void raft_recv_snapshot_resp(struct bns_raft *r, struct raft_peer *p, const struct bns_raft_msg *m);
void raft_snapshot_sent(struct bns_raft *r, const struct bns_raft_in *in);
void raft_unreachable(struct bns_raft *r, uint64_t id);
bool raft_next_leader(struct bns_raft *r, struct bns_raft_out *out);

/* raft_follower.c */
BNS_MUST_CHECK int raft_check_append(const struct bns_raft *r, const struct bns_raft_msg *m);
void raft_recv_append(struct bns_raft *r, const struct bns_raft_msg *m);
void raft_recv_heartbeat(struct bns_raft *r, const struct bns_raft_msg *m);
BNS_MUST_CHECK int raft_snapshot_received(struct bns_raft *r, const struct bns_raft_in *in);
void raft_installed(struct bns_raft *r, uint64_t index);
void raft_install_failed(struct bns_raft *r, uint64_t index);
void raft_forward(struct bns_raft *r, uint8_t kind, struct bns_rcbuf *data); /* was reserved */
bool raft_next_forward(struct bns_raft *r, struct bns_raft_out *out);
void raft_forward_drop(struct bns_raft *r, size_t n);

/* raft_propose.c */
BNS_MUST_CHECK int raft_propose(struct bns_raft *r, const struct bns_raft_in *in);
BNS_MUST_CHECK int raft_check_propose(const struct bns_raft_msg *m);
void raft_recv_propose(struct bns_raft *r, const struct bns_raft_msg *m);
uint64_t raft_entry_cost(const struct bns_rcbuf *data);
uint64_t raft_held_bytes(const struct bns_raft *r);

/* raft_conf.c */
BNS_MUST_CHECK int raft_conf_boot(struct bns_raft *r); /* log and commit are loaded */
BNS_MUST_CHECK int raft_conf_reserve(struct bns_raft *r);
bool raft_kind_valid(const struct bns_raft_entry *e);
void raft_conf_appended(struct bns_raft *r, const struct bns_raft_entry *e);
void raft_conf_truncated(struct bns_raft *r, uint64_t from); /* the log was cut from there on */
void raft_conf_reset(struct bns_raft *r, const struct bns_raft_snapmeta *s);
void raft_conf_committed(struct bns_raft *r, uint64_t before); /* the commit index moved on */
void raft_conf_follow_up(struct bns_raft *r); /* leader: ends a joint one; its own removal */
BNS_MUST_CHECK int raft_change(struct bns_raft *r, const struct bns_raft_in *in);
void raft_peers_purge(struct bns_raft *r, bool all); /* of those whose time to leave is over */
void raft_tell_commit(const struct bns_raft *r, struct bns_raft_msg *m);
void raft_learn_commit(struct bns_raft *r, const struct bns_raft_msg *m);
bool raft_is_member(const struct bns_raft_conf *c, uint64_t id);

/* raft_transfer.c */
BNS_MUST_CHECK int raft_transfer_in(struct bns_raft *r, uint64_t peer);
void raft_transfer_stop(struct bns_raft *r);
void raft_transfer_timer(struct bns_raft *r);
void raft_hand_over(struct bns_raft *r); /* a leader that is no voter any more ends */
void raft_recv_timeout_now(struct bns_raft *r, const struct bns_raft_msg *m);
bool raft_next_transfer(struct bns_raft *r, struct bns_raft_out *out);

/* raft_read.c */
void raft_read_add(struct bns_raft *r, uint64_t cookie); /* room was reserved */
void raft_reads_fail(struct bns_raft *r);
void raft_reads_check(struct bns_raft *r); /* leader: has a round been confirmed? */
void raft_read_timer(struct bns_raft *r);
bool raft_read_round_wanted(const struct bns_raft *r, bool heartbeat);
void raft_recv_read(struct bns_raft *r, struct raft_peer *p, const struct bns_raft_msg *m);
void raft_recv_read_resp(struct bns_raft *r, const struct bns_raft_msg *m);
bool raft_next_read_msg(struct bns_raft *r, struct bns_raft_out *out);
bool raft_next_read_done(struct bns_raft *r, struct bns_raft_out *out);

#endif
