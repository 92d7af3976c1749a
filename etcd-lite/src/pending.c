/* pending.c - an answer under way: which rows it needs, and the reading of those that are not in
 * memory.
 *
 * The state machine decides at once what an answer consists of: a tree of parts, each with a run of
 * rows (main, sub). Rows never change, so their bytes may be fetched later, while further entries
 * are applied: an apply does not wait for the answer to the client. The only thing that can remove
 * a row is a compaction; it waits for the answers that are older than itself (compact.c).
 */
#include "kv_impl.h"

#define CACHE_ROWS_MAX 64 /* a longer scan does not push hot rows out of the cache */

struct etcd_pending *etcd_pending_new(struct etcd_kv *kv)
{
    struct etcd_pending *p = bns_alloc(kv->alloc, sizeof *p);

    if (p == NULL)
        return NULL;
    memset(p, 0, sizeof *p);
    p->kv = kv;
    p->began_ns = bns_now_ns(kv->env);
    p->rows = p->rows_inline;
    p->rows_cap = ETCD_INLINE_ROWS;
    p->parts = p->parts_inline;
    p->parts_cap = 1;
    bns_list_init(&p->node);
    return p;
}

void etcd_pending_free(struct etcd_pending *p)
{
    const struct bns_alloc *a = p->kv->alloc;

    if (p->waiter != NULL)
        p->waiter->pending = NULL;
    for (size_t i = 0; i < p->rows_count; i++)
        bns_rcbuf_put(p->rows[i].kv);
    if (p->rows != p->rows_inline)
        bns_free(a, p->rows);
    if (p->parts != p->parts_inline)
        bns_free(a, p->parts);
    bns_free(a, p);
}

/* Doubles an array that begins inside its owner. NULL: no memory. */
static void *grow(const struct bns_alloc *a, void *old, const void *inside, size_t bytes)
{
    void *bigger;

    if (old != inside)
        return bns_resize(a, old, bytes * 2);
    bigger = bns_alloc(a, bytes * 2);
    if (bigger != NULL)
        memcpy(bigger, old, bytes);
    return bigger;
}

size_t etcd_pending_part(struct etcd_pending *p, enum etcd_part_kind kind, bool nested)
{
    if (p->failed)
        return 0;
    if (p->parts_count == p->parts_cap) {
        struct etcd_part *parts =
            grow(p->kv->alloc, p->parts, p->parts_inline, p->parts_cap * sizeof *parts);
        if (parts == NULL) {
            p->failed = true;
            return 0;
        }
        p->parts = parts;
        p->parts_cap *= 2;
    }
    p->parts[p->parts_count] =
        (struct etcd_part){.kind = (uint8_t)kind, .nested = nested, .first = p->rows_count};
    return p->parts_count++;
}

void etcd_pending_row(struct etcd_pending *p, const struct etcd_rev *r, struct bns_rcbuf *kv)
{
    if (p->rows_count == p->rows_cap && !p->failed) {
        struct etcd_row *rows =
            grow(p->kv->alloc, p->rows, p->rows_inline, p->rows_cap * sizeof *rows);
        if (rows != NULL) {
            p->rows = rows;
            p->rows_cap *= 2;
        }
        p->failed = rows == NULL;
    }
    if (p->failed) {
        bns_rcbuf_put(kv);
        return;
    }
    if (kv == NULL) {
        kv = etcd_cache_get(&p->kv->cache, r->main, r->sub);
        if (kv != NULL)
            (void)bns_rcbuf_get(kv); /* the row's own */
        else
            p->bytes += etcd_rev_bytes(r) + 1;
    }
    p->rows[p->rows_count++] = (struct etcd_row){r->main, r->sub, kv};
}

static void answer_error(struct etcd_pending *p, struct etcd_status why)
{
    struct etcd_answer a = {.status = why.code, .text = why.text, .revision = p->revision};
    struct etcd_waiter *w = p->waiter;
    etcd_done *done = p->done;
    void *arg = p->arg;

    p->waiter = NULL;
    etcd_pending_free(p);
    if (w != NULL) {
        w->pending = NULL;
        w->fn(w, &a);
    } else if (done != NULL) {
        done(arg, &a);
    }
}

void etcd_pending_refuse(struct etcd_pending *p, struct etcd_status why)
{
    answer_error(p, why);
}

void etcd_pending_no_memory(struct etcd_pending *p)
{
    answer_error(p, p->waiter != NULL ? etcd_answer_lost : etcd_no_memory);
}

void etcd_refuse(etcd_done *done, void *arg, struct etcd_status why)
{
    struct etcd_answer a = {.status = why.code, .text = why.text};

    done(arg, &a);
}

static void feed_cache(struct etcd_pending *p)
{
    if (p->rows_count > CACHE_ROWS_MAX)
        return;
    for (size_t i = 0; i < p->rows_count; i++) {
        struct etcd_row *r = &p->rows[i];
        if (r->kv != NULL && r->kv->alloc == etcd_store_alloc(p->kv->store))
            etcd_cache_put(&p->kv->cache, r->main, r->sub, r->kv);
    }
}

static void over(struct etcd_pending *p)
{
    struct etcd_kv *kv = p->kv;

    bns_list_del(&p->node);
    kv->reading_bytes -= p->bytes;
}

static void on_read(struct etcd_store_job *j)
{
    struct etcd_pending *p = BNS_CONTAINER(j, struct etcd_pending, job);
    struct etcd_kv *kv = p->kv;
    bool missing = false;

    if (!etcd_kv_job_over(kv, j))
        return; /* the node is going down: nobody is answered */
    if (j->code == BNS_OK && j->pos < j->rows_count) {
        etcd_kv_submit(kv, j);
        return;
    }
    over(p);
    for (size_t i = 0; i < p->rows_count; i++)
        missing = missing || p->rows[i].kv == NULL;
    if (j->code != BNS_OK) {
        etcd_pending_no_memory(p);
    } else if (missing) {
        BNS_LOG(kv->env->log, BNS_LOG_ERROR, "kv", "a row of the index is not in the store",
                BNS_I64("revision", kv->now.revision));
        answer_error(p, etcd_damaged);
    } else {
        feed_cache(p);
        etcd_pending_finish(p);
    }
    etcd_compact_kick(kv);
    etcd_install_kick(kv);
    etcd_reads_pump(kv);
    etcd_apply_step(kv);
}

void etcd_pending_run(struct etcd_pending *p)
{
    struct etcd_kv *kv = p->kv;

    if (p->failed) {
        etcd_pending_no_memory(p);
        return;
    }
    if (p->bytes == 0) {
        etcd_pending_finish(p);
        return;
    }
    if (kv->rows_count > 0)
        etcd_kv_flush(kv); /* rows that this answer may name go first */
    p->seq = ++kv->seq;
    bns_list_push(&kv->pendings, &p->node);
    kv->reading_bytes += p->bytes;
    p->job = (struct etcd_store_job){
        .kind = ETCD_STORE_READ, .done = on_read, .rows = p->rows, .rows_count = p->rows_count};
    etcd_kv_submit(kv, &p->job);
}
