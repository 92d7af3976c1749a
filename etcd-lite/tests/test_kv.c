/* test_kv.c - the semantics of etcd's KV service, one claim a test. Revisions, orders and errors
 * are those that etcd 3.4 gave for the same histories. */
#include "kv_world.h"

static int setup(void **state)
{
    struct kvw *k = malloc(sizeof *k);
    kvw_init(k, 1, NULL);
    assert_true(kvw_up(k));
    *state = k;
    return 0;
}
static int teardown(void **state)
{
    kvw_free(*state);
    free(*state);
    return 0;
}

static Etcdserverpb__RangeResponse *get(struct kvw *k, const Etcdserverpb__RangeRequest *r)
{
    struct got g = kvw_range(k, r);
    return kvw_decode(k, &g, RANGE_DESC);
}

static void fresh_store_is_at_revision_1(void **state)
{
    struct kvw *k = *state;
    Etcdserverpb__RangeRequest r = range_req("a", NULL);
    Etcdserverpb__RangeResponse *m = get(k, &r);

    assert_int_equal(m->header->revision, 1);
    assert_int_equal(m->header->cluster_id, 7);
    assert_int_equal(m->header->member_id, 9);
    assert_int_equal(m->header->raft_term, 3);
    assert_int_equal(m->n_kvs, 0);
    assert_int_equal(etcd_kv_compacted(k->kv), -1);
}

static void put_then_get(void **state)
{
    struct kvw *k = *state;
    Etcdserverpb__RangeRequest r = range_req("a", NULL);
    Etcdserverpb__RangeResponse *m;

    assert_int_equal(do_put(k, "a", "1"), 2);
    assert_int_equal(do_put(k, "a", "2"), 3);
    m = get(k, &r);
    assert_int_equal(m->n_kvs, 1);
    assert_int_equal(m->kvs[0]->create_revision, 2);
    assert_int_equal(m->kvs[0]->mod_revision, 3);
    assert_int_equal(m->kvs[0]->version, 2);
    assert_memory_equal(m->kvs[0]->value.data, "2", 1);
    assert_int_equal(m->count, 1);
    assert_int_equal(etcd_kv_keys(k->kv), 1);
}

static void old_revisions_are_read(void **state)
{
    struct kvw *k = *state;
    Etcdserverpb__RangeRequest r = range_req("a", NULL);
    Etcdserverpb__RangeResponse *m;
    struct got g;

    do_put(k, "a", "1");
    do_put(k, "a", "2");
    do_delete(k, "a", NULL);
    r.has_revision = true;
    r.revision = 2;
    m = get(k, &r);
    assert_memory_equal(m->kvs[0]->value.data, "1", 1);
    assert_int_equal(m->header->revision, 4);
    r.revision = 4;
    assert_int_equal(get(k, &r)->n_kvs, 0);
    r.revision = 5;
    g = kvw_range(k, &r);
    assert_int_equal(g.status, 11);
    assert_string_equal(g.text, "etcdserver: mvcc: required revision is a future revision");
    r.revision = -3;
    assert_int_equal(get(k, &r)->n_kvs, 0);
}

static void delete_of_nothing_keeps_the_revision(void **state)
{
    struct kvw *k = *state;
    Etcdserverpb__DeleteRangeRequest d = delete_req("a", "z");
    Etcdserverpb__RangeRequest r = range_req("a", NULL);
    Etcdserverpb__DeleteRangeResponse *m;
    struct got g;

    assert_int_equal(do_delete(k, "zz", NULL), 0);
    assert_int_equal(etcd_kv_revision(k->kv), 1);
    do_put(k, "a", "1");
    do_put(k, "b", "2");
    d.has_prev_kv = d.prev_kv = true;
    assert_true(kvw_apply(k, ETCD_OP_DELETE, &d, &g));
    m = kvw_decode(k, &g, DELETE_DESC);
    assert_int_equal(m->deleted, 2);
    assert_int_equal(m->n_prev_kvs, 2);
    assert_memory_equal(m->prev_kvs[1]->value.data, "2", 1);
    assert_int_equal(m->header->revision, 4);
    do_put(k, "a", "3");
    assert_int_equal(get(k, &r)->kvs[0]->create_revision, 5); /* a new life */
    assert_int_equal(get(k, &r)->kvs[0]->version, 1);
}

static void put_options(void **state)
{
    struct kvw *k = *state;
    Etcdserverpb__PutRequest p = put_req("a", "1");
    Etcdserverpb__RangeRequest r = range_req("a", NULL);
    Etcdserverpb__PutResponse *m;
    struct got g;

    p.has_lease = true;
    p.lease = 77;
    assert_true(kvw_apply(k, ETCD_OP_PUT, &p, &g));
    assert_int_equal(g.status, 5);
    assert_string_equal(g.text, "etcdserver: requested lease not found");
    p = put_req("a", "");
    p.has_ignore_value = p.ignore_value = true;
    assert_true(kvw_apply(k, ETCD_OP_PUT, &p, &g));
    assert_int_equal(g.status, 3);
    assert_string_equal(g.text, "etcdserver: key not found");
    do_put(k, "a", "hello");
    p.has_prev_kv = p.prev_kv = true;
    assert_true(kvw_apply(k, ETCD_OP_PUT, &p, &g));
    m = kvw_decode(k, &g, PUT_DESC);
    assert_int_equal(m->header->revision, 3);
    assert_memory_equal(m->prev_kv->value.data, "hello", 5);
    assert_int_equal(get(k, &r)->kvs[0]->value.len, 5);
    assert_int_equal(get(k, &r)->kvs[0]->version, 2);
}

static void range_options(void **state)
{
    struct kvw *k = *state;
    static const struct {
        const char *name;
        int limit, order, target;
        bool keys_only, count_only;
        int min_mod, max_mod, min_create, max_create;
        const char *keys;
        bool more;
    } t[] = {
        /* s1: create 2 mod 6 version 2 value 1; s2: 3, 5, 2, value 3; s3: 4, 4, 1, value 2 */
        {"plain", 0, 0, 0, 0, 0, 0, 0, 0, 0, "123", false},
        {"limit", 2, 0, 0, 0, 0, 0, 0, 0, 0, "12", true},
        {"limit met", 3, 0, 0, 0, 0, 0, 0, 0, 0, "123", false},
        {"negative limit", -1, 0, 0, 0, 0, 0, 0, 0, 0, "123", false},
        {"descending", 0, 2, 0, 0, 0, 0, 0, 0, 0, "321", false},
        {"descending, limit", 1, 2, 0, 0, 0, 0, 0, 0, 0, "3", true},
        {"by mod", 0, 1, 3, 0, 0, 0, 0, 0, 0, "321", false},
        {"by mod, limit", 1, 1, 3, 0, 0, 0, 0, 0, 0, "3", true},
        {"by mod without order: limit first", 1, 0, 3, 0, 0, 0, 0, 0, 0, "2", true},
        {"by version, descending, ties by key", 0, 2, 1, 0, 0, 0, 0, 0, 0, "123", false},
        {"by create, descending", 0, 2, 2, 0, 0, 0, 0, 0, 0, "321", false},
        {"by value", 0, 1, 4, 0, 0, 0, 0, 0, 0, "132", false},
        {"by value, limit", 2, 2, 4, 0, 0, 0, 0, 0, 0, "23", true},
        {"by value, keys only", 0, 1, 4, 1, 0, 0, 0, 0, 0, "132", false},
        {"by value without order: limit first", 1, 0, 4, 0, 0, 0, 0, 0, 0, "1", true},
        {"keys only", 0, 0, 0, 1, 0, 0, 0, 0, 0, "123", false},
        {"count only", 1, 0, 0, 0, 1, 0, 0, 0, 0, "", false},
        {"min mod", 0, 0, 0, 0, 0, 5, 0, 0, 0, "12", false},
        {"max mod, limit", 1, 0, 0, 0, 0, 0, 5, 0, 0, "2", true},
        {"create window", 0, 0, 0, 0, 0, 0, 0, 3, 3, "2", false},
    };
    do_put(k, "s1", "x");
    do_put(k, "s2", "3");
    do_put(k, "s3", "2");
    do_put(k, "s2", "3");
    do_put(k, "s1", "1");
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        Etcdserverpb__RangeRequest r = range_req("s", "t");
        Etcdserverpb__RangeResponse *m;
        char keys[8] = "";
        print_message("  %s\n", t[i].name);
        r.limit = t[i].limit;
        r.sort_order = (Etcdserverpb__RangeRequest__SortOrder)t[i].order;
        r.sort_target = (Etcdserverpb__RangeRequest__SortTarget)t[i].target;
        r.keys_only = t[i].keys_only;
        r.count_only = t[i].count_only;
        r.min_mod_revision = t[i].min_mod;
        r.max_mod_revision = t[i].max_mod;
        r.min_create_revision = t[i].min_create;
        r.max_create_revision = t[i].max_create;
        m = get(k, &r);
        for (size_t j = 0; j < m->n_kvs; j++) {
            keys[j] = (char)m->kvs[j]->key.data[1];
            assert_int_equal(m->kvs[j]->value.len, t[i].keys_only ? 0 : 1);
            assert_true(m->kvs[j]->mod_revision > 0 && m->kvs[j]->version > 0);
        }
        assert_string_equal(keys, t[i].keys);
        assert_int_equal(m->more, t[i].more);
        assert_int_equal(m->count, 3);
    }
}

static void ranges_of_keys(void **state)
{
    struct kvw *k = *state;
    static const struct {
        const char *key, *end;
        size_t end_len;
        int count;
    } t[] = {
        {"a", "c", 1, 2},  {"b", "", 1, 2},    {"", "", 1, 3},    {"c", "a", 1, 0},
        {"a", "aa", 2, 1}, {"aa", NULL, 0, 0}, {"b", NULL, 0, 1},
    };
    do_put(k, "a", "1");
    do_put(k, "b", "1");
    do_put(k, "c", "1");
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        Etcdserverpb__RangeRequest r = ETCDSERVERPB__RANGE_REQUEST__INIT;
        r.key = t[i].key[0] == 0 ? BN("", 1) : B(t[i].key);
        r.range_end = BN(t[i].end, t[i].end_len);
        assert_int_equal(get(k, &r)->count, t[i].count);
    }
}

/* ---- transactions --------------------------------------------------------------------------- */

static Etcdserverpb__RequestOp op(int kind, void *req)
{
    Etcdserverpb__RequestOp o = ETCDSERVERPB__REQUEST_OP__INIT;
    o.request_case = (Etcdserverpb__RequestOp__RequestCase)kind;
    o.request_range = req;
    return o;
}
enum { RANGE = 1, PUT, DELETE, TXN };

static void later_ops_see_earlier_writes_and_share_a_revision(void **state)
{
    struct kvw *k = *state;
    Etcdserverpb__RangeRequest r = range_req("a", NULL);
    Etcdserverpb__PutRequest p = put_req("a", "b"), p2 = put_req("b", "x");
    Etcdserverpb__DeleteRangeRequest d = delete_req("zz", NULL);
    Etcdserverpb__TxnRequest inner = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__TxnRequest t = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__RequestOp range = op(RANGE, &r), put = op(PUT, &p), put2 = op(PUT, &p2);
    Etcdserverpb__RequestOp del = op(DELETE, &d), txn = op(TXN, &inner);
    Etcdserverpb__RequestOp *inner_ops[] = {&range};
    Etcdserverpb__RequestOp *ops[] = {&txn, &put, &range, &txn, &del, &put2};
    Etcdserverpb__TxnResponse *m, *nested;
    struct got g;

    do_put(k, "a", "a");
    inner.n_success = 1;
    inner.success = inner_ops;
    t.n_success = 6;
    t.success = ops;
    assert_true(kvw_apply(k, ETCD_OP_TXN, &t, &g));
    m = kvw_decode(k, &g, TXN_DESC);
    assert_true(m->succeeded);
    assert_int_equal(m->n_responses, 6);
    assert_int_equal(m->header->revision, 3);
    nested = m->responses[0]->response_txn;
    assert_non_null(nested->header);
    assert_int_equal(nested->header->revision, 0); /* empty, as etcd sends it */
    assert_int_equal(nested->responses[0]->response_range->header->revision, 2);
    assert_memory_equal(nested->responses[0]->response_range->kvs[0]->value.data, "a", 1);
    assert_int_equal(m->responses[1]->response_put->header->revision, 3);
    assert_int_equal(m->responses[2]->response_range->header->revision, 3);
    assert_memory_equal(m->responses[2]->response_range->kvs[0]->value.data, "b", 1);
    nested = m->responses[3]->response_txn;
    assert_memory_equal(nested->responses[0]->response_range->kvs[0]->value.data, "b", 1);
    assert_int_equal(m->responses[4]->response_delete_range->header->revision, 3);
    assert_int_equal(etcd_kv_revision(k->kv), 3);
}

enum { EQ, GT, LT, NE };
enum { VERSION, CREATE, MOD, VALUE, LEASE };

static Etcdserverpb__Compare cmp(const char *key, const char *end, int target, int result)
{
    Etcdserverpb__Compare c = ETCDSERVERPB__COMPARE__INIT;
    c.has_key = c.has_target = c.has_result = true;
    c.key = B(key);
    c.target = (Etcdserverpb__Compare__CompareTarget)target;
    c.result = (Etcdserverpb__Compare__CompareResult)result;
    c.has_range_end = end != NULL;
    c.range_end = end == NULL ? BN(NULL, 0) : B(end);
    return c;
}

static bool txn_holds(struct kvw *k, Etcdserverpb__Compare *c)
{
    Etcdserverpb__TxnRequest t = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__PutRequest p = put_req("other", "x");
    Etcdserverpb__RequestOp put = op(PUT, &p);
    Etcdserverpb__RequestOp *ops[] = {&put};
    Etcdserverpb__TxnResponse *m, *ro;
    struct got g;

    t.n_compare = 1;
    t.compare = &c;
    g = kvw_read(k, kvw_do_txn, &t, 0); /* the same without operations, as a read */
    ro = kvw_decode(k, &g, TXN_DESC);
    t.n_failure = 1;
    t.failure = ops;
    assert_true(kvw_apply(k, ETCD_OP_TXN, &t, &g));
    m = kvw_decode(k, &g, TXN_DESC);
    assert_int_equal(m->succeeded, ro->succeeded);
    return m->succeeded;
}

static void compares(void **state)
{
    struct kvw *k = *state;
    static const struct {
        const char *key, *end;
        int target, result, number;
        const char *value;
        bool holds;
    } t[] = {
        {"a", NULL, VERSION, EQ, 2, NULL, true},
        {"a", NULL, VERSION, GT, 2, NULL, false},
        {"a", NULL, CREATE, EQ, 2, NULL, true},
        {"a", NULL, MOD, LT, 4, NULL, true},
        {"a", NULL, MOD, NE, 3, NULL, false},
        {"a", NULL, VALUE, EQ, 0, "2", true},
        {"a", NULL, VALUE, LT, 0, "3", true},
        {"a", NULL, LEASE, EQ, 0, NULL, true},
        {"none", NULL, VERSION, EQ, 0, NULL, true},
        {"none", NULL, CREATE, EQ, 0, NULL, true},
        {"none", NULL, LEASE, EQ, 0, NULL, true},
        {"none", NULL, VALUE, NE, 0, "x", false}, /* always false without the key */
        {"none", NULL, VALUE, EQ, 0, "", false},
        {"a", "c", VALUE, EQ, 0, "2", true},  /* all keys of the range */
        {"a", "d", VALUE, EQ, 0, "2", false}, /* c has another */
        {"a", "d", CREATE, GT, 1, NULL, true},
        {"x", "z", VERSION, EQ, 0, NULL, true}, /* empty range = one zero key */
    };
    static const int arm[] = {[VERSION] = 4, [CREATE] = 5, [MOD] = 6, [VALUE] = 7, [LEASE] = 8};

    do_put(k, "a", "1");
    do_put(k, "a", "2");
    do_put(k, "b", "2");
    do_put(k, "c", "3");
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        Etcdserverpb__Compare c = cmp(t[i].key, t[i].end, t[i].target, t[i].result);
        print_message("  %zu %s\n", i, t[i].key);
        c.target_union_case = (Etcdserverpb__Compare__TargetUnionCase)arm[t[i].target];
        if (t[i].target == VALUE)
            c.value = B(t[i].value);
        else
            c.version = t[i].number;
        assert_int_equal(txn_holds(k, &c), t[i].holds);
    }
}

static void txn_errors_change_nothing(void **state)
{
    struct kvw *k = *state;
    Etcdserverpb__PutRequest ok = put_req("a", "1"), bad = put_req("none", "");
    Etcdserverpb__RangeRequest range = range_req("a", NULL);
    Etcdserverpb__RequestOp o1 = op(PUT, &ok), o2 = op(PUT, &bad), o3 = op(RANGE, &range);
    Etcdserverpb__RequestOp *ops[] = {&o1, &o3, &o2};
    Etcdserverpb__TxnRequest t = ETCDSERVERPB__TXN_REQUEST__INIT;
    struct got g;

    bad.has_ignore_value = bad.ignore_value = true;
    range.has_revision = true;
    range.revision = 100;
    t.n_success = 3;
    t.success = ops;
    assert_true(kvw_apply(k, ETCD_OP_TXN, &t, &g));
    assert_string_equal(g.text, "etcdserver: key not found"); /* puts are looked at first */
    t.n_success = 2;
    assert_true(kvw_apply(k, ETCD_OP_TXN, &t, &g));
    assert_string_equal(g.text, "etcdserver: mvcc: required revision is a future revision");
    range.revision = -3; /* etcd compares it with its "never compacted", -1 */
    assert_true(kvw_apply(k, ETCD_OP_TXN, &t, &g));
    assert_string_equal(g.text, "etcdserver: mvcc: required revision has been compacted");
    assert_int_equal(etcd_kv_revision(k->kv), 1);
}

static void values_not_in_memory_are_fetched(void **state)
{
    struct kvw *k = *state;
    struct etcd_kv_config cfg = {.cache_bytes = 1}; /* nothing is kept */
    Etcdserverpb__PutRequest p = put_req("a", "");
    Etcdserverpb__RangeRequest r = range_req("a", NULL);
    Etcdserverpb__Compare c = cmp("a", "c", VALUE, EQ);
    struct got g;

    kvw_free(k);
    kvw_init(k, 2, &cfg);
    assert_true(kvw_up(k));
    do_put(k, "a", "1");
    do_put(k, "b", "2");
    c.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE;
    c.value = B("1");
    assert_false(txn_holds(k, &c));
    c.range_end = B("b");
    assert_true(txn_holds(k, &c));
    p.has_ignore_value = p.ignore_value = true;
    assert_true(kvw_apply(k, ETCD_OP_PUT, &p, &g));
    free(g.bytes);
    assert_memory_equal(get(k, &r)->kvs[0]->value.data, "1", 1);
    assert_int_equal(get(k, &r)->kvs[0]->version, 2);
}

/* ---- compaction ----------------------------------------------------------------------------- */

static void compaction_keeps_what_is_readable(void **state)
{
    struct kvw *k = *state;
    Etcdserverpb__RangeRequest r = range_req("a", NULL);
    struct got g;

    do_put(k, "a", "1");     /* 2 */
    do_put(k, "a", "2");     /* 3 */
    do_put(k, "b", "1");     /* 4 */
    do_delete(k, "b", NULL); /* 5 */
    do_put(k, "a", "3");     /* 6 */
    assert_int_equal(do_compact(k, 7, false).status, 11);
    assert_int_equal(do_compact(k, -1, false).status, 11);
    assert_int_equal(do_compact(k, 5, true).status, 0);
    assert_int_equal(do_compact(k, 5, false).status, 11);
    r.has_revision = true;
    r.revision = 4;
    g = kvw_range(k, &r);
    assert_string_equal(g.text, "etcdserver: mvcc: required revision has been compacted");
    r.revision = 5;
    assert_memory_equal(get(k, &r)->kvs[0]->value.data, "2", 1);
    r.revision = 0;
    assert_memory_equal(get(k, &r)->kvs[0]->value.data, "3", 1);
    assert_int_equal(etcd_kv_keys(k->kv), 1);
    kvw_close(k);
    assert_true(kvw_up(k));
    assert_int_equal(etcd_kv_compacted(k->kv), 5);
    assert_int_equal(etcd_kv_revision(k->kv), 6);
    r.revision = 5;
    assert_memory_equal(get(k, &r)->kvs[0]->value.data, "2", 1);
}

static void compaction_of_many_rows_goes_in_slices(void **state)
{
    struct kvw *k = *state;
    Etcdserverpb__RangeRequest r = range_req("k0", "l");
    uint64_t before;

    for (int i = 0; i < 6000; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "k%02d", i % 50);
        do_put(k, key, "some value that takes room in a page of the store");
    }
    before = etcd_kv_db_size_in_use(k->kv);
    assert_int_equal(do_compact(k, etcd_kv_revision(k->kv), true).status, 0);
    assert_int_equal(get(k, &r)->count, 50);
    assert_true(etcd_kv_db_size_in_use(k->kv) < before / 4);
}

/* The numbers are those that a real etcd 3.4.23 gave for this history (etcdctl endpoint hashkv). */
static void hashes_equal_those_of_etcd(void **state)
{
    struct kvw *k = *state;
    Etcdserverpb__PutRequest p1 = put_req("t1", "one"), p2 = put_req("t2", "two");
    Etcdserverpb__DeleteRangeRequest d = delete_req("key2", NULL);
    Etcdserverpb__RequestOp o1 = op(PUT, &p1), o2 = op(PUT, &p2), o3 = op(DELETE, &d);
    Etcdserverpb__RequestOp *ops[] = {&o1, &o2, &o3};
    Etcdserverpb__TxnRequest t = ETCDSERVERPB__TXN_REQUEST__INIT;
    struct got g;

    assert_int_equal(kvw_hash(k, 0), 1084519789u);
    for (int i = 1; i <= 5; i++) {
        char key[8], value[8];
        (void)snprintf(key, sizeof key, "key%d", i % 3);
        (void)snprintf(value, sizeof value, "value%d", i);
        do_put(k, key, value);
    }
    do_delete(k, "key1", NULL);
    do_put(k, "zed", "");
    assert_int_equal(kvw_hash(k, 0), 182720423u);
    assert_int_equal(kvw_hash(k, 4), 384183333u);
    t.n_success = 3;
    t.success = ops;
    assert_true(kvw_apply(k, ETCD_OP_TXN, &t, &g));
    free(g.bytes);
    assert_int_equal(kvw_hash(k, 0), 2806786715u);
    do_compact(k, 6, false);
    assert_int_equal(kvw_hash(k, 0), 2249234879u);
    do_put(k, "after", "x");
    assert_int_equal(kvw_hash(k, 0), 2736699694u);
    assert_int_equal(kvw_hash(k, 8), 2065557012u);
    g = kvw_read(k, kvw_do_hash, NULL, 5);
    assert_string_equal(g.text, "etcdserver: mvcc: required revision has been compacted");
    g = kvw_read(k, kvw_do_hash, NULL, 50);
    assert_string_equal(g.text, "etcdserver: mvcc: required revision is a future revision");
}

/* ---- numbers -------------------------------------------------------------------------------- */

static void quota_counts_what_is_live(void **state)
{
    struct kvw *k = *state;
    struct etcd_kv_config cfg = {.quota_bytes = 256 * 1024};
    static char big[65536];

    kvw_free(k);
    kvw_init(k, 3, &cfg);
    assert_true(kvw_up(k));
    memset(big, 'x', sizeof big - 1);
    assert_true(etcd_kv_room(k->kv, sizeof big + 256));
    for (int i = 0; i < 4; i++)
        do_put(k, "a", big);
    assert_false(etcd_kv_room(k->kv, sizeof big + 256));
    do_compact(k, etcd_kv_revision(k->kv), true);
    assert_true(etcd_kv_room(k->kv, sizeof big + 256));
}

static void large_values_are_sent_from_where_they_are(void **state)
{
    struct kvw *k = *state;
    static char big[200000];
    Etcdserverpb__RangeRequest r = range_req("a", "z");
    Etcdserverpb__RangeResponse *m;

    memset(big, 'y', sizeof big - 1);
    do_put(k, "a", "small");
    do_put(k, "b", big);
    do_put(k, "c", "small too");
    do_put(k, "d", big);
    m = get(k, &r);
    assert_int_equal(m->n_kvs, 4);
    assert_int_equal(m->kvs[3]->value.len, sizeof big - 1);
    assert_memory_equal(m->kvs[1]->value.data, big, sizeof big - 1);
    assert_memory_equal(m->kvs[2]->value.data, "small too", 9);
}

static void waiter_that_left_is_not_called(void **state)
{
    struct kvw *k = *state;
    struct etcd_waiter w = {.id = k->id + 1, .fn = NULL};

    assert_int_equal(etcd_kv_wait(k->kv, &w), BNS_OK);
    etcd_kv_unwait(k->kv, &w);
    etcd_kv_unwait(k->kv, &w); /* does no harm */
    assert_int_equal(do_put(k, "a", "1"), 2);
}

static void entries_that_are_not_requests_are_skipped(void **state)
{
    struct kvw *k = *state;
    static const char junk[] = "\xff\xff\xff garbage";

    for (uint8_t kind = 0; kind <= 1; kind++) {
        struct bns_rcbuf *b = bns_rcbuf_copy(bns_alloc_libc(), bns_slice(junk, sizeof junk));
        assert_true(kvw_apply_data(k, kind, b, NULL));
    }
    assert_int_equal(etcd_kv_applied(k->kv), 2);
    assert_int_equal(do_put(k, "a", "1"), 2);
}

/* Proposals are repeated, and flags change between two starts. */
static void what_a_member_publishes_replaces_what_it_published(void **state)
{
    static char *const urls[] = {"http://10.0.0.1:2379", "http://10.0.0.1:2379",
                                 "http://10.0.0.2:2379"};
    struct kvw *k = *state;

    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        Etcdserverpb__Attributes attr = ETCDSERVERPB__ATTRIBUTES__INIT;
        Etcdserverpb__ClusterMemberAttrSetRequest r =
            ETCDSERVERPB__CLUSTER_MEMBER_ATTR_SET_REQUEST__INIT;
        char *url = urls[i];

        attr.n_client_urls = 1;
        attr.client_urls = &url;
        r.has_member_id = true;
        r.member_id = 42;
        r.member_attributes = &attr;
        assert_true(kvw_apply(k, ETCD_OP_MEMBER_ATTR, &r, NULL));
        assert_true(do_checkpoint(k));
    }
    kvw_close(k);
    assert_true(kvw_up(k));
    assert_non_null(memmem(etcd_kv_member(k->kv, 42).ptr, etcd_kv_member(k->kv, 42).len, urls[2],
                           strlen(urls[2])));
    assert_int_equal(etcd_kv_revision(k->kv), 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(fresh_store_is_at_revision_1),
        T(put_then_get),
        T(old_revisions_are_read),
        T(delete_of_nothing_keeps_the_revision),
        T(put_options),
        T(range_options),
        T(ranges_of_keys),
        T(later_ops_see_earlier_writes_and_share_a_revision),
        T(compares),
        T(txn_errors_change_nothing),
        T(values_not_in_memory_are_fetched),
        T(compaction_keeps_what_is_readable),
        T(compaction_of_many_rows_goes_in_slices),
        T(hashes_equal_those_of_etcd),
        T(quota_counts_what_is_live),
        T(large_values_are_sent_from_where_they_are),
        T(waiter_that_left_is_not_called),
        T(entries_that_are_not_requests_are_skipped),
        T(what_a_member_publishes_replaces_what_it_published),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
