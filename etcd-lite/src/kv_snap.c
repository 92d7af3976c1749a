/* kv_snap.c - the state machine's durability: checkpoints, snapshots out, snapshots in.
 *
 * Installing replaces everything. From install_end on reads wait; those that are being answered, a
 * slice of a compaction and a HashKV are let out first, because they name rows of the old store.
 * Then the store switches files, and the index is built anew from a scan in slices.
 */
#include "auth.h"
#include "kv_impl.h"

#define SCAN_ROWS 1000

/* ---- checkpoint ----------------------------------------------------------------------------- */

struct checkpoint {
    struct etcd_store_job job;
    struct etcd_kv *kv;
    bns_sm_done *done;
    void *arg;
};

static void checkpointed(struct etcd_store_job *j)
{
    struct checkpoint *c = BNS_CONTAINER(j, struct checkpoint, job);
    struct etcd_kv *kv = c->kv;
    bns_sm_done *done = c->done;
    void *arg = c->arg;
    bool ok = etcd_kv_job_over(kv, j);

    if (ok)
        kv->durable = j->meta;
    bns_free(kv->alloc, c);
    if (ok)
        done(arg, BNS_OK);
}

static void sm_checkpoint(void *sm, bns_sm_done *done, void *arg)
{
    struct etcd_kv *kv = sm;
    struct checkpoint *c = bns_alloc_zero(kv->alloc, sizeof *c);

    if (c == NULL) {
        done(arg, BNS_E_NOMEM); /* nothing happened; the log grows until the next one */
        return;
    }
    *c = (struct checkpoint){.kv = kv, .done = done, .arg = arg};
    c->job.kind = ETCD_STORE_CHECKPOINT;
    c->job.done = checkpointed;
    etcd_kv_flush(kv);
    etcd_kv_submit(kv, &c->job);
}

static void sm_durable(void *sm, struct bns_raft_snapmeta *out)
{
    const struct etcd_kv *kv = sm;

    *out = (struct bns_raft_snapmeta){
        .index = kv->durable.applied, .term = kv->durable.term, .conf = kv->durable.conf};
}

/* ---- out ------------------------------------------------------------------------------------ */

struct bns_sm_snap {
    struct etcd_store_job job;
    struct etcd_kv *kv;
    bns_sm_snap_done *opened;
    bns_sm_read_done *read;
    void *arg;
    uint64_t began_ns;
    uint8_t *buf; /* of the last read; valid until the next */
    size_t buf_len;
};

static void snap_free(struct bns_sm_snap *s)
{
    bns_free(s->kv->alloc, s->buf);
    bns_free(s->kv->alloc, s);
}

static void snap_closed(struct etcd_store_job *j)
{
    struct bns_sm_snap *s = BNS_CONTAINER(j, struct bns_sm_snap, job);

    if (!etcd_kv_job_over(s->kv, j))
        s->job.code = BNS_E_OFF; /* freed in either case */
    snap_free(s);
}

static void sm_snap_close(void *sm, struct bns_sm_snap *s)
{
    struct etcd_backup *b = s->job.backup;

    etcd_kv_took(s->kv, s->kv->m_snapshot, s->began_ns);
    s->job =
        (struct etcd_store_job){.kind = ETCD_STORE_BACKUP_CLOSE, .done = snap_closed, .backup = b};
    etcd_kv_submit(sm, &s->job);
}

static void snap_stepped(struct etcd_store_job *j)
{
    struct bns_sm_snap *s = BNS_CONTAINER(j, struct bns_sm_snap, job);
    struct etcd_kv *kv = s->kv;
    bns_sm_snap_done *opened = s->opened;
    void *arg = s->arg;
    int code = j->code;

    if (!etcd_kv_job_over(kv, j))
        return;
    if (code == BNS_OK && kv->stopping && !j->finished)
        code = BNS_E_SHUTDOWN;
    if (code == BNS_OK && j->finished) {
        struct bns_raft_snapmeta meta = {
            .index = j->meta.applied, .term = j->meta.term, .conf = j->meta.conf};
        opened(arg, BNS_OK, s, &meta, j->bytes);
    } else if (code == BNS_OK) {
        j->kind = ETCD_STORE_BACKUP_STEP;
        etcd_kv_flush(kv); /* the copy follows what is applied meanwhile */
        etcd_kv_submit(kv, j);
    } else {
        BNS_LOG(kv->env->log, BNS_LOG_WARN, "kv", "no snapshot", BNS_STR("error", j->err.text));
        if (j->backup != NULL)
            sm_snap_close(kv, s);
        else
            snap_free(s);
        opened(arg, code, NULL, NULL, 0);
    }
}

static void sm_snap_open(void *sm, bns_sm_snap_done *done, void *arg)
{
    struct etcd_kv *kv = sm;
    struct bns_sm_snap *s = bns_alloc_zero(kv->alloc, sizeof *s);

    if (s == NULL) {
        done(arg, BNS_E_NOMEM, NULL, NULL, 0);
        return;
    }
    s->kv = kv;
    s->opened = done;
    s->arg = arg;
    s->began_ns = bns_now_ns(kv->env);
    s->job.kind = ETCD_STORE_BACKUP_OPEN;
    s->job.done = snap_stepped;
    etcd_kv_flush(kv);
    etcd_kv_submit(kv, &s->job);
}

static void snap_was_read(struct etcd_store_job *j)
{
    struct bns_sm_snap *s = BNS_CONTAINER(j, struct bns_sm_snap, job);

    if (!etcd_kv_job_over(s->kv, j))
        return;
    s->read(s->arg, j->code, bns_slice(s->buf, j->code == BNS_OK ? j->len : 0));
}

static void sm_snap_read(void *sm, struct bns_sm_snap *s, uint64_t off, size_t len,
                         bns_sm_read_done *done, void *arg)
{
    struct etcd_kv *kv = sm;

    if (len > s->buf_len) {
        uint8_t *buf = bns_resize(kv->alloc, s->buf, len);
        if (buf == NULL) {
            done(arg, BNS_E_NOMEM, bns_slice(NULL, 0));
            return;
        }
        s->buf = buf;
        s->buf_len = len;
    }
    s->read = done;
    s->arg = arg;
    s->job = (struct etcd_store_job){.kind = ETCD_STORE_BACKUP_READ,
                                     .done = snap_was_read,
                                     .backup = s->job.backup,
                                     .off = off,
                                     .buf = s->buf,
                                     .len = len};
    etcd_kv_submit(kv, &s->job);
}

/* ---- in ------------------------------------------------------------------------------------- */

static struct etcd_kv *kv_of(struct etcd_store_job *j)
{
    return BNS_CONTAINER(BNS_CONTAINER(j, struct etcd_install, job), struct etcd_kv, install);
}

static void install_job_over(struct etcd_store_job *j)
{
    struct etcd_kv *kv = kv_of(j);

    if (etcd_kv_job_over(kv, j))
        kv->install.done(kv->install.arg, j->code);
}

static void install_submit(struct etcd_kv *kv, struct etcd_store_job job, bns_sm_done *done,
                           void *arg)
{
    kv->install.done = done;
    kv->install.arg = arg;
    kv->install.job = job;
    etcd_kv_submit(kv, &kv->install.job);
}

static void sm_install_begin(void *sm, const struct bns_raft_snapmeta *meta, uint64_t bytes,
                             bns_sm_done *done, void *arg)
{
    struct etcd_kv *kv = sm;

    (void)bytes; /* the file grows as the chunks come; a full disk refuses them */
    kv->install.meta = *meta;
    kv->install.began_ns = bns_now_ns(kv->env);
    install_submit(
        kv, (struct etcd_store_job){.kind = ETCD_STORE_INSTALL_OPEN, .done = install_job_over},
        done, arg);
}

static void sm_install_chunk(void *sm, uint64_t off, struct bns_slice chunk, bns_sm_done *done,
                             void *arg)
{
    install_submit(
        sm,
        (struct etcd_store_job){
            .kind = ETCD_STORE_INSTALL_WRITE, .done = install_job_over, .off = off, .data = chunk},
        done, arg);
}

struct abort_job {
    struct etcd_store_job job;
    struct etcd_kv *kv;
};

static void aborted(struct etcd_store_job *j)
{
    struct abort_job *a = BNS_CONTAINER(j, struct abort_job, job);
    struct etcd_kv *kv = a->kv;

    if (!etcd_kv_job_over(kv, j))
        j->code = BNS_E_OFF; /* going down: the file is removed by the next open */
    bns_free(kv->alloc, a);
}

static void sm_install_abort(void *sm)
{
    struct etcd_kv *kv = sm;
    struct abort_job *a = bns_alloc_zero(kv->alloc, sizeof *a);

    if (a == NULL)
        return; /* the next install truncates the file, the next open removes it */
    a->kv = kv;
    a->job.kind = ETCD_STORE_INSTALL_ABORT;
    a->job.done = aborted;
    etcd_kv_submit(kv, &a->job);
}

static void install_over(struct etcd_kv *kv, int code)
{
    bns_sm_done *done = kv->install.done;
    void *arg = kv->install.arg;

    kv->install.active = false;
    if (code == BNS_OK)
        etcd_compact_resume(kv);
    else
        etcd_compact_kick(kv); /* the old store goes on where it was */
    etcd_watch_installed(kv);
    etcd_members_told(kv);
    etcd_reads_pump(kv);
    done(arg, code);
}

/* One slice of the new store's leases into the lessor. */
static void leases_scanned(struct etcd_store_job *j)
{
    struct etcd_kv *kv = kv_of(j);
    int code;

    if (!etcd_kv_job_over(kv, j))
        return;
    code = j->code;
    for (size_t i = 0; i < j->leases_count && code == BNS_OK; i++)
        code = etcd_leases_row(kv, &j->leases[i]);
    if (code == BNS_OK && !j->finished) {
        etcd_kv_submit(kv, j);
        return;
    }
    bns_free(kv->alloc, j->leases);
    j->leases = NULL;
    if (code == BNS_OK)
        code = etcd_leases_loaded(kv, NULL);
    if (code == BNS_OK)
        code = etcd_auth_load(kv, NULL);
    if (code != BNS_OK)
        etcd_kv_fatal(kv, code, "the leases of the installed snapshot cannot be loaded");
    etcd_alarms_loaded(kv);
    if (code == BNS_OK)
        install_over(kv, BNS_OK);
}

static void scan_leases(struct etcd_kv *kv, struct etcd_store_job *j)
{
    struct etcd_lease_row *rows = bns_alloc_array(kv->alloc, SCAN_ROWS, sizeof *rows);

    if (rows == NULL) {
        etcd_kv_fatal(kv, BNS_E_NOMEM, "out of memory while loading the leases of a snapshot");
        return;
    }
    *j = (struct etcd_store_job){.kind = ETCD_STORE_LEASES,
                                 .done = leases_scanned,
                                 .leases = rows,
                                 .leases_cap = SCAN_ROWS,
                                 .after_lease = INT64_MIN};
    etcd_kv_submit(kv, j);
}

/* One slice of the new store's rows into the index. */
static void scanned(struct etcd_store_job *j)
{
    struct etcd_kv *kv = kv_of(j);
    int code;

    if (!etcd_kv_job_over(kv, j))
        return;
    code = j->code;
    for (size_t i = 0; i < j->rows_count; i++) {
        struct etcd_row *r = &j->rows[i];
        if (code == BNS_OK)
            code = etcd_kv_index_row(kv, r->main, r->sub, bns_rcbuf_slice(r->kv));
        bns_rcbuf_put(r->kv);
    }
    if (code == BNS_OK && !j->finished) {
        etcd_kv_submit(kv, j);
        return;
    }
    bns_free(kv->alloc, j->rows);
    j->rows = NULL;
    if (code != BNS_OK)
        etcd_kv_fatal(kv, code, "the installed snapshot cannot be indexed");
    else
        scan_leases(kv, j);
}

static void switched(struct etcd_store_job *j)
{
    struct etcd_kv *kv = kv_of(j);
    struct etcd_row *rows;

    if (!etcd_kv_job_over(kv, j))
        return;
    kv->install.submitted = false;
    if (j->code != BNS_OK) {
        BNS_LOG(kv->env->log, BNS_LOG_ERROR, "kv", "the snapshot was refused",
                BNS_STR("error", j->err.text));
        install_over(kv, j->code);
        return;
    }
    etcd_kv_took(kv, kv->m_saved, kv->install.began_ns);
    kv->now = j->meta;
    kv->durable = j->meta;
    etcd_leases_clear(kv);
    etcd_index_free(&kv->index);
    etcd_cache_clear(&kv->cache);
    etcd_buckets_clear(kv);
    rows = bns_alloc_array(kv->alloc, SCAN_ROWS, sizeof *rows);
    if (rows == NULL) {
        etcd_kv_fatal(kv, BNS_E_NOMEM, "out of memory while indexing a snapshot");
        return;
    }
    *j = (struct etcd_store_job){.kind = ETCD_STORE_SCAN,
                                 .done = scanned,
                                 .rows = rows,
                                 .rows_cap = SCAN_ROWS,
                                 .after_main = INT64_MIN};
    etcd_kv_submit(kv, j);
}

void etcd_install_kick(struct etcd_kv *kv)
{
    struct etcd_install *in = &kv->install;

    if (!in->active || in->submitted || kv->dead || in->job.kind != ETCD_STORE_INSTALL_END)
        return;
    if (!bns_list_empty(&kv->pendings) || kv->compact.submitted || kv->hashing > 0 ||
        etcd_watch_reading(kv))
        return;
    in->submitted = true;
    etcd_kv_submit(kv, &in->job);
}

static void sm_install_end(void *sm, bns_sm_done *done, void *arg)
{
    struct etcd_kv *kv = sm;
    struct etcd_install *in = &kv->install;

    BNS_ASSERT(!kv->apply.active);
    etcd_kv_flush(kv);
    in->active = true;
    in->done = done;
    in->arg = arg;
    in->job = (struct etcd_store_job){.kind = ETCD_STORE_INSTALL_END, .done = switched};
    in->job.meta.applied = in->meta.index;
    in->job.meta.term = in->meta.term;
    in->job.meta.conf = in->meta.conf;
    etcd_install_kick(kv);
}

/* ---- the rest ------------------------------------------------------------------------------- */

static void sm_role(void *sm, enum bns_raft_role role, uint64_t term, uint64_t leader)
{
    (void)leader;
    etcd_lease_role(sm, role == BNS_RAFT_LEADER, term);
}

static uint64_t sm_digest(void *sm)
{
    const struct etcd_kv *kv = sm;

    return bns_hash_u64(kv->now.digest, (uint64_t)kv->now.revision);
}

const struct bns_sm_ops etcd_sm_ops = {
    .apply = etcd_sm_apply,
    .checkpoint = sm_checkpoint,
    .durable = sm_durable,
    .snap_open = sm_snap_open,
    .snap_read = sm_snap_read,
    .snap_close = sm_snap_close,
    .install_begin = sm_install_begin,
    .install_chunk = sm_install_chunk,
    .install_end = sm_install_end,
    .install_abort = sm_install_abort,
    .role = sm_role,
    .digest = sm_digest,
};
