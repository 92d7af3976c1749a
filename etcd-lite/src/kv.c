/* kv.c - the store object: open, close, numbers, and the way of rows into the revision store.
 *
 * An apply changes index and cache at once and queues the row; the queue of one batch of entries
 * goes to SQLite as one job together with the applied index. Nothing waits for that job: the Raft
 * log holds the entries until a checkpoint. What bounds the queue is queue_bytes: past it, applies
 * pause until the worker has caught up.
 */
#include "kv_impl.h"

#include "auth.h"

#include <stdio.h>

#define FLUSH_NS (10 * BNS_MS)

#define QUOTA_DEFAULT (UINT64_C(2) << 30)
#define CACHE_DEFAULT (UINT64_C(8) << 20)
#define QUEUE_DEFAULT (UINT64_C(16) << 20)
#define READ_DEFAULT (UINT64_C(64) << 20)
#define ARENA_MAX ((size_t)1 << 30)

const struct etcd_status etcd_ok = {0, NULL};
const struct etcd_status etcd_compacted = {
    11, "etcdserver: mvcc: required revision has been compacted"};
const struct etcd_status etcd_future = {11,
                                        "etcdserver: mvcc: required revision is a future revision"};
const struct etcd_status etcd_no_key = {3, "etcdserver: key not found"};
const struct etcd_status etcd_no_lease = {5, "etcdserver: requested lease not found"};
const struct etcd_status etcd_no_memory = {8, "etcdserver: too many requests"};
const struct etcd_status etcd_answer_lost = {14, "etcdserver: request timed out"};
const struct etcd_status etcd_stopped = {14, "etcdserver: server stopped"};
const struct etcd_status etcd_damaged = {15, "etcdserver: corrupt cluster"};

struct bns_slice etcd_bytes(ProtobufCBinaryData d)
{
    return bns_slice(d.data, d.len);
}

void etcd_kv_fatal(struct etcd_kv *kv, int code, const char *text)
{
    if (kv->dead)
        return;
    kv->dead = true;
    if (code == BNS_E_OFF)
        return;
    bns_fatal(kv->env, code == BNS_E_CORRUPT ? 4 : code == BNS_E_NOMEM ? 1 : 6, text);
}

void etcd_kv_submit(struct etcd_kv *kv, struct etcd_store_job *j)
{
    kv->jobs++;
    etcd_store_submit(kv->store, j);
}

static bool turns_posted(const struct etcd_kv *kv)
{
    return kv->apply.posted || kv->looks.posted;
}

static void run_drained(struct bns_task *t)
{
    struct etcd_kv *kv = BNS_CONTAINER(t, struct etcd_kv, drain_task);

    kv->drain_posted = false;
    if (kv->jobs == 0 && !kv->compact.posted && !etcd_watch_posted(kv) && !turns_posted(kv))
        kv->drained(kv->drained_arg); /* else: when the last job is over */
}

void etcd_kv_check_drained(struct etcd_kv *kv)
{
    if (kv->drained == NULL || kv->drain_posted || kv->jobs > 0 || kv->compact.posted ||
        etcd_watch_posted(kv) || turns_posted(kv))
        return;
    kv->drain_posted = true;
    kv->drain_task.fn = run_drained;
    bns_post(kv->env, &kv->drain_task);
}

bool etcd_kv_job_over(struct etcd_kv *kv, struct etcd_store_job *j)
{
    BNS_ASSERT(kv->jobs > 0);
    kv->jobs--;
    kv->db_bytes = j->db_bytes;
    kv->db_bytes_used = j->db_bytes_used;
    etcd_kv_check_drained(kv);
    if (j->code == BNS_OK || kv->dead)
        return !kv->dead;
    if (j->kind >= ETCD_STORE_BACKUP_OPEN && !j->broken)
        return true; /* told to whoever asked */
    if (j->code == BNS_E_NOMEM && (j->kind == ETCD_STORE_READ || j->kind == ETCD_STORE_SCAN))
        return true;
    etcd_kv_fatal(kv, j->code, j->err.text[0] != 0 ? j->err.text : "the revision store failed");
    return false;
}

/* ---- rows on their way ---------------------------------------------------------------------- */

struct write {
    struct etcd_store_job job;
    struct etcd_kv *kv;
    uint64_t bytes, began_ns;
};

static void rows_put(const struct bns_alloc *a, struct etcd_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        bns_rcbuf_put(rows[i].kv);
    bns_free(a, rows);
}

static void written(struct etcd_store_job *j)
{
    struct write *w = BNS_CONTAINER(j, struct write, job);
    struct etcd_kv *kv = w->kv;
    bool ok = etcd_kv_job_over(kv, j);

    bns_hist_observe(kv->m_commit, (double)(bns_now_ns(kv->env) - w->began_ns) / 1e9);
    kv->queued_bytes -= w->bytes;
    rows_put(kv->alloc, j->rows, j->rows_count);
    bns_free(kv->alloc, j->leases);
    bns_free(kv->alloc, w);
    if (ok)
        etcd_apply_step(kv);
}

void etcd_kv_flush(struct etcd_kv *kv)
{
    struct write *w;

    if (!kv->meta_dirty && kv->rows_count == 0)
        return;
    w = bns_alloc_zero(kv->alloc, sizeof *w);
    if (w == NULL) {
        etcd_kv_fatal(kv, BNS_E_NOMEM, "out of memory while applying");
        return;
    }
    w->kv = kv;
    w->began_ns = bns_now_ns(kv->env);
    w->bytes = kv->rows_bytes;
    w->job.kind = ETCD_STORE_WRITE;
    w->job.done = written;
    w->job.rows = kv->rows;
    w->job.rows_count = kv->rows_count;
    w->job.leases = kv->leases.rows;
    w->job.leases_count = kv->leases.rows_count;
    kv->leases.rows = NULL;
    kv->leases.rows_count = 0;
    kv->leases.rows_cap = 0;
    w->job.has_meta = true;
    w->job.meta = kv->now;
    kv->queued_bytes += kv->rows_bytes;
    kv->rows = NULL;
    kv->rows_count = 0;
    kv->rows_cap = 0;
    kv->rows_bytes = 0;
    kv->meta_dirty = false;
    etcd_kv_submit(kv, &w->job);
}

static void on_flush(void *arg)
{
    struct etcd_kv *kv = arg;

    if (!kv->dead)
        etcd_kv_flush(kv);
}

/* The Raft log keeps what is applied until a checkpoint, and whatever reads the store flushes
 * first: so rows may wait, and many applies share one transaction of the store. */
void etcd_kv_flush_soon(struct etcd_kv *kv)
{
    if ((kv->meta_dirty || kv->rows_count > 0) && kv->flush.node.pos == 0)
        bns_timer_start(kv->env, &kv->flush, bns_now_ns(kv->env) + FLUSH_NS);
}

int etcd_kv_push_row(struct etcd_kv *kv, int64_t main, uint32_t sub, struct bns_rcbuf *kv_bytes)
{
    if (kv->rows_count == kv->rows_cap) {
        size_t cap = kv->rows_cap == 0 ? 16 : kv->rows_cap * 2;
        struct etcd_row *rows = bns_resize(kv->alloc, kv->rows, cap * sizeof *rows);
        if (rows == NULL) {
            bns_rcbuf_put(kv_bytes);
            return BNS_E_NOMEM;
        }
        kv->rows = rows;
        kv->rows_cap = cap;
    }
    kv->rows[kv->rows_count++] = (struct etcd_row){main, sub, kv_bytes};
    kv->rows_bytes += kv_bytes->len + sizeof(struct etcd_row);
    return BNS_OK;
}

/* ---- open and close ------------------------------------------------------------------------- */

int etcd_kv_index_row(struct etcd_kv *kv, int64_t main, uint32_t sub, struct bns_slice bytes)
{
    struct etcd_kvview v;
    struct etcd_rev r;
    int rv;

    if (main == 0)
        return etcd_buckets_row(kv, sub, bytes);
    if (etcd_kvbytes_parse(bytes, &v) != BNS_OK || bytes.len >= ETCD_REV_LEASE)
        return BNS_E_CORRUPT;
    if (v.mod != 0 && (v.mod != main || v.version <= 0))
        return BNS_E_CORRUPT;
    r = (struct etcd_rev){.main = main,
                          .sub = sub,
                          .create = v.create,
                          .version = v.mod == 0 ? 0 : v.version,
                          .size = (uint32_t)bytes.len | (v.lease != 0 ? ETCD_REV_LEASE : 0)};
    rv = etcd_index_add(&kv->index, v.key, &r);
    if (rv == BNS_OK && v.lease != 0)
        return etcd_lease_attach(kv, v.key, v.lease);
    if (rv == BNS_OK)
        etcd_lessor_detach(&kv->leases.lessor, v.key);
    return rv;
}

static int on_row(void *arg, int64_t main, uint32_t sub, struct bns_slice bytes)
{
    return etcd_kv_index_row(arg, main, sub, bytes);
}

static void init_metrics(struct etcd_kv *kv)
{
    struct bns_metrics *m = kv->env->metrics;

    if (m == NULL)
        return;
    kv->m_put = bns_counter(m, "etcd_mvcc_put_total", NULL, "Puts applied by this member.");
    kv->m_delete = bns_counter(m, "etcd_mvcc_delete_total", NULL, "Deletes applied.");
    kv->m_range = bns_counter(m, "etcd_mvcc_range_total", NULL, "Ranges answered.");
    kv->m_commit = bns_hist(m, "etcd_disk_backend_commit_duration_seconds", NULL,
                            "The latency distributions of commit called by backend.");
    kv->m_txn = bns_counter(m, "etcd_mvcc_txn_total", NULL, "Transactions applied or answered.");
    if (kv->env->sim) /* what a scrape there says is part of a run: a seed of before is the same */
        return;
    kv->m_hash = bns_hist_double(m, "etcd_mvcc_hash_duration_seconds",
                                 "The latency distribution of storage hash operation.", 0.01, 15);
    kv->m_hash_rev = bns_hist_double(
        m, "etcd_mvcc_hash_rev_duration_seconds",
        "The latency distribution of storage hash by revision operation.", 0.01, 15);
    kv->m_snapshot = bns_hist_double(m, "etcd_disk_backend_snapshot_duration_seconds",
                                     "The latency distribution of backend snapshots.", 0.01, 17);
    kv->m_saved = bns_hist_double(m, "etcd_snap_db_save_total_duration_seconds",
                                  "The total latency distributions of v3 snapshot save", 0.1, 10);
}

void etcd_kv_took(const struct etcd_kv *kv, struct bns_hist *h, uint64_t began_ns)
{
    bns_hist_observe(h, (double)(bns_now_ns(kv->env) - began_ns) / 1e9);
}

bool etcd_kv_installing(const struct etcd_kv *kv)
{
    return kv->install.active;
}

int etcd_kv_open(struct bns_env *env, const struct etcd_kv_config *cfg, struct etcd_kv **out,
                 struct bns_err *err)
{
    struct etcd_kv *kv = bns_alloc_zero(env->alloc, sizeof *kv);
    int rv;

    if (kv == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for a store", cfg->dir);
    kv->env = env;
    kv->awaited = INT64_MAX;
    kv->alloc = env->alloc;
    kv->seed = bns_prng_next(&env->prng);
    kv->quota_bytes = cfg->quota_bytes == 0 ? QUOTA_DEFAULT : cfg->quota_bytes;
    kv->queue_bytes = cfg->queue_bytes == 0 ? QUEUE_DEFAULT : cfg->queue_bytes;
    kv->read_bytes = cfg->read_bytes == 0 ? READ_DEFAULT : cfg->read_bytes;
    etcd_index_init(&kv->index, kv->alloc, kv->seed);
    etcd_cache_init(&kv->cache, kv->alloc, kv->seed,
                    cfg->cache_bytes == 0 ? CACHE_DEFAULT : cfg->cache_bytes);
    bns_hmap_init(&kv->waiters, kv->alloc);
    bns_list_init(&kv->pendings);
    bns_timer_init(&kv->flush, on_flush, kv);
    bns_list_init(&kv->reads);
    bns_list_init(&kv->physical);
    bns_arena_init(&kv->apply.arena, kv->alloc, ARENA_MAX);
    etcd_eval_init(&kv->apply.eval, kv);
    kv->turn_keys = cfg->turn_keys;
    etcd_turns_init(kv);
    etcd_looks_init(kv);
    bns_buf_init(&kv->compact.cursor, kv->alloc, SIZE_MAX);
    init_metrics(kv);
    etcd_defrag_init(kv);
    etcd_leases_init(kv);
    etcd_buckets_init(kv);
    if (etcd_auth_new(kv) != BNS_OK || etcd_index_load_begin(&kv->index, kv->seed) != BNS_OK) {
        etcd_kv_close(kv);
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for users, roles, keys", cfg->dir);
    }
    rv = etcd_store_open(env, cfg->dir, on_row, kv, &kv->store, &kv->now, err);
    if (rv == BNS_OK && etcd_index_load_end(&kv->index) != BNS_OK)
        rv = bns_err_set(err, BNS_E_NOMEM, "%s: no memory for the key index", cfg->dir);
    if (rv == BNS_OK)
        rv = etcd_auth_load(kv, err);
    if (rv == BNS_OK && etcd_watch_hub_new(kv) != BNS_OK)
        rv = bns_err_set(err, BNS_E_NOMEM, "%s: no memory for watches", cfg->dir);
    if (rv == BNS_OK)
        rv = etcd_store_leases(kv->store, etcd_leases_row, kv, err);
    if (rv == BNS_OK)
        rv = etcd_leases_loaded(kv, err);
    etcd_alarms_loaded(kv);
    if (rv != BNS_OK) {
        etcd_kv_close(kv);
        return rv;
    }
    if (BNS_MUTANT(env, ETCD_MUTANT_APPLY_TWICE) && kv->now.applied > 1)
        kv->now.applied--;
    kv->durable = kv->now;
    kv->db_bytes = etcd_store_db_bytes(kv->store, &kv->db_bytes_used);
    etcd_compact_resume(kv);
    *out = kv;
    return BNS_OK;
}

void etcd_kv_close(struct etcd_kv *kv)
{
    if (kv == NULL)
        return;
    BNS_ASSERT(kv->jobs == 0 || kv->dead);
    while (!bns_list_empty(&kv->physical))
        etcd_pending_free(BNS_CONTAINER(bns_list_pop(&kv->physical), struct etcd_pending, node));
    etcd_watch_hub_free(kv);
    rows_put(kv->alloc, kv->rows, kv->rows_count);
    etcd_turns_free(kv);
    etcd_eval_free(&kv->apply.eval);
    bns_arena_free(&kv->apply.arena);
    bns_buf_free(&kv->compact.cursor);
    bns_free(kv->alloc, kv->compact.rows);
    bns_hmap_free(&kv->waiters);
    etcd_auth_free(kv);
    etcd_buckets_clear(kv);
    etcd_leases_clear(kv);
    bns_free(kv->alloc, kv->leases.rows);
    etcd_cache_clear(&kv->cache);
    etcd_index_free(&kv->index);
    etcd_store_close(kv->store);
    bns_free(kv->alloc, kv);
}

void etcd_kv_died(struct etcd_kv *kv)
{
    if (kv != NULL)
        etcd_store_died(kv->store);
}

void etcd_kv_drain(struct etcd_kv *kv, void (*done)(void *arg), void *arg)
{
    kv->stopping = true;
    kv->drained = done;
    kv->drained_arg = arg;
    etcd_reads_refuse(kv);
    etcd_watch_stop(kv);
    etcd_auth_stop(kv);
    bns_timer_stop(kv->env, &kv->flush);
    etcd_leases_stop(kv);
    etcd_kv_flush(kv);
    etcd_kv_check_drained(kv);
}

/* ---- numbers -------------------------------------------------------------------------------- */

int64_t etcd_kv_revision(const struct etcd_kv *kv)
{
    return kv->now.revision;
}

void etcd_kv_await(struct etcd_kv *kv, int64_t revision, void (*fn)(void *arg), void *arg)
{
    kv->awaited = revision;
    kv->on_awaited = fn;
    kv->on_awaited_arg = arg;
}

void etcd_kv_reached(struct etcd_kv *kv)
{
    if (kv->now.revision < kv->awaited)
        return;
    kv->awaited = INT64_MAX;
    kv->on_awaited(kv->on_awaited_arg);
}

int64_t etcd_kv_compacted(const struct etcd_kv *kv)
{
    return kv->now.compact_scheduled;
}

uint64_t etcd_kv_applied(const struct etcd_kv *kv)
{
    return kv->now.applied;
}

uint64_t etcd_kv_db_size(const struct etcd_kv *kv)
{
    return kv->db_bytes;
}

uint64_t etcd_kv_db_size_in_use(const struct etcd_kv *kv)
{
    return kv->db_bytes_used;
}

uint64_t etcd_kv_keys(const struct etcd_kv *kv)
{
    return kv->index.alive;
}

size_t etcd_kv_waiting(const struct etcd_kv *kv)
{
    return kv->waiters.count;
}

bool etcd_kv_defragging(const struct etcd_kv *kv)
{
    return kv->defrag.running;
}

uint64_t etcd_kv_quota(const struct etcd_kv *kv)
{
    return kv->quota_bytes;
}

/* Live and queued bytes, not the file's size: what compaction has freed can be used again. */
bool etcd_kv_room(const struct etcd_kv *kv, uint64_t cost)
{
    uint64_t used = kv->db_bytes_used + kv->queued_bytes + kv->rows_bytes;

    return used < kv->quota_bytes && cost <= kv->quota_bytes - used;
}

const struct bns_sm_ops *etcd_kv_sm(void)
{
    return &etcd_sm_ops;
}

/* ---- waiters -------------------------------------------------------------------------------- */

int etcd_kv_wait(struct etcd_kv *kv, struct etcd_waiter *w)
{
    w->pending = NULL;
    return bns_hmap_insert(&kv->waiters, &w->node, bns_hash_u64(kv->seed, w->id));
}

void etcd_kv_unwait(struct etcd_kv *kv, struct etcd_waiter *w)
{
    struct bns_hnode *n;

    if (w->pending != NULL) { /* applied: the answer will find nobody */
        w->pending->waiter = NULL;
        w->pending = NULL;
        return;
    }
    n = kv->waiters.count == 0 ? NULL : bns_hmap_find(&kv->waiters, w->node.hash);
    for (; n != NULL; n = bns_hmap_find_next(n)) {
        if (n == &w->node) {
            bns_hmap_del(&kv->waiters, n);
            return;
        }
    }
}
