/* ops.c - what clients ask, and what the answers must be.
 *
 * Single-key operations go into the history, for the checker of linear orders at the end. Some
 * reads are asked of one member alone, with a token that names the highest revision that anybody
 * was told (bonsai-min-revision): they must fit into the same order. Besides,
 * every answer is held at once against all that is known:
 *   - the revision of an answer to a linearizable request is not below any that was told before
 *     the request began;
 *   - `seen` says what a key became at a revision, from whoever told it first: every later answer
 *     that shows this key at this revision must say the same, and a key read as of revision r must
 *     show its last change at or below r that is known.
 *
 * An answer other than OK means "nobody knows", but for the few texts that promise that nothing
 * happened.
 */
#include "daemon_int.h"

#include <stdio.h>
#include <stdlib.h>

#include "codec/pb.h"

#define PAD_EVERY 16u /* one value in so many is long */
#define PAD_BYTES 3000u

static const char *const paths[] = {
    [SIM_GET] = "/etcdserverpb.KV/Range",
    [SIM_PUT] = "/etcdserverpb.KV/Put",
    [SIM_CAS] = "/etcdserverpb.KV/Txn",
    [SIM_CAS_REV] = "/etcdserverpb.KV/Txn",
    [SIM_DELETE] = "/etcdserverpb.KV/DeleteRange",
    [SIM_OLD] = "/etcdserverpb.KV/Range",
    [SIM_RANGE] = "/etcdserverpb.KV/Range",
    [SIM_COMPACT] = "/etcdserverpb.KV/Compact",
    [SIM_SERIALIZABLE] = "/etcdserverpb.KV/Range",
    [SIM_HASH] = "/etcdserverpb.Maintenance/HashKV",
    [SIM_LEASED] = "/etcdserverpb.KV/Range",
};

/* ---- choosing -------------------------------------------------------------------------------- */

static enum sim_f choose_f(struct bns_prng *p)
{
    static const struct {
        unsigned weight;
        enum sim_f f;
    } t[] = {
        {30, SIM_GET}, {30, SIM_PUT},  {8, SIM_CAS},     {8, SIM_CAS_REV},      {6, SIM_DELETE},
        {6, SIM_OLD},  {5, SIM_RANGE}, {1, SIM_COMPACT}, {3, SIM_SERIALIZABLE}, {3, SIM_SCRAPE},
    };
    uint64_t dice = bns_prng_below(p, 100);
    size_t i = 0;

    while (dice >= t[i].weight)
        dice -= t[i++].weight;
    return t[i].f;
}

void sim_op_choose(struct sim_lane *l, struct bns_prng *p)
{
    struct etcd_sim *m = l->m;

    l->f = choose_f(p);
    l->server = sim_pick(m, p);
    l->key = (unsigned)bns_prng_below(p, m->cfg->keys);
    l->value = 0;
    l->expect = 0;
    l->rev = 0;
    if (l->f == SIM_PUT || l->f == SIM_CAS || l->f == SIM_CAS_REV)
        l->value = ++m->values;
    BNS_ASSERT(m->values < SIM_VALUES_MAX);
    if (l->f == SIM_CAS)
        l->expect = m->last[l->key];
    if (l->f == SIM_CAS_REV)
        l->rev = m->last[l->key] == 0 ? 0 : m->last_rev[l->key];
    if (l->f == SIM_OLD || l->f == SIM_COMPACT)
        l->rev = m->rev_known - (int64_t)bns_prng_below(p, l->f == SIM_OLD ? 40 : 100);
    if (l->f == SIM_COMPACT && l->rev > m->compact_asked)
        m->compact_asked = l->rev;
    if ((l->f == SIM_OLD || l->f == SIM_COMPACT) && l->rev < 1)
        l->f = SIM_GET;
    l->session = l->f == SIM_GET && bns_prng_chance(p, 0.2);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static size_t value_text(uint64_t id, char out[PAD_BYTES + 32])
{
    int len = snprintf(out, 32, "v%llu.", (unsigned long long)id); /* fits */
    size_t pad = id % PAD_EVERY == 0 ? PAD_BYTES : 0;

    for (size_t i = 0; i < pad; i++)
        out[(size_t)len + i] = (char)('a' + (id + i) % 26);
    return (size_t)len + pad;
}

/* 0: these are not the bytes of any value. */
static uint64_t value_id(ProtobufCBinaryData v)
{
    char want[PAD_BYTES + 32], head[32] = "";
    uint64_t id;

    memcpy(head, v.data, v.len < sizeof head - 1 ? v.len : sizeof head - 1);
    if (head[0] != 'v')
        return 0;
    id = strtoull(head + 1, NULL, 10);
    return value_text(id, want) == v.len && memcmp(want, v.data, v.len) == 0 ? id : 0;
}

static ProtobufCBinaryData bytes(const char *text)
{
    return (ProtobufCBinaryData){strlen(text), (uint8_t *)(uintptr_t)text};
}

static struct bns_slice pack(ProtobufCMessage *msg, struct bns_arena *arena)
{
    struct bns_slice out;

    bns_pb_drop_zeros(msg);
    BNS_ASSERT(bns_pb_pack_arena(msg, arena, &out) == BNS_OK);
    return out;
}

static struct bns_slice encode_range(const struct sim_lane *l, const char *key,
                                     struct bns_arena *arena)
{
    Etcdserverpb__RangeRequest r = ETCDSERVERPB__RANGE_REQUEST__INIT;

    r.has_key = r.has_range_end = r.has_revision = r.has_serializable = true;
    r.key = bytes(key);
    if (l->f == SIM_RANGE) {
        r.key = bytes("k");
        r.range_end = bytes("l");
    }
    if (l->f == SIM_LEASED) {
        r.key = bytes("l");
        r.range_end = bytes("m");
    }
    r.has_range_end = l->f == SIM_RANGE || l->f == SIM_LEASED;
    r.revision = l->f == SIM_OLD ? l->rev : 0;
    r.serializable = l->f == SIM_SERIALIZABLE || l->session;
    return pack(&r.base, arena);
}

static struct bns_slice encode_cas(const struct sim_lane *l, const Etcdserverpb__PutRequest *put,
                                   struct bns_arena *arena)
{
    Etcdserverpb__RangeRequest get = ETCDSERVERPB__RANGE_REQUEST__INIT;
    Etcdserverpb__RequestOp op = ETCDSERVERPB__REQUEST_OP__INIT;
    Etcdserverpb__RequestOp or_else = ETCDSERVERPB__REQUEST_OP__INIT;
    Etcdserverpb__Compare cmp = ETCDSERVERPB__COMPARE__INIT;
    Etcdserverpb__TxnRequest txn = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__RequestOp *ops[1] = {&op}, *elses[1] = {&or_else};
    Etcdserverpb__Compare *cmps[1] = {&cmp};
    char old[PAD_BYTES + 32];

    op.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    op.request_put = (Etcdserverpb__PutRequest *)(uintptr_t)put;
    cmp.has_key = cmp.has_target = true;
    cmp.key = put->key;
    if (l->f == SIM_CAS_REV) { /* 0: it must not be there */
        cmp.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__MOD;
        cmp.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION;
        cmp.mod_revision = l->rev;
    } else if (l->expect == 0) {
        cmp.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__CREATE;
        cmp.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION;
    } else {
        cmp.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__VALUE;
        cmp.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE;
        cmp.value = (ProtobufCBinaryData){value_text(l->expect, old), (uint8_t *)old};
    }
    get.has_key = true;
    get.key = put->key;
    or_else.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE;
    or_else.request_range = &get;
    txn.n_failure = 1;
    txn.failure = elses; /* so that one knows why */
    txn.n_compare = txn.n_success = 1;
    txn.compare = cmps;
    txn.success = ops;
    return pack(&txn.base, arena);
}

struct bns_slice sim_op_encode(const struct sim_lane *l, struct bns_arena *arena, const char **path)
{
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    Etcdserverpb__DeleteRangeRequest del = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;
    Etcdserverpb__CompactionRequest compact = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    char key[8], value[PAD_BYTES + 32];

    *path = paths[l->f];
    (void)snprintf(key, sizeof key, "k%u", l->key); /* fits */
    put.has_key = put.has_value = put.has_prev_kv = true;
    put.prev_kv = l->f == SIM_PUT && l->value % 2 == 0;
    put.key = bytes(key);
    put.value = (ProtobufCBinaryData){value_text(l->value, value), (uint8_t *)value};
    switch (l->f) {
    case SIM_PUT:
        return pack(&put.base, arena);
    case SIM_CAS:
    case SIM_CAS_REV:
        return encode_cas(l, &put, arena);
    case SIM_DELETE:
        del.has_key = del.has_prev_kv = true;
        del.prev_kv = true;
        del.key = bytes(key);
        return pack(&del.base, arena);
    case SIM_COMPACT:
        compact.has_revision = true;
        compact.revision = l->rev;
        return pack(&compact.base, arena);
    case SIM_HASH:
        return bns_slice(NULL, 0);
    default:
        return encode_range(l, key, arena);
    }
}

/* ---- what is known --------------------------------------------------------------------------- */

/* Somebody was told that `key` became `value` at revision rev. */
static void observe(struct etcd_sim *m, unsigned key, int64_t rev, uint64_t value)
{
    uint64_t *at;

    if (rev <= 0 || rev >= SIM_REVS_MAX || key >= ETCD_SIM_KEYS_MAX) {
        sim_complain(m, "an answer names revision %lld of key %u", (long long)rev, key);
        return;
    }
    at = &m->seen[rev][key];
    if (*at != 0 && *at != value)
        sim_complain(m, "key k%u at revision %lld is v%llu for one client, v%llu for another", key,
                     (long long)rev, (unsigned long long)*at, (unsigned long long)value);
    if (*at == 0)
        m->seen_at[rev][key] = bns_history_count(m->history);
    *at = value;
    if (rev > m->rev_known) /* a watch told it, perhaps before any answer did */
        m->rev_known = rev;
}

/* `key` as of revision `at` shows its change of revision `mod` (0: it was not there). */
static void observe_state(struct etcd_sim *m, unsigned key, int64_t at, int64_t mod)
{
    if (mod > at) {
        sim_complain(m, "a read as of revision %lld shows a change of revision %lld", (long long)at,
                     (long long)mod);
        return;
    }
    if (mod == 0) { /* what is known to be there since the last deletion that is known? */
        for (mod = at; mod > 0 && m->seen[mod][key] == 0; mod--)
            ;
        if (mod > 0 && m->seen[mod][key] != SIM_GONE && m->deletes_open[key] == 0)
            sim_complain(m, "key k%u is not there at revision %lld, nobody deleted v%llu", key,
                         (long long)at, (unsigned long long)m->seen[mod][key]);
        return;
    }
    for (int64_t r = mod + 1; r <= at; r++) {
        if (m->seen[r][key] != 0)
            sim_complain(m, "key k%u as of revision %lld: v of %lld, its change at %lld is missing",
                         key, (long long)at, (long long)mod, (long long)r);
    }
}

/* A key as it was at revision `at`. */
void sim_observe_kv(struct etcd_sim *m, const Etcdserverpb__KeyValue *kv, bool gone)
{
    uint64_t id = gone ? SIM_GONE : value_id(kv->value);
    unsigned key = kv->key.len == 2 ? kv->key.data[1] - (unsigned)'0' : ETCD_SIM_KEYS_MAX;

    if (id == 0 || (!gone && id > m->values) || key >= m->cfg->keys)
        sim_complain(m, "an event holds a key or value that nobody wrote");
    else
        observe(m, key, kv->mod_revision, id);
}

static void decode_kv(struct sim_lane *l, const Etcdserverpb__KeyValue *kv, int64_t at)
{
    struct etcd_sim *m = l->m;
    uint64_t id = value_id(kv->value);
    unsigned key = kv->key.len == 2 && kv->key.data[0] == 'k' ? kv->key.data[1] - (unsigned)'0'
                                                              : ETCD_SIM_KEYS_MAX;

    if (id == 0 || id > m->values || key >= m->cfg->keys || (l->f != SIM_RANGE && key != l->key)) {
        sim_complain(m, "an answer holds a key or value that nobody wrote");
        return;
    }
    observe(m, key, kv->mod_revision, id);
    if (!m->failed)
        observe_state(m, key, at, kv->mod_revision);
    l->got_mod = kv->mod_revision;
    l->got_value = id;
    if (l->f == SIM_GET) {
        m->last[key] = id;
        m->last_rev[key] = kv->mod_revision;
    }
}

/* ---- answers --------------------------------------------------------------------------------- */

static void decode_range_at(struct sim_lane *l, const Etcdserverpb__RangeResponse *r, int64_t at)
{
    if (l->f != SIM_RANGE && r->n_kvs > 1)
        sim_complain(l->m, "one key was asked for, %zu came", r->n_kvs);
    for (size_t i = 0; i < r->n_kvs && !l->m->failed; i++)
        decode_kv(l, r->kvs[i], at);
    if (l->f != SIM_RANGE && r->n_kvs == 0 && at < SIM_REVS_MAX)
        observe_state(l->m, l->key, at, 0);
    if (l->f == SIM_GET && r->n_kvs == 0)
        l->m->last[l->key] = 0;
}

static void decode_range(struct sim_lane *l, const Etcdserverpb__RangeResponse *r)
{
    if (l->f == SIM_LEASED) {
        if (r->n_kvs > 0)
            sim_complain(l->m, "%zu keys on leases that nobody renews are left, the first is %.*s",
                         r->n_kvs, (int)r->kvs[0]->key.len, (const char *)r->kvs[0]->key.data);
        return;
    }
    decode_range_at(l, r, l->f == SIM_OLD ? l->rev : r->header->revision);
}

/* The answer shows what was there; NULL: nothing. */
static void decode_was(struct sim_lane *l, const Etcdserverpb__KeyValue *kv, int64_t at)
{
    l->was_known = true;
    if (kv == NULL)
        return;
    decode_kv(l, kv, at);
    l->was_value = l->got_value;
    l->was_rev = l->got_mod;
}

/* The comparison failed: the answer shows what is there. */
static void decode_txn(struct sim_lane *l, const Etcdserverpb__TxnResponse *r)
{
    l->got_yes = r->succeeded;
    if (r->n_responses != 1)
        sim_complain(l->m, "a transaction of one operation has %zu answers", r->n_responses);
    else if (!l->got_yes && r->responses[0]->response_range != NULL &&
             r->responses[0]->response_case == ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_RANGE) {
        decode_range_at(l, r->responses[0]->response_range, r->header->revision);
        l->was_known = true;
        l->was_value = l->got_value; /* nothing, if nothing came */
        l->was_rev = l->got_mod;
    }
}

static void decode_delete(struct sim_lane *l, const Etcdserverpb__DeleteRangeResponse *r)
{
    l->got_yes = r->deleted > 0;
    if ((size_t)r->deleted != r->n_prev_kvs)
        sim_complain(l->m, "%lld keys were deleted, %zu are shown", (long long)r->deleted,
                     r->n_prev_kvs);
    else if (l->got_yes)
        decode_was(l, r->prev_kvs[0], r->header->revision - 1);
}

static void decode_put(struct sim_lane *l, const Etcdserverpb__PutResponse *r)
{
    if (l->value % 2 == 0) /* it was asked for */
        decode_was(l, r->prev_kv, r->header->revision - 1);
    else if (r->prev_kv != NULL)
        sim_complain(l->m, "a put shows what was there, unasked");
}

static const ProtobufCMessageDescriptor *descriptor(enum sim_f f)
{
    switch (f) {
    case SIM_PUT:
        return &etcdserverpb__put_response__descriptor;
    case SIM_CAS:
    case SIM_CAS_REV:
        return &etcdserverpb__txn_response__descriptor;
    case SIM_DELETE:
        return &etcdserverpb__delete_range_response__descriptor;
    case SIM_COMPACT:
        return &etcdserverpb__compaction_response__descriptor;
    case SIM_HASH:
        return &etcdserverpb__hash_kvresponse__descriptor;
    default:
        return &etcdserverpb__range_response__descriptor;
    }
}

/* Every response begins with its header. */
static const Etcdserverpb__ResponseHeader *header_of(const ProtobufCMessage *msg)
{
    return ((const Etcdserverpb__PutResponse *)(const void *)msg)->header;
}

/* Is, or was: an answer may come late. */
static bool is_at(struct etcd_sim *m, uint64_t member, unsigned host)
{
    const struct sim_id *is = sim_id_find(m, member);

    return is != NULL && is->host == host;
}

void sim_op_decode(struct sim_lane *l, struct bns_slice msg)
{
    struct bns_arena arena;
    ProtobufCMessage *m = NULL;

    l->messages++;
    bns_arena_init(&arena, bns_alloc_libc(), 1024 * 1024);
    if (bns_pb_unpack(descriptor(l->f), msg, &arena, NULL, &m, NULL) != BNS_OK ||
        header_of(m) == NULL) {
        sim_complain(l->m, "n%u answered bytes that are no response", l->server);
        bns_arena_free(&arena);
        return;
    }
    l->got_rev = header_of(m)->revision;
    if (!is_at(l->m, header_of(m)->member_id, l->server))
        sim_complain(l->m, "another member than n%u answered", l->server);
    if (l->f == SIM_CAS || l->f == SIM_CAS_REV)
        decode_txn(l, (const Etcdserverpb__TxnResponse *)(const void *)m);
    else if (l->f == SIM_DELETE)
        decode_delete(l, (const Etcdserverpb__DeleteRangeResponse *)(const void *)m);
    else if (l->f == SIM_PUT)
        decode_put(l, (const Etcdserverpb__PutResponse *)(const void *)m);
    else if (l->f == SIM_HASH)
        l->got_hash = ((const Etcdserverpb__HashKVResponse *)(const void *)m)->hash;
    else if (descriptor(l->f) == &etcdserverpb__range_response__descriptor)
        decode_range(l, (const Etcdserverpb__RangeResponse *)(const void *)m);
    bns_arena_free(&arena);
}

/* A change that was answered with OK. */
static void acknowledged(struct sim_lane *l)
{
    struct etcd_sim *m = l->m;
    bool put = l->f == SIM_PUT || ((l->f == SIM_CAS || l->f == SIM_CAS_REV) && l->got_yes);

    if (!put && !(l->f == SIM_DELETE && l->got_yes))
        return;
    observe(m, l->key, l->got_rev, put ? l->value : SIM_GONE);
    m->last[l->key] = put ? l->value : 0;
    m->last_rev[l->key] = l->got_rev;
}

/* ---- the history ----------------------------------------------------------------------------- */

static const char *name_of(enum sim_f f)
{
    switch (f) {
    case SIM_GET:
        return "get";
    case SIM_PUT:
        return "put";
    case SIM_CAS:
    case SIM_CAS_REV:
        return "cas";
    case SIM_DELETE:
        return "delete";
    default:
        return NULL;
    }
}

static void record(struct sim_lane *l, enum bns_history_type type, const char *value)
{
    struct etcd_sim *m = l->m;
    char key[8];
    struct bns_history_event ev = {.time = bns_world_now(m->w),
                                   .process = l->process,
                                   .type = type,
                                   .f = name_of(l->f),
                                   .key = key,
                                   .value = value};

    (void)snprintf(key, sizeof key, "k%u", l->key); /* fits */
    BNS_ASSERT(bns_history_add(m->history, &ev) == BNS_OK);
}

static void id_text(uint64_t id, char out[32])
{
    (void)snprintf(out, 32, id == 0 ? "null" : "\"v%llu\"", (unsigned long long)id); /* fits */
}

void sim_op_invoked(struct sim_lane *l)
{
    char text[128], to[32], from[32];

    l->recorded = name_of(l->f) != NULL;
    if (l->f == SIM_DELETE)
        l->m->deletes_open[l->key]++;
    if (!l->recorded)
        return;
    id_text(l->value, to);
    id_text(l->expect, from);
    if (l->f == SIM_CAS)
        (void)snprintf(text, sizeof text, "{\"old\":%s,\"new\":%s}", from, to); /* fits */
    else if (l->f == SIM_CAS_REV)
        (void)snprintf(text, sizeof text, "{\"rev\":%lld,\"new\":%s}", (long long)l->rev,
                       to); /* fits */
    record(l, BNS_HIST_INVOKE,
           l->f == SIM_PUT ? to : (l->f == SIM_CAS || l->f == SIM_CAS_REV ? text : NULL));
}

/* ,"was":... of an answer that shows what was there; "" of others. */
static void was_text(const struct sim_lane *l, char out[96])
{
    char id[32];

    id_text(l->was_value, id);
    out[0] = '\0';
    if (l->was_known && l->was_value == 0)
        (void)snprintf(out, 96, ",\"was\":null"); /* fits; as does the other */
    else if (l->was_known)
        (void)snprintf(out, 96, ",\"was\":{\"value\":%s,\"rev\":%lld}", id, (long long)l->was_rev);
}

static void record_ok(struct sim_lane *l)
{
    char text[256], id[32], was[96];
    long long rev = (long long)l->got_rev, mod = (long long)l->got_mod;
    const char *flag = l->f == SIM_DELETE ? "deleted" : "swapped";

    id_text(l->f == SIM_GET ? l->got_value : l->value, id);
    was_text(l, was);
    if (l->f == SIM_GET) /* all of these fit */
        (void)snprintf(text, sizeof text, "{\"value\":%s,\"rev\":%lld,\"at\":%lld}", id, mod, rev);
    else if (l->f == SIM_PUT)
        (void)snprintf(text, sizeof text, "{\"value\":%s,\"rev\":%lld%s}", id, rev, was);
    else
        (void)snprintf(text, sizeof text, "{\"%s\":%s,\"%s\":%lld%s}", flag,
                       l->got_yes ? "true" : "false", l->got_yes ? "rev" : "at", rev, was);
    record(l, BNS_HIST_OK, text);
}

bool sim_op_definite(int status, const char *text)
{
    return sim_auth_refused(status, text) || status == BNS_GRPC_INVALID_ARGUMENT ||
           status == BNS_GRPC_OUT_OF_RANGE || status == BNS_GRPC_UNIMPLEMENTED ||
           (status == ETCD_LEARNER_STATUS && strcmp(text, ETCD_TEXT_LEARNER) == 0) ||
           (status == BNS_GRPC_RESOURCE_EXHAUSTED &&
            (strcmp(text, ETCD_TEXT_NOSPACE) == 0 ||
             strcmp(text, "etcdserver: too many requests") == 0));
}

static void check_ok(struct sim_lane *l)
{
    struct etcd_sim *m = l->m;
    bool linearizable = l->f != SIM_SERIALIZABLE && l->f != SIM_HASH;

    if (l->messages != 1)
        sim_complain(m, "OK with %u messages for one request", l->messages);
    if (linearizable && l->got_rev < l->floor)
        sim_complain(m, "n%u answered at revision %lld, %lld was known before it was asked",
                     l->server, (long long)l->got_rev, (long long)l->floor);
    if (l->got_rev >= SIM_REVS_MAX)
        sim_complain(m, "the run is too long for the table of revisions");
    else if (l->got_rev > m->rev_known)
        m->rev_known = l->got_rev;
}

static void check_refused(struct sim_lane *l, int status, const char *text)
{
    bool gone = strstr(text, "compacted") != NULL;
    bool oom = l->m->cfg->world.nemesis.oom > 0 && strstr(text, "reset the stream") != NULL;

    if (l->m->cfg->auth && sim_auth_refused(status, text)) /* authority.c says whether rightly */
        return;
    if (oom) /* the server had no memory left to say more */
        return;
    if (status != BNS_GRPC_OUT_OF_RANGE && status != BNS_GRPC_INVALID_ARGUMENT &&
        status != BNS_GRPC_UNIMPLEMENTED && status != BNS_GRPC_INTERNAL &&
        status != BNS_GRPC_DATA_LOSS)
        return;
    if (status == BNS_GRPC_OUT_OF_RANGE && gone &&
        ((l->f == SIM_OLD && l->rev < l->m->compact_asked) ||
         (l->f == SIM_COMPACT && l->rev <= l->m->compact_asked)))
        return;
    sim_complain(l->m, "n%u refused operation %d at revision %lld with %d: %s", l->server,
                 (int)l->f, (long long)l->rev, status, text);
}

void sim_op_ended(struct sim_lane *l, int status, const char *text)
{
    struct etcd_sim *m = l->m;
    bool fail = l->f == SIM_GET || sim_op_definite(status, text);

    if (m->cfg->auth)
        sim_auth_ended(l, status, text);
    if (status == BNS_GRPC_OK)
        check_ok(l);
    else
        check_refused(l, status, text);
    if (status == BNS_GRPC_OK && !m->failed)
        acknowledged(l);
    if (l->f == SIM_DELETE && (status == BNS_GRPC_OK || fail))
        m->deletes_open[l->key]--;
    if (status == BNS_GRPC_OK) {
        m->out->ops_ok++;
        if (bns_world_now(m->w) - l->begun_ns > m->out->slowest_ns)
            m->out->slowest_ns = bns_world_now(m->w) - l->begun_ns;
    } else if (fail) {
        m->out->ops_failed++;
    } else {
        m->out->ops_open++;
    }
    if (!l->recorded)
        return;
    if (status == BNS_GRPC_OK) {
        record_ok(l);
    } else {
        record(l, fail ? BNS_HIST_FAIL : BNS_HIST_INFO, NULL);
        if (!fail)
            l->process = m->process_next++;
    }
}
