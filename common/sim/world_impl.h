/* world_impl.h - what the parts of the simulator share. For world.c, node.c, net.c, nemesis.c. */
#ifndef BNS_SIM_WORLD_IMPL_H
#define BNS_SIM_WORLD_IMPL_H

#include "sim/world.h"

struct sim_node;

struct sim_event {
    struct bns_heap_node heap;
    struct bns_list link;  /* the node's events, or its stalled ones */
    struct sim_node *node; /* NULL: the world's own */
    const char *name;      /* for the trace */
    void (*fn)(struct sim_event *e);
    void *ctx;
    uint64_t n; /* what fn needs besides ctx */
};

struct sim_clock { /* local = base_local + (global - base_global) * (1 + ppm / 10^6) */
    uint64_t base_global;
    uint64_t base_local;
    int64_t wall_offset_ns; /* wall = start of the world + local based time + this */
    int64_t ppm;
};

struct sim_node {
    struct bns_env env; /* first */
    struct bns_world *w;
    unsigned id;
    enum bns_node_state state;
    bool dying;      /* its current callback unwinds; nothing more is delivered */
    bool want_power; /* dying of a power cut */
    int exit_code;
    char exit_text[128];
    char host[16];
    struct bns_node_main main;
    struct bns_test_heap *heap;
    struct bns_vfs *vfs;
    struct bns_prng entropy;
    struct sim_clock clock;
    struct bns_heap timers; /* keys are local ns */
    struct sim_event *wake;
    struct bns_list tasks;
    struct sim_event *turn;
    struct bns_list events;
    struct bns_list stalled;
    struct bns_list workers;
    struct bns_list streams;
    struct bns_list listeners;
    uint64_t paused_until;
    uint16_t port_next;
    bool cut_soon;
};

struct bns_world {
    const struct bns_alloc *alloc;
    struct bns_world_config cfg; /* in force now */
    uint64_t now;
    struct bns_heap heap;
    struct sim_node nodes[BNS_WORLD_NODES_MAX];
    struct sim_node *current;
    struct bns_list links;
    size_t links_count;
    char names[BNS_WORLD_NAMES_MAX][BNS_HOST_MAX];
    unsigned named[BNS_WORLD_NAMES_MAX]; /* node ids */
    bool blocked[BNS_WORLD_NODES_MAX][BNS_WORLD_NODES_MAX];
    uint64_t clogged[BNS_WORLD_NODES_MAX][BNS_WORLD_NODES_MAX]; /* until */
    struct bns_prng prng_net, prng_disk, prng_sched, prng_nemesis, prng_work;
    struct sim_event *tick;
    bool partitioned;
    uint64_t hash;
    uint64_t events;
    void (*trace)(void *arg, const char *text);
    void *trace_arg;
    struct bns_trace *record; /* may be NULL */
    uint64_t message_last;    /* number of a segment, for the record */
};

/* ---- world.c --------------------------------------------------------------------------------- */
struct sim_event *sim_at(struct bns_world *w, struct sim_node *n, uint64_t at, const char *name,
                         void (*fn)(struct sim_event *e), void *ctx);
void sim_cancel(struct bns_world *w, struct sim_event *e); /* NULL is fine */
void sim_mix(struct bns_world *w, uint64_t v);             /* into the trace hash */
uint64_t sim_exp(struct bns_prng *p, uint64_t mean);
/* Into the record, when there is one. */
void sim_record(struct bns_world *w, enum bns_trace_kind kind, unsigned node,
                const struct bns_trace_event *more);
/* A line for who looks on: not mixed into the hash. */
void sim_say(struct bns_world *w, const char *fmt, ...) BNS_PRINTF(2, 3);
void sim_reap(struct sim_node *n); /* buries the node if it is dying */

/* ---- node.c ---------------------------------------------------------------------------------- */
void sim_node_init(struct bns_world *w, unsigned id, uint64_t seed);
void sim_node_free(struct sim_node *n);
void sim_node_wake(struct sim_node *n); /* arranges the next timer */
void sim_node_drop_work(struct sim_node *n);
void sim_node_disk(struct sim_node *n); /* fault rates of its disk, as the config has them now */
uint64_t sim_local_ns(const struct sim_node *n);
void sim_clock_set(struct sim_node *n, uint64_t local_ns, int64_t ppm);
void sim_node_start(struct sim_node *n);
void sim_node_die(struct sim_node *n, bool power, int code, const char *text);

/* ---- net.c ----------------------------------------------------------------------------------- */
extern const struct bns_stream_ops sim_stream_ops;
int sim_listen(struct bns_env *e, const char *host, uint16_t port, bns_accept_fn *fn, void *arg,
               struct bns_listener **out, struct bns_err *err);
uint16_t sim_listener_port(const struct bns_listener *l);
void sim_listener_close(struct bns_listener *l);
int sim_connect(struct bns_env *e, const char *host, uint16_t port,
                const struct bns_stream_events *ev, void *arg, struct bns_stream **out,
                struct bns_err *err);
void sim_net_node_died(struct sim_node *n, bool power);
void sim_net_free(struct bns_world *w);

/* ---- nemesis.c ------------------------------------------------------------------------------- */
void sim_nemesis_start(struct bns_world *w);

static inline struct sim_node *sim_node_of(struct bns_env *e)
{
    return (struct sim_node *)(void *)e;
}

static inline bool sim_live(const struct sim_node *n) /* may its code be called? */
{
    return n->state == BNS_NODE_UP && !n->dying;
}

#endif
