/* verdict.c - the history of a run, judged.
 *
 * Operations whose outcome nobody knows make the search for a linear order long: each may have
 * happened at any later time, or never. Two things shorten it, and neither changes the verdict:
 *
 *   - a put whose value was shown by any answer did happen, at the revision that the answer told
 *     and before the answer came: it is as good as answered;
 *   - of the others it is first assumed that they never happened. If the rest is linearizable, so
 *     is the whole, for "never" is one of the things that an open operation may do. Only if it is
 *     not, the deletes, then all are put back, and the search is made again.
 */
#include <stdio.h>

#include "daemon_int.h"

#define VISITED_MAX 2000000u
#define SPREAD 64u /* positions between two events, for operations that end between them */

static bool writes(const struct bns_lin_op *op)
{
    return op->f == BNS_LIN_PUT || op->f == BNS_LIN_CAS;
}

/* Number of the value that an open operation writes, from its invocation. */
static uint64_t value_of(const struct etcd_sim *m, const struct bns_lin_op *op)
{
    const char *text = bns_history_at(m->history, (size_t)op->call).value;
    const char *at = strstr(text, op->f == BNS_LIN_CAS ? "\"new\":\"v" : "\"v");
    unsigned long long id = 0;

    BNS_ASSERT(at != NULL);
    BNS_ASSERT(sscanf(strchr(at, 'v'), "v%llu", &id) == 1);
    BNS_ASSERT(id < SIM_VALUES_MAX);
    return id;
}

/* Ends the open writes that somebody saw, and makes room between all positions. */
static void settle(struct etcd_sim *m, struct bns_lin_op *ops, size_t count)
{
    uint32_t *used =
        bns_alloc_zero(bns_alloc_libc(), (bns_history_count(m->history) + 1) * sizeof *used);

    BNS_ASSERT(used != NULL);
    for (size_t i = 0; i < count; i++) {
        struct bns_lin_op *op = &ops[i];
        const struct sim_sighting *s = NULL;

        if (op->ret == BNS_LIN_OPEN && writes(op))
            s = &m->sightings[value_of(m, op)];
        if (s != NULL && s->rev != 0 && used[s->before] < SPREAD - 1) {
            op->rev = s->rev;
            op->failed = false;
            op->ret = s->before * SPREAD - 1 - used[s->before]++;
        } else if (op->ret != BNS_LIN_OPEN) {
            op->ret *= SPREAD;
        }
        op->call *= SPREAD;
    }
    bns_free(bns_alloc_libc(), used);
}

/* Moves the open operations (but deletes, with keep_deletes) behind the others; how many others. */
static size_t without_open(struct bns_lin_op *ops, size_t count, bool keep_deletes)
{
    size_t n = 0;

    for (size_t i = 0; i < count; i++) {
        struct bns_lin_op op = ops[i];

        if (op.ret == BNS_LIN_OPEN && (writes(&op) || !keep_deletes))
            continue;
        ops[i] = ops[n];
        ops[n++] = op;
    }
    return n;
}

static void check_linear(struct etcd_sim *m, struct bns_lin_op *ops, size_t count)
{
    struct bns_lin_result res = {0};
    size_t part;
    int rv = bns_lin_revisions(bns_alloc_libc(), ops, count, &res);

    if (rv == BNS_E_CONFLICT)
        sim_complain(m, "revisions do not follow real time: event %llu of the history",
                     (unsigned long long)(ops[res.op].call / SPREAD));
    part = without_open(ops, count, false);
    rv = bns_lin_check(bns_alloc_libc(), &bns_lin_kv, ops, part, VISITED_MAX, &res);
    if (rv != BNS_OK) {
        part = without_open(ops, count, true);
        rv = bns_lin_check(bns_alloc_libc(), &bns_lin_kv, ops, part, VISITED_MAX, &res);
    }
    if (rv != BNS_OK)
        rv = bns_lin_check(bns_alloc_libc(), &bns_lin_kv, ops, count, VISITED_MAX, &res);
    m->out->unchecked = rv == BNS_E_TOOBIG;
    if (rv == BNS_E_CONFLICT)
        sim_complain(m,
                     "not linearizable: the operation called at event %llu of the history fits "
                     "nowhere behind %zu others of its key",
                     (unsigned long long)(ops[res.op].call / SPREAD), res.prefix);
    BNS_ASSERT(rv == BNS_OK || rv == BNS_E_CONFLICT || rv == BNS_E_TOOBIG);
}

void sim_check_history(struct etcd_sim *m)
{
    struct bns_lin_op *ops = NULL;
    struct bns_err err = {0};
    size_t count = 0;
    int rv = bns_history_ops(m->history, &ops, &count, &err);

    BNS_ASSERT(rv == BNS_OK);
    settle(m, ops, count);
    check_linear(m, ops, count);
    bns_free(bns_alloc_libc(), ops);
}
