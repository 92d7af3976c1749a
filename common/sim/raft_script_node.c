/* raft_script_node.c - drivers, disks and the message queue behind the scenario scripts. */
#include <stdarg.h>
#include <stdio.h>

#include "proto/raft_msg.h"
#include "sim/raft_script_int.h"

void rs_print(struct rs_world *w, const char *fmt, ...)
{
    char line[512];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(line, sizeof line, fmt, ap); /* cut when too long */
    va_end(ap);
    if (bns_buf_str(w->out, line) != BNS_OK || bns_buf_byte(w->out, '\n') != BNS_OK)
        w->full = true;
}

const char *rs_type(uint8_t type)
{
    static const char *const names[] = {
        "?",      "prevote",     "prevote-resp",  "vote",           "vote-resp",
        "append", "append-resp", "heartbeat",     "heartbeat-resp", "propose",
        "read",   "read-resp",   "snapshot-resp", "timeout-now"};
    return type < sizeof names / sizeof names[0] ? names[type] : "?";
}

const char *rs_role(enum bns_raft_role role)
{
    static const char *const names[] = {"follower", "pre-candidate", "candidate", "leader"};
    return names[role];
}

static void print_msg(struct rs_world *w, const struct bns_raft_msg *m, const char *end)
{
    char more[128] = "";
    size_t n = 0;

    if (m->index != 0 || m->type == BNS_RAFT_MSG_APPEND || m->type == BNS_RAFT_MSG_VOTE)
        n += (size_t)snprintf(more, sizeof more, " index %llu/%llu", (unsigned long long)m->index,
                              (unsigned long long)m->log_term);
    if (m->entries_count > 0)
        n += (size_t)snprintf(more + n, sizeof more - n, " entries %zu", m->entries_count);
    if (m->commit > 0 && m->type > BNS_RAFT_MSG_VOTE_RESP)
        n += (size_t)snprintf(more + n, sizeof more - n, " commit %llu",
                              (unsigned long long)m->commit);
    if (m->reject)
        n += (size_t)snprintf(more + n, sizeof more - n, " rejected, hint %llu/%llu",
                              (unsigned long long)m->hint_index, (unsigned long long)m->hint_term);
    rs_print(w, "  %llu > %llu %s term %llu%s%s", (unsigned long long)m->from,
             (unsigned long long)m->to, rs_type(m->type), (unsigned long long)m->term, more, end);
}

/* ---- messages ------------------------------------------------------------------------------- */

static void msg_free(struct rs_world *w, struct rs_msg *m)
{
    for (size_t i = 0; i < m->msg.entries_count; i++)
        bns_rcbuf_put(m->entries[i].data);
    bns_free(w->alloc, m->entries);
}

static void enqueue(struct rs_world *w, struct rs_msg m)
{
    if (w->queue_count == RS_QUEUE_MAX) {
        w->full = true;
        msg_free(w, &m);
        return;
    }
    w->sent[m.msg.type]++;
    w->queue[w->queue_count++] = m;
}

static void send(struct rs_world *w, struct rs_node *n, const struct bns_raft_out *o)
{
    struct rs_msg m = {.msg = o->msg, .after_seq = o->after_seq};

    if (o->msg.entries_count > 0) {
        m.entries = bns_alloc_array(w->alloc, o->msg.entries_count, sizeof *m.entries);
        BNS_ASSERT(m.entries != NULL);
        for (size_t i = 0; i < o->msg.entries_count; i++) {
            m.entries[i] = o->msg.entries[i];
            if (m.entries[i].data != NULL)
                bns_rcbuf_get(m.entries[i].data);
        }
        m.msg.entries = m.entries;
    }
    if (o->after_seq <= n->stored)
        enqueue(w, m);
    else if (n->held_count < RS_QUEUE_MAX)
        n->held[n->held_count++] = m;
    else
        w->full = true;
}

void rs_drop(struct rs_world *w)
{
    for (size_t i = 0; i < w->queue_count; i++)
        msg_free(w, &w->queue[i]);
    w->queue_count = 0;
}

/* ---- disk ----------------------------------------------------------------------------------- */

static void log_cut(struct bns_raft_entry *log, uint64_t from, uint64_t last)
{
    for (uint64_t i = from; i <= last; i++) {
        bns_rcbuf_put(log[i].data);
        log[i].data = NULL;
    }
}

static void persist(struct rs_world *w, struct rs_node *n, const struct bns_raft_out *o)
{
    n->seq = o->seq;
    if (o->has_state) {
        n->next_term = o->term;
        n->next_vote = o->vote;
        n->next_commit = o->commit;
    }
    if (o->snap != NULL) {
        log_cut(n->next_log, n->next_base + 1, n->next_last);
        n->next_base = n->next_last = o->snap->index;
        n->next_base_term = o->snap->term;
    }
    if (o->truncate_from != 0) {
        log_cut(n->next_log, o->truncate_from, n->next_last);
        n->next_last = o->truncate_from - 1;
    }
    for (size_t i = 0; i < o->entries_count; i++) {
        BNS_ASSERT(o->entries[i].index == n->next_last + 1);
        if (n->next_last + 1 >= RS_LOG_MAX) {
            w->full = true;
            return;
        }
        n->next_log[++n->next_last] = o->entries[i];
        if (o->entries[i].data != NULL)
            bns_rcbuf_get(o->entries[i].data);
    }
}

/* Everything written becomes durable. */
static void sync_disk(struct rs_node *n)
{
    log_cut(n->log, n->base + 1, n->last);
    n->term = n->next_term;
    n->vote = n->next_vote;
    n->commit = n->next_commit;
    n->base = n->next_base;
    n->base_term = n->next_base_term;
    n->last = n->next_last;
    for (uint64_t i = n->base + 1; i <= n->last; i++) {
        n->log[i] = n->next_log[i];
        if (n->log[i].data != NULL)
            bns_rcbuf_get(n->log[i].data);
    }
    n->stored = n->seq;
}

/* What was not durable is gone. */
static void forget_writes(struct rs_node *n)
{
    log_cut(n->next_log, n->next_base + 1, n->next_last);
    n->next_term = n->term;
    n->next_vote = n->vote;
    n->next_commit = n->commit;
    n->next_base = n->base;
    n->next_base_term = n->base_term;
    n->next_last = n->last;
    for (uint64_t i = n->base + 1; i <= n->last; i++) {
        n->next_log[i] = n->log[i];
        if (n->log[i].data != NULL)
            bns_rcbuf_get(n->log[i].data);
    }
}

/* ---- driver --------------------------------------------------------------------------------- */

static void apply(struct rs_node *n, const struct bns_raft_out *o)
{
    for (size_t i = 0; i < o->entries_count; i++) {
        const struct bns_raft_entry *e = &o->entries[i];
        size_t len = strlen(n->sm.text);
        BNS_ASSERT(e->index == n->sm.index + 1);
        n->sm.index = e->index;
        n->sm.term = e->term;
        if (e->kind == BNS_RAFT_CONF)
            (void)!bns_raft_conf_decode(bns_rcbuf_slice(e->data), &n->sm.conf);
        if (e->data == NULL || e->kind == BNS_RAFT_CONF)
            continue;
        if (len + e->data->len + 2 > sizeof n->sm.text) { /* keeps the newest */
            memmove(n->sm.text, n->sm.text + 128, len - 128 + 1);
            len -= 128;
        }
        if (len > 0)
            n->sm.text[len++] = ' ';
        memcpy(n->sm.text + len, e->data->bytes, e->data->len < 32 ? e->data->len : 32);
        n->sm.text[len + (e->data->len < 32 ? e->data->len : 32)] = '\0';
    }
}

static void stream(struct rs_world *w, struct rs_node *n, const struct bns_raft_out *o)
{
    struct rs_node *peer = &w->nodes[o->peer - 1];
    struct rs_state s = n->durable;
    struct bns_raft_snapmeta meta = {s.index, s.term, s.conf};
    bool ok = peer->raft != NULL && !w->cut[n->id - 1][o->peer - 1] && !w->streams_fail;

    rs_print(w, "  %llu > %llu snapshot at index %llu%s", (unsigned long long)n->id,
             (unsigned long long)o->peer, (unsigned long long)s.index, ok ? "" : " (failed)");
    if (ok) {
        struct bns_raft_out p;
        struct bns_raft_in in = {
            .kind = BNS_RAFT_IN_SNAPSHOT_RECEIVED, .snap = &meta, .peer = n->id, .term = o->term};
        if (bns_raft_step(peer->raft, w->now, &in) == BNS_OK) {
            bool install = false;
            while (bns_raft_next(peer->raft, &p)) {
                install = install || p.kind == BNS_RAFT_OUT_INSTALL;
                if (p.kind == BNS_RAFT_OUT_PERSIST)
                    persist(w, peer, &p);
                else if (p.kind == BNS_RAFT_OUT_SEND)
                    send(w, peer, &p);
            }
            if (install) {
                peer->sm = peer->durable = s;
                (void)rs_step(
                    w, peer, (struct bns_raft_in){.kind = BNS_RAFT_IN_INSTALLED, .index = s.index});
            }
        }
    }
    (void)rs_step(
        w, n,
        (struct bns_raft_in){
            .kind = BNS_RAFT_IN_SNAPSHOT_SENT, .peer = o->peer, .ok = ok, .index = s.index});
}

static void role(struct rs_world *w, struct rs_node *n, const struct bns_raft_out *o)
{
    if (o->role == n->role)
        return;
    n->role = o->role;
    rs_print(w, "  node %llu: %s in term %llu", (unsigned long long)n->id, rs_role(o->role),
             (unsigned long long)o->term);
}

static void drain(struct rs_world *w, struct rs_node *n)
{
    struct bns_raft_out o;
    struct bns_raft_out snap[RS_NODES_MAX];
    size_t snaps = 0;
    bool applied = false;

    while (bns_raft_next(n->raft, &o)) {
        switch (o.kind) {
        case BNS_RAFT_OUT_PERSIST:
            persist(w, n, &o);
            break;
        case BNS_RAFT_OUT_SEND:
            send(w, n, &o);
            break;
        case BNS_RAFT_OUT_APPLY:
            apply(n, &o);
            applied = true;
            break;
        case BNS_RAFT_OUT_READ_OK:
            n->reads_ok++;
            n->read_index = o.index;
            break;
        case BNS_RAFT_OUT_READ_FAIL:
            n->reads_failed++;
            break;
        case BNS_RAFT_OUT_ROLE:
            role(w, n, &o);
            break;
        case BNS_RAFT_OUT_SEND_SNAPSHOT:
            snap[snaps++] = o;
            break;
        case BNS_RAFT_OUT_INSTALL: /* stream() honours it */
            break;
        }
    }
    if (applied)
        (void)rs_step(w, n,
                      (struct bns_raft_in){.kind = BNS_RAFT_IN_APPLIED, .index = n->sm.index});
    for (size_t i = 0; i < snaps; i++)
        stream(w, n, &snap[i]);
    if (n->seq > n->stored && !n->hold)
        rs_release(w, n);
}

int rs_step(struct rs_world *w, struct rs_node *n, struct bns_raft_in in)
{
    int rv = bns_raft_step(n->raft, w->now, &in);
    drain(w, n);
    return rv;
}

/* The disk does all it was asked for, and what waited for it goes out. */
void rs_release(struct rs_world *w, struct rs_node *n)
{
    size_t count = n->held_count;

    if (n->seq == n->stored)
        return;
    sync_disk(n);
    n->held_count = 0;
    for (size_t i = 0; i < count; i++)
        enqueue(w, n->held[i]);
    (void)rs_step(w, n, (struct bns_raft_in){.kind = BNS_RAFT_IN_STORED, .seq = n->stored});
}

/* Delivers the first count messages; what they cause comes behind them. */
void rs_deliver(struct rs_world *w, size_t count)
{
    size_t i = 0;

    for (; i < w->queue_count && i < count; i++) { /* grows while it runs */
        struct rs_msg m = w->queue[i];
        struct rs_node *n = &w->nodes[m.msg.to - 1];
        bool lost = n->raft == NULL || w->cut[m.msg.from - 1][m.msg.to - 1];
        if (w->trace && (m.msg.flags & BNS_RAFT_FLAG_QUIET) == 0)
            print_msg(w, &m.msg, lost ? " (lost)" : "");
        if (!lost) {
            int rv = rs_step(w, n, (struct bns_raft_in){.kind = BNS_RAFT_IN_RECV, .msg = &m.msg});
            if (rv != BNS_OK)
                rs_print(w, "  node %llu: %s", (unsigned long long)n->id, bns_err_name(rv));
        }
        msg_free(w, &m);
    }
    w->queue_count -= i;
    memmove(w->queue, w->queue + i, w->queue_count * sizeof *w->queue);
}

void rs_settle(struct rs_world *w)
{
    rs_deliver(w, SIZE_MAX);
}

void rs_advance(struct rs_world *w, uint64_t ns)
{
    uint64_t end = w->now + ns;

    rs_settle(w);
    for (;;) {
        struct rs_node *due = NULL;
        uint64_t at = end;
        for (size_t i = 0; i < w->count; i++) {
            struct rs_node *n = &w->nodes[i];
            uint64_t d = n->raft == NULL ? UINT64_MAX : bns_raft_deadline(n->raft);
            if (d < at) {
                at = d;
                due = n;
            }
        }
        if (due == NULL || w->full)
            break;
        w->now = at > w->now ? at : w->now;
        (void)rs_step(w, due, (struct bns_raft_in){.kind = BNS_RAFT_IN_TIMER});
        rs_settle(w);
    }
    w->now = end;
}

/* ---- life ----------------------------------------------------------------------------------- */

void rs_crash(struct rs_world *w, struct rs_node *n)
{
    bns_raft_close(n->raft);
    n->raft = NULL;
    for (size_t i = 0; i < n->held_count; i++)
        msg_free(w, &n->held[i]);
    n->held_count = 0;
    forget_writes(n);
    n->hold = false;
}

void rs_boot(struct rs_world *w, struct rs_node *n)
{
    struct bns_raft_boot boot = {.term = n->term,
                                 .vote = n->vote,
                                 .commit = n->commit,
                                 .snap = {n->base, n->base_term, {.voters_count = 0}},
                                 .entries = n->log + n->base + 1,
                                 .entries_count = (size_t)(n->last - n->base),
                                 .applied = n->durable.index};
    struct bns_raft_config cfg = w->cfg;
    int rv;

    cfg.id = n->id;
    cfg.seed = n->id * 100 + n->life++;
    boot.snap.conf = n->durable.conf; /* later ones are in the log */
    n->sm = n->durable;
    n->seq = n->stored = 0;
    n->role = BNS_RAFT_FOLLOWER;
    rv = bns_raft_init(&n->raft, &cfg, &boot, w->alloc, w->now);
    BNS_ASSERT(rv == BNS_OK);
    drain(w, n);
}

void rs_snapshot(struct rs_world *w, struct rs_node *n)
{
    struct bns_raft_status st;

    n->durable = n->sm;
    (void)rs_step(w, n,
                  (struct bns_raft_in){.kind = BNS_RAFT_IN_SNAPSHOT_TAKEN, .index = n->sm.index});
    bns_raft_status(n->raft, &st);
    for (uint64_t to = st.first_index - 1; n->base < to;) {
        n->base++;
        n->base_term = n->log[n->base].term;
        log_cut(n->log, n->base, n->base);
        n->next_base = n->base;
        n->next_base_term = n->base_term;
        log_cut(n->next_log, n->base, n->base);
    }
}

void rs_open(struct rs_world *w, size_t count)
{
    w->count = count;
    w->now = 1000 * RS_MS;
    for (size_t i = 0; i < count; i++) {
        struct rs_node *n = &w->nodes[i];
        n->id = i + 1;
        for (size_t k = 0; k < w->voters && i < w->voters; k++)
            n->durable.conf.voters[n->durable.conf.voters_count++] = k + 1;
        n->log = bns_alloc_zero(w->alloc, RS_LOG_MAX * sizeof *n->log);
        n->next_log = bns_alloc_zero(w->alloc, RS_LOG_MAX * sizeof *n->log);
        n->held = bns_alloc_array(w->alloc, RS_QUEUE_MAX, sizeof *n->held);
        BNS_ASSERT(n->log != NULL && n->next_log != NULL);
        BNS_ASSERT(n->held != NULL);
        rs_boot(w, n);
    }
}

void rs_close(struct rs_world *w)
{
    rs_drop(w);
    for (size_t i = 0; i < w->count; i++) {
        struct rs_node *n = &w->nodes[i];
        rs_crash(w, n);
        log_cut(n->log, n->base + 1, n->last);
        log_cut(n->next_log, n->next_base + 1, n->next_last);
        bns_free(w->alloc, n->log);
        bns_free(w->alloc, n->next_log);
        bns_free(w->alloc, n->held);
    }
    bns_free(w->alloc, w->queue);
}
