/* dir_kit.h - a log directory on the memory VFS, run by hand: each call here pumps until it is
 * answered. Batch number n of a partition is made from n alone (log_kit.h). */
#ifndef KAFKA_TESTS_DIR_KIT_H
#define KAFKA_TESTS_DIR_KIT_H

#include "tests/store_env.h"

#include "log/dir.h"
#include "log_kit.h"

#define DIR_PATH "data/kafka"

struct dirkit {
    struct senv s;
    struct bns_vfs *v;
    struct kafka_dir *d;
    struct kafka_dir_cfg cfg;
    struct kafka_part_cfg part;
    int code, closed;
    struct bns_err err;
    int advanced, failed;
};

static inline void dk_opened(void *arg, int code, const struct bns_err *err)
{
    struct dirkit *k = arg;

    k->code = code;
    k->err = *err;
}

static inline void dk_advance(void *arg, struct kafka_part *p)
{
    struct dirkit *k = arg;

    k->advanced += p != NULL;
    k->failed += p == NULL;
}

static inline void dk_part_cfg(void *arg, const struct kafka_part *p, struct kafka_part_cfg *out)
{
    (void)p;
    *out = ((struct dirkit *)arg)->part;
}

static inline void dk_init(struct dirkit *k, struct bns_vfs *v, uint64_t seed, int fail_at)
{
    memset(k, 0, sizeof *k);
    k->v = v;
    senv_init(&k->s, v, seed, fail_at);
    kafka_dir_cfg_default(&k->cfg);
    kafka_part_cfg_default(&k->part);
    k->part.log.segment_bytes = 2000;
    k->part.log.index_interval = 100;
    k->cfg.path = DIR_PATH;
    k->cfg.node_id = 1;
    k->cfg.on_advance = dk_advance;
    k->cfg.part_cfg = dk_part_cfg;
    k->cfg.arg = k;
}

/* Opens; k->d stays NULL when not even that began. */
static inline int dk_open(struct dirkit *k)
{
    int rv = kafka_dir_open(&k->s.env, &k->cfg, dk_opened, k, &k->d, &k->err);

    if (rv != BNS_OK)
        return k->code = rv;
    k->code = 1;
    senv_pump(&k->s);
    return k->code;
}

static inline void dk_closed(void *arg, int code, const struct bns_err *err)
{
    struct dirkit *k = arg;

    k->closed = 1;
    k->code = code;
    k->err = *err;
}

static inline int dk_close(struct dirkit *k)
{
    k->closed = 0;
    kafka_dir_close(k->d, dk_closed, k);
    senv_pump(&k->s);
    if (k->s.dead)
        return BNS_E_OFF;
    assert_int_equal(k->closed, 1);
    k->d = NULL;
    return k->code;
}

static inline struct kafka_part *dk_part(struct dirkit *k, const char *topic, int32_t index)
{
    return kafka_dir_find(k->d, bns_slice(topic, strlen(topic)), index);
}

static inline void dk_done(struct kafka_op *op)
{
    *(int *)op->arg += 1;
}

static inline struct kafka_uuid dk_id(uint8_t n)
{
    struct kafka_uuid id = {{0}};

    id.bytes[15] = n;
    return id;
}

/* 0, a number of Kafka's, or a negative code of ours less 1000: nothing was begun. */
#define DK_REFUSED(rv) ((rv)-1000)
#define DK_GONE (-2000) /* the node died */

static inline int dk_wait(struct dirkit *k, int rv, const struct kafka_op *op, const int *done)
{
    if (rv != BNS_OK)
        return DK_REFUSED(rv);
    senv_pump(&k->s);
    if (k->s.dead && *done == 0)
        return DK_GONE;
    assert_int_equal(*done, 1);
    return op->error;
}

static inline int dk_create(struct dirkit *k, const char *topic, int32_t index, uint8_t id)
{
    int done = 0;
    struct kafka_op_create op = {
        .op = {.done = dk_done, .arg = &done}, .index = index, .id = dk_id(id), .cfg = k->part};

    (void)snprintf(op.topic, sizeof op.topic, "%s", topic);
    return dk_wait(k, kafka_part_create(k->d, &op), &op.op, &done);
}

static inline int dk_delete(struct dirkit *k, struct kafka_part *p)
{
    int done = 0;
    struct kafka_op_delete op = {.op = {.done = dk_done, .arg = &done}};

    return dk_wait(k, kafka_part_delete(p, &op), &op.op, &done);
}

static inline int dk_append_bytes(struct dirkit *k, struct kafka_part *p, struct bns_buf *b,
                                  struct kafka_op_append *op)
{
    int done = 0;

    op->op.done = dk_done;
    op->op.arg = &done;
    op->bytes = b->ptr;
    op->len = b->len;
    return dk_wait(k, kafka_part_append(p, op), &op->op, &done);
}

/* Batch number n; *base: its offset. */
static inline int dk_append(struct dirkit *k, struct kafka_part *p, size_t n, int64_t *base)
{
    struct kafka_op_append op = {.leader_epoch = 0, .sync = true};
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    kit_make(n, &b);
    rv = dk_append_bytes(k, p, &b, &op);
    *base = op.base;
    bns_buf_free(&b);
    return rv;
}

static inline int dk_read(struct dirkit *k, struct kafka_part *p, int64_t offset, uint32_t max,
                          struct bns_buf *to)
{
    int done = 0;
    struct kafka_op_read op = {.op = {.done = dk_done, .arg = &done},
                               .offset = offset,
                               .below = INT64_MAX,
                               .bytes_max = max,
                               .one_at_least = true,
                               .to = to};

    return dk_wait(k, kafka_part_read(p, &op), &op.op, &done);
}

static inline int dk_delete_records(struct dirkit *k, struct kafka_part *p, int64_t offset)
{
    int done = 0;
    struct kafka_op_delete_records op = {.op = {.done = dk_done, .arg = &done}, .offset = offset};

    return dk_wait(k, kafka_part_delete_records(p, &op), &op.op, &done);
}

/* Is batch number n, whose bytes are at the front of *in, there at `offset`? Moves *in past it. */
static inline bool dk_is(struct bns_slice *in, size_t n, int64_t offset)
{
    struct kafka_batch b;
    struct bns_buf made;
    bool ok;

    if (kafka_batch_next(in, &b, NULL) != BNS_OK || !kafka_batch_crc_ok(&b))
        return false;
    bns_buf_init(&made, bns_alloc_libc(), 1 << 20);
    kit_make(n, &made);
    ok = b.base_offset == offset && made.len == b.bytes.len &&
         memcmp(b.bytes.ptr + 16, made.ptr + 16, made.len - 16) == 0;
    bns_buf_free(&made);
    return ok;
}

/* All of a partition from its beginning is batches number `first` and on; -1 when it is not; else
 * how many there are. */
static inline int dk_count(struct dirkit *k, struct kafka_part *p, size_t first)
{
    int64_t at = kafka_part_view(p)->begin;
    struct bns_buf b;
    int n = 0;

    bns_buf_init(&b, bns_alloc_libc(), 1 << 24);
    for (;;) {
        struct bns_slice in;
        bns_buf_clear(&b);
        if (dk_read(k, p, at, 1000, &b) != 0) {
            n = -1;
            break;
        }
        in = bns_buf_slice(&b);
        if (in.len == 0)
            break;
        while (n >= 0 && in.len > 0) {
            if (!dk_is(&in, first + (size_t)n, at))
                n = -2;
            else
                at += kit_records(first + (size_t)n);
            n++;
        }
        if (n < 0)
            break;
    }
    bns_buf_free(&b);
    return n >= 0 && at != kafka_part_view(p)->high_watermark ? -1 : n;
}

/* One record, made from `made`, of an idempotent producer. */
static inline void dk_make_from(int64_t id, int16_t epoch, int32_t sequence, size_t made,
                                struct bns_buf *out)
{
    struct kafka_batch like = {
        .producer_id = id, .producer_epoch = epoch, .base_sequence = sequence};
    struct kafka_record r = {.key = bns_slice(&made, sizeof made)};
    struct kafka_batch_writer w;
    uint8_t value[64];

    memset(value, (int)made, sizeof value);
    r.value = bns_slice(value, made % sizeof value);
    BNS_ASSERT(kafka_batch_begin(&w, out) == BNS_OK);
    BNS_ASSERT(kafka_batch_add(&w, KIT_TIME, &r) == BNS_OK);
    kafka_batch_end(&w, &like);
}

struct dk_names {
    char at[64][64];
    size_t count;
};

static inline int dk_take_snapshot(void *arg, const char *name)
{
    struct dk_names *n = arg;

    if (strstr(name, ".snapshot") != NULL && n->count < 64)
        (void)snprintf(n->at[n->count++], 64, "%s", name);
    return 0;
}

/* Damages every snapshot of a partition, or removes it. */
static inline void dk_each_snapshot(struct bns_vfs *v, const char *dir, bool damage)
{
    static struct dk_names n;
    char path[BNS_PATH_MAX];

    n.count = 0;
    assert_int_equal(bns_vfs_list(v, dir, dk_take_snapshot, &n, NULL), BNS_OK);
    assert_true(n.count > 0);
    for (size_t i = 0; i < n.count; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", dir, n.at[i]);
        assert_int_equal(damage ? bns_vfs_mem_flip(v, path, 9, 1) : bns_vfs_remove(v, path, NULL),
                         BNS_OK);
    }
}

#endif
