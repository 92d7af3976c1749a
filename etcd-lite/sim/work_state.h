/* work_state.h - what a worker knows of its operation under way, one struct a kind of work
 * (work.h). For etcd-lite/sim alone. */
#ifndef ETCD_SIM_WORK_STATE_H
#define ETCD_SIM_WORK_STATE_H

#include "base/env.h"

#define SIM_APPEND_PARTS_MAX 4

struct etcd_sim;
struct sim_client;

struct sim_append { /* work_append.c */
    struct sim_append_part {
        unsigned list;
        uint64_t element; /* 0: it reads */
        int64_t mod, version;
        char was[1024];
    } parts[SIM_APPEND_PARTS_MAX];
    unsigned parts_count;
    bool by_version, writes;
};

struct sim_bank { /* work_bank.c */
    unsigned account[2];
    int target; /* what is compared */
    int64_t amount, balance[8], mod[2], version[2];
};

struct sim_set { /* work_set.c */
    bool adds, guarded, more;
    unsigned set;
    uint64_t element;
    char name[16], from[24];
    int64_t limit, rev; /* of a page; of the first page */
    size_t text_len;
    char text[4096];
};

struct sim_lock {   /* work_lock.c */
    uint64_t lease; /* number; 0: it has none */
    unsigned lock;  /* that it wants or holds */
    unsigned left;  /* tries, or uses of the resource, until it gives up */
    bool held;
    int64_t token, ttl, got_id, got_ttl;
    int64_t side;  /* its process for what neither takes nor gives up the lock */
    char name[16]; /* key in the history of the operation under way */
};

struct sim_worker {
    struct etcd_sim *m;
    struct sim_client *owner;
    struct bns_timer timer;
    int64_t process; /* in the history */
    bool asking;     /* an operation is under way */
    bool strict;     /* its call must succeed */
    bool loose;      /* the revision of the call's answer may be an old one */
    int step;
    unsigned server;
    uint64_t op;
    int64_t floor; /* the highest revision that was known before the call */
    /* the answer of the call */
    unsigned messages;
    int64_t got_rev;
    bool got_yes;
    union {
        struct sim_append append;
        struct sim_bank bank;
        struct sim_set set;
        struct sim_lock lock;
    };
};

#endif
