/* check_watch.c - watch: each stream by itself, then all against what is known of each revision.
 *
 *   1 every stream is walked: order, duplicates, wholeness, progress. What it told becomes facts
 *     (revision, key, value); what acknowledged writers changed becomes facts too
 *   2 facts are sorted by revision and key. Facts of one revision and key must be equal. A fact
 *     that only watchers know must have been asked for by a writer that was not told a revision
 *   3 every stream is held against the facts in its range and coverage: what is missing is a gap
 *
 * Invariants: facts are sorted after step 1; `written` facts stand before told ones of the same
 *             revision and key, so the first of a group speaks for it.
 */
#include "sim/check_watch.h"

#include <stdlib.h>

struct fact {
    uint64_t rev, key, value;
    bool deleted;
    bool written; /* an acknowledged write says so, not a watcher */
    bool maybe;   /* only that it may be: told by a write that does not know */
    uint64_t op;  /* call of the write or of the stream */
    uint64_t at;  /* when it was told; 0 for writes */
};

struct wish { /* a change that a write without a known revision asked for */
    uint64_t key, value;
    bool deleted, failed, used;
    uint64_t call;
};

struct stream {                      /* what one stream covers */
    uint64_t first, last;            /* revisions; nothing when first > last */
    size_t facts_first, facts_count; /* in `told`, in the order of telling */
};

struct check {
    const struct bns_check_cfg *cfg;
    struct bns_verdict *v;
    const struct bns_watch_write *writes;
    size_t writes_count;
    const struct bns_watch_stream *streams;
    size_t streams_count;
    struct stream *cover;
    struct fact *told; /* by stream, in order of telling */
    size_t told_count;
    struct fact *facts; /* all, sorted */
    size_t facts_count;
    struct wish *wishes; /* sorted by key, value, deleted, call */
    size_t wishes_count;
};

static unsigned long long line(uint64_t position)
{
    return (unsigned long long)position + 1;
}

static struct bns_check_name name(const struct check *c, uint64_t id)
{
    return bns_check_name(c->cfg, id);
}

static bool covers(const struct bns_watch_stream *s, const struct bns_watch_change *e)
{
    return e->key >= s->key_first && e->key < s->key_end &&
           !(e->deleted ? s->no_delete : s->no_put);
}

/* ---- 1 one stream ---------------------------------------------------------------------------- */

struct walk {
    const struct bns_watch_stream *s;
    struct stream *cover;
    uint64_t start;                  /* first revision it may tell; 0: not known yet */
    uint64_t last;                   /* largest revision told */
    uint64_t progress;               /* largest of a progress notice */
    bool created, canceled, partial; /* partial: a fragment was the last answer */
    bool wants_created;              /* the history keeps confirmations */
};

static int odd(struct check *c, const struct walk *w, const char *anomaly,
               const struct bns_watch_told *t, const char *what)
{
    bns_verdict_op(c->v, w->s->call);
    return bns_verdict_anomaly(c->v, anomaly, "the watch of line %llu: the answer of line %llu %s",
                               line(w->s->call), line(t->at), what);
}

/* Was this change told by this stream before? */
static bool was_told(const struct check *c, const struct walk *w, const struct bns_watch_change *e)
{
    for (size_t i = c->told_count; i-- > w->cover->facts_first;) {
        if (c->told[i].rev < e->rev)
            return false; /* they are in order so far */
        if (c->told[i].rev == e->rev && c->told[i].key == e->key)
            return true;
    }
    return false;
}

static int walk_event(struct check *c, struct walk *w, const struct bns_watch_told *t, size_t i)
{
    const struct bns_watch_change *e = &t->events[i];
    bool first = i == 0 && !w->partial; /* of an answer */
    const char *anomaly = NULL;
    uint64_t last = w->last;

    if (e->rev < w->start)
        anomaly = "before-start";
    else if (!covers(w->s, e))
        anomaly = "wrong-key";
    else if (e->rev <= w->last && was_told(c, w, e))
        anomaly = "duplicate";
    else if (e->rev <= w->progress)
        anomaly = "progress-ahead";
    else if (e->rev < w->last)
        anomaly = "out-of-order";
    else if (e->rev == w->last && first)
        anomaly = "torn-revision";
    else if (t->rev != 0 && t->rev < e->rev)
        anomaly = "header-behind";
    w->last = e->rev > w->last ? e->rev : w->last;
    c->told[c->told_count++] =
        (struct fact){e->rev, e->key, e->value, e->deleted, false, false, w->s->call, t->at};
    if (anomaly == NULL)
        return BNS_OK;
    bns_verdict_op(c->v, w->s->call);
    return bns_verdict_anomaly(c->v, anomaly,
                               "the watch of line %llu: the answer of line %llu tells %s at "
                               "revision %llu, after revision %llu and progress %llu, from %llu on",
                               line(w->s->call), line(t->at), name(c, e->key).s,
                               (unsigned long long)e->rev, (unsigned long long)last,
                               (unsigned long long)w->progress, (unsigned long long)w->start);
}

static int walk_told(struct check *c, struct walk *w, const struct bns_watch_told *t)
{
    int rv = BNS_OK;

    if (w->canceled)
        return odd(c, w, "after-cancel", t, "came after it was cancelled");
    switch (t->kind) {
    case BNS_WATCH_CREATED:
        w->created = true;
        if (w->start == 0 && t->rev != 0)
            w->start = t->rev + 1;
        return BNS_OK;
    case BNS_WATCH_CANCELED:
        w->canceled = true;
        return BNS_OK;
    case BNS_WATCH_PROGRESS:
        if (t->rev < w->last || t->rev < w->progress)
            return odd(c, w, "progress-back", t, "claims less progress than was made before");
        w->progress = t->rev;
        return BNS_OK;
    case BNS_WATCH_EVENTS:
        break;
    }
    if (w->wants_created && !w->created)
        return odd(c, w, "before-created", t, "came before the watch was confirmed");
    for (size_t i = 0; i < t->events_count && rv == BNS_OK; i++)
        rv = walk_event(c, w, t, i);
    if (t->events_count > 0)
        w->partial = t->fragment;
    return rv;
}

static int walk_stream(struct check *c, size_t n)
{
    const struct bns_watch_stream *s = &c->streams[n];
    struct stream *cover = &c->cover[n];
    struct walk w = {.s = s, .cover = cover, .start = s->start};
    int rv = BNS_OK;

    cover->facts_first = c->told_count;
    for (size_t i = 0; i < s->told_count; i++)
        w.wants_created |= s->told[i].kind == BNS_WATCH_CREATED;
    for (size_t i = 0; i < s->told_count && rv == BNS_OK; i++)
        rv = walk_told(c, &w, &s->told[i]);
    cover->facts_count = c->told_count - cover->facts_first;
    cover->last = w.partial && w.last > 0 ? w.last - 1 : w.last; /* the rest never came */
    cover->last = w.progress > cover->last ? w.progress : cover->last;
    cover->first = w.start;
    if (w.start == 0) /* from now on, and nobody kept when that was: the first it told */
        cover->first = cover->facts_count > 0 ? c->told[cover->facts_first].rev : UINT64_MAX;
    return rv;
}

/* ---- 2 facts --------------------------------------------------------------------------------- */

static int by_fact(const void *a, const void *b)
{
    const struct fact *x = a;
    const struct fact *y = b;

    if (x->rev != y->rev)
        return x->rev < y->rev ? -1 : 1;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    if (x->written != y->written)
        return x->written ? -1 : 1;
    if (x->maybe != y->maybe)
        return x->maybe ? 1 : -1;
    return (x->op > y->op) - (x->op < y->op);
}

static int by_what(const void *a, const void *b)
{
    const struct wish *x = a;
    const struct wish *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    if (x->deleted != y->deleted)
        return x->deleted ? 1 : -1;
    return (x->value > y->value) - (x->value < y->value);
}

static int by_wish(const void *a, const void *b)
{
    const struct wish *x = a;
    const struct wish *y = b;
    int d = by_what(a, b);

    return d != 0 ? d : (x->call > y->call) - (x->call < y->call);
}

static void take_writes(struct check *c)
{
    for (size_t i = 0; i < c->writes_count; i++) {
        const struct bns_watch_write *w = &c->writes[i];
        bool known = w->end == BNS_CHECK_OK && w->rev != 0;
        for (size_t j = 0; j < w->changes_count; j++) {
            const struct bns_watch_change *x = &w->changes[j];
            if (known)
                c->facts[c->facts_count++] =
                    (struct fact){w->rev, x->key, x->value, x->deleted, true, x->maybe, w->call, 0};
            else
                c->wishes[c->wishes_count++] = (struct wish){
                    x->key, x->value, x->deleted, w->end == BNS_CHECK_FAILED, false, w->call};
        }
    }
    qsort(c->wishes, c->wishes_count, sizeof c->wishes[0], by_wish);
}

/* A change that only watchers know: who may have asked for it? */
static int find_wish(struct check *c, const struct fact *f)
{
    struct wish want = {.key = f->key, .value = f->value, .deleted = f->deleted};
    struct wish *w = bsearch(&want, c->wishes, c->wishes_count, sizeof want, by_what);
    const struct wish *failed = NULL, *late = NULL;

    if (c->cfg->others_write || (c->cfg->expiry && f->deleted))
        return BNS_OK;
    while (w != NULL && w > c->wishes && by_what(w - 1, &want) == 0)
        w--;
    for (; w != NULL && w < c->wishes + c->wishes_count && by_what(w, &want) == 0; w++) {
        if (w->failed)
            failed = w;
        else if (w->call > f->at)
            late = w;
        else if (!w->used) {
            w->used = true; /* a write happens once */
            return BNS_OK;
        }
    }
    bns_verdict_op(c->v, f->op);
    bns_verdict_say(c->v,
                    "the watch of line %llu was told in line %llu that %s %s%s at revision "
                    "%llu; ",
                    line(f->op), line(f->at), name(c, f->key).s,
                    f->deleted ? "was deleted" : "became ", f->deleted ? "" : name(c, f->value).s,
                    (unsigned long long)f->rev);
    if (failed != NULL || late != NULL)
        return bns_verdict_anomaly(c->v, "phantom",
                                   failed != NULL ? "line %llu asked and failed"
                                                  : "line %llu asks only later",
                                   line(failed != NULL ? failed->call : late->call));
    return bns_verdict_anomaly(c->v, "phantom", "no writer did that");
}

static int disagree(struct check *c, const struct fact *a, const struct fact *b)
{
    bns_verdict_op(c->v, a->op);
    bns_verdict_op(c->v, b->op);
    if (a->written && b->written)
        return bns_verdict_anomaly(c->v, "same-revision",
                                   "the writes of lines %llu and %llu were both told revision %llu",
                                   line(a->op), line(b->op), (unsigned long long)a->rev);
    return bns_verdict_anomaly(
        c->v, "disagree",
        "%s at revision %llu: the %s of line %llu says %s, the watch of line "
        "%llu (answer of line %llu) %s",
        name(c, b->key).s, (unsigned long long)b->rev, a->written ? "write" : "watch", line(a->op),
        a->deleted ? "deleted" : name(c, a->value).s, line(b->op), line(b->at),
        b->deleted ? "deleted" : name(c, b->value).s);
}

/* All facts of one revision. `owner`: the acknowledged write whose revision it is. */
static int check_revision(struct check *c, struct fact *f, size_t n)
{
    const struct fact *owner = NULL;
    size_t of = 0; /* the first of its key */
    int rv = BNS_OK;

    for (size_t i = 0; i < n; i++) {
        if (!f[i].written || f[i].maybe)
            continue;
        if (owner != NULL && owner->op != f[i].op)
            return disagree(c, owner, &f[i]);
        owner = &f[i];
    }
    for (size_t i = 0; i < n && rv == BNS_OK; i++) {
        bool head = i == 0 || f[i - 1].key != f[i].key;

        of = head ? i : of;
        if (f[i].written)
            continue;
        if (!head && f[of].written && f[i].at < f[of].op) {
            bns_verdict_op(c->v, f[i].op);
            bns_verdict_op(c->v, f[of].op);
            rv = bns_verdict_anomaly(c->v, "phantom",
                                     "line %llu tells the watch of line %llu of %s at revision "
                                     "%llu; line %llu asks for that only later",
                                     line(f[i].at), line(f[i].op), name(c, f[i].key).s,
                                     (unsigned long long)f[i].rev, line(f[of].op));
        } else if (!head && (f[of].value != f[i].value || f[of].deleted != f[i].deleted)) {
            rv = disagree(c, &f[of], &f[i]);
        } else if (head && owner != NULL) {
            bns_verdict_op(c->v, owner->op);
            bns_verdict_op(c->v, f[i].op);
            rv = bns_verdict_anomaly(
                c->v, "phantom",
                "the watch of line %llu was told of %s at revision %llu, which "
                "is that of the write of line %llu, and that one did not "
                "change it",
                line(f[i].op), name(c, f[i].key).s, (unsigned long long)f[i].rev, line(owner->op));
        } else if (head) {
            rv = find_wish(c, &f[i]);
        }
    }
    return rv;
}

static int check_facts(struct check *c)
{
    int rv = BNS_OK;

    for (size_t i = 0, n; i < c->facts_count && rv == BNS_OK; i += n) {
        n = 1;
        while (i + n < c->facts_count && c->facts[i + n].rev == c->facts[i].rev)
            n++;
        rv = check_revision(c, &c->facts[i], n);
    }
    return rv;
}

/* ---- 3 gaps ---------------------------------------------------------------------------------- */

static size_t first_at(const struct check *c, uint64_t rev)
{
    size_t lo = 0, hi = c->facts_count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (c->facts[mid].rev < rev)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static int by_place(const void *a, const void *b)
{
    const struct fact *x = a;
    const struct fact *y = b;

    if (x->rev != y->rev)
        return x->rev < y->rev ? -1 : 1;
    return (x->key > y->key) - (x->key < y->key);
}

static int check_gaps(struct check *c, size_t n)
{
    const struct bns_watch_stream *s = &c->streams[n];
    const struct stream *cover = &c->cover[n];
    struct fact *told = c->told + cover->facts_first;
    size_t at = 0;

    qsort(told, cover->facts_count, sizeof *told, by_place); /* inside a revision: any order */
    for (size_t i = first_at(c, cover->first); i < c->facts_count && c->facts[i].rev <= cover->last;
         i++) {
        const struct fact *f = &c->facts[i];
        struct bns_watch_change e = {.key = f->key, .deleted = f->deleted};

        if (f->maybe || !covers(s, &e))
            continue;
        while (at < cover->facts_count && by_place(&told[at], f) < 0)
            at++;
        if (at < cover->facts_count && by_place(&told[at], f) == 0)
            continue;
        bns_verdict_op(c->v, s->call);
        bns_verdict_op(c->v, f->op);
        return bns_verdict_anomaly(c->v, "gap",
                                   "the watch of line %llu covers revisions %llu to %llu and was "
                                   "not told of %s at revision %llu, which the %s of line %llu "
                                   "knows",
                                   line(s->call), (unsigned long long)cover->first,
                                   (unsigned long long)cover->last, name(c, f->key).s,
                                   (unsigned long long)f->rev, f->written ? "write" : "watch",
                                   line(f->op));
    }
    return BNS_OK;
}

/* ---- all ------------------------------------------------------------------------------------- */

static int make_room(struct check *c)
{
    const struct bns_alloc *a = c->cfg->alloc;
    size_t told = 0, written = 0;

    for (size_t i = 0; i < c->streams_count; i++) {
        for (size_t j = 0; j < c->streams[i].told_count; j++)
            told += c->streams[i].told[j].events_count;
    }
    for (size_t i = 0; i < c->writes_count; i++)
        written += c->writes[i].changes_count;
    if (told + written > BNS_WATCH_CHANGES_MAX ||
        (uint64_t)(told + written) * c->streams_count > BNS_WATCH_WORK_MAX)
        return BNS_E_TOOBIG;
    c->cover = bns_check_array(a, c->streams_count, sizeof *c->cover);
    c->told = bns_check_array(a, told, sizeof *c->told);
    c->facts = bns_check_array(a, told + written, sizeof *c->facts);
    c->wishes = bns_check_array(a, written, sizeof *c->wishes);
    if (c->cover == NULL || c->told == NULL || c->facts == NULL || c->wishes == NULL)
        return BNS_E_NOMEM;
    return BNS_OK;
}

int bns_check_watch(const struct bns_check_cfg *cfg, const struct bns_watch_write *writes,
                    size_t writes_count, const struct bns_watch_stream *streams,
                    size_t streams_count, struct bns_verdict *v)
{
    struct check c = {.cfg = cfg,
                      .v = v,
                      .writes = writes,
                      .writes_count = writes_count,
                      .streams = streams,
                      .streams_count = streams_count};
    int rv;

    bns_verdict_clear(v);
    rv = make_room(&c);
    for (size_t i = 0; i < streams_count && rv == BNS_OK; i++)
        rv = walk_stream(&c, i);
    if (rv == BNS_OK) {
        take_writes(&c);
        memcpy(c.facts + c.facts_count, c.told, c.told_count * sizeof c.told[0]);
        c.facts_count += c.told_count;
        qsort(c.facts, c.facts_count, sizeof c.facts[0], by_fact);
        rv = check_facts(&c);
    }
    for (size_t i = 0; i < streams_count && rv == BNS_OK; i++)
        rv = check_gaps(&c, i);
    v->checked = writes_count + c.told_count;
    bns_free(cfg->alloc, c.cover);
    bns_free(cfg->alloc, c.told);
    bns_free(cfg->alloc, c.facts);
    bns_free(cfg->alloc, c.wishes);
    return rv;
}
