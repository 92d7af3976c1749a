/* raft_node_int.h - what the parts of raft_node share. Private to common/app/raft_node*.c.
 *
 *   raft_node.c       proposals, reads, applies, timer: inputs in, outputs carried out in order
 *   raft_node_boot.c  replay of the WAL, joined with what the state machine holds
 *   raft_node_wal.c   PERSIST outputs as WAL batches; which records are still needed
 *   raft_node_net.c   messages to and from peers
 *   raft_node_snap.c  snapshot streams, both ways
 *   raft_node_conf.c  changes of the configuration, hand-over, addresses of members
 */
#ifndef BNS_APP_RAFT_NODE_INT_H
#define BNS_APP_RAFT_NODE_INT_H

#include "app/raft_node.h"
#include "base/buf.h"
#include "io/rpc.h"
#include "proto/raft_msg.h"

#define BNS_RN_PROPOSE_BYTES_MAX (64u * 1024 * 1024) /* waiting for a leader */
#define BNS_RN_URGENT_BYTES_MAX (4u * 1024 * 1024)   /* likewise, of those that go first */
#define BNS_RN_PROPOSE_STEP_MAX 1024u                /* entries in one step */
#define BNS_RN_APPLY_GAP_MAX 5000u                   /* committed, not applied: then BUSY */
#define BNS_RN_READS_MAX 65536u
#define BNS_RN_READS_URGENT 65536u /* beyond that, for renewals of leases */
#define BNS_RN_PEER_QUEUE_MAX (16u * 1024 * 1024)
#define BNS_RN_HELD_MAX 4096u /* messages that wait for the disk; beyond: dropped, Raft repeats */
#define BNS_RN_SNAP_CHUNK (256u * 1024)
#define BNS_RN_METHOD_RAFT 1u
#define BNS_RN_METHOD_SNAP 2u
#define BNS_RN_METHOD_CHANGE 3u /* to the leader: u8 count | count * (u8 kind | u64 id) | context */
#define BNS_RN_METHOD_MEMBER 4u /* am I removed? reply: u8, 1 = yes, says a voter */
#define BNS_RN_METHOD_WHERE 5u  /* one-way: where the sender is found */
#define BNS_RN_WHERE_MAX (2u + BNS_RPC_ADDRS_MAX * (3u + BNS_HOST_MAX))
enum bns_rn_lane_of { BNS_RN_LANE_URGENT, BNS_RN_LANE_WRITES, BNS_RN_LANES };
#define BNS_RN_PEERS_MAX (2u * BNS_RAFT_PEERS_MAX)
#define BNS_RN_CHANGES_MAX 64u

/* A message on its way: encoded at once, sent when its PERSIST is durable. */
struct bns_rn_outmsg {
    struct bns_list node;
    struct bns_raft_node *n;
    uint64_t to;
    uint64_t after_seq;
    struct bns_buf head;
    size_t refs_count;
    struct bns_rcbuf **refs;
    size_t slices_count;
    struct bns_slice slices[];
};

/* One PERSIST = one atomic WAL batch. */
struct bns_rn_persist {
    struct bns_list node;
    struct bns_raft_node *n;
    struct bns_wal_append append;
    uint64_t seq;
    uint64_t index_first; /* of the entries; 0 = none */
    bool submitted;
    uint8_t state[24], truncate[8], snap[16];
    struct bns_buf conf;
    uint8_t (*heads)[17];
    struct bns_rcbuf **refs;
    size_t refs_count;
    struct bns_wal_record records[];
};

/* Where the entries from index_first on begin in the WAL. */
struct bns_rn_mark {
    uint64_t index_first;
    uint64_t lsn_first;
};

struct bns_rn_apply {
    struct bns_list node;
    size_t count;
    struct bns_raft_entry entries[];
};

struct bns_rn_readbatch {
    struct bns_list node;
    uint64_t cookie;
    struct bns_list reads;
};

struct bns_rn_peer {
    struct bns_raft_node *n;
    struct bns_raft_peer_addr addr; /* id 0: the place is free */
    bool leaving;                   /* to be let go as soon as the core is done with it */
    bool hearsay;                   /* the log has not told of it, only it itself */
    struct bns_endpoint heard;      /* dialled too; port 0: nothing was heard */
    bool said_where;                /* on this connection: where we are found */
    struct bns_rpc_peer *link;
    uint64_t up_ns;                                   /* since when the link is up */
    struct bns_counter *m_sent, *m_received, *m_lost; /* bytes, bytes, messages */
    struct bns_rn_snap_out *snap;                     /* a snapshot on its way to this peer */
};

/* A planted bug (BNS_MUTANT): a read is answered before what it must see is applied. */
#define BNS_RN_MUTANT_READ_EARLY 28
/* ... who missed its removal does not believe the others. */
#define BNS_RN_MUTANT_REMOVED_UNHEARD 138

struct bns_raft_node {
    struct bns_env *env;
    const struct bns_sm_ops *ops;
    void *sm;
    struct bns_raft_node_config cfg;
    char listen_host[64];
    struct bns_rn_peer peers[BNS_RN_PEERS_MAX]; /* places: a peer never moves */

    /* members */
    struct bns_list changes; /* struct change in raft_node_conf.c */
    size_t changes_count;
    struct bns_timer change_timer;
    struct bns_timer transfer_timer;
    struct bns_timer dial_timer;
    struct bns_timer member_timer;
    struct bns_raft_conf conf_first; /* of the first start; none: joining */
    bool removed, removed_told;
    bool untold;            /* removed, and who else knows it is not known */
    uint64_t leaderless_ns; /* since when; 0 = there is a leader */
    bool no_room;           /* as the core was told */
    struct {
        bns_raft_node_done *done; /* NULL = none under way */
        void *arg;
        uint64_t to, give_up_ns;
    } transfer;
    uint64_t gave_ns; /* when it lost the leadership while it handed over; 0: never */

    struct bns_wal *wal;
    struct bns_raft *raft;
    struct bns_raft_status st; /* refreshed after each drain */
    struct bns_timer timer;
    bool stepping;
    bool started;
    bool closing;
    void (*closed)(void *arg);
    void *closed_arg;

    /* WAL */
    struct bns_list persists; /* in order, until durable */
    uint64_t stored_seq;
    bool wal_full; /* the head of persists was refused: try again */
    struct bns_timer wal_retry;
    struct bns_rn_mark *marks;
    size_t marks_count, marks_cap;
    struct bns_list held; /* struct bns_rn_outmsg, by after_seq */
    size_t held_count;

    /* proposals of this turn, and those that wait for a leader */
    struct bns_rn_lane {
        struct bns_rcbuf **items;
        size_t count, cap;
        size_t old; /* of them waited already when prop_timer fired last */
        uint64_t bytes;
    } lanes[BNS_RN_LANES];
    struct bns_timer prop_timer;
    struct bns_task flush;
    bool flush_posted;

    /* reads */
    struct bns_list reads_new;     /* of this turn */
    struct bns_list batches;       /* asked the core */
    struct bns_list reads_waiting; /* have an index, wait for apply */
    struct bns_list reads_failed;  /* answered in the next turn */
    uint32_t reads_count;
    uint64_t read_cookie;
    struct bns_timer read_timer;

    /* apply */
    struct bns_list applies;
    struct bns_rn_apply *applying;
    uint64_t applied;
    bool applied_news;
    bool applying_inline;

    /* checkpoints */
    uint64_t checkpoint_index; /* durable in the state machine */
    uint64_t checkpoint_bytes; /* applied since */
    bool checkpointing;

    /* incoming snapshot */
    struct bns_rn_snap_in *snap_in;
    bool installing;
    bool install_over; /* with install_code; looked at in the next flush */
    int install_code;
    bool install_wanted;
    uint32_t sm_calls; /* snapshot calls that the state machine has not answered */
    struct bns_raft_snapmeta install_meta;

    struct bns_rpc_server *server;
    uint16_t port;

    struct bns_gauge *m_term, *m_role, *m_lag, *m_has_leader;
    struct bns_counter *m_leader_changes, *m_proposals, *m_dropped, *m_snap_sent, *m_snap_installed;
    struct bns_counter *m_bad_messages, *m_no_room;
};

/* raft_node.c */
void bns_rn_step(struct bns_raft_node *n, const struct bns_raft_in *in);
BNS_MUST_CHECK int bns_rn_try_step(struct bns_raft_node *n, const struct bns_raft_in *in);
/* raft_node.c: a proposal waits with those of this node. BNS_E_BUSY, BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_rn_prop_keep(struct bns_raft_node *n, struct bns_rcbuf *data);
void bns_rn_kick(struct bns_raft_node *n); /* runs the flush task in a later turn */
void bns_rn_try_close(struct bns_raft_node *n);
void bns_rn_run_applies(struct bns_raft_node *n);
void bns_rn_applies_drop(struct bns_raft_node *n); /* those not yet with the state machine */

/* raft_node_boot.c */
BNS_MUST_CHECK int bns_rn_boot(struct bns_raft_node *n, struct bns_err *err);
/* A state machine that has applied no CONF entry names no voters: then the static members stand. */
void bns_rn_conf_default(const struct bns_raft_node *n, struct bns_raft_conf *out);

/* raft_node_wal.c */
BNS_MUST_CHECK int bns_rn_persist(struct bns_raft_node *n, const struct bns_raft_out *o);
void bns_rn_persist_submit(struct bns_raft_node *n);
void bns_rn_wal_free(struct bns_raft_node *n);
void bns_rn_wal_release(struct bns_raft_node *n, uint64_t index_needed);
BNS_MUST_CHECK int bns_rn_mark_add(struct bns_raft_node *n, uint64_t index, uint64_t lsn);

/* raft_node_net.c */
BNS_MUST_CHECK int bns_rn_net_start(struct bns_raft_node *n, struct bns_err *err);
void bns_rn_net_close(struct bns_raft_node *n);
BNS_MUST_CHECK int bns_rn_send(struct bns_raft_node *n, const struct bns_raft_out *o);
void bns_rn_send_held(struct bns_raft_node *n);
void bns_rn_identity(struct bns_raft_node *n, struct bns_rpc_identity *out);
struct bns_rn_peer *bns_rn_peer_find(struct bns_raft_node *n, uint64_t id);
BNS_MUST_CHECK int bns_rn_peer_dial(struct bns_rn_peer *p, struct bns_err *err);

/* raft_node_where.c */
void bns_rn_where_say(struct bns_rn_peer *p); /* once a connection; before its first message */
void bns_rn_where_heard(struct bns_raft_node *n, uint64_t from, struct bns_slice payload);
size_t bns_rn_where_encode(const struct bns_raft_peer_addr *a, uint8_t out[BNS_RN_WHERE_MAX]);
bool bns_rn_where_decode(struct bns_slice in, struct bns_raft_peer_addr *out); /* id: 0 */

/* raft_node_conf.c */
int bns_rn_peer_redial(struct bns_rn_peer *p); /* an error: again in a second */
/* hearsay: only it itself has told of it; such a peer makes room for one of the log's. */
int bns_rn_peer_set(struct bns_raft_node *n, const struct bns_raft_peer_addr *addr, bool hearsay);
void bns_rn_conf_init(struct bns_raft_node *n);
void bns_rn_conf_start(struct bns_raft_node *n);
void bns_rn_conf_close(struct bns_raft_node *n);
void bns_rn_conf_free(struct bns_raft_node *n);  /* after the network has closed */
void bns_rn_conf_flush(struct bns_raft_node *n); /* in the flush task */
/* raft_node_props.c */
void bns_rn_props_init(struct bns_raft_node *n);
void bns_rn_props_free(struct bns_raft_node *n);
bool bns_rn_props_wait(const struct bns_raft_node *n); /* some are queued */
void bns_rn_props_step(struct bns_raft_node *n);

void bns_rn_drain(struct bns_raft_node *n);        /* carries out what the core has */
void bns_rn_conf_drained(struct bns_raft_node *n); /* the status is fresh */
void bns_rn_conf_request(struct bns_raft_node *n, struct bns_rpc_request *r, uint64_t from,
                         uint16_t method, struct bns_slice payload);

/* raft_node_snap.c */
void bns_rn_snap_stop(struct bns_rn_peer *p); /* the stream to it, if there is one */
BNS_MUST_CHECK int bns_rn_snap_send(struct bns_raft_node *n, uint64_t peer, uint64_t index);
void bns_rn_snap_install(struct bns_raft_node *n);
void bns_rn_snap_installed(struct bns_raft_node *n); /* the end of it, if the end has come */
void bns_rn_snap_close(struct bns_raft_node *n);

static inline const struct bns_alloc *bns_rn_alloc(const struct bns_raft_node *n)
{
    return n->env->alloc;
}

#endif
