/* session.c - see session.h; the algorithm of etcd's lock and election services.
 *
 * Each who wants in puts a key of its own under the prefix, bound to its lease. The key's create
 * revision is its place in the queue: the store gives them out in order, so there is nothing to
 * agree on. First is whose key is the oldest that is left. Who is not waits for the deletion of the
 * newest key that is older than its own, of that one alone, so one deletion wakes one (Chubby and
 * ZooKeeper: no herd); then it looks again, for that key may have been one that gave up waiting.
 *
 * Where is this linearizable, and why is the look local? A key older than ours that is not there
 * when revision R >= ours is applied never comes back: a key put later is younger. So "no older
 * key" stays true once seen, on however late a member. "Our key is there" does not: its lease may
 * have ended since, and the next may have been let in. Hence
 *   - without having waited, both are looked at on the state that our own txn just made, which is
 *     as late as the call: we were first at that revision;
 *   - after having waited, the own key is read once more, linearizably, as the last thing. Jepsen
 *     found etcd's lock without it: a session that expired in the queue was let in when its turn
 *     came. (etcd's Campaign still is so; ours is not.)
 *
 * No answer of a server is mutual exclusion for longer than the lease lasts, and the client cannot
 * know that it does: whoever acts under a lock shows `rev`, the create revision, to what it acts on
 * (docs/concepts/locks.md).
 *
 * A call that ends otherwise than by being first takes its key out of the queue: a deletion that
 * holds for this create revision only. When it is not known whether the key was put (the txn timed
 * out) nothing is deleted: a client that asked again may hold it by now; the lease ends it.
 */
#include "session.h"

#include "base/err.h"

static enum etcd_claim_do to(struct etcd_claim *c, enum etcd_claim_do next)
{
    c->now = next;
    return next;
}

static enum etcd_claim_do end(struct etcd_claim *c, int code, const char *text)
{
    c->code = code;
    c->text = text;
    return to(c, ETCD_CLAIM_DONE);
}

/* The answer will be this; before, the own key goes when there is one. */
static enum etcd_claim_do give_up(struct etcd_claim *c, int code, const char *text)
{
    c->code = code;
    c->text = text;
    return to(c, c->rev != 0 ? ETCD_CLAIM_LEAVE : ETCD_CLAIM_DONE);
}

static enum etcd_claim_do expired(struct etcd_claim *c)
{
    return end(c, 2, c->election ? ETCD_TEXT_NOT_LEADER : ETCD_TEXT_LOCK_EXPIRED);
}

enum etcd_claim_do etcd_claim_start(struct etcd_claim *c, bool election, bool lease,
                                    uint32_t mutant)
{
    *c = (struct etcd_claim){.election = election, .mutant = mutant};
    return to(c, lease ? ETCD_CLAIM_PUT : ETCD_CLAIM_GRANT);
}

enum etcd_claim_do etcd_claim_granted(struct etcd_claim *c)
{
    BNS_ASSERT(c->now == ETCD_CLAIM_GRANT);
    return to(c, c->cancelled ? ETCD_CLAIM_DONE : ETCD_CLAIM_PUT);
}

enum etcd_claim_do etcd_claim_put(struct etcd_claim *c, int64_t revision, int64_t create, bool same)
{
    BNS_ASSERT(c->now == ETCD_CLAIM_PUT);
    BNS_ASSERT(create <= revision);
    c->rev = create != 0 ? create : revision;
    c->header = revision;
    if (c->cancelled)
        return to(c, ETCD_CLAIM_LEAVE);
    return to(c, create != 0 && !same ? ETCD_CLAIM_PROCLAIM : ETCD_CLAIM_LOOK);
}

enum etcd_claim_do etcd_claim_proclaimed(struct etcd_claim *c, bool ours)
{
    BNS_ASSERT(c->now == ETCD_CLAIM_PROCLAIM);
    if (c->cancelled)
        return to(c, ETCD_CLAIM_LEAVE);
    return ours ? to(c, ETCD_CLAIM_LOOK) : expired(c);
}

enum etcd_claim_do etcd_claim_looked(struct etcd_claim *c, bool ours, bool older)
{
    BNS_ASSERT(c->now == ETCD_CLAIM_LOOK);
    if (!ours && !(c->waited && c->mutant == ETCD_MUTANT_LOCK_UNREAD))
        return expired(c);
    if (older)
        return to(c, ETCD_CLAIM_WAIT);
    return to(c, c->waited ? ETCD_CLAIM_CONFIRM : ETCD_CLAIM_DONE);
}

enum etcd_claim_do etcd_claim_woken(struct etcd_claim *c)
{
    BNS_ASSERT(c->now == ETCD_CLAIM_WAIT);
    c->waited = true;
    if (c->election && c->mutant == ETCD_MUTANT_CAMPAIGN_EARLY)
        return to(c, ETCD_CLAIM_CONFIRM);
    return to(c, ETCD_CLAIM_LOOK);
}

enum etcd_claim_do etcd_claim_confirmed(struct etcd_claim *c, int64_t revision, bool ours)
{
    BNS_ASSERT(c->now == ETCD_CLAIM_CONFIRM);
    if (!ours && c->mutant != ETCD_MUTANT_LOCK_UNREAD)
        return expired(c);
    if (!c->election) /* etcd's Campaign answers with the header of its txn */
        c->header = revision;
    return to(c, ETCD_CLAIM_DONE);
}

enum etcd_claim_do etcd_claim_left(struct etcd_claim *c)
{
    BNS_ASSERT(c->now == ETCD_CLAIM_LEAVE);
    return to(c, ETCD_CLAIM_DONE);
}

enum etcd_claim_do etcd_claim_failed(struct etcd_claim *c, int code, const char *text)
{
    BNS_ASSERT(code != 0);
    if (c->now != ETCD_CLAIM_LEAVE)
        return give_up(c, c->cancelled ? c->code : code, c->cancelled ? c->text : text);
    if (++c->leaves < ETCD_LEAVE_TRIES)
        return to(c, ETCD_CLAIM_LEAVE);
    return to(c, ETCD_CLAIM_DONE); /* the lease ends it */
}

enum etcd_claim_do etcd_claim_cancel(struct etcd_claim *c, int code, const char *text)
{
    BNS_ASSERT(code != 0);
    if (c->cancelled || c->now == ETCD_CLAIM_LEAVE || c->now == ETCD_CLAIM_DONE)
        return c->now;
    c->cancelled = true;
    c->code = code;
    c->text = text;
    if (c->now == ETCD_CLAIM_LOOK || c->now == ETCD_CLAIM_WAIT || c->now == ETCD_CLAIM_CONFIRM)
        return to(c, ETCD_CLAIM_LEAVE);
    return c->now;
}

size_t etcd_session_hex(int64_t lease, char out[20])
{
    uint64_t v = lease < 0 ? 0 - (uint64_t)lease : (uint64_t)lease;
    size_t digits = 1, n = 0;

    if (lease < 0)
        out[n++] = '-';
    for (uint64_t rest = v >> 4; rest != 0; rest >>= 4)
        digits++;
    for (size_t i = digits; i > 0; i--)
        out[n++] = "0123456789abcdef"[v >> (4 * (i - 1)) & 15];
    out[n] = '\0';
    return n;
}
