/* watch.h - a watch that survives connections, servers and leaders.
 *
 * Promise:   every event of the range from the start revision on, each once, in the order of
 *            revisions, all events of a revision in one callback. When the stream is lost it goes
 *            on at another endpoint with the revision behind the last one told; events that a
 *            server repeats are dropped here.
 * Silence:   a stream that says nothing for 5 s is asked for its progress; unanswered for 15 s, its
 *            connection is given up.
 * The end:   a cancellation by the server ends a watch: compaction (events are lost, status 11,
 *            `compacted` is the oldest revision that can be had), no permission, a bad request; and
 *            status 8: the events of one revision are more than 128 MiB.
 * Thread:    the env's loop. Memory: messages are borrowed for the callback. A watch may be closed
 *            in any of its callbacks; the client must not be freed in them.
 */
#ifndef BNS_CLIENT_ETCD_WATCH_H
#define BNS_CLIENT_ETCD_WATCH_H

#include "client/etcd/etcd.h"

struct bns_etcd_watch;

struct bns_etcd_watch_handler {
    /* The watch stands at a server, for the first time: events behind `revision` will come (from
     * the start revision on, if one was given). May be NULL. */
    void (*on_created)(void *arg, int64_t revision);
    void (*on_events)(void *arg, const Etcdserverpb__WatchResponse *r);
    /* All events up to `revision` have been told. With progress_notify, about every 10 minutes;
     * with trust_progress more often. May be NULL. */
    void (*on_progress)(void *arg, int64_t revision);
    /* Last; the watch is gone. */
    void (*on_end)(void *arg, int status, const char *text, int64_t compacted);
};

struct bns_etcd_watch_options {
    struct bns_slice key, end; /* [key, end), end of 0 bytes: one key; copied */
    int64_t start_revision;    /* 0: from now */
    bool prev_kv, no_put, no_delete, progress_notify;
    /* Answers to our own requests for progress count. Old servers may answer too early (etcd
     * before 3.4.25 and 3.5.8), a resumption would skip events: only for servers known to be
     * right. */
    bool trust_progress;
    const struct bns_etcd_watch_handler *handler; /* borrowed */
    void *arg;
};
BNS_MUST_CHECK int bns_etcd_watch_open(struct bns_etcd *c, const struct bns_etcd_watch_options *o,
                                       struct bns_etcd_watch **out);
/* The revision with which the next event can come. */
int64_t bns_etcd_watch_next(const struct bns_etcd_watch *w);
/* Of the server's last message, in on_end too; without a revision if it had none. */
const Etcdserverpb__ResponseHeader *bns_etcd_watch_header(const struct bns_etcd_watch *w);
/* Asks the server for progress now; its answer comes by on_progress. */
void bns_etcd_watch_ask(struct bns_etcd_watch *w);
/* Off: no events come; what has come already, and a little more, waits here, the rest at the
 * server. Meanwhile its silence means nothing. */
void bns_etcd_watch_read(struct bns_etcd_watch *w, bool on);
void bns_etcd_watch_close(struct bns_etcd_watch *w); /* nothing is called any more; NULL is fine */

#endif
