/* ctest: labels=threads */
/* test_log_dir_uv.c - a log directory in the production env: real threads, real files.
 *
 * Method: producers keep appends in flight from their own completions, readers read on the pool
 * what the high watermark says meanwhile; then the directory is closed, opened again and counted.
 * Run it under the thread sanitizer: loop, worker and pool meet here. */
#include <stdlib.h>
#include <unistd.h>

#include "io/env_uv.h"
#include "log/dir.h"
#include "log_kit.h"
#include "store/vfs_posix.h"

#define PARTS 3
#define DEPTH 8
#define APPENDS 400 /* a partition */

struct rig {
    struct bns_env *env;
    struct bns_vfs *vfs;
    struct kafka_dir *dir;
    struct kafka_dir_cfg cfg;
    struct flow {
        struct rig *rig;
        struct kafka_part *part;
        struct kafka_op_create create;
        struct writer {
            struct flow *flow;
            struct kafka_op_append op;
            struct bns_buf bytes;
        } writers[DEPTH];
        size_t started, written;
        int64_t last_base;
        struct kafka_op_read read;
        struct bns_buf got;
        int64_t at;
        bool reading;
    } flows[PARTS];
    int busy, code;
};

static void failed(void *arg, int code, const struct bns_err *err)
{
    struct rig *r = arg;

    if (code != BNS_OK)
        print_message("%d: %s\n", code, err->text);
    r->code = code;
    bns_env_uv_stop(r->env);
}

static void part_cfg(void *arg, const struct kafka_part *p, struct kafka_part_cfg *out)
{
    (void)arg;
    (void)p;
    out->log.segment_bytes = 20000;
    out->log.index_interval = 500;
}

/* An append's completion comes before the word that the high watermark moved: nothing in flight
 * is not the end yet, a reader may have the last batch before it. */
static void maybe_stop(struct rig *r)
{
    for (int i = 0; i < PARTS; i++) {
        const struct flow *f = &r->flows[i];
        if (f->written < APPENDS || f->at < kafka_part_view(f->part)->end)
            return;
    }
    if (r->busy == 0)
        bns_env_uv_stop(r->env);
}

static void read_more(struct flow *f);

static void on_read(struct kafka_op *op)
{
    struct flow *f = op->arg;
    struct bns_slice in = bns_buf_slice(&f->got);
    struct kafka_batch b;

    assert_int_equal(op->error, 0);
    f->reading = false;
    f->rig->busy--;
    while (in.len > 0) {
        assert_int_equal(kafka_batch_next(&in, &b, NULL), BNS_OK);
        assert_true(kafka_batch_crc_ok(&b));
        assert_int_equal(b.base_offset, f->at);
        f->at = kafka_batch_last_offset(&b) + 1;
        assert_true(f->at <= kafka_part_view(f->part)->flushed); /* nobody sees what may be lost */
    }
    read_more(f);
    maybe_stop(f->rig);
}

static void read_more(struct flow *f)
{
    if (f->reading || f->at >= kafka_part_view(f->part)->high_watermark)
        return;
    bns_buf_clear(&f->got);
    f->read = (struct kafka_op_read){.op = {.done = on_read, .arg = f},
                                     .offset = f->at,
                                     .below = INT64_MAX,
                                     .bytes_max = 3000,
                                     .one_at_least = true,
                                     .to = &f->got};
    assert_int_equal(kafka_part_read(f->part, &f->read), BNS_OK);
    f->reading = true;
    f->rig->busy++;
}

static void on_advance(void *arg, struct kafka_part *p)
{
    struct rig *r = arg;

    assert_non_null(p);
    for (int i = 0; i < PARTS; i++)
        if (r->flows[i].part == p)
            read_more(&r->flows[i]);
}

static void write_more(struct writer *w);

static void on_written(struct kafka_op *op)
{
    struct writer *w = op->arg;
    struct flow *f = w->flow;

    assert_int_equal(op->error, 0);
    assert_true(w->op.base > f->last_base);
    assert_true(kafka_part_view(f->part)->flushed > w->op.base);
    f->last_base = w->op.base;
    f->written++;
    f->rig->busy--;
    write_more(w);
    maybe_stop(f->rig);
}

static void write_more(struct writer *w)
{
    struct flow *f = w->flow;

    if (f->started == APPENDS)
        return;
    bns_buf_clear(&w->bytes);
    kit_make(f->started++, &w->bytes);
    w->op = (struct kafka_op_append){.op = {.done = on_written, .arg = w},
                                     .bytes = w->bytes.ptr,
                                     .len = w->bytes.len,
                                     .sync = true};
    assert_int_equal(kafka_part_append(f->part, &w->op), BNS_OK);
    f->rig->busy++;
}

static void on_created(struct kafka_op *op)
{
    struct flow *f = op->arg;

    assert_int_equal(op->error, 0);
    f->rig->busy--;
    f->part = op->part;
    f->last_base = -1;
    for (int i = 0; i < DEPTH; i++) {
        f->writers[i].flow = f;
        bns_buf_init(&f->writers[i].bytes, bns_alloc_libc(), 1 << 20);
        write_more(&f->writers[i]);
    }
}

static void rig_open(struct rig *r)
{
    struct bns_err err = {0};

    assert_int_equal(kafka_dir_open(r->env, &r->cfg, failed, r, &r->dir, &err), BNS_OK);
    bns_env_uv_run(r->env);
    assert_int_equal(r->code, BNS_OK);
}

static void rig_close(struct rig *r)
{
    kafka_dir_close(r->dir, failed, r);
    bns_env_uv_run(r->env);
    assert_int_equal(r->code, BNS_OK);
}

static int unlink_all(void *arg, const char *name)
{
    struct bns_vfs *v = ((void **)arg)[0];
    const char *dir = ((void **)arg)[1];
    struct bns_file_stat st;
    char path[BNS_PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    if (bns_vfs_stat(v, path, &st, NULL) == BNS_OK && st.is_dir)
        (void)(bns_vfs_list(v, path, unlink_all, (void *[]){v, path}, NULL) == BNS_OK);
    (void)(bns_vfs_remove(v, path, NULL) == BNS_OK);
    return 0;
}

static void appends_and_reads_run_side_by_side(void **state)
{
    static struct rig r;
    char dir[256];
    const char *tmp = getenv("TMPDIR");

    (void)state;
    (void)snprintf(dir, sizeof dir, "%s/kafka-dir-XXXXXX", tmp == NULL ? "/tmp" : tmp);
    assert_non_null(mkdtemp(dir));
    r.vfs = bns_vfs_posix(bns_alloc_libc());
    assert_int_equal(bns_env_uv_new(bns_alloc_libc(), r.vfs, &r.env, NULL), BNS_OK);
    kafka_dir_cfg_default(&r.cfg);
    r.cfg.path = dir;
    r.cfg.on_advance = on_advance;
    r.cfg.part_cfg = part_cfg;
    r.cfg.arg = &r;
    rig_open(&r);
    for (int i = 0; i < PARTS; i++) {
        struct flow *f = &r.flows[i];
        f->rig = &r;
        f->create = (struct kafka_op_create){
            .op = {.done = on_created, .arg = f}, .topic = "t", .index = i, .id = {{1}}};
        kafka_part_cfg_default(&f->create.cfg);
        part_cfg(NULL, NULL, &f->create.cfg);
        bns_buf_init(&f->got, bns_alloc_libc(), 1 << 20);
        r.busy++;
        assert_int_equal(kafka_part_create(r.dir, &f->create), BNS_OK);
    }
    bns_env_uv_run(r.env);
    for (int i = 0; i < PARTS; i++) {
        assert_int_equal(r.flows[i].written, APPENDS);
        assert_int_equal(r.flows[i].at, kafka_part_view(r.flows[i].part)->end);
        assert_true(kafka_part_view(r.flows[i].part)->segments > 3);
        for (int j = 0; j < DEPTH; j++)
            bns_buf_free(&r.flows[i].writers[j].bytes);
        bns_buf_free(&r.flows[i].got);
    }
    rig_close(&r);
    rig_open(&r);
    assert_int_equal(kafka_dir_count(r.dir), PARTS);
    for (int i = 0; i < PARTS; i++)
        assert_int_equal(kafka_part_view(kafka_dir_find(r.dir, bns_slice("t", 1), i))->end,
                         r.flows[i].at);
    rig_close(&r);
    bns_env_uv_free(r.env);
    (void)(bns_vfs_list(r.vfs, dir, unlink_all, (void *[]){r.vfs, dir}, NULL) == BNS_OK);
    (void)(bns_vfs_remove(r.vfs, dir, NULL) == BNS_OK);
    bns_vfs_posix_free(r.vfs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(appends_and_reads_run_side_by_side)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
