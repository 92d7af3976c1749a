/* wal_model.h - what a WAL must hold: every batch appended, and which of them were acknowledged.
 *
 * A replay is compared record by record: order, lsn, type, group, bytes; whole batches only;
 * everything acknowledged and not released is there; the last hard state of a group is the one of
 * the last batch that is there. */
#ifndef BNS_TESTS_WAL_MODEL_H
#define BNS_TESTS_WAL_MODEL_H

#include "store/wal.h"
#include "store_env.h"

#define MODEL_MAX 4096
#define MODEL_GROUPS 3
#define MODEL_BATCH 4

struct model_record {
    uint64_t lsn, serial;
    uint32_t group, len;
    uint8_t type;
    bool batch_end, acked;
};

struct model_batch {
    struct bns_wal_append append;
    struct bns_wal_record records[MODEL_BATCH];
    uint8_t *bytes;
    size_t first; /* in model.records */
    struct model *model;
    bool busy;
};

struct model {
    struct model_record records[MODEL_MAX];
    size_t count;
    uint64_t serial;
    uint64_t released[MODEL_GROUPS]; /* first lsn needed */
    uint64_t acked_lsn;
    struct model_batch batches[64];
    struct bns_prng prng;
    bool got_error;
    int error_code;
    /* of the replay under way */
    size_t at;
    uint64_t replay_lsn_max;
    uint8_t state[MODEL_GROUPS][24];
    bool has_state[MODEL_GROUPS];
    const char *bad;
};

static inline void model_bytes(uint64_t serial, uint8_t *dst, size_t len)
{
    struct bns_prng p;
    bns_prng_seed(&p, serial * 77 + 5);
    for (size_t i = 0; i < len; i++)
        dst[i] = (uint8_t)bns_prng_next(&p);
}

static inline void model_init(struct model *m, uint64_t seed)
{
    memset(m, 0, sizeof *m);
    bns_prng_seed(&m->prng, seed);
}

static inline void model_free(struct model *m)
{
    for (size_t i = 0; i < 64; i++)
        free(m->batches[i].bytes);
}

/* After a crash nothing is in flight any more. */
static inline void model_reset_flight(struct model *m)
{
    for (size_t i = 0; i < 64; i++)
        m->batches[i].busy = false;
}

static void model_done(struct bns_wal_append *a, int code)
{
    struct model_batch *b = a->arg;
    struct model *m = b->model;

    b->busy = false;
    if (code != BNS_OK) {
        m->got_error = true;
        m->error_code = code;
        return;
    }
    if (a->lsn_last <= m->acked_lsn)
        m->bad = "acknowledged out of order";
    m->acked_lsn = a->lsn_last;
    for (size_t i = 0; i < a->records_count; i++)
        m->records[b->first + i].acked = true;
}

/* Appends one random batch of up to max_len bytes a record. */
static inline int model_append(struct model *m, struct bns_wal *w, uint32_t max_len)
{
    struct model_batch *b = NULL;
    size_t n = 1 + (size_t)bns_prng_below(&m->prng, MODEL_BATCH);
    size_t total = 0;
    int rv;

    for (size_t i = 0; i < 64 && b == NULL; i++)
        b = m->batches[i].busy ? NULL : &m->batches[i];
    if (b == NULL || m->count + n > MODEL_MAX)
        return BNS_E_BUSY;
    free(b->bytes);
    b->bytes = malloc((size_t)MODEL_BATCH * (max_len + 24));
    b->model = m;
    b->first = m->count;
    for (size_t i = 0; i < n; i++) {
        struct model_record *r = &m->records[m->count + i];
        uint64_t cut;
        *r = (struct model_record){.serial = ++m->serial, .batch_end = i + 1 == n};
        r->group = (uint32_t)bns_prng_below(&m->prng, MODEL_GROUPS);
        r->type = bns_prng_chance(&m->prng, 0.2) ? BNS_WAL_STATE : BNS_WAL_ENTRY;
        r->len = r->type == BNS_WAL_STATE ? 24 : (uint32_t)bns_prng_below(&m->prng, max_len + 1);
        model_bytes(r->serial, b->bytes + total, r->len);
        cut = bns_prng_below(&m->prng, (uint64_t)r->len + 1);
        b->records[i] = (struct bns_wal_record){.group = r->group, .type = r->type, .slices = 2};
        b->records[i].payload[0] = bns_slice(b->bytes + total, (size_t)cut);
        b->records[i].payload[1] = bns_slice(b->bytes + total + cut, r->len - (size_t)cut);
        total += r->len;
    }
    b->append = (struct bns_wal_append){
        .records = b->records, .records_count = n, .done = model_done, .arg = b};
    rv = bns_wal_append(w, &b->append);
    if (rv != BNS_OK)
        return rv;
    b->busy = true;
    for (size_t i = 0; i < n; i++)
        m->records[m->count + i].lsn = b->append.lsn_first + i;
    m->count += n;
    return BNS_OK;
}

/* Releases a group up to a random acknowledged record. */
static inline void model_release(struct model *m, struct bns_wal *w)
{
    uint32_t g = (uint32_t)bns_prng_below(&m->prng, MODEL_GROUPS);
    uint64_t lsn = bns_prng_below(&m->prng, m->acked_lsn + 1);

    if (lsn > m->released[g])
        m->released[g] = lsn;
    bns_wal_release(w, g, lsn);
}

static int model_replay(void *arg, uint64_t lsn, uint32_t group, uint8_t type,
                        struct bns_slice payload)
{
    struct model *m = arg;
    uint8_t *want;

    if (group >= MODEL_GROUPS) {
        m->bad = "unknown group";
        return BNS_OK;
    }
    if (type == BNS_WAL_STATE) {
        memcpy(m->state[group], payload.ptr, 24);
        m->has_state[group] = true;
    }
    while (m->at < m->count && m->records[m->at].lsn < lsn) {
        const struct model_record *r = &m->records[m->at];
        if (r->type != BNS_WAL_STATE && r->acked && r->lsn >= m->released[r->group])
            m->bad = "an acknowledged record is missing";
        m->at++;
    }
    if (m->at == m->count || m->records[m->at].lsn != lsn) {
        if (type != BNS_WAL_STATE) /* a checkpoint's state has the checkpoint's lsn */
            m->bad = "a record that was never appended";
        return BNS_OK;
    }
    want = malloc(m->records[m->at].len + 1);
    model_bytes(m->records[m->at].serial, want, m->records[m->at].len);
    if (m->records[m->at].group != group || m->records[m->at].type != type ||
        payload.len != m->records[m->at].len || memcmp(want, payload.ptr, payload.len) != 0)
        m->bad = "a record differs from what was appended";
    free(want);
    m->replay_lsn_max = lsn;
    m->at++;
    return BNS_OK;
}

static inline void model_replay_begin(struct model *m)
{
    m->at = 0;
    m->bad = NULL;
    m->replay_lsn_max = 0;
    memset(m->state, 0, sizeof m->state);
    memset(m->has_state, 0, sizeof m->has_state);
}

/* `next_lsn` of the log after the open: all before it is there. Forgets what was lost. */
static inline const char *model_replay_end(struct model *m, uint64_t next_lsn)
{
    uint8_t want[24];

    while (m->at < m->count && m->bad == NULL) {
        const struct model_record *r = &m->records[m->at++];
        if (r->acked && r->lsn >= next_lsn)
            m->bad = "the end of the log is lost though acknowledged";
        if (r->lsn < next_lsn && r->type != BNS_WAL_STATE && r->lsn >= m->released[r->group])
            m->bad = "a record inside the log is missing";
    }
    while (m->count > 0 && m->records[m->count - 1].lsn >= next_lsn)
        m->count--;
    if (m->bad == NULL && m->count > 0 && !m->records[m->count - 1].batch_end)
        m->bad = "half a batch is visible";
    for (uint32_t g = 0; g < MODEL_GROUPS && m->bad == NULL; g++) {
        size_t i = m->count;
        while (i > 0 && (m->records[i - 1].group != g || m->records[i - 1].type != BNS_WAL_STATE))
            i--;
        if (m->has_state[g] != (i > 0))
            m->bad = "a hard state is missing or invented";
        if (i == 0)
            continue;
        model_bytes(m->records[i - 1].serial, want, 24);
        if (memcmp(want, m->state[g], 24) != 0)
            m->bad = "a hard state is stale";
    }
    return m->bad;
}

/* Opens the log under "w", with the smallest segments, and compares it with the model. */
static inline struct bns_wal *model_open(struct senv *s, struct model *m, uint64_t reserve)
{
    struct bns_wal_config cfg = {
        .dir = "w", .segment_bytes_max = 64 * 1024, .reserve_bytes = reserve};
    struct bns_wal_stats st;
    struct bns_wal *w = NULL;
    struct bns_err err = {0};
    int rv;

    model_replay_begin(m);
    rv = bns_wal_open(&s->env, &cfg, model_replay, m, &w, &err);
    if (rv != BNS_OK)
        fail_msg("open: %s", err.text);
    bns_wal_stats(w, &st);
    if (model_replay_end(m, st.next_lsn) != NULL)
        fail_msg("replay: %s", m->bad);
    return w;
}

static inline struct bns_vfs *model_vfs(uint64_t seed)
{
    struct bns_vfs *v = NULL;
    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), seed, &v), BNS_OK);
    return v;
}

static void model_closed(void *arg)
{
    *(bool *)arg = true;
}

static inline void model_close(struct senv *s, struct bns_wal *w)
{
    bool closed = false;
    bns_wal_close(w, model_closed, &closed);
    senv_pump(s);
    assert_true(closed || s->dead);
}

#endif
