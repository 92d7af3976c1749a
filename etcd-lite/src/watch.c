/* watch.c - streams and watches: requests in, and what a new revision means for whom.
 *
 * There is one way from an event to a client, whether it is live or old. A watch has two numbers:
 * `next`, the first revision that may hold an event that it has not been sent, and `newest`, the
 * newest revision known to hold one (its own, for history; its target's, for what came since). It
 * is behind when newest >= next; then it stands in a queue, and the pump (watch_sync.c) gets a
 * batch of events for it: from memory when it is a little behind, from the store when more. A new
 * revision only raises `newest` of the targets that it concerns, and queues those of their watches
 * that were not behind yet. So there is no moment at which a watch changes from "catching up" to
 * "live", and none at which an event could fall between.
 *
 *   created at S  ->  next = S, newest = the store's revision (or less than next: nothing yet)
 *   revision R    ->  newest = R; when it was not behind, next = R too: nothing lies in between
 *   sent up to U  ->  next = U + 1
 *
 * A watch whose transport is full waits on its stream with these two numbers and nothing else.
 */
#include "watch_impl.h"

#define PROGRESS_NS (600 * BNS_SEC)
#define FRAGMENT_BYTES (2u * 1024 * 1024)
#define RECENT_BYTES (UINT64_C(4) << 20)
#define BATCH_BYTES (512u * 1024)
#define QUEUE_BYTES (1024u * 1024)
#define QUEUE_ALL_BYTES (UINT64_C(64) << 20)

#define TEXT_NO_MEMORY "etcdserver: too many requests"
#define TEXT_COMPACTED "etcdserver: mvcc: required revision has been compacted"
#define TEXT_DUPLICATE "mvcc: duplicate watch ID provided on the WatchStream"
#define TEXT_EMPTY "mvcc: watcher range is empty"

/* ---- the hub -------------------------------------------------------------------------------- */

static void on_progress(void *arg);

static void set_limits(struct etcd_watch_hub *h)
{
    if (h->cfg.progress_ns == 0)
        h->cfg.progress_ns = PROGRESS_NS;
    if (h->cfg.fragment_bytes == 0)
        h->cfg.fragment_bytes = FRAGMENT_BYTES;
    if (h->cfg.batch_bytes == 0)
        h->cfg.batch_bytes = BATCH_BYTES;
    if (h->cfg.queue_bytes == 0)
        h->cfg.queue_bytes = QUEUE_BYTES;
    if (h->cfg.queue_all_bytes == 0)
        h->cfg.queue_all_bytes = QUEUE_ALL_BYTES;
    h->recent.bytes_max = h->cfg.recent_bytes == 0 ? RECENT_BYTES : h->cfg.recent_bytes;
}

int etcd_watch_hub_new(struct etcd_kv *kv)
{
    struct etcd_watch_hub *h = bns_alloc_zero(kv->alloc, sizeof *h);

    if (h == NULL)
        return BNS_E_NOMEM;
    h->kv = kv;
    h->revision = kv->now.revision;
    h->head_revision = -1;
    set_limits(h);
    etcd_watch_index_init(&h->index, kv->alloc, kv->seed);
    bns_list_init(&h->streams);
    bns_hmap_init(&h->numbered, kv->alloc);
    bns_list_init(&h->asked);
    bns_list_init(&h->failing);
    bns_list_init(&h->queue);
    bns_list_init(&h->stalled);
    bns_list_init(&h->held);
    bns_list_init(&h->closed);
    bns_list_init(&h->flying);
    bns_list_init(&h->due);
    h->pump.fn = etcd_watch_pump;
    bns_timer_init(&h->retry, etcd_watch_retry, h);
    bns_timer_init(&h->progress, on_progress, h);
    bns_timer_init(&h->tight, etcd_watch_tight, h);
    kv->watch = h;
    return BNS_OK;
}

void etcd_watch_hub_free(struct etcd_kv *kv)
{
    struct etcd_watch_hub *h = kv->watch;

    if (h == NULL)
        return;
    BNS_ASSERT(bns_list_empty(&h->streams));
    BNS_ASSERT(h->flying_count == 0 || kv->dead);
    etcd_watch_reap(h, SIZE_MAX);
    etcd_recent_free(&h->recent, kv->alloc);
    bns_hmap_free(&h->numbered);
    etcd_watch_index_free(&h->index);
    bns_free(kv->alloc, h);
    kv->watch = NULL;
}

void etcd_watch_setup(struct etcd_kv *kv, const struct etcd_watch_config *cfg)
{
    struct etcd_watch_hub *h = kv->watch;

    BNS_ASSERT(h->streams_count == 0);
    h->cfg = *cfg;
    set_limits(h);
    h->cfg.progress_ns += bns_prng_below(&kv->env->prng, h->cfg.progress_ns / 10 + 1);
    if (kv->env->metrics != NULL)
        h->m_events = bns_counter(kv->env->metrics, "etcd_debugging_mvcc_events_total", NULL,
                                  "Events sent to watches of this member.");
}

void etcd_watch_stats(const struct etcd_kv *kv, struct etcd_watch_stats *out)
{
    const struct etcd_watch_hub *h = kv->watch;

    *out = (struct etcd_watch_stats){
        .streams = h->streams_count, .watches = h->watches, .slow = h->behind, .events = h->events};
    BNS_LIST_EACH(n, &h->flying)
    {
        out->pending += BNS_CONTAINER(n, struct etcd_watch_batch, node)->count;
    }
}

bool etcd_watch_reading(const struct etcd_kv *kv)
{
    return kv->watch->flying_count > 0;
}

bool etcd_watch_posted(const struct etcd_kv *kv)
{
    return kv->watch->posted;
}

void etcd_watch_stop(struct etcd_kv *kv)
{
    struct etcd_watch_hub *h = kv->watch;

    bns_timer_stop(kv->env, &h->retry);
    bns_timer_stop(kv->env, &h->progress);
    bns_timer_stop(kv->env, &h->tight);
}

void etcd_watch_kick(struct etcd_watch_hub *h)
{
    if (h->pumping || h->posted || h->kv->stopping)
        return;
    h->posted = true;
    bns_post(h->kv->env, &h->pump);
}

/* ---- watches -------------------------------------------------------------------------------- */

static void set_behind(struct etcd_watch *w, bool behind)
{
    struct etcd_watch_hub *h = w->stream->hub;

    if (behind == w->behind)
        return;
    w->behind = behind;
    bns_list_del(&w->of_target);
    bns_list_push(behind ? &w->target->waiting : &w->target->watches, &w->of_target);
    if (behind) {
        h->behind++;
        w->stream->behind++;
    } else {
        h->behind--;
        w->stream->behind--;
    }
}

static void set_future(struct etcd_watch *w, bool future)
{
    if (future && !w->future)
        w->stream->futures++;
    if (!future && w->future)
        w->stream->futures--;
    w->future = future;
}

void etcd_watch_refresh(struct etcd_watch *w)
{
    const struct etcd_watch_target *t = w->target;
    bool behind = w->newest >= w->next;

    behind = behind || (!w->no_put && t->newest[0] >= w->next);
    behind = behind || (!w->no_delete && t->newest[1] >= w->next);
    if (behind)
        set_future(w, false); /* its start is reached */
    set_behind(w, behind);
}

static struct etcd_watch *find(struct etcd_watch_stream *s, int64_t id)
{
    uint64_t hash = bns_hash_u64(s->hub->index.seed, (uint64_t)id);
    struct bns_hnode *n = s->watches.count == 0 ? NULL : bns_hmap_find(&s->watches, hash);

    for (; n != NULL; n = bns_hmap_find_next(n)) {
        struct etcd_watch *w = BNS_CONTAINER(n, struct etcd_watch, by_id);
        if (w->id == id)
            return w;
    }
    return NULL;
}

/* Nobody watches it any more: batches on their way may not look at it. */
static void drop_target(struct etcd_watch_hub *h, struct etcd_watch_target *t)
{
    BNS_LIST_EACH(n, &h->flying)
    {
        struct etcd_watch_batch *b = BNS_CONTAINER(n, struct etcd_watch_batch, node);
        if (b->target == t)
            b->target = NULL;
    }
    if (h->last != NULL && h->last->target == t)
        h->last->target = NULL;
    etcd_watch_target_drop(&h->index, t);
}

/* It is told nothing more; its id stays taken until the client cancels it, as with etcd. */
void etcd_watch_end_events(struct etcd_watch *w)
{
    struct etcd_watch_target *t = w->target;

    if (t == NULL)
        return;
    set_behind(w, false);
    set_future(w, false);
    bns_list_del(&w->work);
    bns_list_del(&w->due);
    bns_list_del(&w->of_target);
    w->target = NULL;
    if (bns_list_empty(&t->watches) && bns_list_empty(&t->waiting))
        drop_target(w->stream->hub, t);
}

static void drop(struct etcd_watch *w)
{
    struct etcd_watch_hub *h = w->stream->hub;

    etcd_watch_end_events(w);
    bns_list_del(&w->all);
    bns_hmap_del(&w->stream->watches, &w->by_id);
    if (--h->watches == 0)
        etcd_recent_free(&h->recent, h->kv->alloc);
    bns_free(h->kv->alloc, w);
}

/* ---- progress ------------------------------------------------------------------------------- */

/* Has w been sent all up to the store's revision, and has that reached its start? */
static bool is_level(struct etcd_watch *w)
{
    struct etcd_watch_hub *h = w->stream->hub;

    if (w->behind)
        return BNS_MUTANT(h->kv->env, ETCD_MUTANT_WATCH_PROGRESS);
    if (w->future && h->kv->now.revision >= w->next)
        set_future(w, false);
    return !w->future && !h->kv->install.active;
}

static bool all_level(struct etcd_watch_stream *s)
{
    if (BNS_MUTANT(s->hub->kv->env, ETCD_MUTANT_WATCH_PROGRESS))
        return true;
    if (s->behind > 0 || s->hub->kv->install.active)
        return false;
    if (s->futures == 0)
        return true;
    BNS_LIST_EACH(n, &s->all)
    {
        if (is_level(BNS_CONTAINER(n, struct etcd_watch, all)))
            continue;
        bns_list_del(n); /* it is looked at first the next time: perhaps at each revision */
        bns_list_push_front(&s->all, n);
        return false;
    }
    return true;
}

static void answer(struct etcd_watch_stream *s)
{
    const struct etcd_watch_note note = {.id = -1};

    if (!all_level(s))
        return;
    bns_list_del(&s->asked);
    (void)etcd_watch_send_note(s, &note); /* a stream that fails is told so elsewhere */
}

void etcd_watch_answer_asked(struct etcd_watch_hub *h)
{
    BNS_LIST_EACH(n, &h->asked)
    {
        answer(BNS_CONTAINER(n, struct etcd_watch_stream, asked));
    }
}

static void on_progress(void *arg)
{
    struct etcd_watch_hub *h = arg;
    uint64_t now = bns_now_ns(h->kv->env);

    while (!bns_list_empty(&h->due)) {
        struct etcd_watch *w = BNS_CONTAINER(h->due.next, struct etcd_watch, due);
        const struct etcd_watch_note note = {.id = w->id};
        if (w->due_ns > now)
            break;
        bns_list_del(&w->due);
        w->due_ns = now + h->cfg.progress_ns;
        bns_list_push(&h->due, &w->due);
        if (!w->told && !w->stream->failed && is_level(w) && !etcd_watch_blocked(w->stream))
            (void)etcd_watch_send_note(w->stream, &note); /* as above */
        w->told = false;
    }
    etcd_watch_fail_all(h);
    if (!bns_list_empty(&h->due))
        bns_timer_start(h->kv->env, &h->progress,
                        BNS_CONTAINER(h->due.next, struct etcd_watch, due)->due_ns);
}

static void start_progress(struct etcd_watch *w)
{
    struct etcd_watch_hub *h = w->stream->hub;
    bool first = bns_list_empty(&h->due);

    w->due_ns = bns_now_ns(h->kv->env) + h->cfg.progress_ns;
    bns_list_push(&h->due, &w->due);
    if (first)
        bns_timer_start(h->kv->env, &h->progress, w->due_ns);
}

/* ---- streams -------------------------------------------------------------------------------- */

int etcd_watch_open(struct etcd_kv *kv, const struct etcd_watch_out *out, void *arg,
                    struct etcd_watch_stream **stream)
{
    struct etcd_watch_hub *h = kv->watch;
    struct etcd_watch_stream *s = bns_alloc_zero(kv->alloc, sizeof *s);

    if (s == NULL)
        return BNS_E_NOMEM;
    s->hub = h;
    s->out = out;
    s->arg = arg;
    s->number = ++h->number_last;
    if (bns_hmap_insert(&h->numbered, &s->by_number, bns_hash_u64(h->index.seed, s->number)) !=
        BNS_OK) {
        bns_free(kv->alloc, s);
        return BNS_E_NOMEM;
    }
    bns_list_init(&s->asked);
    bns_list_init(&s->failing);
    bns_list_init(&s->all);
    bns_list_init(&s->blocked);
    bns_hmap_init(&s->watches, kv->alloc);
    bns_list_push(&h->streams, &s->node);
    h->streams_count++;
    *stream = s;
    return BNS_OK;
}

/* At most this many. */
static size_t drop_some(struct etcd_watch_stream *s, size_t count)
{
    size_t n = 0;

    for (; n < count && !bns_list_empty(&s->all); n++)
        drop(BNS_CONTAINER(s->all.next, struct etcd_watch, all));
    return n;
}

static void stream_free(struct etcd_watch_stream *s)
{
    bns_list_del(&s->node);
    bns_hmap_free(&s->watches);
    bns_free(s->hub->kv->alloc, s);
}

/* Streams that were closed with very many watches. */
void etcd_watch_reap(struct etcd_watch_hub *h, size_t count)
{
    size_t n = 0;

    while (n < count && !bns_list_empty(&h->closed)) {
        struct etcd_watch_stream *s = BNS_CONTAINER(h->closed.next, struct etcd_watch_stream, node);
        n += drop_some(s, count - n);
        if (bns_list_empty(&s->all))
            stream_free(s);
    }
}

void etcd_watch_close(struct etcd_watch_stream *s)
{
    struct etcd_watch_hub *h = s == NULL ? NULL : s->hub;

    if (s == NULL)
        return;
    BNS_ASSERT(!h->pumping);
    bns_list_del(&s->asked);
    bns_list_del(&s->failing);
    bns_hmap_del(&h->numbered, &s->by_number);
    h->queued -= s->queued;
    h->streams_count--;
    (void)drop_some(s, h->kv->stopping ? SIZE_MAX : ETCD_WATCH_TURN_DROPS); /* all, as a rule */
    if (bns_list_empty(&s->all)) {
        stream_free(s);
        return;
    }
    s->failed = true; /* nothing is sent any more; the rest goes in later turns */
    s->out = NULL;
    s->queued = 0;
    bns_list_del(&s->node);
    bns_list_push(&h->closed, &s->node);
    etcd_watch_kick(h);
}

/* The transport is told at the end of the turn's work: it may close the stream at once. */
void etcd_watch_fail(struct etcd_watch_stream *s, int status, const char *text)
{
    if (s->failed)
        return;
    s->failed = true;
    s->fail_status = status;
    s->fail_text = text;
    bns_list_push(&s->hub->failing, &s->failing);
}

void etcd_watch_fail_all(struct etcd_watch_hub *h)
{
    while (!bns_list_empty(&h->failing)) {
        struct etcd_watch_stream *s =
            BNS_CONTAINER(bns_list_pop(&h->failing), struct etcd_watch_stream, failing);
        bns_list_del(&s->asked);
        (void)drop_some(s, ETCD_WATCH_TURN_DROPS); /* the rest when it is closed */
        s->out->fail(s->arg, s->fail_status, s->fail_text);
    }
}

void etcd_watch_writable(struct etcd_watch_stream *s)
{
    (void)etcd_watch_blocked(s); /* what it took counts no more against the other streams */
    if (bns_list_empty(&s->blocked))
        return;
    bns_list_splice(&s->hub->queue, &s->blocked);
    etcd_watch_kick(s->hub);
}

/* ---- requests ------------------------------------------------------------------------------- */

static struct bns_slice bytes_or(bool has, ProtobufCBinaryData d, struct bns_slice other)
{
    return has && d.len > 0 ? bns_slice(d.data, d.len) : other;
}

const char etcd_watch_not_now[] = "etcdserver: leader changed";

static const char *refuse(struct etcd_watch_stream *s, const Etcdserverpb__WatchCreateRequest *r,
                          struct bns_slice key, struct bns_slice end)
{
    bool open = end.len == 1 && end.ptr[0] == 0;
    const char *reason = NULL;

    if (r->start_revision < 0)
        return TEXT_COMPACTED;
    if (s->out->permit != NULL)
        reason = s->out->permit(s->arg, key, end);
    if (reason != NULL)
        return reason;
    if (end.len > 0 && !open && bns_slice_cmp(key, end) >= 0)
        return TEXT_EMPTY;
    if (r->watch_id != 0 && find(s, r->watch_id) != NULL)
        return TEXT_DUPLICATE;
    return NULL;
}

static int64_t choose_id(struct etcd_watch_stream *s, int64_t wanted)
{
    if (wanted != 0)
        return wanted;
    while (find(s, s->id_next) != NULL)
        s->id_next++;
    return s->id_next++;
}

/* Into stream, target and lists; not yet behind. NULL: no memory, nothing has changed. */
static struct etcd_watch *add(struct etcd_watch_stream *s,
                              const Etcdserverpb__WatchCreateRequest *r, struct bns_slice key,
                              struct bns_slice end)
{
    struct etcd_watch_hub *h = s->hub;
    struct etcd_watch *w =
        h->watches < ETCD_WATCHES_MAX ? bns_alloc_zero(h->kv->alloc, sizeof *w) : NULL;
    bool quiet = h->watches == 0; /* what happened meanwhile was not kept */

    if (w == NULL)
        return NULL;
    if (quiet && etcd_recent_begin(&h->recent, h->kv->alloc, h->kv->now.revision + 1) != BNS_OK)
        goto fail;
    w->stream = s;
    w->target = etcd_watch_target(&h->index, key, end);
    if (w->target == NULL)
        goto fail;
    w->id = choose_id(s, r->watch_id);
    if (bns_hmap_insert(&s->watches, &w->by_id, bns_hash_u64(h->index.seed, (uint64_t)w->id)) !=
        BNS_OK) {
        if (bns_list_empty(&w->target->watches) && bns_list_empty(&w->target->waiting))
            drop_target(h, w->target);
        goto fail;
    }
    bns_list_push(&s->all, &w->all);
    bns_list_push(&w->target->watches, &w->of_target);
    bns_list_init(&w->work);
    bns_list_init(&w->due);
    h->watches++;
    return w;

fail:
    bns_free(h->kv->alloc, w);
    return NULL;
}

static void set_options(struct etcd_watch *w, const Etcdserverpb__WatchCreateRequest *r)
{
    w->prev_kv = r->prev_kv;
    w->fragment = r->fragment;
    w->progress = r->progress_notify;
    for (size_t i = 0; i < r->n_filters; i++) {
        if (r->filters[i] == ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NOPUT)
            w->no_put = true;
        if (r->filters[i] == ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NODELETE)
            w->no_delete = true;
    }
}

static void create(struct etcd_watch_stream *s, const Etcdserverpb__WatchCreateRequest *r)
{
    struct etcd_watch_hub *h = s->hub;
    int64_t now = h->kv->now.revision;
    struct bns_slice key = bytes_or(r->has_key, r->key, BNS_LIT("\0"));
    struct bns_slice end = bytes_or(r->has_range_end, r->range_end, bns_slice(NULL, 0));
    const char *reason = refuse(s, r, key, end);
    struct etcd_watch_note note = {
        .id = -1, .created = true, .canceled = reason != NULL, .reason = reason};
    struct etcd_watch *w;

    if (reason == etcd_watch_not_now) {
        etcd_watch_fail(s, 14, reason);
        return;
    }
    if (reason != NULL) {
        (void)etcd_watch_send_note(s, &note); /* a stream that fails is told so elsewhere */
        return;
    }
    w = add(s, r, key, end);
    if (w == NULL) {
        etcd_watch_fail(s, 8, TEXT_NO_MEMORY);
        return;
    }
    set_options(w, r);
    note.id = w->id;
    w->next = r->start_revision > 0 ? r->start_revision : now + 1;
    w->newest = w->next <= now ? now : w->next - 1;
    if (w->next == now + 1)
        w->newest = etcd_open_revision(h->kv); /* of it some rows have been told already */
    set_future(w, r->start_revision > now);
    if (!etcd_watch_send_note(s, &note))
        return;
    if (w->progress)
        start_progress(w);
    etcd_watch_refresh(w);
    if (w->behind) {
        bns_list_push(&h->queue, &w->work);
        etcd_watch_kick(h);
    }
}

static void cancel(struct etcd_watch_stream *s, int64_t id)
{
    const struct etcd_watch_note note = {.id = id, .canceled = true};
    struct etcd_watch *w = find(s, id);

    if (w == NULL)
        return; /* as etcd: no answer */
    drop(w);
    (void)etcd_watch_send_note(s, &note); /* a stream that fails is told so elsewhere */
    etcd_watch_kick(s->hub);              /* a progress request may have waited for it */
}

void etcd_watch_request(struct etcd_watch_stream *s, const Etcdserverpb__WatchRequest *r)
{
    if (s->failed)
        return;
    switch (r->request_union_case) {
    case ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST:
        create(s, r->create_request);
        break;
    case ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CANCEL_REQUEST:
        cancel(s, r->cancel_request->watch_id);
        break;
    case ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST:
        if (bns_list_empty(&s->asked))
            bns_list_push(&s->hub->asked, &s->asked);
        answer(s);
        break;
    default:
        break;
    }
    etcd_watch_fail_all(s->hub);
}

/* ---- a new revision ------------------------------------------------------------------------- */

struct row_told {
    struct etcd_watch_hub *hub;
    int64_t main;
    bool dead;
};

static void tell_target(void *arg, struct etcd_watch_target *t)
{
    const struct row_told *x = arg;

    t->newest[x->dead] = x->main;
    BNS_LIST_EACH(n, &t->watches)
    {
        struct etcd_watch *w = BNS_CONTAINER(n, struct etcd_watch, of_target);
        if (x->main < w->next || (x->dead ? w->no_delete : w->no_put))
            continue;
        w->next = x->main; /* it has been sent all: nothing lies in between */
        bns_list_push(&x->hub->queue, &w->work);
        set_future(w, false);
        set_behind(w, true);
    }
}

/* The newest of kv->rows, of revision `main`. */
static void tell_rows(struct etcd_kv *kv, uint32_t count, int64_t main, bool recent)
{
    struct etcd_watch_hub *h = kv->watch;
    const struct etcd_row *rows = kv->rows + (kv->rows_count - count);

    BNS_ASSERT(kv->rows_count >= count);
    for (uint32_t i = 0; i < count; i++) {
        struct row_told x = {.hub = h, .main = main};
        struct etcd_kvview v;

        BNS_ASSERT(rows[i].main == main);
        if (etcd_kvbytes_parse(bns_rcbuf_slice(rows[i].kv), &v) != BNS_OK)
            BNS_ASSERT(false); /* we have just made them */
        x.dead = v.mod == 0;
        if (recent)
            etcd_recent_add(&h->recent, &rows[i]);
        etcd_watch_index_find(&h->index, v.key, tell_target, &x);
    }
}

void etcd_watch_notify(struct etcd_kv *kv, uint32_t changes)
{
    struct etcd_watch_hub *h = kv->watch;

    h->revision = kv->now.revision;
    etcd_kv_reached(kv);
    if (h->watches == 0)
        return;
    tell_rows(kv, changes, h->revision, true);
    if (!bns_list_empty(&h->queue) || !bns_list_empty(&h->asked))
        etcd_watch_kick(h);
}

void etcd_watch_open_rows(struct etcd_kv *kv, uint32_t rows)
{
    struct etcd_watch_hub *h = kv->watch;

    if (h->watches > 0)
        tell_rows(kv, rows, h->revision + 1, false);
}

void etcd_watch_open_ends(struct etcd_kv *kv)
{
    struct etcd_watch_hub *h = kv->watch;

    h->revision = kv->now.revision;
    etcd_kv_reached(kv);
    if (h->watches == 0)
        return;
    if (etcd_recent_begin(&h->recent, kv->alloc, h->revision + 1) != BNS_OK)
        BNS_ASSERT(false); /* the ring is there since the first watch */
    bns_list_splice(&h->queue, &h->held);
    etcd_watch_kick(h);
}

/* The store is another one: whatever lies between our revision and its is history to be read. */
void etcd_watch_installed(struct etcd_kv *kv)
{
    struct etcd_watch_hub *h = kv->watch;
    int64_t was = h->revision, now = kv->now.revision; /* the same when it was refused */

    BNS_ASSERT(h->flying_count == 0);
    h->revision = now;
    etcd_kv_reached(kv);
    if (h->watches > 0 && etcd_recent_begin(&h->recent, kv->alloc, now + 1) != BNS_OK)
        BNS_ASSERT(false); /* the ring is there since the first watch */
    BNS_LIST_EACH(sn, &h->streams)
    {
        struct etcd_watch_stream *s = BNS_CONTAINER(sn, struct etcd_watch_stream, node);
        BNS_LIST_EACH(n, &s->all)
        {
            struct etcd_watch *w = BNS_CONTAINER(n, struct etcd_watch, all);
            bool was_behind = w->behind;
            if (w->target == NULL)
                continue;
            if (!was_behind && w->next <= was)
                w->next = was + 1;
            if (w->next <= now)
                w->newest = now;
            etcd_watch_refresh(w);
            if (w->behind && !was_behind)
                bns_list_push(&h->queue, &w->work);
        }
    }
    etcd_watch_kick(h);
}
