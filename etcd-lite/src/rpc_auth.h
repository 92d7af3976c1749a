/* rpc_auth.h - the service Auth, and what stands in front of all services.
 *
 * Thread: the loop.
 */
#ifndef ETCD_RPC_AUTH_H
#define ETCD_RPC_AUTH_H

#include "auth.h"
#include "auth_hash.h"
#include "io/grpc.h"

struct etcd_server;
struct etcd_task;

struct etcd_auth_service {
    struct etcd_hasher hasher;
    struct bns_grpc_method methods[17];
};

/* What a method needs before its handler hears of a call. */
enum etcd_need {
    ETCD_NEED_NOTHING,
    ETCD_NEED_SOMEONE, /* a user, whoever it is */
    ETCD_NEED_ADMIN    /* a user with the role root */
};
/* By the method's path. One that the table does not know needs an administrator. */
enum etcd_need etcd_auth_need(struct bns_slice path);

BNS_MUST_CHECK int etcd_auth_service(struct etcd_server *s);
/* For bns_grpc_config.admit; arg: the server. */
enum bns_grpc_admission etcd_auth_admit(void *arg, struct bns_grpc_call *c, struct bns_slice path,
                                        uint64_t first_asked_ns, struct bns_grpc_refusal *why);
struct etcd_cn {
    char name[256];
};
/* Who calls: by the token in its metadata, else by its certificate. The name is borrowed, for this
 * turn, from cn or the token. */
void etcd_auth_peek(struct etcd_server *s, struct bns_grpc_call *c, struct etcd_cn *cn,
                    struct etcd_who *out);
/* The same; the name is copied into the call's arena. */
void etcd_auth_who(struct etcd_server *s, struct bns_grpc_call *c, struct etcd_who *out);
/* For a handler whose need depends on the message: is it an administrator? False: the call has been
 * finished. */
BNS_MUST_CHECK bool etcd_auth_only_admin(struct etcd_server *s, struct bns_grpc_call *c);
/* For Lock and Election: may it read all keys that begin with prefix, which ends with '/'? False:
 * the call has been finished, with the code that these services have for all errors. */
BNS_MUST_CHECK bool etcd_auth_prefix(struct etcd_server *s, struct bns_grpc_call *c,
                                     struct bns_slice prefix);
/* The same, for a second look at what was read; *why: if not. */
bool etcd_auth_may_prefix(struct etcd_server *s, struct bns_grpc_call *c, struct bns_slice prefix,
                          struct etcd_status *why);
/* The auth store has changed since the task found out who asks: its answer may be wrong. */
bool etcd_auth_stale(const struct etcd_task *t);

#endif
