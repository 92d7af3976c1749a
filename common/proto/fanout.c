/* fanout.c - one question to many, as a pure state machine.
 *
 * A branch goes UNASKED -> OPEN -> GOOD | BAD | LATE | DROPPED. Branches are asked in order, with
 * one and the same time limit, so the open ones are late in that order too: `first_open` walks
 * forward only, and a whole life costs O(branches). LATE and DROPPED are told to the driver by a
 * CANCEL each, which `told` remembers.
 */
#include "proto/fanout.h"

struct branch {
    uint64_t late_at;
    uint8_t state; /* enum bns_fanout_branch */
    bool told;     /* CANCEL is out */
};

struct bns_fanout {
    const struct bns_alloc *alloc;
    struct bns_fanout_config cfg;
    uint64_t now, end;
    uint32_t asked, open, good;
    uint32_t first_open; /* no branch before it is open */
    uint32_t cancels;    /* LATE or DROPPED that were not told yet */
    uint32_t cancel_at;  /* none of them is before this one */
    bool over, done;     /* no more questions; DONE is out */
    struct branch v[];
};

static uint64_t add_time(uint64_t t, uint64_t more)
{
    return more == 0 || t > UINT64_MAX - more ? UINT64_MAX : t + more;
}

/* Is there anything left to wait for? */
static bool finished(const struct bns_fanout *f)
{
    uint32_t possible = f->good + f->open + (f->cfg.branches - f->asked);

    if (f->now >= f->end || (f->open == 0 && f->asked == f->cfg.branches))
        return true;
    return f->cfg.need != 0 && (f->good >= f->cfg.need || possible < f->cfg.need);
}

static void close_branch(struct bns_fanout *f, uint32_t i, enum bns_fanout_branch how)
{
    BNS_ASSERT(f->v[i].state == BNS_FANOUT_OPEN && f->open > 0);
    f->v[i].state = (uint8_t)how;
    f->open--;
    if (how == BNS_FANOUT_GOOD)
        f->good++;
    if (how == BNS_FANOUT_LATE || how == BNS_FANOUT_DROPPED) {
        f->cancels++;
        if (i < f->cancel_at)
            f->cancel_at = i;
    }
}

/* What the time that has passed means. */
static void look(struct bns_fanout *f)
{
    while (f->first_open < f->asked && (f->v[f->first_open].state != BNS_FANOUT_OPEN ||
                                        f->v[f->first_open].late_at <= f->now)) {
        if (f->v[f->first_open].state == BNS_FANOUT_OPEN)
            close_branch(f, f->first_open, BNS_FANOUT_LATE);
        f->first_open++;
    }
    if (f->over || !finished(f))
        return;
    f->over = true;
    for (uint32_t i = f->first_open; i < f->asked; i++)
        if (f->v[i].state == BNS_FANOUT_OPEN)
            close_branch(f, i, BNS_FANOUT_DROPPED);
}

int bns_fanout_init(struct bns_fanout **out, uint64_t now_ns, const struct bns_fanout_config *cfg,
                    const struct bns_alloc *alloc)
{
    struct bns_fanout *f;

    if (cfg->branches > BNS_FANOUT_BRANCHES_MAX || cfg->need > cfg->branches)
        return BNS_E_INVALID;
    f = bns_alloc_zero(alloc, sizeof *f + cfg->branches * sizeof f->v[0]);
    if (f == NULL)
        return BNS_E_NOMEM;
    f->alloc = alloc;
    f->cfg = *cfg;
    if (f->cfg.width == 0)
        f->cfg.width = cfg->branches;
    f->now = now_ns;
    f->end = add_time(now_ns, cfg->total_ns);
    f->cancel_at = cfg->branches;
    look(f);
    *out = f;
    return BNS_OK;
}

void bns_fanout_free(struct bns_fanout *f)
{
    if (f != NULL)
        bns_free(f->alloc, f);
}

int bns_fanout_step(struct bns_fanout *f, uint64_t now_ns, const struct bns_fanout_in *in)
{
    BNS_ASSERT(now_ns >= f->now);
    if (in->kind != BNS_FANOUT_IN_TIMER && in->branch >= f->cfg.branches)
        return BNS_E_INVALID;
    f->now = now_ns;
    /* An answer counts when it arrives in time, also if the timer comes after it. */
    if (in->kind != BNS_FANOUT_IN_TIMER && f->v[in->branch].state == BNS_FANOUT_OPEN &&
        f->v[in->branch].late_at > now_ns && now_ns < f->end)
        close_branch(f, in->branch,
                     in->kind == BNS_FANOUT_IN_GOOD ? BNS_FANOUT_GOOD : BNS_FANOUT_BAD);
    look(f);
    return BNS_OK;
}

static bool next_cancel(struct bns_fanout *f, struct bns_fanout_out *out)
{
    uint32_t i = f->cancel_at;

    if (f->cancels == 0)
        return false;
    while (f->v[i].told || f->v[i].state < BNS_FANOUT_LATE)
        i++;
    BNS_ASSERT(i < f->asked);
    f->v[i].told = true;
    f->cancels--;
    f->cancel_at = i + 1;
    *out = (struct bns_fanout_out){.kind = BNS_FANOUT_CANCEL, .branch = i};
    return true;
}

bool bns_fanout_next(struct bns_fanout *f, struct bns_fanout_out *out)
{
    uint32_t i = f->asked;

    if (next_cancel(f, out))
        return true;
    if (!f->over && f->open < f->cfg.width && i < f->cfg.branches) {
        f->v[i].state = BNS_FANOUT_OPEN;
        f->v[i].late_at = add_time(f->now, f->cfg.branch_ns);
        f->asked++;
        f->open++;
        *out = (struct bns_fanout_out){.kind = BNS_FANOUT_SEND, .branch = i};
        return true;
    }
    if (!f->over || f->done)
        return false;
    f->done = true;
    *out = (struct bns_fanout_out){
        .kind = BNS_FANOUT_DONE,
        .good = f->good,
        .enough = f->good >= (f->cfg.need == 0 ? f->cfg.branches : f->cfg.need),
    };
    return true;
}

uint64_t bns_fanout_deadline(const struct bns_fanout *f)
{
    uint64_t at = f->end;

    if (f->over)
        return UINT64_MAX;
    for (uint32_t i = f->first_open; i < f->asked; i++) {
        if (f->v[i].state != BNS_FANOUT_OPEN)
            continue;
        return f->v[i].late_at < at ? f->v[i].late_at : at; /* the first is the earliest */
    }
    return at;
}

enum bns_fanout_branch bns_fanout_branch(const struct bns_fanout *f, uint32_t branch)
{
    BNS_ASSERT(branch < f->cfg.branches);
    return (enum bns_fanout_branch)f->v[branch].state;
}
