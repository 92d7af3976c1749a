/* restore.c - the steps of a restore; see restore.h.
 *
 *   flags, file and its digest are checked (blocking; nothing has been made)
 *   -> the directory, which has its identity file with "not finished" from the moment it is there
 *      on: it is made under another name (DIR.restoring) and renamed. Only a directory that was
 *      there before, and empty, is as it was until the file is in it
 *   -> kv/ and wal/
 *   -> rows and leases, batch by batch, into a new revision store; the last batch brings the meta
 *      row; a checkpoint; the store is closed
 *   -> the store is opened as a daemon would open it: what makes no sense together (a key on no
 *      lease, a version that jumps, a malformed user) is found here, not at the first start
 *   -> the log: a snapshot mark at the index that the store stands at, so that a member without
 *      these data can never follow from entry 1 on
 *   -> the identity file gets its real text: before that a daemon refuses the directory
 *
 * Index and term are those that etcd gives: the number of members, and 1.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/varint.h"
#include "kv_impl.h"
#include "proto/raft_msg.h"
#include "restore_int.h"

#define GROUP 1u /* as in server.c */
#define TERM 1u

struct etcd_restore {
    struct bns_env *env;
    const struct etcd_restore_config *cfg;
    char dir[BNS_PATH_MAX], kv_dir[BNS_PATH_MAX], wal_dir[BNS_PATH_MAX], new_dir[BNS_PATH_MAX];
    bool dir_was_there;
    bool made, made_new; /* ours: the directory, and the one that has not got its name yet */
    struct etcd_members members;
    const struct etcd_member *self;
    struct bns_file *file;
    struct etcd_import import;
    struct etcd_store *store;
    struct etcd_store_job job;
    struct etcd_row rows[RESTORE_ROWS];
    struct etcd_lease_row leases[RESTORE_ROWS];
    struct etcd_kv *kv;
    struct bns_wal *wal;
    struct bns_wal_append append;
    struct bns_wal_record records[2];
    uint8_t mark[16], state[24];
    struct bns_buf conf;
    struct bns_task task;
    int code;
    struct bns_err err;
    etcd_restore_done *done;
    void *arg;
};

/* ---- what the flags say --------------------------------------------------------------------- */

static void urls_text(const struct etcd_urls *u, char *dst, size_t cap, const char *before)
{
    size_t at = 0;

    dst[0] = 0;
    for (size_t i = 0; i < u->count && at < cap; i++)
        at += (size_t)snprintf(dst + at, cap - at, "%s%s%s", i == 0 ? "" : ",", before, u->url[i]);
}

/* As etcd: the URLs of this member are the same in both flags. */
static int check_urls(const struct etcd_restore *r, struct bns_err *err)
{
    const struct etcd_urls *in = &r->self->peer_urls;
    char cluster[300], mine[300], resolved[300];
    struct etcd_urls u;
    int rv = etcd_urls_parse(r->cfg->peer_urls, &u, err);
    bool same = rv == BNS_OK && u.count == in->count;

    if (rv != BNS_OK)
        return rv;
    for (size_t i = 0; same && i < u.count; i++)
        same = strcmp(u.url[i], in->url[i]) == 0;
    if (same)
        return BNS_OK;
    (void)snprintf(cluster, sizeof cluster, "%s=", r->self->name); /* shorter */
    urls_text(in, mine, sizeof mine, cluster);
    urls_text(&u, resolved, sizeof resolved, "");
    urls_text(in, cluster, sizeof cluster, "");
    if (r->cfg->wide != NULL)
        (void)snprintf(r->cfg->wide, ETCD_RESTORE_TEXT_MAX,
                       "--initial-cluster has %s but missing from --initial-advertise-peer-urls=%s "
                       "(resolved urls: \"%s\" != \"%s\")",
                       mine, resolved, resolved, cluster); /* cut when very long */
    return bns_err_set(err, BNS_E_INVALID,
                       "--initial-cluster has %s but missing from --initial-advertise-peer-urls=%s",
                       mine, resolved);
}

static int count_name(void *arg, const char *name)
{
    (void)name;
    *(bool *)arg = true;
    return 1;
}

static int check_dir(struct etcd_restore *r, struct bns_err *err)
{
    bool any = false;
    int len = r->cfg->data_dir != NULL ? snprintf(r->dir, sizeof r->dir, "%s", r->cfg->data_dir)
                                       : snprintf(r->dir, sizeof r->dir, "%s.etcd", r->cfg->name);
    int rv;

    if (len < 1 || len >= BNS_PATH_MAX - 64)
        return bns_err_set(err, BNS_E_INVALID, "--data-dir: the path is empty or too long");
    while (len > 1 && r->dir[len - 1] == '/') /* its parent is to be synced, too */
        r->dir[--len] = 0;
    (void)snprintf(r->kv_dir, sizeof r->kv_dir, "%.440s/kv", r->dir); /* both fit */
    (void)snprintf(r->wal_dir, sizeof r->wal_dir, "%.440s/wal", r->dir);
    (void)snprintf(r->new_dir, sizeof r->new_dir, "%.440s.restoring", r->dir);
    rv = bns_vfs_list(r->env->vfs, r->dir, count_name, &any, err);
    if (rv == BNS_E_NOTFOUND)
        return BNS_OK;
    if (rv < 0 || any)
        return bns_err_set(err, BNS_E_EXISTS, "data-dir \"%s\" not empty or could not be read",
                           r->dir);
    r->dir_was_there = true;
    return BNS_OK;
}

static int check_flags(struct etcd_restore *r, struct bns_err *err)
{
    int rv = etcd_members_parse(r->cfg->initial_cluster, r->cfg->token, &r->members, err);

    if (rv != BNS_OK)
        return rv;
    r->self = etcd_members_named(&r->members, r->cfg->name);
    if (r->self == NULL)
        return bns_err_set(err, BNS_E_INVALID,
                           "couldn't find local name \"%s\" in the initial cluster configuration",
                           r->cfg->name);
    rv = check_urls(r, err);
    return rv == BNS_OK ? check_dir(r, err) : rv;
}

/* ---- the directory -------------------------------------------------------------------------- */

static void parent_of(const char *path, char out[BNS_PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL || slash == path ? 1 : (size_t)(slash - path);

    memcpy(out, slash == NULL ? "." : path, len);
    out[len] = 0;
}

static int write_identity(struct etcd_restore *r, const char *dir, const char *text,
                          struct bns_err *err)
{
    struct bns_slice v = bns_slice_str(text);
    char path[BNS_PATH_MAX], tmp[BNS_PATH_MAX];
    struct bns_vfs *vfs = r->env->vfs;
    struct bns_file *f = NULL;
    int rv;

    (void)snprintf(path, sizeof path, "%.460s/identity", dir);
    (void)snprintf(tmp, sizeof tmp, "%.460s/identity.tmp", dir);
    rv = bns_vfs_open(vfs, tmp, BNS_OPEN_CREATE | BNS_OPEN_WRITE | BNS_OPEN_TRUNC, &f, err);
    if (rv == BNS_OK)
        rv = bns_file_write_at(f, 0, &v, 1, err);
    if (rv == BNS_OK)
        rv = bns_file_sync(f, false, err);
    bns_file_close(f);
    if (rv == BNS_OK)
        rv = bns_vfs_rename(vfs, tmp, path, err);
    return rv == BNS_OK ? bns_vfs_sync_dir(vfs, dir, err) : rv;
}

static int stranger(void *arg, const char *name)
{
    *(bool *)arg |= strcmp(name, "identity") != 0 && strcmp(name, "identity.tmp") != 0;
    return 0;
}

/* The directories above, as etcdctl makes them. */
static int make_parents(struct etcd_restore *r, struct bns_err *err)
{
    struct bns_vfs *vfs = r->env->vfs;
    char part[BNS_PATH_MAX], above[BNS_PATH_MAX];
    struct bns_file_stat st;

    for (size_t i = 1; r->dir[i] != 0; i++) {
        int rv;

        if (r->dir[i] != '/')
            continue;
        memcpy(part, r->dir, i);
        part[i] = 0;
        if (bns_vfs_stat(vfs, part, &st, NULL) == BNS_OK && st.is_dir)
            continue;
        rv = bns_vfs_mkdir(vfs, part, err);
        parent_of(part, above);
        if (rv == BNS_OK)
            rv = bns_vfs_sync_dir(vfs, above, err);
        if (rv != BNS_OK)
            return rv;
    }
    return BNS_OK;
}

/* A new directory: it comes with its identity file. What is left of a restore that was cut short
 * before that is used again. */
static int make_new(struct etcd_restore *r, struct bns_err *err)
{
    struct bns_vfs *vfs = r->env->vfs;
    char parent[BNS_PATH_MAX];
    bool strange = false;
    int rv = make_parents(r, err);

    parent_of(r->dir, parent);
    if (rv == BNS_OK)
        rv = bns_vfs_mkdir(vfs, r->new_dir, err);
    if (rv == BNS_OK)
        rv = bns_vfs_list(vfs, r->new_dir, stranger, &strange, err);
    if (rv >= 0 && strange)
        return bns_err_set(err, BNS_E_EXISTS, "\"%s\" not empty: remove it", r->new_dir);
    r->made_new = rv >= 0;
    if (rv >= 0)
        rv = write_identity(r, r->new_dir, ETCD_RESTORE_UNFINISHED, err);
    if (rv == BNS_OK)
        rv = bns_vfs_rename(vfs, r->new_dir, r->dir, err);
    if (rv != BNS_OK)
        return rv;
    r->made = true;
    r->made_new = false;
    return bns_vfs_sync_dir(vfs, parent, err);
}

static int make_dir(struct etcd_restore *r, struct bns_err *err)
{
    struct bns_vfs *vfs = r->env->vfs;
    int rv;

    r->made = r->dir_was_there;
    rv = r->dir_was_there ? write_identity(r, r->dir, ETCD_RESTORE_UNFINISHED, err)
                          : make_new(r, err);
    if (rv == BNS_OK)
        rv = bns_vfs_mkdir(vfs, r->kv_dir, err);
    if (rv == BNS_OK)
        rv = bns_vfs_mkdir(vfs, r->wal_dir, err);
    return rv == BNS_OK ? bns_vfs_sync_dir(vfs, r->dir, err) : rv;
}

struct sweep {
    struct bns_vfs *vfs;
    const char *dir;
};

/* What cannot be removed stays, and the identity file says what it is. */
static int remove_one(void *arg, const char *name)
{
    const struct sweep *s = arg;
    char path[BNS_PATH_MAX];

    (void)snprintf(path, sizeof path, "%.440s/%.60s", s->dir, name); /* our own short names */
    if (strcmp(name, "identity") != 0 && bns_vfs_remove(s->vfs, path, NULL) != BNS_OK)
        return 0;
    return 0;
}

static void remove_in(struct bns_vfs *vfs, const char *dir, const char *name)
{
    char path[BNS_PATH_MAX];

    (void)snprintf(path, sizeof path, "%.460s/%s", dir, name);
    (void)!bns_vfs_remove(vfs, path, NULL); /* it was not there, or stays */
}

/* The identity file last: until then it says that this is unfinished. */
static void undo(struct etcd_restore *r)
{
    const char *const dirs[] = {r->kv_dir, r->wal_dir, r->dir};
    struct bns_vfs *vfs = r->env->vfs;

    if (r->made_new) {
        remove_in(vfs, r->new_dir, "identity.tmp");
        remove_in(vfs, r->new_dir, "identity");
        (void)!bns_vfs_remove(vfs, r->new_dir, NULL); /* somebody's files came into it */
    }
    if (!r->made)
        return;
    for (size_t i = 0; i < 3; i++) {
        int rv = bns_vfs_list(vfs, dirs[i], remove_one, &(struct sweep){vfs, dirs[i]}, NULL);
        if (rv < 0 && rv != BNS_E_NOTFOUND)
            return;
    }
    remove_in(vfs, r->dir, "identity");
    if (!r->dir_was_there)
        (void)!bns_vfs_remove(vfs, r->dir, NULL); /* something else may have come into it */
}

/* ---- the end -------------------------------------------------------------------------------- */

static void batch_put(struct etcd_restore *r)
{
    for (size_t i = 0; i < r->job.rows_count; i++)
        bns_rcbuf_put(r->rows[i].kv);
    r->job.rows_count = 0;
    r->job.leases_count = 0;
}

static void let_go(struct etcd_restore *r)
{
    batch_put(r);
    etcd_import_close(&r->import);
    bns_file_close(r->file);
    r->file = NULL;
    etcd_store_close(r->store);
    r->store = NULL;
}

static void over(struct bns_task *t)
{
    struct etcd_restore *r = BNS_CONTAINER(t, struct etcd_restore, task);

    let_go(r);
    if (r->code != BNS_OK)
        undo(r);
    r->done(r->arg, r->code, r->err.text);
}

/* In a turn of its own: the store may be in the middle of handing back a job. */
static void later(struct etcd_restore *r, void (*fn)(struct bns_task *t))
{
    r->task.fn = fn;
    bns_post(r->env, &r->task);
}

static void finish(struct etcd_restore *r, int code)
{
    r->code = code;
    later(r, over);
}

/* ---- the log -------------------------------------------------------------------------------- */

static void wal_closed(void *arg)
{
    struct etcd_restore *r = arg;
    char text[200];

    r->wal = NULL;
    if (r->code == BNS_OK) {
        (void)snprintf(text, sizeof text,
                       "etcd-lite format 1\ncluster %016" PRIx64 "\nmember %016" PRIx64 "\n",
                       r->members.cluster_id, r->self->id); /* as in identity.c */
        r->code = write_identity(r, r->dir, text, &r->err);
    }
    finish(r, r->code);
}

static void marked(struct bns_wal_append *a, int code)
{
    struct etcd_restore *r = a->arg;

    if (code != BNS_OK)
        r->code = bns_err_set(&r->err, code, "%s: the log cannot be written", r->wal_dir);
    bns_wal_close(r->wal, wal_closed, r);
}

static int ignore(void *arg, uint64_t lsn, uint32_t group, uint8_t type, struct bns_slice payload)
{
    (void)arg;
    (void)lsn;
    (void)group;
    (void)type;
    (void)payload;
    return BNS_OK;
}

static int mark(struct etcd_restore *r)
{
    struct bns_wal_config wc = {.dir = r->wal_dir};
    struct bns_raft_conf conf = {.voters_count = (uint8_t)r->members.count};
    int rv = bns_wal_open(r->env, &wc, ignore, NULL, &r->wal, &r->err);

    if (rv != BNS_OK)
        return rv;
    for (size_t i = 0; i < r->members.count; i++)
        conf.voters[i] = r->members.member[i].id;
    bns_put_u64le(r->mark, r->import.index);
    bns_put_u64le(r->mark + 8, TERM);
    bns_put_u64le(r->state, TERM);
    bns_put_u64le(r->state + 8, 0);
    bns_put_u64le(r->state + 16, r->import.index);
    rv = bns_raft_conf_encode(&conf, &r->conf);
    r->records[0] = (struct bns_wal_record){
        .group = GROUP,
        .type = BNS_WAL_SNAPMARK,
        .slices = 2,
        .payload = {bns_slice(r->mark, sizeof r->mark), bns_buf_slice(&r->conf)}};
    r->records[1] = (struct bns_wal_record){.group = GROUP,
                                            .type = BNS_WAL_STATE,
                                            .slices = 1,
                                            .payload = {bns_slice(r->state, sizeof r->state)}};
    r->append.records = r->records;
    r->append.records_count = 2;
    r->append.done = marked;
    r->append.arg = r;
    if (rv == BNS_OK)
        rv = bns_wal_append(r->wal, &r->append);
    if (rv == BNS_OK)
        return BNS_OK;
    r->code = bns_err_set(&r->err, rv, "%s: the log cannot be written", r->wal_dir);
    bns_wal_close(r->wal, wal_closed, r);
    return BNS_OK; /* the close goes on */
}

/* ---- the store, opened once ----------------------------------------------------------------- */

static void looked(void *arg)
{
    struct etcd_restore *r = arg;
    int rv;

    etcd_kv_close(r->kv);
    r->kv = NULL;
    rv = mark(r);
    if (rv != BNS_OK)
        finish(r, rv);
}

static void look(struct bns_task *t)
{
    struct etcd_restore *r = BNS_CONTAINER(t, struct etcd_restore, task);
    struct etcd_kv_config kc = {.dir = r->kv_dir, .quota_bytes = UINT64_MAX};
    struct bns_err why = {0};
    int rv;

    let_go(r);
    rv = etcd_kv_open(r->env, &kc, &r->kv, &why);
    if (rv == BNS_OK) {
        etcd_kv_drain(r->kv, looked, r);
        return;
    }
    if (rv == BNS_E_CORRUPT)
        bns_err_set(&r->err, rv, "the snapshot is damaged: %s", why.text);
    else
        r->err = why;
    finish(r, rv);
}

/* ---- rows ----------------------------------------------------------------------------------- */

static void pump(struct etcd_restore *r);

static void checkpointed(struct etcd_store_job *j)
{
    struct etcd_restore *r = BNS_CONTAINER(j, struct etcd_restore, job);

    if (j->code != BNS_OK) {
        r->err = j->err;
        finish(r, j->code);
        return;
    }
    later(r, look);
}

static void written(struct etcd_store_job *j)
{
    struct etcd_restore *r = BNS_CONTAINER(j, struct etcd_restore, job);

    batch_put(r);
    if (j->code != BNS_OK) {
        r->err = j->err;
        finish(r, j->code);
    } else if (!j->finished) {
        pump(r);
    } else {
        *j = (struct etcd_store_job){.kind = ETCD_STORE_CHECKPOINT, .done = checkpointed};
        etcd_store_submit(r->store, j);
    }
}

/* Where the new cluster stands: after the snapshot, or so much later that nobody has seen it. */
static int meta_of(struct etcd_restore *r, struct etcd_meta *out)
{
    struct etcd_import *im = &r->import;

    *out = (struct etcd_meta){.applied = im->index,
                              .term = TERM,
                              .digest = im->digest,
                              .compact_scheduled = im->scheduled,
                              .compact_finished = im->finished};
    if (r->cfg->bump > INT64_MAX / 4)
        return bns_err_set(&r->err, BNS_E_INVALID, "--bump-revision is too large");
    if (r->cfg->bump > 0) {
        im->revision += (int64_t)r->cfg->bump;
        out->compact_scheduled = im->revision;
    }
    out->revision = im->revision;
    return BNS_OK;
}

static void pump(struct etcd_restore *r)
{
    struct etcd_store_job *j = &r->job;
    int rv;

    *j = (struct etcd_store_job){.kind = ETCD_STORE_WRITE,
                                 .done = written,
                                 .rows = r->rows,
                                 .rows_cap = RESTORE_ROWS,
                                 .leases = r->leases,
                                 .leases_cap = RESTORE_ROWS};
    rv = etcd_import_batch(&r->import, j, &r->err);
    if (rv == BNS_OK && j->finished) {
        j->has_meta = true;
        rv = meta_of(r, &j->meta);
    }
    if (rv == BNS_OK)
        etcd_store_submit(r->store, j);
    else
        finish(r, rv);
}

static void begin(struct bns_task *t)
{
    pump(BNS_CONTAINER(t, struct etcd_restore, task));
}

static int no_row(void *arg, int64_t main, uint32_t sub, struct bns_slice kv)
{
    (void)arg;
    (void)main;
    (void)sub;
    (void)kv;
    return BNS_E_CORRUPT; /* the store is new */
}

int etcd_restore_start(struct bns_env *env, const struct etcd_restore_config *cfg,
                       etcd_restore_done *done, void *arg, struct etcd_restore **out,
                       struct bns_err *err)
{
    struct etcd_restore *r = bns_alloc_zero(env->alloc, sizeof *r);
    struct etcd_meta meta;
    uint64_t bytes = 0;
    int rv;

    if (r == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "out of memory");
    r->env = env;
    r->cfg = cfg;
    r->done = done;
    r->arg = arg;
    bns_buf_init(&r->conf, env->alloc, 4096);
    *out = r;
    rv = check_flags(r, err);
    if (rv == BNS_OK)
        rv = etcd_snapshot_open(env->vfs, cfg, &r->file, &bytes, err);
    if (rv == BNS_OK)
        rv = etcd_import_open(&r->import, env->alloc, r->file, bytes, err);
    r->import.index = r->members.count;
    if (rv == BNS_OK)
        rv = make_dir(r, err);
    if (rv == BNS_OK)
        rv = etcd_store_open(env, r->kv_dir, no_row, NULL, &r->store, &meta, err);
    if (rv != BNS_OK) {
        let_go(r);
        undo(r);
        *out = NULL;
        etcd_restore_free(r);
        return rv;
    }
    later(r, begin);
    return BNS_OK;
}

int64_t etcd_restore_revision(const struct etcd_restore *r)
{
    return r->import.revision;
}

const char *etcd_restore_dir(const struct etcd_restore *r)
{
    return r->dir;
}

void etcd_restore_free(struct etcd_restore *r)
{
    if (r == NULL)
        return;
    bns_buf_free(&r->conf);
    bns_free(r->env->alloc, r);
}

void etcd_restore_died(struct etcd_restore *r)
{
    if (r == NULL)
        return;
    etcd_store_died(r->store);
    etcd_kv_died(r->kv);
}
