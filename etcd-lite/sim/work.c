/* work.c - what all kinds of work have in common: turns, calls, the history, its verdict.
 *
 * A worker rests, begins an operation, makes its calls one after another (between two of them it
 * may rest a little, so that others come between), rests again. Each answer must come from a
 * revision not below any that was known before the call. While the faults last calls have short
 * deadlines; long after them every call must succeed.
 */
#include "work.h"

#include "codec/pb.h"

#define CALL_MAX_NS (3 * BNS_SEC)
#define STRICT_CALL_NS (20 * BNS_SEC)
#define BETWEEN_NS (20 * BNS_MS)
#define BACKOFF_NS BNS_SEC

static const struct work_kind *const kinds[] = {
    [ETCD_SIM_WORK_APPEND] = &work_append,
    [ETCD_SIM_WORK_BANK] = &work_bank,
    [ETCD_SIM_WORK_SET] = &work_set,
    [ETCD_SIM_WORK_LOCK] = &work_lock,
};

static const struct work_kind *kind_of(const struct etcd_sim *m)
{
    return kinds[m->cfg->work];
}

/* ---- the history ----------------------------------------------------------------------------- */

static void add(struct etcd_sim *m, const struct bns_history_event *e)
{
    BNS_ASSERT(bns_history_add(m->work_history, e) == BNS_OK);
}

void work_record(struct sim_worker *w, enum bns_history_type type, const char *f, const char *key,
                 const char *value)
{
    struct bns_history_event e = {.time = bns_world_now(w->m->w),
                                  .process = w->process,
                                  .type = type,
                                  .f = f,
                                  .key = key,
                                  .value = value};

    add(w->m, &e);
    if (type == BNS_HIST_OK)
        w->m->out->work_ok++;
    if (type == BNS_HIST_INFO) {
        w->process = w->m->process_next++;
        w->m->out->work_open++;
    }
}

enum work_next work_lost(struct sim_worker *w, const char *f, const char *key, bool unknown)
{
    work_record(w, unknown ? BNS_HIST_INFO : BNS_HIST_FAIL, f, key, NULL);
    return WORK_DONE;
}

static void check(struct etcd_sim *m, const char *kind)
{
    struct bns_check_cfg cfg = {.alloc = bns_alloc_libc()};
    struct bns_verdict v;
    int rv = bns_check_history(m->work_history, kind, &cfg, &v);

    if (rv == BNS_E_TOOBIG)
        m->out->unchecked = true;
    else if (rv != BNS_OK)
        sim_complain(m, "%s: %s: %s", kind, v.anomaly == NULL ? "senseless" : v.anomaly, v.text);
}

static uint64_t count_acquired(const struct etcd_sim *m)
{
    uint64_t n = 0;

    for (size_t i = 0; i < bns_history_count(m->work_history); i++) {
        struct bns_history_event e = bns_history_at(m->work_history, i);

        n += e.type == BNS_HIST_OK && strcmp(e.f, "acquire") == 0;
    }
    return n;
}

void sim_work_check(struct etcd_sim *m)
{
    if (m->cfg->workers == 0)
        return;
    check(m, kind_of(m)->name);
    if (!m->failed && kind_of(m)->also != NULL)
        check(m, kind_of(m)->also);
    if (!m->failed && !m->out->unchecked)
        m->out->judged[ETCD_SIM_LOCKS] = count_acquired(m);
}

const char *sim_work_name(const struct etcd_sim_config *cfg)
{
    return cfg->workers == 0 ? "none" : kinds[cfg->work]->name;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

ProtobufCBinaryData work_bytes(const char *text)
{
    return (ProtobufCBinaryData){strlen(text), (uint8_t *)(uintptr_t)text};
}

struct bns_slice work_pack(ProtobufCMessage *msg, struct bns_arena *arena)
{
    struct bns_slice out;

    bns_pb_drop_zeros(msg);
    BNS_ASSERT(bns_pb_pack_arena(msg, arena, &out) == BNS_OK);
    return out;
}

static void fill_compare(const struct work_compare *c, Etcdserverpb__Compare *out)
{
    etcdserverpb__compare__init(out);
    out->has_key = out->has_target = true;
    out->key = work_bytes(c->key);
    switch (c->target) {
    case WORK_MOD:
        out->target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__MOD;
        out->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION;
        out->mod_revision = c->number;
        break;
    case WORK_VERSION:
        out->target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__VERSION;
        out->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION;
        out->version = c->number;
        break;
    case WORK_CREATE:
        out->target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__CREATE;
        out->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION;
        out->create_revision = c->number;
        break;
    default:
        out->target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__VALUE;
        out->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE;
        out->value = work_bytes(c->value);
        break;
    }
}

struct parts { /* of one request, for protobuf-c */
    Etcdserverpb__Compare compares[WORK_PARTS_MAX], *compares_at[WORK_PARTS_MAX];
    Etcdserverpb__RequestOp ops[WORK_PARTS_MAX], *ops_at[WORK_PARTS_MAX];
    Etcdserverpb__RangeRequest gets[WORK_PARTS_MAX];
    Etcdserverpb__PutRequest puts[WORK_PARTS_MAX];
    Etcdserverpb__DeleteRangeRequest deletes[WORK_PARTS_MAX];
};

static void fill_part(const struct work_part *p, struct parts *x, size_t i)
{
    Etcdserverpb__RequestOp *op = &x->ops[i];

    etcdserverpb__request_op__init(op);
    x->ops_at[i] = op;
    if (p->what == WORK_PUT) {
        etcdserverpb__put_request__init(&x->puts[i]);
        x->puts[i].has_key = x->puts[i].has_value = x->puts[i].has_lease = true;
        x->puts[i].key = work_bytes(p->key);
        x->puts[i].value = work_bytes(p->value);
        x->puts[i].lease = p->lease;
        op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
        op->request_put = &x->puts[i];
    } else if (p->what == WORK_GET) {
        etcdserverpb__range_request__init(&x->gets[i]);
        x->gets[i].has_key = true;
        x->gets[i].key = work_bytes(p->key);
        op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE;
        op->request_range = &x->gets[i];
    } else {
        etcdserverpb__delete_range_request__init(&x->deletes[i]);
        x->deletes[i].has_key = true;
        x->deletes[i].key = work_bytes(p->key);
        op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
        op->request_delete_range = &x->deletes[i];
    }
}

struct bns_slice work_encode_txn(const struct work_txn *t, struct bns_arena *arena,
                                 const char **path)
{
    Etcdserverpb__TxnRequest txn = ETCDSERVERPB__TXN_REQUEST__INIT;
    struct parts x;

    *path = "/etcdserverpb.KV/Txn";
    for (size_t i = 0; i < t->compares_count; i++) {
        fill_compare(&t->compares[i], &x.compares[i]);
        x.compares_at[i] = &x.compares[i];
    }
    for (size_t i = 0; i < t->yes_count; i++)
        fill_part(&t->yes[i], &x, i);
    txn.n_compare = t->compares_count;
    txn.compare = x.compares_at;
    txn.n_success = t->yes_count;
    txn.success = x.ops_at;
    return work_pack(&txn.base, arena);
}

const Etcdserverpb__KeyValue *work_kv(const Etcdserverpb__TxnResponse *r, size_t i)
{
    const Etcdserverpb__ResponseOp *op = i < r->n_responses ? r->responses[i] : NULL;

    if (op == NULL || op->response_case != ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_RANGE)
        return NULL;
    return op->response_range->n_kvs == 0 ? NULL : op->response_range->kvs[0];
}

bool work_text(ProtobufCBinaryData v, char *out, size_t cap)
{
    if (v.len >= cap || memchr(v.data, '\0', v.len) != NULL)
        return false;
    memcpy(out, v.data, v.len);
    out[v.len] = '\0';
    return true;
}

/* ---- calls ----------------------------------------------------------------------------------- */

static void rest(struct sim_worker *w, uint64_t most_ns)
{
    struct bns_env *env = w->owner->env;

    bns_timer_start(env, &w->timer, bns_now_ns(env) + bns_prng_below(&env->prng, most_ns + 1));
}

/* Every response begins with its header. */
static const Etcdserverpb__ResponseHeader *header_of(const ProtobufCMessage *msg)
{
    return ((const Etcdserverpb__PutResponse *)(const void *)msg)->header;
}

static void on_message(struct bns_grpc_ccall *c, struct bns_slice msg)
{
    struct sim_worker *w = bns_grpc_ccall_arg(c);
    const struct work_kind *kind = kind_of(w->m);
    ProtobufCMessage *out = NULL;
    struct bns_arena arena;

    w->messages++;
    bns_arena_init(&arena, bns_alloc_libc(), 1024 * 1024);
    if (bns_pb_unpack(kind->answer(w), msg, &arena, NULL, &out, NULL) != BNS_OK ||
        header_of(out) == NULL) {
        sim_complain(w->m, "n%u answered a worker with bytes that are no response", w->server);
    } else {
        w->got_rev = header_of(out)->revision;
        kind->decode(w, out);
    }
    bns_arena_free(&arena);
}

static void check_status(struct sim_worker *w, int status, const char *text)
{
    struct etcd_sim *m = w->m;

    if (status == BNS_GRPC_OK && w->messages != 1)
        sim_complain(m, "OK with %u messages for one request of a worker", w->messages);
    if (status == BNS_GRPC_OK && w->got_rev < w->floor && !w->loose)
        sim_complain(m, "n%u answered a worker at revision %lld, %lld was known before", w->server,
                     (long long)w->got_rev, (long long)w->floor);
    if (status == BNS_GRPC_OK && w->got_rev > m->rev_known && w->got_rev < SIM_REVS_MAX)
        m->rev_known = w->got_rev;
    if (!w->strict || status == BNS_GRPC_OK || status == BNS_GRPC_OUT_OF_RANGE)
        return;
    if (status == BNS_GRPC_UNAVAILABLE && !w->owner->found_dead[w->server])
        w->owner->found_dead[w->server] = true; /* as for lanes */
    else
        sim_complain(m, "%s at n%u, long after the faults stopped, ended with %d: %s",
                     kind_of(m)->name, w->server, status, text);
}

static void on_status(struct bns_grpc_ccall *c, int status, const char *text)
{
    struct sim_worker *w = bns_grpc_ccall_arg(c);
    struct etcd_sim *m = w->m;

    if (m->phase == SIM_DONE || m->failed)
        return;
    bns_world_record_event(m->w, BNS_TRACE_REPLY, w->owner->id, w->op, text);
    check_status(w, status, text);
    if (sim_auth_refused(status, text))
        sim_creds_stale(w->owner, false);
    w->asking = kind_of(m)->ended(w, status, text) == WORK_ASK;
    if (w->asking) {
        rest(w, BETWEEN_NS);
        return;
    }
    m->busy--;
    rest(w, status == BNS_GRPC_OK ? m->cfg->think_ns : BACKOFF_NS);
}

static const struct bns_grpc_client_handler handler = {.on_message = on_message,
                                                       .on_status = on_status};

static void ask(struct sim_worker *w)
{
    struct etcd_sim *m = w->m;
    struct bns_env *env = w->owner->env;
    struct bns_grpc_call_options opt = {0};
    struct bns_arena arena;
    struct bns_slice req;

    w->op = ++m->ops;
    w->messages = 0;
    w->got_rev = 0;
    w->loose = w->got_yes = false;
    w->floor = m->rev_known;
    w->strict = m->phase >= SIM_STRICT;
    w->server = sim_pick(m, &env->prng);
    opt.deadline_ns =
        bns_now_ns(env) +
        (w->strict ? STRICT_CALL_NS : bns_prng_range(&env->prng, 50 * BNS_MS, CALL_MAX_NS));
    bns_world_record_event(m->w, BNS_TRACE_INVOKE, w->owner->id, w->op, kind_of(m)->name);
    sim_creds_use(w->owner, false, &opt);
    bns_arena_init(&arena, bns_alloc_libc(), 1024 * 1024);
    req = kind_of(m)->encode(w, &arena, &opt.path);
    if (bns_grpc_unary(w->owner->grpc[w->server], &opt, req, &handler, w) != BNS_OK)
        sim_complain(m, "the client has no memory");
    bns_arena_free(&arena);
}

static void turn(void *arg)
{
    struct sim_worker *w = arg;
    struct etcd_sim *m = w->m;

    if (m->phase == SIM_DONE || m->failed)
        return;
    if (!w->asking) {
        if (m->phase == SIM_FINAL)
            return; /* at rest */
        if (!kind_of(m)->begin(w)) {
            rest(w, m->cfg->think_ns);
            return;
        }
        w->asking = true;
        m->busy++;
    }
    ask(w);
}

void sim_worker_start(struct sim_client *o, unsigned number)
{
    struct sim_worker *w = &o->workers[number];

    w->m = o->m;
    w->owner = o;
    w->process = o->m->process_next++;
    bns_timer_init(&w->timer, turn, w);
    rest(w, 500 * BNS_MS);
}
