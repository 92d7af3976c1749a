/* ctest: labels=threads */
/* test_wal_uv.c - the log in the production env: real threads, real files.
 *
 * Method: appends are kept in flight from their own completions until a count is reached, through
 * many rolls, spares and releases; then the log is closed, opened again and counted. Run it under
 * the thread sanitizer: loop, worker and pool meet here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/env_uv.h"
#include "sim/heap.h"
#include "store/vfs_posix.h"
#include "store/wal.h"

#define DEPTH 32
#define APPENDS 3000
#define BYTES 1000

struct rig {
    struct bns_test_heap *heap;
    struct bns_metrics *metrics;
    struct bns_env *env;
    struct bns_vfs *vfs;
    struct bns_wal *wal;
    struct bns_wal_append append[DEPTH];
    struct bns_wal_record record[DEPTH][2];
    uint8_t bytes[BYTES];
    uint64_t started, done, last_lsn, replayed, first_seen;
    bool release;
};

static int on_replay(void *arg, uint64_t lsn, uint32_t group, uint8_t type, struct bns_slice p)
{
    struct rig *r = arg;
    assert_int_equal(group, 4);
    assert_int_equal(type, BNS_WAL_ENTRY);
    assert_int_equal(p.len, BYTES);
    if (r->replayed++ == 0)
        r->first_seen = lsn;
    return BNS_OK;
}

static void start(struct rig *r, struct bns_wal_append *a)
{
    r->started++;
    assert_int_equal(bns_wal_append(r->wal, a), BNS_OK);
}

static void on_done(struct bns_wal_append *a, int code)
{
    struct rig *r = a->arg;

    assert_int_equal(code, BNS_OK);
    assert_true(a->lsn_first > r->last_lsn); /* in order */
    assert_true(bns_wal_durable_lsn(r->wal) >= a->lsn_last);
    r->last_lsn = a->lsn_last;
    r->done++;
    if (r->release && r->done % 500 == 0)
        bns_wal_release(r->wal, 4, a->lsn_first);
    if (r->started < APPENDS)
        start(r, a);
    else if (r->done == APPENDS)
        bns_env_uv_stop(r->env);
}

static void on_closed(void *arg)
{
    bns_env_uv_stop(((struct rig *)arg)->env);
}

static void rig_open(struct rig *r, const char *dir)
{
    struct bns_wal_config cfg = {.dir = dir, .segment_bytes_max = 256u << 10};
    struct bns_err err = {0};

    r->heap = bns_test_heap(0);
    assert_int_equal(bns_metrics_new(bns_test_heap_alloc(r->heap), &r->metrics), BNS_OK);
    assert_int_equal(bns_env_uv_new(bns_test_heap_alloc(r->heap), r->vfs, &r->env, &err), BNS_OK);
    r->env->metrics = r->metrics;
    if (bns_wal_open(r->env, &cfg, on_replay, r, &r->wal, &err) != BNS_OK)
        fail_msg("%s", err.text);
}

static void rig_close(struct rig *r)
{
    bns_wal_close(r->wal, on_closed, r);
    bns_env_uv_run(r->env);
    bns_env_uv_free(r->env);
    bns_metrics_free(r->metrics);
    assert_int_equal(bns_test_heap_close(r->heap, NULL), 0);
}

static void append_all(struct rig *r)
{
    r->started = r->done = r->last_lsn = 0;
    for (size_t i = 0; i < DEPTH; i++) {
        for (size_t k = 0; k < 2; k++) {
            r->record[i][k] =
                (struct bns_wal_record){.group = 4, .type = BNS_WAL_ENTRY, .slices = 2};
            r->record[i][k].payload[0] = bns_slice(r->bytes, 10);
            r->record[i][k].payload[1] = bns_slice(r->bytes + 10, BYTES - 10);
        }
        r->append[i] = (struct bns_wal_append){
            .records = r->record[i], .records_count = 2, .done = on_done, .arg = r};
        start(r, &r->append[i]);
    }
    bns_env_uv_run(r->env);
    assert_int_equal(r->done, APPENDS);
}

static void check_metrics(struct rig *r)
{
    struct bns_wal_stats st;

    bns_wal_stats(r->wal, &st);
    assert_int_equal(bns_counter(r->metrics, "wal_fsync_total", NULL, "")->value, st.syncs);
    assert_int_equal(bns_counter(r->metrics, "wal_bytes_total", NULL, "")->value, st.bytes);
    assert_true(bns_hist_count(bns_hist(r->metrics, "wal_fsync_seconds", NULL, "")) > 0);
    assert_true(bns_hist_count(bns_hist(r->metrics, "wal_batch_records", NULL, "")) > 0);
    assert_true(st.syncs < APPENDS); /* commits were grouped */
    assert_true(st.records >= 2 * APPENDS);
}

static int remove_name(void *arg, const char *name)
{
    char path[400];
    (void)snprintf(path, sizeof path, "%s/%s", (const char *)arg, name);
    return unlink(path);
}

/* 6,000 records through 24 segments come back; released ones are gone from the disk. */
static void threads_and_files(void **state)
{
    const char *base = getenv("TMPDIR");
    struct rig *r = calloc(1, sizeof *r);
    struct bns_wal_stats st;
    char dir[300];
    (void)state;

    (void)snprintf(dir, sizeof dir, "%s/bns-wal-uv-XXXXXX", base == NULL ? "/tmp" : base);
    assert_non_null(mkdtemp(dir));
    r->vfs = bns_vfs_posix(bns_alloc_libc());
    rig_open(r, dir);
    append_all(r);
    check_metrics(r);
    rig_close(r);
    rig_open(r, dir);
    assert_int_equal(r->replayed, 2 * APPENDS);
    r->release = true;
    append_all(r);
    rig_close(r);
    r->replayed = 0;
    rig_open(r, dir);
    bns_wal_stats(r->wal, &st);
    assert_true(r->replayed >= 2); /* the batch that the last release left */
    assert_true(r->replayed < 2 * APPENDS);
    assert_true(st.segments < 12);
    rig_close(r);
    assert_int_equal(bns_vfs_list(r->vfs, dir, remove_name, dir, NULL), BNS_OK);
    assert_int_equal(rmdir(dir), 0);
    bns_vfs_posix_free(r->vfs);
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_and_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
