/* watch_sync.c - the pump: watches that are behind get the events that they miss.
 *
 * A watch is taken off the queue and given a batch: the events of its target from its next revision
 * on, whole revisions, up to a limit. Where they come from:
 *
 *   a key    its revisions are in the key index, so exactly these are looked for
 *   a range  the recent rows, when they reach back far enough; else a scan of the store
 *
 * Values (and previous values) come from the recent rows and the cache, else from the store in one
 * job. A batch is used for all watches that need the same: those on one target that are equally far
 * behind, so an event on a key with ten thousand watches is looked up once. At most
 * ETCD_WATCH_FLYING_MAX batches are with the store; further watches stall until one has landed.
 *
 * Fairness: the pump does a bounded amount of work a turn; a watch that needs more goes to the end
 * of the queue; a watch whose transport is full waits on its stream.
 *
 * Compaction may remove rows while the store is read. Watches whose next revision lies below the
 * compacted one are cancelled when the batch has landed, and for the others nothing was removed.
 */
#include "watch_impl.h"

#define LOOKS 16u /* rows looked at that count as one unit of work */
#define RETRY_NS (10 * BNS_MS)
#define BATCH_EVENTS 1000u

/* ---- batches -------------------------------------------------------------------------------- */

static struct etcd_watch_batch *batch_new(struct etcd_watch_hub *h, const struct etcd_watch *w)
{
    struct etcd_watch_batch *b = bns_alloc(h->kv->alloc, sizeof *b);

    if (b == NULL)
        return NULL;
    memset(b, 0, offsetof(struct etcd_watch_batch, body));
    b->hub = h;
    b->target = w->target;
    b->from = w->next;
    b->prev = w->prev_kv;
    bns_list_init(&b->node);
    bns_list_init(&b->watches);
    return b;
}

void etcd_watch_batch_free(struct etcd_watch_batch *b)
{
    if (b == NULL)
        return;
    BNS_ASSERT(bns_list_empty(&b->watches));
    for (size_t i = 0; i < b->count; i++) {
        bns_rcbuf_put(b->events[i].kv);
        bns_rcbuf_put(b->events[i].prev);
    }
    bns_free(b->hub->kv->alloc, b->events);
    bns_free(b->hub->kv->alloc, b->rows);
    bns_free(b->hub->kv->alloc, b);
}

static bool make_room(struct etcd_watch_batch *b)
{
    size_t cap = b->cap == 0 ? 4 : b->cap * 2;
    struct etcd_watch_event *events;

    if (b->count < b->cap)
        return true;
    events = bns_resize(b->hub->kv->alloc, b->events, cap * sizeof *events);
    if (events == NULL)
        return false;
    b->events = events;
    b->cap = cap;
    return true;
}

static struct bns_rcbuf *in_memory(struct etcd_watch_hub *h, int64_t main, uint32_t sub)
{
    struct bns_rcbuf *b = etcd_recent_find(&h->recent, main, sub);

    if (b == NULL)
        b = etcd_cache_get(&h->kv->cache, main, sub);
    return b == NULL ? NULL : bns_rcbuf_get(b);
}

bool etcd_watch_batch_add(struct etcd_watch_batch *b, const struct etcd_key *k,
                          const struct etcd_watch_event *e, size_t bytes)
{
    struct etcd_watch_hub *h = b->hub;
    const struct etcd_rev *prev = NULL;
    struct etcd_watch_event *at;

    if (b->count > 0 && b->events[b->count - 1].main != e->main &&
        (b->count >= BATCH_EVENTS || b->bytes >= h->cfg.batch_bytes))
        b->full = true;
    if (!b->full && !make_room(b))
        b->no_memory = true;
    if (b->full || b->no_memory)
        return false;
    at = &b->events[b->count++];
    *at = *e;
    if (at->kv != NULL)
        (void)bns_rcbuf_get(at->kv); /* the event's own */
    else
        at->kv = in_memory(h, e->main, e->sub);
    if (b->prev && k != NULL && e->main - 1 >= h->kv->now.compact_scheduled)
        prev = etcd_key_alive_at(k, e->main - 1);
    if (prev != NULL) {
        at->prev_main = prev->main;
        at->prev_sub = prev->sub;
        at->prev = in_memory(h, prev->main, prev->sub);
        b->bytes += etcd_rev_bytes(prev);
        b->missing += at->prev == NULL;
    }
    b->bytes += bytes;
    b->missing += at->kv == NULL;
    return true;
}

/* ---- gathering ------------------------------------------------------------------------------ */

static void gather_key(struct etcd_watch_batch *b)
{
    struct etcd_kv *kv = b->hub->kv;
    const struct etcd_key *k = etcd_index_first(&kv->index, b->target->key, bns_slice(NULL, 0));
    uint32_t lo = 0, hi = k == NULL ? 0 : k->count;

    b->upto = kv->now.revision;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (k->revs[mid].main < b->from)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (; k != NULL && lo < k->count && k->revs[lo].main <= b->upto; lo++) {
        const struct etcd_rev *r = &k->revs[lo];
        const struct etcd_watch_event e = {
            .main = r->main, .sub = r->sub, .dead = etcd_rev_dead(r)};
        if (!etcd_watch_batch_add(b, k, &e, etcd_rev_bytes(r))) {
            b->upto = r->main - 1;
            break;
        }
    }
    b->hub->work += b->count / LOOKS;
}

static void gather_recent(struct etcd_watch_batch *b)
{
    struct etcd_watch_hub *h = b->hub;
    size_t first = etcd_recent_seek(&h->recent, b->from, 0), i;

    b->upto = h->kv->now.revision;
    for (i = first; i < h->recent.count; i++) {
        const struct etcd_row *r = etcd_recent_at(&h->recent, i);
        struct etcd_watch_event e = {.main = r->main, .sub = r->sub, .kv = r->kv};
        const struct etcd_key *k = NULL;
        struct etcd_kvview v;

        if (etcd_kvbytes_parse(bns_rcbuf_slice(r->kv), &v) != BNS_OK)
            BNS_ASSERT(false); /* this process has made them */
        if (!etcd_watch_target_has(b->target, v.key))
            continue;
        e.dead = v.mod == 0;
        if (b->prev)
            k = etcd_index_first(&h->kv->index, v.key, bns_slice(NULL, 0));
        if (!etcd_watch_batch_add(b, k, &e, r->kv->len)) {
            b->upto = r->main - 1;
            break;
        }
    }
    h->work += (i - first) / LOOKS;
}

/* Can w be given what b has, or will have? */
static bool suits(const struct etcd_watch_batch *b, const struct etcd_watch *w)
{
    return b->target == w->target && w->next >= b->from && (b->upto == 0 || w->next <= b->upto) &&
           (b->prev || !w->prev_kv);
}

static void stall(struct etcd_watch_hub *h, struct etcd_watch *w)
{
    bns_list_push(&h->stalled, &w->work);
}

static void retry_soon(struct etcd_watch_hub *h)
{
    if (h->retry.node.pos == 0 && !h->kv->stopping)
        bns_timer_start(h->kv->env, &h->retry, bns_now_ns(h->kv->env) + RETRY_NS);
}

void etcd_watch_retry(void *arg)
{
    struct etcd_watch_hub *h = arg;

    bns_list_splice(&h->queue, &h->stalled);
    etcd_watch_kick(h);
}

/* A new batch for w: at hand (hub->last), or with the store, w waiting for it. */
static void gather(struct etcd_watch_hub *h, struct etcd_watch *w)
{
    bool scan = w->target->range && w->next < h->recent.first;
    bool room = h->flying_count < ETCD_WATCH_FLYING_MAX;
    struct etcd_watch_batch *b = scan && !room ? NULL : batch_new(h, w);

    if (b == NULL) {
        stall(h, w);
        if (room)
            retry_soon(h); /* else the next that lands will free it */
        return;
    }
    if (!scan && w->target->range)
        gather_recent(b);
    else if (!scan)
        gather_key(b);
    if (!scan && !b->no_memory && b->missing == 0) {
        etcd_watch_batch_free(h->last);
        h->last = b;
        etcd_watch_deliver(b, w);
        return;
    }
    if (!b->no_memory && room &&
        (scan ? etcd_watch_batch_scan(b) : etcd_watch_batch_read(b)) == BNS_OK) {
        bns_list_push(&b->watches, &w->work);
        return;
    }
    stall(h, w);
    if (room)
        retry_soon(h);
    etcd_watch_batch_free(b);
}

/* ---- serving -------------------------------------------------------------------------------- */

static void cancel_compacted(struct etcd_watch *w)
{
    struct etcd_watch_stream *s = w->stream;
    const struct etcd_watch_note note = {
        .id = w->id, .canceled = true, .compact_revision = s->hub->kv->now.compact_scheduled};

    etcd_watch_end_events(w);
    (void)etcd_watch_send_note(s, &note); /* a stream that fails is told so elsewhere */
}

void etcd_watch_deliver(struct etcd_watch_batch *b, struct etcd_watch *w)
{
    struct etcd_watch_stream *s = w->stream;
    struct etcd_watch_hub *h = s->hub;
    int rv;

    BNS_ASSERT(bns_list_empty(&w->work));
    if (s->failed)
        return;
    if (etcd_watch_blocked(s)) {
        bns_list_push(&s->blocked, &w->work);
        return;
    }
    if (w->next < h->kv->now.compact_scheduled) {
        cancel_compacted(w);
        return;
    }
    if (!suits(b, w)) { /* it joined a scan that did not come as far */
        bns_list_push(&h->queue, &w->work);
        return;
    }
    if (b->damaged) {
        etcd_watch_fail(s, 15, etcd_damaged.text);
        return;
    }
    rv = etcd_watch_send_events(b, w);
    if (rv == BNS_E_NOMEM) {
        stall(h, w);
        retry_soon(h);
        return;
    }
    if (rv != BNS_OK) { /* the transport is gone: the stream will be closed */
        if (rv != BNS_E_OFF)
            etcd_watch_fail(s, 8, "etcdserver: too many requests");
        bns_list_push(&s->blocked, &w->work);
        return;
    }
    h->work += b->bytes / 256;
    w->told = w->told || b->count > 0;
    w->next = BNS_MUTANT(h->kv->env, ETCD_MUTANT_WATCH_GAP) ? h->kv->now.revision + 1 : b->upto + 1;
    etcd_watch_refresh(w);
    if (w->behind)
        bns_list_push(&h->queue, &w->work);
}

static void serve(struct etcd_watch_hub *h, struct etcd_watch *w)
{
    struct etcd_watch_stream *s = w->stream;

    if (s->failed || !w->behind)
        return;
    if (w->next > h->revision) {
        bns_list_push(&h->held, &w->work);
        return;
    }
    if (etcd_watch_blocked(s)) {
        bns_list_push(&s->blocked, &w->work);
        return;
    }
    if (w->next < h->kv->now.compact_scheduled) {
        cancel_compacted(w);
        return;
    }
    if (h->last != NULL && suits(h->last, w)) {
        etcd_watch_deliver(h->last, w);
        return;
    }
    BNS_LIST_EACH(n, &h->flying)
    {
        struct etcd_watch_batch *b = BNS_CONTAINER(n, struct etcd_watch_batch, node);
        if (suits(b, w)) {
            bns_list_push(&b->watches, &w->work);
            return;
        }
    }
    gather(h, w);
}

/* Those that stalled come first, but not before there is room for what one of them needs: to look
 * at all of them each time that a batch lands would be quadratic. */
static struct bns_list *next_one(struct etcd_watch_hub *h)
{
    bool room = h->flying_count < ETCD_WATCH_FLYING_MAX && h->retry.node.pos == 0;
    struct bns_list *n = room ? bns_list_pop(&h->stalled) : NULL;

    return n != NULL ? n : bns_list_pop(&h->queue);
}

void etcd_watch_pump(struct bns_task *t)
{
    struct etcd_watch_hub *h = BNS_CONTAINER(t, struct etcd_watch_hub, pump);
    struct etcd_kv *kv = h->kv;
    struct bns_list *n;

    h->posted = false;
    etcd_kv_check_drained(kv);
    h->work = 0;
    BNS_LIST_EACH(it, &h->flying)
    {
        struct etcd_watch_batch *b = BNS_CONTAINER(it, struct etcd_watch_batch, node);
        if (b->landed && !kv->dead)
            etcd_watch_hand_out(b);
    }
    if (kv->dead || kv->stopping || kv->install.active)
        return; /* after an installation it is started again */
    etcd_watch_reap(h, ETCD_WATCH_TURN_DROPS);
    h->pumping = true;
    while (h->work < ETCD_WATCH_TURN_WORK && !kv->dead && (n = next_one(h)) != NULL) {
        h->work++;
        serve(h, BNS_CONTAINER(n, struct etcd_watch, work));
    }
    etcd_watch_batch_free(h->last);
    h->last = NULL;
    h->pumping = false;
    if (kv->dead)
        return;
    etcd_watch_answer_asked(h);
    etcd_watch_fail_all(h);
    if (!bns_list_empty(&h->queue) || !bns_list_empty(&h->closed) ||
        h->work >= ETCD_WATCH_TURN_WORK)
        etcd_watch_kick(h); /* else whoever is left waits for a batch or for the retry */
}
