/* revstore_jobs.c - what the store's worker does with a batch of jobs.
 *
 * All jobs of a batch run in order inside one transaction, which is committed at the end: group
 * commit without a timer. Jobs that need the transaction closed (checkpoint, backup, install)
 * commit what came before them. Reads are cut into slices, so that a long one does not keep the
 * writes behind it waiting; the loop submits the rest again.
 *
 * A failure of the database is remembered: no later job runs, every one reports it, and the loop
 * ends the process. Nothing is retried.
 */
#include "revstore_impl.h"

#include "base/varint.h"

#define SLICE_ROWS 256u
#define SLICE_BYTES (512u * 1024)
#define CONF_BYTES_MAX (8 * (3 + 3 * BNS_RAFT_PEERS_MAX))

static int fail(struct etcd_store *s, struct etcd_store_job *j, int rc, const char *what)
{
    return bns_sqlite_err(s->db, rc, what, &j->err);
}

static int begin(struct etcd_store *s, struct etcd_store_job *j)
{
    int rc;

    if (s->in_tx)
        return BNS_OK;
    rc = sqlite3_step(s->stmt[ETCD_STMT_BEGIN]);
    sqlite3_reset(s->stmt[ETCD_STMT_BEGIN]);
    if (rc != SQLITE_DONE)
        return fail(s, j, rc, "begin");
    s->in_tx = true;
    return BNS_OK;
}

static size_t conf_put(const struct bns_raft_conf *c, uint8_t *p)
{
    const uint64_t *from[3] = {c->voters, c->voters_old, c->learners};
    const uint8_t count[3] = {c->voters_count, c->voters_old_count, c->learners_count};
    uint8_t *start = p;

    if (c->voters_count == 0)
        return 0;
    for (int i = 0; i < 3; i++) {
        bns_put_u64le(p, count[i]);
        p += 8;
        for (uint8_t k = 0; k < count[i]; k++, p += 8)
            bns_put_u64le(p, from[i][k]);
    }
    return (size_t)(p - start);
}

static int write_meta(struct etcd_store *s, struct etcd_store_job *j)
{
    sqlite3_stmt *st = s->stmt[ETCD_STMT_META];
    uint8_t conf[CONF_BYTES_MAX];
    size_t conf_len = conf_put(&s->meta.conf, conf);
    int rc;

    sqlite3_bind_int64(st, 1, (int64_t)s->meta.applied);
    sqlite3_bind_int64(st, 2, (int64_t)s->meta.term);
    sqlite3_bind_int64(st, 3, s->meta.revision);
    sqlite3_bind_int64(st, 4, s->meta.compact_scheduled);
    sqlite3_bind_int64(st, 5, s->meta.compact_finished);
    sqlite3_bind_int64(st, 6, (int64_t)s->meta.digest);
    sqlite3_bind_blob(st, 7, conf, (int)conf_len, SQLITE_STATIC);
    rc = sqlite3_step(st);
    sqlite3_reset(st);
    sqlite3_bind_null(st, 7);
    return rc == SQLITE_DONE ? BNS_OK : fail(s, j, rc, "write meta");
}

static int bind_row(sqlite3_stmt *st, const struct etcd_row *r)
{
    int rc = sqlite3_bind_int64(st, 1, r->main);

    return rc == SQLITE_OK ? sqlite3_bind_int64(st, 2, (int64_t)r->sub) : rc;
}

static int delete_row(struct etcd_store *s, const struct etcd_row *r)
{
    sqlite3_stmt *st = s->stmt[ETCD_STMT_DELETE];
    int rc = bind_row(st, r);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(st);
    sqlite3_reset(st);
    return rc;
}

/* A row of a key is written once: a second one with its revision means damage, and is refused. Rows
 * of revision 0 (kv_members.c, kv_bucket.c) replace what stood there; without bytes they go. */
static int write_rows(struct etcd_store *s, struct etcd_store_job *j)
{
    sqlite3_stmt *st = s->stmt[ETCD_STMT_PUT];

    for (size_t i = 0; i < j->rows_count; i++) {
        const struct etcd_row *r = &j->rows[i];
        int rc = r->main == 0 ? delete_row(s, r) : SQLITE_DONE;

        if (r->main == 0 && r->kv->len == 0 && rc == SQLITE_DONE)
            continue;
        if (rc == SQLITE_DONE)
            rc = bind_row(st, r);
        if (rc == SQLITE_OK)
            rc = sqlite3_bind_blob(st, 3, r->kv->bytes, (int)r->kv->len, SQLITE_STATIC);
        if (rc == SQLITE_OK)
            rc = sqlite3_step(st);
        sqlite3_reset(st);
        if (rc != SQLITE_DONE)
            return fail(s, j, rc, "write a row");
    }
    if (j->rows_count > 0)
        sqlite3_bind_null(st, 3); /* the bytes are the loop's again */
    return BNS_OK;
}

static int write_leases(struct etcd_store *s, struct etcd_store_job *j)
{
    for (size_t i = 0; i < j->leases_count; i++) {
        const struct etcd_lease_row *r = &j->leases[i];
        sqlite3_stmt *st = s->stmt[r->ttl == 0 ? ETCD_STMT_LEASE_DELETE : ETCD_STMT_LEASE_PUT];
        int rc = sqlite3_bind_int64(st, 1, r->id);

        if (rc == SQLITE_OK && r->ttl != 0)
            rc = sqlite3_bind_int64(st, 2, r->ttl);
        if (rc == SQLITE_OK && r->ttl != 0)
            rc = sqlite3_bind_int64(st, 3, (int64_t)r->index);
        if (rc == SQLITE_OK)
            rc = sqlite3_step(st);
        sqlite3_reset(st);
        if (rc != SQLITE_DONE)
            return fail(s, j, rc, "write a lease");
    }
    return BNS_OK;
}

static int scan_leases(struct etcd_store *s, struct etcd_store_job *j)
{
    sqlite3_stmt *st = s->stmt[ETCD_STMT_LEASES];
    int rv = BNS_OK, rc = SQLITE_DONE;

    sqlite3_bind_int64(st, 1, j->after_lease);
    sqlite3_bind_int64(st, 2, (int64_t)j->leases_cap);
    j->leases_count = 0;
    while (j->leases_count < j->leases_cap && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        j->after_lease = sqlite3_column_int64(st, 0);
        j->leases[j->leases_count++] = (struct etcd_lease_row){
            j->after_lease, sqlite3_column_int64(st, 1), (uint64_t)sqlite3_column_int64(st, 2)};
    }
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        rv = fail(s, j, rc, "scan leases");
    j->finished = rv == BNS_OK && rc == SQLITE_DONE;
    sqlite3_reset(st);
    return rv;
}

static int delete_rows(struct etcd_store *s, struct etcd_store_job *j)
{
    for (size_t i = 0; i < j->rows_count; i++) {
        int rc = delete_row(s, &j->rows[i]);

        if (rc != SQLITE_DONE)
            return fail(s, j, rc, "delete a row");
    }
    return BNS_OK;
}

static int take_kv(struct etcd_store *s, sqlite3_stmt *st, int column, struct bns_rcbuf **out)
{
    const void *ptr = sqlite3_column_blob(st, column);
    int len = sqlite3_column_bytes(st, column);

    *out = bns_rcbuf_copy(s->alloc, bns_slice(ptr, (size_t)len));
    return *out == NULL ? BNS_E_NOMEM : BNS_OK;
}

static int read_rows(struct etcd_store *s, struct etcd_store_job *j)
{
    sqlite3_stmt *st = s->stmt[ETCD_STMT_GET];
    size_t bytes = 0, rows = 0;
    int rv = BNS_OK;

    for (; j->pos < j->rows_count && rows < SLICE_ROWS && bytes < SLICE_BYTES; j->pos++) {
        struct etcd_row *r = &j->rows[j->pos];
        int rc;
        if (r->kv != NULL)
            continue;
        rows++;
        rc = bind_row(st, r);
        if (rc == SQLITE_OK)
            rc = sqlite3_step(st);
        if (rc == SQLITE_ROW)
            rv = take_kv(s, st, 0, &r->kv);
        else if (rc != SQLITE_DONE)
            rv = fail(s, j, rc, "read a row");
        sqlite3_reset(st);
        if (rv != BNS_OK)
            return rv;
        bytes += r->kv == NULL ? 0 : r->kv->len;
    }
    return BNS_OK;
}

static int scan_rows(struct etcd_store *s, struct etcd_store_job *j)
{
    sqlite3_stmt *st = s->stmt[ETCD_STMT_SCAN];
    int rv = BNS_OK;
    int rc = SQLITE_ROW;
    size_t bytes = 0;

    sqlite3_bind_int64(st, 1, j->after_main);
    sqlite3_bind_int64(st, 2, (int64_t)j->after_sub);
    sqlite3_bind_int64(st, 3, (int64_t)j->rows_cap);
    j->rows_count = 0;
    while (rv == BNS_OK && rc == SQLITE_ROW && j->rows_count < j->rows_cap && bytes < SLICE_BYTES) {
        struct etcd_row *r = &j->rows[j->rows_count];
        rc = sqlite3_step(st);
        if (rc != SQLITE_ROW)
            break;
        r->main = sqlite3_column_int64(st, 0);
        r->sub = (uint32_t)sqlite3_column_int64(st, 1);
        rv = take_kv(s, st, 2, &r->kv);
        if (rv == BNS_OK) {
            bytes += r->kv->len;
            j->rows_count++;
            j->after_main = r->main;
            j->after_sub = r->sub;
        }
    }
    if (rv == BNS_OK && rc != SQLITE_ROW && rc != SQLITE_DONE)
        rv = fail(s, j, rc, "scan");
    j->finished = rv == BNS_OK && rc == SQLITE_DONE;
    sqlite3_reset(st);
    return rv;
}

static int vacuum(struct etcd_store *s, struct etcd_store_job *j)
{
    sqlite3_stmt *st = s->stmt[ETCD_STMT_VACUUM];
    int rc = SQLITE_ROW;
    size_t n = 0;

    while (n < j->len && (rc = sqlite3_step(st)) == SQLITE_ROW)
        n++;
    sqlite3_reset(st);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        return fail(s, j, rc, "vacuum");
    j->finished = rc == SQLITE_DONE;
    j->bytes = n * s->page_bytes;
    return BNS_OK;
}

/* Failures of these concern one snapshot, not the store. */
static bool is_snap_job(const struct etcd_store_job *j)
{
    return j->kind >= ETCD_STORE_BACKUP_OPEN;
}

static int run(struct etcd_store *s, struct etcd_store_job *j)
{
    int rv;

    if (is_snap_job(j))
        return etcd_store_snap_job(s, j);
    if (j->kind == ETCD_STORE_CHECKPOINT) {
        rv = etcd_store_checkpoint(s, &j->err);
        j->meta = s->meta;
        return rv;
    }
    rv = begin(s, j);
    if (rv != BNS_OK)
        return rv;
    switch (j->kind) {
    case ETCD_STORE_WRITE:
        s->changed = true;
        rv = write_rows(s, j);
        if (rv == BNS_OK)
            rv = write_leases(s, j);
        if (rv == BNS_OK && BNS_MUTANT(s->env, ETCD_MUTANT_INDEX_APART)) {
            rv = etcd_store_commit(s, &j->err);
            rv = rv == BNS_OK ? begin(s, j) : rv;
        }
        if (rv == BNS_OK && j->has_meta) {
            s->meta = j->meta;
            rv = write_meta(s, j);
        }
        return rv;
    case ETCD_STORE_DELETE:
        s->changed = true;
        return delete_rows(s, j);
    case ETCD_STORE_VACUUM:
        s->changed = true;
        return vacuum(s, j);
    case ETCD_STORE_READ:
        return read_rows(s, j);
    case ETCD_STORE_LEASES:
        return scan_leases(s, j);
    default:
        BNS_ASSERT(j->kind == ETCD_STORE_SCAN);
        return scan_rows(s, j);
    }
}

/* Reads that lack memory concern one request; whatever else fails concerns the store. */
static void note(struct etcd_store *s, struct etcd_store_job *j)
{
    bool harmless = is_snap_job(j) || (j->code == BNS_E_NOMEM &&
                                       (j->kind == ETCD_STORE_READ || j->kind == ETCD_STORE_SCAN));

    if (j->code == BNS_OK || harmless || s->bad != BNS_OK)
        return;
    s->bad = j->code;
    s->bad_err = j->err;
}

/* The planted bug: a batch that found no room is forgotten. */
static int leave_out(struct etcd_store *s)
{
    s->in_tx = false;
    return sqlite3_get_autocommit(s->db) ? BNS_OK : etcd_store_exec(s->db, "ROLLBACK", NULL);
}

void etcd_store_handle(void *arg, struct bns_list *jobs)
{
    struct etcd_store *s = arg;
    struct bns_err err = {0};
    int rv;

    BNS_LIST_EACH(n, jobs)
    {
        struct etcd_store_job *j = BNS_CONTAINER(n, struct etcd_store_job, job.node);
        j->code = s->bad != BNS_OK ? s->bad : run(s, j);
        note(s, j);
    }
    rv = s->bad != BNS_OK ? s->bad : etcd_store_commit(s, &err);
    if (rv == BNS_E_NOSPACE && BNS_MUTANT(s->env, ETCD_MUTANT_APPLY_SKIPPED))
        rv = s->bad = leave_out(s);
    if (rv == BNS_OK && s->changed)
        rv = etcd_store_stat(s, &err);
    s->changed = false;
    if (rv != BNS_OK && s->bad == BNS_OK) {
        s->bad = rv;
        s->bad_err = err;
    }
    BNS_LIST_EACH(n, jobs)
    {
        struct etcd_store_job *j = BNS_CONTAINER(n, struct etcd_store_job, job.node);
        j->db_bytes = s->db_bytes;
        j->db_bytes_used = s->db_bytes_used;
        if (s->bad != BNS_OK) {
            j->code = s->bad;
            j->broken = true;
            j->err = s->bad_err;
        }
    }
}

static void job_done(struct bns_job *job)
{
    struct etcd_store_job *j = BNS_CONTAINER(job, struct etcd_store_job, job);

    j->done(j);
}

void etcd_store_submit(struct etcd_store *s, struct etcd_store_job *j)
{
    j->job.run = NULL;
    j->job.done = job_done;
    j->code = BNS_OK;
    bns_worker_submit(s->env, s->worker, &j->job);
}
