/* raft_node_boot.c - start-up: the WAL's records joined with what the state machine holds.
 *
 * Replay collects, for our group, the entries that are not truncated, the last hard state and the
 * last snapshot mark. The state machine says at which index (D) its durable data stand. Then
 *   - the log must reach from at most D + 1; older records may be gone (released), so when the log
 *   does
 *     not begin right behind a known base, its first entry, which is applied, becomes the base;
 *   - a log that ends before D, or holds D with another term, is one whose snapshot was installed
 *     right before a crash (the other term: a tail that was never committed, of a deposed leader):
 *     the log starts anew at D, and a snapshot mark says so in the WAL before anything else is
 *     written;
 *   - data without any record of the group are data whose log is gone, and with it the vote and
 *     entries that this member has acknowledged: refuse, as with a gap.
 */
#include "app/raft_node_int.h"

#include <stdio.h>

#include "base/varint.h"

struct replay {
    struct bns_raft_node *n;
    struct bns_raft_entry *entries;
    size_t count, cap;
    uint64_t term, vote, commit;
    bool seen;                     /* the WAL has a record of this group */
    struct bns_raft_snapmeta base; /* of the last SNAPMARK */
    struct bns_err *err;
};

static void drop_from(struct replay *r, uint64_t index)
{
    while (r->count > 0 && r->entries[r->count - 1].index >= index)
        bns_rcbuf_put(r->entries[--r->count].data);
}

static int replay_entry(struct replay *r, uint64_t lsn, struct bns_slice p)
{
    const struct bns_alloc *a = bns_rn_alloc(r->n);
    struct bns_raft_entry e = {0};

    if (p.len < 17)
        return bns_err_set(r->err, BNS_E_CORRUPT, "wal: lsn %llu: entry of %zu bytes is too short",
                           (unsigned long long)lsn, p.len);
    e.index = bns_get_u64le(p.ptr);
    e.term = bns_get_u64le(p.ptr + 8);
    e.kind = p.ptr[16];
    drop_from(r, e.index);
    if (r->count > 0 && r->entries[r->count - 1].index + 1 != e.index)
        return bns_err_set(r->err, BNS_E_CORRUPT,
                           "wal: lsn %llu: entry %llu follows entry %llu: a record is missing",
                           (unsigned long long)lsn, (unsigned long long)e.index,
                           (unsigned long long)r->entries[r->count - 1].index);
    if (r->count == r->cap) {
        size_t cap = r->cap == 0 ? 256 : r->cap * 2;
        void *grown = bns_resize(a, r->entries, cap * sizeof *r->entries);
        if (grown == NULL)
            return bns_err_set(r->err, BNS_E_NOMEM, "replay: out of memory");
        r->entries = grown;
        r->cap = cap;
    }
    if (p.len > 17) {
        e.data = bns_rcbuf_copy(a, bns_slice_skip(p, 17));
        if (e.data == NULL)
            return bns_err_set(r->err, BNS_E_NOMEM, "replay: out of memory");
    }
    r->entries[r->count++] = e;
    if (bns_rn_mark_add(r->n, e.index, lsn) != BNS_OK)
        return bns_err_set(r->err, BNS_E_NOMEM, "replay: out of memory");
    return BNS_OK;
}

static int replay_snapmark(struct replay *r, uint64_t lsn, struct bns_slice p)
{
    if (p.len < 16 || bns_raft_conf_decode(bns_slice_skip(p, 16), &r->base.conf) != BNS_OK)
        return bns_err_set(r->err, BNS_E_CORRUPT, "wal: lsn %llu: the snapshot mark is malformed",
                           (unsigned long long)lsn);
    r->base.index = bns_get_u64le(p.ptr);
    r->base.term = bns_get_u64le(p.ptr + 8);
    drop_from(r, 0);
    if (bns_rn_mark_add(r->n, r->base.index, lsn) != BNS_OK)
        return bns_err_set(r->err, BNS_E_NOMEM, "replay: out of memory");
    return BNS_OK;
}

static int replay_record(void *arg, uint64_t lsn, uint32_t group, uint8_t type, struct bns_slice p)
{
    struct replay *r = arg;

    if (group != r->n->cfg.group)
        return BNS_OK;
    r->seen = true;
    switch (type) {
    case BNS_WAL_ENTRY:
        return replay_entry(r, lsn, p);
    case BNS_WAL_SNAPMARK:
        return replay_snapmark(r, lsn, p);
    case BNS_WAL_TRUNCATE:
        if (p.len != 8)
            break;
        drop_from(r, bns_get_u64le(p.ptr));
        return BNS_OK;
    case BNS_WAL_STATE:
        if (p.len != 24)
            break;
        r->term = bns_get_u64le(p.ptr);
        r->vote = bns_get_u64le(p.ptr + 8);
        r->commit = bns_get_u64le(p.ptr + 16);
        return BNS_OK;
    default:
        return BNS_OK;
    }
    return bns_err_set(r->err, BNS_E_CORRUPT, "wal: lsn %llu: record type %u has %zu bytes",
                       (unsigned long long)lsn, type, p.len);
}

void bns_rn_conf_default(const struct bns_raft_node *n, struct bns_raft_conf *out)
{
    if (out->voters_count > 0)
        return;
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < n->cfg.peers_count && !n->cfg.joining; i++) {
        bool learner = n->cfg.peers[i].learner;
        uint64_t *ids = learner ? out->learners : out->voters;
        uint8_t *count = learner ? &out->learners_count : &out->voters_count;
        size_t at = (*count)++;

        for (; at > 0 && ids[at - 1] > n->cfg.peers[i].id; at--)
            ids[at] = ids[at - 1];
        ids[at] = n->cfg.peers[i].id;
    }
}

static int refuse(struct replay *r, uint64_t first, uint64_t data)
{
    char log[64] = "is empty";

    if (r->seen)
        (void)snprintf(log, sizeof log, "begins at index %llu", (unsigned long long)first);
    return bns_err_set(r->err, BNS_E_CORRUPT,
                       "the write-ahead log %s, but the data end at index %llu: restore what is "
                       "missing, or, while other members run, remove this member's whole data "
                       "directory and let it catch up",
                       log, (unsigned long long)data);
}

/* Does the log hold the entry that the data stand at? */
static bool holds(const struct replay *r, const struct bns_raft_snapmeta *d)
{
    if (d->index == r->base.index && r->count == 0)
        return d->term == r->base.term;
    for (size_t i = 0; i < r->count; i++) {
        if (r->entries[i].index == d->index)
            return r->entries[i].term == d->term;
    }
    return r->count > 0 && d->index < r->entries[0].index; /* not told here */
}

/* Fills boot->snap, entries; says in *anew whether the log starts anew at the snapshot. */
static int join(struct replay *r, const struct bns_raft_snapmeta *d, struct bns_raft_boot *boot,
                bool *anew)
{
    const struct bns_raft_entry *e = r->entries;
    size_t count = r->count;
    uint64_t first = count > 0 ? e[0].index : r->base.index + 1;

    *anew = false;
    boot->applied = d->index;
    if (!r->seen && d->index > 0)
        return refuse(r, 0, d->index);
    if (first > d->index + 1)
        return refuse(r, first, d->index);
    boot->snap = *d;
    *anew = !holds(r, d);
    if (*anew || first == d->index + 1) {
        boot->entries = *anew ? NULL : e;
        boot->entries_count = *anew ? 0 : count;
        return BNS_OK;
    }
    boot->snap = r->base;
    if (first != r->base.index + 1) { /* older records are gone: the first entry is the base */
        boot->snap.index = e[0].index;
        boot->snap.term = e[0].term;
        boot->snap.conf = d->conf;
        e++;
        count--;
    }
    boot->entries = e;
    boot->entries_count = count;
    return BNS_OK;
}

static int start_core(struct bns_raft_node *n, struct bns_raft_boot *boot, struct bns_err *err)
{
    struct bns_raft_config rc = {
        .id = n->cfg.id,
        .group = n->cfg.group,
        .election_ns = n->cfg.election_ns,
        .heartbeat_ns = n->cfg.heartbeat_ns,
        .trailing_entries = n->cfg.trailing_entries,
        .trailing_bytes = n->cfg.trailing_bytes,
        .seed = bns_prng_next(&n->env->prng),
        .mutant = n->env->mutant,
    };
    int rv = bns_raft_init(&n->raft, &rc, boot, bns_rn_alloc(n), bns_now_ns(n->env));

    if (rv != BNS_OK)
        return bns_err_set(err, rv,
                           "raft: the state on disk contradicts itself (term %llu, commit "
                           "%llu, log %llu..%llu, applied %llu)",
                           (unsigned long long)boot->term, (unsigned long long)boot->commit,
                           (unsigned long long)boot->snap.index,
                           (unsigned long long)(boot->snap.index + boot->entries_count),
                           (unsigned long long)boot->applied);
    return BNS_OK;
}

int bns_rn_boot(struct bns_raft_node *n, struct bns_err *err)
{
    struct replay r = {.n = n, .err = err};
    struct bns_raft_boot boot = {0};
    struct bns_raft_snapmeta d = {0};
    bool anew = false;
    int rv;

    bns_rn_conf_default(n, &n->conf_first);
    r.base.conf = n->conf_first;
    rv = bns_wal_open(n->env, &n->cfg.wal, replay_record, &r, &n->wal, err);
    if (rv != BNS_OK)
        goto out;
    n->ops->durable(n->sm, &d);
    bns_rn_conf_default(n, &d.conf);
    rv = join(&r, &d, &boot, &anew);
    if (rv != BNS_OK)
        goto out;
    boot.term = r.term > boot.snap.term ? r.term : boot.snap.term;
    boot.vote = boot.term == r.term ? r.vote : 0;
    boot.commit = r.commit > d.index ? r.commit : d.index;
    if (boot.commit > boot.snap.index + boot.entries_count)
        boot.commit = boot.snap.index + boot.entries_count;
    n->applied = d.index;
    n->checkpoint_index = d.index;
    rv = start_core(n, &boot, err);
    if (rv == BNS_OK && anew && d.index > 0) {
        struct bns_raft_out o = {.kind = BNS_RAFT_OUT_PERSIST, .snap = &d};

        rv = bns_rn_persist(n, &o); /* seq 0: nobody waits for it, all that follows is behind it */
    }
out:
    drop_from(&r, 0);
    bns_free(bns_rn_alloc(n), r.entries);
    return rv;
}
