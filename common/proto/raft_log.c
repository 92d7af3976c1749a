/* raft_log.c - the part of the Raft log that is in memory: everything behind the last trim.
 *
 * Layout:  entries and slots are two parallel arrays; [head, head + count) is in use and
 *          contiguous, so that outputs point straight into it. Forgetting the front only moves
 *          head; the arrays are moved to the beginning when the room is needed (raft_log_reserve,
 *          the only function here that allocates). Each slot has the running byte count, so the
 *          bytes of any range are one subtraction: flow control and trimming never walk the log.
 * Durable: each slot knows the PERSIST that carried it. Numbers grow along the log, because what is
 *          appended later is handed out later and a truncation takes the tail; so STORED(seq) moves
 *          `durable` forward over the slots with a number <= seq and no queue of writes in flight
 *          is needed.
 * Terms grow along the log: raft_log_search() is a binary search.
 *
 * Invariants: snap_index <= durable <= handed <= last; entry i has index snap_index + 1 + i.
 */
#include "proto/raft_impl.h"

void raft_log_init(struct raft_log *l, const struct bns_alloc *alloc, uint64_t index, uint64_t term)
{
    *l = (struct raft_log){
        .alloc = alloc, .snap_index = index, .snap_term = term, .handed = index, .durable = index};
}

static void drop(struct raft_log *l, size_t first, size_t n)
{
    for (size_t i = 0; i < n; i++)
        bns_rcbuf_put(l->entries[l->head + first + i].data);
}

void raft_log_close(struct raft_log *l)
{
    drop(l, 0, l->count);
    bns_free(l->alloc, l->entries);
    bns_free(l->alloc, l->slots);
    l->entries = NULL;
    l->slots = NULL;
    l->head = l->count = l->cap = 0;
}

int raft_log_reserve(struct raft_log *l, size_t more)
{
    size_t cap = l->cap;
    struct bns_raft_entry *entries;
    struct raft_slot *slots;

    if (l->head + l->count + more <= cap)
        return BNS_OK;
    if (l->count + more <= cap / 2 || (l->head > 0 && l->count + more <= cap - cap / 4)) {
        memmove(l->entries, l->entries + l->head, l->count * sizeof *l->entries);
        memmove(l->slots, l->slots + l->head, l->count * sizeof *l->slots);
        l->head = 0;
        return BNS_OK;
    }
    if (cap == 0)
        cap = 16;
    while (cap < l->count + more)
        cap *= 2;
    if (cap == l->cap)
        cap *= 2;
    entries = bns_alloc_array(l->alloc, cap, sizeof *entries);
    slots = bns_alloc_array(l->alloc, cap, sizeof *slots);
    if (entries == NULL || slots == NULL) {
        bns_free(l->alloc, entries);
        bns_free(l->alloc, slots);
        return BNS_E_NOMEM;
    }
    if (l->count > 0) {
        memcpy(entries, l->entries + l->head, l->count * sizeof *entries);
        memcpy(slots, l->slots + l->head, l->count * sizeof *slots);
    }
    bns_free(l->alloc, l->entries);
    bns_free(l->alloc, l->slots);
    l->entries = entries;
    l->slots = slots;
    l->head = 0;
    l->cap = cap;
    return BNS_OK;
}

static uint64_t end_at(const struct raft_log *l, uint64_t index)
{
    if (index <= l->snap_index)
        return l->snap_end;
    BNS_ASSERT(index <= raft_log_last(l));
    return l->slots[l->head + (index - l->snap_index - 1)].end;
}

uint64_t raft_log_bytes(const struct raft_log *l, uint64_t after, uint64_t to)
{
    return to <= after ? 0 : end_at(l, to) - end_at(l, after);
}

void raft_log_append(struct raft_log *l, const struct bns_raft_entry *e)
{
    uint64_t last = raft_log_last(l);
    size_t at = l->head + l->count;

    BNS_ASSERT(at < l->cap);
    BNS_ASSERT(e->index == last + 1);
    BNS_ASSERT(e->term >= raft_log_term(l, last));
    l->slots[at].end =
        end_at(l, last) + BNS_RAFT_ENTRY_OVERHEAD + (e->data == NULL ? 0 : e->data->len);
    l->slots[at].seq = 0;
    l->entries[at] = *e;
    if (e->data != NULL)
        bns_rcbuf_get(e->data);
    l->count++;
}

void raft_log_truncate(struct raft_log *l, uint64_t from)
{
    size_t keep;

    BNS_ASSERT(from > l->snap_index);
    BNS_ASSERT(from <= raft_log_last(l));
    keep = (size_t)(from - l->snap_index - 1);
    drop(l, keep, l->count - keep);
    l->count = keep;
    if (from <= l->handed) {
        if (l->truncate_from == 0 || from < l->truncate_from)
            l->truncate_from = from;
        l->handed = from - 1;
    }
    if (l->durable >= from)
        l->durable = from - 1;
}

void raft_log_trim(struct raft_log *l, uint64_t index)
{
    size_t n;

    if (index <= l->snap_index)
        return;
    BNS_ASSERT(index <= l->durable);
    n = (size_t)(index - l->snap_index);
    l->snap_term = raft_log_term(l, index);
    l->snap_end = end_at(l, index);
    drop(l, 0, n);
    l->head += n;
    l->count -= n;
    l->snap_index = index;
}

void raft_log_reset(struct raft_log *l, uint64_t index, uint64_t term)
{
    drop(l, 0, l->count);
    l->head = l->count = 0;
    l->snap_index = index;
    l->snap_term = term;
    l->snap_end = 0;
    l->handed = l->durable = index;
    l->truncate_from = 0;
    l->cut = true;
}

void raft_log_stored(struct raft_log *l, uint64_t seq)
{
    while (l->durable < l->handed && l->slots[l->head + (l->durable - l->snap_index)].seq <= seq)
        l->durable++;
}

uint64_t raft_log_term(const struct raft_log *l, uint64_t index)
{
    if (index == l->snap_index)
        return l->snap_term;
    if (index < l->snap_index || index > raft_log_last(l))
        return 0;
    return l->entries[l->head + (index - l->snap_index - 1)].term;
}

const struct bns_raft_entry *raft_log_at(const struct raft_log *l, uint64_t index)
{
    BNS_ASSERT(index > l->snap_index);
    BNS_ASSERT(index <= raft_log_last(l));
    return &l->entries[l->head + (index - l->snap_index - 1)];
}

uint64_t raft_log_search(const struct raft_log *l, uint64_t index, uint64_t term)
{
    uint64_t lo = l->snap_index; /* everything <= lo qualifies, or is all there is */
    uint64_t hi = index < raft_log_last(l) ? index : raft_log_last(l);

    while (lo < hi) {
        uint64_t mid = lo + (hi - lo + 1) / 2;
        if (raft_log_term(l, mid) <= term)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

size_t raft_log_fit(const struct raft_log *l, uint64_t from, uint64_t to, uint64_t bytes_max)
{
    uint64_t lo = from;
    uint64_t hi = to;

    BNS_ASSERT(from <= to);
    if (hi - from >= RAFT_MSG_ENTRIES)
        hi = from + RAFT_MSG_ENTRIES - 1;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo + 1) / 2;
        if (raft_log_bytes(l, from - 1, mid) <= bytes_max)
            lo = mid;
        else
            hi = mid - 1;
    }
    return (size_t)(lo - from + 1);
}
