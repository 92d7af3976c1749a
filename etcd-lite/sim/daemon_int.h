/* daemon_int.h - what the parts of the daemon simulation share. For etcd-lite/sim alone. */
#ifndef ETCD_SIM_DAEMON_INT_H
#define ETCD_SIM_DAEMON_INT_H

#include "daemon.h"
#include "io/http.h"
#include "join.h"
#include "server.h"
#include "sim/check.h"
#include "sim/history.h"
#include "work_state.h"

#define SIM_APPLIED_MAX 262144u
#define SIM_TERMS_MAX 8192u
#define SIM_REVS_MAX 131072
#define SIM_VALUES_MAX 131072u
#define SIM_GONE UINT64_MAX /* seen.value of a key that was deleted at that revision */
#define SIM_CLIENT_PORT 2379
#define SIM_PEER_PORT 2380
#define SIM_IDS_MAX 256u  /* members that ever were */
#define SIM_LAPSES_MAX 4u /* of a lease holder, remembered */

struct etcd_sim;

enum sim_phase {
    SIM_FAULTS,
    SIM_HEALED, /* clients go on */
    SIM_STRICT, /* and what begins now must succeed */
    SIM_FINAL,  /* lanes come to rest; then every key is read at every member, and the hashes */
    SIM_DONE
};

#define SIM_ARGS_MAX 24

struct sim_args { /* a command line */
    char text[SIM_ARGS_MAX][512];
    char *argv[SIM_ARGS_MAX + 1];
    int argc;
};

struct sim_server {
    struct etcd_sim *m;
    unsigned id;
    struct etcd_server *s; /* NULL: not running */
    struct etcd_options opt;
    struct bns_log log;
    struct bns_metrics *metrics;
    bool up, stopping;
    uint64_t life; /* which start this is */
    uint64_t stop_ns;
    bool stop_led;                  /* it led when it was told to stop */
    uint64_t applied, term, leader; /* as last looked at */
    /* which member it is: membership.c */
    uint64_t member; /* 0: nobody runs here */
    bool votes;      /* and is asked by clients */
    bool served;     /* it has come to know who it is */
    bool leaves;     /* it knows that it belongs no more */
    unsigned memberships;
    bool joins;              /* its flags: a cluster that exists, */
    char cluster[480];       /* of these */
    char urls[ETCD_URL_MAX]; /* where it says that peers find it */
    struct etcd_join *join;
    struct bns_raft_conf applied_conf, leads_conf; /* as last looked at */
};

enum sim_change {
    SIM_CHANGE_LIST,
    SIM_CHANGE_ADD,
    SIM_CHANGE_ADD_LEARNER,
    SIM_CHANGE_PROMOTE,
    SIM_CHANGE_REMOVE,
    SIM_CHANGE_UPDATE,
    SIM_CHANGE_MOVE
};

struct sim_operator { /* membership.c */
    struct etcd_sim *m;
    struct sim_client *owner;
    struct bns_timer timer;
    enum sim_change asked;
    bool busy, fresh; /* the list is as of after the last change */
    bool weak;        /* the next list is what one member holds: nobody may be able to say more */
    bool settled;     /* faults are over, and everybody votes who belongs */
    unsigned server, host;
    uint64_t id; /* who is changed */
    struct etcd_roster list, got;
};

enum sim_fact { SIM_NO, SIM_YES, SIM_UNKNOWN };
enum sim_may { SIM_MAY_UNKNOWN, SIM_MAY, SIM_MAY_NOT, SIM_MAY_OFF }; /* OFF: nobody looks */

struct sim_authority { /* authority.c */
    struct etcd_sim *m;
    struct sim_client *owner;
    struct bns_timer timer;
    int setup; /* how far users and roles are made */
    bool settled;
    unsigned server;
    enum sim_fact on, all, key[ETCD_SIM_KEYS_MAX];
    enum sim_fact *fact, was, to; /* of the change under way */
    uint64_t epoch;               /* counts the changes that were asked for */
    uint64_t unsure_until_ns;
};

struct sim_creds { /* credentials.c */
    struct sim_client *owner;
    struct bns_timer timer;
    struct bns_grpc_md md;
    bool user, busy, stale;
    unsigned server;
    uint64_t asked_ns, got_ns; /* of the world */
    size_t token_len;
    char token[64];
};

enum sim_f {
    SIM_GET,
    SIM_PUT,
    SIM_CAS,     /* by value */
    SIM_CAS_REV, /* by revision */
    SIM_DELETE,
    SIM_OLD, /* at a past revision */
    SIM_RANGE,
    SIM_COMPACT,
    SIM_SERIALIZABLE,
    SIM_HASH,
    SIM_LEASED, /* all keys that are on leases */
    SIM_SCRAPE
};

struct sim_lane {
    struct etcd_sim *m;
    struct sim_client *owner;
    unsigned number; /* of all lanes */
    int64_t process; /* in the history */
    struct bns_timer timer;
    struct bns_http_fetch *fetch;
    /* the operation under way */
    bool busy, strict, recorded;
    bool session; /* SIM_GET: asked of the member alone, with all that is known as its token */
    bool as_user; /* not root */
    enum sim_may may;
    uint64_t may_epoch;
    uint64_t op, begun_ns;
    enum sim_f f;
    unsigned server, key;
    uint64_t value, expect; /* ids; 0 = not there */
    int64_t rev, floor;     /* asked for; the highest that was known before */
    /* its answer */
    unsigned messages;
    int64_t got_rev, got_mod;
    uint64_t got_value;
    uint32_t got_hash;
    bool got_yes;   /* succeeded, deleted */
    bool was_known; /* what was there before, or why there was no change */
    uint64_t was_value;
    int64_t was_rev;
    /* the final reads */
    unsigned step, step_key;
};

struct sim_watcher { /* watchers.c */
    struct etcd_sim *m;
    struct sim_client *owner;
    struct bns_timer timer;
    struct bns_grpc_ccall *call; /* NULL: none is open */
    unsigned server;
    int64_t last;       /* all events up to this revision have come */
    int64_t in_message; /* the last revision of the message under way; 0 = none */
    uint64_t heard_ns;
};

enum sim_hold { SIM_HOLD_GRANT, SIM_HOLD_PUT, SIM_HOLD_KEEP, SIM_HOLD_REVOKE };

struct sim_holder { /* of a lease: leases.c */
    struct etcd_sim *m;
    struct sim_client *owner;
    struct bns_timer timer;
    enum sim_hold step, asked; /* next; of the call under way */
    bool busy;
    unsigned server, renewals;
    char key[24];
    int64_t id, got_id, got_ttl;
    uint64_t sent_ns, alive_until_ns; /* of the world */
    struct sim_lapse {                /* keys of leases that nobody renews any more */
        char key[24];                 /* "": none, or a watch has seen it go */
        uint64_t until_ns;            /* its lease lives at least so long */
    } lapses[SIM_LAPSES_MAX];
    unsigned lapses_next;
};

struct sim_client {
    struct etcd_sim *m;
    unsigned id; /* of the node */
    struct bns_env *env;
    struct sim_watcher watcher;
    struct sim_holder holder;
    struct sim_creds creds[2]; /* of root, of u */
    struct bns_grpc_client *grpc[ETCD_SIM_HOSTS_MAX];
    bool found_dead[ETCD_SIM_HOSTS_MAX]; /* a connection, long after the faults stopped */
    struct sim_lane lanes[ETCD_SIM_LANES_MAX];
    struct sim_worker workers[ETCD_SIM_WORKERS_MAX];
};

struct etcd_sim {
    struct bns_world *w;
    const struct etcd_sim_config *cfg;
    struct etcd_sim_result *out;
    struct bns_arena arena;
    unsigned hosts; /* servers and spares */
    struct sim_args args[ETCD_SIM_HOSTS_MAX];
    struct sim_server servers[ETCD_SIM_HOSTS_MAX];
    struct sim_operator operator;
    struct sim_authority authority;
    uint64_t led_ns;   /* when somebody began to lead, at last */
    uint64_t quiet_ns; /* since then who belongs and who may what is settled; 0: it is not */
    struct sim_id {    /* of a member, now or formerly */
        uint64_t id;
        unsigned host;
        bool started, removed;
        uint64_t knows_term; /* in which it has applied that itself */
    } ids[SIM_IDS_MAX];
    unsigned ids_count;
    unsigned final[ETCD_SIM_HOSTS_MAX], final_count; /* who is read in the end */
    struct sim_client clients[ETCD_SIM_CLIENTS_MAX];
    struct bns_history *history, *work_history;
    enum sim_phase phase;
    bool failed;
    uint64_t ops, values, lease_keys;
    uint64_t elements; /* of lists and sets, and leases, that workers made up */
    bool bank_open;
    int64_t process_next;
    uint64_t busy;                            /* lanes and workers with an operation under way */
    uint64_t last[ETCD_SIM_KEYS_MAX];         /* a value that each key had lately */
    int64_t last_rev[ETCD_SIM_KEYS_MAX];      /* and its revision */
    unsigned deletes_open[ETCD_SIM_KEYS_MAX]; /* under way, or nobody knows */
    int64_t rev_known;                        /* the highest that any answer has told */
    int64_t compact_asked;
    uint32_t hashes[ETCD_SIM_HOSTS_MAX];
    int64_t hash_revs[ETCD_SIM_HOSTS_MAX];
    uint64_t *digests;                   /* by applied index; 0 = nobody was there yet */
    uint64_t *leader_of;                 /* by term */
    uint64_t (*seen)[ETCD_SIM_KEYS_MAX]; /* by revision: what the key became there; 0 = not known */
    size_t (
        *seen_at)[ETCD_SIM_KEYS_MAX]; /* and the event of the history before which it was told */
    struct bns_prng prng;             /* of the harness: stops */
};

/* daemon.c: the first complaint counts */
void sim_complain(struct etcd_sim *m, const char *fmt, ...) BNS_PRINTF(2, 3);

/* servers.c */
void sim_servers_start(struct etcd_sim *m);
void sim_servers_look(struct etcd_sim *m); /* the invariants, after every event */
void sim_servers_stop_turn(struct bns_world *w, void *arg);
void sim_servers_note(struct etcd_sim *m); /* where each stands, into the trace */
/* A process of a member that joins, on a host where none runs; `cluster`: its --initial-cluster.
 * Its data directory is new. */
void sim_server_join(struct sim_server *v, const struct etcd_roster *list, uint64_t id);
bool sim_server_flags_are(struct sim_server *v, const struct etcd_roster *list);
void sim_server_retire(struct sim_server *v); /* ends it for good, at once */

/* membership.c */
void sim_operator_start(struct sim_client *o);
/* Whom a client asks. */
unsigned sim_pick(struct etcd_sim *m, struct bns_prng *p);
struct sim_id *sim_id_find(struct etcd_sim *m, uint64_t id);
void sim_id_add(struct etcd_sim *m, uint64_t id, unsigned host);

/* authority.c */
void sim_authority_start(struct sim_client *o);
enum sim_may sim_auth_may(const struct etcd_sim *m, const struct sim_lane *l);
void sim_auth_ended(struct sim_lane *l, int status, const char *text);
bool sim_auth_refused(int status, const char *text); /* and nothing has happened */

/* credentials.c */
void sim_creds_start(struct sim_client *o);
/* One field for a call of root, or of u, borrowed from o; 0: none is needed. */
size_t sim_creds_md(const struct sim_client *o, bool user, struct bns_grpc_md *out);
/* The same, for a call that has no other. */
void sim_creds_use(struct sim_client *o, bool user, struct bns_grpc_call_options *opt);
void sim_creds_stale(struct sim_client *o, bool user);
bool sim_creds_fresh(const struct etcd_sim *m);

/* membership_look.c: what must hold of who belongs */
void sim_members_applied(struct etcd_sim *m, struct sim_server *v); /* has applied more */
void sim_members_leads(struct etcd_sim *m, struct sim_server *v);   /* it leads, in v->term */
void sim_members_event(struct etcd_sim *m, struct sim_server *v);   /* anything may have happened */

/* clients.c */
void sim_clients_start(struct etcd_sim *m);
void sim_clients_end(struct etcd_sim *m); /* the world is about to go */
void sim_lane_finish(struct sim_lane *l, int status, const char *text);

/* ops.c */
void sim_op_choose(struct sim_lane *l, struct bns_prng *p);
/* The request's bytes in the arena, and the method's path. */
struct bns_slice sim_op_encode(const struct sim_lane *l, struct bns_arena *arena,
                               const char **path);
void sim_op_decode(struct sim_lane *l, struct bns_slice msg);
void sim_op_invoked(struct sim_lane *l);                             /* into the history */
void sim_op_ended(struct sim_lane *l, int status, const char *text); /* likewise; and checks */
/* The answer promises that the change did not and will not happen. */
bool sim_op_definite(int status, const char *text);

/* An event of a watch says what a key became. */
void sim_observe_kv(struct etcd_sim *m, const Etcdserverpb__KeyValue *kv, bool gone);

/* watchers.c */
void sim_watcher_start(struct sim_client *o);
bool sim_watchers_at(const struct etcd_sim *m, int64_t rev); /* all have come that far */

/* leases.c */
void sim_holder_start(struct sim_client *o);
void sim_lease_key_gone(struct etcd_sim *m, struct bns_slice key); /* a watch saw it */

/* work.c */
void sim_worker_start(struct sim_client *o, unsigned number);
void sim_work_check(struct etcd_sim *m); /* its history */

/* verdict.c */
void sim_check_history(struct etcd_sim *m);

#endif
