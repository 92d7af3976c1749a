/* raft.h - the Raft consensus core: a pure state machine, one object a group.
 *
 * Source: Ongaro's thesis "Consensus: Bridging Theory and Practice" (2014), sections 3, 4
 *         (membership), 6.2, 6.4, 9.6 (pre-vote), 10.2.1 (leader writes in parallel); learners,
 *         pipelining, progress states and flow control as etcd-io/raft describes them.
 *
 * Use:    step() one input or several, then drain next() until false, honouring the outputs in
 *         order; look at deadline() and step a TIMER when it has passed. Several inputs before one
 *         drain give batches: one PERSIST and one message for many proposals. A core never blocks
 *         and never calls out.
 * Thread: one thread. No globals, no clock, no I/O; randomness comes from config.seed.
 * Memory: from the allocator given. Outputs borrow memory that is valid until the next step; the
 *         driver takes a reference on entry data (bns_rcbuf_get) that it needs for longer.
 * Errors: BNS_E_NOMEM leaves the state unchanged. BNS_E_PROTO: a peer's message is malformed or
 *         impossible; nothing changed. BNS_E_BUSY, BNS_E_NOTLEADER: see the inputs. The driver's
 *         own mistakes assert.
 */
#ifndef BNS_PROTO_RAFT_H
#define BNS_PROTO_RAFT_H

#include "base/alloc.h"
#include "base/err.h"
#include "base/rcbuf.h"
#include "base/slice.h"

#define BNS_RAFT_PEERS_MAX 16                /* voters of both configurations and learners */
#define BNS_RAFT_ENTRY_BYTES_MAX (15u << 20) /* data of one entry: it must fit a WAL record */
#define BNS_RAFT_ENTRY_OVERHEAD 48u          /* counted for each entry in every byte bound */

struct bns_raft;

enum bns_raft_role {
    BNS_RAFT_FOLLOWER,
    BNS_RAFT_PRE_CANDIDATE,
    BNS_RAFT_CANDIDATE,
    BNS_RAFT_LEADER
};

#define BNS_RAFT_CONTEXT_BYTES_MAX (64u << 10) /* application's part of a change */

/* The kind of an entry is the tag of a union: what its data are. The low half is one of these, the
 * high half (entries of NORMAL only) the family of the command, 0 to 15, so that several kinds of
 * commands can live in one log; a state machine skips the families that it does not know. */
enum bns_raft_kind { BNS_RAFT_NORMAL = 0, BNS_RAFT_NOOP = 1, BNS_RAFT_CONF = 2 };
#define BNS_RAFT_FAMILY(kind) ((unsigned)(kind) >> 4)
#define BNS_RAFT_FAMILY_KIND(family) ((uint8_t)((family) << 4 | BNS_RAFT_NORMAL))
#define BNS_RAFT_FAMILIES 16u

struct bns_raft_entry {
    uint64_t index;
    uint64_t term;
    uint8_t kind;
    struct bns_rcbuf *data; /* NULL = empty */
};

/* Voters, the outgoing voters of a joint configuration, learners. Sorted by id. */
struct bns_raft_conf {
    uint64_t voters[BNS_RAFT_PEERS_MAX];
    uint64_t voters_old[BNS_RAFT_PEERS_MAX];
    uint64_t learners[BNS_RAFT_PEERS_MAX];
    uint8_t voters_count;
    uint8_t voters_old_count; /* > 0: joint */
    uint8_t learners_count;
};

enum bns_raft_change_kind {
    BNS_RAFT_ADD_VOTER = 1,   /* a new member, or a learner; BNS_E_EXISTS: votes already */
    BNS_RAFT_ADD_LEARNER = 2, /* a new member; BNS_E_EXISTS: is a member already */
    BNS_RAFT_PROMOTE = 3, /* a learner; BNS_E_NOTFOUND: no member; BNS_E_EXISTS: votes already */
    BNS_RAFT_REMOVE = 4   /* BNS_E_NOTFOUND: no member */
};

struct bns_raft_change {
    enum bns_raft_change_kind kind;
    uint64_t id;
};

/* What an entry of kind CONF holds (raft_conf.c has the encoding). */
struct bns_raft_conf_entry {
    struct bns_raft_conf conf; /* joint: a second CONF entry follows, without context */
    struct bns_raft_change changes[BNS_RAFT_PEERS_MAX]; /* none: the end of a joint configuration,
                                                         * or the configuration merely stated */
    size_t changes_count;
    struct bns_slice context; /* the proposer's bytes; borrowed from the entry */
};

struct bns_raft_snapmeta {
    uint64_t index;
    uint64_t term;
    struct bns_raft_conf conf;
};

enum bns_raft_msg_type {
    BNS_RAFT_MSG_PREVOTE = 1,
    BNS_RAFT_MSG_PREVOTE_RESP = 2,
    BNS_RAFT_MSG_VOTE = 3,
    BNS_RAFT_MSG_VOTE_RESP = 4,
    BNS_RAFT_MSG_APPEND = 5,
    BNS_RAFT_MSG_APPEND_RESP = 6,
    BNS_RAFT_MSG_HEARTBEAT = 7,
    BNS_RAFT_MSG_HEARTBEAT_RESP = 8,
    BNS_RAFT_MSG_PROPOSE = 9, /* a follower forwards proposals */
    BNS_RAFT_MSG_READ = 10,   /* a follower asks for a read index; read_ctx is its own number */
    BNS_RAFT_MSG_READ_RESP = 11,
    BNS_RAFT_MSG_SNAPSHOT_RESP = 12, /* the follower has installed (or refused) a snapshot */
    BNS_RAFT_MSG_TIMEOUT_NOW = 13 /* the leader hands over: campaign now. index, log_term: where its
                                   * log ends */
};
#define BNS_RAFT_MSG_LAST BNS_RAFT_MSG_TIMEOUT_NOW

/* struct bns_raft_msg.flags */
enum bns_raft_flag {
    BNS_RAFT_FLAG_PREVOTE = 1,
    BNS_RAFT_FLAG_TRANSFER =
        2,                   /* vote: asked for by an operator; voters do not cling to a leader */
    BNS_RAFT_FLAG_QUIET = 4, /* heartbeat: only tells the commit index, wants no answer */
    BNS_RAFT_FLAG_INSTALLING = 8, /* heartbeat answer: a snapshot is being installed here */
    BNS_RAFT_FLAG_NO_ROOM = 16    /* heartbeat and its answer: the sender's log has no room */
};

/* On the wire: protobuf, see raft_msg.h. */
struct bns_raft_msg {
    uint8_t type;
    bool reject;
    uint8_t flags;
    uint32_t group;
    uint64_t from, to;
    uint64_t term;
    uint64_t log_term, index; /* previous entry (append), last entry (vote), matched (resp) */
    uint64_t commit;
    uint64_t hint_index, hint_term;
    uint64_t read_ctx;
    const struct bns_raft_entry *entries;
    size_t entries_count;
};

struct bns_raft_config {
    uint64_t id;
    uint32_t group;
    uint64_t election_ns;           /* timeouts are drawn from 1x..2x; 0 = 1 s */
    uint64_t heartbeat_ns;          /* 0 = 100 ms */
    uint32_t inflight_msgs_max;     /* 0 = 256 */
    uint32_t inflight_bytes_max;    /* 0 = 4 MiB */
    uint32_t msg_bytes_max;         /* 0 = 1 MiB */
    uint64_t uncommitted_bytes_max; /* 0 = 64 MiB */
    uint32_t apply_bytes_max;       /* entries in one APPLY; 0 = 1 MiB */
    uint64_t trailing_entries;      /* kept behind SNAPSHOT_TAKEN; 0 = 5,000 */
    uint64_t trailing_bytes;        /* 0 = 16 MiB */
    uint32_t reads_max;             /* waiting reads; 0 = 65,536 */
    uint64_t seed;
    uint32_t mutant; /* planted bug in force (only in builds with BNS_MUTANTS) */
};

/* What the disk kept. On first start: term 0, snap.index 0, snap.conf = the first voters. The
 * configuration in force is that of the last CONF entry up to commit, else snap.conf. snap.conf
 * without voters: a member that joins. It never campaigns, and takes the log or a snapshot of any
 * leader that sends one, until that tells it of a configuration.
 * Joining log and state machine: when the log does not hold the entry (index, term) that the state
 * machine is at, give the state machine's own meta as snap and no entries; otherwise applied is the
 * state machine's index. */
struct bns_raft_boot {
    uint64_t term, vote, commit;
    struct bns_raft_snapmeta snap;        /* the log begins behind it */
    const struct bns_raft_entry *entries; /* snap.index + 1 ..; the core takes references */
    size_t entries_count;
    uint64_t applied; /* >= snap.index */
};

enum bns_raft_in_kind {
    BNS_RAFT_IN_TIMER,             /* the deadline has passed */
    BNS_RAFT_IN_RECV,              /* msg; the core takes references on entry data */
    BNS_RAFT_IN_PROPOSE,           /* data[data_count]: one NORMAL entry each, all or none, as one
                                    * PERSIST and one APPEND a peer. Leader: appended. Follower:
                                    * forwarded. BNS_E_BUSY: too much uncommitted;
                                    * BNS_E_NOTLEADER: no leader known. family: see above */
    BNS_RAFT_IN_READ,              /* cookie: answered by READ_OK or READ_FAIL, once. BNS_E_BUSY */
    BNS_RAFT_IN_STORED,            /* seq: that PERSIST, and all before it, are durable */
    BNS_RAFT_IN_APPLIED,           /* index: everything up to index is applied */
    BNS_RAFT_IN_SNAPSHOT_TAKEN,    /* index <= applied: the state machine holds it durably */
    BNS_RAFT_IN_SNAPSHOT_SENT,     /* peer, ok, index: the stream to peer ended */
    BNS_RAFT_IN_SNAPSHOT_RECEIVED, /* snap, peer, term of the sender: whole here. INSTALL follows in
                                    * this very drain, or never: then throw it away */
    BNS_RAFT_IN_INSTALLED,         /* index: the state machine now is that snapshot, durably, and no
                                    * APPLY is out (APPLIED was stepped before). Only
                                    * then the log is cut (PERSIST with snap) */
    BNS_RAFT_IN_INSTALL_FAILED,    /* index: refused, the state machine is as it was before INSTALL.
                                    * APPLY goes on behind what was APPLIED (what was handed out
                                    * since comes again); the leader sends another snapshot */
    BNS_RAFT_IN_UNREACHABLE,       /* peer: the connection is down; back to probing */
    BNS_RAFT_IN_CAMPAIGN,          /* election now (tests) */
    BNS_RAFT_IN_CHANGE,            /* changes[changes_count], all or none, each id once; context.
                                    * Leader: one CONF entry is appended, and in force once it is
                                    * committed; then its APPLY. More than one voter changed: that
                                    * one is joint, and the leader ends it with a second CONF entry
                                    * by itself. No changes:
                                    * the configuration is stated in the log. BNS_E_NOTLEADER: not
                                    * the leader; BNS_E_BUSY, try again soon: a change is under
                                    * way, the leader's first entry is not committed yet, it is
                                    * handing over, too much is uncommitted; BNS_E_EXISTS,
                                    * BNS_E_NOTFOUND: see the kinds; BNS_E_INVALID: an id is 0 or
                                    * named twice, or no voter would be left; BNS_E_TOOBIG: too
                                    * many members, or too large a context */
    BNS_RAFT_IN_TRANSFER,          /* peer: hand leadership to that voter; 0: to the best. The
                                    * leader takes no proposals (BNS_E_BUSY), brings the peer up to
                                    * date and tells it to campaign; after one election timeout it
                                    * gives up (status.transferee is 0 again). BNS_OK at once when
                                    * peer leads already. BNS_E_NOTLEADER; BNS_E_NOTFOUND: no
                                    * member, or 0 and no other voter was heard of lately;
                                    * BNS_E_INVALID: a learner; BNS_E_BUSY: under way to another */
    BNS_RAFT_IN_ROOM               /* ok: whether the log has room on this disk. A leader without
                                    * room hands over to a voter that has room, at most once an
                                    * election timeout */
};

struct bns_raft_in {
    enum bns_raft_in_kind kind;
    const struct bns_raft_msg *msg;
    struct bns_rcbuf *const *data; /* PROPOSE: the core takes a reference on each */
    size_t data_count;
    uint64_t cookie, seq, index, peer, term;
    bool ok;
    uint8_t family; /* PROPOSE */
    const struct bns_raft_snapmeta *snap;
    const struct bns_raft_change *changes; /* CHANGE */
    size_t changes_count;
    struct bns_slice context; /* CHANGE: copied */
};

enum bns_raft_out_kind {
    BNS_RAFT_OUT_PERSIST,   /* seq; state when has_state; truncate_from when not 0; entries; the log
                           * starts anew behind snap when that is not NULL. One atomic WAL batch;
                           * answer with STORED(seq) */
    BNS_RAFT_OUT_SEND,      /* msg to msg.to, not before STORED(after_seq); 0 = at once */
    BNS_RAFT_OUT_APPLY,     /* committed and locally durable entries, in order, once each */
    BNS_RAFT_OUT_READ_OK,   /* cookie, index: answer once applied >= index */
    BNS_RAFT_OUT_READ_FAIL, /* cookie, code */
    BNS_RAFT_OUT_SEND_SNAPSHOT, /* peer: stream one that covers at least index */
    BNS_RAFT_OUT_INSTALL,       /* snap: install the received one; answer INSTALLED */
    BNS_RAFT_OUT_ROLE           /* role, term, leader (0 = unknown) changed */
};

struct bns_raft_out {
    enum bns_raft_out_kind kind;
    uint64_t seq, after_seq;
    bool has_state;
    uint64_t term, vote, commit; /* PERSIST state; ROLE: term */
    uint64_t truncate_from;
    const struct bns_raft_entry *entries;
    size_t entries_count;
    const struct bns_raft_snapmeta *snap;
    struct bns_raft_msg msg; /* SEND; msg.entries borrowed as all else */
    uint64_t cookie, index, peer, leader;
    int code;
    enum bns_raft_role role;
};

/* BNS_E_NOMEM, BNS_E_INVALID (config), BNS_E_CORRUPT (boot state contradicts itself). */
BNS_MUST_CHECK int bns_raft_init(struct bns_raft **r, const struct bns_raft_config *cfg,
                                 const struct bns_raft_boot *boot, const struct bns_alloc *alloc,
                                 uint64_t now_ns);
void bns_raft_close(struct bns_raft *r); /* NULL is fine */
BNS_MUST_CHECK int bns_raft_step(struct bns_raft *r, uint64_t now_ns, const struct bns_raft_in *in);
bool bns_raft_next(struct bns_raft *r, struct bns_raft_out *out);
uint64_t bns_raft_deadline(const struct bns_raft *r); /* UINT64_MAX = no timer wanted */

struct bns_raft_status {
    enum bns_raft_role role;
    uint64_t id, term, vote, leader, commit, applied, first_index, last_index, durable_index;
    uint64_t log_bytes, uncommitted_bytes;
    uint32_t reads_waiting, peers_count;
    uint64_t conf_index;          /* of the CONF entry in force, or where the log began */
    uint64_t leader_commit;       /* a follower: what its leader has said to be committed */
    bool state_stored;            /* term, vote, and that conf_index is committed, are durable */
    uint64_t transferee;          /* leader: handing over to that peer; 0 = no */
    bool ready;                   /* leader: an entry of its own term is committed */
    bool joint, conf_pending;     /* conf_pending: not committed */
    bool voter, learner;          /* of this node, in the configuration in force */
    bool removed;                 /* a committed change has removed this node */
    bool no_room, leader_no_room; /* here (IN_ROOM); at the leader, as far as it told */
    struct {
        uint64_t id, match, next;
        uint8_t state; /* 0 probe, 1 replicate, 2 snapshot */
        bool learner, recent_active, no_room;
        uint32_t inflight;
        uint64_t heard_ns; /* since it last answered in this term; UINT64_MAX: it has not */
    } peers[BNS_RAFT_PEERS_MAX];
};
void bns_raft_status(const struct bns_raft *r, struct bns_raft_status *out);
/* In force: that of the last committed CONF entry. No voters: this node joins. */
const struct bns_raft_conf *bns_raft_conf(const struct bns_raft *r);
/* Does the core still send to id? A leader goes on sending to a member that it has removed for five
 * election timeouts, so that it learns of it: so long its connection is to stay. */
bool bns_raft_talks_to(const struct bns_raft *r, uint64_t id);
/* The data of a CONF entry. BNS_E_PROTO. bns_raft_conf_decode() reads the configuration alone. */
BNS_MUST_CHECK int bns_raft_change_decode(struct bns_slice data, struct bns_raft_conf_entry *out);
/* Term of an entry in the log or of the snapshot it begins with; 0 when not known. */
uint64_t bns_raft_term_at(const struct bns_raft *r, uint64_t index);

#endif
