/* raft_world_int.h - what the files of the Raft simulator share. */
#ifndef BNS_SIM_RAFT_WORLD_INT_H
#define BNS_SIM_RAFT_WORLD_INT_H

#include "base/heap.h"
#include "base/prng.h"
#include "proto/raft_impl.h" /* the checks look inside the cores: a status copy would be slow */
#include "sim/raft_world.h"

#define RW_NODES_MAX 7
#define RW_CLIENTS_MAX 16
#define RW_KEYS 8
#define RW_MS 1000000ull
#define RW_SEC (1000 * RW_MS)
#define RW_TERMS_MAX 65536u
#define RW_MEMORY_MAX (64u << 20)

enum rw_event_kind {
    RW_TIMER,
    RW_DELIVER,
    RW_DISK,     /* the sync in flight is done */
    RW_APPLIED,  /* the state machine has applied its batch */
    RW_SNAPPED,  /* the state machine has made itself durable */
    RW_STREAMED, /* a snapshot has arrived, or got lost */
    RW_INSTALLED,
    RW_RESTART,
    RW_REQUEST, /* a client's operation reaches its node; `from` is the client */
    RW_CLIENT,
    RW_FAULT,
    RW_TOPPLE, /* a fresh leader falls */
    RW_CHANGE  /* somebody changes the configuration, or moves the leadership */
};

/* A configuration as sets of nodes: bit i is node i. */
struct rw_conf {
    uint8_t voters, old, learners;
};

/* The state machine: a running digest of all applied entries and the last write of each key. */
struct rw_sm {
    uint64_t index, term, digest;
    uint64_t keys[RW_KEYS];
    struct rw_conf conf;
};

struct rw_event {
    struct bns_heap_node node;
    enum rw_event_kind kind;
    uint32_t to;   /* node or client */
    uint32_t life; /* of that node: an event for an earlier life is void */
    uint32_t from, from_life;
    bool flag;
    struct bns_raft_msg msg;
    struct bns_raft_entry *entries;
    uint64_t term;
    struct rw_sm *snap; /* owned */
    struct rw_event *next_free;
};

/* One PERSIST on its way to the disk. */
struct rw_write {
    uint64_t seq, truncate_from;
    bool has_state, has_snap;
    uint64_t term, vote, commit;
    struct rw_sm snap;
    uint64_t first; /* index of entries[0] */
    struct bns_raft_entry *entries;
    size_t count;
    struct rw_write *next;
};

/* What survives a power cut. Arrays are indexed by log index. */
struct rw_disk {
    uint64_t term, vote, commit;
    uint64_t base, base_term, last;
    struct rw_conf base_conf; /* at base */
    uint64_t conf_top;        /* the last CONF entry; <= base: none */
    struct bns_raft_entry *log;
    uint64_t *chain;
    size_t cap;
    struct rw_sm sm;
    struct rw_write *queue, **queue_tail; /* not synced */
    uint64_t flight_seq;                  /* newest write of the sync in flight; 0 = idle */
};

/* A message that waits for its PERSIST. */
struct rw_held {
    uint64_t after_seq;
    struct rw_event *ev;
};

struct rw_node {
    uint32_t i;
    struct bns_raft *raft; /* NULL = down */
    uint32_t life;
    uint64_t paused_until;
    uint64_t booted_at, booted_local; /* clock: local = booted_local + elapsed * rate */
    int64_t drift_ppm;
    struct rw_event timer; /* embedded: one a node */
    struct rw_disk disk;
    struct rw_sm sm;
    bool applying, snapping, installing;
    struct rw_sm staged; /* received snapshot */
    struct rw_held *held;
    size_t held_count, held_cap;
    /* mirror of the log in memory, for the checks */
    uint64_t *chain;
    size_t chain_cap;
    uint64_t seen_term, seen_commit, seen_last;
    enum bns_raft_role seen_role;
    bool led;                 /* it was leader of this term before the event */
    struct rw_conf seen_conf; /* in force, before the event that is being looked at */
    uint64_t seen_conf_index;
    uint64_t conf_entry;    /* the last CONF entry that it wrote; 0 = not known */
    uint64_t promised_term; /* highest term in which it answered durably */
    uint64_t stored_seq;
};

enum rw_client_state { RW_IDLE, RW_SENT, RW_WRITING, RW_READING };

struct rw_client {
    uint32_t i;
    struct rw_event ev; /* next operation, or timeout of this one */
    enum rw_client_state state;
    uint64_t op; /* unique number of the operation */
    bool read;
    uint32_t node, life;
    uint64_t read_index; /* 0 = not confirmed yet */
    uint64_t floor;      /* a read must see at least this index */
    uint64_t done;       /* operations answered well since the healing */
};

struct rw_link {
    bool cut;
    uint64_t clog_until;
    uint64_t last_at; /* healed: the newest delivery */
};

/* Rates drawn from the seed: some seeds are quiet in one respect and wild in another. */
struct rw_swarm {
    uint32_t clients;
    uint64_t election_ns, delay_min_ns, delay_mean_ns;
    double loss, dup, clog, slow_disk, torn, snap_loss;
    double crash, crash_leader, pause, partition, one_way, heal;
    uint64_t disk_ns, restart_ns, pause_ns, think_ns, fault_every_ns;
    uint64_t snap_every, trailing;
    int64_t drift_ppm;
    uint32_t data_max, msg_bytes_max, inflight_msgs_max, batch_max;
    double read_share;
    uint64_t change_every_ns; /* 0 = the configuration stays */
    double topple;            /* how often a fresh leader falls before it has done much */
};

struct rw_committed {
    uint64_t term, chain, op;
    uint64_t leader_term; /* of the leader that committed it */
    uint64_t conf_at;     /* the last CONF entry up to here; 0 = none */
    struct rw_conf conf;  /* in force when this is committed */
};

struct rw_slot {
    uint64_t index, term, chain; /* index 0 = empty */
    uint32_t node, life;         /* that had it first */
    bool alone;                  /* as the only voter */
};

struct rw_world {
    struct bns_alloc alloc; /* counts */
    uint64_t memory, memory_max;
    struct bns_raft_world_options opt;
    struct bns_raft_world_result *res;
    struct bns_prng net, disk, load, fault, plot, member;
    struct rw_swarm swarm;
    uint64_t now;
    struct bns_heap heap;
    struct rw_event *free_events;
    struct rw_node nodes[RW_NODES_MAX];
    uint32_t nodes_count;
    struct rw_conf first; /* configuration of the first start; others join later */
    struct rw_client clients[RW_CLIENTS_MAX];
    struct rw_link links[RW_NODES_MAX][RW_NODES_MAX];
    struct rw_event fault_ev;
    bool healed, quiet; /* no more faults; clients start nothing new */
    uint64_t awake_at;  /* what came to paused nodes is handled then at the latest */
    uint64_t ops;
    uint64_t acked_index; /* highest index any client has seen the effect of */
    /* truth */
    struct rw_committed *shadow; /* by index */
    size_t shadow_cap;
    uint64_t shadow_last;
    struct rw_slot *slots; /* (index, term) -> chain, open addressing */
    size_t slots_cap, slots_used;
    uint8_t *leaders; /* by term: node + 1 */
    uint8_t *votes;   /* by term * RW_NODES_MAX + node: candidate it voted for */
};

static inline uint64_t rw_mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9fb21c651e98df25ull;
    return h ^ (h >> 29);
}

/* raft_world.c */
void rw_fail(struct rw_world *w, const char *fmt, ...) BNS_PRINTF(2, 3);
struct rw_event *rw_event_new(struct rw_world *w, enum rw_event_kind kind, uint32_t to,
                              uint64_t after_ns);
void rw_event_free(struct rw_world *w, struct rw_event *e);
void rw_schedule(struct rw_world *w, struct rw_event *e, uint64_t at);
void *rw_grow(struct rw_world *w, void *ptr, size_t *cap, size_t want, size_t size);
void rw_client_request(struct rw_world *w, struct rw_node *n, const struct rw_event *e);
void rw_client_applied(struct rw_world *w, struct rw_node *n, uint64_t op);
void rw_client_read(struct rw_world *w, struct rw_node *n, const struct bns_raft_out *o);
bool rw_failed(const struct rw_world *w);

/* raft_world_conf.c */
struct rw_conf rw_conf_of(const struct bns_raft_conf *c);
struct rw_conf rw_conf_entry(const struct bns_raft_entry *e);
void rw_conf_expand(struct rw_conf c, struct bns_raft_conf *out);
bool rw_conf_same(struct rw_conf a, struct rw_conf b);
struct rw_conf rw_conf_on(const struct rw_disk *d, uint64_t upto);
bool rw_conf_majority(struct rw_conf c, uint32_t nodes);
bool rw_member(const struct rw_world *w, uint32_t i); /* of what was committed last */
void rw_conf_draw(struct rw_world *w);
void rw_conf_change(struct rw_world *w);
void rw_check_conf(struct rw_world *w, struct rw_node *n);
void rw_check_conf_entry(struct rw_world *w, struct rw_node *n, const struct bns_raft_entry *e);
void rw_check_timeout_now(struct rw_world *w, struct rw_node *n, const struct bns_raft_msg *m);

/* raft_world_net.c */
void rw_net_send(struct rw_world *w, struct rw_event *e); /* takes e */
void rw_net_stream(struct rw_world *w, struct rw_node *n, uint32_t to);
void rw_fault(struct rw_world *w);
void rw_topple(struct rw_world *w, struct rw_node *n);
void rw_heal(struct rw_world *w);
void rw_swarm_draw(struct rw_world *w);

/* raft_world_node.c */
void rw_node_boot(struct rw_world *w, struct rw_node *n);
void rw_node_crash(struct rw_world *w, struct rw_node *n);
void rw_node_free(struct rw_world *w, struct rw_node *n);
int rw_node_step(struct rw_world *w, struct rw_node *n, struct bns_raft_in in);
void rw_node_event(struct rw_world *w, struct rw_node *n, struct rw_event *e);

/* raft_world_check.c */
uint64_t rw_chain(uint64_t prev, const struct bns_raft_entry *e);
uint64_t rw_op(const struct bns_raft_entry *e);
void rw_check_entry(struct rw_world *w, struct rw_node *n, const struct bns_raft_entry *e);
void rw_check_node(struct rw_world *w, struct rw_node *n);
void rw_check_boot(struct rw_world *w, struct rw_node *n);
void rw_check_apply(struct rw_world *w, struct rw_node *n, const struct bns_raft_entry *e);
void rw_check_sent(struct rw_world *w, struct rw_node *n, const struct bns_raft_msg *m);
bool rw_converged(struct rw_world *w);

#endif
