/* watch_impl.h - what the files of Watch share. Everything here is the loop's. */
#ifndef ETCD_WATCH_IMPL_H
#define ETCD_WATCH_IMPL_H

#include "base/varint.h"
#include "kv_impl.h"
#include "watch.h"

#define ETCD_WATCH_HEAD_MAX 64    /* an encoded response header, as a field */
#define ETCD_WATCH_COPY_MAX 1024u /* shorter responses are copied, longer ones are slices */

/* ---- whom does a key concern (watch_index.c) ------------------------------------------------ */
/* A key or a range, with all watches on exactly it. */
struct etcd_watch_target {
    struct bns_hnode node;                        /* a key: index->keys */
    struct etcd_watch_target *left, *right, *top; /* a range: a treap; top = the furthest end */
    uint64_t prio;
    struct bns_list watches; /* that have been sent all */
    struct bns_list waiting; /* that are behind */
    int64_t newest[2];       /* revision of the newest put, of the newest delete */
    struct bns_slice key, end;
    bool range, open; /* open: no end */
};

struct etcd_watch_index {
    const struct bns_alloc *alloc;
    struct bns_hmap keys;
    struct etcd_watch_target *ranges;
    struct bns_prng prng;
    uint64_t seed;
};

void etcd_watch_index_init(struct etcd_watch_index *ix, const struct bns_alloc *a, uint64_t seed);
void etcd_watch_index_free(struct etcd_watch_index *ix); /* no target is left */
/* The target of this key or range, made when there is none; NULL: no memory. end as in requests:
 * empty = the key alone, "\0" = no end. */
struct etcd_watch_target *etcd_watch_target(struct etcd_watch_index *ix, struct bns_slice key,
                                            struct bns_slice end);
void etcd_watch_target_drop(struct etcd_watch_index *ix, struct etcd_watch_target *t);
bool etcd_watch_target_has(const struct etcd_watch_target *t, struct bns_slice key);
void etcd_watch_index_find(const struct etcd_watch_index *ix, struct bns_slice key,
                           void (*fn)(void *arg, struct etcd_watch_target *t), void *arg);

/* ---- the newest rows (watch_recent.c) ------------------------------------------------------- */
#define ETCD_RECENT_ROWS 8192u

/* All rows of the revisions from `first` on, as long as someone watches. */
struct etcd_recent {
    struct etcd_row *rows; /* a ring; NULL until the first watch */
    size_t head, count;
    uint64_t bytes, bytes_max;
    int64_t first;
};

BNS_MUST_CHECK int etcd_recent_begin(struct etcd_recent *r, const struct bns_alloc *a,
                                     int64_t first); /* forgets what it has. BNS_E_NOMEM */
void etcd_recent_free(struct etcd_recent *r, const struct bns_alloc *a);
void etcd_recent_add(struct etcd_recent *r, const struct etcd_row *row); /* takes a reference */
size_t etcd_recent_seek(const struct etcd_recent *r, int64_t main, uint32_t sub); /* first >= */
const struct etcd_row *etcd_recent_at(const struct etcd_recent *r, size_t i);     /* i < count */
struct bns_rcbuf *etcd_recent_find(const struct etcd_recent *r, int64_t main, uint32_t sub);

/* ---- watches and streams (watch.c) ---------------------------------------------------------- */
/* Every matching event below `next` has been sent. Behind <=> newest >= next, or the target's
 * newest event that w wants is: so an event on a target whose watches are all behind costs nothing
 * for each of them. */
struct etcd_watch {
    struct bns_hnode by_id;    /* stream->watches */
    struct bns_list all;       /* stream->all */
    struct bns_list of_target; /* target->watches or ->waiting */
    struct bns_list work;      /* hub->queue, ->stalled, ->held, stream->blocked, batch->watches */
    struct bns_list due;       /* hub->due */
    struct etcd_watch_stream *stream;
    struct etcd_watch_target *target; /* NULL: it was told that it is compacted */
    int64_t id;
    int64_t next;   /* the first revision that may hold an event not sent */
    int64_t newest; /* up to here, history may hold one */
    uint64_t due_ns;
    bool behind;
    bool future; /* the store has not reached its start revision */
    bool told;   /* events were sent since the last progress notice was due */
    bool prev_kv, progress, fragment, no_put, no_delete;
};

struct etcd_watch_stream {
    struct etcd_watch_hub *hub;
    struct bns_list node;       /* hub->streams */
    struct bns_hnode by_number; /* hub->numbered */
    uint64_t number;            /* from 1 on, in the order of opening */
    struct bns_list asked;      /* hub->asked: a progress request is not answered yet */
    struct bns_list failing;    /* hub->failing */
    struct bns_list all;        /* its watches */
    struct bns_list blocked;    /* watches that wait for the transport */
    struct bns_hmap watches;
    const struct etcd_watch_out *out;
    void *arg;
    int64_t id_next;
    size_t behind, futures; /* watches */
    size_t queued;          /* bytes, as seen last */
    int fail_status;
    const char *fail_text;
    bool failed;
};

/* ---- batches (watch_sync.c, watch_read.c) --------------------------------------------------- */
struct etcd_watch_event {
    int64_t main, prev_main; /* prev_main 0: none */
    uint32_t sub, prev_sub;
    struct bns_rcbuf *kv, *prev; /* references; NULL: not here yet */
    bool dead;
};

/* Events of one target in [from, upto], for all watches that need these. */
struct etcd_watch_batch {
    struct etcd_watch_hub *hub;
    struct bns_list node;             /* hub->flying */
    struct bns_list watches;          /* that wait for it */
    struct etcd_watch_target *target; /* NULL: nobody watches it any more */
    int64_t from, upto;               /* upto 0: not known yet (scanning) */
    int64_t submitted;                /* the revision when the scan was asked for */
    bool prev;                        /* with previous values */
    bool full;                        /* limits reached */
    bool no_memory, damaged;
    bool landed; /* complete; some of its watches have to wait for another turn */
    struct etcd_watch_event *events;
    size_t count, cap;
    size_t bytes;
    size_t missing;        /* buffers not here yet */
    struct etcd_row *rows; /* of the job */
    struct etcd_store_job job;
    size_t body_len[2]; /* all events, encoded once: without and with previous values; 0: not yet */
    uint8_t body[2][ETCD_WATCH_COPY_MAX + BNS_VARINT_MAX];
};

#define ETCD_WATCH_FLYING_MAX 4u
/* Watches served, quarter KiB sent, and rows looked at, before other things get a turn. */
#define ETCD_WATCH_TURN_WORK 20000u
#define ETCD_WATCH_TURN_DROPS 4096u /* watches of streams that are closed */

struct etcd_watch_hub {
    struct etcd_kv *kv;
    struct etcd_watch_config cfg;
    struct etcd_watch_index index;
    struct etcd_recent recent;
    int64_t revision; /* the newest one told */
    struct bns_list streams, asked, failing;
    struct bns_hmap numbered; /* the streams */
    uint64_t number_last;
    struct bns_list queue;   /* watches to be served */
    struct bns_list stalled; /* watches that wait for a batch to land, or for memory */
    struct bns_list held;    /* watches whose next revision is not complete (apply_turns.c) */
    struct bns_list closed;  /* streams whose watches go, some a turn */
    struct bns_list flying;  /* batches that the store is asked for */
    size_t flying_count;
    struct etcd_watch_batch *last; /* the newest one at hand, while the pump runs */
    struct bns_list due;           /* watches with progress notices, by time */
    struct bns_task pump;          /* no timer: those are a millisecond late */
    bool posted;
    struct bns_timer retry, progress, tight;
    size_t work; /* done in this turn */
    bool pumping;
    size_t watches, behind, streams_count;
    uint64_t queued; /* bytes on all streams, as seen last */
    uint64_t events;
    struct bns_counter *m_events;
    uint8_t head[ETCD_WATCH_HEAD_MAX]; /* an encoded header, for head_revision and head_term */
    size_t head_len;
    int64_t head_revision;
    uint64_t head_term;
};

/* watch.c */
void etcd_watch_refresh(struct etcd_watch *w);    /* next or newest has changed */
void etcd_watch_end_events(struct etcd_watch *w); /* compacted: the id is all that is left of it */
void etcd_watch_fail(struct etcd_watch_stream *s, int status, const char *text);
void etcd_watch_kick(struct etcd_watch_hub *h); /* the pump runs in the next turn */
void etcd_watch_answer_asked(struct etcd_watch_hub *h);
void etcd_watch_reap(struct etcd_watch_hub *h, size_t count); /* closed ones: so many watches */
void etcd_watch_fail_all(struct etcd_watch_hub *h);           /* tells the transports */

/* watch_sync.c */
void etcd_watch_pump(struct bns_task *t);
void etcd_watch_retry(void *arg);
void etcd_watch_deliver(struct etcd_watch_batch *b, struct etcd_watch *w);
void etcd_watch_batch_free(struct etcd_watch_batch *b); /* NULL is fine */
/* Adds one event with a reference of its own to kv (may be NULL: to be read). False when the batch
 * has no room for this revision. */
bool etcd_watch_batch_add(struct etcd_watch_batch *b, const struct etcd_key *k,
                          const struct etcd_watch_event *e, size_t bytes);

/* watch_read.c */
/* The batch lands later, with what is missing, or with the rows from b->from on. BNS_E_NOMEM:
 * nothing has happened. */
BNS_MUST_CHECK int etcd_watch_batch_read(struct etcd_watch_batch *b);
BNS_MUST_CHECK int etcd_watch_batch_scan(struct etcd_watch_batch *b);
void etcd_watch_hand_out(struct etcd_watch_batch *b); /* a landed one; b may be gone then */

/* watch_send.c */
struct bns_slice etcd_watch_head(struct etcd_watch_hub *h);
/* BNS_E_OFF, BNS_E_NOMEM: nothing was sent of it. */
BNS_MUST_CHECK int etcd_watch_send_events(struct etcd_watch_batch *b, struct etcd_watch *w);
struct etcd_watch_note { /* a response without events */
    int64_t id;
    bool created, canceled;
    int64_t compact_revision;
    const char *reason; /* may be NULL */
};
/* False: the stream has been failed. */
bool etcd_watch_send_note(struct etcd_watch_stream *s, const struct etcd_watch_note *n);
bool etcd_watch_blocked(struct etcd_watch_stream *s); /* looks how much is queued */
void etcd_watch_tight(void *arg);

#endif
