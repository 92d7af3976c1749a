/* register_sm.c - see register_sm.h.
 *
 * Image (checkpoint file, snapshot stream): u64 index, u64 term, u64 digest, 16 x u64 registers,
 * the configuration (3 x u64 count and 16 x u64 ids; zeros: none was applied), little-endian;
 * padded with zeros to 40 KiB so that a snapshot takes several chunks to send.
 */
#include "sim/register_sm.h"

#include <stdio.h>

#include "base/hmap.h"
#include "base/varint.h"
#include "store/snapfile.h"

#define IMAGE_BYTES (40u * 1024)
#define COMMAND_BYTES 26u

struct state {
    uint64_t index, term, digest;
    uint64_t reg[BNS_REGISTERS];
    struct bns_raft_conf conf;
};

struct bns_sm_snap {
    uint8_t image[IMAGE_BYTES];
};

struct bns_register_sm {
    struct bns_env *env;
    char path[BNS_PATH_MAX];
    bns_register_fn *fn;
    void *arg;
    struct state now;
    struct state durable;

    struct bns_job job; /* checkpoint or the end of an install: one at a time */
    struct state writing;
    int job_code;
    bns_sm_done *done;
    void *done_arg;

    uint8_t *incoming;
    uint64_t incoming_len;
    struct bns_job
        chunk_job; /* takes a chunk in a later turn, as a state machine with files does */
    struct bns_slice chunk;
    bns_sm_done *chunk_done;
    void *chunk_arg;
    bool install;
};

static void conf_put(const struct bns_raft_conf *c, uint8_t *out)
{
    const uint64_t *ids[3] = {c->voters, c->voters_old, c->learners};
    const uint8_t counts[3] = {c->voters_count, c->voters_old_count, c->learners_count};

    for (size_t k = 0; k < 3; k++, out += 8 * (BNS_RAFT_PEERS_MAX + 1)) {
        bns_put_u64le(out, counts[k]);
        for (size_t i = 0; i < counts[k]; i++)
            bns_put_u64le(out + 8 + 8 * i, ids[k][i]);
    }
}

static void conf_get(const uint8_t *in, struct bns_raft_conf *c)
{
    uint64_t *ids[3] = {c->voters, c->voters_old, c->learners};
    uint8_t *counts[3] = {&c->voters_count, &c->voters_old_count, &c->learners_count};

    *c = (struct bns_raft_conf){.voters_count = 0};
    for (size_t k = 0; k < 3; k++, in += 8 * (BNS_RAFT_PEERS_MAX + 1)) {
        *counts[k] = (uint8_t)(bns_get_u64le(in) % (BNS_RAFT_PEERS_MAX + 1));
        for (size_t i = 0; i < *counts[k]; i++)
            ids[k][i] = bns_get_u64le(in + 8 + 8 * i);
    }
}

static void image_put(const struct state *s, uint8_t *out)
{
    memset(out, 0, IMAGE_BYTES);
    bns_put_u64le(out, s->index);
    bns_put_u64le(out + 8, s->term);
    bns_put_u64le(out + 16, s->digest);
    for (size_t i = 0; i < BNS_REGISTERS; i++)
        bns_put_u64le(out + 24 + 8 * i, s->reg[i]);
    conf_put(&s->conf, out + 24 + 8 * BNS_REGISTERS);
}

static void image_get(const uint8_t *in, struct state *s)
{
    s->index = bns_get_u64le(in);
    s->term = bns_get_u64le(in + 8);
    s->digest = bns_get_u64le(in + 16);
    for (size_t i = 0; i < BNS_REGISTERS; i++)
        s->reg[i] = bns_get_u64le(in + 24 + 8 * i);
    conf_get(in + 24 + 8 * BNS_REGISTERS, &s->conf);
}

struct bns_rcbuf *bns_register_encode(const struct bns_alloc *a, const struct bns_register_cmd *c)
{
    struct bns_rcbuf *b = bns_rcbuf_new(a, COMMAND_BYTES);

    if (b == NULL)
        return NULL;
    bns_put_u64le(b->bytes, c->id);
    b->bytes[8] = c->key;
    b->bytes[9] = c->cas;
    bns_put_u64le(b->bytes + 10, c->old);
    bns_put_u64le(b->bytes + 18, c->value);
    return b;
}

static void apply_one(struct bns_register_sm *sm, const struct bns_raft_entry *e)
{
    struct bns_register_cmd c = {0};
    bool done;

    BNS_ASSERT(e->index == sm->now.index + 1);
    sm->now.index = e->index;
    sm->now.term = e->term;
    sm->now.digest = bns_hash_u64(sm->now.digest, e->term);
    if (e->kind == BNS_RAFT_CONF) {
        struct bns_raft_conf_entry change;
        int rv = bns_raft_change_decode(bns_rcbuf_slice(e->data), &change);

        BNS_ASSERT(rv == BNS_OK);
        sm->now.conf = change.conf;
        sm->now.digest = bns_hash(sm->now.digest, e->data->bytes, e->data->len);
    }
    if (e->kind != BNS_RAFT_NORMAL)
        return;
    BNS_ASSERT(e->data != NULL && e->data->len == COMMAND_BYTES);
    sm->now.digest = bns_hash(sm->now.digest, e->data->bytes, e->data->len);
    c.id = bns_get_u64le(e->data->bytes);
    c.key = e->data->bytes[8] % BNS_REGISTERS;
    c.cas = e->data->bytes[9] != 0;
    c.old = bns_get_u64le(e->data->bytes + 10);
    c.value = bns_get_u64le(e->data->bytes + 18);
    done = !c.cas || sm->now.reg[c.key] == c.old;
    if (done)
        sm->now.reg[c.key] = c.value;
    sm->fn(sm->arg, e->index, &c, done);
}

static void apply(void *arg, const struct bns_raft_entry *e, size_t n, bns_sm_done *done,
                  void *darg)
{
    for (size_t i = 0; i < n; i++)
        apply_one(arg, &e[i]);
    done(darg, BNS_OK);
}

/* ---- checkpoints: on a pool thread ---------------------------------------------------------- */

static int write_image(struct bns_register_sm *sm, struct bns_err *err)
{
    struct bns_snap_writer *w = NULL;
    struct bns_snap_info info;
    uint8_t image[IMAGE_BYTES];
    int rv = bns_snap_create(sm->env->vfs, sm->env->alloc, sm->path, BNS_LIT("registers"), &w, err);

    if (rv != BNS_OK)
        return rv;
    image_put(&sm->writing, image);
    rv = bns_snap_write(w, bns_slice(image, sizeof image), err);
    if (rv == BNS_OK)
        return bns_snap_commit(w, &info, err);
    bns_snap_abort(w);
    return rv;
}

static void job_run(struct bns_job *j)
{
    struct bns_register_sm *sm = BNS_CONTAINER(j, struct bns_register_sm, job);

    sm->job_code = write_image(sm, NULL);
}

static void job_done(struct bns_job *j)
{
    struct bns_register_sm *sm = BNS_CONTAINER(j, struct bns_register_sm, job);
    bns_sm_done *done = sm->done;

    sm->done = NULL;
    if (sm->job_code == BNS_OK) {
        sm->durable = sm->writing;
        if (sm->install)
            sm->now = sm->writing;
    } else if (sm->job_code == BNS_E_IO) {
        bns_fatal(sm->env, 6, "register_sm: cannot write the checkpoint");
    }
    sm->install = false;
    done(sm->done_arg, sm->job_code);
}

static void start_job(struct bns_register_sm *sm, const struct state *s, bns_sm_done *done,
                      void *arg)
{
    BNS_ASSERT(sm->done == NULL);
    sm->writing = *s;
    sm->done = done;
    sm->done_arg = arg;
    sm->job.run = job_run;
    sm->job.done = job_done;
    bns_pool_submit(sm->env, &sm->job);
}

static void checkpoint(void *arg, bns_sm_done *done, void *darg)
{
    struct bns_register_sm *sm = arg;

    start_job(sm, &sm->now, done, darg);
}

static void durable(void *arg, struct bns_raft_snapmeta *out)
{
    struct bns_register_sm *sm = arg;

    memset(out, 0, sizeof *out);
    out->index = sm->durable.index;
    out->term = sm->durable.term;
    out->conf = sm->durable.conf;
}

/* ---- snapshots ------------------------------------------------------------------------------ */

static void snap_open(void *arg, bns_sm_snap_done *done, void *darg)
{
    struct bns_register_sm *sm = arg;
    struct bns_sm_snap *s = bns_alloc(sm->env->alloc, sizeof *s);
    struct bns_raft_snapmeta meta = {
        .index = sm->now.index, .term = sm->now.term, .conf = sm->now.conf};

    if (s == NULL) {
        done(darg, BNS_E_NOMEM, NULL, NULL, 0);
        return;
    }
    image_put(&sm->now, s->image);
    done(darg, BNS_OK, s, &meta, IMAGE_BYTES);
}

static void snap_read(void *arg, struct bns_sm_snap *s, uint64_t off, size_t len,
                      bns_sm_read_done *done, void *darg)
{
    (void)arg;
    if (len > 8192)
        len = 8192; /* several chunks */
    if (len > IMAGE_BYTES - off)
        len = (size_t)(IMAGE_BYTES - off);
    done(darg, BNS_OK, bns_slice(s->image + off, len));
}

static void snap_close(void *arg, struct bns_sm_snap *s)
{
    struct bns_register_sm *sm = arg;

    bns_free(sm->env->alloc, s);
}

static void install_abort(void *arg)
{
    struct bns_register_sm *sm = arg;

    bns_free(sm->env->alloc, sm->incoming);
    sm->incoming = NULL;
}

static void install_begin(void *arg, const struct bns_raft_snapmeta *meta, uint64_t bytes,
                          bns_sm_done *done, void *darg)
{
    struct bns_register_sm *sm = arg;

    (void)meta;
    install_abort(sm);
    sm->incoming_len = 0;
    if (bytes == IMAGE_BYTES)
        sm->incoming = bns_alloc(sm->env->alloc, IMAGE_BYTES);
    done(darg, sm->incoming != NULL ? BNS_OK : BNS_E_NOMEM);
}

static void chunk_run(struct bns_job *j)
{
    struct bns_register_sm *sm = BNS_CONTAINER(j, struct bns_register_sm, chunk_job);

    memcpy(sm->incoming + sm->incoming_len, sm->chunk.ptr, sm->chunk.len);
}

static void chunk_over(struct bns_job *j)
{
    struct bns_register_sm *sm = BNS_CONTAINER(j, struct bns_register_sm, chunk_job);

    sm->incoming_len += sm->chunk.len;
    sm->chunk_done(sm->chunk_arg, BNS_OK);
}

static void install_chunk(void *arg, uint64_t off, struct bns_slice chunk, bns_sm_done *done,
                          void *darg)
{
    struct bns_register_sm *sm = arg;

    BNS_ASSERT(off == sm->incoming_len && off + chunk.len <= IMAGE_BYTES);
    sm->chunk = chunk;
    sm->chunk_done = done;
    sm->chunk_arg = darg;
    sm->chunk_job.run = chunk_run;
    sm->chunk_job.done = chunk_over;
    bns_pool_submit(sm->env, &sm->chunk_job);
}

static void install_end(void *arg, bns_sm_done *done, void *darg)
{
    struct bns_register_sm *sm = arg;
    struct state s;

    BNS_ASSERT(sm->incoming_len == IMAGE_BYTES);
    image_get(sm->incoming, &s);
    install_abort(sm);
    sm->install = true;
    start_job(sm, &s, done, darg);
}

static void role(void *arg, enum bns_raft_role r, uint64_t term, uint64_t leader)
{
    (void)arg;
    (void)r;
    (void)term;
    (void)leader;
}

static uint64_t digest(void *arg)
{
    return bns_register_digest(arg);
}

const struct bns_sm_ops *bns_register_ops(void)
{
    static const struct bns_sm_ops ops = {
        .apply = apply,
        .checkpoint = checkpoint,
        .durable = durable,
        .snap_open = snap_open,
        .snap_read = snap_read,
        .snap_close = snap_close,
        .install_begin = install_begin,
        .install_chunk = install_chunk,
        .install_end = install_end,
        .install_abort = install_abort,
        .role = role,
        .digest = digest,
    };
    return &ops;
}

static int load(struct bns_register_sm *sm, struct bns_err *err)
{
    struct bns_snap_reader *r = NULL;
    uint8_t *image;
    size_t len = 0;
    int rv = bns_snap_open(sm->env->vfs, sm->env->alloc, sm->path, &r, err);

    if (rv == BNS_E_NOTFOUND)
        return BNS_OK;
    if (rv != BNS_OK)
        return rv;
    image = bns_alloc(sm->env->alloc, BNS_SNAP_CHUNK_MAX);
    rv = image == NULL ? BNS_E_NOMEM : bns_snap_read(r, 0, image, &len, err);
    if (rv == BNS_OK && len != IMAGE_BYTES)
        rv = bns_err_set(err, BNS_E_CORRUPT, "%s: %zu bytes are not an image", sm->path, len);
    if (rv == BNS_OK)
        image_get(image, &sm->now);
    sm->durable = sm->now;
    bns_free(sm->env->alloc, image);
    bns_snap_close(r);
    return rv;
}

int bns_register_open(struct bns_env *env, const char *dir, bns_register_fn *fn, void *arg,
                      struct bns_register_sm **out, struct bns_err *err)
{
    struct bns_register_sm *sm = bns_alloc_zero(env->alloc, sizeof *sm);
    int len;

    if (sm == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "register_sm: out of memory");
    sm->env = env;
    sm->fn = fn;
    sm->arg = arg;
    len = snprintf(sm->path, sizeof sm->path, "%s/registers.snap", dir);
    BNS_ASSERT(len > 0 && (size_t)len < sizeof sm->path);
    *out = sm;
    return load(sm, err);
}

void bns_register_close(struct bns_register_sm *sm)
{
    BNS_ASSERT(sm->done == NULL);
    install_abort(sm);
    bns_free(sm->env->alloc, sm);
}

uint64_t bns_register_value(const struct bns_register_sm *sm, uint8_t key)
{
    return sm->now.reg[key % BNS_REGISTERS];
}

const struct bns_raft_conf *bns_register_conf(const struct bns_register_sm *sm)
{
    return &sm->now.conf;
}

uint64_t bns_register_applied(const struct bns_register_sm *sm)
{
    return sm->now.index;
}

uint64_t bns_register_digest(const struct bns_register_sm *sm)
{
    return sm->now.digest;
}
