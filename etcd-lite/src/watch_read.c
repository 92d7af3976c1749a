/* watch_read.c - batches that need the store: rows named by the index, or a scan.
 *
 * A scan is a slice of all rows behind a revision, whatever their keys. It ends in the middle of a
 * revision as a rule, so its last revision is left out, and the next scan begins with it; only when
 * a slice holds nothing but one revision does the same batch go on.
 */
#include "watch_impl.h"

#define SCAN_ROWS 512u
#define CACHE_EVENTS_MAX 64u

/* To those that wait for it, as many as the turn has room for; the pump goes on with the others. */
void etcd_watch_hand_out(struct etcd_watch_batch *b)
{
    struct etcd_watch_hub *h = b->hub;
    struct etcd_kv *kv = h->kv;

    h->pumping = true;
    while (!bns_list_empty(&b->watches) && (h->work < ETCD_WATCH_TURN_WORK || kv->stopping)) {
        h->work++;
        etcd_watch_deliver(b, BNS_CONTAINER(bns_list_pop(&b->watches), struct etcd_watch, work));
    }
    h->pumping = false;
    if (bns_list_empty(&b->watches)) {
        bns_list_del(&b->node);
        h->flying_count--;
        etcd_watch_batch_free(b);
    }
    etcd_watch_fail_all(h);
    etcd_watch_kick(h);
    etcd_install_kick(kv);
}

static void landed(struct etcd_watch_batch *b)
{
    struct etcd_watch_hub *h = b->hub;

    if (b->no_memory) {
        bns_list_splice(&h->stalled, &b->watches);
        if (h->retry.node.pos == 0 && !h->kv->stopping)
            bns_timer_start(h->kv->env, &h->retry, bns_now_ns(h->kv->env) + 10 * BNS_MS);
    }
    b->landed = true;
    h->work = 0;
    etcd_watch_hand_out(b);
}

static void fly(struct etcd_watch_batch *b)
{
    struct etcd_watch_hub *h = b->hub;

    if (h->kv->rows_count > 0)
        etcd_kv_flush(h->kv); /* rows that we may look for go first */
    etcd_kv_submit(h->kv, &b->job);
}

/* ---- rows that are named -------------------------------------------------------------------- */

/* Rows are removed by compaction only; what is still missing above it is damage. */
static void take_rows(struct etcd_watch_batch *b)
{
    struct etcd_kv *kv = b->hub->kv;
    size_t i = 0;

    for (size_t k = 0; k < b->count; k++) {
        struct etcd_watch_event *e = &b->events[k];
        if (e->kv == NULL)
            e->kv = b->rows[i++].kv;
        if (e->prev_main != 0 && e->prev == NULL)
            e->prev = b->rows[i++].kv;
        if (e->kv == NULL)
            b->damaged = b->damaged || e->main >= kv->now.compact_scheduled;
        if (e->prev_main != 0 && e->prev == NULL)
            b->damaged = b->damaged || e->main > kv->now.compact_scheduled;
        if (e->kv != NULL && b->count <= CACHE_EVENTS_MAX && !e->dead)
            etcd_cache_put(&kv->cache, e->main, e->sub, e->kv);
    }
    BNS_ASSERT(i == b->missing);
    b->missing = 0;
    if (b->damaged)
        BNS_LOG(kv->env->log, BNS_LOG_ERROR, "watch", "a row of the index is not in the store",
                BNS_I64("from", b->from));
}

static void on_rows(struct etcd_store_job *j)
{
    struct etcd_watch_batch *b = BNS_CONTAINER(j, struct etcd_watch_batch, job);
    struct etcd_kv *kv = b->hub->kv;

    if (!etcd_kv_job_over(kv, j))
        return; /* the node is going down */
    if (j->code == BNS_OK && j->pos < j->rows_count) {
        etcd_kv_submit(kv, j);
        return;
    }
    if (j->code != BNS_OK) {
        b->no_memory = true;
        for (size_t i = 0; i < j->rows_count; i++)
            bns_rcbuf_put(b->rows[i].kv);
    } else {
        take_rows(b);
    }
    landed(b);
}

static bool name_rows(struct etcd_watch_batch *b)
{
    size_t i = 0;

    bns_free(b->hub->kv->alloc, b->rows);
    b->rows = bns_alloc_array(b->hub->kv->alloc, b->missing, sizeof *b->rows);
    if (b->rows == NULL)
        return false;
    for (size_t k = 0; k < b->count; k++) {
        const struct etcd_watch_event *e = &b->events[k];
        if (e->kv == NULL)
            b->rows[i++] = (struct etcd_row){e->main, e->sub, NULL};
        if (e->prev_main != 0 && e->prev == NULL)
            b->rows[i++] = (struct etcd_row){e->prev_main, e->prev_sub, NULL};
    }
    BNS_ASSERT(i == b->missing);
    return true;
}

static int read_missing(struct etcd_watch_batch *b)
{
    if (!name_rows(b))
        return BNS_E_NOMEM;
    b->job = (struct etcd_store_job){
        .kind = ETCD_STORE_READ, .done = on_rows, .rows = b->rows, .rows_count = b->missing};
    fly(b);
    return BNS_OK;
}

static void begin(struct etcd_watch_batch *b)
{
    bns_list_push(&b->hub->flying, &b->node);
    b->hub->flying_count++;
}

int etcd_watch_batch_read(struct etcd_watch_batch *b)
{
    int rv = read_missing(b);

    if (rv == BNS_OK)
        begin(b);
    return rv;
}

/* ---- a scan --------------------------------------------------------------------------------- */

static void cut_behind(struct etcd_watch_batch *b, int64_t upto)
{
    b->upto = upto;
    while (b->count > 0 && b->events[b->count - 1].main > upto) {
        struct etcd_watch_event *e = &b->events[--b->count];
        b->missing -= (e->kv == NULL) + (size_t)(e->prev_main != 0 && e->prev == NULL);
        bns_rcbuf_put(e->kv);
        bns_rcbuf_put(e->prev);
    }
}

static void take_row(struct etcd_watch_batch *b, const struct etcd_row *r)
{
    struct etcd_watch_event e = {.main = r->main, .sub = r->sub, .kv = r->kv};
    const struct etcd_key *k = NULL;
    struct etcd_kvview v;

    if (b->full || b->no_memory || b->damaged)
        return;
    if (etcd_kvbytes_parse(bns_rcbuf_slice(r->kv), &v) != BNS_OK) {
        b->damaged = true;
        return;
    }
    if (!etcd_watch_target_has(b->target, v.key))
        return;
    e.dead = v.mod == 0;
    if (b->prev)
        k = etcd_index_first(&b->hub->kv->index, v.key, bns_slice(NULL, 0));
    if (!etcd_watch_batch_add(b, k, &e, r->kv->len) && b->full)
        b->upto = r->main - 1;
}

static void on_scan(struct etcd_store_job *j)
{
    struct etcd_watch_batch *b = BNS_CONTAINER(j, struct etcd_watch_batch, job);
    struct etcd_kv *kv = b->hub->kv;
    int64_t last = j->rows_count > 0 ? b->rows[j->rows_count - 1].main : 0;

    if (!etcd_kv_job_over(kv, j))
        return; /* the node is going down */
    b->no_memory = b->no_memory || j->code != BNS_OK;
    for (size_t i = 0; i < j->rows_count; i++) {
        if (b->target != NULL)
            take_row(b, &b->rows[i]);
        bns_rcbuf_put(b->rows[i].kv);
    }
    if (b->no_memory || b->target == NULL) {
        landed(b);
        return;
    }
    if (!b->full && !j->finished && last <= b->from && !b->damaged) {
        fly(b); /* nothing but one revision so far: behind these rows */
        return;
    }
    if (b->full)
        cut_behind(b, b->upto);
    else if (j->finished)
        cut_behind(b, b->submitted);
    else
        cut_behind(b, last - 1);
    if (b->missing > 0 && !b->damaged && read_missing(b) == BNS_OK)
        return;
    b->no_memory = b->missing > 0 && !b->damaged;
    landed(b);
}

int etcd_watch_batch_scan(struct etcd_watch_batch *b)
{
    struct etcd_watch_hub *h = b->hub;

    b->submitted = h->kv->now.revision;
    b->rows = bns_alloc_array(h->kv->alloc, SCAN_ROWS, sizeof *b->rows);
    if (b->rows == NULL)
        return BNS_E_NOMEM;
    begin(b);
    b->job = (struct etcd_store_job){.kind = ETCD_STORE_SCAN,
                                     .done = on_scan,
                                     .rows = b->rows,
                                     .rows_cap = SCAN_ROWS,
                                     .after_main = b->from - 1,
                                     .after_sub = UINT32_MAX};
    fly(b);
    return BNS_OK;
}
