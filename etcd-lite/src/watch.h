/* watch.h - etcd's Watch on one member's applied state, whatever the transport.
 *
 * A stream carries many watches. The server opens one for each call, hands it the requests, and
 * gives it a way to send; the store tells the hub of each revision. Files in reading order:
 * watch.c (streams, requests), watch_index.c (whom does a key concern), watch_recent.c (the newest
 * rows), watch_sync.c (from "there is something for it" to a batch of events), watch_read.c
 * (batches that the store is asked for), watch_send.c (events to bytes).
 *
 * Guarantees, for each watch: the events of its range from its start revision on, each once, in the
 * order of revisions; all of one revision in one response (or in fragments, when asked for);
 * `created` comes first; a progress response at revision R comes after all events up to R.
 * A watch whose next revision has been compacted away is cancelled, and told so.
 *
 * Thread:   the loop.
 * Memory:   a watch costs about 200 bytes. A stream that is not read costs what it has queued, at
 *           most about 1 MiB and one batch (its share when 64 MiB are queued in all); its watches
 *           keep their next revision and read what they missed from the store when the transport
 *           is writable again.
 * Errors:   a stream that cannot go on (no memory for an answer) is ended through `fail`.
 */
#ifndef ETCD_WATCH_H
#define ETCD_WATCH_H

#include "kv.h"

#define ETCD_WATCHES_MAX 4000000u /* of one member */

/* Planted bugs (BNS_MUTANT). */
#define ETCD_MUTANT_WATCH_GAP 33      /* caught up = up to now, not up to what was read */
#define ETCD_MUTANT_WATCH_PROGRESS 34 /* progress is told to who has events to come */

/* How a stream sends. `arg` is the transport's. */
struct etcd_watch_out {
    /* As bns_grpc_send(): slices are borrowed until release. BNS_E_OFF, BNS_E_NOMEM. */
    int (*send)(void *arg, const struct bns_slice *v, size_t n, bns_release_fn *release,
                void *release_arg);
    int (*send_copy)(void *arg, struct bns_slice msg);
    size_t (*queued)(void *arg); /* bytes */
    /* The stream is over: no event will come any more. The transport closes it, now or later. */
    void (*fail)(void *arg, int status, const char *text);
    /* May this range be watched? NULL = yes; else the reason of the refusal, a constant. Asked with
     * the very range that the watch will have. May itself be NULL: all may. */
    const char *(*permit)(void *arg, struct bns_slice key, struct bns_slice range_end);
    /* Whose stream it is, for inspection. May be NULL: this member's own. */
    void (*peer)(void *arg, struct bns_net_addr *out);
};
/* Returned by permit: not known now. The stream ends, the client comes again. */
extern const char etcd_watch_not_now[];

struct etcd_watch_config {
    uint64_t cluster_id, member_id; /* of response headers */
    const uint64_t *raft_term;      /* likewise, read when sent */
    uint64_t progress_ns;           /* between two progress notices; 0 = 10 minutes */
    size_t fragment_bytes;          /* from here on responses are split; 0 = 2 MiB */
    size_t queue_bytes;             /* on a stream before its watches wait; 0 = 1 MiB */
    uint64_t queue_all_bytes;       /* on all streams before each may have its share; 0 = 64 MiB */
    uint64_t recent_bytes;          /* rows kept in memory; 0 = 4 MiB */
    size_t batch_bytes;             /* read for one watch at a time; 0 = 512 KiB */
};

struct etcd_watch_stats {
    size_t streams, watches;
    size_t slow;     /* watches with events still to be sent */
    size_t pending;  /* events read for them, not sent */
    uint64_t events; /* sent in all */
};

struct etcd_watch_stream;

/* Before the first stream. */
void etcd_watch_setup(struct etcd_kv *kv, const struct etcd_watch_config *cfg);
void etcd_watch_stats(const struct etcd_kv *kv, struct etcd_watch_stats *out);

/* BNS_E_NOMEM. `out` and `arg` are borrowed for the stream's life. */
BNS_MUST_CHECK int etcd_watch_open(struct etcd_kv *kv, const struct etcd_watch_out *out, void *arg,
                                   struct etcd_watch_stream **stream);
/* May be called inside `fail`, not inside another function of the transport. NULL is fine. */
void etcd_watch_close(struct etcd_watch_stream *s);
/* Borrowed for the call. A request with nothing in it is ignored, as etcd does. */
void etcd_watch_request(struct etcd_watch_stream *s, const Etcdserverpb__WatchRequest *r);
void etcd_watch_writable(struct etcd_watch_stream *s); /* little is queued again */

#endif
