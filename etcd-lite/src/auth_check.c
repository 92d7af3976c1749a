/* auth_check.c - may this user do this? As etcd decides it, in its order.
 *
 * A write is checked where it is applied, from the name and the auth revision in its header: every
 * member has the same users and roles there, so all refuse or all apply. A read is checked before
 * it starts, by whoever serves it. If the auth store has changed since the header was made, the
 * answer is "old": the client asks again with what holds now.
 *
 * A transaction needs the permissions of both its branches and of its compares (READ), nested ones
 * too. What gives back an old value needs READ. A put on a lease needs WRITE on all keys that hang
 * on it, because it must not outlive them; so does a revocation. The keys of a lease are in order,
 * so that is a search for each interval of the user, however many keys there are: an apply may ask.
 *
 * Entries that members make by themselves (expired leases, published URLs) have no user and need
 * none. They are told by granted_index and by their kind, which no client can set.
 *
 * A user's merged intervals are made when they are first asked for and kept until users or roles
 * change, or PERMS_BYTES_MAX of them are kept.
 */
#include "auth_int.h"

#include "codec/pb.h"
#include "lease_keys.h"

#define PERMS_BYTES_MAX ((size_t)32 << 20)
#define PERMS_ARENA_MAX ((size_t)1 << 30)

static const struct etcd_who nobody = {.revision = 0};

/* ---- intervals ------------------------------------------------------------------------------ */

static void perms_free(struct etcd_auth *a, struct etcd_perms *p)
{
    bns_arena_free(&p->arena);
    bns_free(a->kv->alloc, p);
}

void etcd_perms_clear(struct etcd_auth *a)
{
    struct bns_hnode *n = NULL;

    while ((n = bns_hmap_next(&a->perms, NULL)) != NULL) {
        bns_hmap_del(&a->perms, n);
        perms_free(a, BNS_CONTAINER(n, struct etcd_perms, node));
    }
    a->perms_bytes = 0;
}

static int add_role(struct etcd_auth *a, struct etcd_perms *p, struct bns_slice role)
{
    struct bns_slice rest = etcd_bucket_get(a->kv, ETCD_BUCKET_ROLES, role);
    struct etcd_perm_view v;
    int rv = BNS_OK;

    while (rv == BNS_OK && etcd_role_next_perm(&rest, &v)) {
        if (v.type != 1)
            rv = etcd_spans_add(&p->read, &p->arena, v.key, v.range_end);
        if (rv == BNS_OK && v.type != 0)
            rv = etcd_spans_add(&p->write, &p->arena, v.key, v.range_end);
    }
    return rv;
}

static struct etcd_perms *make_perms(struct etcd_auth *a, struct bns_slice name,
                                     struct bns_slice user)
{
    struct etcd_perms *p = bns_alloc_zero(a->kv->alloc, sizeof *p);
    struct bns_slice role;
    int rv = BNS_OK;

    if (p == NULL)
        return NULL;
    bns_arena_init(&p->arena, a->kv->alloc, PERMS_ARENA_MAX);
    p->name = bns_slice(bns_arena_dup(&p->arena, name.ptr, name.len), name.len);
    if (p->name.ptr == NULL)
        rv = BNS_E_NOMEM;
    while (rv == BNS_OK && etcd_user_next_role(&user, &role))
        rv = add_role(a, p, role);
    if (rv == BNS_OK)
        rv = bns_hmap_insert(&a->perms, &p->node, bns_hash(a->kv->seed, name.ptr, name.len));
    if (rv != BNS_OK) {
        perms_free(a, p);
        return NULL;
    }
    etcd_spans_merge(&p->read);
    etcd_spans_merge(&p->write);
    a->perms_bytes += p->arena.used + sizeof *p;
    return p;
}

/* NULL: no memory. */
static struct etcd_perms *perms_of(struct etcd_auth *a, struct bns_slice name,
                                   struct bns_slice user)
{
    struct bns_hnode *n = a->perms.count == 0
                              ? NULL
                              : bns_hmap_find(&a->perms, bns_hash(a->kv->seed, name.ptr, name.len));

    for (; n != NULL; n = bns_hmap_find_next(n)) {
        struct etcd_perms *p = BNS_CONTAINER(n, struct etcd_perms, node);

        if (bns_slice_eq(p->name, name))
            return p;
    }
    if (a->perms_bytes > PERMS_BYTES_MAX)
        etcd_perms_clear(a);
    return make_perms(a, name, user);
}

/* ---- one operation -------------------------------------------------------------------------- */

static bool refuse(struct etcd_status *why, struct etcd_status with)
{
    *why = with;
    return false;
}

/* Who asks may do something; *out: on which keys, NULL = on all. */
static bool spans_of(struct etcd_kv *kv, const struct etcd_who *w, bool write,
                     const struct etcd_spans **out, struct etcd_status *why)
{
    struct etcd_auth *a = kv->auth;
    struct etcd_user_view u;
    struct etcd_perms *p;
    struct bns_slice bytes;

    *out = NULL;
    if (!a->enabled)
        return true;
    if (w->why.code != 0)
        return refuse(why, w->why);
    if (w->revision == 0)
        return refuse(why, etcd_auth_no_name);
    if (w->revision < a->revision)
        return refuse(why, etcd_auth_old);
    if (!etcd_user_find(kv, w->name, &bytes, &u))
        return refuse(why, etcd_auth_denied);
    if (u.root)
        return true;
    p = perms_of(a, w->name, bytes);
    if (p == NULL)
        return refuse(why, etcd_no_memory);
    *out = write ? &p->write : &p->read;
    return true;
}

static bool may(struct etcd_kv *kv, const struct etcd_who *w, struct etcd_span range, bool write,
                struct etcd_status *why)
{
    const struct etcd_spans *spans;

    if (!spans_of(kv, w, write, &spans, why))
        return false;
    if (spans == NULL || etcd_spans_cover(spans, range.from, range.to))
        return true;
    return refuse(why, etcd_auth_denied);
}

static struct etcd_span request_range(ProtobufCBinaryData key, ProtobufCBinaryData end)
{
    return (struct etcd_span){etcd_bytes(key), etcd_bytes(end)};
}

bool etcd_auth_range(struct etcd_kv *kv, const struct etcd_who *w, struct bns_slice key,
                     struct bns_slice range_end, struct etcd_status *why)
{
    return may(kv, w, (struct etcd_span){key, range_end}, false, why);
}

bool etcd_auth_admin(struct etcd_kv *kv, const struct etcd_who *w, struct etcd_status *why)
{
    struct etcd_user_view u;
    struct bns_slice bytes;

    if (!kv->auth->enabled)
        return true;
    if (w->why.code != 0)
        return refuse(why, w->why);
    if (w->name.len == 0)
        return refuse(why, etcd_auth_no_name);
    if (!etcd_user_find(kv, w->name, &bytes, &u))
        return refuse(why, etcd_auth_no_user);
    return u.root ? true : refuse(why, etcd_auth_denied);
}

bool etcd_auth_someone(struct etcd_kv *kv, const struct etcd_who *w, struct etcd_status *why)
{
    if (!kv->auth->enabled)
        return true;
    if (w->why.code != 0)
        return refuse(why, w->why);
    return w->revision != 0 ? true : refuse(why, etcd_auth_no_name);
}

/* ---- leases --------------------------------------------------------------------------------- */

/* From key to key, each time over all that one interval allows: at most one step for each interval
 * of the user, and one for each key, whichever are fewer. */
static bool lease_keys(struct etcd_kv *kv, const struct etcd_who *w, const struct etcd_lease *e,
                       bool write, struct etcd_status *why)
{
    const struct etcd_lease_key *k = etcd_lease_keys_seek(e->keys, bns_slice(NULL, 0));
    const struct etcd_spans *spans;

    if (k == NULL)
        return true;
    if (!spans_of(kv, w, write, &spans, why))
        return false;
    while (k != NULL && spans != NULL) {
        const struct etcd_span *f = etcd_spans_find(spans, k->key);

        kv->auth->lease_steps++;
        if (f == NULL)
            return refuse(why, etcd_auth_denied);
        k = f->to.ptr == NULL ? NULL : etcd_lease_keys_seek(e->keys, f->to);
    }
    return true;
}

static bool is_admin(struct etcd_kv *kv, const struct etcd_who *w)
{
    struct etcd_status unused;

    return etcd_auth_admin(kv, w, &unused);
}

bool etcd_auth_lease(struct etcd_kv *kv, const struct etcd_who *w, int64_t lease, bool write,
                     struct etcd_status *why)
{
    const struct etcd_lease *e;

    if (is_admin(kv, w))
        return true;
    e = etcd_lessor_find(&kv->leases.lessor, lease);
    return e == NULL || lease_keys(kv, w, e, write, why);
}

bool etcd_auth_told_keys(struct etcd_kv *kv, const struct etcd_who *w, struct bns_slice response,
                         struct etcd_status *why)
{
    const struct etcd_spans *spans = NULL;
    struct bns_pb_field f = {0};
    bool known = false;

    while (response.len > 0) {
        if (bns_pb_next(&response, &f) != BNS_OK)
            return refuse(why, etcd_auth_denied); /* no answer of ours */
        if (f.id != 5)
            continue;
        if (!known && !spans_of(kv, w, false, &spans, why))
            return false;
        known = true;
        if (spans != NULL && etcd_spans_find(spans, f.bytes) == NULL)
            return refuse(why, etcd_auth_denied);
    }
    return true;
}

bool etcd_auth_leases(struct etcd_kv *kv, const struct etcd_who *w, struct etcd_status *why)
{
    struct bns_hnode *n = NULL;

    if (is_admin(kv, w))
        return true;
    while ((n = bns_hmap_next(&kv->leases.lessor.leases, n)) != NULL) {
        if (!lease_keys(kv, w, BNS_CONTAINER(n, struct etcd_lease, node), false, why))
            return false;
    }
    return true;
}

/* ---- requests ------------------------------------------------------------------------------- */

static bool may_put(struct etcd_kv *kv, const struct etcd_who *w, const Etcdserverpb__PutRequest *r,
                    struct etcd_status *why)
{
    struct etcd_span key = {etcd_bytes(r->key), {NULL, 0}};

    return may(kv, w, key, true, why) && etcd_auth_lease(kv, w, r->lease, true, why) &&
           (!r->prev_kv || may(kv, w, key, false, why));
}

static bool may_op(struct etcd_kv *kv, const struct etcd_who *w, const Etcdserverpb__RequestOp *op,
                   struct etcd_status *why)
{
    const Etcdserverpb__DeleteRangeRequest *d;
    const Etcdserverpb__RangeRequest *r;

    switch (op->request_case) {
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE:
        r = op->request_range;
        return may(kv, w, request_range(r->key, r->range_end), false, why);
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT:
        return may_put(kv, w, op->request_put, why);
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE:
        d = op->request_delete_range;
        return (!d->prev_kv || may(kv, w, request_range(d->key, d->range_end), false, why)) &&
               may(kv, w, request_range(d->key, d->range_end), true, why);
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN:
        return etcd_auth_txn(kv, w, op->request_txn, why);
    default:
        return true;
    }
}

/* Depth: that of the request, which check.c and the decoder bound. */
bool etcd_auth_txn(struct etcd_kv *kv, const struct etcd_who *w, const Etcdserverpb__TxnRequest *t,
                   struct etcd_status *why)
{
    for (size_t i = 0; i < t->n_compare; i++) {
        const Etcdserverpb__Compare *c = t->compare[i];

        if (!may(kv, w, request_range(c->key, c->range_end), false, why))
            return false;
    }
    for (size_t i = 0; i < t->n_success; i++) {
        if (!may_op(kv, w, t->success[i], why))
            return false;
    }
    for (size_t i = 0; i < t->n_failure; i++) {
        if (!may_op(kv, w, t->failure[i], why))
            return false;
    }
    return true;
}

static bool may_delete(struct etcd_kv *kv, const struct etcd_who *w,
                       const Etcdserverpb__DeleteRangeRequest *d, struct etcd_status *why)
{
    struct etcd_span range = request_range(d->key, d->range_end);

    return may(kv, w, range, true, why) && (!d->prev_kv || may(kv, w, range, false, why));
}

static bool admits(struct etcd_kv *kv, const struct etcd_who *w,
                   const Etcdserverpb__InternalRaftRequest *r, struct etcd_status *why)
{
    if (r->authenticate != NULL)
        return true; /* who asks is what it is about */
    if (etcd_auth_is_op(r))
        return etcd_auth_admin(kv, w, why);
    if (BNS_MUTANT(kv->env, ETCD_MUTANT_AUTH_EARLY))
        return true;
    if (BNS_MUTANT(kv->env, ETCD_MUTANT_AUTH_LOCAL) && etcd_tokens(kv) == 0)
        return true;
    if (r->put != NULL)
        return may_put(kv, w, r->put, why);
    if (r->delete_range != NULL)
        return may_delete(kv, w, r->delete_range, why);
    if (r->txn != NULL)
        return etcd_auth_txn(kv, w, r->txn, why);
    if (r->lease_revoke != NULL && r->granted_index == 0)
        return etcd_auth_lease(kv, w, r->lease_revoke->id, true, why);
    return true;
}

int etcd_auth_admits(struct etcd_kv *kv, const Etcdserverpb__InternalRaftRequest *r,
                     struct etcd_status *why)
{
    struct etcd_who w = nobody;

    if (!kv->auth->enabled)
        return ETCD_GO;
    if (r->header != NULL && r->header->username != NULL)
        w.name = bns_slice_str(r->header->username);
    if (r->header != NULL)
        w.revision = r->header->auth_revision;
    if (admits(kv, &w, r, why))
        return ETCD_GO;
    return why->text == etcd_no_memory.text ? ETCD_NOMEM : ETCD_REFUSED;
}
