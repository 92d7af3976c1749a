/* image_file.c - the image as bytes: in the file that a start begins with, and in a snapshot for
 * another member.
 *
 *   version u8 = 1 | index u64 | term u64 | commands u64 | digest u64 | length of conf u16 | conf |
 *   record...
 *
 * No conf: none was applied, the members are those of the first start.
 *
 * The file is a snapshot file (store/snapfile.h): chunks with checksums, whole or absent. The bytes
 * are cut into chunks anywhere.
 */
#include "base/varint.h"
#include "meta/meta_int.h"
#include "proto/raft_msg.h"
#include "store/snapfile.h"

#define VERSION 1u
#define HEAD_BYTES 35u
#define FORMAT "kafka-lite metadata 1"

int kafka_image_head(const struct kafka_state *s, struct bns_buf *b)
{
    uint8_t head[HEAD_BYTES] = {VERSION};
    size_t at = b->len;
    int rv;

    bns_put_u64le(head + 1, s->at.index);
    bns_put_u64le(head + 9, s->at.term);
    bns_put_u64le(head + 17, s->commands);
    bns_put_u64le(head + 25, s->digest);
    rv = bns_buf_add(b, head, sizeof head);
    if (rv == BNS_OK && s->at.conf.voters_count > 0)
        rv = bns_raft_conf_encode(&s->at.conf, b);
    if (rv == BNS_OK)
        bns_put_u16le(b->ptr + at + 33, (uint16_t)(b->len - at - HEAD_BYTES));
    return rv;
}

static int parse_head(struct bns_slice *in, struct kafka_state *s, struct bns_err *err)
{
    size_t conf;

    if (in->len < HEAD_BYTES || in->ptr[0] != VERSION)
        return bns_err_set(err, BNS_E_CORRUPT, "metadata image: no head of version %u", VERSION);
    s->at.index = bns_get_u64le(in->ptr + 1);
    s->at.term = bns_get_u64le(in->ptr + 9);
    s->commands = bns_get_u64le(in->ptr + 17);
    s->digest = bns_get_u64le(in->ptr + 25);
    conf = bns_get_u16le(in->ptr + 33);
    *in = bns_slice_skip(*in, HEAD_BYTES);
    if (conf > in->len ||
        (conf > 0 && bns_raft_conf_decode(bns_slice(in->ptr, conf), &s->at.conf) != BNS_OK))
        return bns_err_set(err, BNS_E_CORRUPT, "metadata image: no members");
    *in = bns_slice_skip(*in, conf);
    return BNS_OK;
}

int kafka_image_bytes(struct bns_env *env, struct bns_slice in, struct kafka_image **image,
                      struct kafka_state *state, struct bns_err *err)
{
    struct kafka_meta_record r;
    int rv;

    *image = NULL;
    memset(state, 0, sizeof *state);
    rv = parse_head(&in, state, err);
    if (rv == BNS_OK)
        rv = kafka_image_new(env->alloc, image);
    while (rv == BNS_OK && in.len > 0) {
        rv = kafka_meta_record_next(&in, &r, err);
        if (rv == BNS_OK && !(BNS_MUTANT(env, 203) && r.kind == KAFKA_RECORD_CONFIG))
            rv = kafka_image_apply(*image, &r, err);
    }
    if (rv != BNS_OK) {
        kafka_image_free(*image);
        *image = NULL;
    }
    return rv;
}

int kafka_image_save(struct bns_env *env, const char *path, struct bns_slice bytes,
                     struct bns_err *err)
{
    struct bns_snap_writer *w = NULL;
    struct bns_snap_info info;
    int rv = bns_snap_create(env->vfs, bns_alloc_libc(), path, BNS_LIT(FORMAT), &w, err);

    while (rv == BNS_OK && bytes.len > 0) {
        size_t len = bytes.len < BNS_SNAP_CHUNK_MAX ? bytes.len : BNS_SNAP_CHUNK_MAX;
        rv = bns_snap_write(w, bns_slice(bytes.ptr, len), err);
        bytes = bns_slice_skip(bytes, len);
    }
    if (rv == BNS_OK)
        return bns_snap_commit(w, &info, err);
    bns_snap_abort(w);
    return rv;
}

static int read_all(struct bns_snap_reader *r, struct bns_buf *b, struct bns_err *err)
{
    struct bns_snap_info info;
    int rv = BNS_OK;

    bns_snap_info(r, &info);
    for (uint64_t i = 0; i < info.chunks && rv == BNS_OK; i++) {
        size_t len = 0;
        rv = bns_buf_reserve(b, BNS_SNAP_CHUNK_MAX);
        if (rv == BNS_OK)
            rv = bns_snap_read(r, i, b->ptr + b->len, &len, err);
        b->len += len;
    }
    return rv;
}

int kafka_meta_load(struct kafka_meta *m, struct bns_err *err)
{
    const struct bns_alloc *a = m->env->alloc;
    struct bns_snap_reader *r = NULL;
    struct kafka_image *image = NULL;
    struct bns_buf b;
    int rv = bns_snap_open(m->env->vfs, a, m->file, &r, err);

    if (rv == BNS_E_NOTFOUND)
        return BNS_OK;
    if (rv != BNS_OK)
        return rv;
    bns_buf_init(&b, a, (size_t)KAFKA_IMAGE_BYTES_MAX + BNS_SNAP_CHUNK_MAX);
    if (!bns_slice_eq(bns_snap_meta(r), BNS_LIT(FORMAT)))
        rv = bns_err_set(err, BNS_E_CORRUPT, "%s: not an image of this version", m->file);
    if (rv == BNS_OK)
        rv = read_all(r, &b, err);
    if (rv == BNS_OK)
        rv = kafka_image_bytes(m->env, bns_buf_slice(&b), &image, &m->state, err);
    if (rv == BNS_OK) {
        kafka_image_free(m->image);
        m->image = image;
        m->durable = m->state.at;
    }
    bns_buf_free(&b);
    bns_snap_close(r);
    return rv;
}
