/* register_sm.h - a small replicated state machine for simulations: 16 registers with put and
 * compare-and-set, checkpoints and snapshots in snapshot files.
 *
 * It implements struct bns_sm_ops the way a real daemon does: applies on the loop, checkpoints on a
 * pool thread while applies go on, installs beside the old state and switches over at the end.
 *
 * Thread: the env's loop. Memory: from env->alloc.
 */
#ifndef BNS_SIM_REGISTER_SM_H
#define BNS_SIM_REGISTER_SM_H

#include "app/raft_node.h"

#define BNS_REGISTERS 16u

struct bns_register_sm;

struct bns_register_cmd {
    uint64_t id; /* unique; who waits is found by it */
    uint8_t key;
    bool cas; /* only if the register holds `old` */
    uint64_t old, value;
};

/* Called for each command as it is applied, in order. */
typedef void bns_register_fn(void *arg, uint64_t index, const struct bns_register_cmd *cmd,
                             bool done);

/* Blocking; loads the checkpoint under dir. */
BNS_MUST_CHECK int bns_register_open(struct bns_env *env, const char *dir, bns_register_fn *fn,
                                     void *arg, struct bns_register_sm **out, struct bns_err *err);
void bns_register_close(struct bns_register_sm *sm); /* no call is under way */
const struct bns_sm_ops *bns_register_ops(void);
uint64_t bns_register_value(const struct bns_register_sm *sm, uint8_t key); /* 0 = never put */
/* That was applied last; no voters: none was. */
const struct bns_raft_conf *bns_register_conf(const struct bns_register_sm *sm);
uint64_t bns_register_applied(const struct bns_register_sm *sm);
uint64_t bns_register_digest(const struct bns_register_sm *sm); /* of all commands applied so far */
struct bns_rcbuf *bns_register_encode(const struct bns_alloc *a, const struct bns_register_cmd *c);

#endif
