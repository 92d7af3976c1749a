/* check_watch.h - do watchers see every change once, in order, and whole?
 *
 * The truth is what any watcher was told and what writers were acknowledged: changes, each a key at
 * a revision. A watcher covers the revisions from its first to the last it was told to have all of:
 * its last event, or a later progress notice.
 *     before-created   events came before the watch was confirmed
 *     before-start     an event older than the watch asked for
 *     wrong-key        an event of a key that is not watched, or of a kind that is filtered out
 *     duplicate        a change told twice
 *     out-of-order     an older revision after a newer one
 *     torn-revision    the changes of one revision came in two answers (not fragments of one)
 *     progress-ahead   an event no newer than a progress notice before it
 *     progress-back    a progress notice older than what was told before it
 *     header-behind    an answer whose header is older than its events
 *     after-cancel     an answer after the watch was cancelled
 *     disagree         two watchers, or a watcher and an acknowledged writer, know a change of one
 *                      key at one revision differently
 *     same-revision    two acknowledged writes with one revision
 *     phantom          a change that no writer asked for, or that had failed, or not asked for yet
 *     gap              a change in what a watcher covers, and it was not told
 * With cfg->others_write changes may come from writers that are not in the history; with
 * cfg->expiry deletes may.
 *
 * Bounds: BNS_WATCH_CHANGES_MAX changes told or written, BNS_WATCH_WORK_MAX. Time: changes x log
 * changes + for each watcher the changes it covers.
 */
#ifndef BNS_SIM_CHECK_WATCH_H
#define BNS_SIM_CHECK_WATCH_H

#include "sim/check.h"

#define BNS_WATCH_CHANGES_MAX 4000000u
#define BNS_WATCH_WORK_MAX UINT64_C(4000000000) /* changes x watchers */

struct bns_watch_change {
    uint64_t key;   /* numbers in the order of the keys: ranges compare them */
    uint64_t value; /* 0 when deleted */
    bool deleted;
    bool maybe;   /* written: only if the key was there */
    uint64_t rev; /* told: its revision. Written: not looked at */
};

struct bns_watch_write {
    uint64_t call, ret; /* ret: BNS_CHECK_OPEN unless it ended ok */
    enum bns_check_end end;
    uint64_t rev;                           /* that it was told; 0: none */
    const struct bns_watch_change *changes; /* borrowed */
    size_t changes_count;
};

enum bns_watch_told_kind {
    BNS_WATCH_CREATED,
    BNS_WATCH_EVENTS,
    BNS_WATCH_PROGRESS, /* all up to rev was told */
    BNS_WATCH_CANCELED
};

struct bns_watch_told { /* one answer */
    uint64_t at;        /* position */
    enum bns_watch_told_kind kind;
    uint64_t rev;                          /* of its header; 0: not kept */
    bool fragment;                         /* more of this answer follows */
    const struct bns_watch_change *events; /* borrowed */
    size_t events_count;
};

struct bns_watch_stream { /* one watch; one that was resumed is another */
    uint64_t call;
    uint64_t start;                    /* revision asked for; 0: what comes after it was created */
    uint64_t key_first, key_end;       /* key_first <= key < key_end */
    bool no_put, no_delete;            /* filtered out */
    const struct bns_watch_told *told; /* in the order in which they came; borrowed */
    size_t told_count;
};

BNS_MUST_CHECK int bns_check_watch(const struct bns_check_cfg *cfg,
                                   const struct bns_watch_write *writes, size_t writes_count,
                                   const struct bns_watch_stream *streams, size_t streams_count,
                                   struct bns_verdict *v);

#endif
