/* dir_open.c - what is in a log directory: found, recovered, checkpointed, sealed, unlinked.
 *
 * Opening. Lock; meta.properties; was the last stop clean? .kafka_cleanshutdown is unlinked,
 * durably, before anything else is written. Every `<topic>-<n>` is a partition, with the topic id
 * of its partition.metadata; the checkpoints tell where each is durable and where it begins; they
 * are hints, except log-start-offset-checkpoint, which is the only place where DeleteRecords is
 * remembered. One that cannot be read: everything is scanned, nothing is deleted again. At the end
 * the checkpoints are written anew: what a partition that is gone had must not become that of a
 * namesake.
 *
 * Deleting. The rename to `<topic>-<n>.<id>-delete` decides, and is made durable; the files go
 * later, a few a step. A crash leaves a *-delete directory, which the next start goes on with.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "log/dir_int.h"

#define CLUSTER_LOG "__cluster_metadata" /* Kafka's own, of its controllers */
#define UNLINK_MAX 64u                   /* files in one step */
#define RETAIN_MAX KAFKA_CHANGED_MAX     /* partitions in one step */

/* ---- names ----------------------------------------------------------------------------------- */

static bool letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

bool kafka_part_parse(const char *name, char *topic, int32_t *index)
{
    const char *dash = strrchr(name, '-');
    int32_t v = 0;
    size_t len;

    if (dash == NULL || dash[1] == '\0' || (dash[1] == '0' && dash[2] != '\0'))
        return false;
    len = (size_t)(dash - name);
    if (len == 0 || len > KAFKA_TOPIC_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if (!letter(name[i]))
            return false;
    for (const char *c = dash + 1; *c != '\0'; c++)
        if (*c < '0' || *c > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, *c - '0', &v))
            return false;
    memcpy(topic, name, len);
    topic[len] = '\0';
    *index = v;
    return strcmp(topic, ".") != 0 && strcmp(topic, "..") != 0;
}

static bool is_deleted(const char *name)
{
    size_t len = strlen(name);

    return len > 40 && len < KAFKA_NAME_MAX && strcmp(name + len - 7, "-delete") == 0;
}

static int part_path(const struct kafka_part *p, char *to)
{
    int n = snprintf(to, BNS_PATH_MAX, "%s/%s-%" PRId32, p->dir->path, p->topic, p->index);

    return n < 0 || n >= BNS_PATH_MAX ? BNS_E_INVALID : BNS_OK;
}

/* ---- meta.properties ------------------------------------------------------------------------- */

static void random_id(const uint8_t *bytes, char *to)
{
    struct kafka_uuid id;

    memcpy(id.bytes, bytes, sizeof id.bytes);
    id.bytes[0] &= 0x7f; /* no '-' at the beginning: it would look like an option */
    id.bytes[6] = (uint8_t)((id.bytes[6] & 0x0f) | 0x40);
    id.bytes[8] = (uint8_t)((id.bytes[8] & 0x3f) | 0x80);
    kafka_uuid_text(&id, to);
}

static int check_meta(struct kafka_dir *d, const struct kafka_dir_id *m, struct bns_err *err)
{
    char node[16];

    (void)snprintf(node, sizeof node, "%" PRId32, d->cfg.node_id); /* it fits */
    if (strcmp(m->node_id, node) != 0)
        return bns_err_set(err, BNS_E_CONFLICT, "%s/%s: it is of node %s, not %s", d->path,
                           KAFKA_META_FILE, m->node_id, node);
    if (d->meta.cluster_id[0] != '\0' && strcmp(m->cluster_id, d->meta.cluster_id) != 0)
        return bns_err_set(err, BNS_E_CONFLICT, "%s/%s: it is of cluster %s, not %s", d->path,
                           KAFKA_META_FILE, m->cluster_id, d->meta.cluster_id);
    d->meta = *m;
    return BNS_OK;
}

static int meta(struct kafka_dir *d, struct bns_err *err)
{
    struct kafka_dir_id m;
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, d->env->alloc, 1 << 20);
    rv = kafka_file_load(d->env->vfs, d->path, KAFKA_META_FILE, &b, err);
    if (rv == BNS_OK) {
        rv = kafka_meta_parse(bns_buf_slice(&b), &m, err);
        if (rv == BNS_OK)
            rv = check_meta(d, &m, err);
    } else if (rv == BNS_E_NOTFOUND) {
        if (d->meta.cluster_id[0] == '\0')
            random_id(d->random, d->meta.cluster_id);
        random_id(d->random + 16, d->meta.directory_id);
        (void)snprintf(d->meta.node_id, sizeof d->meta.node_id, "%" PRId32, d->cfg.node_id);
        rv = kafka_meta_text(&b, &d->meta);
        if (rv == BNS_OK)
            rv = kafka_file_replace(d->env->vfs, d->path, KAFKA_META_FILE, bns_buf_slice(&b), err);
    }
    bns_buf_free(&b);
    return rv;
}

/* ---- what is there --------------------------------------------------------------------------- */

static int path_of(const struct kafka_dir *d, const char *name, char *to)
{
    int n = snprintf(to, BNS_PATH_MAX, "%s/%s", d->path, name);

    return n < 0 || n >= BNS_PATH_MAX ? BNS_E_INVALID : BNS_OK;
}

static int sync_parent(const struct kafka_dir *d, struct bns_err *err)
{
    char parent[BNS_PATH_MAX];
    const char *slash = strrchr(d->path, '/');

    (void)snprintf(parent, sizeof parent, "%.*s", /* it is shorter than the path */
                   slash == NULL ? 1 : (int)(slash - d->path), slash == NULL ? "." : d->path);
    return bns_vfs_sync_dir(d->env->vfs, parent[0] == '\0' ? "/" : parent, err);
}

static int take_clean(struct kafka_dir *d, struct bns_err *err)
{
    char path[BNS_PATH_MAX];
    int rv = path_of(d, KAFKA_CLEAN_FILE, path);

    if (rv == BNS_OK)
        rv = bns_vfs_remove(d->env->vfs, path, err);
    if (rv == BNS_E_NOTFOUND)
        return BNS_OK;
    d->clean = rv == BNS_OK;
    return rv == BNS_OK ? bns_vfs_sync_dir(d->env->vfs, d->path, err) : rv;
}

static int topic_id(struct kafka_part *p, struct bns_err *err)
{
    struct bns_slice id = {0};
    char path[BNS_PATH_MAX];
    struct bns_buf b;
    int rv = part_path(p, path);

    bns_buf_init(&b, p->dir->env->alloc, 4096);
    if (rv == BNS_OK)
        rv = kafka_file_load(p->dir->env->vfs, path, KAFKA_PARTITION_FILE, &b, err);
    if (rv == BNS_OK)
        rv = kafka_partition_parse(bns_buf_slice(&b), &id, err);
    if (rv == BNS_OK && !kafka_uuid_parse(&p->id, id))
        rv = bns_err_set(err, BNS_E_CORRUPT, "%s/%s: no topic id", path, KAFKA_PARTITION_FILE);
    bns_buf_free(&b);
    return rv == BNS_E_NOTFOUND ? BNS_OK : rv; /* without an id, or killed before it was written */
}

static int take_part(void *arg, const char *name)
{
    struct kafka_dir *d = arg;
    char topic[KAFKA_TOPIC_MAX + 1];
    struct kafka_part *p;
    int32_t index = 0;

    if (!kafka_part_parse(name, topic, &index) || strcmp(topic, CLUSTER_LOG) == 0)
        return BNS_OK;
    p = kafka_part_new(d, topic, index);
    if (p == NULL)
        return BNS_E_NOMEM;
    bns_list_push(&d->open, &p->node);
    return BNS_OK;
}

/* Those that are found wait in dir->open; they get their names when their ids are known. */
static int name_parts(struct kafka_dir *d, int rv, struct bns_err *err)
{
    BNS_LIST_EACH(n, &d->open)
    {
        struct kafka_part *p = BNS_CONTAINER(n, struct kafka_part, node);
        if (rv == BNS_OK)
            rv = topic_id(p, err);
        if (rv == BNS_OK)
            rv = kafka_part_name_it(p);
    }
    if (rv == BNS_OK)
        return BNS_OK;
    BNS_LIST_EACH(m, &d->open)
    {
        struct kafka_part *p = BNS_CONTAINER(m, struct kafka_part, node);
        bns_list_del(&p->node);
        kafka_part_free(p);
    }
    return rv;
}

int kafka_dir_scan(struct kafka_dir *d, struct kafka_step *s, struct bns_err *err)
{
    struct bns_vfs *vfs = d->env->vfs;
    char path[BNS_PATH_MAX];
    int rv = bns_vfs_mkdir(vfs, d->path, err);

    (void)s;
    if (rv == BNS_OK)
        rv = sync_parent(d, err);
    if (rv == BNS_OK)
        rv = path_of(d, ".lock", path);
    if (rv == BNS_OK)
        rv = bns_vfs_lock(vfs, path, &d->lock, err);
    if (rv == BNS_OK)
        rv = meta(d, err);
    if (rv == BNS_OK)
        rv = take_clean(d, err);
    if (rv == BNS_OK)
        rv = bns_vfs_list(vfs, d->path, take_part, d, err);
    return name_parts(d, rv, err);
}

/* ---- open ------------------------------------------------------------------------------------ */

struct points {
    struct kafka_dir *d;
    bool starts;
};

static int take_point(void *arg, struct bns_slice topic, int32_t index, int64_t offset)
{
    struct points *to = arg;
    struct kafka_part *p = kafka_dir_find_any(to->d, topic, index);

    if (p != NULL && to->starts)
        p->log_start = offset;
    else if (p != NULL)
        p->recovery_point = offset;
    return BNS_OK;
}

static int load_points(struct kafka_dir *d, bool starts, struct bns_err *err)
{
    struct points to = {d, starts};
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, d->env->alloc, KAFKA_CHECKPOINT_BYTES_MAX + 1);
    rv = kafka_file_load(d->env->vfs, d->path, starts ? KAFKA_START_FILE : KAFKA_RECOVERY_FILE, &b,
                         err);
    if (rv == BNS_OK)
        rv = kafka_checkpoint_parse(bns_buf_slice(&b), take_point, &to, err);
    bns_buf_free(&b);
    if (rv == BNS_E_CORRUPT) { /* from a crash of another program: ours are replaced whole */
        BNS_LIST_EACH(n, &d->open)
        {
            struct kafka_part *p = BNS_CONTAINER(n, struct kafka_part, node);
            if (starts)
                p->log_start = 0;
            else
                p->recovery_point = 0;
        }
        return BNS_OK;
    }
    return rv == BNS_E_NOTFOUND ? BNS_OK : rv;
}

int kafka_part_open(struct kafka_part *p, const char *topic_id, int64_t now_ms, struct bns_err *err)
{
    struct kafka_dir *d = p->dir;
    char path[BNS_PATH_MAX];
    struct kafka_log_start start = {.vfs = d->env->vfs,
                                    .alloc = d->env->alloc,
                                    .dir = path,
                                    .cfg = &p->now.log,
                                    .clean = d->clean,
                                    .recovery_point = p->recovery_point,
                                    .log_start = p->log_start,
                                    .now_ms = now_ms,
                                    .topic_id = topic_id};
    int rv = part_path(p, path);

    p->now.log.compacted = p->now.compact;
    if (rv == BNS_OK)
        rv = kafka_log_open(&start, &p->report, &p->log, err);
    if (rv == BNS_OK)
        rv = kafka_part_load_producers(p, now_ms, err);
    if (rv != BNS_OK) {
        kafka_log_close(p->log);
        p->log = NULL;
        return rv;
    }
    if (bns_list_empty(&p->node))
        bns_list_push(&d->open, &p->node);
    return BNS_OK;
}

int kafka_dir_load(struct kafka_dir *d, struct kafka_step *s, struct bns_err *err)
{
    int rv = load_points(d, false, err);

    if (rv == BNS_OK)
        rv = load_points(d, true, err);
    BNS_LIST_EACH(n, &d->open)
    {
        if (rv == BNS_OK)
            rv = kafka_part_open(BNS_CONTAINER(n, struct kafka_part, node), NULL, s->now_ms, err);
    }
    d->clean = false; /* partitions that are created from now on were never stopped */
    return rv == BNS_OK ? kafka_dir_checkpoint(d, s, err) : rv;
}

/* ---- checkpoints ----------------------------------------------------------------------------- */

enum point { POINT_RECOVERY, POINT_START, POINT_MARK };

static int64_t point_of(struct kafka_part *p, enum point which)
{
    struct kafka_part_view v = {0};

    kafka_dir_view(p, &v); /* the worker's own reads need no lock: only it moves these */
    return which == POINT_RECOVERY ? v.flushed : which == POINT_START ? v.begin : v.high_watermark;
}

static int save_points(struct kafka_dir *d, enum point which, const char *file, struct bns_err *err)
{
    struct bns_buf b;
    size_t count = 0;
    int rv;

    BNS_LIST_EACH(n, &d->open)
    {
        count++;
        (void)n;
    }
    bns_buf_init(&b, d->env->alloc, KAFKA_CHECKPOINT_BYTES_MAX);
    rv = kafka_checkpoint_begin(&b, count);
    BNS_LIST_EACH(m, &d->open)
    {
        struct kafka_part *p = BNS_CONTAINER(m, struct kafka_part, node);
        if (rv == BNS_OK)
            rv = kafka_checkpoint_add(&b, bns_slice(p->topic, strlen(p->topic)), p->index,
                                      point_of(p, which));
    }
    if (rv == BNS_OK)
        rv = kafka_file_replace(d->env->vfs, d->path, file, bns_buf_slice(&b), err);
    else
        rv = bns_err_set(err, rv, "%s/%s: no memory", d->path, file);
    bns_buf_free(&b);
    return rv;
}

int kafka_dir_save_starts(struct kafka_dir *d, struct bns_err *err)
{
    return save_points(d, POINT_START, KAFKA_START_FILE, err);
}

int kafka_dir_checkpoint(struct kafka_dir *d, struct kafka_step *s, struct bns_err *err)
{
    int rv = save_points(d, POINT_RECOVERY, KAFKA_RECOVERY_FILE, err);

    (void)s;
    if (rv == BNS_OK)
        rv = kafka_dir_save_starts(d, err);
    if (rv == BNS_OK)
        rv = save_points(d, POINT_MARK, KAFKA_MARK_FILE, err);
    return rv;
}

/* ---- close ----------------------------------------------------------------------------------- */

static int mark_clean(struct kafka_dir *d, struct bns_err *err)
{
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, d->env->alloc, 4096);
    rv = kafka_clean_text(&b, -1);
    if (rv == BNS_OK)
        rv = kafka_file_replace(d->env->vfs, d->path, KAFKA_CLEAN_FILE, bns_buf_slice(&b), err);
    bns_buf_free(&b);
    return rv;
}

int kafka_dir_seal(struct kafka_dir *d, struct kafka_step *s, struct bns_err *err)
{
    bool loaded = true;
    int rv = BNS_OK;

    if (d->broken)
        rv = bns_err_set(err, BNS_E_IO, "%s", d->broken_why.text);
    BNS_LIST_EACH(n, &d->open)
    {
        struct kafka_part *p = BNS_CONTAINER(n, struct kafka_part, node);
        loaded = loaded && p->log != NULL;
        if (rv == BNS_OK && p->log != NULL)
            rv = kafka_log_seal(p->log, err);
        if (rv == BNS_OK && p->log != NULL)
            rv = kafka_part_snapshot(p, p->log->end, err);
    }
    if (rv == BNS_OK && loaded && d->lock != NULL)
        rv = kafka_dir_checkpoint(d, s, err);
    BNS_LIST_EACH(m, &d->open)
    {
        struct kafka_part *p = BNS_CONTAINER(m, struct kafka_part, node);
        kafka_log_close(p->log);
        p->log = NULL;
        bns_list_del(&p->node);
    }
    if (rv == BNS_OK && loaded && d->lock != NULL)
        rv = mark_clean(d, err);
    bns_file_close(d->lock);
    d->lock = NULL;
    return rv;
}

/* ---- retention ------------------------------------------------------------------------------- */

static int retain_part(struct kafka_dir *d, struct kafka_part *p, int64_t now_ms,
                       struct bns_err *err)
{
    struct kafka_retention r = {
        .time_ms = p->now.retention_ms, .bytes = p->now.retention_bytes, .now_ms = now_ms};
    struct kafka_part_view v = {0};
    uint32_t removed = 0;
    int rv;

    BNS_ASSERT(pthread_mutex_lock(&p->lock) == 0);
    kafka_dir_view(p, &v);
    r.high_watermark = v.high_watermark;
    if (!p->now.retain) /* what DeleteRecords left behind goes all the same */
        r.time_ms = r.bytes = -1;
    rv = kafka_log_retain(p->log, &r, &removed, err);
    if (removed > 0) {
        struct kafka_changed *c = &d->changed[d->changed_count++];
        c->part = p;
        kafka_dir_view(p, &c->view);
    }
    if (rv == BNS_OK && removed > 0)
        rv = kafka_log_purge(p->log, err);
    if (rv == BNS_OK && removed > 0)
        rv = kafka_part_trim_snapshots(p, err);
    kafka_producers_expire(&p->producers, now_ms, d->cfg.producer_expiry_ms);
    if (kafka_log_failed(p->log))
        kafka_dir_break(d, rv, err);
    BNS_ASSERT(pthread_mutex_unlock(&p->lock) == 0);
    return rv;
}

int kafka_dir_retain(struct kafka_dir *d, struct kafka_step *s, struct bns_err *err)
{
    struct bns_list *n = d->retained == NULL ? d->open.next : d->retained->next;
    int rv = BNS_OK;

    d->changed_count = 0;
    d->retained = NULL;
    for (size_t i = 0; rv == BNS_OK && !d->broken && i < RETAIN_MAX && n != &d->open; i++) {
        rv = retain_part(d, BNS_CONTAINER(n, struct kafka_part, node), s->now_ms, err);
        d->retained = n;
        n = n->next;
    }
    s->more = rv == BNS_OK && !d->broken && n != &d->open;
    if (!s->more)
        d->retained = NULL;
    return rv;
}

/* ---- delete ---------------------------------------------------------------------------------- */

int kafka_part_remove(struct kafka_part *p, struct bns_err *err)
{
    struct kafka_dir *d = p->dir;
    char from[BNS_PATH_MAX], to[BNS_PATH_MAX], suffix[64], hex[33];
    int room, n, rv = part_path(p, from);

    BNS_ASSERT(pthread_mutex_lock(&p->lock) == 0);
    kafka_log_close(p->log);
    p->log = NULL;
    BNS_ASSERT(pthread_mutex_unlock(&p->lock) == 0);
    if (d->retained == &p->node)
        d->retained = p->node.prev == &d->open ? NULL : p->node.prev;
    bns_list_del(&p->node);
    if (rv != BNS_OK)
        return rv;
    for (size_t i = 0; i < sizeof p->id.bytes; i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", p->id.bytes[i]);                     /* 32 digits */
    (void)snprintf(suffix, sizeof suffix, "-%" PRId32 ".%s-delete", p->index, hex); /* it fits */
    room = 255 - (int)strlen(suffix); /* of a name; Kafka cuts the topic too */
    n = snprintf(to, sizeof to, "%s/%.*s%s", d->path, room, p->topic, suffix);
    if (n < 0 || n >= BNS_PATH_MAX)
        return BNS_E_INVALID;
    rv = bns_vfs_rename(d->env->vfs, from, to, err);
    return rv == BNS_OK ? bns_vfs_sync_dir(d->env->vfs, d->path, err) : rv;
}

struct names {
    char at[UNLINK_MAX][KAFKA_NAME_MAX];
    size_t count, max;
    bool deleted_only;
};

static int take_name(void *arg, const char *name)
{
    struct names *n = arg;

    if (strlen(name) >= KAFKA_NAME_MAX || (n->deleted_only && !is_deleted(name)))
        return 0;
    (void)snprintf(n->at[n->count++], KAFKA_NAME_MAX, "%s", name); /* it fits */
    return n->count == n->max ? 1 : 0;
}

/* Some of the files of one directory, and itself when none is left. */
static int unlink_some(struct kafka_dir *d, const char *name, struct names *files,
                       struct bns_err *err)
{
    struct bns_vfs *vfs = d->env->vfs;
    char dir[BNS_PATH_MAX], path[BNS_PATH_MAX];
    int rv = path_of(d, name, dir);

    *files = (struct names){.max = UNLINK_MAX};
    if (rv == BNS_OK)
        rv = bns_vfs_list(vfs, dir, take_name, files, err);
    for (size_t i = 0; rv >= 0 && i < files->count; i++) {
        int n = snprintf(path, sizeof path, "%s/%s", dir, files->at[i]);
        rv = n < 0 || n >= BNS_PATH_MAX ? BNS_E_INVALID : bns_vfs_remove(vfs, path, err);
    }
    if (rv >= 0 && files->count < UNLINK_MAX)
        rv = bns_vfs_remove(vfs, dir, err);
    return rv < 0 ? rv : BNS_OK;
}

int kafka_dir_sweep(struct kafka_dir *d, struct kafka_step *s, struct bns_err *err)
{
    struct names *n = bns_alloc(d->env->alloc, 2 * sizeof *n);
    int rv;

    if (n == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for names", d->path);
    *n = (struct names){.deleted_only = true, .max = 1};
    rv = bns_vfs_list(d->env->vfs, d->path, take_name, n, err);
    if (rv >= 0 && n->count > 0)
        rv = unlink_some(d, n->at[0], n + 1, err);
    s->more = rv >= 0 && n->count > 0;
    bns_free(d->env->alloc, n);
    return rv < 0 ? rv : BNS_OK;
}
