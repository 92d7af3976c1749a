/* raft_node_props.c - proposals on their way to the core: two lanes, the urgent one first.
 *
 * What was proposed in one turn of the loop becomes one PROPOSE step, in order. While there is no
 * leader, or the core has as much that is not committed as it may have, proposals wait here. Under
 * overload the lane of clients' writes is then long, or full (BUSY): so what the state machine
 * needs to go on at all, such as the end of a lease, has a lane of its own with room of its own
 * (URGENT_BYTES_MAX), which goes first and does not care how far the applies lag behind. Within a
 * lane the order is kept; between them there is none, as with two clients.
 *
 * Proposals that find no leader are dropped after PROPOSE_WAIT_NS to twice as long: their clients
 * have given up. Applied then, a write could undo what the same client wrote since through another
 * member.
 */
#include "app/raft_node_int.h"

#define PROPOSE_WAIT_NS (5 * BNS_SEC)
#define STEP_BYTES (512u * 1024)

static const uint64_t bytes_max[BNS_RN_LANES] = {BNS_RN_URGENT_BYTES_MAX, BNS_RN_PROPOSE_BYTES_MAX};

static uint64_t cost_of(const struct bns_rcbuf *data)
{
    return data->len + BNS_RAFT_ENTRY_OVERHEAD;
}

/* Lets go of the first `count`. */
static void shift(struct bns_rn_lane *l, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        l->bytes -= cost_of(l->items[i]);
        bns_rcbuf_put(l->items[i]);
    }
    l->count -= count;
    l->old -= l->old < count ? l->old : count;
    if (count > 0 && l->count > 0)
        memmove(l->items, l->items + count, l->count * sizeof l->items[0]);
}

static void start_timer(struct bns_raft_node *n)
{
    if (bns_rn_props_wait(n) && n->prop_timer.node.pos == 0)
        bns_timer_start(n->env, &n->prop_timer, bns_now_ns(n->env) + PROPOSE_WAIT_NS);
}

static void expire(void *arg)
{
    struct bns_raft_node *n = arg;
    uint64_t dropped = 0;

    for (int i = 0; i < BNS_RN_LANES; i++) {
        struct bns_rn_lane *l = &n->lanes[i];

        dropped += l->old;
        shift(l, l->old);
        l->old = l->count;
    }
    if (dropped > 0)
        BNS_LOG(n->env->log, BNS_LOG_WARN, "raft", "proposals dropped: no leader took them",
                BNS_U64("count", dropped));
    bns_counter_add(n->m_dropped, dropped);
    start_timer(n);
}

void bns_rn_props_init(struct bns_raft_node *n)
{
    bns_timer_init(&n->prop_timer, expire, n);
}

void bns_rn_props_free(struct bns_raft_node *n)
{
    for (int i = 0; i < BNS_RN_LANES; i++) {
        shift(&n->lanes[i], n->lanes[i].count);
        bns_free(bns_rn_alloc(n), n->lanes[i].items);
    }
}

bool bns_rn_props_wait(const struct bns_raft_node *n)
{
    return n->lanes[BNS_RN_LANE_URGENT].count + n->lanes[BNS_RN_LANE_WRITES].count > 0;
}

static int keep(struct bns_raft_node *n, enum bns_rn_lane_of which, struct bns_rcbuf *data)
{
    struct bns_rn_lane *l = &n->lanes[which];

    if (l->bytes + cost_of(data) > bytes_max[which])
        return BNS_E_BUSY;
    if (l->count == l->cap) {
        size_t cap = l->cap == 0 ? 64 : l->cap * 2;
        void *grown = bns_resize(bns_rn_alloc(n), l->items, cap * sizeof *l->items);
        if (grown == NULL)
            return BNS_E_NOMEM;
        l->items = grown;
        l->cap = cap;
    }
    l->items[l->count++] = bns_rcbuf_get(data);
    l->bytes += cost_of(data);
    return BNS_OK;
}

int bns_rn_prop_keep(struct bns_raft_node *n, struct bns_rcbuf *data)
{
    return keep(n, BNS_RN_LANE_WRITES, data);
}

static int propose(struct bns_raft_node *n, enum bns_rn_lane_of which, struct bns_rcbuf *data)
{
    int rv;

    BNS_ASSERT(data != NULL);
    if (n->closing || !n->started)
        return BNS_E_SHUTDOWN;
    if (n->wal_full || !bns_wal_has_room(n->wal) ||
        (n->st.leader_no_room && n->st.leader != n->cfg.id)) /* what it told may be old news here */
        return BNS_E_NOSPACE;
    if (which != BNS_RN_LANE_URGENT && n->st.commit > n->applied + BNS_RN_APPLY_GAP_MAX)
        return BNS_E_BUSY;
    rv = keep(n, which, data);
    if (rv != BNS_OK)
        return rv;
    bns_counter_add(n->m_proposals, 1);
    bns_rn_kick(n);
    return BNS_OK;
}

int bns_raft_node_propose(struct bns_raft_node *n, struct bns_rcbuf *data)
{
    return propose(n, BNS_RN_LANE_WRITES, data);
}

int bns_raft_node_propose_urgent(struct bns_raft_node *n, struct bns_rcbuf *data)
{
    return propose(n, BNS_RN_LANE_URGENT, data);
}

/* A leader without room takes nothing: it hands over, or there is room again. */
static bool taken(const struct bns_raft_node *n)
{
    bool full = n->wal_full || !bns_wal_has_room(n->wal);

    return n->st.leader != 0 && !(full && n->st.role == BNS_RAFT_LEADER);
}

/* False: the core takes nothing more. */
static bool step_lane(struct bns_raft_node *n, struct bns_rn_lane *l)
{
    size_t at = 0;
    int rv = BNS_OK;

    while (at < l->count && taken(n)) {
        struct bns_raft_in in = {.kind = BNS_RAFT_IN_PROPOSE, .data = l->items + at};
        uint64_t bytes = 0;

        while (at + in.data_count < l->count && in.data_count < BNS_RN_PROPOSE_STEP_MAX &&
               (in.data_count == 0 || bytes < STEP_BYTES))
            bytes += l->items[at + in.data_count++]->len;
        rv = bns_raft_step(n->raft, bns_now_ns(n->env), &in);
        if (rv == BNS_E_BUSY || rv == BNS_E_NOTLEADER)
            break; /* stays queued: tried again when the core has moved on */
        if (rv != BNS_OK)
            bns_counter_add(n->m_dropped, in.data_count);
        at += in.data_count;
        bns_rn_drain(n);
    }
    shift(l, at);
    return rv != BNS_E_BUSY && rv != BNS_E_NOTLEADER;
}

void bns_rn_props_step(struct bns_raft_node *n)
{
    for (int i = 0; i < BNS_RN_LANES; i++) {
        if (!step_lane(n, &n->lanes[i]))
            break;
    }
    start_timer(n);
}
