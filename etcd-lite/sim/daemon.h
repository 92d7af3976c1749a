/* daemon.h - whole etcd-lite daemons and their gRPC clients in one virtual world.
 *
 * A server is the object that main.c starts (server.h): listeners, gRPC and HTTP, peers' RPC, Raft,
 * WAL, SQLite on the memory disk. A client node runs our gRPC client: its lanes each have one
 * operation under way, against a member of their choice, with a deadline; what they ask and are
 * told is a history (sim/history.h). While faults strike, the invariants are looked at after every
 * event; then the faults stop, progress is demanded within a bounded time, all members must hold
 * the same, and the history is checked.
 *
 * Thread: one. Memory: libc's through the world; all back at the end.
 */
#ifndef ETCD_SIM_DAEMON_H
#define ETCD_SIM_DAEMON_H

#include "sim/world.h"

#define ETCD_SIM_SERVERS_MAX 5u
#define ETCD_SIM_SPARES_MAX 3u
#define ETCD_SIM_HOSTS_MAX (ETCD_SIM_SERVERS_MAX + ETCD_SIM_SPARES_MAX)
#define ETCD_SIM_CLIENTS_MAX 4u /* client nodes */
#define ETCD_SIM_LANES_MAX 6u   /* of a client node */
#define ETCD_SIM_KEYS_MAX 8u
#define ETCD_SIM_WORKERS_MAX 3u /* of a client node */

/* What the workers do, beside the single keys of the lanes (work.h). */
enum etcd_sim_work {
    ETCD_SIM_WORK_APPEND,
    ETCD_SIM_WORK_BANK,
    ETCD_SIM_WORK_SET,
    ETCD_SIM_WORK_LOCK
};
#define ETCD_SIM_WORKS 4u

/* Answers and events that were judged: what had to come was known, and it came. What is unknown at
 * the time (a change under way, a call without an answer) is not counted. */
enum etcd_sim_judged {
    ETCD_SIM_DENIED,     /* operations that u may not do, denied */
    ETCD_SIM_ALLOWED,    /* ... that u may do, done */
    ETCD_SIM_OFF,        /* ... done while auth was off */
    ETCD_SIM_CONFS,      /* changes of members, applied at one: its list is Raft's configuration */
    ETCD_SIM_JOINS,      /* daemons that joined, as who they were started */
    ETCD_SIM_REMOVALS,   /* daemons that ended as removed ones, and were */
    ETCD_SIM_PROMOTIONS, /* of ETCD_SIM_CONFS those that made a voter of a learner */
    ETCD_SIM_EXPIRIES,   /* keys that went with a lease that ran out, and not too soon */
    ETCD_SIM_LOCKS       /* locks taken, in histories that were checked */
};
#define ETCD_SIM_JUDGED 9u
const char *etcd_sim_judged_name(enum etcd_sim_judged kind);

struct etcd_sim_config {
    struct bns_world_config world; /* nodes: the servers, spare hosts, then the clients */
    unsigned servers, clients, lanes, keys, workers; /* workers of a client node; 0: none */
    enum etcd_sim_work work;
    unsigned members;  /* 1: an operator changes who belongs to the cluster */
    unsigned spares;   /* hosts for members to come */
    unsigned auth;     /* 1: an operator changes who may what */
    uint64_t run_ns;   /* with faults */
    uint64_t heal_ns;  /* then, without */
    uint64_t think_ns; /* between two operations of a lane, at most */
    uint64_t snapshot_count, trailing_entries, reserve_bytes;
    uint32_t turn_keys; /* of the stores: an entry that changes more takes several turns; 0: many */
    uint32_t segment_bytes;  /* of the log */
    double stop;             /* chance, every 100 ms, that a server is stopped in good order */
    struct bns_trace *trace; /* may be NULL; borrowed */
    void (*line)(void *arg, const char *text); /* each event; may be NULL */
    void *line_arg;
    struct bns_buf *history;      /* gets the lanes' history as JSON lines; may be NULL */
    struct bns_buf *work_history; /* and that of the workers */
};

struct etcd_sim_result {
    uint64_t trace_hash, events, virtual_ns;
    uint64_t ops_ok, ops_failed, ops_open; /* open: nobody knows whether they happened */
    uint64_t scrapes;                      /* HTTP answers */
    uint64_t events_watched, renewals;     /* of leases */
    uint64_t work_ok, work_open;           /* operations of workers */
    uint64_t starts, stops, deaths, terms, applied, snapshots;
    uint64_t stops_leading, hand_overs; /* leaders told to stop; that knew their successor */
    uint64_t slowest_ns;                /* operation that was answered */
    uint64_t changes;                   /* of members, answered */
    uint64_t auth_changes, tokens, denied, user_ok;
    uint64_t joins, leaves, moves; /* daemons that joined, and that ended; leaders moved */
    uint64_t judged[ETCD_SIM_JUDGED];
    bool unchecked;    /* the search for a linear order was given up */
    uint64_t searched; /* operations that revisions did not decide */
    char text[1024];   /* why it failed */
};

/* 3 or 5 servers, 60 virtual seconds; fault rates drawn from the seed. */
struct etcd_sim_config etcd_sim_swarm(uint64_t seed);
/* The kind of history that its workers make; "none". */
const char *sim_work_name(const struct etcd_sim_config *cfg);
/* True: nothing is wrong. */
bool etcd_sim_run(uint64_t seed, const struct etcd_sim_config *cfg, struct etcd_sim_result *out);

#endif
