/* membership_look.c - what must hold of who belongs, at every member, after every event.
 *
 *   - who is in the list that clients are told votes, and nobody else does; who is a learner there
 *     is one in Raft's configuration; no two have one URL;
 *   - the configuration of a leader changes by one member at a time: two changes under way would
 *     show as one step of two;
 *   - who has applied its own removal leads in no later term. (Who has the entry, and does not know
 *     that it is committed, may: what is in force there is the configuration before.)
 *
 * While a configuration is applied and memory is short, list and configuration may differ until the
 * entry is applied whole: seeds with failing allocations do not compare them.
 */
#include "daemon_int.h"

#include "base/varint.h"
#include "kv_bucket.h"
#include "kv_impl.h"

static bool has(const uint64_t *ids, size_t n, uint64_t id)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

static void look_at_removed(struct etcd_sim *m, struct sim_server *v)
{
    const struct etcd_bucket_row *row = NULL;

    while ((row = etcd_bucket_next(v->s->kv, ETCD_BUCKET_REMOVED, row)) != NULL) {
        uint64_t id = bns_get_u64be(etcd_bucket_key(row).ptr);
        struct sim_id *is = sim_id_find(m, id);

        if (is == NULL) { /* added and removed before anybody saw it */
            sim_id_add(m, id, m->hosts);
            is = sim_id_find(m, id);
        }
        if (!is->removed)
            bns_world_note(m->w, "member %llx is removed", (unsigned long long)id);
        if (id == v->s->member_id && is->knows_term == 0)
            is->knows_term = v->s->term;
        is->removed = true;
    }
}

static void compare(struct etcd_sim *m, struct sim_server *v, const struct etcd_roster *r)
{
    const struct bns_raft_conf *c = &v->s->kv->now.conf;

    if (c->voters_old_count > 0 || (size_t)c->voters_count + c->learners_count != r->count)
        sim_complain(m, "n%u at index %llu: %zu members are listed, %u vote, %u learn", v->id,
                     (unsigned long long)etcd_kv_applied(v->s->kv), r->count, c->voters_count,
                     c->learners_count);
    for (size_t i = 0; i < r->count; i++) {
        const struct etcd_roster_member *a = &r->member[i];

        if (!has(a->learner ? c->learners : c->voters,
                 a->learner ? c->learners_count : c->voters_count, a->id))
            sim_complain(m, "n%u: member %llx is %s in the list, and not in the configuration",
                         v->id, (unsigned long long)a->id, a->learner ? "a learner" : "a voter");
        for (size_t k = 0; k < i; k++) {
            if (strcmp(a->peer_urls.url[0], r->member[k].peer_urls.url[0]) == 0)
                sim_complain(m, "n%u: two members are at %s", v->id, a->peer_urls.url[0]);
        }
    }
}

/* List and configuration agree after the change from `was` to what holds now. */
static void judged(struct etcd_sim *m, const struct bns_raft_conf *was,
                   const struct bns_raft_conf *now)
{
    if (was->voters_count == 0)
        return; /* a process began */
    m->out->judged[ETCD_SIM_CONFS]++;
    for (unsigned i = 0; i < was->learners_count; i++)
        m->out->judged[ETCD_SIM_PROMOTIONS] +=
            has(now->voters, now->voters_count, was->learners[i]);
}

void sim_members_applied(struct etcd_sim *m, struct sim_server *v)
{
    const struct bns_raft_conf *now = &v->s->kv->now.conf, was = v->applied_conf;
    struct etcd_roster *r;

    if (memcmp(now, &was, sizeof *now) == 0)
        return;
    v->applied_conf = *now;
    look_at_removed(m, v);
    if (!etcd_kv_members_known(v->s->kv) || m->cfg->world.nemesis.oom > 0)
        return;
    r = bns_alloc(bns_alloc_libc(), sizeof *r);
    BNS_ASSERT(r != NULL);
    etcd_roster_read(v->s, r);
    compare(m, v, r);
    judged(m, &was, now);
    bns_free(bns_alloc_libc(), r);
}

void sim_members_leads(struct etcd_sim *m, struct sim_server *v)
{
    const struct sim_id *is = sim_id_find(m, v->s->member_id);

    memset(&v->leads_conf, 0, sizeof v->leads_conf);
    if (is != NULL && is->knows_term != 0 && v->term > is->knows_term)
        sim_complain(m, "n%u leads in term %llu, and knew in term %llu that it was removed", v->id,
                     (unsigned long long)v->term, (unsigned long long)is->knows_term);
}

/* Members of one that are not of the other. */
static unsigned difference(const struct bns_raft_conf *a, const struct bns_raft_conf *b)
{
    unsigned n = 0;

    for (unsigned i = 0; i < a->voters_count; i++)
        n += !has(b->voters, b->voters_count, a->voters[i]);
    for (unsigned i = 0; i < b->voters_count; i++)
        n += !has(a->voters, a->voters_count, b->voters[i]);
    return n;
}

void sim_members_event(struct etcd_sim *m, struct sim_server *v)
{
    const struct bns_raft_conf *now;
    struct bns_raft_status st;

    if (v->s->leader != v->s->member_id || v->s->node == NULL)
        return;
    now = bns_raft_node_conf(v->s->node);
    if (memcmp(now, &v->leads_conf, sizeof *now) == 0)
        return;
    bns_raft_node_status(v->s->node, &st);
    if (!st.ready) /* it learns of more than one change that others have made */
        return;
    if (v->leads_conf.voters_count > 0 && difference(now, &v->leads_conf) > 1)
        sim_complain(m, "n%u, which leads, changed %u members in one step", v->id,
                     difference(now, &v->leads_conf));
    v->leads_conf = *now;
}
