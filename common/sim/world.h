/* world.h - one virtual world: nodes with an env each, a network, disks, clocks, and a nemesis.
 *
 * Everything happens as events on one heap, ordered by (virtual ns, sequence number). A run is a
 * function of (seed, config, program): same seed, same trace hash. Nothing here reads a clock,
 * opens a socket or a file, or starts a thread.
 *
 * Thread:  one. Calls are made between events, or from within them (from a node's own code only
 *          through its env; from harness callbacks any of these).
 * Memory:  the world owns all; a node's env has a test heap as allocator, which is freed whole when
 *          the node dies. A node's disk survives its deaths.
 * Errors:  running out of real memory asserts.
 */
#ifndef BNS_SIM_WORLD_H
#define BNS_SIM_WORLD_H

#include "base/env.h"
#include "sim/heap.h"
#include "sim/trace.h"
#include "sim/vfs_mem.h"

#define BNS_WORLD_NODES_MAX 32
#define BNS_WORLD_NAMES_MAX 32
#define BNS_WORLD_WALL_MS INT64_C(1700000000000) /* wall clock of every node at virtual 0 */

struct bns_world;

struct bns_world_net {
    uint64_t delay_min_ns;
    uint64_t delay_mean_ns; /* above the minimum, exponential */
    double loss;            /* of a segment: it comes a retransmission timeout later */
    double small;           /* a segment is cut to 1..64 bytes */
};

struct bns_world_disk {
    uint64_t read_ns, write_ns; /* mean of a call */
    uint64_t sync_ns;           /* mean of a sync, exponential */
    double slow;                /* chance that a batch takes up to slow_ns more */
    uint64_t slow_ns;
    double read_eio, write_eio, sync_eio; /* a call fails */
    double write_short;
    double rot;              /* per tick: one bit of one file of a victim (see victims) */
    double sync_lost;        /* of a victim's syncs */
    double misdirect, stale; /* of a victim's writes, reads */
    uint64_t capacity_bytes; /* 0: no limit */
};

struct bns_world_nemesis { /* chances per tick of 100 ms, while the nemesis is on */
    double partition, partition_end;
    double one_way; /* share of partitions that block one direction only */
    double clog;    /* of each pair */
    uint64_t clog_max_ns;
    double crash;       /* of each server */
    double crash_all;   /* all servers at once */
    double power_share; /* of crashes: a power cut, else kill -9 */
    double mid_job;     /* share of power cuts that strike inside a VFS call */
    uint64_t down_max_ns;
    double pause; /* of each server */
    uint64_t pause_max_ns;
    double jump; /* wall clock of a server, by up to a minute either way */
    uint32_t drift_max_ppm;
    double reset;     /* of each server: one of its connections */
    double half_open; /* share of resets that only one end hears of */
    double full;      /* of each server: its disk has no room for a while. Not in the swarm */
    uint64_t full_max_ns;
    double oom; /* of each server: one of its next 100 allocations fails. Not in the swarm */
};

struct bns_world_config {
    unsigned nodes;
    unsigned servers; /* the first of the nodes: the nemesis strikes these; 0 = all */
    unsigned victims; /* servers that may suffer permanent damage: keep it a minority */
    uint32_t mutant;  /* for every env */
    struct bns_world_net net;
    struct bns_world_disk disk;
    struct bns_world_nemesis nemesis;
};

struct bns_world_config bns_world_calm(unsigned nodes); /* small delays, no faults */
/* Fault rates drawn from the seed, each fault absent in about half of the seeds. Victims are a
 * minority of the servers; silent damage to disks (rot, lost syncs, misdirected writes) only when
 * `damage`. */
struct bns_world_config bns_world_swarm(uint64_t seed, unsigned nodes, unsigned servers,
                                        bool damage);

/* ---- nodes ----------------------------------------------------------------------------------- */

enum bns_node_state { BNS_NODE_OFF, BNS_NODE_DEAD, BNS_NODE_UP }; /* DEAD: the host is up */

struct bns_node_main {
    /* Builds the daemon on env, as an event of the node. An error: the node exits. */
    int (*start)(struct bns_env *env, unsigned id, void *arg);
    /* The node died (code: exit code of fatal, 0 = killed or no power): pointers into it are void.
     * Its memory is still there, its env must not be called. May be NULL. */
    void (*died)(unsigned id, int code, const char *text, void *arg);
    void *arg;
    uint64_t restart_ns; /* a node that exited by itself starts again after this; 0 = never */
};

BNS_MUST_CHECK int bns_world_new(uint64_t seed, const struct bns_world_config *cfg,
                                 struct bns_world **out);
void bns_world_free(struct bns_world *w); /* NULL is fine */

/* The node starts in an event at this instant. `main` is copied. No-op when it is up. */
void bns_world_start(struct bns_world *w, unsigned id, const struct bns_node_main *main);
void bns_world_restart(struct bns_world *w, unsigned id); /* with the main it had */
void bns_world_kill(struct bns_world *w, unsigned id);    /* kill -9; unsynced bytes survive */
/* Killed when it is up; from now on only bns_world_start() starts it, no restart does. */
void bns_world_retire(struct bns_world *w, unsigned id);
void bns_world_power_cut(struct bns_world *w, unsigned id);
/* The power goes inside one of the next VFS calls of the node, or at the latest in `within_ns`. */
void bns_world_power_cut_soon(struct bns_world *w, unsigned id, uint64_t within_ns);
void bns_world_pause(struct bns_world *w, unsigned id, uint64_t ns); /* like SIGSTOP, SIGCONT */
enum bns_node_state bns_world_state(const struct bns_world *w, unsigned id);
int bns_world_exit_code(const struct bns_world *w, unsigned id); /* of its last death */
struct bns_env *bns_world_env(struct bns_world *w, unsigned id);
struct bns_vfs *bns_world_vfs(struct bns_world *w, unsigned id);
struct bns_test_heap *bns_world_heap(struct bns_world *w, unsigned id);
size_t bns_world_timers(const struct bns_world *w, unsigned id);    /* that are running */
const char *bns_world_host(const struct bns_world *w, unsigned id); /* "10.0.0.<id + 1>" */

/* Runs fn as code of the node, now; false when the node is not up or is paused. */
bool bns_world_call(struct bns_world *w, unsigned id, void (*fn)(struct bns_env *env, void *arg),
                    void *arg);

/* ---- network and clocks ---------------------------------------------------------------------- */

void bns_world_block(struct bns_world *w, unsigned from, unsigned to, bool blocked);
void bns_world_partition(struct bns_world *w, uint32_t side); /* bit set: other side than clear */
void bns_world_connect_all(struct bns_world *w);              /* no blocks, no clogs */
void bns_world_clog(struct bns_world *w, unsigned from, unsigned to, uint64_t ns);
/* From now on `name` means node id to everyone who dials it (connections stay); an id of
 * BNS_WORLD_NODES_MAX takes the name away. At most BNS_WORLD_NAMES_MAX names. */
void bns_world_name(struct bns_world *w, const char *name, unsigned id);
void bns_world_reset_one(struct bns_world *w, unsigned id, bool half_open);
size_t bns_world_links(const struct bns_world *w); /* connections, half dead ones too */
void bns_world_drift(struct bns_world *w, unsigned id, int32_t ppm); /* of both clocks */
void bns_world_jump(struct bns_world *w, unsigned id, int64_t ms);   /* wall clock */

/* ---- time ------------------------------------------------------------------------------------ */

typedef void bns_world_fn(struct bns_world *w, void *arg);
typedef const char *bns_world_check(struct bns_world *w, void *arg); /* NULL: all is well */

uint64_t bns_world_now(const struct bns_world *w); /* virtual ns since the beginning */
void bns_world_at(struct bns_world *w, uint64_t ns, bns_world_fn *fn,
                  void *arg);             /* harness event */
bool bns_world_step(struct bns_world *w); /* one event; false: there is none */
/* Runs until virtual time `until_ns` or the first complaint of check (may be NULL), which is called
 * after every event; returns the complaint. */
const char *bns_world_run(struct bns_world *w, uint64_t until_ns, bns_world_check *check,
                          void *arg);

void bns_world_nemesis(struct bns_world *w, bool on);
/* Ends all faults: the nemesis stops, the network is whole and quick, disks do as told, paused and
 * dead nodes run again, clocks tick alike. Damage done stays. */
void bns_world_heal(struct bns_world *w);

/* ---- trace ----------------------------------------------------------------------------------- */

uint64_t bns_world_trace_hash(const struct bns_world *w); /* of all events so far */
uint64_t bns_world_events(const struct bns_world *w);
/* Each event as a line of text, without newline; NULL turns it off. BNS_TRACE=1 in the environment
 * of a test is for the test to look at. */
void bns_world_trace(struct bns_world *w, void (*line)(void *arg, const char *text), void *arg);
/* What happens from now on goes into t as well (sim/trace.h), which learns the nodes: to be called
 * first. t is borrowed for the life of w. Neither kind of trace changes the hash. */
void bns_world_record(struct bns_world *w, struct bns_trace *t);
/* The harness adds what it knows: roles, operations of clients. Time is the world's; no-op when
 * nothing is recorded. */
void bns_world_record_event(struct bns_world *w, enum bns_trace_kind kind, unsigned node,
                            uint64_t id, const char *text);
void bns_world_note(struct bns_world *w, const char *fmt, ...)
    BNS_PRINTF(2, 3); /* into the trace */

struct bns_prng *bns_world_prng(struct bns_world *w); /* for workloads; a stream of its own */

#endif
