/* raft_script_int.h - the little world behind the scenario scripts: cores, disks, one queue.
 *
 * Messages are delivered in the order sent, without delay, unless the link is cut. Disks are
 * durable at once, unless held.
 */
#ifndef BNS_SIM_RAFT_SCRIPT_INT_H
#define BNS_SIM_RAFT_SCRIPT_INT_H

#include "base/buf.h"
#include "proto/raft.h"

#define RS_NODES_MAX 7
#define RS_LOG_MAX 2048
#define RS_QUEUE_MAX 8192
#define RS_MS 1000000ull

struct rs_msg {
    struct bns_raft_msg msg;
    struct bns_raft_entry *entries;
    uint64_t after_seq;
};

struct rs_state { /* of the state machine */
    uint64_t index, term;
    char text[256]; /* the last values applied */
    struct bns_raft_conf conf;
};

struct rs_node {
    struct bns_raft *raft; /* NULL = down */
    uint64_t id;
    /* disk */
    uint64_t term, vote, commit, base, base_term, last;
    struct bns_raft_entry *log; /* by index */
    struct rs_state durable;
    bool hold; /* writes pile up in next_* and are lost in a crash */
    uint64_t seq, stored;
    struct rs_msg *held;
    size_t held_count;
    struct rs_state sm;
    enum bns_raft_role role;
    uint64_t reads_ok, reads_failed, read_index, life;
    /* what the disk will hold when it is released */
    struct bns_raft_entry *next_log;
    uint64_t next_term, next_vote, next_commit, next_base, next_base_term, next_last;
};

struct rs_world {
    const struct bns_alloc *alloc;
    struct bns_buf *out;
    struct rs_node nodes[RS_NODES_MAX];
    size_t count;
    size_t voters; /* the first so many; the others join */
    struct bns_raft_config cfg;
    uint64_t now;
    struct rs_msg *queue;
    size_t queue_count;
    bool cut[RS_NODES_MAX][RS_NODES_MAX];
    bool trace, streams_fail;
    uint64_t sent[16];
    bool full; /* memory or a bound ran out */
};

void rs_print(struct rs_world *w, const char *fmt, ...) BNS_PRINTF(2, 3);
void rs_open(struct rs_world *w, size_t count);
void rs_close(struct rs_world *w);
int rs_step(struct rs_world *w, struct rs_node *n, struct bns_raft_in in);
void rs_deliver(struct rs_world *w, size_t count);
void rs_settle(struct rs_world *w);
void rs_advance(struct rs_world *w, uint64_t ns);
void rs_drop(struct rs_world *w);
void rs_crash(struct rs_world *w, struct rs_node *n);
void rs_boot(struct rs_world *w, struct rs_node *n);
void rs_release(struct rs_world *w, struct rs_node *n);
void rs_snapshot(struct rs_world *w, struct rs_node *n);
const char *rs_type(uint8_t type);
const char *rs_role(enum bns_raft_role role);

#endif
