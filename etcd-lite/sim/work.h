/* work.h - workers: transactions over several keys, for the checkers of lists, banks, sets, locks.
 *
 * A seed draws one kind of work; each client node has some workers that do it. A worker has one
 * operation at a time, an operation is one call or several (read, then write what was compared),
 * and what was asked and told is a history of that kind (common/sim/README.md), judged at the end.
 *
 *     append  a<n>       lists of numbers, "1,5,7": read some, append to some, in one transaction
 *     bank    b<n>       balances; transfers between two; all of them are read at once
 *     set     e<set>/<n> elements; the set is read whole, in pages of one revision
 *     lock    lx<n>      locks that hang on a lease; f<n> is a resource that a holder writes
 *
 * For etcd-lite/sim alone.
 */
#ifndef ETCD_SIM_WORK_H
#define ETCD_SIM_WORK_H

#include "daemon_int.h"

#define WORK_KEY_BYTES 24
#define WORK_VALUE_BYTES 1024
#define WORK_PARTS_MAX 8
#define WORK_TEXT_BYTES 16384

enum work_what { WORK_GET, WORK_PUT, WORK_DELETE };

struct work_part { /* of a transaction */
    enum work_what what;
    char key[WORK_KEY_BYTES];
    char value[WORK_VALUE_BYTES];
    int64_t lease;
};

struct work_compare {
    enum { WORK_MOD, WORK_VERSION, WORK_CREATE, WORK_VALUE } target;
    char key[WORK_KEY_BYTES];
    int64_t number;
    char value[32];
};

struct work_txn {
    struct work_compare compares[WORK_PARTS_MAX];
    struct work_part yes[WORK_PARTS_MAX]; /* in the other case nothing is done */
    size_t compares_count, yes_count;
};

enum work_next {
    WORK_ASK, /* one more call for this operation */
    WORK_DONE /* it has ended, and is in the history */
};

struct work_kind {
    const char *name; /* of the kind of history */
    const char *also; /* another checker for the same history, or NULL */
    /* Begins an operation: what it is, and its invocation. False: nothing to do at present. */
    bool (*begin)(struct sim_worker *w);
    /* The request of the call to come. */
    struct bns_slice (*encode)(struct sim_worker *w, struct bns_arena *arena, const char **path);
    const ProtobufCMessageDescriptor *(*answer)(const struct sim_worker *w);
    void (*decode)(struct sim_worker *w, const ProtobufCMessage *msg);
    /* The call ended. */
    enum work_next (*ended)(struct sim_worker *w, int status, const char *text);
};

extern const struct work_kind work_append, work_bank, work_set, work_lock;

/* work.c */
void work_record(struct sim_worker *w, enum bns_history_type type, const char *f, const char *key,
                 const char *value);
/* Ends the operation under way with neither answer nor value: it did not happen, or nobody knows */
enum work_next work_lost(struct sim_worker *w, const char *f, const char *key, bool unknown);
struct bns_slice work_encode_txn(const struct work_txn *t, struct bns_arena *arena,
                                 const char **path);
struct bns_slice work_pack(ProtobufCMessage *msg, struct bns_arena *arena);
ProtobufCBinaryData work_bytes(const char *text);
/* The one pair of the i-th answer of a transaction; NULL: there is none. */
const Etcdserverpb__KeyValue *work_kv(const Etcdserverpb__TxnResponse *r, size_t i);
/* Copies a value; false: it does not fit, or is no text. */
bool work_text(ProtobufCBinaryData v, char *out, size_t cap);

#endif
