/* join.h - a new member asks the cluster who it is.
 *
 * Thread: the loop.
 */
#ifndef ETCD_JOIN_H
#define ETCD_JOIN_H

#include "base/env.h"
#include "identity.h"
#include "options.h"

struct etcd_join;

/* Asks the peer URLs of --initial-cluster, one after the other, all of them again for ten seconds.
 * done runs once, in a later turn. BNS_OK: *who is this member, borrowed for the call;
 * BNS_E_INVALID: the cluster does not know these URLs; BNS_E_DROPPED: nobody answered. err says
 * which. */
typedef void etcd_join_done(void *arg, int code, const struct etcd_identity *who,
                            const struct bns_err *err);
BNS_MUST_CHECK int etcd_join(struct bns_env *env, const struct etcd_options *opt,
                             etcd_join_done *done, void *arg, struct etcd_join **out,
                             struct bns_err *err);
void etcd_join_free(struct etcd_join *j); /* done does not run any more; NULL is fine */

/* What a member answered to GET /members. BNS_E_PROTO: not such a list; BNS_E_TOOBIG; NOMEM. */
BNS_MUST_CHECK int etcd_join_parse(const char *text, size_t len, struct etcd_roster *out,
                                   struct bns_err *err);

#endif
