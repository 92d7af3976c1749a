/* test_restore.c - snapshots for clients, and what a restore makes of them.
 *
 * Source: one store of kv_world.h with history, deletions, a compaction, leases, users. Its dump is
 * restored on a disk in memory, opened, and compared. Then: writes during the dump; every byte of
 * the file flipped, and the file cut at every byte, with and without the digest; a power cut, an
 * I/O error, a failed allocation in every call of the restore. */
#include "bolt_world.h"

#include "restore_int.h"
#include "tests/store_env.h"

#define KV_DIR "/r/kv"

/* ---- a restored directory -------------------------------------------------------------------- */

struct target {
    struct bns_vfs *vfs;
    struct senv senv;
    struct etcd_restore *restore;
    bool done;
    int code;
    char text[300];
    char wide[ETCD_RESTORE_TEXT_MAX];
    int64_t revision;
};

static void on_restored(void *arg, int code, const char *text)
{
    struct target *t = arg;

    t->done = true;
    t->code = code;
    t->revision = etcd_restore_revision(t->restore);
    (void)snprintf(t->text, sizeof t->text, "%s", text);
    etcd_restore_free(t->restore);
    t->restore = NULL;
}

static void target_init(struct target *t, uint64_t seed, const uint8_t *bytes, size_t len)
{
    struct bns_slice v = bns_slice(bytes, len);
    struct bns_file *f = NULL;
    struct bns_err err;

    memset(t, 0, sizeof *t);
    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), seed, &t->vfs), BNS_OK);
    assert_int_equal(bns_vfs_open(t->vfs, "/snap.db", BNS_OPEN_CREATE, &f, &err), BNS_OK);
    assert_int_equal(bns_file_write_at(f, 0, &v, 1, &err), BNS_OK);
    assert_int_equal(bns_file_sync(f, false, &err), BNS_OK);
    assert_int_equal(bns_vfs_sync_dir(t->vfs, "/", &err), BNS_OK);
    bns_file_close(f);
}

static void target_free(struct target *t)
{
    bns_vfs_mem_drop_handles(t->vfs);
    bns_vfs_mem_free(t->vfs);
}

static struct etcd_restore_config config(struct target *t)
{
    return (struct etcd_restore_config){.file = "/snap.db",
                                        .data_dir = "/r",
                                        .name = "n1",
                                        .initial_cluster = "n1=http://h:1,n2=http://h:2",
                                        .token = "t",
                                        .peer_urls = "http://h:1",
                                        .wide = t->wide};
}

/* Runs the restore to its end or to the node's death; the code. */
static int restore(struct target *t, const struct etcd_restore_config *cfg, int fail_at,
                   bool *fired)
{
    struct bns_err err = {0};

    senv_init(&t->senv, t->vfs, 1, fail_at);
    t->done = false;
    t->text[0] = 0;
    t->code = etcd_restore_start(&t->senv.env, cfg, on_restored, t, &t->restore, &err);
    if (t->code == BNS_OK)
        senv_pump(&t->senv);
    else
        (void)snprintf(t->text, sizeof t->text, "%s", err.text);
    senv_check(&t->senv);
    if (t->senv.dead) {
        t->code = BNS_E_OFF;
        etcd_restore_died(t->restore);
        t->restore = NULL;
    }
    assert_true(t->senv.dead || t->code != BNS_OK || t->done);
    assert_int_equal(senv_free(&t->senv, fired), 0);
    return t->code;
}

/* What the identity file says: -1 = there is none, 0 = not finished, 1 = whole. */
static int identity(struct target *t)
{
    struct bns_file *f = NULL;
    struct bns_err err;
    char text[200];
    size_t got = 0;

    if (bns_vfs_open(t->vfs, "/r/identity", BNS_OPEN_READ, &f, &err) != BNS_OK)
        return -1;
    assert_int_equal(bns_file_read_at(f, 0, text, sizeof text - 1, &got, &err), BNS_OK);
    bns_file_close(f);
    text[got] = 0;
    if (strcmp(text, ETCD_RESTORE_UNFINISHED) == 0)
        return 0;
    assert_true(strncmp(text, "etcd-lite format 1\ncluster ", 27) == 0);
    return 1;
}

struct state {
    int64_t revision, compacted;
    uint32_t hash;
    uint64_t keys, applied;
    bool hashed, drained;
};

static void on_hash(void *arg, struct etcd_answer *a)
{
    struct state *s = arg;
    struct got g = {0};

    kvw_take(&g, a);
    assert_int_equal(g.status, 0);
    s->hashed = true;
    for (size_t i = 0; i + 5 < g.len; i++)
        s->hash = s->hash * 31 + g.bytes[i];
    free(g.bytes);
}

static void on_drained(void *arg)
{
    ((struct state *)arg)->drained = true;
}

static int no_record(void *arg, const char *file, uint64_t off, uint64_t lsn, uint32_t group,
                     uint8_t type, struct bns_slice p)
{
    (void)file;
    (void)off;
    (void)lsn;
    if (group == 1 && type == BNS_WAL_SNAPMARK && bns_get_u64le(p.ptr) == 2 &&
        bns_get_u64le(p.ptr + 8) == 1)
        *(bool *)arg = true;
    return BNS_OK;
}

/* Opens what was restored, as a daemon does. */
static int look(struct target *t, struct state *s, void (*with)(struct etcd_kv *kv))
{
    struct etcd_kv_config kc = {.dir = KV_DIR};
    struct etcd_kv *kv = NULL;
    struct bns_err err = {0};
    bool fired, marked = false;
    int rv;

    *s = (struct state){0};
    senv_init(&t->senv, t->vfs, 1, 0);
    rv = etcd_kv_open(&t->senv.env, &kc, &kv, &err);
    if (rv == BNS_OK) {
        s->revision = etcd_kv_revision(kv);
        s->compacted = etcd_kv_compacted(kv);
        s->keys = etcd_kv_keys(kv);
        s->applied = etcd_kv_applied(kv);
        if (with != NULL)
            with(kv);
        etcd_kv_hash(kv, 0, on_hash, s);
        senv_advance(&t->senv, BNS_SEC);
        assert_true(s->hashed);
        etcd_kv_drain(kv, on_drained, s);
        senv_pump(&t->senv);
        assert_true(s->drained);
        etcd_kv_close(kv);
        rv = bns_wal_visit(t->vfs, bns_alloc_libc(), "/r/wal", no_record, &marked, &err);
        assert_true(marked);
    }
    assert_int_equal(senv_free(&t->senv, &fired), 0);
    return rv;
}

static uint32_t hash_of(struct kvw *k, int64_t rev)
{
    struct got g = kvw_read(k, kvw_do_hash, NULL, rev);
    uint32_t h = 0;

    for (size_t i = 0; i + 5 < g.len; i++)
        h = h * 31 + g.bytes[i];
    free(g.bytes);
    return h;
}

/* ---- the tests ------------------------------------------------------------------------------- */

static void look_inside(struct etcd_kv *kv)
{
    assert_int_equal(etcd_bucket_get(kv, ETCD_BUCKET_AUTH, BNS_LIT("revision")).len, 8);
    assert_int_equal(etcd_bucket_get(kv, ETCD_BUCKET_AUTH, BNS_LIT("enabled")).len, 1);
    assert_int_equal(etcd_bucket_get(kv, ETCD_BUCKET_USERS, BNS_LIT("root")).len, 15);
    assert_int_equal(etcd_bucket_get(kv, ETCD_BUCKET_ROLES, BNS_LIT("r")).len, 10);
    assert_int_equal(etcd_bucket_get(kv, ETCD_BUCKET_LEASES, BNS_LIT("\0\0\0\0\0\0\0\5")).ptr[0],
                     40);
    assert_null(etcd_bucket_next(kv, ETCD_BUCKET_ALARMS, NULL));
    assert_null(etcd_bucket_next(kv, ETCD_BUCKET_MEMBERS, NULL));
    assert_non_null(etcd_lessor_find(&kv->leases.lessor, -5));
    assert_int_equal(etcd_lessor_find(&kv->leases.lessor, 5)->ttl, 100);
    assert_int_equal(etcd_lessor_find(&kv->leases.lessor, 5)->keys_count, 1);
}

static void all_that_matters_comes_through(void **state)
{
    struct etcd_restore_config cfg;
    struct target t;
    struct state s;
    struct file f;
    struct kvw k;

    (void)state;
    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    fill(&k, 600);
    (void)dump(&k, &f, 0);
    target_init(&t, 1, f.bytes, f.len);
    cfg = config(&t);
    if (restore(&t, &cfg, 0, NULL) != BNS_OK)
        fail_msg("%s", t.text);
    assert_int_equal(identity(&t), 1);
    assert_int_equal(look(&t, &s, look_inside), BNS_OK);
    assert_int_equal(s.revision, etcd_kv_revision(k.kv));
    assert_int_equal(t.revision, s.revision);
    assert_int_equal(s.compacted, etcd_kv_compacted(k.kv));
    assert_int_equal(s.keys, etcd_kv_keys(k.kv));
    assert_int_equal(s.applied, 2); /* as many as there are members */
    assert_int_equal(s.hash, hash_of(&k, 0));
    assert_int_equal(restore(&t, &cfg, 0, NULL), BNS_E_EXISTS);
    assert_string_equal(t.text, "data-dir \"/r\" not empty or could not be read");
    assert_int_equal(identity(&t), 1);
    target_free(&t);
    free(f.bytes);
    kvw_free(&k);
}

/* What is written meanwhile is in the dump up to some revision, whole, and from there on not. */
static void a_dump_is_one_revision(void **state)
{
    size_t most = 0;

    (void)state;
    for (size_t writes = 1; writes < 60; writes += 6) {
        struct etcd_restore_config cfg;
        struct target t;
        struct state s;
        struct file f;
        struct kvw k;
        int64_t before;
        size_t done;

        kvw_init(&k, writes, NULL);
        assert_true(kvw_up(&k));
        fill(&k, 300);
        before = etcd_kv_revision(k.kv);
        done = dump(&k, &f, writes);
        most = done > most ? done : most;
        assert_int_equal(etcd_kv_revision(k.kv), before + (int64_t)done);
        target_init(&t, 1, f.bytes, f.len);
        cfg = config(&t);
        assert_int_equal(restore(&t, &cfg, 0, NULL), BNS_OK);
        assert_int_equal(look(&t, &s, NULL), BNS_OK);
        assert_true(s.revision >= before);
        assert_true(s.revision <= before + (int64_t)done);
        /* the answer's header says "now" of the source: equal only at the end */
        if (s.revision == etcd_kv_revision(k.kv))
            assert_int_equal(s.hash, hash_of(&k, s.revision));
        target_free(&t);
        free(f.bytes);
        kvw_free(&k);
    }
    assert_true(most > 10);
}

static void a_bump_leaves_only_the_new_revision(void **state)
{
    struct etcd_restore_config cfg;
    struct target t;
    struct state s;
    struct file f;
    struct kvw k;

    (void)state;
    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    fill(&k, 0);
    (void)dump(&k, &f, 0);
    target_init(&t, 1, f.bytes, f.len);
    cfg = config(&t);
    cfg.bump = 1000;
    assert_int_equal(restore(&t, &cfg, 0, NULL), BNS_OK);
    assert_int_equal(look(&t, &s, look_inside), BNS_OK);
    assert_int_equal(s.revision, etcd_kv_revision(k.kv) + 1000);
    assert_int_equal(s.compacted, s.revision);
    assert_int_equal(s.keys, etcd_kv_keys(k.kv));
    target_free(&t);
    free(f.bytes);
    kvw_free(&k);
}

static void flags_are_refused_in_etcds_words(void **state)
{
    static const struct {
        const char *name, *cluster, *urls, *text;
    } bad[] = {
        {"zz", "n1=http://h:1", "http://h:1",
         "couldn't find local name \"zz\" in the initial cluster configuration"},
        {"n1", "n1=http://h:1", "http://h:2",
         "--initial-cluster has n1=http://h:1 but missing from "
         "--initial-advertise-peer-urls=http://h:2 (resolved urls: \"http://h:2\" != "
         "\"http://h:1\")"},
    };
    struct target t;
    uint8_t junk[1024] = {0};

    (void)state;
    target_init(&t, 1, junk, sizeof junk);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct etcd_restore_config cfg = config(&t);

        cfg.name = bad[i].name;
        cfg.initial_cluster = bad[i].cluster;
        cfg.peer_urls = bad[i].urls;
        assert_int_equal(restore(&t, &cfg, 0, NULL), BNS_E_INVALID);
        assert_string_equal(t.wide[0] != 0 ? t.wide : t.text, bad[i].text);
    }
    struct etcd_restore_config cfg = config(&t);

    assert_int_equal(restore(&t, &cfg, 0, NULL), BNS_E_CORRUPT);
    assert_string_equal(t.text, "snapshot missing hash but --skip-hash-check=false");
    cfg.file = "/nope";
    assert_int_equal(restore(&t, &cfg, 0, NULL), BNS_E_NOTFOUND);
    assert_string_equal(t.text, "open /nope: no such file or directory");
    assert_int_equal(identity(&t), -1);
    target_free(&t);
}

static void small_dump(struct file *f, struct state *s)
{
    struct etcd_restore_config cfg;
    struct target t;
    struct kvw k;

    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    fill(&k, 0);
    (void)dump(&k, f, 0);
    kvw_free(&k);
    target_init(&t, 1, f->bytes, f->len);
    cfg = config(&t);
    assert_int_equal(restore(&t, &cfg, 0, NULL), BNS_OK);
    assert_int_equal(look(&t, s, NULL), BNS_OK);
    target_free(&t);
}

/* With the digest nothing gets through; and a file cut anywhere does not, either. */
static void the_digest_finds_every_flip_and_cut(void **state)
{
    struct etcd_restore_config cfg;
    struct bns_file *f = NULL;
    struct target t;
    struct state s;
    struct file d;

    (void)state;
    small_dump(&d, &s);
    target_init(&t, 1, d.bytes, d.len);
    cfg = config(&t);
    for (size_t i = 0; i < d.len; i++) {
        struct bns_err err = {0};
        uint64_t bytes = 0;

        assert_int_equal(bns_vfs_mem_flip(t.vfs, "/snap.db", i, (uint8_t)(1 << i % 8)), BNS_OK);
        assert_int_equal(etcd_snapshot_open(t.vfs, &cfg, &f, &bytes, &err), BNS_E_CORRUPT);
        assert_true(strncmp(t.wide, "expected sha256 [", 17) == 0);
        assert_int_equal(bns_vfs_mem_flip(t.vfs, "/snap.db", i, (uint8_t)(1 << i % 8)), BNS_OK);
    }
    target_free(&t);
    for (size_t cut = 0; cut < d.len; cut += 1 + cut % 7) {
        target_init(&t, 1, d.bytes, cut);
        cfg = config(&t);
        assert_int_equal(restore(&t, &cfg, 0, NULL), BNS_E_CORRUPT);
        cfg.skip_hash = true;
        if (cut < d.len - 32) /* only the digest is cut: fine then */
            assert_int_equal(restore(&t, &cfg, 0, NULL), BNS_E_CORRUPT);
        assert_int_equal(identity(&t), -1);
        target_free(&t);
    }
    free(d.bytes);
}

/* Without it: an error and no directory, or a directory that opens. */
static void a_flip_without_digest_is_an_error_or_harmless(void **state)
{
    size_t refused = 0, harmless = 0;
    struct state is, was;
    struct file d;

    (void)state;
    small_dump(&d, &was);
    for (size_t i = 0; i < d.len - 32; i++) {
        struct etcd_restore_config cfg;
        struct target t;

        if (d.bytes[i] == 0 && i % 64 != 0) /* padding, mostly */
            continue;
        d.bytes[i] ^= (uint8_t)(1 << i % 8);
        target_init(&t, 1, d.bytes, d.len);
        cfg = config(&t);
        cfg.skip_hash = true;
        if (restore(&t, &cfg, 0, NULL) == BNS_OK) {
            harmless++;
            assert_int_equal(identity(&t), 1);
            assert_int_equal(look(&t, &is, NULL), BNS_OK);
        } else {
            refused++;
            assert_true(t.code == BNS_E_CORRUPT || t.code == BNS_E_TOOBIG);
            assert_int_equal(identity(&t), -1);
        }
        target_free(&t);
        d.bytes[i] ^= (uint8_t)(1 << i % 8);
    }
    print_message("  %zu refused, %zu harmless\n", refused, harmless);
    assert_true(refused > 100);
    free(d.bytes);
}

static void after_a_cut_it_is_whole_or_says_that_it_is_not(void **state)
{
    int seen[3] = {0};
    struct state is, was;
    struct file d;
    bool died = true;

    (void)state;
    small_dump(&d, &was);
    for (uint64_t n = 1; died; n++) {
        for (int kind = 0; kind < 2; kind++) {
            struct etcd_restore_config cfg;
            struct bns_file_stat st;
            struct target t;
            int id;

            target_init(&t, n, d.bytes, d.len);
            cfg = config(&t);
            bns_vfs_mem_fail_at(t.vfs, n, kind == 0 ? BNS_VFAULT_POWER : BNS_VFAULT_KILL);
            died = restore(&t, &cfg, 0, NULL) != BNS_OK;
            bns_vfs_mem_fail_at(t.vfs, 0, BNS_VFAULT_NONE);
            bns_vfs_mem_power_on(t.vfs);
            bns_vfs_mem_drop_handles(t.vfs);
            id = identity(&t);
            seen[id + 1]++;
            assert_true(died || id == 1);
            if (id == 1) {
                assert_int_equal(look(&t, &is, NULL), BNS_OK);
                assert_int_equal(is.hash, was.hash);
                assert_int_equal(is.revision, was.revision);
            } else if (id == -1) { /* nothing that a daemon could take for its own */
                assert_int_equal(bns_vfs_stat(t.vfs, KV_DIR, &st, NULL), BNS_E_NOTFOUND);
                assert_int_equal(bns_vfs_stat(t.vfs, "/r/wal", &st, NULL), BNS_E_NOTFOUND);
                assert_int_equal(bns_vfs_stat(t.vfs, "/r", &st, NULL), BNS_E_NOTFOUND);
                if (kind == 0) /* the rest of it is in nobody's way */
                    assert_int_equal(restore(&t, &cfg, 0, NULL), BNS_OK);
            }
            target_free(&t);
        }
    }
    print_message("  nothing %d, unfinished %d, whole %d\n", seen[0], seen[1], seen[2]);
    assert_true(seen[0] > 2);
    assert_true(seen[1] > 20);
    assert_true(seen[2] > 1);
    free(d.bytes);
}

/* As etcdctl does. */
static void directories_above_are_made(void **state)
{
    struct etcd_restore_config cfg;
    struct bns_file_stat st;
    struct state was;
    struct target t;
    struct file d;

    (void)state;
    small_dump(&d, &was);
    target_init(&t, 1, d.bytes, d.len);
    cfg = config(&t);
    cfg.data_dir = "/a/b/c/";
    assert_int_equal(restore(&t, &cfg, 0, NULL), BNS_OK);
    assert_int_equal(bns_vfs_stat(t.vfs, "/a/b/c/identity", &st, NULL), BNS_OK);
    assert_int_equal(bns_vfs_stat(t.vfs, "/a/b/c.restoring", &st, NULL), BNS_E_NOTFOUND);
    bns_vfs_mem_power_cut(t.vfs, NULL);
    bns_vfs_mem_power_on(t.vfs);
    bns_vfs_mem_drop_handles(t.vfs);
    assert_int_equal(bns_vfs_stat(t.vfs, "/a/b/c/identity", &st, NULL), BNS_OK);
    target_free(&t);
    free(d.bytes);
}

static void every_failed_call_ends_it_and_leaves_nothing(void **state)
{
    static const enum bns_vfs_mem_fault kinds[] = {BNS_VFAULT_EIO, BNS_VFAULT_NOSPACE};
    struct state is, was;
    struct file d;

    (void)state;
    small_dump(&d, &was);
    for (size_t kind = 0; kind < 2; kind++) {
        bool fired = true;
        int failed = 0;

        for (uint64_t n = 1; fired; n++) {
            struct etcd_restore_config cfg;
            struct target t;

            target_init(&t, n, d.bytes, d.len);
            cfg = config(&t);
            bns_vfs_mem_fail_at(t.vfs, n, kinds[kind]);
            (void)restore(&t, &cfg, 0, NULL);
            fired = bns_vfs_mem_fired(t.vfs);
            bns_vfs_mem_fail_at(t.vfs, 0, BNS_VFAULT_NONE);
            failed += t.code != BNS_OK;
            if (t.code == BNS_OK) {
                assert_int_equal(identity(&t), 1);
                assert_int_equal(look(&t, &is, NULL), BNS_OK);
                assert_int_equal(is.hash, was.hash);
            } else {
                assert_true(t.text[0] != 0 || t.wide[0] != 0);
                assert_true(identity(&t) <= 0 || kinds[kind] == BNS_VFAULT_EIO);
            }
            target_free(&t);
            assert_true(n < 5000);
        }
        assert_true(failed > 20);
    }
    free(d.bytes);
}

static void every_failed_allocation_ends_it(void **state)
{
    struct state was;
    struct file d;
    bool fired = true;

    (void)state;
    small_dump(&d, &was);
    for (int fail_at = 1; fired; fail_at++) {
        struct etcd_restore_config cfg;
        struct target t;

        target_init(&t, 1, d.bytes, d.len);
        cfg = config(&t);
        if (restore(&t, &cfg, fail_at, &fired) != BNS_OK) {
            assert_true(fired);
            assert_int_equal(t.code, BNS_E_NOMEM);
            assert_int_equal(identity(&t), -1);
        }
        target_free(&t);
    }
    free(d.bytes);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_that_matters_comes_through),
        cmocka_unit_test(a_dump_is_one_revision),
        cmocka_unit_test(a_bump_leaves_only_the_new_revision),
        cmocka_unit_test(flags_are_refused_in_etcds_words),
        cmocka_unit_test(the_digest_finds_every_flip_and_cut),
        cmocka_unit_test(a_flip_without_digest_is_an_error_or_harmless),
        cmocka_unit_test(after_a_cut_it_is_whole_or_says_that_it_is_not),
        cmocka_unit_test(directories_above_are_made),
        cmocka_unit_test(every_failed_call_ends_it_and_leaves_nothing),
        cmocka_unit_test(every_failed_allocation_ends_it),
    };

    memset(big, 'b', sizeof big - 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
