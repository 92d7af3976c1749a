/* auth.h - users, roles and permissions, as a part of the replicated store.
 *
 * Files in reading order: auth.c (the state: what each entry of the log does to it), auth_range.c
 * (permissions as merged intervals), auth_check.c (what a request needs), auth_token.c (tokens),
 * auth_hash.c (passwords, on a worker), rpc_auth.c (the service, and what each method needs).
 *
 * Thread: the loop.
 * Bounds: users and roles take at most ETCD_AUTH_BYTES_MAX in all and ETCD_AUTH_ROW_MAX each; what
 *         would exceed that is refused, by every member alike. ETCD_TOKENS_MAX tokens.
 */
#ifndef ETCD_AUTH_H
#define ETCD_AUTH_H

#include "kv.h"

#define ETCD_AUTH_BYTES_MAX ((size_t)16 << 20)
#define ETCD_AUTH_ROW_MAX ((size_t)1 << 20)
#define ETCD_TOKENS_MAX 65536u
#define ETCD_TOKEN_LETTERS 16u
#define ETCD_TOKEN_MAX (ETCD_TOKEN_LETTERS + 1 + 20) /* letters "." index */

/* A planted bug (BNS_MUTANT): what a write needs was checked when it was proposed; at its apply it
 * is not looked at again. */
#define ETCD_MUTANT_AUTH_EARLY 70
/* ... a member that has known no token since it started looks at nobody's permissions: what it
 * knows by itself decides what all must decide alike (etcd 14571). */
#define ETCD_MUTANT_AUTH_LOCAL 130
/* ... what a user might do when it was first asked for stands, whatever is revoked. */
#define ETCD_MUTANT_PERMS_KEPT 131

extern const struct etcd_status etcd_auth_no_name, etcd_auth_failed, etcd_auth_denied;
extern const struct etcd_status etcd_auth_off, etcd_auth_old, etcd_auth_bad_token;
extern const struct etcd_status etcd_auth_no_user, etcd_auth_no_role, etcd_auth_no_password_user;

/* Who asks. Nobody: all zero. why.code not 0: a token came that is nobody's; the request fails. */
struct etcd_who {
    struct bns_slice name;
    uint64_t revision; /* of the auth store, when the name was found; 0 = nobody */
    struct etcd_status why;
};

struct etcd_auth;

/* ---- for the store (kv.c, apply.c, kv_snap.c) ------------------------------------------------ */
BNS_MUST_CHECK int etcd_auth_new(struct etcd_kv *kv);
void etcd_auth_free(struct etcd_kv *kv);
void etcd_auth_stop(struct etcd_kv *kv); /* no timer any more */
/* The buckets hold another state: after an open, and an install. BNS_E_CORRUPT. */
BNS_MUST_CHECK int etcd_auth_load(struct etcd_kv *kv, struct bns_err *err);
/* True: an operation of auth itself. */
bool etcd_auth_is_op(const Etcdserverpb__InternalRaftRequest *r);
/* May the request of the log be applied? GO, REFUSED (*why: the same on every member), NOMEM. */
int etcd_auth_admits(struct etcd_kv *kv, const Etcdserverpb__InternalRaftRequest *r,
                     struct etcd_status *why);
/* Applies one (etcd_auth_is_op). *why = refused. BNS_E_NOMEM. */
BNS_MUST_CHECK int etcd_auth_apply(struct etcd_kv *kv, uint64_t index,
                                   const Etcdserverpb__InternalRaftRequest *r,
                                   struct etcd_status *why);

/* ---- questions ------------------------------------------------------------------------------- */
bool etcd_auth_enabled(const struct etcd_kv *kv);
uint64_t etcd_auth_revision(const struct etcd_kv *kv);
/* A snapshot is being installed: nobody's permissions are known just now. */
bool etcd_auth_loading(const struct etcd_kv *kv);

/* Each: true, or false with *why (which may be "out of memory"). All true while auth is off. */
BNS_MUST_CHECK bool etcd_auth_admin(struct etcd_kv *kv, const struct etcd_who *w,
                                    struct etcd_status *why);
BNS_MUST_CHECK bool etcd_auth_someone(struct etcd_kv *kv, const struct etcd_who *w,
                                      struct etcd_status *why);
BNS_MUST_CHECK bool etcd_auth_range(struct etcd_kv *kv, const struct etcd_who *w,
                                    struct bns_slice key, struct bns_slice range_end,
                                    struct etcd_status *why);
BNS_MUST_CHECK bool etcd_auth_txn(struct etcd_kv *kv, const struct etcd_who *w,
                                  const Etcdserverpb__TxnRequest *t, struct etcd_status *why);
/* READ (or WRITE) on all keys of a lease; one that is not there needs nothing. */
BNS_MUST_CHECK bool etcd_auth_lease(struct etcd_kv *kv, const struct etcd_who *w, int64_t lease,
                                    bool write, struct etcd_status *why);
/* READ on the keys (field 5) of a LeaseTimeToLiveResponse, as another member told them. */
BNS_MUST_CHECK bool etcd_auth_told_keys(struct etcd_kv *kv, const struct etcd_who *w,
                                        struct bns_slice response, struct etcd_status *why);
/* READ on all keys of all leases. */
BNS_MUST_CHECK bool etcd_auth_leases(struct etcd_kv *kv, const struct etcd_who *w,
                                     struct etcd_status *why);
/* Has the user this role? */
bool etcd_auth_has_role(const struct etcd_kv *kv, struct bns_slice user, struct bns_slice role);

/* The stored hash of a user's password. BNS_OK, or *why: no such user, one without a password. */
BNS_MUST_CHECK bool etcd_auth_password(const struct etcd_kv *kv, struct bns_slice user,
                                       struct bns_slice *hash, struct etcd_status *why);
/* Append AuthUserGetResponse, ... without their header. BNS_E_NOTFOUND, NOMEM, TOOBIG. */
BNS_MUST_CHECK int etcd_auth_put_user(const struct etcd_kv *kv, struct bns_slice name,
                                      struct bns_buf *out);
BNS_MUST_CHECK int etcd_auth_put_role(const struct etcd_kv *kv, struct bns_slice name,
                                      struct bns_buf *out);
BNS_MUST_CHECK int etcd_auth_put_names(const struct etcd_kv *kv, bool roles, struct bns_buf *out);

/* ---- tokens (auth_token.c) ------------------------------------------------------------------- */
/* ttl_ns: 0 = 300 s. Entries up to `replayed` were in the log before this start: the tokens that
 * they gave are void. */
void etcd_tokens_setup(struct etcd_kv *kv, uint64_t ttl_ns, uint64_t replayed);
/* Whose token; its time starts anew. NULL: nobody's. Borrowed for the turn. */
const char *etcd_token_user(struct etcd_kv *kv, struct bns_slice token);
/* The index of the entry that gives this token, 0: it is none. */
uint64_t etcd_token_index(struct bns_slice token);
size_t etcd_tokens(const struct etcd_kv *kv);

/* The request with `who` in its header; as etcd_internal_encode() when that is nobody. */
struct bns_rcbuf *etcd_internal_encode_as(const struct bns_alloc *alloc, uint64_t id,
                                          const struct etcd_who *who, enum etcd_op op,
                                          struct bns_slice request);

#endif
