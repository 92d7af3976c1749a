/* auth_int.h - what the files of auth share. */
#ifndef ETCD_AUTH_INT_H
#define ETCD_AUTH_INT_H

#include "auth.h"
#include "auth_range.h"
#include "kv_impl.h"

/* A stored User, or Role: slices into its bytes. */
struct etcd_user_view {
    struct bns_slice password;
    struct bns_slice options; /* ptr NULL: none */
    bool no_password;
    bool root; /* has the role root */
    size_t roles_count;
};
struct etcd_perm_view {
    uint64_t type; /* 0 READ, 1 WRITE, 2 READWRITE */
    struct bns_slice key, range_end;
    struct bns_slice raw; /* the Permission's bytes */
};

/* A user's intervals, made when they are first asked for. */
struct etcd_perms {
    struct bns_hnode node;
    struct bns_slice name;
    struct etcd_spans read, write;
    struct bns_arena arena;
};

struct etcd_token {
    struct bns_hnode node;
    struct bns_list list; /* tokens.list */
    uint64_t expires_ns;
    struct bns_slice text;
    char user[]; /* a string; then the text */
};

struct etcd_tokens {
    struct bns_hmap map;
    struct bns_list list; /* by expires_ns: all live equally long */
    struct bns_timer timer;
    uint64_t ttl_ns, replayed;
};

struct etcd_auth {
    struct etcd_kv *kv;
    bool enabled;
    uint64_t revision;
    size_t bytes; /* of the values of users and roles */
    struct bns_hmap perms;
    size_t perms_bytes;
    uint64_t lease_steps; /* how much was done to check the keys of leases, ever */
    struct etcd_tokens tokens;
};

#define ETCD_ROOT BNS_LIT("root")

/* auth_look.c. False: these bytes are none. */
bool etcd_user_parse(struct bns_slice in, struct etcd_user_view *out);
bool etcd_perm_parse(struct bns_slice in, struct etcd_perm_view *out);
bool etcd_user_has(struct bns_slice user, struct bns_slice role);
/* False: there is no such user. */
bool etcd_user_find(const struct etcd_kv *kv, struct bns_slice name, struct bns_slice *bytes,
                    struct etcd_user_view *out);
/* The next role of a User, the next permission of a Role: *rest is what follows. */
bool etcd_user_next_role(struct bns_slice *rest, struct bns_slice *role);
bool etcd_role_next_perm(struct bns_slice *rest, struct etcd_perm_view *out);

/* auth_check.c */
void etcd_perms_clear(struct etcd_auth *a);

/* auth_token.c */
void etcd_tokens_init(struct etcd_kv *kv);
void etcd_tokens_clear(struct etcd_kv *kv);
void etcd_tokens_forget(struct etcd_kv *kv, struct bns_slice user);
BNS_MUST_CHECK int etcd_tokens_give(struct etcd_kv *kv, uint64_t index, const char *user,
                                    const char *letters);

#endif
