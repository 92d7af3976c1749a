/* raft_cluster_members.c - an operator who changes the members of a cluster of raft_nodes.
 *
 * Spare servers run from the beginning, as nodes that join: they belong to nothing until they are
 * added. While the faults last the operator asks whichever server it meets (the leader or not) for
 * one change after another: add a learner or a voter, promote, remove (the leader too), replace one
 * voter by another in one step (a joint configuration), hand over the leadership. It does not wait
 * for what became of the one before: two under way must not disturb each other.
 *
 * An id that was removed must not come back, because its data may be gone: nobody is asked for
 * twice, unless it is certain that the first time came to nothing.
 *
 * What must hold:
 *   - who was removed never belongs again, and nobody ends as a removed one who belongs;
 *   - who was removed comes to know it, and ends, whatever it slept through;
 *   - a hand-over that is said to have worked has worked;
 *   - in the end no configuration is joint, and all who belong hold the same.
 * That all apply the same configuration at the same index is seen by the digests.
 */
#include "sim/raft_cluster_int.h"

#include <stdio.h>

#define TURN_MIN_NS (100 * BNS_MS)
#define TURN_MAX_NS (1500 * BNS_MS)
#define PORT 2380

static bool has(const uint64_t *ids, size_t n, uint64_t id)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

static bool belongs(const struct bns_raft_conf *c, uint64_t id)
{
    return has(c->voters, c->voters_count, id) || has(c->learners, c->learners_count, id) ||
           has(c->voters_old, c->voters_old_count, id);
}

bool cluster_members_converge(const struct server *s)
{
    return s->c->cfg->spares == 0 || belongs(&s->c->conf, s->id + 1);
}

/* ---- a server -------------------------------------------------------------------------------- */

/* What this server itself has applied says so: it must not know more than that. */
static bool is_removed(void *arg, uint64_t id)
{
    const struct server *s = arg, *who;

    if (id < 1 || id > s->c->hosts)
        return false;
    who = &s->c->servers[id - 1];
    return who->removed && s->c->cfg->subject->applied(s->sm) >= who->removed_index;
}

static void on_removed(void *arg)
{
    struct server *s = arg;

    if (belongs(&s->c->conf, s->id + 1))
        cluster_complain(s->c, "server %u ends as one who was removed, and it belongs", s->id);
    if (!s->removed)
        s->removed_index = s->c->cfg->subject->applied(s->sm);
    s->removed = s->leaves = true;
    if (!s->stopping)
        cluster_stop_server(bns_world_env(s->c->w, s->id), s);
}

static void address(const struct cluster *c, unsigned id, struct bns_raft_peer_addr *out)
{
    *out = (struct bns_raft_peer_addr){.id = id + 1, .port = PORT};
    (void)snprintf(out->host, sizeof out->host, "%s", bns_world_host(c->w, id)); /* fits */
}

void cluster_members_config(struct server *s, struct bns_raft_node_config *cfg,
                            struct bns_raft_peer_addr peers[SERVERS_MAX])
{
    if (s->c->cfg->spares == 0)
        return;
    s->leaves = false;
    memset(&s->conf, 0, sizeof s->conf);
    cfg->is_removed = is_removed;
    cfg->on_removed = on_removed;
    cfg->members_arg = s;
    cfg->joining = s->id >= s->c->cfg->servers;
    if (cfg->joining)
        address(s->c, s->id, &peers[cfg->peers_count++]);
}

int cluster_members_addresses(struct server *s)
{
    struct bns_raft_peer_addr addr;
    int rv = BNS_OK;

    for (unsigned i = s->c->cfg->servers; i < s->c->hosts && rv == BNS_OK; i++) {
        address(s->c, i, &addr);
        if (i != s->id)
            rv = bns_raft_node_peer_set(s->node, &addr);
    }
    return rv;
}

/* ---- what has been applied ------------------------------------------------------------------- */

static void follow(struct cluster *c, const struct bns_raft_conf *now)
{
    const struct bns_raft_conf was = c->conf;

    c->conf = *now;
    c->out->changes++;
    c->out->joints += now->voters_old_count > 0;
    for (unsigned i = 0; i < was.learners_count; i++)
        c->out->promotions += has(now->voters, now->voters_count, was.learners[i]);
    for (unsigned i = 0; i < c->hosts; i++) {
        struct server *s = &c->servers[i];
        bool in = belongs(now, i + 1);

        if (in && s->removed)
            cluster_complain(c, "server %u was removed, and belongs again", i);
        if (s->belonged && !in && !s->removed) {
            s->removed = true;
            s->removed_index = c->conf_index;
        }
        s->belonged |= in;
    }
}

void cluster_members_applied(struct server *s, uint64_t applied)
{
    const struct bns_raft_conf *now = s->c->cfg->subject->conf(s->sm);

    if (now->voters_count == 0 || memcmp(now, &s->conf, sizeof *now) == 0)
        return;
    s->conf = *now;
    if (applied <= s->c->conf_index)
        return; /* others were there before */
    s->c->conf_index = applied;
    if (memcmp(now, &s->c->conf, sizeof *now) != 0)
        follow(s->c, now);
}

void cluster_members_check(struct cluster *c)
{
    if (c->conf.voters_old_count > 0)
        cluster_complain(c, "the configuration is still a joint one");
    for (unsigned i = 0; i < c->hosts; i++) {
        const struct server *s = &c->servers[i];

        if (s->removed && (s->up || !s->leaves))
            cluster_complain(c, "server %u was removed, and has not ended", i);
    }
}

/* ---- changes --------------------------------------------------------------------------------- */

/* It certainly has not come to be, and will not. */
static bool is_definite(int code)
{
    return code == BNS_E_EXISTS || code == BNS_E_NOTFOUND || code == BNS_E_INVALID ||
           code == BNS_E_TOOBIG || code == BNS_E_NOSPACE || code == BNS_E_BUSY ||
           code == BNS_E_NOTLEADER;
}

/* arg: whom the change was to add, or anybody who belongs. */
static void changed(void *arg, int code)
{
    struct server *added = arg;

    if (is_definite(code))
        added->asked_for = false;
}

static struct server *pick_spare(struct cluster *c)
{
    unsigned from = (unsigned)bns_prng_below(&c->members_prng, c->hosts);

    for (unsigned i = 0; i < c->hosts; i++) {
        struct server *s = &c->servers[(from + i) % c->hosts];

        if (!s->belonged && !s->asked_for)
            return s;
    }
    return NULL;
}

static uint64_t pick(struct cluster *c, const uint64_t *ids, size_t n)
{
    return n == 0 ? 0 : ids[bns_prng_below(&c->members_prng, n)];
}

static size_t choose_removal(struct cluster *c, struct bns_raft_change *out)
{
    const struct bns_raft_conf *now = &c->conf;
    bool learner = now->learners_count > 0 && bns_prng_chance(&c->members_prng, 0.2);

    if (!learner && now->voters_count < 2)
        return 0;
    out->kind = BNS_RAFT_REMOVE;
    out->id = learner ? pick(c, now->learners, now->learners_count)
                      : pick(c, now->voters, now->voters_count);
    return 1;
}

/* Into out[0..]; *added: the spare that comes, or NULL. 0: nothing to do. */
static size_t choose(struct cluster *c, struct bns_raft_change out[2], struct server **added)
{
    const struct bns_raft_conf *now = &c->conf;
    uint64_t dice = bns_prng_below(&c->members_prng, 100);

    *added = NULL;
    if (dice < 30 && now->learners_count > 0) {
        out[0] =
            (struct bns_raft_change){BNS_RAFT_PROMOTE, pick(c, now->learners, now->learners_count)};
        return 1;
    }
    if (dice < 45)
        return choose_removal(c, out);
    *added = pick_spare(c);
    if (*added == NULL)
        return 0;
    out[0].kind = dice < 75 ? BNS_RAFT_ADD_LEARNER : BNS_RAFT_ADD_VOTER;
    out[0].id = (*added)->id + 1;
    if (dice < 85)
        return 1;
    out[1] = (struct bns_raft_change){BNS_RAFT_REMOVE, pick(c, now->voters, now->voters_count)};
    return 2;
}

static void ask_change(struct server *s)
{
    struct cluster *c = s->c;
    struct bns_raft_change changes[2];
    struct server *added;
    size_t n = choose(c, changes, &added);
    int rv;

    if (n == 0)
        return;
    if (added != NULL)
        added->asked_for = true;
    rv = bns_raft_node_change(s->node, changes, n, bns_slice(NULL, 0), changed,
                              added != NULL ? added : &c->servers[changes[0].id - 1]);
    if (rv != BNS_OK && added != NULL)
        added->asked_for = false;
    bns_world_note(c->w, "operator: change %d of %llu, %zu in all, at server %u: %d",
                   (int)changes[0].kind, (unsigned long long)changes[0].id, n, s->id, rv);
}

/* ---- hand-over ------------------------------------------------------------------------------- */

static void moved(void *arg, int code)
{
    struct server *s = arg;
    struct bns_raft_status st;

    bns_world_note(s->c->w, "operator: hand-over by server %u: %d", s->id, code);
    if (code != BNS_OK)
        return;
    bns_raft_node_status(s->node, &st);
    if (s->transfer_to != 0 && st.leader != s->transfer_to)
        cluster_complain(s->c, "server %u has handed over to %llu, and knows %llu as the leader",
                         s->id, (unsigned long long)s->transfer_to, (unsigned long long)st.leader);
    s->c->out->moves++;
}

static void ask_transfer(struct server *s)
{
    struct cluster *c = s->c;
    uint64_t to = pick(c, c->conf.voters, c->conf.voters_count);
    struct bns_raft_status st;

    bns_raft_node_status(s->node, &st);
    if (st.role != BNS_RAFT_LEADER || to == s->id + 1 || st.transferee != 0)
        return;
    s->transfer_to = bns_prng_chance(&c->members_prng, 0.2) ? 0 : to;
    if (bns_raft_node_transfer(s->node, s->transfer_to, moved, s) == BNS_OK)
        bns_world_note(c->w, "operator: server %u is to hand over to %llu", s->id,
                       (unsigned long long)s->transfer_to);
}

/* ---- the operator ---------------------------------------------------------------------------- */

static void act(struct bns_env *env, void *arg)
{
    struct server *s = arg;

    (void)env;
    if (s->node == NULL || s->stopping)
        return;
    if (bns_prng_chance(&s->c->members_prng, 0.6))
        ask_transfer(s); /* most of them do not lead */
    else
        ask_change(s);
}

static void operator_turn(struct bns_world *w, void *arg)
{
    struct cluster *c = arg;
    struct server *s = &c->servers[bns_prng_below(&c->members_prng, c->hosts)];

    if (bns_world_now(w) >= c->cfg->run_ns)
        return;
    if (s->up)
        (void)bns_world_call(w, s->id, act, s); /* false: it is paused */
    bns_world_at(w, bns_world_now(w) + bns_prng_range(&c->members_prng, TURN_MIN_NS, TURN_MAX_NS),
                 operator_turn, c);
}

void cluster_members_start(struct cluster *c)
{
    BNS_ASSERT(c->cfg->subject->conf != NULL);
    for (unsigned i = 0; i < c->cfg->servers; i++) {
        c->servers[i].belonged = true;
        c->conf.voters[c->conf.voters_count++] = i + 1;
    }
    bns_world_at(c->w, BNS_SEC, operator_turn, c);
}
