/* checkpoint.c - the small text files beside a log: read strictly, written whole or not at all.
 *
 * A checkpoint says how many lines it has, so that one cut short is found out. Numbers are decimal,
 * with no sign but a minus, with no leading zeros asked for or refused, as Java reads them.
 */
#include "log/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- whole files ----------------------------------------------------------------------------- */

static int join(char *to, const char *dir, const char *name, const char *suffix,
                struct bns_err *err)
{
    int n = snprintf(to, BNS_PATH_MAX, "%s/%s%s", dir, name, suffix);

    if (n < 0 || n >= BNS_PATH_MAX)
        return bns_err_set(err, BNS_E_INVALID, "%.64s.../%s: path too long", dir, name);
    return BNS_OK;
}

int kafka_file_replace(struct bns_vfs *vfs, const char *dir, const char *name,
                       struct bns_slice text, struct bns_err *err)
{
    char path[BNS_PATH_MAX], tmp[BNS_PATH_MAX];
    struct bns_file *f = NULL;
    int rv = join(path, dir, name, "", err);

    if (rv == BNS_OK)
        rv = join(tmp, dir, name, ".tmp", err);
    if (rv != BNS_OK)
        return rv;
    rv = bns_vfs_open(vfs, tmp, BNS_OPEN_CREATE | BNS_OPEN_TRUNC, &f, err);
    if (rv != BNS_OK)
        return rv;
    if (text.len > 0)
        rv = bns_file_write_at(f, 0, &text, 1, err);
    if (rv == BNS_OK)
        rv = bns_file_sync(f, false, err);
    bns_file_close(f);
    if (rv == BNS_OK)
        rv = bns_vfs_rename(vfs, tmp, path, err);
    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(vfs, dir, err);
    return rv;
}

int kafka_file_load(struct bns_vfs *vfs, const char *dir, const char *name, struct bns_buf *to,
                    struct bns_err *err)
{
    char path[BNS_PATH_MAX];
    struct bns_file *f = NULL;
    uint64_t size = 0;
    size_t got = 0;
    int rv = join(path, dir, name, "", err);

    if (rv == BNS_OK)
        rv = bns_vfs_open(vfs, path, BNS_OPEN_READ, &f, err);
    if (rv != BNS_OK)
        return rv;
    rv = bns_file_size(f, &size, err);
    if (rv == BNS_OK && size > KAFKA_CHECKPOINT_BYTES_MAX)
        rv = bns_err_set(err, BNS_E_TOOBIG, "%s: %" PRIu64 " bytes", path, size);
    if (rv == BNS_OK)
        rv = bns_buf_reserve(to, (size_t)size + 1);
    if (rv == BNS_OK)
        rv = bns_file_read_at(f, 0, to->ptr + to->len, (size_t)size, &got, err);
    if (rv == BNS_OK)
        to->len += got;
    bns_file_close(f);
    return rv;
}

/* ---- words and numbers ----------------------------------------------------------------------- */

/* One line off the front of *in, without its end. */
static bool take_line(struct bns_slice *in, struct bns_slice *line)
{
    const uint8_t *end;

    if (in->len == 0)
        return false;
    end = memchr(in->ptr, '\n', in->len);
    line->ptr = in->ptr;
    line->len = end == NULL ? in->len : (size_t)(end - in->ptr);
    *in = bns_slice_skip(*in, end == NULL ? in->len : line->len + 1);
    return true;
}

static bool take_word(struct bns_slice *line, struct bns_slice *word)
{
    const uint8_t *end = line->len == 0 ? NULL : memchr(line->ptr, ' ', line->len);

    word->ptr = line->ptr;
    word->len = end == NULL ? line->len : (size_t)(end - line->ptr);
    *line = bns_slice_skip(*line, end == NULL ? line->len : word->len + 1);
    return word->len > 0;
}

static bool number(struct bns_slice s, int64_t min, int64_t max, int64_t *out)
{
    bool minus = s.len > 0 && s.ptr[0] == '-';
    int64_t v = 0;

    s = bns_slice_skip(s, minus);
    if (s.len == 0 || s.len > 19)
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] < '0' || s.ptr[i] > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, s.ptr[i] - '0', &v))
            return false;
    *out = minus ? -v : v;
    return *out >= min && *out <= max;
}

static bool take_number(struct bns_slice *line, int64_t min, int64_t max, int64_t *out)
{
    struct bns_slice word;

    return take_word(line, &word) && number(word, min, max, out);
}

/* Version and count; *in is then at the first line of many. */
static int take_head(struct bns_slice *in, int64_t *count, struct bns_err *err)
{
    struct bns_slice line;
    int64_t version = 0;

    if (!take_line(in, &line) || !number(line, 0, INT32_MAX, &version))
        return bns_err_set(err, BNS_E_CORRUPT, "a checkpoint without a version");
    if (version != 0)
        return bns_err_set(err, BNS_E_CORRUPT, "a checkpoint of version %" PRId64, version);
    if (!take_line(in, &line) || !number(line, 0, (int64_t)in->len, count))
        return bns_err_set(err, BNS_E_CORRUPT, "a checkpoint that does not say how long it is");
    return BNS_OK;
}

static int wrong_line(int64_t i, struct bns_err *err)
{
    return bns_err_set(err, BNS_E_CORRUPT, "line %" PRId64 " of a checkpoint is wrong", i + 3);
}

/* ---- offsets of partitions ------------------------------------------------------------------- */

static bool topic_ok(struct bns_slice t)
{
    for (size_t i = 0; i < t.len; i++) {
        uint8_t c = t.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '_' || c == '-'))
            return false;
    }
    return t.len > 0 && t.len <= KAFKA_TOPIC_MAX;
}

int kafka_checkpoint_parse(struct bns_slice text, kafka_checkpoint_fn *fn, void *arg,
                           struct bns_err *err)
{
    struct bns_slice line, topic;
    int64_t count = 0, partition = 0, offset = 0;
    int rv = take_head(&text, &count, err);

    for (int64_t i = 0; rv == BNS_OK && i < count; i++) {
        if (!take_line(&text, &line) || !take_word(&line, &topic) || !topic_ok(topic) ||
            !take_number(&line, 0, INT32_MAX, &partition) ||
            !take_number(&line, 0, INT64_MAX, &offset) || line.len > 0)
            return wrong_line(i, err);
        rv = fn(arg, topic, (int32_t)partition, offset);
    }
    if (rv == BNS_OK && text.len > 0)
        return wrong_line(count, err);
    return rv;
}

int kafka_checkpoint_begin(struct bns_buf *out, size_t count)
{
    return bns_buf_fmt(out, "0\n%zu\n", count);
}

int kafka_checkpoint_add(struct bns_buf *out, struct bns_slice topic, int32_t partition,
                         int64_t offset)
{
    BNS_ASSERT(topic_ok(topic));
    return bns_buf_fmt(out, "%.*s %" PRId32 " %" PRId64 "\n", (int)topic.len,
                       (const char *)topic.ptr, partition, offset);
}

/* ---- leader epochs --------------------------------------------------------------------------- */

void kafka_epochs_init(struct kafka_epochs *e, const struct bns_alloc *alloc)
{
    *e = (struct kafka_epochs){.alloc = alloc};
}

void kafka_epochs_free(struct kafka_epochs *e)
{
    if (e->alloc != NULL)
        bns_free(e->alloc, e->at);
    kafka_epochs_init(e, e->alloc);
}

int32_t kafka_epochs_latest(const struct kafka_epochs *e)
{
    return e->count == 0 ? -1 : e->at[e->count - 1].epoch;
}

static int push(struct kafka_epochs *e, int32_t epoch, int64_t start)
{
    if (e->count == e->cap) {
        size_t cap = e->cap == 0 ? 4 : e->cap * 2;
        struct kafka_epoch *at = bns_resize(e->alloc, e->at, cap * sizeof *at);
        if (at == NULL)
            return BNS_E_NOMEM;
        e->at = at;
        e->cap = cap;
    }
    e->at[e->count++] = (struct kafka_epoch){epoch, start};
    return BNS_OK;
}

int kafka_epochs_parse(struct kafka_epochs *e, struct bns_slice text, struct bns_err *err)
{
    struct bns_slice line;
    int64_t count = 0, epoch = 0, start = 0, last = -1;
    int rv = take_head(&text, &count, err);

    BNS_ASSERT(e->count == 0);
    for (int64_t i = 0; rv == BNS_OK && i < count; i++) {
        if (!take_line(&text, &line) || !take_number(&line, 0, INT32_MAX, &epoch) ||
            !take_number(&line, 0, INT64_MAX, &start) || line.len > 0 ||
            epoch <= kafka_epochs_latest(e) || start <= last)
            return wrong_line(i, err);
        rv = push(e, (int32_t)epoch, start);
        last = start;
    }
    if (rv == BNS_OK && text.len > 0)
        return wrong_line(count, err);
    return rv;
}

int kafka_epochs_text(const struct kafka_epochs *e, struct bns_buf *out)
{
    int rv = bns_buf_fmt(out, "0\n%zu\n", e->count);

    for (size_t i = 0; rv == BNS_OK && i < e->count; i++)
        rv = bns_buf_fmt(out, "%" PRId32 " %" PRId64 "\n", e->at[i].epoch, e->at[i].start);
    return rv;
}

int kafka_epochs_assign(struct kafka_epochs *e, int32_t epoch, int64_t start, bool *changed)
{
    struct kafka_epoch last = {-1, -1};

    *changed = false;
    if (epoch < 0 || start < 0)
        return BNS_OK;
    if (e->count > 0)
        last = e->at[e->count - 1];
    if (last.epoch == epoch && last.start <= start)
        return BNS_OK;
    while (e->count > 0 &&
           (e->at[e->count - 1].epoch >= epoch || e->at[e->count - 1].start >= start)) {
        e->count--;
        *changed = true;
    }
    if (push(e, epoch, start) != BNS_OK)
        return BNS_E_NOMEM;
    *changed = true;
    return BNS_OK;
}

bool kafka_epochs_cut_end(struct kafka_epochs *e, int64_t end)
{
    size_t before = e->count;

    while (e->count > 0 && e->at[e->count - 1].start >= end)
        e->count--;
    return e->count != before;
}

bool kafka_epochs_cut_begin(struct kafka_epochs *e, int64_t begin)
{
    size_t drop = 0;

    while (drop + 1 < e->count && e->at[drop + 1].start <= begin)
        drop++;
    if (e->count == 0 || (drop == 0 && e->at[0].start >= begin))
        return false;
    memmove(e->at, e->at + drop, (e->count - drop) * sizeof *e->at);
    e->count -= drop;
    if (e->at[0].start < begin)
        e->at[0].start = begin;
    return true;
}

struct kafka_epoch kafka_epochs_end(const struct kafka_epochs *e, int32_t epoch, int64_t log_end)
{
    size_t above = 0; /* the first that is greater */

    if (e->count == 0 || epoch == -1 || epoch > kafka_epochs_latest(e))
        return (struct kafka_epoch){-1, -1};
    while (above < e->count && e->at[above].epoch <= epoch)
        above++;
    if (above == 0)
        return (struct kafka_epoch){epoch, e->at[0].start};
    return (struct kafka_epoch){e->at[above - 1].epoch,
                                above == e->count ? log_end : e->at[above].start};
}

/* ---- the others ------------------------------------------------------------------------------ */

int kafka_properties_get(struct bns_slice text, const char *key, struct bns_slice *value,
                         struct bns_err *err)
{
    struct bns_slice line, name = bns_slice_str(key);

    while (take_line(&text, &line)) {
        if (line.len > 0 && line.ptr[line.len - 1] == '\r')
            line.len--;
        if (line.len <= name.len || line.ptr[0] == '#' || line.ptr[name.len] != '=' ||
            !bns_slice_eq(bns_slice(line.ptr, name.len), name))
            continue;
        *value = bns_slice_skip(line, name.len + 1);
        if (value->len > 0 && memchr(value->ptr, '\\', value->len) != NULL)
            return bns_err_set(err, BNS_E_CORRUPT, "%s: a backslash in its value", key);
        return BNS_OK;
    }
    return bns_err_set(err, BNS_E_NOTFOUND, "%s is missing", key);
}

int kafka_partition_parse(struct bns_slice text, struct bns_slice *topic_id, struct bns_err *err)
{
    static const char version[] = "version: 0", topic[] = "topic_id: ";
    struct bns_slice line;

    if (!take_line(&text, &line) || !bns_slice_eq(line, bns_slice_str(version)))
        return bns_err_set(err, BNS_E_CORRUPT, "partition.metadata does not begin with version 0");
    if (!take_line(&text, &line) || line.len != sizeof topic - 1 + 22 ||
        memcmp(line.ptr, topic, sizeof topic - 1) != 0 || text.len > 0)
        return bns_err_set(err, BNS_E_CORRUPT, "partition.metadata without a topic id");
    *topic_id = bns_slice_skip(line, sizeof topic - 1);
    return BNS_OK;
}

int kafka_partition_text(struct bns_buf *out, const char *topic_id)
{
    return bns_buf_fmt(out, "version: 0\ntopic_id: %s", topic_id);
}

static int get_property(struct bns_slice text, const char *key, char *to, size_t cap,
                        struct bns_err *err)
{
    struct bns_slice v = {0};
    int rv = kafka_properties_get(text, key, &v, err);

    if (rv != BNS_OK)
        return rv;
    if (v.len >= cap)
        return bns_err_set(err, BNS_E_CORRUPT, "%s has %zu bytes", key, v.len);
    memcpy(to, v.ptr, v.len);
    to[v.len] = '\0';
    return BNS_OK;
}

int kafka_meta_parse(struct bns_slice text, struct kafka_dir_id *out, struct bns_err *err)
{
    char version[8];
    int rv = get_property(text, "version", version, sizeof version, err);

    if (rv == BNS_OK && strcmp(version, "1") != 0)
        return bns_err_set(err, BNS_E_UNSUPPORTED, "meta.properties of version %s; 1 is known",
                           version);
    if (rv == BNS_OK)
        rv = get_property(text, "cluster.id", out->cluster_id, sizeof out->cluster_id, err);
    if (rv == BNS_OK)
        rv = get_property(text, "node.id", out->node_id, sizeof out->node_id, err);
    if (rv == BNS_OK)
        rv = get_property(text, "directory.id", out->directory_id, sizeof out->directory_id, err);
    return rv;
}

int kafka_meta_text(struct bns_buf *out, const struct kafka_dir_id *m)
{
    return bns_buf_fmt(out, "#\ncluster.id=%s\ndirectory.id=%s\nnode.id=%s\nversion=1\n",
                       m->cluster_id, m->directory_id, m->node_id);
}

int kafka_clean_text(struct bns_buf *out, int64_t broker_epoch)
{
    return bns_buf_fmt(out, "{\"version\":0,\"brokerEpoch\":%" PRId64 "}", broker_epoch);
}

int64_t kafka_clean_parse(struct bns_slice text)
{
    static const char key[] = "\"brokerEpoch\":";
    const uint8_t *at = text.len == 0 ? NULL : memmem(text.ptr, text.len, key, sizeof key - 1);
    int64_t v = -1;
    size_t n = 0;

    if (at == NULL)
        return -1;
    text = bns_slice_skip(text, (size_t)(at - text.ptr) + sizeof key - 1);
    while (n < text.len && ((text.ptr[n] >= '0' && text.ptr[n] <= '9') || text.ptr[n] == '-'))
        n++;
    return number(bns_slice(text.ptr, n), 0, INT64_MAX, &v) ? v : -1;
}
