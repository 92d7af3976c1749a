/* test_turns.c - entries that take many turns of the loop are atomic at every boundary.
 *
 * Method: with one key a turn, a delete of a range, a transaction and the end of a lease are open
 * for dozens of events. The same run is made again and again, and after its n-th event, n = 1, 2,
 * 3 ..., something looks: a read, HashKV, watches old and new, TimeToLive, a snapshot that another
 * store installs, a crash after what was done so far has reached the disk. Each has to find the
 * state before the entry or the state after it, and which one must agree with the revision it
 * names. Both states come from stores that did each entry in one turn.
 * ctest: timeout=300 */
#include "kv_impl.h"
#include "kv_snap_world.h"
#include "watch_world.h"

enum big { BIG_DELETE, BIG_TXN, BIG_REVOKE, BIGS };
enum look { LOOK_READ, LOOK_HASH, LOOK_WATCH, LOOK_LEASE, LOOK_SNAPSHOT, LOOK_CRASH, LOOKS };

#define LEASE 7
#define TRIES_MAX 2000

/* What a store is, in numbers. */
struct print {
    int64_t revision;
    uint64_t keys, leases, digest, lease_keys;
    int64_t count;
    uint32_t hash;
};

/* ---- the entries ---------------------------------------------------------------------------- */

static Etcdserverpb__RequestOp op_put(Etcdserverpb__PutRequest *r)
{
    Etcdserverpb__RequestOp o = ETCDSERVERPB__REQUEST_OP__INIT;

    o.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    o.request_put = r;
    return o;
}
static Etcdserverpb__RequestOp op_delete(Etcdserverpb__DeleteRangeRequest *r)
{
    Etcdserverpb__RequestOp o = ETCDSERVERPB__REQUEST_OP__INIT;

    o.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
    o.request_delete_range = r;
    return o;
}
static Etcdserverpb__RequestOp op_range(Etcdserverpb__RangeRequest *r)
{
    Etcdserverpb__RequestOp o = ETCDSERVERPB__REQUEST_OP__INIT;

    o.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE;
    o.request_range = r;
    return o;
}
static Etcdserverpb__RequestOp op_txn(Etcdserverpb__TxnRequest *r)
{
    Etcdserverpb__RequestOp o = ETCDSERVERPB__REQUEST_OP__INIT;

    o.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN;
    o.request_txn = r;
    return o;
}

/* A put, a delete, a transaction inside with two deletes, a range that sees all that, a put. */
static struct bns_rcbuf *encode_txn(struct kvw *k)
{
    Etcdserverpb__PutRequest p1 = put_req("b00", "new"), p2 = put_req("zz", "last");
    Etcdserverpb__DeleteRangeRequest d1 = delete_req("a", "aq"), d2 = delete_req("b01", "b03");
    Etcdserverpb__DeleteRangeRequest d3 = delete_req("b03", NULL);
    Etcdserverpb__RangeRequest r = range_req("a", "");
    Etcdserverpb__TxnRequest inner = ETCDSERVERPB__TXN_REQUEST__INIT, t = inner;
    Etcdserverpb__RequestOp i1 = op_delete(&d2), i2 = op_delete(&d3);
    Etcdserverpb__RequestOp *inside[] = {&i1, &i2};
    Etcdserverpb__RequestOp o1 = op_put(&p1), o2 = op_delete(&d1), o3 = op_txn(&inner);
    Etcdserverpb__RequestOp o4 = op_range(&r), o5 = op_put(&p2);
    Etcdserverpb__RequestOp *ops[] = {&o1, &o2, &o3, &o4, &o5};
    struct bns_slice bytes;

    d1.has_prev_kv = d1.prev_kv = true;
    inner.n_success = 2;
    inner.success = inside;
    t.n_success = 5;
    t.success = ops;
    assert_int_equal(bns_pb_pack_arena(&t.base, &k->arena, &bytes), BNS_OK);
    return etcd_internal_encode(bns_alloc_libc(), 99, ETCD_OP_TXN, bytes);
}

static struct bns_rcbuf *encode(struct kvw *k, enum big what)
{
    Etcdserverpb__DeleteRangeRequest d = delete_req("a", "d");
    Etcdserverpb__LeaseRevokeRequest v = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    const ProtobufCMessage *m = what == BIG_DELETE ? &d.base : &v.base;
    struct bns_slice bytes;

    if (what == BIG_TXN)
        return encode_txn(k);
    v.has_id = true;
    v.id = LEASE;
    assert_int_equal(bns_pb_pack_arena(m, &k->arena, &bytes), BNS_OK);
    return etcd_internal_encode(bns_alloc_libc(), 99,
                                what == BIG_DELETE ? ETCD_OP_DELETE : ETCD_OP_LEASE_REVOKE, bytes);
}

static void lead(struct bns_env *env, void *arg)
{
    (void)env;
    etcd_kv_sm()->role(((struct kvw *)arg)->kv, BNS_RAFT_LEADER, 1, 1);
}

static void do_start_compaction(struct kvw *k, int64_t at)
{
    Etcdserverpb__CompactionRequest r = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    struct kvw_write x = {.k = k};
    struct bns_slice bytes;

    r.has_revision = true;
    r.revision = at;
    assert_int_equal(bns_pb_pack_arena(&r.base, &k->arena, &bytes), BNS_OK);
    x.e = (struct bns_raft_entry){
        .index = k->index + 1,
        .term = 1,
        .data = etcd_internal_encode(bns_alloc_libc(), 98, ETCD_OP_COMPACT, bytes)};
    assert_true(bns_world_call(k->w, 0, kvw_do_apply, &x));
    while (!x.applied && bns_world_step(k->w)) {
    }
    assert_true(x.applied);
    bns_rcbuf_put(x.e.data);
}

/* Keys on a lease, keys on none, dead keys between them, and a compaction that is under way. */
static void prepare(struct kvw *k)
{
    char key[16];

    assert_int_equal(do_grant(k, LEASE, 6000), 0);
    for (int i = 0; i < 12; i++) {
        (void)snprintf(key, sizeof key, "a%02d", i * 7 % 12);
        assert_int_equal(do_put_leased(k, key, LEASE), 0);
    }
    for (int i = 0; i < 4; i++) {
        (void)snprintf(key, sizeof key, "b%02d", i);
        (void)do_put(k, key, "b");
        (void)snprintf(key, sizeof key, "a%02dx", i * 3);
        (void)do_put(k, key, "dead");
    }
    for (int i = 0; i < 4; i++) {
        (void)snprintf(key, sizeof key, "a%02dx", i * 3);
        (void)do_delete(k, key, NULL);
    }
    (void)do_put(k, "e", "stays");
    assert_true(do_checkpoint(k));
    do_start_compaction(k, etcd_kv_revision(k->kv));
}

static void start(struct kvw *k, uint64_t seed, uint32_t turn, uint32_t mutant)
{
    struct etcd_kv_config cfg = {.turn_keys = turn, .queue_bytes = turn == 1 ? 1 : 0};

    struct bns_world_config wc = bns_world_calm(1);

    kvw_init(k, seed, &cfg);
    bns_world_free(k->w);
    wc.mutant = mutant;
    assert_int_equal(bns_world_new(seed, &wc, &k->w), BNS_OK);
    k->settle_ns = BNS_SEC; /* a leader's timers go on for ever */
    assert_true(kvw_up(k));
    assert_true(bns_world_call(k->w, 0, lead, k));
    prepare(k);
}

/* ---- looking -------------------------------------------------------------------------------- */

struct keys_of {
    struct etcd_lease_look l;
    struct bns_buf out;
    struct kvw *k;
    bool done;
    int code;
};

static void on_keys(struct etcd_lease_look *l, int code)
{
    struct keys_of *x = BNS_CONTAINER(l, struct keys_of, l);

    x->done = true;
    x->code = code;
}

static void do_keys(struct bns_env *env, void *arg)
{
    struct keys_of *x = arg;

    (void)env;
    bns_buf_init(&x->out, bns_alloc_libc(), SIZE_MAX / 2);
    x->l = (struct etcd_lease_look){.id = LEASE, .keys = true, .out = &x->out, .fn = on_keys};
    etcd_kv_lease_look(x->k->kv, &x->l);
}

/* How many keys hang on the lease: UINT64_MAX when it is gone. */
static uint64_t keys_count(struct keys_of *x)
{
    struct bns_slice msg = bns_buf_slice(&x->out);
    struct bns_pb_field f = {0};
    uint64_t n = 0;

    assert_true(x->done);
    while (x->code == BNS_OK && msg.len > 0) {
        assert_int_equal(bns_pb_next(&msg, &f), BNS_OK);
        n += f.id == 5;
    }
    bns_buf_free(&x->out);
    return x->code == BNS_OK ? n : UINT64_MAX;
}

static int64_t count_of(struct kvw *k, struct got *g)
{
    Etcdserverpb__RangeResponse *m;

    assert_true(g->done);
    m = kvw_decode(k, g, RANGE_DESC);
    return m->count;
}

static struct print print_of(struct kvw *k)
{
    Etcdserverpb__RangeRequest all = range_req("a", "");
    struct keys_of x = {.k = k};
    struct got g = kvw_range(k, &all);
    struct print p = {.revision = etcd_kv_revision(k->kv),
                      .keys = etcd_kv_keys(k->kv),
                      .leases = etcd_kv_lease_digest(k->kv),
                      .digest = etcd_kv_sm()->digest(k->kv),
                      .count = count_of(k, &g),
                      .hash = kvw_hash(k, 0)};

    assert_true(bns_world_call(k->w, 0, lead, k));
    assert_true(bns_world_call(k->w, 0, do_keys, &x));
    kvw_settle(k);
    p.lease_keys = keys_count(&x);
    return p;
}

static bool same(const struct print *a, const struct print *b)
{
    return a->revision == b->revision && a->keys == b->keys && a->leases == b->leases &&
           a->digest == b->digest && a->count == b->count && a->hash == b->hash &&
           a->lease_keys == b->lease_keys;
}

/* ---- one run -------------------------------------------------------------------------------- */

struct trial {
    struct kvw k;
    enum big what;
    struct print before, after;
    struct kvw_write x;
    struct got g;
    int n;
    char bad[160];
};

#define BAD(t, ...) (void)snprintf((t)->bad, sizeof(t)->bad, __VA_ARGS__)

/* The entry begins and goes on for n events. False: it is over before. */
static bool go(struct trial *t)
{
    t->x = (struct kvw_write){.k = &t->k, .g = &t->g};
    t->g = (struct got){0};
    t->k.id = 99;
    t->x.e =
        (struct bns_raft_entry){.index = t->k.index + 1, .term = 1, .data = encode(&t->k, t->what)};
    assert_true(bns_world_call(t->k.w, 0, kvw_do_apply, &t->x));
    for (int i = 0; i < t->n && !t->x.applied; i++)
        assert_true(bns_world_step(t->k.w));
    return !t->x.applied;
}

static void finish(struct trial *t)
{
    kvw_settle(&t->k);
    assert_true(t->x.applied);
    bns_rcbuf_put(t->x.e.data);
    t->x.e.data = NULL;
    free(t->g.bytes);
}

static void do_flush(struct bns_env *env, void *arg)
{
    (void)env;
    etcd_kv_flush(((struct trial *)arg)->k.kv);
}

static void look_read(struct trial *t)
{
    Etcdserverpb__RangeRequest all = range_req("a", "");
    struct got g = {0};
    struct kvw_call c = {.k = &t->k, .fn = kvw_do_range, .req = &all, .g = &g};
    const struct print *p;
    int64_t count;

    assert_true(kvw_call(&c));
    p = g.revision == t->before.revision ? &t->before : &t->after;
    count = count_of(&t->k, &g);
    if (g.revision != p->revision || count != p->count)
        BAD(t, "a read at %lld finds %lld keys", (long long)g.revision, (long long)count);
}

static void look_hash(struct trial *t)
{
    struct got g = {0};
    struct kvw_call c = {.k = &t->k, .fn = kvw_do_hash, .g = &g};
    Etcdserverpb__HashKVResponse *m;

    assert_true(kvw_call(&c));
    m = kvw_decode(&t->k, &g, HASH_DESC);
    if (m->hash != (m->hash_revision == t->before.revision ? t->before.hash : t->after.hash))
        BAD(t, "the hash at %lld is another", (long long)m->hash_revision);
}

static void look_lease(struct trial *t)
{
    struct keys_of x = {.k = &t->k};
    uint64_t n;

    assert_true(bns_world_call(t->k.w, 0, do_keys, &x));
    kvw_settle(&t->k);
    n = keys_count(&x);
    if (n != t->before.lease_keys && n != t->after.lease_keys)
        BAD(t, "the lease has %llu keys", (unsigned long long)n);
}

static void look_snapshot(struct trial *t)
{
    struct kvw b;
    struct snap s, y;
    struct print p;

    kvw_init(&b, 3, NULL);
    b.settle_ns = BNS_SEC;
    assert_true(kvw_up(&b));
    assert_true(bns_world_call(t->k.w, 0, do_flush, t));
    snap_take(&t->k, &s, false);
    y = s;
    y.k = &b;
    snap_install_all(&y);
    assert_int_equal(y.code, BNS_OK);
    assert_true(bns_world_call(b.w, 0, lead, &b));
    p = print_of(&b);
    if (!same(&p, s.meta.index == t->x.e.index ? &t->after : &t->before))
        BAD(t, "the snapshot at %llu has revision %lld, %llu keys",
            (unsigned long long)s.meta.index, (long long)p.revision, (unsigned long long)p.keys);
    free(s.file);
    kvw_free(&b);
}

/* What was done so far goes to the disk, then the process is killed. */
static void look_crash(struct trial *t)
{
    struct kvw_call c = {.k = &t->k, .fn = kvw_do_checkpoint};
    struct print p;
    uint64_t last = t->x.e.index;

    assert_true(bns_world_call(t->k.w, 0, kvw_in, &c));
    while (!c.done && bns_world_step(t->k.w)) {
    }
    assert_true(c.done);
    bns_world_kill(t->k.w, 0);
    kvw_settle(&t->k);
    free(t->g.bytes);
    memset(&t->g, 0, sizeof t->g);
    assert_true(kvw_up(&t->k));
    p = print_of(&t->k);
    if (!same(&p, etcd_kv_applied(t->k.kv) == last ? &t->after : &t->before)) {
        BAD(t, "after a crash: applied %llu, revision %lld, %llu keys",
            (unsigned long long)etcd_kv_applied(t->k.kv), (long long)p.revision,
            (unsigned long long)p.keys);
        return;
    }
    if (etcd_kv_applied(t->k.kv) == last)
        return;
    t->x.applied = false;
    t->x.g = NULL;
    assert_true(bns_world_call(t->k.w, 0, kvw_do_apply, &t->x));
    kvw_settle(&t->k);
    assert_true(t->x.applied);
}

/* All events of the revision in one response, to whoever watches from before it. */
static void judge_events(struct trial *t, struct sink *x, int64_t id, size_t events)
{
    size_t seen = 0;

    for (size_t i = 0; i < x->count; i++) {
        const Etcdserverpb__WatchResponse *m = x->got[i];
        if (m->watch_id != id || m->n_events == 0)
            continue;
        if (m->events[0]->kv->mod_revision != t->after.revision)
            continue;
        if (m->n_events != events || m->header->revision < t->after.revision)
            BAD(t, "watch %lld: %zu events of %zu at %lld", (long long)id, m->n_events, events,
                (long long)m->header->revision);
        seen++;
    }
    if (seen != (events > 0))
        BAD(t, "watch %lld: the revision came %zu times", (long long)id, seen);
}

/* Watches 0 (a range) and 1 (a key, from its beginning on) are there before, 2 and 3 come in the
 * middle, 4 is a range that begins with the revision to come. */
static void look_watch(struct trial *t)
{
    static const size_t of_all[BIGS] = {16, 17, 12};
    Etcdserverpb__WatchCreateRequest c;
    Etcdserverpb__WatchRequest r;
    int64_t revision;
    struct sink x;

    sink_open(&x, &t->k);
    do_watch(&x, "a", "", 0);
    do_watch(&x, "a05", NULL, t->before.revision);
    if (!go(t)) {
        t->n = TRIES_MAX;
    }
    revision = etcd_kv_revision(t->k.kv);
    c = create_req("a", "", 0);
    r = of_create(&c);
    sink_now(&x, sink_do_request, &r);
    c = create_req("a05", NULL, t->before.revision);
    r = of_create(&c);
    sink_now(&x, sink_do_request, &r);
    c = create_req("a", "", t->before.revision + 1);
    r = of_create(&c);
    sink_now(&x, sink_do_request, &r);
    do_progress(&x);
    finish(t);
    judge_events(t, &x, 0, of_all[t->what]);
    judge_events(t, &x, 1, 1);
    judge_events(t, &x, 2, revision == t->before.revision ? of_all[t->what] : 0);
    judge_events(t, &x, 3, 1);
    judge_events(t, &x, 4, of_all[t->what]);
    sink_close(&x);
}

/* What is wrong when `look` looks after n events; "" = nothing. *over: the entry ended before. */
static const char *one(enum big what, enum look look, int n, uint32_t mutant, bool *over)
{
    static const char *const names[] = {"read", "hash", "watch", "lease", "snapshot", "crash"};
    static void (*const fns[])(struct trial *) = {look_read,  look_hash,     NULL,
                                                  look_lease, look_snapshot, look_crash};
    static struct trial t;
    static char text[256];
    struct print p;

    t = (struct trial){.what = what, .n = n};
    for (int i = 0; i < 2; i++) { /* the two states, from a store that needs no second turn */
        start(&t.k, 1, 1024, 0);
        t.before = print_of(&t.k);
        if (i == 1) {
            t.n = 0;
            (void)go(&t);
            finish(&t);
            t.after = print_of(&t.k);
        }
        kvw_free(&t.k);
    }
    start(&t.k, 1, 1, mutant);
    t.n = n;
    t.bad[0] = 0;
    if (look == LOOK_WATCH) {
        look_watch(&t);
        *over = t.n == TRIES_MAX;
    } else {
        *over = !go(&t);
        fns[look](&t);
        if (look == LOOK_CRASH && t.k.kv != NULL) {
            bns_rcbuf_put(t.x.e.data);
        } else {
            finish(&t);
        }
    }
    p = t.bad[0] != 0 ? t.after : print_of(&t.k);
    if (!same(&p, &t.after))
        BAD(&t, "the end is another: revision %lld, %llu keys", (long long)p.revision,
            (unsigned long long)p.keys);
    kvw_free(&t.k);
    (void)snprintf(text, sizeof text, "%s after %d events of entry %d: %s", names[look], n, what,
                   t.bad);
    return t.bad[0] == 0 ? "" : text;
}

/* Events until the entry is over; 0: something was wrong, it is in *bad. */
static int sweep(enum big what, enum look look, uint32_t mutant, const char **bad)
{
    bool over = false;
    int n = 0;

    *bad = "";
    for (; !over && **bad == 0; n++)
        *bad = one(what, look, n, mutant, &over);
    return **bad == 0 ? n : 0;
}

static void nobody_sees_half_of_an_entry(void **state)
{
    const char *bad;

    (void)state;
    for (int what = 0; what < BIGS; what++) {
        for (int look = 0; look < LOOKS; look++) {
            int n = sweep((enum big)what, (enum look)look, 0, &bad);
            if (n == 0)
                fail_msg("%s", bad);
            assert_true(n >= 12); /* it was open for as many turns as it has keys */
        }
    }
}

static void the_planted_bugs_are_caught(void **state)
{
    const char *bad;

    (void)state;
    assert_int_equal(sweep(BIG_DELETE, LOOK_READ, ETCD_MUTANT_HALF_SEEN, &bad), 0);
    print_message("  %s\n", bad);
    assert_int_equal(sweep(BIG_REVOKE, LOOK_CRASH, ETCD_MUTANT_HALF_KEPT, &bad), 0);
    print_message("  %s\n", bad);
}

/* ---- very many ------------------------------------------------------------------------------ */

#define MANY 20000

static void put_many(struct kvw *k)
{
    static char keys[MANY / 4][16];
    static Etcdserverpb__PutRequest puts[MANY / 4];
    static Etcdserverpb__RequestOp ops[MANY / 4];
    static Etcdserverpb__RequestOp *list[MANY / 4];

    assert_int_equal(do_grant(k, LEASE, 6000), 0);
    for (int part = 0; part < 4; part++) {
        Etcdserverpb__TxnRequest t = ETCDSERVERPB__TXN_REQUEST__INIT;

        for (int i = 0; i < MANY / 4; i++) { /* in no order */
            (void)snprintf(keys[i], sizeof keys[i], "m%06d", (part * MANY / 4 + i) * 7919 % MANY);
            puts[i] = put_req(keys[i], "v");
            puts[i].has_lease = true;
            puts[i].lease = LEASE;
            ops[i] = op_put(&puts[i]);
            list[i] = &ops[i];
        }
        t.n_success = MANY / 4;
        t.success = list;
        assert_true(kvw_apply(k, ETCD_OP_TXN, &t, NULL));
    }
}

static void many(struct kvw *k, uint32_t turn)
{
    struct etcd_kv_config cfg = {.turn_keys = turn};

    kvw_init(k, 1, &cfg);
    k->settle_ns = BNS_SEC;
    assert_true(kvw_up(k));
    assert_true(bns_world_call(k->w, 0, lead, k));
    put_many(k);
}

/* TimeToLive begins, then the keys go: it has all of them, whatever turn it is in. */
static void the_keys_of_a_lease_are_those_of_one_revision(void **state)
{
    struct trial t = {.what = BIG_REVOKE};
    struct keys_of before = {.k = &t.k}, after = {.k = &t.k};

    (void)state;
    many(&t.k, 0);
    assert_true(bns_world_call(t.k.w, 0, do_keys, &before));
    assert_false(before.done);
    t.n = 0;
    (void)go(&t);
    assert_true(bns_world_call(t.k.w, 0, do_keys, &after));
    finish(&t);
    assert_true(keys_count(&before) == MANY);
    assert_true(keys_count(&after) == UINT64_MAX); /* the entry went first, the lease is gone */
    kvw_free(&t.k);
}

/* A look that is given up lets the entries go on. */
static void do_unlook(struct bns_env *env, void *arg)
{
    struct keys_of *x = arg;

    (void)env;
    etcd_kv_lease_unlook(x->k->kv, &x->l);
}

static void who_gives_up_asking_holds_nobody(void **state)
{
    struct trial t = {.what = BIG_DELETE};
    struct keys_of x = {.k = &t.k};

    (void)state;
    many(&t.k, 0);
    assert_true(bns_world_call(t.k.w, 0, do_keys, &x));
    (void)go(&t);
    assert_true(bns_world_call(t.k.w, 0, do_unlook, &x));
    finish(&t);
    assert_false(x.done);
    bns_buf_free(&x.out);
    kvw_free(&t.k);
}

/* The order of the rows does not depend on where the turns end. */
static void a_large_lease_ends_alike_in_turns_of_any_length(void **state)
{
    static const uint32_t turns[] = {1000000, 1024, 333};
    uint64_t digest[3];

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct kvw k;

        many(&k, turns[i]);
        assert_int_equal(do_revoke(&k, LEASE), 0);
        assert_int_equal(etcd_kv_keys(k.kv), 0);
        digest[i] = etcd_kv_sm()->digest(k.kv);
        kvw_free(&k);
    }
    assert_true(digest[0] == digest[1]);
    assert_true(digest[0] == digest[2]);
}

/* Its watches go some a turn, and nothing is sent to them any more. */
static void a_stream_with_very_many_watches_is_closed_in_turns(void **state)
{
    struct etcd_watch_stats stats;
    struct sink x, other;
    struct kvw k;

    (void)state;
    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    sink_open(&other, &k);
    do_watch(&other, "a", NULL, 0);
    sink_open(&x, &k);
    for (int i = 0; i < MANY; i++) {
        char key[16];
        Etcdserverpb__WatchCreateRequest c;
        Etcdserverpb__WatchRequest r;

        (void)snprintf(key, sizeof key, "w%05d", i);
        c = create_req(i % 2 == 0 ? "a" : key, NULL, 0);
        r = of_create(&c);
        sink_now(&x, sink_do_request, &r);
    }
    kvw_settle(&k);
    x.next = x.count;
    sink_now(&x, sink_do_close, NULL);
    etcd_watch_stats(k.kv, &stats);
    assert_true(stats.watches > MANY / 2);
    assert_int_equal(stats.streams, 1);
    (void)do_put(&k, "a", "1");
    etcd_watch_stats(k.kv, &stats);
    assert_int_equal(stats.watches, 1);
    assert_int_equal(stats.slow, 0);
    assert_int_equal(x.next, x.count);
    sink_expect(&other, "#0 rev=1 created");
    sink_expect(&other, "#0 rev=2 +a=1@2/2/1");
    sink_close(&x);
    sink_close(&other);
    kvw_free(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_sees_half_of_an_entry),
        cmocka_unit_test(the_planted_bugs_are_caught),
        cmocka_unit_test(the_keys_of_a_lease_are_those_of_one_revision),
        cmocka_unit_test(who_gives_up_asking_holds_nobody),
        cmocka_unit_test(a_large_lease_ends_alike_in_turns_of_any_length),
        cmocka_unit_test(a_stream_with_very_many_watches_is_closed_in_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
