/* raft_node_force.c - a configuration that nobody voted for: the last resort when a quorum is lost.
 *
 * The operator says that the other members will never come back. Then whatever this log holds is
 *   all there is: every entry counts as committed, those too whose commit was not heard of (the
 *   others may have acknowledged them), and behind them comes an entry of kind CONF that the caller
 *   has made. It is in the last known term: a leader of that term that comes back after all would
 *   be another cluster, as the operator was told.
 *
 * The entry goes through the WAL like any other, before all that follows it. A crash before that
 *   leaves what was there, and the next start with the same configuration does it again. What the
 *   state machine may have made durable meanwhile are entries of this log and this entry: a log
 *   that ends before them starts anew there (raft_node_boot.c), with its configuration.
 */
#include "app/raft_node_int.h"

#include "proto/raft_msg.h"

int bns_rn_force(struct bns_raft_node *n, struct bns_raft_boot *boot, struct bns_raft_entry **made,
                 struct bns_err *err)
{
    size_t count = boot->entries_count;
    uint64_t last = boot->snap.index + count;
    struct bns_raft_entry *all =
        bns_alloc_array(bns_rn_alloc(n), count + 1, sizeof(struct bns_raft_entry));
    struct bns_raft_entry e = {.index = last + 1, .term = boot->term, .kind = BNS_RAFT_CONF};

    BNS_ASSERT(n->cfg.force->conf.voters_count > 0);
    if (all == NULL || bns_raft_change_encode(bns_rn_alloc(n), n->cfg.force, &e.data) != BNS_OK) {
        bns_free(bns_rn_alloc(n), all);
        return bns_err_set(err, BNS_E_NOMEM, "raft: out of memory");
    }
    if (count > 0)
        memcpy(all, boot->entries, count * sizeof *all);
    all[count] = e;
    boot->entries = all;
    boot->entries_count = count + 1;
    boot->commit = last + 1;
    *made = all;
    return BNS_OK;
}

int bns_rn_force_persist(struct bns_raft_node *n, const struct bns_raft_boot *boot)
{
    const struct bns_raft_entry *e = &boot->entries[boot->entries_count - 1];
    struct bns_raft_out o = {.kind = BNS_RAFT_OUT_PERSIST,
                             .has_state = true,
                             .term = boot->term,
                             .vote = boot->vote,
                             .commit = boot->commit,
                             .entries = e,
                             .entries_count = 1};

    BNS_LOG(n->env->log, BNS_LOG_WARN, "raft",
            "a configuration is forced on this member's log: all that it holds is committed",
            BNS_U64("index", e->index), BNS_U64("term", e->term),
            BNS_U64("voters", n->cfg.force->conf.voters_count));
    return bns_rn_persist(n, &o);
}
