/* test_bolt_dump.c - a dump for a client that ends early, with the process, or by a failing disk.
 *
 * Whatever happens to it, the store goes on, and neither memory nor files are left. */
#include "bolt_world.h"

/* As dump(), but it may fail, and after `events` events it is given up. 1 = it was complete, 0 =
 * given up, else the error. */
static int try_dump(struct kvw *k, struct file *f, size_t events)
{
    *f = (struct file){.k = k};
    assert_true(bns_world_call(k->w, 0, open_dump, f));
    while (k->kv != NULL && !(f->done && f->code != BNS_OK) &&
           (!f->done || f->len < etcd_dump_bytes(f->dump) + 32)) {
        if (events-- == 0)
            return 0;
        if (f->done) {
            f->done = false;
            assert_true(bns_world_call(k->w, 0, read_dump, f));
        }
        if (!bns_world_step(k->w))
            break;
    }
    return k->kv == NULL ? BNS_E_OFF : f->code != BNS_OK ? f->code : 1;
}

struct names {
    size_t snaps;
};

static int count_snap(void *arg, const char *name)
{
    ((struct names *)arg)->snaps += strncmp(name, "snap-", 5) == 0;
    return 0;
}

static size_t leftovers(struct kvw *k)
{
    struct names n = {0};

    assert_true(bns_vfs_list(bns_world_vfs(k->w, 0), "/data", count_snap, &n, NULL) >= 0);
    return n.snaps;
}

/* Closed, or the process killed, after every number of events: no memory, no file is left. */
static void a_dump_can_end_at_any_time(void **state)
{
    int over = 0;

    (void)state;
    for (size_t events = 0; over < 2; events++) {
        for (int kill = 0; kill < 2; kill++) {
            struct file f;
            struct kvw k;

            kvw_init(&k, events + 1, NULL);
            assert_true(kvw_up(&k));
            fill(&k, 30);
            over += try_dump(&k, &f, events) == 1;
            if (kill) {
                bns_world_kill(k.w, 0);
                kvw_settle(&k);
                assert_true(kvw_up(&k));
            } else {
                assert_true(bns_world_call(k.w, 0, close_dump, &f));
                kvw_settle(&k);
            }
            assert_int_equal(leftovers(&k), 0);
            if (!kill) /* a restarted node finds the alarm that fill() has left */
                assert_true(do_put(&k, "still", "here") > 0);
            free(f.bytes);
            kvw_free(&k); /* looks for leaks */
        }
        assert_true(events < 2000);
    }
}

/* What goes wrong with a dump's files is the dump's trouble, not the store's. */
static void a_failing_dump_leaves_the_store_alone(void **state)
{
    static const enum bns_vfs_mem_fault kinds[] = {BNS_VFAULT_EIO, BNS_VFAULT_NOSPACE};

    (void)state;
    for (size_t kind = 0; kind < 2; kind++) {
        bool fired = true;
        int failed = 0;

        for (uint64_t n = 1; fired; n++) {
            struct file f;
            struct kvw k;
            int code;

            kvw_init(&k, n, NULL);
            assert_true(kvw_up(&k));
            fill(&k, 30);
            bns_vfs_mem_fail_on(bns_world_vfs(k.w, 0), BNS_VOP_ALL, "snap-", n, kinds[kind]);
            code = try_dump(&k, &f, SIZE_MAX);
            fired = bns_vfs_mem_fired(bns_world_vfs(k.w, 0));
            bns_vfs_mem_fail_at(bns_world_vfs(k.w, 0), 0, BNS_VFAULT_NONE);
            assert_true(code == 1 || code == BNS_E_IO || code == BNS_E_NOSPACE);
            failed += code != 1;
            assert_true(bns_world_call(k.w, 0, close_dump, &f));
            kvw_settle(&k);
            assert_true(do_put(&k, "still", "here") > 0);
            free(f.bytes);
            kvw_free(&k);
            assert_true(n < 5000);
        }
        print_message("  %d failed\n", failed);
        assert_true(failed > 5);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dump_can_end_at_any_time),
        cmocka_unit_test(a_failing_dump_leaves_the_store_alone),
    };

    memset(big, 'b', sizeof big - 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
