/* test_kv_model.c - the store against a model of MVCC that is too simple to be wrong.
 *
 * The model keeps the whole state after every revision, in arrays, and interprets the same requests
 * naively. Both sides render their answer as text; the texts must be equal. Requests are random:
 * puts with options, deletes of ranges, transactions nested three deep with compares on everything,
 * ranges with every option at every revision, compactions, checkpoints, restarts; with a cache that
 * holds all or nothing.
 * Repeat: the failing seed and step are printed. */
#include "kv_world.h"

#define KEYS 8
#define REVS 600
#define TEXT 65536

struct cell {
    bool alive;
    int64_t create, mod, version;
    char value[8];
};
struct state {
    struct cell at[KEYS];
};
struct model {
    struct state revs[REVS + 2]; /* [r] = after revision r; [rev + 1] while a txn runs */
    int64_t rev, compacted;
    char *out; /* the expected answer */
    const char *error;
};

static const char *const names[KEYS + 2] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", ""};

static void say(char *out, const char *fmt, ...)
{
    size_t n = strlen(out);
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(out + n, TEXT - n, fmt, ap);
    va_end(ap);
}

static bool in_range(int key, ProtobufCBinaryData from, ProtobufCBinaryData end)
{
    struct bns_slice k = bns_slice_str(names[key]);
    int c = bns_slice_cmp(k, bns_slice(from.data, from.len));
    if (end.len == 0)
        return c == 0;
    if (end.len == 1 && end.data[0] == 0)
        return c >= 0;
    return c >= 0 && bns_slice_cmp(k, bns_slice(end.data, end.len)) < 0;
}

static void say_cell(char *out, int key, const struct cell *c, bool keys_only)
{
    say(out, " %s@%lld/%lld/%lld=%s", names[key], (long long)c->create, (long long)c->mod,
        (long long)c->version, keys_only ? "" : c->value);
}

static int cell_cmp(const struct cell *a, const struct cell *b, int target)
{
    switch (target) {
    case 1:
        return (a->version > b->version) - (a->version < b->version);
    case 2:
        return (a->create > b->create) - (a->create < b->create);
    case 3:
        return (a->mod > b->mod) - (a->mod < b->mod);
    default:
        return strcmp(a->value, b->value);
    }
}

static void m_range(struct model *m, const Etcdserverpb__RangeRequest *r, int64_t now)
{
    int64_t at = r->revision <= 0 ? now : r->revision;
    const struct state *s = &m->revs[at];
    bool custom = r->sort_order != 0 || r->min_mod_revision || r->max_mod_revision ||
                  r->min_create_revision || r->max_create_revision;
    int hit[KEYS], n = 0, count = 0, shown;

    for (int i = 0; i < KEYS; i++) {
        const struct cell *c = &s->at[i];
        if (!c->alive || !in_range(i, r->key, r->range_end))
            continue;
        count++;
        if (r->count_only || (!custom && r->limit > 0 && n > r->limit))
            continue;
        if ((r->min_mod_revision && c->mod < r->min_mod_revision) ||
            (r->max_mod_revision && c->mod > r->max_mod_revision) ||
            (r->min_create_revision && c->create < r->min_create_revision) ||
            (r->max_create_revision && c->create > r->max_create_revision))
            continue;
        hit[n++] = i;
    }
    for (int i = 1; i < n; i++) { /* insertion sort: stable */
        for (int j = i; j > 0; j--) {
            int c = r->sort_target == 0
                        ? hit[j - 1] - hit[j]
                        : cell_cmp(&s->at[hit[j - 1]], &s->at[hit[j]], (int)r->sort_target);
            if (r->sort_order == 2 ? c >= 0 : c <= 0)
                break;
            int t = hit[j];
            hit[j] = hit[j - 1];
            hit[j - 1] = t;
        }
    }
    shown = r->limit > 0 && n > r->limit ? (int)r->limit : n;
    say(m->out, "[range %lld n=%d%s", (long long)now, count, shown < n ? " more" : "");
    for (int i = 0; i < shown; i++)
        say_cell(m->out, hit[i], &s->at[hit[i]], r->keys_only);
    say(m->out, "]");
}

/* Writes go to revs[rev + 1], a copy of revs[rev] made by the caller. */
static void m_put(struct model *m, const Etcdserverpb__PutRequest *r, bool *changed)
{
    for (int i = 0; i < KEYS; i++) {
        struct cell *c = &m->revs[m->rev + 1].at[i];
        if (!in_range(i, r->key, BN(NULL, 0)))
            continue;
        say(m->out, "[put %lld", (long long)m->rev + 1);
        if (r->prev_kv && c->alive)
            say_cell(m->out, i, c, false);
        say(m->out, "]");
        if (!c->alive)
            *c = (struct cell){.alive = true, .create = m->rev + 1};
        c->mod = m->rev + 1;
        c->version++;
        if (!r->ignore_value)
            (void)snprintf(c->value, sizeof c->value, "%.*s", (int)r->value.len,
                           (const char *)r->value.data);
    }
    *changed = true;
}

static void m_delete(struct model *m, const Etcdserverpb__DeleteRangeRequest *r, bool *changed)
{
    int n = 0;
    char prev[1024] = "";

    for (int i = 0; i < KEYS; i++) {
        struct cell *c = &m->revs[m->rev + 1].at[i];
        if (!c->alive || !in_range(i, r->key, r->range_end))
            continue;
        n++;
        if (r->prev_kv)
            say_cell(prev, i, c, false);
        *c = (struct cell){.alive = false};
        *changed = true;
    }
    say(m->out, "[delete %lld n=%d%s]", (long long)m->rev + *changed, n, prev);
}

static bool m_compare_cell(const Etcdserverpb__Compare *c, const struct cell *x)
{
    int64_t a = 0, b = c->version; /* the arms share their place */
    int o;

    if (c->target == 0)
        a = x->version;
    else if (c->target == 1)
        a = x->create;
    else if (c->target == 2)
        a = x->mod;
    o = (a > b) - (a < b);
    if (c->target == 3) {
        if (!x->alive)
            return false;
        o = bns_slice_cmp(bns_slice_str(x->value), bns_slice(c->value.data, c->value.len));
    }
    return c->result == 0 ? o == 0 : c->result == 1 ? o > 0 : c->result == 2 ? o < 0 : o != 0;
}

static bool m_compare(const struct model *m, const Etcdserverpb__Compare *c)
{
    static const struct cell none;
    bool any = false, all = true;

    for (int i = 0; i < KEYS; i++) {
        const struct cell *x = &m->revs[m->rev].at[i];
        if (!x->alive || !in_range(i, c->key, c->range_end))
            continue;
        any = true;
        all = all && m_compare_cell(c, x);
    }
    return any ? all : m_compare_cell(c, &none);
}

static bool m_branch(const struct model *m, const Etcdserverpb__TxnRequest *t)
{
    bool yes = true;
    for (size_t i = 0; i < t->n_compare; i++)
        yes = yes && m_compare(m, t->compare[i]);
    return yes;
}

static const char *m_check(const struct model *m, const Etcdserverpb__TxnRequest *t, bool puts)
{
    bool yes = m_branch(m, t);
    size_t n = yes ? t->n_success : t->n_failure;

    for (size_t i = 0; i < n; i++) {
        const Etcdserverpb__RequestOp *o = yes ? t->success[i] : t->failure[i];
        if (o->request_case == 4) {
            const char *e = m_check(m, o->request_txn, puts);
            if (e != NULL)
                return e;
        } else if (o->request_case == 2 && puts && o->request_put->ignore_value) {
            for (int k = 0; k < KEYS; k++) {
                if (in_range(k, o->request_put->key, BN(NULL, 0)) && !m->revs[m->rev].at[k].alive)
                    return "etcdserver: key not found";
            }
        } else if (o->request_case == 1 && !puts && o->request_range->revision != 0) {
            if (o->request_range->revision > m->rev)
                return "etcdserver: mvcc: required revision is a future revision";
            if (o->request_range->revision < m->compacted)
                return "etcdserver: mvcc: required revision has been compacted";
        }
    }
    return NULL;
}

/* pre: compares look at revs[rev], which stays as it is until the end. */
static void m_txn(struct model *m, const Etcdserverpb__TxnRequest *t, bool *changed)
{
    bool yes = m_branch(m, t);
    size_t n = yes ? t->n_success : t->n_failure;

    say(m->out, "[txn %s", yes ? "yes" : "no");
    for (size_t i = 0; i < n; i++) {
        const Etcdserverpb__RequestOp *o = yes ? t->success[i] : t->failure[i];
        if (o->request_case == 1)
            m_range(m, o->request_range, m->rev + *changed);
        else if (o->request_case == 2)
            m_put(m, o->request_put, changed);
        else if (o->request_case == 3)
            m_delete(m, o->request_delete_range, changed);
        else
            m_txn(m, o->request_txn, changed);
    }
    say(m->out, "]");
}

/* ---- the store's answers as the same text ---------------------------------------------------- */

static void say_kv(char *out, const Etcdserverpb__KeyValue *kv)
{
    say(out, " %.*s@%lld/%lld/%lld=%.*s", (int)kv->key.len, (const char *)kv->key.data,
        (long long)kv->create_revision, (long long)kv->mod_revision, (long long)kv->version,
        (int)kv->value.len, (const char *)kv->value.data);
}
static void say_range(char *out, const Etcdserverpb__RangeResponse *r)
{
    say(out, "[range %lld n=%lld%s", (long long)r->header->revision, (long long)r->count,
        r->more ? " more" : "");
    for (size_t i = 0; i < r->n_kvs; i++)
        say_kv(out, r->kvs[i]);
    say(out, "]");
}
static void say_put(char *out, const Etcdserverpb__PutResponse *r)
{
    say(out, "[put %lld", (long long)r->header->revision);
    if (r->prev_kv != NULL)
        say_kv(out, r->prev_kv);
    say(out, "]");
}
static void say_delete(char *out, const Etcdserverpb__DeleteRangeResponse *r)
{
    say(out, "[delete %lld n=%lld", (long long)r->header->revision, (long long)r->deleted);
    for (size_t i = 0; i < r->n_prev_kvs; i++)
        say_kv(out, r->prev_kvs[i]);
    say(out, "]");
}
static void say_txn(char *out, const Etcdserverpb__TxnResponse *r)
{
    say(out, "[txn %s", r->succeeded ? "yes" : "no");
    for (size_t i = 0; i < r->n_responses; i++) {
        const Etcdserverpb__ResponseOp *o = r->responses[i];
        if (o->response_case == 1)
            say_range(out, o->response_range);
        else if (o->response_case == 2)
            say_put(out, o->response_put);
        else if (o->response_case == 3)
            say_delete(out, o->response_delete_range);
        else
            say_txn(out, o->response_txn);
    }
    say(out, "]");
}

/* ---- random requests ------------------------------------------------------------------------ */

struct gen {
    struct kvw *k;
    struct model *m;
    struct bns_prng p;
};

static uint64_t draw(struct gen *g, uint64_t n)
{
    return bns_prng_below(&g->p, n);
}
static void *keep(struct gen *g, const void *from, size_t n)
{
    return bns_arena_dup(&g->k->arena, from, n);
}
static ProtobufCBinaryData any_key(struct gen *g)
{
    return B(names[draw(g, KEYS)]);
}
static ProtobufCBinaryData any_end(struct gen *g)
{
    uint64_t d = draw(g, 4);
    return d == 0 ? BN(NULL, 0) : d == 1 ? BN("", 1) : B(names[draw(g, KEYS + 1)]);
}
static int64_t any_rev(struct gen *g)
{
    return draw(g, 3) == 0 ? (int64_t)draw(g, (uint64_t)g->m->rev + 2) : 0;
}

static Etcdserverpb__RangeRequest *gen_range(struct gen *g)
{
    Etcdserverpb__RangeRequest r = ETCDSERVERPB__RANGE_REQUEST__INIT;
    r.has_key = r.has_range_end = true;
    r.key = any_key(g);
    r.range_end = any_end(g);
    r.has_limit = draw(g, 3) == 0;
    r.limit = r.has_limit ? (int64_t)draw(g, 4) : 0;
    r.revision = any_rev(g);
    r.has_revision = r.revision != 0;
    r.has_sort_order = r.has_sort_target = draw(g, 3) == 0;
    if (r.has_sort_order) {
        r.sort_order = (Etcdserverpb__RangeRequest__SortOrder)draw(g, 3);
        r.sort_target = (Etcdserverpb__RangeRequest__SortTarget)draw(g, 5);
    }
    r.has_keys_only = r.keys_only = draw(g, 6) == 0;
    r.has_count_only = r.count_only = draw(g, 8) == 0;
    r.min_mod_revision = draw(g, 8) == 0 ? (int64_t)draw(g, (uint64_t)g->m->rev + 1) : 0;
    r.has_min_mod_revision = r.min_mod_revision != 0;
    r.max_create_revision = draw(g, 8) == 0 ? (int64_t)draw(g, (uint64_t)g->m->rev + 1) : 0;
    r.has_max_create_revision = r.max_create_revision != 0;
    return keep(g, &r, sizeof r);
}
static Etcdserverpb__PutRequest *gen_put(struct gen *g)
{
    Etcdserverpb__PutRequest r = ETCDSERVERPB__PUT_REQUEST__INIT;
    r.has_key = true;
    r.key = any_key(g);
    r.has_prev_kv = r.prev_kv = draw(g, 3) == 0;
    r.has_ignore_value = r.ignore_value = draw(g, 8) == 0;
    r.has_value = !r.ignore_value;
    r.value = r.ignore_value ? BN(NULL, 0) : B(names[draw(g, 5)]);
    return keep(g, &r, sizeof r);
}
static Etcdserverpb__DeleteRangeRequest *gen_delete(struct gen *g)
{
    Etcdserverpb__DeleteRangeRequest r = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;
    r.has_key = r.has_range_end = true;
    r.key = any_key(g);
    r.range_end = draw(g, 2) ? BN(NULL, 0) : B(names[draw(g, KEYS + 1)]);
    r.has_prev_kv = r.prev_kv = draw(g, 2) == 0;
    return keep(g, &r, sizeof r);
}
static Etcdserverpb__Compare *gen_compare(struct gen *g)
{
    Etcdserverpb__Compare c = ETCDSERVERPB__COMPARE__INIT;
    uint64_t target = draw(g, 4);
    c.has_key = c.has_target = c.has_result = true;
    c.key = any_key(g);
    c.has_range_end = draw(g, 4) == 0;
    c.range_end = c.has_range_end ? any_end(g) : BN(NULL, 0);
    c.target = (Etcdserverpb__Compare__CompareTarget)target;
    c.result = (Etcdserverpb__Compare__CompareResult)draw(g, 4);
    c.target_union_case = (Etcdserverpb__Compare__TargetUnionCase)(4 + target);
    if (target == 3)
        c.value = B(names[draw(g, 5)]);
    else
        c.version = (int64_t)draw(g, target == 0 ? 3 : (uint64_t)g->m->rev + 1);
    return keep(g, &c, sizeof c);
}
static Etcdserverpb__TxnRequest *gen_txn(struct gen *g, int depth);

static Etcdserverpb__RequestOp **gen_ops(struct gen *g, size_t *n, int depth)
{
    Etcdserverpb__RequestOp **ops;
    *n = draw(g, 4);
    ops = bns_arena_alloc(&g->k->arena, 4 * sizeof *ops);
    for (size_t i = 0; i < *n; i++) {
        Etcdserverpb__RequestOp o = ETCDSERVERPB__REQUEST_OP__INIT;
        uint64_t kind = 1 + draw(g, depth < 3 ? 4 : 3);
        o.request_case = (Etcdserverpb__RequestOp__RequestCase)kind;
        o.request_range = kind == 1   ? gen_range(g)
                          : kind == 2 ? (void *)gen_put(g)
                          : kind == 3 ? (void *)gen_delete(g)
                                      : (void *)gen_txn(g, depth + 1);
        ops[i] = keep(g, &o, sizeof o);
    }
    return ops;
}
static Etcdserverpb__TxnRequest *gen_txn(struct gen *g, int depth)
{
    Etcdserverpb__TxnRequest t = ETCDSERVERPB__TXN_REQUEST__INIT;
    t.n_compare = draw(g, 3);
    t.compare = bns_arena_alloc(&g->k->arena, 4 * sizeof *t.compare);
    for (size_t i = 0; i < t.n_compare; i++)
        t.compare[i] = gen_compare(g);
    t.success = gen_ops(g, &t.n_success, depth);
    t.failure = gen_ops(g, &t.n_failure, depth);
    return keep(g, &t, sizeof t);
}

/* ---- one step ------------------------------------------------------------------------------- */

static void step_write(struct gen *g, int kind, char *expect, char *actual)
{
    struct model *m = g->m;
    bool changed = false;
    struct got got;

    m->revs[m->rev + 1] = m->revs[m->rev];
    if (kind == ETCD_OP_PUT) {
        Etcdserverpb__PutRequest *r = gen_put(g);
        Etcdserverpb__RequestOp o = {.request_case = 2};
        Etcdserverpb__RequestOp *ops[] = {&o};
        Etcdserverpb__TxnRequest t = {.n_success = 1, .success = ops};
        o.request_put = r;
        m->error = m_check(m, &t, true);
        if (m->error == NULL)
            m_put(m, r, &changed);
        assert_true(kvw_apply(g->k, ETCD_OP_PUT, r, &got));
        if (got.status == 0)
            say_put(actual, kvw_decode(g->k, &got, PUT_DESC));
    } else if (kind == ETCD_OP_DELETE) {
        Etcdserverpb__DeleteRangeRequest *r = gen_delete(g);
        m_delete(m, r, &changed);
        assert_true(kvw_apply(g->k, ETCD_OP_DELETE, r, &got));
        if (got.status == 0)
            say_delete(actual, kvw_decode(g->k, &got, DELETE_DESC));
    } else {
        Etcdserverpb__TxnRequest *t = gen_txn(g, 0);
        struct etcd_limits limits = {0};
        struct etcd_status why;
        if (!etcd_check_txn(t, &limits, bns_alloc_libc(), &why))
            return; /* would never be proposed */
        m->error = m_check(m, t, true);
        if (m->error == NULL)
            m->error = m_check(m, t, false);
        if (m->error == NULL)
            m_txn(m, t, &changed);
        if (etcd_txn_readonly(t)) {
            struct got ro = kvw_read(g->k, kvw_do_txn, t, 0);
            got = ro;
        } else {
            assert_true(kvw_apply(g->k, ETCD_OP_TXN, t, &got));
        }
        if (got.status == 0)
            say_txn(actual, kvw_decode(g->k, &got, TXN_DESC));
    }
    m->rev += changed;
    if (m->error != NULL)
        say(expect, "%s", m->error);
    if (got.status != 0)
        say(actual, "%s", got.text);
}

static void step_read(struct gen *g, char *expect, char *actual)
{
    Etcdserverpb__RangeRequest *r = gen_range(g);
    struct got got = kvw_range(g->k, r);

    if (r->revision > g->m->rev)
        say(expect, "etcdserver: mvcc: required revision is a future revision");
    else if (r->revision > 0 && r->revision < g->m->compacted)
        say(expect, "etcdserver: mvcc: required revision has been compacted");
    else
        m_range(g->m, r, g->m->rev);
    if (got.status != 0)
        say(actual, "%s", got.text);
    else
        say_range(actual, kvw_decode(g->k, &got, RANGE_DESC));
}

static void step_compact(struct gen *g)
{
    int64_t at = (int64_t)draw(g, (uint64_t)g->m->rev + 2);
    bool fine = at > g->m->compacted && at <= g->m->rev;
    struct got got = do_compact(g->k, at, draw(g, 2) == 0);

    assert_int_equal(got.status, fine ? 0 : 11);
    if (fine)
        g->m->compacted = at;
}

static void one_seed(uint64_t seed)
{
    static char expect[TEXT], actual[TEXT];
    static struct model m;
    struct kvw k;
    struct etcd_kv_config cfg = {.cache_bytes = seed % 2 == 0 ? 1 : 0,
                                .turn_keys = (uint32_t)(seed % 3)};
    struct gen g = {&k, &m, {{0}}};

    memset(&m, 0, sizeof m);
    m.rev = 1;
    m.compacted = -1;
    m.out = expect;
    bns_prng_seed(&g.p, seed);
    kvw_init(&k, seed, &cfg);
    assert_true(kvw_up(&k));
    for (int step = 0; step < 500 && m.rev < REVS; step++) {
        uint64_t d = draw(&g, 100);
        expect[0] = actual[0] = 0;
        m.error = NULL;
        if (d < 25)
            step_write(&g, ETCD_OP_PUT, expect, actual);
        else if (d < 32)
            step_write(&g, ETCD_OP_DELETE, expect, actual);
        else if (d < 60)
            step_write(&g, ETCD_OP_TXN, expect, actual);
        else if (d < 95)
            step_read(&g, expect, actual);
        else if (d < 97)
            step_compact(&g);
        else if (d < 98)
            assert_true(do_checkpoint(&k));
        else if (d < 99) {
            kvw_close(&k);
            assert_true(kvw_up(&k));
        }
        if (strcmp(expect, actual) != 0 || m.rev != etcd_kv_revision(k.kv))
            fail_msg("seed %llu step %d\nexpected %s\nbut got  %s", (unsigned long long)seed, step,
                     expect, actual);
        bns_arena_free(&k.arena);
    }
    kvw_free(&k);
}

static void store_is_the_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++)
        one_seed(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(store_is_the_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
