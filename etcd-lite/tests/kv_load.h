/* kv_load.h - a load on a real store: libuv's loop, a worker thread, files in a temporary folder.
 *
 * Batches of puts are applied one behind the other; each waits for its answers. Between them go
 * reads of random keys, so that loop and worker pass buffers to and fro all the time. */
#ifndef ETCD_TESTS_KV_LOAD_H
#define ETCD_TESTS_KV_LOAD_H

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
#include "kv.h"
#include "store/vfs_posix.h"

#define BATCH 64
#define KEYS 5000

struct load {
    struct bns_env *env;
    struct bns_vfs *vfs;
    struct etcd_kv *kv;
    char dir[64];
    uint64_t puts, puts_max, reads, reads_done, reads_per_batch, index;
    uint64_t answered, checkpoints;
    uint8_t value[256];
    struct bns_raft_entry entries[BATCH];
    struct etcd_waiter waiters[BATCH];
    struct bns_task task;
    bool checkpointing, ended;
};

static void load_next(struct load *l);

static void load_release(struct etcd_answer *a)
{
    assert_int_equal(a->status, 0);
    etcd_answer_header(a, 1, 2, 3);
    assert_true(a->slices[0].len > 0);
    a->release(a->release_arg, BNS_OK);
}

static void load_stop(void *arg)
{
    bns_env_uv_stop(((struct load *)arg)->env);
}

static void load_check_end(struct load *l)
{
    if (l->puts < l->puts_max || l->reads_done < l->reads || l->checkpointing || l->ended)
        return;
    l->ended = true;
    etcd_kv_drain(l->kv, load_stop, l);
}

struct load_read {
    struct load *l;
    Etcdserverpb__RangeRequest req;
    char key[16];
};
static void load_read_done(void *arg, struct etcd_answer *a)
{
    struct load_read *r = arg;
    struct load *l = r->l;

    load_release(a);
    free(r);
    l->reads_done++;
    load_check_end(l);
}
static void load_read(struct load *l)
{
    struct load_read *r = calloc(1, sizeof *r);

    r->l = l;
    r->req = (Etcdserverpb__RangeRequest)ETCDSERVERPB__RANGE_REQUEST__INIT;
    (void)snprintf(r->key, sizeof r->key, "key%06u", (unsigned)bns_prng_below(&l->env->prng, KEYS));
    r->req.key.data = (uint8_t *)r->key;
    r->req.key.len = strlen(r->key);
    l->reads++;
    etcd_kv_range(l->kv, &r->req, load_read_done, r);
}

static void load_answer(struct etcd_waiter *w, struct etcd_answer *a)
{
    struct load *l = BNS_CONTAINER(w - (w->id - 1) % BATCH, struct load, waiters[0]);

    l->answered++;
    load_release(a);
}

static void load_checkpointed(void *arg, int code)
{
    struct load *l = arg;

    assert_int_equal(code, BNS_OK);
    l->checkpointing = false;
    l->checkpoints++;
    load_check_end(l);
}

static void load_again(struct bns_task *t)
{
    load_next(BNS_CONTAINER(t, struct load, task));
}

static void load_applied(void *arg, int code)
{
    struct load *l = arg;

    assert_int_equal(code, BNS_OK);
    for (int i = 0; i < BATCH; i++)
        bns_rcbuf_put(l->entries[i].data);
    l->puts += BATCH;
    if (l->puts / BATCH % 100 == 0 && !l->checkpointing) {
        l->checkpointing = true;
        etcd_kv_sm()->checkpoint(l->kv, load_checkpointed, l);
    }
    for (uint64_t i = 0; i < l->reads_per_batch; i++)
        load_read(l);
    l->task.fn = load_again;
    if (l->puts < l->puts_max)
        bns_post(l->env, &l->task);
    else
        load_check_end(l);
}

static void load_next(struct load *l)
{
    uint8_t req[512];

    for (unsigned i = 0; i < BATCH; i++) {
        char key[16];
        int n = snprintf(key, sizeof key, "key%06u", (unsigned)bns_prng_below(&l->env->prng, KEYS));
        size_t len = 0;
        req[len++] = 0x0a;
        req[len++] = (uint8_t)n;
        memcpy(req + len, key, (size_t)n);
        len += (size_t)n;
        req[len++] = 0x12;
        req[len++] = 0x80;
        req[len++] = 0x02;
        memcpy(req + len, l->value, 256);
        len += 256;
        l->index++;
        l->waiters[i].id = l->index;
        l->waiters[i].fn = load_answer;
        assert_int_equal(etcd_kv_wait(l->kv, &l->waiters[i]), BNS_OK);
        l->entries[i] =
            (struct bns_raft_entry){.index = l->index,
                                    .term = 1,
                                    .data = etcd_internal_encode(bns_alloc_libc(), l->index,
                                                                 ETCD_OP_PUT, bns_slice(req, len))};
    }
    etcd_kv_sm()->apply(l->kv, l->entries, BATCH, load_applied, l);
}

static int load_remove(void *arg, const char *name)
{
    struct load *l = arg;
    char path[256];

    (void)snprintf(path, sizeof path, "%s/%s", l->dir, name);
    return unlink(path) == 0 ? 0 : -1;
}

static void load_run(struct load *l, const struct etcd_kv_config *cfg)
{
    struct etcd_kv_config c = *cfg;
    struct bns_err err = {0};

    (void)snprintf(l->dir, sizeof l->dir, "/tmp/bns-kv-XXXXXX");
    assert_non_null(mkdtemp(l->dir));
    l->vfs = bns_vfs_posix(bns_alloc_libc());
    assert_int_equal(bns_env_uv_new(bns_alloc_libc(), l->vfs, &l->env, &err), BNS_OK);
    c.dir = l->dir;
    assert_int_equal(etcd_kv_open(l->env, &c, &l->kv, &err), BNS_OK);
    l->task.fn = load_again;
    bns_post(l->env, &l->task);
    bns_env_uv_run(l->env);
    assert_true(l->ended);
    assert_int_equal(l->answered, l->puts);
    assert_int_equal(etcd_kv_revision(l->kv), l->puts + 1);
    etcd_kv_close(l->kv);
    assert_int_equal(etcd_kv_open(l->env, &c, &l->kv, &err), BNS_OK); /* all is there again */
    assert_int_equal(etcd_kv_revision(l->kv), l->puts + 1);
    assert_int_equal(etcd_kv_applied(l->kv), l->index);
    etcd_kv_close(l->kv);
    bns_env_uv_free(l->env);
    assert_int_equal(bns_vfs_list(l->vfs, l->dir, load_remove, l, &err), 0);
    assert_int_equal(rmdir(l->dir), 0);
    bns_vfs_posix_free(l->vfs);
}

#endif
