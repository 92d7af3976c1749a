/* session.h - what Lock and Campaign do, step by step: a pure state machine.
 *
 * A claim is one call that wants to be first under a prefix. The machine says what is to be done
 * next; its driver (session_run.c, or a test) does it and tells the outcome; then the machine says
 * what comes next. One thing is done at a time, but a cancellation may come at any moment.
 *
 * Thread: any. Memory: none but the struct. Errors: none of its own; etcd's texts pass through.
 */
#ifndef ETCD_SESSION_H
#define ETCD_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

/* Planted bugs (BNS_MUTANT). */
#define ETCD_MUTANT_LOCK_UNREAD 60    /* who waited does not read its own key again */
#define ETCD_MUTANT_CAMPAIGN_EARLY 61 /* one older key is gone: it leads, whatever else is there */

#define ETCD_TEXT_LOCK_EXPIRED "mutex: session is expired"
#define ETCD_TEXT_NOT_LEADER "election: not leader"
#define ETCD_SESSION_TTL 60 /* seconds: of the lease that a call without one gets, as in etcd */
#define ETCD_LEAVE_TRIES 3u

enum etcd_claim_do {
    ETCD_CLAIM_GRANT,    /* a lease -> granted */
    ETCD_CLAIM_PUT,      /* txn: the own key, unless it is there; else read it -> put */
    ETCD_CLAIM_PROCLAIM, /* txn: another value under the own key, if it is ours -> proclaimed */
    ETCD_CLAIM_LOOK,     /* at what is applied here: own key, older keys -> looked */
    ETCD_CLAIM_WAIT,     /* until the own key or the newest older one is deleted -> woken */
    ETCD_CLAIM_CONFIRM,  /* linearizable: is the own key there? -> confirmed */
    ETCD_CLAIM_LEAVE,    /* txn: delete the own key, if it still is ours -> left */
    ETCD_CLAIM_DONE      /* code, text, revision are the answer */
};

struct etcd_claim {
    enum etcd_claim_do now; /* what is being done */
    bool election;          /* Campaign; else Lock */
    bool waited, cancelled;
    unsigned leaves; /* tries */
    int64_t rev;     /* the own key's create revision: the fencing token; 0: no key yet */
    int64_t header;  /* revision for the answer's header */
    int code;        /* 0: first */
    const char *text;
    uint32_t mutant; /* planted bug, 0: none */
};

/* Each returns what is to be done next. lease: the call has one. */
enum etcd_claim_do etcd_claim_start(struct etcd_claim *c, bool election, bool lease,
                                    uint32_t mutant);
enum etcd_claim_do etcd_claim_granted(struct etcd_claim *c);
/* At `revision`. create: of the key that was there; 0: ours was put now. same: with this value. */
enum etcd_claim_do etcd_claim_put(struct etcd_claim *c, int64_t revision, int64_t create,
                                  bool same);
enum etcd_claim_do etcd_claim_proclaimed(struct etcd_claim *c, bool ours);
/* ours: the own key is there, with our create revision. older: so is one created before it. */
enum etcd_claim_do etcd_claim_looked(struct etcd_claim *c, bool ours, bool older);
enum etcd_claim_do etcd_claim_woken(struct etcd_claim *c);
enum etcd_claim_do etcd_claim_confirmed(struct etcd_claim *c, int64_t revision, bool ours);
enum etcd_claim_do etcd_claim_left(struct etcd_claim *c);
/* What is being done did not work. Tried again: LEAVE. */
enum etcd_claim_do etcd_claim_failed(struct etcd_claim *c, int code, const char *text);
/* The client has gone, or the server stops. What is under way (not LOOK, WAIT, CONFIRM: these are
 * to be given up) is still to be told. */
enum etcd_claim_do etcd_claim_cancel(struct etcd_claim *c, int code, const char *text);

/* "-" and hexadecimal digits without zeros in front, as Go prints an int64 with %x: the last part
 * of the own key. Returns the length, at most 17. */
size_t etcd_session_hex(int64_t lease, char out[20]);

#endif
