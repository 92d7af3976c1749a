/* raft_node_wal.c - PERSIST outputs of the core as batches of the write-ahead log.
 *
 * Each PERSIST becomes one atomic batch: [SNAPMARK] [TRUNCATE] ENTRY... [STATE]. Batches enter the
 * WAL in order.
 *
 * A full disk. What reaches the core must be stored: a leader that cannot store an entry which the
 * others committed can neither apply it nor answer a read. So work is refused before the core sees
 * it: proposals as soon as the log has no room (bns_wal_has_room), a leader's entries when they no
 * longer fit into the files that the log has made ahead (bns_wal_fits). Between the two lies a
 * margin, so that what one member accepted the others take, though they share the disk. Should the
 * WAL refuse a batch all the same it stays at the head and is tried again: the core merely sees a
 * slow disk.
 *
 * The WAL keeps what bns_wal_release() has not given up. A list of marks (first index of a batch,
 * its first lsn) tells where the entries that the core still has begin: the mark at the front can
 * go when the next one begins at or before the index that is needed, because a batch that begins
 * at index i voids everything from i on that was written before it.
 */
#include "app/raft_node_int.h"
#include "base/varint.h"

#define RETRY_NS (200 * BNS_MS)

static void persist_free(struct bns_raft_node *n, struct bns_rn_persist *p)
{
    const struct bns_alloc *a = bns_rn_alloc(n);

    for (size_t i = 0; i < p->refs_count; i++)
        bns_rcbuf_put(p->refs[i]);
    bns_buf_free(&p->conf);
    bns_free(a, p->heads);
    bns_free(a, p->refs);
    bns_free(a, p);
}

int bns_rn_mark_add(struct bns_raft_node *n, uint64_t index, uint64_t lsn)
{
    if (n->marks_count > 0 && n->marks[n->marks_count - 1].index_first == index) {
        n->marks[n->marks_count - 1].lsn_first = lsn;
        return BNS_OK;
    }
    if (n->marks_count == n->marks_cap) {
        size_t cap = n->marks_cap == 0 ? 64 : n->marks_cap * 2;
        void *grown = bns_resize(bns_rn_alloc(n), n->marks, cap * sizeof *n->marks);
        if (grown == NULL)
            return BNS_E_NOMEM;
        n->marks = grown;
        n->marks_cap = cap;
    }
    n->marks[n->marks_count++] = (struct bns_rn_mark){.index_first = index, .lsn_first = lsn};
    return BNS_OK;
}

void bns_rn_wal_release(struct bns_raft_node *n, uint64_t index_needed)
{
    size_t drop = 0;

    while (drop + 1 < n->marks_count && n->marks[drop + 1].index_first <= index_needed)
        drop++;
    if (drop == 0)
        return;
    n->marks_count -= drop;
    memmove(n->marks, n->marks + drop, n->marks_count * sizeof *n->marks);
    bns_wal_release(n->wal, n->cfg.group, n->marks[0].lsn_first);
}

static void persist_done(struct bns_wal_append *a, int code)
{
    struct bns_rn_persist *p = BNS_CONTAINER(a, struct bns_rn_persist, append);
    struct bns_raft_node *n = p->n;
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_STORED, .seq = p->seq};

    bns_list_del(&p->node);
    persist_free(n, p);
    if (code != BNS_OK) {
        bns_rn_try_close(n); /* the WAL has called fatal: nothing is acknowledged any more */
        return;
    }
    if (in.seq != 0) { /* 0: the mark that boot writes */
        n->stored_seq = in.seq;
        bns_rn_send_held(n);
        bns_rn_step(n, &in);
    }
    bns_rn_try_close(n);
}

void bns_rn_persist_submit(struct bns_raft_node *n)
{
    BNS_LIST_EACH(it, &n->persists)
    {
        struct bns_rn_persist *p = BNS_CONTAINER(it, struct bns_rn_persist, node);
        int rv;

        if (p->submitted)
            continue;
        rv = bns_wal_append(n->wal, &p->append);
        if (rv != BNS_OK) {
            if (!n->wal_full && rv != BNS_E_OFF)
                BNS_LOG(
                    n->env->log, BNS_LOG_WARN, "raft",
                    "the write-ahead log refuses writes: proposals are refused until it has room",
                    BNS_STR("reason", bns_err_default_text(rv)));
            n->wal_full = true;
            bns_timer_start(n->env, &n->wal_retry, bns_now_ns(n->env) + RETRY_NS);
            return;
        }
        p->submitted = true;
        if (p->index_first != 0 &&
            bns_rn_mark_add(n, p->index_first, p->append.lsn_first) != BNS_OK)
            bns_fatal(n->env, 1, "raft: out of memory");
    }
    if (n->wal_full)
        BNS_LOG(n->env->log, BNS_LOG_INFO, "raft", "the write-ahead log takes writes again");
    n->wal_full = false;
}

static struct bns_wal_record *record(struct bns_rn_persist *p, uint8_t type)
{
    struct bns_wal_record *r = &p->records[p->append.records_count++];

    *r = (struct bns_wal_record){.group = p->n->cfg.group, .type = type};
    return r;
}

static void add(struct bns_wal_record *r, const void *ptr, size_t len)
{
    r->payload[r->slices++] = bns_slice(ptr, len);
}

static void fill_entries(struct bns_rn_persist *p, const struct bns_raft_out *o)
{
    for (size_t i = 0; i < o->entries_count; i++) {
        const struct bns_raft_entry *e = &o->entries[i];
        struct bns_wal_record *r = record(p, BNS_WAL_ENTRY);

        bns_put_u64le(p->heads[i], e->index);
        bns_put_u64le(p->heads[i] + 8, e->term);
        p->heads[i][16] = e->kind;
        add(r, p->heads[i], 17);
        if (e->data != NULL) {
            p->refs[p->refs_count++] = bns_rcbuf_get(e->data);
            add(r, e->data->bytes, e->data->len);
        }
    }
}

int bns_rn_persist(struct bns_raft_node *n, const struct bns_raft_out *o)
{
    const struct bns_alloc *a = bns_rn_alloc(n);
    size_t count = o->entries_count + 3;
    struct bns_rn_persist *p = bns_alloc_zero(a, sizeof *p + count * sizeof(struct bns_wal_record));

    if (p == NULL)
        return BNS_E_NOMEM;
    p->n = n;
    p->seq = o->seq;
    bns_buf_init(&p->conf, a, 4096);
    if (o->entries_count > 0) {
        p->heads = bns_alloc_array(a, o->entries_count, sizeof *p->heads);
        p->refs = bns_alloc_array(a, o->entries_count, sizeof *p->refs);
        if (p->heads == NULL || p->refs == NULL)
            goto fail;
        p->index_first = o->entries[0].index;
    }
    if (o->snap != NULL) {
        struct bns_wal_record *r = record(p, BNS_WAL_SNAPMARK);

        if (bns_raft_conf_encode(&o->snap->conf, &p->conf) != BNS_OK)
            goto fail;
        bns_put_u64le(p->snap, o->snap->index);
        bns_put_u64le(p->snap + 8, o->snap->term);
        add(r, p->snap, sizeof p->snap);
        add(r, p->conf.ptr, p->conf.len);
        p->index_first = o->snap->index; /* the records from here on are what a replay needs */
    }
    if (o->truncate_from != 0) {
        bns_put_u64le(p->truncate, o->truncate_from);
        add(record(p, BNS_WAL_TRUNCATE), p->truncate, sizeof p->truncate);
    }
    fill_entries(p, o);
    if (o->has_state) {
        bns_put_u64le(p->state, o->term);
        bns_put_u64le(p->state + 8, o->vote);
        bns_put_u64le(p->state + 16, o->commit);
        add(record(p, BNS_WAL_STATE), p->state, sizeof p->state);
    }
    BNS_ASSERT(p->append.records_count > 0);
    p->append.records = p->records;
    p->append.done = persist_done;
    bns_list_push(&n->persists, &p->node);
    if (!n->wal_full)
        bns_rn_persist_submit(n);
    return BNS_OK;

fail:
    persist_free(n, p);
    return BNS_E_NOMEM;
}

/* When the node goes down for good: nothing is in flight any more. */
void bns_rn_wal_free(struct bns_raft_node *n)
{
    struct bns_list *it;

    while ((it = bns_list_pop(&n->persists)) != NULL)
        persist_free(n, BNS_CONTAINER(it, struct bns_rn_persist, node));
    bns_free(bns_rn_alloc(n), n->marks);
    n->marks = NULL;
    n->marks_count = 0;
}
