/* verdict.c - the history of a run, judged.
 *
 * Every answer tells the revision where it stands, and watches tell what each revision changed. So
 * the order of all that was answered is known, and nothing has to be searched: lin_revision.c looks
 * at every operation once, however many outcomes are unknown. What was seen by anybody (`seen`)
 * goes in as facts: a change that a watch told must have been written by somebody, in time, and no
 * later answer may deny it.
 *
 * Should an answer ever tell too little, its key is searched.
 */
#include <stdio.h>

#include "daemon_int.h"

#define VISITED_MAX 2000000u

/* The run's own number of a value: "v12" in the history is 12. */
static uint64_t value_of(const struct etcd_sim *m, uint64_t id)
{
    const char *text = bns_history_text(m->history, id);
    unsigned long long v = 0;

    if (id == 0)
        return BNS_LIN_NIL;
    BNS_ASSERT(text != NULL);
    BNS_ASSERT(sscanf(text, "\"v%llu\"", &v) == 1);
    return v;
}

/* From the history's numbers of keys and values to those of the run. */
static void rename_all(const struct etcd_sim *m, struct bns_lin_op *ops, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct bns_lin_op *op = &ops[i];
        const char *key = bns_history_at(m->history, (size_t)op->call).key;

        BNS_ASSERT(key != NULL && key[0] == 'k');
        op->key = (uint64_t)(key[1] - '0');
        op->value = value_of(m, op->value);
        op->was_value = value_of(m, op->was_value);
        if (!op->by_rev)
            op->expect = value_of(m, op->expect);
    }
}

static struct bns_lin_fact *facts_of(const struct etcd_sim *m, size_t *count)
{
    size_t max = (size_t)(m->rev_known + 1) * m->cfg->keys;
    struct bns_lin_fact *facts = bns_alloc_array(bns_alloc_libc(), max, sizeof *facts);

    BNS_ASSERT(facts != NULL);
    for (int64_t rev = 1; rev <= m->rev_known; rev++) {
        for (unsigned key = 0; key < m->cfg->keys; key++) {
            uint64_t seen = m->seen[rev][key];

            if (seen != 0)
                facts[(*count)++] =
                    (struct bns_lin_fact){.key = key,
                                          .rev = (uint64_t)rev,
                                          .value = seen == SIM_GONE ? BNS_LIN_NIL : seen,
                                          .before = m->seen_at[rev][key]};
        }
    }
    return facts;
}

static void complain(struct etcd_sim *m, const struct bns_lin_op *ops,
                     const struct bns_lin_result *res)
{
    unsigned long long event = res->op == BNS_LIN_NO_OP ? 0 : (unsigned long long)ops[res->op].call;

    if (res->op == BNS_LIN_NO_OP)
        sim_complain(m, "not linearizable: key k%llu at revision %llu: %s",
                     (unsigned long long)res->key, (unsigned long long)res->rev, res->why);
    else if (res->why != NULL)
        sim_complain(m,
                     "not linearizable: key k%llu at revision %llu, operation called at event %llu "
                     "of the history: %s",
                     (unsigned long long)res->key, (unsigned long long)res->rev, event, res->why);
    else
        sim_complain(m,
                     "not linearizable: the operation called at event %llu of the history fits "
                     "nowhere behind %zu others of its key",
                     event, res->prefix);
}

void sim_check_history(struct etcd_sim *m)
{
    struct bns_lin_op *ops = NULL;
    struct bns_lin_fact *facts;
    struct bns_lin_result res = {0};
    struct bns_err err = {0};
    size_t count = 0, facts_count = 0, left = 0;
    int rv = bns_history_ops(m->history, &ops, &count, &err);

    BNS_ASSERT(rv == BNS_OK);
    rename_all(m, ops, count);
    facts = facts_of(m, &facts_count);
    rv = bns_lin_revisions(bns_alloc_libc(), ops, count, &res); /* no two changes have one */
    if (rv == BNS_OK)
        rv = bns_lin_by_revision(bns_alloc_libc(), ops, count,
                                 &(struct bns_lin_facts){facts, facts_count}, &left, &res);
    if (rv == BNS_OK && left > 0)
        rv = bns_lin_check(bns_alloc_libc(), &bns_lin_kv, ops, left, VISITED_MAX, &res);
    m->out->unchecked = rv == BNS_E_TOOBIG;
    m->out->searched = rv == BNS_OK ? left : 0;
    if (rv == BNS_E_CONFLICT)
        complain(m, ops, &res);
    BNS_ASSERT(rv == BNS_OK || rv == BNS_E_CONFLICT || rv == BNS_E_TOOBIG);
    bns_free(bns_alloc_libc(), facts);
    bns_free(bns_alloc_libc(), ops);
}
