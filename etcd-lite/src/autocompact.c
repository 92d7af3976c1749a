/* autocompact.c - see autocompact.h.
 *
 * The ring of notes holds period / retry + 1 revisions: when it is full its oldest note is the
 * revision one period ago. A member that was paused (no leader) for long compacts to an older
 * revision than it could: it never compacts what is younger than the period.
 */
#include "autocompact.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/time.h"

#define HOUR_NS (3600 * BNS_SEC)
#define REVISION_NS (300 * BNS_SEC)

int etcd_autocompact_parse(const char *mode, const char *retention,
                           struct etcd_autocompact_cfg *out, struct bns_err *err)
{
    char *end = NULL;
    long long n;

    *out = (struct etcd_autocompact_cfg){.by_revision = strcmp(mode, "revision") == 0};
    if (!out->by_revision && mode[0] != 0 && strcmp(mode, "periodic") != 0)
        return bns_err_set(err, BNS_E_INVALID,
                           "unknown auto-compaction-mode \"%s\": periodic or revision", mode);
    errno = 0;
    n = strtoll(retention, &end, 10);
    if (end != retention && *end == 0 && errno == 0 && n >= 0) {
        if (out->by_revision)
            out->keep = n;
        else if ((uint64_t)n > UINT64_MAX / 2 / HOUR_NS)
            out->period_ns = UINT64_MAX / 2;
        else
            out->period_ns = (uint64_t)n * HOUR_NS;
    } else if (out->by_revision || bns_duration_parse(retention, &out->period_ns, NULL) != BNS_OK) {
        return bns_err_set(err, BNS_E_INVALID,
                           "error parsing --auto-compaction-retention \"%s\": a number%s",
                           retention, out->by_revision ? "" : " of hours, or a duration like 30m");
    }
    if (out->period_ns / (HOUR_NS / 10) >= ETCD_AUTOCOMPACT_NOTES_MAX)
        return bns_err_set(err, BNS_E_INVALID,
                           "--auto-compaction-retention \"%s\" is longer than 10000 hours",
                           retention);
    if (out->period_ns > 0 && out->period_ns < 10 * BNS_MS)
        return bns_err_set(err, BNS_E_INVALID,
                           "--auto-compaction-retention \"%s\" is shorter than 10ms", retention);
    return BNS_OK;
}

int etcd_autocompact_init(struct etcd_autocompact *a, const struct bns_alloc *alloc,
                          const struct etcd_autocompact_cfg *cfg, uint64_t now_ns)
{
    *a = (struct etcd_autocompact){.alloc = alloc, .cfg = *cfg, .next_ns = BNS_NEVER};
    if (cfg->by_revision) {
        if (cfg->keep > 0)
            a->next_ns = now_ns + REVISION_NS;
        return BNS_OK;
    }
    if (cfg->period_ns == 0)
        return BNS_OK;
    a->retry_ns = (cfg->period_ns < HOUR_NS ? cfg->period_ns : HOUR_NS) / 10;
    a->notes_cap = (size_t)(cfg->period_ns / a->retry_ns) + 1;
    a->notes = bns_alloc_array(alloc, a->notes_cap, sizeof *a->notes);
    if (a->notes == NULL)
        return BNS_E_NOMEM;
    a->last_ns = now_ns;
    a->wait_ns = cfg->period_ns;
    a->next_ns = now_ns;
    return BNS_OK;
}

void etcd_autocompact_free(struct etcd_autocompact *a)
{
    if (a->alloc != NULL)
        bns_free(a->alloc, a->notes);
    a->notes = NULL;
    a->next_ns = BNS_NEVER;
}

static void take_note(struct etcd_autocompact *a, int64_t revision)
{
    if (a->notes_count == a->notes_cap) {
        a->notes_first = (a->notes_first + 1) % a->notes_cap;
        a->notes_count--;
    }
    a->notes[(a->notes_first + a->notes_count) % a->notes_cap] = revision;
    a->notes_count++;
}

static int64_t by_time(struct etcd_autocompact *a, uint64_t now_ns, int64_t revision, bool leader)
{
    int64_t rev = 0;

    if (a->notes_count > 0 && leader && now_ns - a->last_ns >= a->wait_ns) {
        a->wait_ns = a->cfg.period_ns < HOUR_NS ? a->cfg.period_ns : HOUR_NS;
        rev = a->notes[a->notes_first];
    }
    take_note(a, revision);
    a->next_ns = now_ns + a->retry_ns;
    return rev;
}

int64_t etcd_autocompact_step(struct etcd_autocompact *a, uint64_t now_ns, int64_t revision,
                              bool leader)
{
    int64_t rev;

    if (a->next_ns > now_ns)
        return 0;
    if (!a->cfg.by_revision)
        return by_time(a, now_ns, revision, leader);
    a->next_ns = now_ns + REVISION_NS;
    rev = revision - a->cfg.keep;
    return leader && rev > 0 && rev != a->last_rev ? rev : 0;
}

void etcd_autocompact_done(struct etcd_autocompact *a, uint64_t now_ns, int64_t rev)
{
    a->last_ns = now_ns;
    a->last_rev = rev;
}
