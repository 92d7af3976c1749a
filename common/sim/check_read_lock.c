/* check_read_lock.c - histories of locks and leases, as operations of their checkers. README.md has
 * the shapes. One history may have both; other operations in it are passed over.
 */
#include "sim/check_lock.h"
#include "sim/check_read.h"

struct both {
    struct bns_lock_op *locks;
    size_t locks_count;
    struct bns_lease_op *leases;
    size_t leases_count;
};

static int text_id(struct check_reader *r, const char *text, uint64_t *out)
{
    uint32_t id;
    int rv = bns_history_intern(r->h, text, &id);

    *out = id;
    return rv;
}

/* A time in ms of an object, as ns; *there: it is in it. */
static bool time_of(const json_t *v, const char *name, uint64_t *out, bool *there)
{
    uint64_t ms = UINT64_MAX;

    if (!check_number(v, name, &ms))
        return false;
    *there = ms != UINT64_MAX;
    *out = *there ? ms * 1000000 : 0;
    return !*there || ms < UINT64_MAX / 2000000;
}

/* {"ttl_ms":n}; n <= 0 is gone. {"there":bool} of a key that hangs on it. */
static int take_answer(struct check_reader *r, const struct check_call *c, struct bns_lease_op *op)
{
    const json_t *ttl = json_object_get(c->out, "ttl_ms");
    const json_t *there = json_object_get(c->out, "there");
    bool has = false;

    op->ttl_ns = UINT64_MAX;
    if (op->kind == BNS_LEASE_LOOK && json_is_boolean(there)) {
        op->gone = json_is_false(there);
        return BNS_OK;
    }
    if (!json_is_integer(ttl))
        return check_bad(r, c->c, "the answer of a lease is {\"ttl_ms\":number}");
    op->gone = json_integer_value(ttl) < (op->kind == BNS_LEASE_LOOK ? 0 : 1);
    if (!op->gone && !time_of(c->out, "ttl_ms", &op->ttl_ns, &has))
        return check_bad(r, c->c, "a time to live out of range");
    return BNS_OK;
}

static int take_lease(struct check_reader *r, struct both *b, const struct check_call *c,
                      enum bns_lease_kind kind)
{
    struct bns_lease_op *op = &b->leases[b->leases_count++];
    bool has = false;

    *op = (struct bns_lease_op){.call = c->c->call,
                                .ret = check_ret(c->c),
                                .call_ns = c->c->call_ns,
                                .ret_ns = c->c->ret_ns,
                                .end = check_end(c->c),
                                .kind = kind,
                                .lease = c->c->key_id};
    if (op->lease == 0)
        return check_bad(r, c->c, "the key names the lease");
    if (op->end != BNS_CHECK_OK || kind == BNS_LEASE_REVOKE)
        return BNS_OK;
    if (kind != BNS_LEASE_GRANT || json_object_get(c->out, "ttl_ms") != NULL)
        return take_answer(r, c, op);
    if (!time_of(c->in, "ttl_ms", &op->ttl_ns, &has) || !has)
        return check_bad(r, c->c, "a grant is {\"ttl_ms\":number}");
    return BNS_OK;
}

static int take_lock(struct check_reader *r, struct both *b, const struct check_call *c,
                     enum bns_lock_kind kind)
{
    struct bns_lock_op *op = &b->locks[b->locks_count++];
    const json_t *lease = json_object_get(c->out, "lease");
    int rv = BNS_OK;

    *op = (struct bns_lock_op){.call = c->c->call,
                               .ret = check_ret(c->c),
                               .call_ns = c->c->call_ns,
                               .ret_ns = c->c->ret_ns,
                               .end = check_end(c->c),
                               .kind = kind,
                               .lock = c->c->key_id,
                               .process = c->c->process};
    if (op->lock == 0)
        return check_bad(r, c->c, "the key names the lock");
    if (!check_number(kind == BNS_LOCK_USE ? c->in : c->out, "token", &op->token))
        return check_bad(r, c->c, "a token is a number");
    if (lease == NULL)
        lease = json_object_get(c->in, "lease");
    if (kind == BNS_LOCK_ACQUIRE && lease != NULL && !json_is_string(lease))
        return check_bad(r, c->c, "a lease is a text");
    if (kind == BNS_LOCK_ACQUIRE && lease != NULL)
        rv = text_id(r, json_string_value(lease), &op->lease);
    return rv;
}

static int take(struct check_reader *r, void *arg, const struct check_call *c)
{
    static const struct {
        const char *f;
        enum bns_lease_kind kind;
    } leases[] = {{"grant", BNS_LEASE_GRANT},
                  {"keepalive", BNS_LEASE_KEEPALIVE},
                  {"revoke", BNS_LEASE_REVOKE},
                  {"look", BNS_LEASE_LOOK}};
    static const struct {
        const char *f;
        enum bns_lock_kind kind;
    } locks[] = {
        {"acquire", BNS_LOCK_ACQUIRE}, {"release", BNS_LOCK_RELEASE}, {"use", BNS_LOCK_USE}};

    for (size_t i = 0; i < sizeof leases / sizeof leases[0]; i++) {
        if (strcmp(c->c->f, leases[i].f) == 0)
            return take_lease(r, arg, c, leases[i].kind);
    }
    for (size_t i = 0; i < sizeof locks / sizeof locks[0]; i++) {
        if (strcmp(c->c->f, locks[i].f) == 0)
            return take_lock(r, arg, c, locks[i].kind);
    }
    return BNS_OK;
}

static int read_both(struct check_reader *r, struct both *b)
{
    *b = (struct both){.locks = check_take(r, r->calls_count, sizeof *b->locks),
                       .leases = check_take(r, r->calls_count, sizeof *b->leases)};
    return b->locks == NULL || b->leases == NULL ? BNS_E_NOMEM : check_each(r, b, take);
}

int check_read_lock(struct check_reader *r)
{
    struct both b;
    int rv = read_both(r, &b);

    if (rv != BNS_OK)
        return rv;
    return bns_check_lock(&r->cfg, b.locks, b.locks_count, b.leases, b.leases_count, r->v);
}

int check_read_lease(struct check_reader *r)
{
    struct both b;
    int rv = read_both(r, &b);

    return rv == BNS_OK ? bns_check_lease(&r->cfg, b.leases, b.leases_count, r->v) : rv;
}
