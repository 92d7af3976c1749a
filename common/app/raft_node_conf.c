/* raft_node_conf.c - members at run time: changes, hand-over, addresses, the end of a removed node.
 *
 * Changes: a queue, first in, first out. On the leader the head is stepped into the core; while
 *   the core is busy with another change it stays, for at most five seconds. Elsewhere the head is
 *   sent to the leader as a request and joins the queue there; the leader's answer ends it. So an
 *   administrator's two changes at once follow one another, and a refusal comes with its reason,
 *   wherever it was asked for. A request that was on its way when the connection broke is never
 *   repeated: its outcome is unknown.
 *
 * The first members are told by flags at every start, until the first CONF entry has been applied:
 *   it holds the whole configuration, so that the log tells a joining member all. A snapshot of a
 *   state machine that has applied none is sent with the configuration of the flags.
 *
 * Removed: the core says so when the committed change is here and the state machine has applied
 *   it. A member that was down for longer than the leader goes on telling it asks: without a leader
 *   for five to ten election timeouts it calls each member, whose server knows the removed ids. One
 *   that knows, and nobody else may know, stays and asks until a voter says that it knows too.
 *
 * Room: each drain compares what the WAL says about its room with what the core was told, so that a
 *   leader without room hands over.
 */
#include "app/raft_node_int.h"

#include "base/varint.h"

#define CHANGE_NS (5 * BNS_SEC)
#define CHANGE_RETRY_NS (20 * BNS_MS)
#define TRANSFER_MORE_NS (5 * BNS_SEC)
#define DIAL_RETRY_NS BNS_SEC
#define ELECTION_DEFAULT_NS BNS_SEC
#define ASK_TIMEOUTS 10u

struct change {
    struct bns_list node;
    struct bns_raft_node *n; /* NULL: the node has closed while the leader is asked */
    uint64_t deadline_ns;
    bool asked;               /* the leader: its answer ends this */
    bns_raft_node_done *done; /* NULL without req: nobody waits any more */
    void *arg;
    struct bns_rpc_request *req; /* instead of done: another member's */
    int code;                    /* BNS_E_AGAIN: waits; else the end, told in a turn of its own */
    struct bns_raft_change changes[BNS_RAFT_PEERS_MAX];
    size_t changes_count;
    size_t context_len;
    uint8_t context[];
};

static uint64_t election_ns(const struct bns_raft_node *n)
{
    return n->cfg.election_ns == 0 ? ELECTION_DEFAULT_NS : n->cfg.election_ns;
}

/* ---- changes -------------------------------------------------------------------------------- */

static void change_end(struct bns_raft_node *n, struct change *c, int code)
{
    bns_list_del(&c->node);
    n->changes_count--;
    if (c->req != NULL)
        bns_rpc_reply(c->req, code, bns_slice(NULL, 0));
    else if (c->done != NULL)
        c->done(c->arg, code);
    bns_free(bns_rn_alloc(n), c);
}

static struct change *change_new(struct bns_raft_node *n, const struct bns_raft_change *changes,
                                 size_t count, struct bns_slice context)
{
    struct change *c = bns_alloc_zero(bns_rn_alloc(n), sizeof *c + context.len);

    if (c == NULL)
        return NULL;
    c->n = n;
    c->code = BNS_E_AGAIN;
    c->deadline_ns = bns_now_ns(n->env) + CHANGE_NS;
    c->changes_count = count;
    if (count > 0)
        memcpy(c->changes, changes, count * sizeof changes[0]);
    c->context_len = context.len;
    if (context.len > 0)
        memcpy(c->context, context.ptr, context.len);
    bns_list_push(&n->changes, &c->node);
    n->changes_count++;
    bns_rn_kick(n);
    return c;
}

int bns_raft_node_change(struct bns_raft_node *n, const struct bns_raft_change *changes,
                         size_t changes_count, struct bns_slice context, bns_raft_node_done *done,
                         void *arg)
{
    struct change *c;

    if (n->closing || !n->started)
        return BNS_E_SHUTDOWN;
    if (changes_count > BNS_RAFT_PEERS_MAX || context.len > BNS_RAFT_CONTEXT_BYTES_MAX)
        return BNS_E_TOOBIG;
    if (n->changes_count >= BNS_RN_CHANGES_MAX)
        return BNS_E_BUSY;
    c = change_new(n, changes, changes_count, context);
    if (c == NULL)
        return BNS_E_NOMEM;
    c->done = done;
    c->arg = arg;
    return BNS_OK;
}

void bns_raft_node_change_forget(struct bns_raft_node *n, const void *arg)
{
    BNS_LIST_EACH(it, &n->changes)
    {
        struct change *c = BNS_CONTAINER(it, struct change, node);

        if (c->req == NULL && c->arg == arg)
            c->done = NULL;
    }
}

/* The leader's answer. */
static void answered(void *arg, int code, struct bns_slice payload)
{
    struct change *c = arg;
    struct bns_raft_node *n = c->n;

    (void)payload;
    c->asked = false;
    if (code == BNS_E_CANCELED && n->closing)
        return; /* ended by bns_rn_conf_free() */
    if (code == BNS_E_NOTLEADER || code == BNS_E_SHUTDOWN || code == BNS_E_FORBIDDEN) {
        bns_rn_kick(n); /* certainly not done: somebody else leads now */
        return;
    }
    c->code = code == BNS_E_OFF || code == BNS_E_CANCELED ? BNS_E_DROPPED : code;
    bns_rn_kick(n);
}

static void ask_leader(struct bns_raft_node *n, struct change *c)
{
    struct bns_rn_peer *p = bns_rn_peer_find(n, n->st.leader);
    struct bns_rpc_call_options o = {.method = BNS_RN_METHOD_CHANGE,
                                     .deadline_ns = c->deadline_ns + CHANGE_NS,
                                     .done = answered,
                                     .arg = c};
    uint8_t head[1 + BNS_RAFT_PEERS_MAX * 9];
    struct bns_slice v[2] = {{head, 1 + c->changes_count * 9}, {c->context, c->context_len}};

    if (p == NULL || p->link == NULL || !bns_rpc_peer_up(p->link))
        return; /* tried again */
    head[0] = (uint8_t)c->changes_count;
    for (size_t i = 0; i < c->changes_count; i++) {
        head[1 + i * 9] = (uint8_t)c->changes[i].kind;
        bns_put_u64le(head + 2 + i * 9, c->changes[i].id);
    }
    if (bns_rpc_call(p->link, &o, v, c->context_len > 0 ? 2 : 1) == BNS_OK)
        c->asked = true;
}

static int step_change(struct bns_raft_node *n, struct change *c)
{
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_CHANGE,
                             .changes = c->changes,
                             .changes_count = c->changes_count,
                             .context = bns_slice(c->context, c->context_len)};

    if (n->wal_full || !bns_wal_has_room(n->wal))
        return BNS_E_NOSPACE;
    return bns_rn_try_step(n, &in);
}

/* The head of the queue goes on; false: it waits, and so do those behind it. */
static bool change_on(struct bns_raft_node *n, struct change *c)
{
    int rv = c->code;

    if (c->asked)
        return false;
    if (rv == BNS_E_AGAIN && n->st.role == BNS_RAFT_LEADER) {
        rv = step_change(n, c);
    } else if (rv == BNS_E_AGAIN) {
        rv = BNS_E_NOTLEADER;
        if (c->req == NULL && n->st.leader != 0)
            ask_leader(n, c);
        if (c->asked)
            return false;
    }
    if ((rv == BNS_E_BUSY || (rv == BNS_E_NOTLEADER && c->req == NULL)) && c->code == BNS_E_AGAIN &&
        bns_now_ns(n->env) < c->deadline_ns) {
        bns_timer_start(n->env, &n->change_timer, bns_now_ns(n->env) + CHANGE_RETRY_NS);
        return false;
    }
    change_end(n, c, rv);
    return true;
}

static void change_retry(void *arg)
{
    bns_rn_kick(arg);
}

static void change_request(struct bns_raft_node *n, struct bns_rpc_request *r, struct bns_slice p)
{
    struct bns_raft_change changes[BNS_RAFT_PEERS_MAX];
    size_t count = p.len == 0 ? SIZE_MAX : p.ptr[0];
    int rv = BNS_E_PROTO;
    struct change *c;

    if (count > BNS_RAFT_PEERS_MAX || p.len < 1 + count * 9 ||
        p.len - 1 - count * 9 > BNS_RAFT_CONTEXT_BYTES_MAX)
        goto fail;
    for (size_t i = 0; i < count; i++) {
        changes[i].kind = (enum bns_raft_change_kind)p.ptr[1 + i * 9];
        changes[i].id = bns_get_u64le(p.ptr + 2 + i * 9);
    }
    rv = BNS_E_NOTLEADER;
    if (n->st.role != BNS_RAFT_LEADER)
        goto fail;
    rv = BNS_E_BUSY;
    if (n->changes_count >= BNS_RN_CHANGES_MAX)
        goto fail;
    rv = BNS_E_NOMEM;
    c = change_new(n, changes, count, bns_slice_skip(p, 1 + count * 9));
    if (c == NULL)
        goto fail;
    c->req = r;
    return;

fail:
    bns_rpc_reply(r, rv, bns_slice(NULL, 0));
}

/* ---- hand-over ------------------------------------------------------------------------------ */

/* Long enough for an election after one that failed; who asked has a deadline, too. */
static uint64_t transfer_ns(const struct bns_raft_node *n)
{
    uint64_t e = election_ns(n);

    return 2 * e + (e < TRANSFER_MORE_NS ? e : TRANSFER_MORE_NS);
}

int bns_raft_node_transfer(struct bns_raft_node *n, uint64_t to, bns_raft_node_done *done,
                           void *arg)
{
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_TRANSFER, .peer = to};
    int rv;

    if (n->closing || !n->started)
        return BNS_E_SHUTDOWN;
    if (n->transfer.done != NULL)
        return BNS_E_BUSY;
    bns_rn_props_step(n);    /* what came before is in the log that `to` gets */
    n->transfer.done = done; /* before the step: it may be over when the step is */
    n->transfer.arg = arg;
    n->transfer.to = to;
    n->transfer.give_up_ns = bns_now_ns(n->env) + transfer_ns(n);
    rv = bns_rn_try_step(n, &in);
    if (rv != BNS_OK) {
        n->transfer.done = NULL;
        return rv;
    }
    bns_timer_start(n->env, &n->transfer_timer, n->transfer.give_up_ns);
    bns_rn_kick(n);
    return BNS_OK;
}

static void transfer_flush(struct bns_raft_node *n)
{
    bool leads = n->st.role == BNS_RAFT_LEADER;
    bool over = bns_now_ns(n->env) >= n->transfer.give_up_ns;
    bns_raft_node_done *done = n->transfer.done;
    int code = BNS_E_TIMEOUT;

    if (done == NULL)
        return;
    if (leads && n->st.transferee != 0 && !over)
        return; /* still at it; over: a second leadership already */
    if (!leads && n->st.leader == 0 && !over)
        return; /* the timer, or the next leader */
    if (n->st.leader != 0 && n->st.leader == n->transfer.to)
        code = BNS_OK;
    else if (n->st.leader != 0 && !leads)
        code = n->transfer.to == 0 ? BNS_OK : BNS_E_CONFLICT;
    n->transfer.done = NULL;
    bns_timer_stop(n->env, &n->transfer_timer);
    done(n->transfer.arg, code);
}

/* ---- addresses ------------------------------------------------------------------------------ */

static bool same_addr(const struct bns_raft_peer_addr *a, const struct bns_raft_peer_addr *b)
{
    bool same = a->port == b->port && a->tls == b->tls && a->more_count == b->more_count &&
                strcmp(a->host, b->host) == 0;

    for (size_t i = 0; same && i < a->more_count; i++)
        same = a->more[i].port == b->more[i].port && strcmp(a->more[i].host, b->more[i].host) == 0;
    return same;
}

static void drop_peer(struct bns_rn_peer *p)
{
    bns_rn_snap_stop(p);
    bns_rpc_peer_free(p->link);
    *p = (struct bns_rn_peer){.n = p->n};
}

/* NULL: all are taken. Who was heard of only has to make room for members, and, while it cannot be
 * reached, for others of its kind. */
static struct bns_rn_peer *free_place(struct bns_raft_node *n, bool hearsay)
{
    struct bns_rn_peer *guest = NULL;

    for (size_t i = 0; i < BNS_RN_PEERS_MAX; i++) {
        struct bns_rn_peer *p = &n->peers[i];

        if (p->addr.id == 0)
            return p;
        if (p->hearsay && !(hearsay && p->link != NULL && bns_rpc_peer_up(p->link)))
            guest = p;
    }
    if (guest != NULL)
        drop_peer(guest);
    return guest;
}

int bns_rn_peer_redial(struct bns_rn_peer *p)
{
    int rv;

    bns_rpc_peer_free(p->link);
    p->link = NULL;
    rv = bns_rn_peer_dial(p, NULL);
    if (rv != BNS_OK)
        bns_timer_start(p->n->env, &p->n->dial_timer, bns_now_ns(p->n->env) + DIAL_RETRY_NS);
    return rv;
}

int bns_rn_peer_set(struct bns_raft_node *n, const struct bns_raft_peer_addr *addr, bool hearsay)
{
    struct bns_rn_peer *p = bns_rn_peer_find(n, addr->id);
    bool same = p != NULL && p->link != NULL && same_addr(&p->addr, addr);

    BNS_ASSERT(addr->id != 0);
    if (n->closing)
        return BNS_E_SHUTDOWN;
    if (p == NULL)
        p = free_place(n, hearsay);
    if (p == NULL)
        return BNS_E_TOOBIG;
    p->n = n;
    p->addr = *addr;
    p->leaving = false;
    p->hearsay = hearsay;
    if (same)
        return BNS_OK;
    p->heard.port = 0;
    return n->started ? bns_rn_peer_redial(p) : BNS_OK; /* dialled at the start */
}

int bns_raft_node_peer_set(struct bns_raft_node *n, const struct bns_raft_peer_addr *addr)
{
    return bns_rn_peer_set(n, addr, false);
}

/* Those that could not be dialled when their address came. */
static void redial(void *arg)
{
    struct bns_raft_node *n = arg;
    bool again = false;

    for (size_t i = 0; i < BNS_RN_PEERS_MAX; i++) {
        struct bns_rn_peer *p = &n->peers[i];

        if (p->addr.id != 0 && p->link == NULL && !p->leaving)
            again |= bns_rn_peer_dial(p, NULL) != BNS_OK;
    }
    if (again)
        bns_timer_start(n->env, &n->dial_timer, bns_now_ns(n->env) + DIAL_RETRY_NS);
}

/* Answers that are under way are waited for: a leader that removes itself says so to who asked. */
static bool may_go(const struct bns_rn_peer *p)
{
    return p->leaving && !bns_raft_talks_to(p->n->raft, p->addr.id) &&
           (p->link == NULL || bns_rpc_peer_calls(p->link) == 0);
}

static void let_go(struct bns_rn_peer *p)
{
    if (!may_go(p))
        return;
    drop_peer(p);
}

void bns_raft_node_peer_remove(struct bns_raft_node *n, uint64_t id)
{
    struct bns_rn_peer *p = bns_rn_peer_find(n, id);

    if (p == NULL || n->closing)
        return;
    p->leaving = true;
    bns_rn_kick(n); /* not now: this may be a callback of its stream */
}

/* ---- removed -------------------------------------------------------------------------------- */

static void member_answer(void *arg, int code, struct bns_slice payload)
{
    struct bns_raft_node *n = arg;

    if (n->closing || code != BNS_OK || payload.len != 1 || payload.ptr[0] != 1)
        return;
    n->removed = !BNS_MUTANT(n->env, BNS_RN_MUTANT_REMOVED_UNHEARD);
    bns_rn_kick(n);
}

/* Every so often: is there a leader? Without one for long, the others are asked about us; and so
 * they are while we know of our removal, and do not know whether they do. */
static void member_check(void *arg)
{
    struct bns_raft_node *n = arg;
    uint64_t now = bns_now_ns(n->env);
    struct bns_rpc_call_options o = {.method = BNS_RN_METHOD_MEMBER,
                                     .deadline_ns = now + election_ns(n),
                                     .done = member_answer,
                                     .arg = n};
    struct bns_slice none = bns_slice(NULL, 0);

    bns_timer_start(n->env, &n->member_timer,
                    now + (n->untold ? 1 : ASK_TIMEOUTS) * election_ns(n) / 2);
    if (n->st.leader != 0 && !n->untold) {
        n->leaderless_ns = 0;
        return;
    }
    if (n->leaderless_ns == 0)
        n->leaderless_ns = now;
    if (!n->untold && now - n->leaderless_ns < ASK_TIMEOUTS * election_ns(n) / 2)
        return;
    for (size_t i = 0; i < BNS_RN_PEERS_MAX; i++) {
        struct bns_rn_peer *p = &n->peers[i];
        if (p->link != NULL && bns_rpc_peer_up(p->link) &&
            bns_rpc_call(p->link, &o, &none, 1) != BNS_OK)
            break; /* the next time */
    }
}

void bns_rn_conf_request(struct bns_raft_node *n, struct bns_rpc_request *r, uint64_t from,
                         uint16_t method, struct bns_slice payload)
{
    uint8_t gone;

    if (method == BNS_RN_METHOD_CHANGE) {
        change_request(n, r, payload);
        return;
    }
    /* Only a voter that knows, and goes on knowing, can do without it: a learner's word, or what a
     * power cut takes back, would let it end too soon. */
    gone = n->st.voter && n->st.state_stored && n->cfg.is_removed != NULL &&
           n->cfg.is_removed(n->cfg.members_arg, from);
    bns_rpc_reply(r, BNS_OK, bns_slice(&gone, 1));
}

/* ---- what the rest of the node calls -------------------------------------------------------- */

static void tell_room(struct bns_raft_node *n)
{
    bool no_room = n->wal_full || !bns_wal_has_room(n->wal);
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_ROOM, .ok = !no_room};

    if (no_room == n->no_room)
        return;
    n->no_room = no_room;
    bns_rn_step(n, &in);
}

void bns_rn_conf_flush(struct bns_raft_node *n)
{
    tell_room(n);
    for (size_t i = 0; i < BNS_RN_PEERS_MAX; i++)
        let_go(&n->peers[i]);
    while (!bns_list_empty(&n->changes) && !n->closing &&
           change_on(n, BNS_CONTAINER(n->changes.next, struct change, node)))
        continue;
    transfer_flush(n);
    if (n->removed && !n->removed_told && !n->closing) {
        n->removed_told = true;
        BNS_LOG(n->env->log, BNS_LOG_WARN, "raft", "this member was removed from the group",
                BNS_HEX("id", n->cfg.id));
        if (n->cfg.on_removed != NULL)
            n->cfg.on_removed(n->cfg.members_arg);
    }
}

/* Who is told may close the node. So not before it has handed over; and not before another member
 * knows, too: those who do not may need our answer to be a majority. A leader that has said so
 * knows. */
static void look_at_removal(struct bns_raft_node *n)
{
    if (n->st.role == BNS_RAFT_LEADER)
        return;
    n->removed = n->st.leader != 0 && n->st.leader_commit >= n->st.conf_index;
    if (n->removed || n->untold)
        return;
    n->untold = true;
    BNS_LOG(n->env->log, BNS_LOG_WARN, "raft",
            "this member was removed from the group: it stays until another one knows",
            BNS_HEX("id", n->cfg.id));
    bns_timer_start(n->env, &n->member_timer, bns_now_ns(n->env));
}

/* Looks whether the flush has to run: this comes after every drain. */
void bns_rn_conf_drained(struct bns_raft_node *n)
{
    bool leaving = false;

    if (n->closing)
        return;
    if (n->st.removed && !n->removed && n->applied >= n->st.conf_index)
        look_at_removal(n);
    for (size_t i = 0; i < BNS_RN_PEERS_MAX; i++)
        leaving |= may_go(&n->peers[i]);
    if (leaving || n->transfer.done != NULL || (n->removed && !n->removed_told) ||
        (!n->no_room && n->wal_full) || bns_wal_has_room(n->wal) == n->no_room)
        bns_rn_kick(n);
}

void bns_rn_conf_init(struct bns_raft_node *n)
{
    bns_list_init(&n->changes);
    bns_timer_init(&n->change_timer, change_retry, n);
    bns_timer_init(&n->transfer_timer, change_retry, n);
    bns_timer_init(&n->dial_timer, redial, n);
    bns_timer_init(&n->member_timer, member_check, n);
}

void bns_rn_conf_start(struct bns_raft_node *n)
{
    bns_timer_start(n->env, &n->member_timer,
                    bns_now_ns(n->env) + ASK_TIMEOUTS * election_ns(n) / 2);
}

void bns_rn_conf_close(struct bns_raft_node *n)
{
    bns_raft_node_done *done = n->transfer.done;

    bns_timer_stop(n->env, &n->change_timer);
    bns_timer_stop(n->env, &n->transfer_timer);
    bns_timer_stop(n->env, &n->dial_timer);
    bns_timer_stop(n->env, &n->member_timer);
    n->transfer.done = NULL;
    if (done != NULL)
        done(n->transfer.arg, BNS_E_SHUTDOWN);
}

/* Open calls have ended with the connections. */
void bns_rn_conf_free(struct bns_raft_node *n)
{
    while (!bns_list_empty(&n->changes)) {
        struct change *c = BNS_CONTAINER(n->changes.next, struct change, node);
        change_end(n, c, c->code == BNS_E_AGAIN ? BNS_E_SHUTDOWN : c->code);
    }
}

const struct bns_raft_conf *bns_raft_node_conf(const struct bns_raft_node *n)
{
    return bns_raft_conf(n->raft);
}
