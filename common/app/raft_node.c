/* raft_node.c - the driver of one Raft core: inputs in, outputs carried out in their order.
 *
 * One turn of the loop gathers all proposals into one PROPOSE step (raft_node_props.c; one WAL
 * batch, one append a peer) and all reads into one READ step. Outputs of a step are carried out
 * before the next step:
 *   PERSIST -> one WAL batch (raft_node_wal.c); its durability comes back as STORED
 *   SEND    -> encoded at once; sent at once or when its PERSIST is durable (raft_node_net.c)
 *   APPLY   -> queued; one batch at a time is with the state machine; done comes back as APPLIED
 *   READ_OK -> the reads of that cookie wait until the index is applied
 * A callback that leads to a further input while a step is under way (an apply that completes at
 * once) leaves a note that the outer step picks up, so the core is never entered twice.
 *
 * Checkpoints: after snapshot_entries or snapshot_bytes of applied entries the state machine is
 * asked to make them durable; what it then reports lets the core drop old entries and the WAL old
 * segments.
 */
#include "app/raft_node_int.h"

/* A read is confirmed by a quorum or fails; waiting reads are looked at this often. */
#define READ_SWEEP_NS (100 * BNS_MS)

static void out_of_memory(struct bns_raft_node *n)
{
    bns_fatal(n->env, 1, "raft: out of memory");
}

/* ---- applies -------------------------------------------------------------------------------- */

static void apply_free(struct bns_raft_node *n, struct bns_rn_apply *a)
{
    for (size_t i = 0; i < a->count; i++)
        bns_rcbuf_put(a->entries[i].data);
    bns_free(bns_rn_alloc(n), a);
}

static void checkpoint_done(void *arg, int code)
{
    struct bns_raft_node *n = arg;
    struct bns_raft_snapmeta d = {0};
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_SNAPSHOT_TAKEN};

    n->checkpointing = false;
    if (code == BNS_OK && !n->installing) {
        /* it may tell more than it was asked for: the part of a batch that it has applied so far */
        n->ops->durable(n->sm, &d);
        n->checkpoint_index = d.index < n->applied ? d.index : n->applied;
        in.index = n->checkpoint_index;
        bns_rn_step(n, &in);
        bns_rn_wal_release(n, n->st.first_index);
    }
    bns_rn_try_close(n);
}

static void maybe_checkpoint(struct bns_raft_node *n)
{
    if (n->checkpointing || n->closing || n->installing ||
        (n->applied - n->checkpoint_index < n->cfg.snapshot_entries &&
         n->checkpoint_bytes < n->cfg.snapshot_bytes))
        return;
    n->checkpointing = true;
    n->checkpoint_bytes = 0;
    n->ops->checkpoint(n->sm, checkpoint_done, n);
}

static void answer_reads(struct bns_raft_node *n, struct bns_list *reads, int code)
{
    struct bns_list *it;

    while ((it = bns_list_pop(reads)) != NULL) {
        struct bns_raft_read *r = BNS_CONTAINER(it, struct bns_raft_read, node);

        n->reads_count--;
        r->fn(r, code);
    }
}

static void reads_ready(struct bns_raft_node *n)
{
    struct bns_list ready; /* a callback may cancel any other read */

    bns_list_init(&ready);
    BNS_LIST_EACH(it, &n->reads_waiting)
    {
        if (BNS_CONTAINER(it, struct bns_raft_read, node)->index > n->applied &&
            !BNS_MUTANT(n->env, BNS_RN_MUTANT_READ_EARLY))
            continue;
        bns_list_del(it);
        bns_list_push(&ready, it);
    }
    answer_reads(n, &ready, BNS_OK);
}

static void apply_done(void *arg, int code)
{
    struct bns_raft_node *n = arg;
    struct bns_rn_apply *a = n->applying;

    BNS_ASSERT(a != NULL);
    n->applying = NULL;
    if (code == BNS_OK) {
        n->applied = a->entries[a->count - 1].index;
        for (size_t i = 0; i < a->count; i++)
            n->checkpoint_bytes += bns_rcbuf_slice(a->entries[i].data).len;
        n->applied_news = true;
    }
    apply_free(n, a);
    if (code != BNS_OK || n->applying_inline) {
        bns_rn_try_close(n);
        return;
    }
    bns_rn_run_applies(n);
    bns_rn_drain(n);
    bns_rn_try_close(n);
}

void bns_rn_applies_drop(struct bns_raft_node *n)
{
    struct bns_list *it;

    while ((it = bns_list_pop(&n->applies)) != NULL)
        apply_free(n, BNS_CONTAINER(it, struct bns_rn_apply, node));
}

/* Gives the state machine the next batch unless it has one. */
void bns_rn_run_applies(struct bns_raft_node *n)
{
    n->applying_inline = true;
    while (n->applying == NULL && !n->installing && !n->install_wanted) {
        struct bns_list *it = bns_list_pop(&n->applies);

        if (it == NULL)
            break;
        n->applying = BNS_CONTAINER(it, struct bns_rn_apply, node);
        n->ops->apply(n->sm, n->applying->entries, n->applying->count, apply_done, n);
    }
    n->applying_inline = false;
    if (n->install_wanted)
        bns_rn_snap_install(n);
}

static int out_apply(struct bns_raft_node *n, const struct bns_raft_out *o)
{
    struct bns_rn_apply *a;

    BNS_ASSERT(o->entries_count > 0);
    a = bns_alloc(bns_rn_alloc(n), sizeof *a + o->entries_count * sizeof a->entries[0]);
    if (a == NULL)
        return BNS_E_NOMEM;
    a->count = o->entries_count;
    for (size_t i = 0; i < a->count; i++) {
        a->entries[i] = o->entries[i];
        if (a->entries[i].data != NULL)
            (void)bns_rcbuf_get(a->entries[i].data); /* the result is the buffer itself */
    }
    bns_list_push(&n->applies, &a->node);
    return BNS_OK;
}

/* ---- reads ---------------------------------------------------------------------------------- */

static struct bns_rn_readbatch *batch_take(struct bns_raft_node *n, uint64_t cookie)
{
    BNS_LIST_EACH(it, &n->batches)
    {
        struct bns_rn_readbatch *b = BNS_CONTAINER(it, struct bns_rn_readbatch, node);

        if (b->cookie == cookie) {
            bns_list_del(&b->node);
            return b;
        }
    }
    return NULL;
}

static void out_read(struct bns_raft_node *n, const struct bns_raft_out *o)
{
    struct bns_rn_readbatch *b = batch_take(n, o->cookie);

    BNS_ASSERT(b != NULL);
    if (o->kind == BNS_RAFT_OUT_READ_OK) {
        BNS_LIST_EACH(it, &b->reads)
        {
            BNS_CONTAINER(it, struct bns_raft_read, node)->index = o->index;
        }
        bns_list_splice(&n->reads_waiting, &b->reads);
    } else {
        /* asked again while their deadline allows: a leader may be elected meanwhile */
        bns_list_splice(&n->reads_new, &b->reads);
    }
    bns_free(bns_rn_alloc(n), b);
}

static void step_reads(struct bns_raft_node *n)
{
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_READ};
    struct bns_rn_readbatch *b;
    int rv;

    if (bns_list_empty(&n->reads_new) || n->st.leader == 0)
        return;
    b = bns_alloc(bns_rn_alloc(n), sizeof *b);
    if (b == NULL)
        return; /* the next sweep tries again */
    bns_list_init(&b->reads);
    bns_list_splice(&b->reads, &n->reads_new);
    b->cookie = ++n->read_cookie;
    bns_list_push(&n->batches, &b->node);
    in.cookie = b->cookie;
    rv = bns_raft_step(n->raft, bns_now_ns(n->env), &in);
    if (rv != BNS_OK) {
        bns_list_splice(&n->reads_new, &b->reads);
        bns_list_del(&b->node);
        bns_free(bns_rn_alloc(n), b);
    }
    bns_rn_drain(n);
}

/* Moves the reads of `from` whose deadline has passed to `late`. */
static void take_late(struct bns_raft_node *n, struct bns_list *from, struct bns_list *late)
{
    BNS_LIST_EACH(it, from)
    {
        struct bns_raft_read *r = BNS_CONTAINER(it, struct bns_raft_read, node);

        if (r->deadline_ns > bns_now_ns(n->env))
            continue;
        bns_list_del(&r->node);
        bns_list_push(late, &r->node);
    }
}

static void read_sweep(void *arg)
{
    struct bns_raft_node *n = arg;
    struct bns_list late;

    bns_list_init(&late);
    take_late(n, &n->reads_new, &late);
    take_late(n, &n->reads_waiting, &late);
    BNS_LIST_EACH(it, &n->batches)
    {
        take_late(n, &BNS_CONTAINER(it, struct bns_rn_readbatch, node)->reads, &late);
    }
    answer_reads(n, &late, n->st.leader == 0 ? BNS_E_NOTLEADER : BNS_E_TIMEOUT);
    if (n->reads_count > 0 && !n->closing) {
        bns_timer_start(n->env, &n->read_timer, bns_now_ns(n->env) + READ_SWEEP_NS);
        bns_rn_kick(n);
    }
}

static void read(struct bns_raft_node *n, struct bns_raft_read *r, uint64_t deadline_ns,
                 uint32_t reads_max)
{
    bool full = n->reads_count >= reads_max;

    r->index = 0;
    r->deadline_ns = deadline_ns;
    if (n->closing) { /* nothing may be queued any more: the end may be under way */
        bns_list_init(&r->node);
        r->fn(r, BNS_E_SHUTDOWN);
        return;
    }
    if (n->reads_count++ == 0)
        bns_timer_start(n->env, &n->read_timer, bns_now_ns(n->env) + READ_SWEEP_NS);
    bns_list_push(full ? &n->reads_failed : &n->reads_new, &r->node);
    bns_rn_kick(n);
}

void bns_raft_node_read(struct bns_raft_node *n, struct bns_raft_read *r, uint64_t deadline_ns)
{
    read(n, r, deadline_ns, BNS_RN_READS_MAX);
}

void bns_raft_node_read_urgent(struct bns_raft_node *n, struct bns_raft_read *r,
                               uint64_t deadline_ns)
{
    read(n, r, deadline_ns, BNS_RN_READS_MAX + BNS_RN_READS_URGENT);
}

void bns_raft_node_read_cancel(struct bns_raft_node *n, struct bns_raft_read *r)
{
    if (bns_list_empty(&r->node))
        return;
    bns_list_del(&r->node);
    n->reads_count--;
}

/* ---- a turn of the loop ---------------------------------------------------------------------- */

static void flush(struct bns_task *t)
{
    struct bns_raft_node *n = BNS_CONTAINER(t, struct bns_raft_node, flush);

    n->flush_posted = false;
    bns_rn_snap_installed(n);
    answer_reads(n, &n->reads_failed, n->closing ? BNS_E_SHUTDOWN : BNS_E_BUSY);
    if (!n->closing) {
        bns_rn_props_step(n);
        bns_rn_conf_flush(n);
        step_reads(n);
        reads_ready(n);
    }
    bns_rn_try_close(n);
}

void bns_rn_kick(struct bns_raft_node *n)
{
    if (n->flush_posted)
        return;
    n->flush_posted = true;
    bns_post(n->env, &n->flush);
}

/* ---- the core ------------------------------------------------------------------------------- */

static void out_role(struct bns_raft_node *n, const struct bns_raft_out *o)
{
    static const char *const names[] = {"follower", "pre-candidate", "candidate", "leader"};

    BNS_LOG(n->env->log, BNS_LOG_INFO, "raft", "role changed", BNS_STR("role", names[o->role]),
            BNS_U64("term", o->term), BNS_HEX("leader", o->leader), BNS_HEX("id", n->cfg.id));
    if (n->st.role == BNS_RAFT_LEADER && n->st.transferee != 0) /* n->st: before this step */
        n->gave_ns = bns_now_ns(n->env);
    bns_gauge_set(n->m_role, o->role);
    bns_gauge_set(n->m_term, (double)o->term);
    bns_gauge_set(n->m_has_leader, o->leader != 0);
    if (o->leader != 0)
        bns_counter_add(n->m_leader_changes, 1);
    n->ops->role(n->sm, o->role, o->term, o->leader);
    if (n->cfg.on_role != NULL)
        n->cfg.on_role(n->cfg.on_role_arg, o->role, o->term, o->leader);
    if (o->leader != 0)
        bns_rn_kick(n);
}

static int carry_out(struct bns_raft_node *n, const struct bns_raft_out *o)
{
    switch (o->kind) {
    case BNS_RAFT_OUT_PERSIST:
        return bns_rn_persist(n, o);
    case BNS_RAFT_OUT_SEND:
        return bns_rn_send(n, o);
    case BNS_RAFT_OUT_APPLY:
        return out_apply(n, o);
    case BNS_RAFT_OUT_READ_OK:
    case BNS_RAFT_OUT_READ_FAIL:
        out_read(n, o);
        return BNS_OK;
    case BNS_RAFT_OUT_SEND_SNAPSHOT:
        return bns_rn_snap_send(n, o->peer, o->index);
    case BNS_RAFT_OUT_INSTALL:
        n->install_meta = *o->snap;
        n->install_wanted = true;
        return BNS_OK;
    case BNS_RAFT_OUT_ROLE:
        out_role(n, o);
        return BNS_OK;
    }
    return BNS_E_INTERNAL;
}

static void drain_outputs(struct bns_raft_node *n)
{
    struct bns_raft_out o;

    while (bns_raft_next(n->raft, &o)) {
        if (carry_out(n, &o) == BNS_E_NOMEM)
            out_of_memory(n);
    }
    bns_raft_status(n->raft, &n->st);
}

/* Carries out all outputs, and those that their own completions lead to. */
void bns_rn_drain(struct bns_raft_node *n)
{
    uint64_t deadline;

    if (n->stepping)
        return; /* the outer drain goes on */
    n->stepping = true;
    for (;;) {
        drain_outputs(n);
        bns_rn_run_applies(n);
        reads_ready(n); /* confirmed right now, or applied right now */
        if (!n->applied_news)
            break;
        n->applied_news = false;
        struct bns_raft_in in = {.kind = BNS_RAFT_IN_APPLIED, .index = n->applied};
        if (bns_raft_step(n->raft, bns_now_ns(n->env), &in) == BNS_E_NOMEM)
            out_of_memory(n);
    }
    n->stepping = false;
    bns_rn_conf_drained(n);
    bns_gauge_set(n->m_lag, (double)(n->st.commit - n->applied));
    if (bns_rn_props_wait(n) && n->st.leader != 0)
        bns_rn_kick(n);
    deadline = bns_raft_deadline(n->raft);
    if (deadline == BNS_NEVER || n->closing)
        bns_timer_stop(n->env, &n->timer);
    else if (n->timer.node.pos == 0 || n->timer.node.key != deadline)
        bns_timer_start(n->env, &n->timer, deadline);
    maybe_checkpoint(n);
}

void bns_rn_step(struct bns_raft_node *n, const struct bns_raft_in *in)
{
    int rv;

    BNS_ASSERT(!n->stepping);
    if (n->closing && in->kind != BNS_RAFT_IN_STORED && in->kind != BNS_RAFT_IN_APPLIED)
        return;
    rv = bns_raft_step(n->raft, bns_now_ns(n->env), in);
    if (rv == BNS_E_NOMEM)
        out_of_memory(n);
    bns_rn_drain(n);
}

/* For inputs that may be refused, not in the middle of a step. */
int bns_rn_try_step(struct bns_raft_node *n, const struct bns_raft_in *in)
{
    int rv;

    BNS_ASSERT(!n->stepping);
    rv = bns_raft_step(n->raft, bns_now_ns(n->env), in);
    if (rv == BNS_OK)
        bns_rn_drain(n);
    return rv;
}

static void on_timer(void *arg)
{
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_TIMER};

    bns_rn_step(arg, &in);
}

static void on_wal_retry(void *arg)
{
    bns_rn_persist_submit(arg);
}

/* ---- life ----------------------------------------------------------------------------------- */

static void metrics_init(struct bns_raft_node *n)
{
    struct bns_metrics *m = n->env->metrics;

    n->m_term = bns_gauge(m, "raft_term", NULL, "Current term.");
    n->m_role =
        bns_gauge(m, "raft_role", NULL, "0 follower, 1 pre-candidate, 2 candidate, 3 leader.");
    n->m_has_leader = bns_gauge(m, "raft_has_leader", NULL, "1 when a leader is known.");
    n->m_lag = bns_gauge(m, "raft_apply_lag", NULL, "Entries committed but not yet applied.");
    n->m_leader_changes = bns_counter(m, "raft_leader_changes_total", NULL, "Leaders seen.");
    n->m_proposals = bns_counter(m, "raft_proposals_total", NULL, "Proposals accepted here.");
    n->m_dropped = bns_counter(m, "raft_proposals_dropped_total", NULL, "Proposals dropped.");
    n->m_bad_messages = bns_counter(m, "raft_bad_messages_total", NULL, "Peer messages refused.");
    n->m_no_room = bns_counter(m, "raft_messages_no_room_total", NULL,
                               "Peer messages with entries refused: the log has no room.");
    n->m_snap_sent = bns_counter(m, "raft_snapshots_sent_total", NULL, "Snapshots sent whole.");
    n->m_snap_installed =
        bns_counter(m, "raft_snapshots_installed_total", NULL, "Snapshots installed.");
}

static void node_free(struct bns_raft_node *n)
{
    const struct bns_alloc *a = bns_rn_alloc(n);
    struct bns_list *it;

    bns_rn_applies_drop(n);
    bns_rn_props_free(n);
    while ((it = bns_list_pop(&n->batches)) != NULL)
        bns_free(a, BNS_CONTAINER(it, struct bns_rn_readbatch, node));
    bns_rn_wal_free(n);
    bns_raft_close(n->raft);
    bns_free(a, n);
}

int bns_raft_node_open(struct bns_env *env, const struct bns_raft_node_config *cfg,
                       const struct bns_sm_ops *ops, void *sm, struct bns_raft_node **out,
                       struct bns_err *err)
{
    struct bns_raft_node *n = bns_alloc_zero(env->alloc, sizeof *n);
    int rv;

    if (n == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "raft: out of memory");
    n->env = env;
    n->ops = ops;
    n->sm = sm;
    n->cfg = *cfg;
    if (n->cfg.snapshot_entries == 0)
        n->cfg.snapshot_entries = 10000;
    if (n->cfg.snapshot_bytes == 0)
        n->cfg.snapshot_bytes = 64u * 1024 * 1024;
    bns_list_init(&n->persists);
    bns_list_init(&n->held);
    bns_list_init(&n->reads_new);
    bns_list_init(&n->reads_waiting);
    bns_list_init(&n->reads_failed);
    bns_list_init(&n->batches);
    bns_list_init(&n->applies);
    bns_timer_init(&n->timer, on_timer, n);
    bns_timer_init(&n->wal_retry, on_wal_retry, n);
    bns_timer_init(&n->read_timer, read_sweep, n);
    bns_rn_props_init(n);
    n->flush.fn = flush;
    bns_rn_conf_init(n);
    metrics_init(n);
    if (cfg->peers_count == 0 || cfg->peers_count > BNS_RAFT_PEERS_MAX) {
        rv = bns_err_set(err, BNS_E_INVALID, "raft: %zu members: 1 to %d are possible",
                         cfg->peers_count, BNS_RAFT_PEERS_MAX);
        goto fail;
    }
    for (size_t i = 0; i < cfg->peers_count; i++)
        n->peers[i] = (struct bns_rn_peer){.n = n, .addr = cfg->peers[i]};
    if (cfg->listen_host != NULL) {
        size_t len = strlen(cfg->listen_host);
        if (len >= sizeof n->listen_host) {
            rv = bns_err_set(err, BNS_E_INVALID, "raft: listen host is longer than 63 bytes");
            goto fail;
        }
        memcpy(n->listen_host, cfg->listen_host, len + 1);
        n->cfg.listen_host = n->listen_host;
    }
    rv = bns_rn_boot(n, err);
    if (rv != BNS_OK)
        goto fail;
    n->cfg.peers = NULL; /* ours are in n->peers */
    *out = n;
    return BNS_OK;

fail:
    bns_raft_node_close(n, NULL, NULL);
    return rv;
}

int bns_raft_node_start(struct bns_raft_node *n, struct bns_err *err)
{
    int rv = bns_rn_net_start(n, err);

    if (rv != BNS_OK)
        return rv;
    n->started = true;
    bns_raft_status(n->raft, &n->st);
    bns_rn_conf_start(n);
    bns_rn_drain(n);
    return BNS_OK;
}

void bns_raft_node_status(const struct bns_raft_node *n, struct bns_raft_status *out)
{
    bns_raft_status(n->raft, out);
    out->applied = n->applied;
}

static void wal_closed(void *arg)
{
    struct bns_raft_node *n = arg;
    void (*closed)(void *closed_arg) = n->closed;
    void *closed_arg = n->closed_arg;

    node_free(n);
    if (closed != NULL)
        closed(closed_arg);
}

/* Goes on with closing once nothing is in flight any more. */
void bns_rn_try_close(struct bns_raft_node *n)
{
    if (!n->closing || n->stepping || n->applying != NULL || n->checkpointing || n->installing ||
        n->flush_posted || n->applying_inline || n->sm_calls > 0)
        return;
    BNS_LIST_EACH(it, &n->persists)
    {
        if (BNS_CONTAINER(it, struct bns_rn_persist, node)->submitted)
            return;
    }
    n->stepping = true; /* nothing may come back here */
    if (n->wal != NULL)
        bns_wal_close(n->wal, wal_closed, n);
    else
        wal_closed(n);
}

void bns_raft_node_close(struct bns_raft_node *n, void (*done)(void *arg), void *arg)
{
    struct bns_list *lists[3] = {&n->reads_new, &n->reads_waiting, &n->reads_failed};

    BNS_ASSERT(!n->closing);
    n->closing = true;
    n->closed = done;
    n->closed_arg = arg;
    bns_timer_stop(n->env, &n->timer);
    bns_timer_stop(n->env, &n->wal_retry);
    bns_timer_stop(n->env, &n->read_timer);
    bns_timer_stop(n->env, &n->prop_timer);
    bns_rn_conf_close(n);
    for (size_t i = 0; i < 3; i++)
        answer_reads(n, lists[i], BNS_E_SHUTDOWN);
    BNS_LIST_EACH(it, &n->batches)
    {
        answer_reads(n, &BNS_CONTAINER(it, struct bns_rn_readbatch, node)->reads, BNS_E_SHUTDOWN);
    }
    bns_rn_snap_close(n);
    bns_rn_net_close(n);
    bns_rn_conf_free(n);
    bns_rn_try_close(n);
}
