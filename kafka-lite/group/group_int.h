/* group_int.h - what the files of the coordinator share: the structs of groups, members and
 * offsets, and the steps that more than one of them takes. Not for users of group.h.
 *
 *   groups.c   the table of groups and their members          rebalance.c  the states of a group
 *   join.c     join, sync, heartbeat, leave                   write.c      records on their way out
 *   offsets.c  commit, fetch, delete, expire                  replay.c     records coming back
 */
#ifndef KAFKA_GROUP_GROUP_INT_H
#define KAFKA_GROUP_GROUP_INT_H

#include "base/env.h"
#include "base/hmap.h"
#include "base/heap.h"
#include "group/group.h"

/* Planted bugs (BNS_MUTANT). */
enum {
    KAFKA_GROUP_MUTANT_COMMIT_EARLY = 1, /* an offset is answered and told before it is durable */
    KAFKA_GROUP_MUTANT_SAME_GENERATION,  /* a round does not get a new number */
    KAFKA_GROUP_MUTANT_PARKED,           /* who is silent goes, and the others are not looked at */
    KAFKA_GROUP_MUTANT_REPLAY,           /* generation is not read back */
    KAFKA_GROUP_MUTANT_EXPIRE_LIVE,      /* offsets of a group that has members expire */
    KAFKA_GROUP_MUTANT_SYNC_EARLY,       /* assignments are answered before they are durable */
    KAFKA_GROUP_MUTANT_OLD_SYNC,         /* a sync of an older generation gets today's assignment */
    KAFKA_GROUP_MUTANT_OLD_COMMIT,       /* a commit of an older generation counts */
};

struct group;

struct timer {
    struct bns_heap_node node;
    bool of_group; /* or of a member */
};

struct member {
    struct bns_list node; /* group->members or group->joining */
    struct bns_hnode by_id;
    struct bns_hnode by_instance;
    struct timer timer; /* its session; key UINT64_MAX: stopped */
    struct group *group;
    struct bns_slice id; /* a block of its own: a static member's may change */
    struct bns_slice instance, client_id, client_host; /* in one block with the struct */
    struct kafka_group_protocol *protocols;            /* one block */
    size_t protocols_count;
    struct bns_slice assignment;      /* a block of its own */
    struct bns_slice assignment_next; /* of a leader's sync that is not durable */
    int32_t session_ms, rebalance_ms;
    void *join_token, *sync_token;
    uint64_t join_seq; /* which join is parked; 0: none */
    bool join_parked, sync_parked;
    bool is_new;       /* joined for the first time, and not in a generation */
    bool id_given;     /* has an id, has not joined: it is in group->joining */
    bool sync_pending; /* has not synced in this generation */
};

/* How many members support a protocol. */
struct support {
    struct bns_hnode node;
    size_t count;
    size_t len;
    uint8_t name[];
};

struct offset_slot {
    struct bns_hnode node; /* in topic->parts */
    struct offset_topic *topic;
    int32_t partition;
    uint32_t writes;            /* under way */
    struct kafka_offset *value; /* one block with its metadata; NULL: none is committed */
};

struct offset_topic {
    struct bns_hnode node; /* in group->topics */
    struct group *group;
    struct bns_hmap parts;
    size_t len;
    uint8_t name[];
};

struct group {
    struct bns_hnode node;
    struct bns_list all;
    struct kafka_groups *owner;
    struct timer timer; /* the end of joining or of syncing */
    enum kafka_group_state state;
    bool was_empty;  /* the state before Preparing was Empty */
    bool initial;    /* the timer is the initial delay */
    bool newcomer;   /* somebody joined during the initial delay */
    bool timer_sync; /* the timer is the end of syncing */
    uint64_t initial_left_ms;
    int32_t generation;
    int64_t state_ms;               /* wall; -1: unknown */
    struct bns_slice protocol_type; /* a block of its own; ptr NULL: none */
    struct bns_slice protocol;      /* the same */
    struct member *leader;
    struct bns_list members, joining;
    struct bns_hmap by_id, by_instance, supports;
    size_t members_count, joining_count;
    size_t parked_count;  /* of the members: their join is parked */
    size_t syncing_count; /* of the members: sync_pending */
    uint64_t sync_seq;    /* the latest sync of a leader that is being written */
    uint32_t writes;      /* under way */
    struct bns_hmap topics;
    size_t offsets_count; /* slots */
    struct bns_slice id;
};

enum write_kind { WRITE_META, WRITE_SYNC, WRITE_STATIC, WRITE_OFFSETS, WRITE_DELETE };

struct write_item {
    struct offset_slot *slot;
    struct kafka_offset *value; /* NULL: a tombstone */
};

struct write_mark {
    size_t key, value, end;
    bool gone;
};

struct write {
    struct kafka_group_write w;
    struct bns_list all;
    enum write_kind kind;
    struct group *group;
    struct bns_buf bytes;
    struct kafka_group_record *records;
    struct write_mark *marks; /* where the records are in `bytes` */
    size_t cap;
    void *token;
    bool has_token, sent;
    uint64_t seq; /* of a sync, or of a static member's join */
    bool can_skip;
    struct bns_slice member_id, old_id; /* of a static member; blocks of their own */
    struct write_item *items;
};

struct kafka_groups {
    const struct bns_alloc *alloc;
    struct kafka_groups_cfg cfg;
    struct kafka_group_ops ops;
    uint32_t mutant;
    uint64_t mono_ms;
    int64_t wall_ms;
    uint64_t seq;
    struct bns_hmap groups;
    struct bns_list all;
    struct bns_list *cursor; /* of expiry: the next group; NULL: at the beginning */
    struct bns_list writes;
    struct bns_heap timers;
    size_t members_count, offsets_count, writes_count;
    struct kafka_join_member *told; /* scratch for the leader's answer */
    size_t told_cap;
    char uuid_text[KAFKA_GROUP_UUID_TEXT];
};

#define kafka_none ((struct bns_slice){NULL, 0})

/* groups.c */
struct bns_slice kafka_slice_dup(const struct bns_alloc *a, struct bns_slice s); /* ptr NULL: OOM */
void kafka_slice_free(const struct bns_alloc *a, struct bns_slice *s);
struct group *kafka_group_find(const struct kafka_groups *g, struct bns_slice id);
struct group *kafka_group_add(struct kafka_groups *g, struct bns_slice id); /* NULL: a bound, OOM */
void kafka_group_drop(struct group *r);
struct member *kafka_member_find(const struct group *r, struct bns_slice id);
struct member *kafka_member_static(const struct group *r, struct bns_slice instance);
struct member *kafka_member_new(struct group *r, struct bns_slice id, const struct kafka_join *j);
/* Moves a member with its protocols into the group. false: no memory, nothing changed. */
bool kafka_member_enter(struct member *m);
void kafka_member_remove(struct member *m); /* leaves the group, and is freed */
bool kafka_member_rename(struct member *m, struct bns_slice id, struct bns_slice *old);
bool kafka_protocols_set(struct member *m, const struct kafka_group_protocol *p, size_t count);
bool kafka_protocols_same(const struct member *m, const struct kafka_join *j);
bool kafka_group_supports(const struct group *r, const struct kafka_join *j);
struct bns_slice kafka_group_vote(const struct group *r);
struct bns_slice kafka_member_metadata(const struct member *m, struct bns_slice protocol);
void kafka_timer_set(struct kafka_groups *g, struct timer *t, uint64_t key);
int16_t kafka_member_check(const struct group *r, struct bns_slice id, struct bns_slice instance);
bool kafka_group_subscribed(const struct group *r, struct bns_slice topic);
bool kafka_group_is_consumer(const struct group *r);

/* rebalance.c */
void kafka_session_start(struct member *m);
void kafka_join_end(struct member *m, int16_t error, struct bns_slice id);
void kafka_sync_end(struct member *m, int16_t error);
void kafka_joined_now(struct member *m, bool leader_list, struct bns_slice leader, bool skip);
void kafka_join_refuse(struct kafka_groups *g, void *token, int16_t error, struct bns_slice id);
void kafka_group_prepare(struct group *r);
void kafka_group_rebalance(struct group *r); /* prepares, or sees whether joining is over */
void kafka_group_maybe_joined(struct group *r);
void kafka_group_joined(struct group *r);
void kafka_join_park(struct member *m, void *token);
void kafka_sync_seen(struct member *m); /* it has synced in this generation */
bool kafka_group_all_joined(const struct group *r);
void kafka_group_assigned(struct group *r, uint64_t seq, int16_t error);
void kafka_group_enter_state(struct group *r, enum kafka_group_state s);

/* write.c */
struct write *kafka_write_new(struct group *r, enum write_kind kind, size_t records);
BNS_MUST_CHECK int kafka_write_meta(struct write *w, bool next);
BNS_MUST_CHECK int kafka_write_gone(struct write *w); /* the group's tombstone */
/* Takes `value` over when it succeeds. */
BNS_MUST_CHECK int kafka_write_offset(struct write *w, struct offset_slot *slot,
                                      struct kafka_offset *value);
void kafka_write_send(struct write *w);
void kafka_write_free(struct write *w);

/* offsets.c */
struct offset_slot *kafka_slot_get(struct group *r, struct bns_slice topic, int32_t partition);
struct offset_slot *kafka_slot_find(const struct group *r, struct bns_slice topic,
                                    int32_t partition);
struct kafka_offset *kafka_offset_dup(const struct kafka_groups *g, const struct kafka_offset *o);
void kafka_slot_set(struct offset_slot *s, struct kafka_offset *value);
void kafka_slot_release(struct offset_slot *s); /* gone when it has nothing */
void kafka_offsets_free(struct group *r);

#endif
