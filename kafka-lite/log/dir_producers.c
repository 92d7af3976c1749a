/* dir_producers.c - a partition's producers on disk: snapshots beside its segments, and replay.
 *
 * A snapshot `<offset>.snapshot` is written before a new segment begins at that offset, and at a
 * clean stop at the end. An open takes the newest that can be read and is not behind the end, and
 * replays the heads of the batches from its offset on; so the state is that of the log, whatever a
 * crash left. Snapshots behind the end, and those before the first segment, are unlinked; none is
 * needed to be right: without any the whole log is replayed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "log/dir_int.h"

#define SNAPSHOT_BYTES_MAX (64u << 20)
#define NAME_DIGITS 20u
#define NAMES_MAX 256u /* offsets that are looked at in one go */

struct offsets {
    int64_t at[NAMES_MAX];
    size_t count;
    int64_t below; /* only these */
};

static bool offset_of(const char *name, int64_t *out)
{
    int64_t v = 0;

    if (strlen(name) != NAME_DIGITS + 9 || strcmp(name + NAME_DIGITS, ".snapshot") != 0)
        return false;
    for (size_t i = 0; i < NAME_DIGITS; i++)
        if (name[i] < '0' || name[i] > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, name[i] - '0', &v))
            return false;
    *out = v;
    return true;
}

/* Names come in order: the greatest NAMES_MAX stay. */
static int take_offset(void *arg, const char *name)
{
    struct offsets *o = arg;
    int64_t offset;

    if (!offset_of(name, &offset) || offset >= o->below)
        return 0;
    if (o->count == NAMES_MAX) {
        memmove(o->at, o->at + 1, (NAMES_MAX - 1) * sizeof o->at[0]);
        o->count--;
    }
    o->at[o->count++] = offset;
    return 0;
}

static int remove_one(struct kafka_part *p, int64_t offset, struct bns_err *err)
{
    char path[BNS_PATH_MAX];
    int rv = kafka_home_path(&p->log->dir, offset, ".snapshot", path, err);

    if (rv == BNS_OK)
        rv = bns_vfs_remove(p->log->dir.vfs, path, err);
    return rv == BNS_E_NOTFOUND ? BNS_OK : rv;
}

int kafka_part_snapshot(struct kafka_part *p, int64_t offset, struct bns_err *err)
{
    char name[32];
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, p->log->dir.alloc, SNAPSHOT_BYTES_MAX);
    rv = kafka_producers_encode(&p->producers, &b);
    if (rv == BNS_OK) {
        (void)snprintf(name, sizeof name, "%020" PRId64 ".snapshot", offset); /* it fits */
        rv = kafka_file_replace(p->log->dir.vfs, p->log->dir.path, name, bns_buf_slice(&b), err);
    } else {
        rv = bns_err_set(err, rv, "%s: no memory for a snapshot of producers", p->log->dir.path);
    }
    bns_buf_free(&b);
    return rv;
}

static int on_roll(void *arg, int64_t base, struct bns_err *err)
{
    return kafka_part_snapshot(arg, base, err);
}

/* ---- opening --------------------------------------------------------------------------------- */

static int load_one(struct kafka_part *p, int64_t offset, struct bns_err *err)
{
    char name[32];
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, p->log->dir.alloc, SNAPSHOT_BYTES_MAX + 1);
    (void)snprintf(name, sizeof name, "%020" PRId64 ".snapshot", offset); /* it fits */
    rv = kafka_file_load(p->log->dir.vfs, p->log->dir.path, name, &b, err);
    if (rv == BNS_OK)
        rv = kafka_producers_decode(&p->producers, bns_buf_slice(&b), err);
    bns_buf_free(&b);
    return rv == BNS_E_TOOBIG || rv == BNS_E_NOTFOUND ? BNS_E_CORRUPT : rv;
}

static int replay_one(void *arg, const struct kafka_batch *b)
{
    struct kafka_part *p = arg;
    int rv;

    if (b->producer_id < 0)
        return BNS_OK;
    rv = kafka_producers_prepare(&p->producers, b->producer_id);
    if (rv == BNS_OK)
        kafka_producers_add(&p->producers, b);
    return rv;
}

/* The newest good snapshot. *from: its offset; that of the first segment when there is none. */
static int load_newest(struct kafka_part *p, struct offsets *o, int64_t *from, struct bns_err *err)
{
    int rv = BNS_OK;

    *from = p->log->segments[0]->base;
    for (size_t i = o->count; rv == BNS_OK && i-- > 0;) {
        if (o->at[i] <= p->log->end && o->at[i] >= *from) {
            rv = load_one(p, o->at[i], err);
            if (rv == BNS_OK) {
                *from = o->at[i];
                return BNS_OK;
            }
            if (rv != BNS_E_CORRUPT)
                return rv;
        }
        rv = remove_one(p, o->at[i], err); /* of another log's end, too old, or damaged */
    }
    return rv;
}

int kafka_part_load_producers(struct kafka_part *p, int64_t now_ms, struct bns_err *err)
{
    struct kafka_home *home = &p->log->dir;
    struct offsets *o = bns_alloc(home->alloc, sizeof *o);
    int64_t from = 0;
    int rv;

    kafka_producers_free(&p->producers);
    if (o == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for names", home->path);
    *o = (struct offsets){.below = INT64_MAX};
    rv = bns_vfs_list(home->vfs, home->path, take_offset, o, err);
    if (rv == BNS_OK)
        rv = load_newest(p, o, &from, err);
    bns_free(home->alloc, o);
    if (rv == BNS_OK)
        rv = kafka_log_heads(p->log, from, replay_one, p, err);
    if (rv != BNS_OK)
        return rv;
    kafka_producers_expire(&p->producers, now_ms, p->dir->cfg.producer_expiry_ms);
    kafka_log_on_roll(p->log, on_roll, p);
    return BNS_OK;
}

/* ---- retention ------------------------------------------------------------------------------- */

int kafka_part_trim_snapshots(struct kafka_part *p, struct bns_err *err)
{
    struct kafka_home *home = &p->log->dir;
    struct offsets *o = bns_alloc(home->alloc, sizeof *o);
    int rv;

    if (o == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for names", home->path);
    *o = (struct offsets){.below = p->log->segments[0]->base};
    rv = bns_vfs_list(home->vfs, home->path, take_offset, o, err);
    for (size_t i = 0; rv == BNS_OK && i < o->count; i++)
        rv = remove_one(p, o->at[i], err);
    bns_free(home->alloc, o);
    return rv;
}
