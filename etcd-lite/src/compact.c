/* compact.c - Compact: the logical step when the entry is applied, the physical one behind it.
 *
 * Logically a compaction is one number: from then on reads below it fail, on every member alike,
 * whatever is still on disk. Physically the index is walked in slices of a loop turn each; what it
 * gives up is deleted from the store a thousand rows a job. Both numbers are in the meta row
 * (scheduled, finished), so that a restart goes on where the index scan finds rows left over; doing
 * a part twice does no harm.
 *
 * Answers that were put together before the compaction may still have to read rows that it removes:
 * the walk begins when those are out. Later answers name only rows that stay.
 */
#include "kv_impl.h"

#define SLICE_KEYS 2000
#define SLICE_ROWS 1000

static void run(struct bns_task *t);

static void post(struct etcd_kv *kv)
{
    kv->compact.posted = true;
    kv->compact.task.fn = run;
    bns_post(kv->env, &kv->compact.task);
}

static bool must_wait(const struct etcd_kv *kv)
{
    const struct etcd_compaction *c = &kv->compact;
    const struct etcd_pending *oldest;

    if (!c->running || c->posted || c->submitted || kv->dead || kv->stopping || kv->install.active)
        return true;
    if (bns_list_empty(&kv->pendings))
        return false;
    oldest = BNS_CONTAINER(kv->pendings.next, struct etcd_pending, node);
    return oldest->seq <= c->after_seq;
}

void etcd_compact_kick(struct etcd_kv *kv)
{
    if (!must_wait(kv))
        post(kv);
}

static void begin(struct etcd_kv *kv, int64_t at)
{
    struct etcd_compaction *c = &kv->compact;

    c->running = true;
    c->at = at;
    c->at_end = false;
    c->after_seq = kv->seq;
    bns_buf_clear(&c->cursor); /* a pass under way begins again, with the higher number */
    etcd_compact_kick(kv);
}

struct etcd_status etcd_compact_apply(struct etcd_kv *kv, int64_t at)
{
    if (at <= kv->now.compact_scheduled)
        return etcd_compacted;
    if (at > kv->now.revision)
        return etcd_future;
    kv->now.compact_scheduled = at;
    kv->now.digest = bns_hash_u64(kv->now.digest, (uint64_t)at);
    begin(kv, at);
    return etcd_ok;
}

static void answer_physical(struct etcd_kv *kv)
{
    struct bns_list *n;

    while ((n = bns_list_pop(&kv->physical)) != NULL)
        etcd_pending_run(BNS_CONTAINER(n, struct etcd_pending, node));
}

void etcd_compact_resume(struct etcd_kv *kv)
{
    kv->compact.running = false;
    kv->compact.rows_count = 0;
    kv->compact.rows_pos = 0;
    if (kv->now.compact_finished < kv->now.compact_scheduled)
        begin(kv, kv->now.compact_scheduled);
    else
        answer_physical(kv); /* the installed snapshot had it behind it */
}

static void drop(void *arg, const struct etcd_rev *rev)
{
    struct etcd_compaction *c = arg;

    BNS_ASSERT(c->rows_count < c->rows_cap);
    c->rows[c->rows_count++] = (struct etcd_row){rev->main, rev->sub, NULL};
}

static bool reserve(struct etcd_kv *kv, size_t more)
{
    struct etcd_compaction *c = &kv->compact;
    size_t need = c->rows_count + more;
    struct etcd_row *rows;

    if (need <= c->rows_cap)
        return true;
    need += need / 2;
    rows = bns_resize(kv->alloc, c->rows, need * sizeof *rows);
    if (rows == NULL)
        return false;
    c->rows = rows;
    c->rows_cap = need;
    return true;
}

/* One slice of the index. */
static void walk(struct etcd_kv *kv)
{
    struct etcd_compaction *c = &kv->compact;
    struct etcd_key *k = etcd_index_seek(&kv->index, bns_buf_slice(&c->cursor));

    for (int i = 0; k != NULL && i < SLICE_KEYS && c->rows_count < SLICE_ROWS; i++) {
        struct etcd_key *next = etcd_index_next(k, BNS_LIT("\0"));
        if (!reserve(kv, k->count)) {
            etcd_kv_fatal(kv, BNS_E_NOMEM, "out of memory while compacting");
            return;
        }
        etcd_index_compact(&kv->index, k, c->at, drop, c);
        k = next;
    }
    c->at_end = k == NULL;
    bns_buf_clear(&c->cursor);
    if (k != NULL &&
        bns_buf_add(&c->cursor, etcd_key_bytes(k).ptr, etcd_key_bytes(k).len) != BNS_OK)
        etcd_kv_fatal(kv, BNS_E_NOMEM, "out of memory while compacting");
}

static void finish(struct etcd_kv *kv)
{
    struct etcd_compaction *c = &kv->compact;

    c->running = false;
    bns_free(kv->alloc, c->rows);
    c->rows = NULL;
    c->rows_cap = 0;
    kv->now.compact_finished = c->at;
    kv->meta_dirty = true;
    etcd_kv_flush(kv);
    answer_physical(kv);
}

static void deleted(struct etcd_store_job *j)
{
    struct etcd_compaction *c = BNS_CONTAINER(j, struct etcd_compaction, job);
    struct etcd_kv *kv = BNS_CONTAINER(c, struct etcd_kv, compact);

    c->submitted = false;
    if (!etcd_kv_job_over(kv, j))
        return;
    c->rows_pos += j->rows_count;
    if (c->rows_pos == c->rows_count) {
        c->rows_count = 0;
        c->rows_pos = 0;
    }
    etcd_install_kick(kv);
    etcd_compact_kick(kv);
}

static void submit(struct etcd_kv *kv)
{
    struct etcd_compaction *c = &kv->compact;
    size_t left = c->rows_count - c->rows_pos;

    c->submitted = true;
    c->job = (struct etcd_store_job){.kind = ETCD_STORE_DELETE,
                                     .done = deleted,
                                     .rows = c->rows + c->rows_pos,
                                     .rows_count = left < SLICE_ROWS ? left : SLICE_ROWS};
    etcd_kv_flush(kv); /* the number that makes these rows unreadable goes first */
    etcd_kv_submit(kv, &c->job);
}

static void run(struct bns_task *t)
{
    struct etcd_compaction *c = BNS_CONTAINER(t, struct etcd_compaction, task);
    struct etcd_kv *kv = BNS_CONTAINER(c, struct etcd_kv, compact);

    c->posted = false;
    etcd_kv_check_drained(kv);
    etcd_install_kick(kv);
    if (must_wait(kv))
        return;
    if (c->rows_pos == c->rows_count && !c->at_end)
        walk(kv);
    if (kv->dead)
        return;
    if (c->rows_pos < c->rows_count)
        submit(kv);
    else if (c->at_end)
        finish(kv);
    else
        post(kv);
}
