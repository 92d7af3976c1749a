/* federate.h - the metrics of many nodes, asked for at once and answered as one text.
 *
 *     GET /metrics --> n1  |            up{system="etcd-lite",node="n1"} 1
 *     GET /metrics --> n2  | merged --> up{system="etcd-lite",node="n2"} 0
 *     GET /metrics --> n3  |            raft_term{system="etcd-lite",node="n1"} 3 ...
 *
 * Every node is asked at the same moment and has until one common deadline: a slow or stopped node
 * costs its own numbers and nothing else. Labels `system` and `node` are put in front of each
 * sample; a sample that has labels of these names keeps them as exported_system, exported_node.
 *
 * Thread:  the env's loop.
 * Bounds:  targets, bytes a node, bytes of the whole text; bad lines are dropped and counted.
 */
#ifndef BNS_APP_FEDERATE_H
#define BNS_APP_FEDERATE_H

#include "base/env.h"

#define BNS_FEDERATE_TARGETS_MAX 128
#define BNS_FEDERATE_NAME_MAX 32

struct bns_federate_target {
    char system[BNS_FEDERATE_NAME_MAX]; /* label values; no quotes or backslashes in them */
    char node[BNS_FEDERATE_NAME_MAX];
    uint16_t port;         /* on 127.0.0.1; 0: known to be down, not asked */
    const char *path;      /* NULL = /metrics; borrowed */
    struct bns_slice text; /* given: this is the answer, nobody is asked; borrowed until freed */
};

struct bns_federate_opts {
    const struct bns_federate_target *targets; /* copied */
    size_t targets_count;                      /* at most BNS_FEDERATE_TARGETS_MAX */
    uint64_t deadline_ns;                      /* 0 = 1 s */
    uint64_t body_bytes_max;                   /* of one node; 0 = 2 MiB */
};

/* What came of one target. */
struct bns_federate_answer {
    int code;      /* BNS_OK, or why there is nothing: DROPPED, TIMEOUT, PROTO, TOOBIG, NOMEM */
    int status;    /* of HTTP; 0 without an answer */
    bool up;       /* 200, and a text */
    uint64_t took; /* ns */
    size_t samples, bad_lines;
};

struct bns_federate;

/* Asks all of them. done(arg) is called once, in a later turn, unless freed before. BNS_E_NOMEM,
 * BNS_E_INVALID: too many targets; done will not be called. */
BNS_MUST_CHECK int bns_federate_start(struct bns_env *env, const struct bns_federate_opts *o,
                                      void (*done)(void *arg), void *arg,
                                      struct bns_federate **out);
/* At any time; NULL is fine. */
void bns_federate_free(struct bns_federate *f);

/* After done. */
const struct bns_federate_answer *bns_federate_answer(const struct bns_federate *f, size_t target);
/* The sum of all samples of that name; false when there is none. */
bool bns_federate_value(const struct bns_federate *f, size_t target, const char *name, double *out);
/* Appends the merged text. BNS_E_NOMEM, BNS_E_TOOBIG. */
BNS_MUST_CHECK int bns_federate_text(const struct bns_federate *f, struct bns_buf *out);

#endif
