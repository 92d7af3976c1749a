/* test_watch_model.c - random watches on a random history, against a list of all that happened.
 *
 * Goal:   each watch is told exactly the events of its range, from its start on, in order, each
 *         once, all of a revision at once, and no progress before them; or it is cancelled, and
 *         then what it was told before is a beginning of that.
 * Method: puts, deletes, transactions and compactions are applied while watches are opened at any
 *         revision, read or not read, cancelled, asked for progress. Between two steps the world
 *         runs for a few events only, so that reading history and new events meet in every order.
 *         Odd seeds keep nothing in memory: all comes from the store, in the smallest batches.
 * Bugs:   the two planted ones must be found by this test within a few seeds. */
#include "watch_world.h"

#define KEYS 7
#define ROWS_MAX 4000
#define SINKS 4
#define WATCHES 40
#define STEPS 400

struct row {
    int64_t main, create, version;
    int key, prev; /* prev: the row that it replaced, -1 = none alive */
    bool dead;
    char value[16];
};

struct watch {
    bool used, created, canceled, cut;
    int from, end; /* keys [from, end) */
    bool no_put, no_delete, prev_kv;
    int64_t start, last; /* last: revision of the last response's last event */
    size_t at;           /* the next row to be told */
    bool part;           /* a fragment came, more follows */
};

struct model {
    struct kvw k;
    struct bns_prng p;
    struct row rows[ROWS_MAX];
    size_t count;
    int alive[KEYS]; /* row, -1 */
    int64_t rev, compacted;
    struct sink sinks[SINKS];
    struct watch watches[SINKS][WATCHES];
    int64_t header[SINKS];
    char error[512];
    uint64_t events, fragments, progress, compacted_watches, slow; /* over all seeds */
};

static const char *const keys[KEYS + 1] = {"a", "b", "c", "d", "e", "f", "g", "h"};

static uint64_t draw(struct model *m, uint64_t n)
{
    return bns_prng_below(&m->p, n);
}

static void wrong(struct model *m, const char *fmt, ...)
{
    va_list ap;

    if (m->error[0] != 0)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(m->error, sizeof m->error, fmt, ap);
    va_end(ap);
}

/* ---- writes --------------------------------------------------------------------------------- */

static void model_row(struct model *m, int key, const char *value, int64_t main)
{
    struct row *r = &m->rows[m->count];
    int old = m->alive[key];

    assert_true(m->count < ROWS_MAX);
    *r = (struct row){.main = main, .key = key, .prev = old, .dead = value == NULL};
    if (value != NULL) {
        r->create = old < 0 ? main : m->rows[old].create;
        r->version = old < 0 ? 1 : m->rows[old].version + 1;
        (void)snprintf(r->value, sizeof r->value, "%s", value);
    }
    m->alive[key] = value == NULL ? -1 : (int)m->count;
    m->count++;
}

static void apply_now(struct model *m, enum etcd_op op, const void *req)
{
    struct kvw_write *x = calloc(1, sizeof *x);
    struct bns_slice bytes;

    assert_int_equal(bns_pb_pack_arena(req, &m->k.arena, &bytes), BNS_OK);
    x->k = &m->k;
    x->e = (struct bns_raft_entry){
        .index = m->k.index + 1,
        .term = 1,
        .data = etcd_internal_encode(bns_alloc_libc(), ++m->k.id, op, bytes)};
    assert_true(bns_world_call(m->k.w, 0, kvw_do_apply, x));
    assert_true(x->applied); /* does not wait for the store */
    bns_rcbuf_put(x->e.data);
    free(x);
}

static void write_something(struct model *m)
{
    Etcdserverpb__TxnRequest t = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__RequestOp op[KEYS], *ops[KEYS];
    Etcdserverpb__PutRequest put[KEYS];
    Etcdserverpb__DeleteRangeRequest del[KEYS];
    char value[KEYS][16];
    size_t before = m->count;
    int n = draw(m, 4) == 0 ? KEYS : 1, first = (int)draw(m, KEYS);

    for (int i = 0; i < n; i++) {
        int key = (first + i) % KEYS;
        op[t.n_success] = (Etcdserverpb__RequestOp)ETCDSERVERPB__REQUEST_OP__INIT;
        ops[t.n_success] = &op[t.n_success];
        if (draw(m, 3) == 0) {
            del[i] = delete_req(keys[key], NULL);
            op[t.n_success].request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
            op[t.n_success++].request_delete_range = &del[i];
            if (m->alive[key] >= 0)
                model_row(m, key, NULL, m->rev + 1);
        } else if (n == 1 || draw(m, 2) == 0) {
            (void)snprintf(value[i], sizeof value[i], "v%zu", m->count);
            put[i] = put_req(keys[key], value[i]);
            op[t.n_success].request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
            op[t.n_success++].request_put = &put[i];
            model_row(m, key, value[i], m->rev + 1);
        }
    }
    t.success = ops;
    apply_now(m, ETCD_OP_TXN, &t);
    m->rev += m->count > before;
    assert_int_equal(etcd_kv_revision(m->k.kv), m->rev);
}

static void compact_something(struct model *m)
{
    Etcdserverpb__CompactionRequest r = ETCDSERVERPB__COMPACTION_REQUEST__INIT;

    r.has_revision = true;
    r.revision = m->rev - (int64_t)draw(m, 12);
    if (r.revision <= m->compacted || r.revision < 1)
        return;
    m->compacted = r.revision;
    apply_now(m, ETCD_OP_COMPACT, &r);
}

/* ---- watches -------------------------------------------------------------------------------- */

static void open_watch(struct model *m, int s)
{
    Etcdserverpb__WatchCreateRequest__FilterType both[] = {0, 1};
    int id = (int)draw(m, WATCHES - 1) + 1;
    struct watch *w = &m->watches[s][id];
    int from = (int)draw(m, KEYS), end = from + 1 + (int)draw(m, (uint64_t)(KEYS - from));
    bool single = draw(m, 3) == 0;
    int64_t start = draw(m, 3) == 0 ? 0 : m->rev - 25 + (int64_t)draw(m, 30);
    Etcdserverpb__WatchCreateRequest c;
    Etcdserverpb__WatchRequest r;

    if (w->used)
        return;
    start = start < 0 ? 1 : start;
    if (single)
        end = from + 1;
    c = create_req(keys[from], single ? NULL : end == KEYS ? "" : keys[end], start);
    c.has_watch_id = true;
    c.watch_id = id;
    c.has_prev_kv = c.prev_kv = draw(m, 2) == 0;
    c.has_fragment = c.fragment = draw(m, 2) == 0;
    c.has_progress_notify = c.progress_notify = draw(m, 2) == 0;
    c.n_filters = draw(m, 6) == 0;
    c.filters = &both[draw(m, 2)];
    *w = (struct watch){.used = true, .from = from, .end = end, .prev_kv = c.prev_kv};
    w->no_put = c.n_filters > 0 && c.filters[0] == 0;
    w->no_delete = c.n_filters > 0 && c.filters[0] == 1;
    w->start = start == 0 ? m->rev + 1 : start;
    r = of_create(&c);
    sink_now(&m->sinks[s], sink_do_request, &r);
}

static void cancel_watch(struct model *m, int s)
{
    Etcdserverpb__WatchRequest r = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchCancelRequest c = ETCDSERVERPB__WATCH_CANCEL_REQUEST__INIT;

    c.has_watch_id = true;
    c.watch_id = 1 + (int64_t)draw(m, WATCHES - 1);
    r.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CANCEL_REQUEST;
    r.cancel_request = &c;
    sink_now(&m->sinks[s], sink_do_request, &r);
}

static void ask_progress(struct model *m, int s)
{
    Etcdserverpb__WatchRequest r = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchProgressRequest p = ETCDSERVERPB__WATCH_PROGRESS_REQUEST__INIT;

    r.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST;
    r.progress_request = &p;
    sink_now(&m->sinks[s], sink_do_request, &r);
}

/* ---- what is right -------------------------------------------------------------------------- */

static bool concerns(const struct watch *w, const struct row *r)
{
    return r->main >= w->start && r->key >= w->from && r->key < w->end &&
           !(r->dead ? w->no_delete : w->no_put);
}

/* The next row that w must be told, NULL when it knows all. */
static const struct row *expected(struct model *m, struct watch *w)
{
    while (w->at < m->count && !concerns(w, &m->rows[w->at]))
        w->at++;
    return w->at < m->count ? &m->rows[w->at] : NULL;
}

static bool same_bytes(ProtobufCBinaryData d, const char *s)
{
    return bns_slice_eq(bns_slice(d.data, d.len), bns_slice_str(s));
}

static void check_prev(struct model *m, const struct watch *w, const struct row *r,
                       const Etcdserverpb__KeyValue *prev)
{
    const struct row *old = r->prev < 0 ? NULL : &m->rows[r->prev];

    if (!w->prev_kv || old == NULL) {
        if (prev != NULL)
            wrong(m, "a previous value that is none, revision %lld", (long long)r->main);
        return;
    }
    if (prev == NULL && r->main - 1 >= m->compacted)
        wrong(m, "no previous value, revision %lld", (long long)r->main);
    if (prev != NULL && (prev->mod_revision != old->main || !same_bytes(prev->value, old->value)))
        wrong(m, "another previous value, revision %lld", (long long)r->main);
}

static void check_event(struct model *m, struct watch *w, const Etcdserverpb__Event *e)
{
    const struct row *r = expected(m, w);
    const Etcdserverpb__KeyValue *v = e->kv;

    if (r == NULL) {
        wrong(m, "an event too many: %.*s@%lld", (int)v->key.len, (const char *)v->key.data,
              (long long)v->mod_revision);
        return;
    }
    if (v->mod_revision != r->main || !same_bytes(v->key, keys[r->key]) ||
        (e->type == 1) != r->dead || !same_bytes(v->value, r->value) ||
        v->create_revision != r->create || v->version != r->version)
        wrong(m, "%s@%lld was due, but %.*s@%lld came (start %lld, last %lld, compacted %lld)",
              keys[r->key], (long long)r->main, (int)v->key.len, (const char *)v->key.data,
              (long long)v->mod_revision, (long long)w->start, (long long)w->last,
              (long long)m->compacted);
    check_prev(m, w, r, e->prev_kv);
    w->at++;
}

static void check_progress(struct model *m, struct watch *w, int64_t rev)
{
    const struct row *r = expected(m, w);

    m->progress++;
    if (!w->used || !w->created || w->canceled)
        return;
    if (r != NULL && r->main <= rev)
        wrong(m, "progress at %lld, but %s@%lld was not told", (long long)rev, keys[r->key],
              (long long)r->main);
    if (rev + 1 < w->start)
        wrong(m, "progress at %lld before the start at %lld", (long long)rev, (long long)w->start);
}

static void check_events(struct model *m, struct watch *w, const Etcdserverpb__WatchResponse *x)
{
    const struct row *next;

    if (!w->created)
        wrong(m, "events before created");
    if (x->events[0]->kv->mod_revision <= w->last && !w->part)
        wrong(m, "revision %lld came in two responses", (long long)w->last);
    for (size_t i = 0; i < x->n_events; i++)
        check_event(m, w, x->events[i]);
    m->events += x->n_events;
    m->fragments += x->fragment ? 1 : 0;
    w->part = x->fragment;
    w->last = x->events[x->n_events - 1]->kv->mod_revision;
    next = expected(m, w);
    if (!w->part && next != NULL && next->main == w->last)
        wrong(m, "revision %lld came in part", (long long)w->last);
    if (x->header->revision < w->last)
        wrong(m, "the header says %lld, the event %lld", (long long)x->header->revision,
              (long long)w->last);
}

static void check_response(struct model *m, int s, const Etcdserverpb__WatchResponse *x)
{
    struct watch *w = &m->watches[s][x->watch_id < 0 ? 0 : x->watch_id];
    int64_t rev = x->header->revision;

    if (rev < m->header[s] || rev > m->rev)
        wrong(m, "header revision %lld after %lld of %lld", (long long)rev, (long long)m->header[s],
              (long long)m->rev);
    m->header[s] = rev;
    if (x->created) {
        w->created = true;
    } else if (x->canceled && x->compact_revision != 0) {
        if (x->compact_revision <= w->start && x->compact_revision <= w->last + 1)
            wrong(m, "cancelled at %lld for nothing", (long long)x->compact_revision);
        w->canceled = true;
        m->compacted_watches++;
    } else if (x->canceled) {
        memset(w, 0, sizeof *w);
    } else if (x->n_events > 0) {
        check_events(m, w, x);
    } else {
        for (int i = 1; i < WATCHES; i++) {
            if (x->watch_id == -1 || x->watch_id == i)
                check_progress(m, &m->watches[s][i], rev);
        }
    }
}

static void look_at_slow(struct bns_env *env, void *arg)
{
    struct model *m = arg;
    struct etcd_watch_stats st;

    (void)env;
    etcd_watch_stats(m->k.kv, &st);
    m->slow += st.slow;
}

static void check_new(struct model *m)
{
    for (int s = 0; s < SINKS; s++) {
        struct sink *x = &m->sinks[s];
        for (; x->next < x->count && m->error[0] == 0; x->next++)
            check_response(m, s, x->got[x->next]);
    }
}

/* ---- a run ---------------------------------------------------------------------------------- */

static void setup(struct bns_env *env, void *arg)
{
    struct model *m = arg;
    bool odd = draw(m, 2) == 1;
    struct etcd_watch_config cfg = {.progress_ns = 20 * BNS_MS,
                                    .fragment_bytes = 200,
                                    .recent_bytes = odd ? 1 : 0,
                                    .batch_bytes = odd ? 1 : 0,
                                    .queue_bytes = draw(m, 2) ? 300 : 0};

    (void)env;
    etcd_watch_setup(m->k.kv, &cfg);
}

static void set_mutant(struct bns_env *env, void *arg)
{
    env->mutant = *(uint32_t *)arg;
}

static void some_time(struct model *m, uint64_t ns)
{
    (void)bns_world_run(m->k.w, bns_world_now(m->k.w) + ns, NULL, NULL);
}

static void one_step(struct model *m)
{
    int s = (int)draw(m, SINKS);
    uint64_t d = draw(m, 100);

    if (d < 50)
        write_something(m);
    else if (d < 65)
        open_watch(m, s);
    else if (d < 70)
        cancel_watch(m, s);
    else if (d < 75)
        ask_progress(m, s);
    else if (d < 79)
        compact_something(m);
    else if (d < 84)
        m->sinks[s].hold = true;
    else if (d < 89)
        sink_now(&m->sinks[s], sink_do_read, NULL);
    else if (d < 95)
        some_time(m, draw(m, 30) * BNS_MS);
    m->sinks[s].hold = m->sinks[s].hold && draw(m, 20) > 0;
    for (uint64_t n = draw(m, 4); n > 0; n--)
        (void)bns_world_step(m->k.w);
}

/* False: m->error says what was wrong. */
static bool run_seed(struct model *m, uint64_t seed, uint32_t mutant)
{
    struct etcd_kv_config cfg = {.cache_bytes = seed % 2 == 0 ? 1 : 0};

    memset(m, 0, offsetof(struct model, events));
    m->rev = 1;
    m->compacted = -1;
    for (int i = 0; i < KEYS; i++)
        m->alive[i] = -1;
    bns_prng_seed(&m->p, seed);
    kvw_init(&m->k, seed, &cfg);
    assert_true(kvw_up(&m->k));
    assert_true(bns_world_call(m->k.w, 0, set_mutant, &mutant));
    assert_true(bns_world_call(m->k.w, 0, setup, m));
    for (int s = 0; s < SINKS; s++)
        sink_open(&m->sinks[s], &m->k);
    for (int s = 0; s < SINKS; s++)
        m->sinks[s].low = 300;
    for (int i = 0; i < STEPS && m->error[0] == 0; i++) {
        one_step(m);
        check_new(m);
        assert_true(bns_world_call(m->k.w, 0, look_at_slow, m));
    }
    for (int i = 0; i < 40; i++) { /* all is read */
        for (int s = 0; s < SINKS; s++) {
            m->sinks[s].hold = false;
            sink_now(&m->sinks[s], sink_do_read, NULL);
        }
        some_time(m, BNS_SEC);
        check_new(m);
    }
    for (int s = 0; s < SINKS; s++) {
        for (int i = 1; i < WATCHES; i++) {
            struct watch *w = &m->watches[s][i];
            const struct row *r = w->used && !w->canceled ? expected(m, w) : NULL;
            if (r != NULL)
                wrong(m, "%s@%lld never came", keys[r->key], (long long)r->main);
        }
    }
    for (int s = 0; s < SINKS; s++)
        sink_now(&m->sinks[s], sink_do_close, NULL);
    for (int s = 0; s < SINKS; s++)
        sink_close(&m->sinks[s]);
    kvw_free(&m->k);
    return m->error[0] == 0;
}

static struct model model;

static void watches_are_told_what_happened(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 80; seed++) {
        if (!run_seed(&model, seed, 0))
            fail_msg("seed %llu: %s", (unsigned long long)seed, model.error);
    }
    print_message("  %llu events, %llu fragments, %llu of progress, %llu watches compacted away\n",
                  (unsigned long long)model.events, (unsigned long long)model.fragments,
                  (unsigned long long)model.progress, (unsigned long long)model.compacted_watches);
    assert_true(model.events > 50000);
    assert_true(model.fragments > 100);
    assert_true(model.progress > 1000);
    assert_true(model.compacted_watches > 100);
    assert_true(model.slow > 1000);
}

static void planted_bugs_are_found(void **state)
{
    static const uint32_t planted[] = {ETCD_MUTANT_WATCH_GAP, ETCD_MUTANT_WATCH_PROGRESS};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        uint64_t seed = 1;
        while (seed <= 80 && run_seed(&model, seed, planted[i]))
            seed++;
        print_message("  %u: seed %llu: %s\n", planted[i], (unsigned long long)seed, model.error);
        assert_true(seed <= 80);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(watches_are_told_what_happened),
        cmocka_unit_test(planted_bugs_are_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
