/* checkpoint.h - the small text files beside a log, as Apache Kafka writes them.
 *
 *   leader-epoch-checkpoint                   recovery-point-offset-checkpoint, and alike:
 *     0              version                    0                      version
 *     2              how many lines             1                      how many lines
 *     0 0            epoch, first offset        topic 0 4711           topic, partition, offset
 *     3 4711
 *
 *   partition.metadata          version: 0\ntopic_id: <22 letters>
 *   meta.properties             key=value lines: version, cluster.id, node.id, directory.id
 *   .kafka_cleanshutdown        {"version":0,"brokerEpoch":-1}
 *
 * Thread:  any, the two that touch files as vfs.h. Memory: slices borrow.
 * Errors:  BNS_E_CORRUPT: the text is none of these, with what is wrong and in which line.
 */
#ifndef KAFKA_LOG_CHECKPOINT_H
#define KAFKA_LOG_CHECKPOINT_H

#include "base/buf.h"
#include "store/vfs.h"

#define KAFKA_CHECKPOINT_BYTES_MAX (64u << 20) /* a file that is longer is not read */
#define KAFKA_TOPIC_MAX 249

/* ---- whole files ----------------------------------------------------------------------------- */

/* The file becomes `text`, or stays what it was: .tmp, sync, rename, sync of the directory. */
BNS_MUST_CHECK int kafka_file_replace(struct bns_vfs *vfs, const char *dir, const char *name,
                                      struct bns_slice text, struct bns_err *err);
/* Appends the file to `to`. BNS_E_NOTFOUND, BNS_E_TOOBIG. */
BNS_MUST_CHECK int kafka_file_load(struct bns_vfs *vfs, const char *dir, const char *name,
                                   struct bns_buf *to, struct bns_err *err);

/* ---- offsets of partitions ------------------------------------------------------------------- */

typedef int kafka_checkpoint_fn(void *arg, struct bns_slice topic, int32_t partition,
                                int64_t offset);
/* Calls fn for each line; an error of fn stops and is returned. fn may have been called for lines
 * before one that is wrong. */
BNS_MUST_CHECK int kafka_checkpoint_parse(struct bns_slice text, kafka_checkpoint_fn *fn, void *arg,
                                          struct bns_err *err);
BNS_MUST_CHECK int kafka_checkpoint_begin(struct bns_buf *out, size_t count);
BNS_MUST_CHECK int kafka_checkpoint_add(struct bns_buf *out, struct bns_slice topic,
                                        int32_t partition, int64_t offset);

/* ---- leader epochs --------------------------------------------------------------------------- */

struct kafka_epoch {
    int32_t epoch;
    int64_t start; /* the first offset that was written in it */
};

/* Epochs and starts rise strictly. */
struct kafka_epochs {
    const struct bns_alloc *alloc;
    struct kafka_epoch *at;
    size_t count, cap;
};

void kafka_epochs_init(struct kafka_epochs *e, const struct bns_alloc *alloc);
void kafka_epochs_free(struct kafka_epochs *e);
BNS_MUST_CHECK int kafka_epochs_parse(struct kafka_epochs *e, struct bns_slice text,
                                      struct bns_err *err);
BNS_MUST_CHECK int kafka_epochs_text(const struct kafka_epochs *e, struct bns_buf *out);
int32_t kafka_epochs_latest(const struct kafka_epochs *e); /* -1: none */
/* From `start` on it is `epoch`. What was known from there on, or of that epoch and later ones, is
 * replaced; *changed: whether anything did. BNS_E_NOMEM. */
BNS_MUST_CHECK int kafka_epochs_assign(struct kafka_epochs *e, int32_t epoch, int64_t start,
                                       bool *changed);
bool kafka_epochs_cut_end(struct kafka_epochs *e, int64_t end);     /* true: something changed */
bool kafka_epochs_cut_begin(struct kafka_epochs *e, int64_t begin); /* true: something changed */
/* The greatest epoch that is known and not above `epoch`, and where it ends: the next one's start,
 * or log_end. As Kafka: older than all that are known: {epoch, the first one's start}; newer than
 * all, or -1: {-1, -1}. */
struct kafka_epoch kafka_epochs_end(const struct kafka_epochs *e, int32_t epoch, int64_t log_end);

/* ---- the others ------------------------------------------------------------------------------ */

/* value: borrowed from text; BNS_E_NOTFOUND. Keys of lines `key=value`, as meta.properties has
 * them: '#' begins a comment, a backslash in a value is not understood (BNS_E_CORRUPT). */
BNS_MUST_CHECK int kafka_properties_get(struct bns_slice text, const char *key,
                                        struct bns_slice *value, struct bns_err *err);
/* The topic id's 22 letters of a partition.metadata, borrowed from text. */
BNS_MUST_CHECK int kafka_partition_parse(struct bns_slice text, struct bns_slice *topic_id,
                                         struct bns_err *err);
BNS_MUST_CHECK int kafka_partition_text(struct bns_buf *out, const char *topic_id);
struct kafka_dir_id {
    char cluster_id[64], node_id[16], directory_id[64];
};
BNS_MUST_CHECK int kafka_meta_parse(struct bns_slice text, struct kafka_dir_id *out,
                                    struct bns_err *err);
BNS_MUST_CHECK int kafka_meta_text(struct bns_buf *out, const struct kafka_dir_id *m);
BNS_MUST_CHECK int kafka_clean_text(struct bns_buf *out, int64_t broker_epoch);
int64_t kafka_clean_parse(struct bns_slice text); /* the broker epoch; -1: it says none */

#endif
