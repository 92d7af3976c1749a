/* sim_wal.c - the log against crashes and damage, exhaustively on small logs.
 *
 * Goal:   no acknowledged record is ever lost, no record is ever seen that was not appended, no
 *         batch is seen in half, whatever the moment of the crash; damage is reported or harmless.
 * Method: one workload (three groups, many segments, releases, idle times) is run again for every
 *         VFS operation, with the power cut (or the process killed, or an error) in the middle of
 *         it; the surviving unsynced sectors are drawn from the seed; then the log is opened,
 *         compared with the model, used, closed, opened and compared once more. */
/* ctest: timeout=300 */
#include "base/crc32c.h"
#include "store/wal_impl.h"
#include "wal_model.h"

#define DIR_WAL "w"

static const char *open_log(struct senv *s, struct model *m, struct bns_wal **out,
                            struct bns_err *err, int *code)
{
    struct bns_wal_config cfg = {.dir = DIR_WAL, .segment_bytes_max = WAL_SEGMENT_MIN};
    struct bns_wal_stats st;

    model_replay_begin(m);
    *code = bns_wal_open(&s->env, &cfg, model_replay, m, out, err);
    if (*code != BNS_OK)
        return m->bad;
    bns_wal_stats(*out, &st);
    return model_replay_end(m, st.next_lsn);
}

/* Some appends; stops by itself when the node is dead. */
static void work(struct senv *s, struct model *m, struct bns_wal *w, int steps)
{
    for (int i = 0; i < steps && !s->dead; i++) {
        uint64_t what = bns_prng_below(&m->prng, 10);
        if (what < 6)
            (void)model_append(m, w, what < 2 ? 9000 : 700); /* refusals are the model's */
        else if (what < 9)
            senv_pump(s);
        else
            senv_advance(s, 150 * BNS_MS);
        if (bns_prng_chance(&m->prng, 0.1))
            model_release(m, w);
    }
    senv_pump(s);
}

struct crash {
    uint64_t seed, at;
    enum bns_vfs_mem_fault fault;
    uint32_t mutant;
    bool restarts; /* the power goes only after a second life, on what the page cache kept */
};

/* One run with one fault. NULL = all is well; *fired: the fault struck. */
static const char *crash_run(const struct crash *c, struct model *m, bool *fired)
{
    struct bns_vfs *v = NULL;
    struct bns_wal *w = NULL;
    struct bns_prng cut;
    struct bns_err err = {0};
    const char *bad = NULL;

    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), c->seed, &v), BNS_OK);
    model_init(m, c->seed);
    bns_prng_seed(&cut, c->seed ^ c->at << 20);
    *fired = true;
    for (int life = 0; life < 3 && bad == NULL; life++) {
        struct senv s;
        int code;

        senv_init(&s, v, c->seed * 16 + (uint64_t)life, 0);
        s.env.mutant = c->mutant;
        if (life == 0)
            bns_vfs_mem_fail_at(v, c->at, c->fault);
        bad = open_log(&s, m, &w, &err, &code);
        if (code == BNS_OK) {
            work(&s, m, w, life == 0 ? 60 : 15);
            if (!s.dead)
                model_close(&s, w);
        } else if (life > 0) {
            bad = "recovery failed";
            print_message("%s\n", err.text);
        }
        senv_check(&s);
        if (life == 0)
            *fired = bns_vfs_mem_fired(v);
        bns_vfs_mem_fail_at(v, 0, BNS_VFAULT_NONE);
        if (m->bad != NULL && bad == NULL)
            bad = m->bad;
        if (life == 0 && c->restarts)
            bns_vfs_mem_kill(v);
        else
            bns_vfs_mem_power_cut(v, &cut);
        bns_vfs_mem_drop_handles(v);
        bns_vfs_mem_power_on(v);
        model_reset_flight(m);
        if (code == BNS_OK && !s.dead && senv_free(&s, NULL) != 0)
            bad = "memory leaked";
        else if (code != BNS_OK || s.dead) {
            s.dead = true;
            (void)senv_free(&s, NULL);
        }
    }
    model_free(m);
    bns_vfs_mem_free(v);
    return bad;
}

static void sweep(enum bns_vfs_mem_fault fault, bool restarts, uint64_t seeds)
{
    struct model *m = malloc(sizeof *m);
    uint64_t runs = 0;

    for (uint64_t seed = 1; seed <= seeds; seed++) {
        bool fired = true;
        for (uint64_t at = 1; fired; at++, runs++) {
            struct crash c = {.seed = seed, .at = at, .fault = fault, .restarts = restarts};
            const char *bad = crash_run(&c, m, &fired);
            if (bad != NULL)
                fail_msg("seed=%llu at=%llu fault=%d: %s", (unsigned long long)seed,
                         (unsigned long long)at, (int)fault, bad);
        }
    }
    print_message("  %llu runs\n", (unsigned long long)runs);
    free(m);
}

/* Power cut in the middle of each VFS operation. */
static void power_cut_at_every_operation(void **state)
{
    (void)state;
    sweep(BNS_VFAULT_POWER, false, 40);
}

/* kill -9 in each VFS operation, then a power cut: at once, or after the next process appended. */
static void kill_at_every_operation(void **state)
{
    (void)state;
    sweep(BNS_VFAULT_KILL, false, 5);
    sweep(BNS_VFAULT_KILL, true, 20);
}

/* Each VFS operation fails once: refused, or fatal, never lost; the log opens afterwards. */
static void error_at_every_operation(void **state)
{
    (void)state;
    sweep(BNS_VFAULT_EIO, false, 8);
    sweep(BNS_VFAULT_NOSPACE, false, 4);
    sweep(BNS_VFAULT_SHORT, false, 4);
}

/* The n-th allocation fails, for every n: an error or a refusal, no leak, nothing lost. */
static void allocation_fails_at_every_call(void **state)
{
    struct model *m = malloc(sizeof *m);
    bool fired = true;
    (void)state;

    for (int at = 1; fired; at++) {
        struct bns_vfs *v = NULL;
        struct bns_wal *w = NULL;
        struct bns_err err = {0};

        assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 5, &v), BNS_OK);
        model_init(m, 5);
        for (int life = 0; life < 3; life++) {
            struct senv s;
            int code;
            const char *bad;
            bool hit = false;

            senv_init(&s, v, (uint64_t)life, life == 1 ? at : 0);
            bad = open_log(&s, m, &w, &err, &code);
            if (code == BNS_OK) {
                work(&s, m, w, 60);
                model_close(&s, w);
            } else {
                assert_int_equal(code, BNS_E_NOMEM);
                bad = NULL; /* an open that failed replays a part */
            }
            assert_int_equal(senv_free(&s, &hit), 0);
            if (life == 1)
                fired = hit;
            if (bad != NULL)
                fail_msg("allocation %d, life %d: %s", at, life, bad);
            assert_true(code == BNS_OK || life == 1);
        }
        assert_int_equal(bns_vfs_mem_handles(v), 0);
        bns_vfs_mem_free(v);
        model_free(m);
    }
    free(m);
}

/* ---- swarm ----------------------------------------------------------------------------------- */

static void draw_rates(struct bns_vfs *v, struct bns_prng *p)
{
    struct bns_vfs_mem_config *c = bns_vfs_mem_config(v);

    c->read_eio = bns_prng_chance(p, 0.2) ? 0.02 : 0;
    c->write_eio = bns_prng_chance(p, 0.3) ? 0.01 : 0;
    c->sync_eio = bns_prng_chance(p, 0.3) ? 0.02 : 0;
    c->meta_eio = bns_prng_chance(p, 0.3) ? 0.03 : 0;
    c->write_short = bns_prng_chance(p, 0.2) ? 0.01 : 0;
    c->writeback = bns_prng_double(p);
    c->ordered_dirs = bns_prng_chance(p, 0.5);
    c->capacity_bytes = bns_prng_chance(p, 0.2) ? 5 * WAL_SEGMENT_MIN : 0;
}

static void clear_rates(struct bns_vfs *v)
{
    struct bns_vfs_mem_config *c = bns_vfs_mem_config(v);

    c->read_eio = c->write_eio = c->sync_eio = c->meta_eio = c->write_short = 0;
    c->capacity_bytes = 0;
}

/* Many lives of one log under the seed's own fault rates. NULL = all is well. */
static const char *swarm_run(uint64_t seed, uint32_t mutant, struct model *m)
{
    struct bns_vfs *v = NULL;
    struct bns_prng p;
    const char *bad = NULL;

    bns_prng_seed(&p, seed);
    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), seed, &v), BNS_OK);
    model_init(m, seed);
    for (int life = 0; life < 8 && bad == NULL; life++) {
        struct bns_wal *w = NULL;
        struct bns_err err = {0};
        struct senv s;
        int code;

        senv_init(&s, v, seed * 64 + (uint64_t)life, 0);
        s.env.mutant = mutant;
        draw_rates(v, &p);
        if (life % 2 == 1 || life == 6)
            clear_rates(v); /* the disk has been replaced: from here on it must work */
        bad = open_log(&s, m, &w, &err, &code);
        if (code == BNS_E_CORRUPT || (code != BNS_OK && life % 2 == 1))
            bad = "recovery failed";
        if (code == BNS_OK && bad == NULL) {
            work(&s, m, w, 40);
            if (s.fatal_code == 0 && bns_prng_chance(&p, 0.3))
                model_close(&s, w);
            bad = m->bad;
        }
        if (bns_prng_chance(&p, 0.7))
            bns_vfs_mem_power_cut(v, &p);
        else
            bns_vfs_mem_kill(v);
        bns_vfs_mem_drop_handles(v);
        bns_vfs_mem_power_on(v);
        model_reset_flight(m);
        s.dead = true;
        (void)senv_free(&s, NULL);
    }
    model_free(m);
    bns_vfs_mem_free(v);
    return bad;
}

/* Errors, short writes, full disks, cuts and kills in any mixture: nothing acknowledged is lost. */
static void swarm_of_faults(void **state)
{
    struct model *m = malloc(sizeof *m);
    const char *one = getenv("BNS_SEED");
    uint64_t first = one == NULL ? 1 : strtoull(one, NULL, 0);
    uint64_t last = one == NULL ? 400 : first;
    (void)state;

    for (uint64_t seed = first; seed <= last; seed++) {
        const char *bad = swarm_run(seed, 0, m);
        if (bad != NULL)
            fail_msg("%s; again with BNS_SEED=%llu", bad, (unsigned long long)seed);
    }
    free(m);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static int last_name(void *arg, const char *name)
{
    if (strstr(name, ".seg") != NULL)
        (void)snprintf(arg, 64, DIR_WAL "/%s", name);
    return BNS_OK;
}

static int first_name(void *arg, const char *name)
{
    (void)snprintf(arg, 64, DIR_WAL "/%s", name);
    return strstr(name, ".seg") != NULL ? 1 : BNS_OK;
}

/* Rolls and releases until the tail lies in a file that was used before, and just began. */
static void wear(struct senv *s, struct model *m, struct bns_wal *w)
{
    do {
        assert_int_equal(model_append(m, w, 9000), BNS_OK);
        senv_pump(s);
        for (uint32_t g = 0; g < MODEL_GROUPS; g++) {
            m->released[g] = m->acked_lsn;
            bns_wal_release(w, g, m->acked_lsn);
        }
        senv_pump(s);
    } while (!bns_wal_tail(w)->reused || bns_wal_tail(w)->used > WAL_SEGMENT_MIN / 2);
}

/* A small log: closed and sealed, or left as a crash leaves it (`dirty`); on worn files, or not. */
static void small_log(struct bns_vfs *v, struct model *m, int appends, bool dirty, bool worn)
{
    struct senv s;
    struct bns_wal *w = NULL;
    struct bns_err err = {0};
    int code;

    senv_init(&s, v, 1, 0);
    assert_null(open_log(&s, m, &w, &err, &code));
    if (worn)
        wear(&s, m, w);
    for (int i = 0; i < appends; i++) {
        assert_int_equal(model_append(m, w, 60), BNS_OK);
        senv_pump(&s);
    }
    if (!dirty)
        model_close(&s, w);
    s.dead = dirty;
    (void)senv_free(&s, NULL);
    if (dirty) {
        bns_vfs_mem_kill(v);
        bns_vfs_mem_drop_handles(v);
        bns_vfs_mem_power_on(v);
        model_reset_flight(m);
    }
}

/* Opens the damaged log. An open that succeeds must show a log that could have been. */
static const char *try_open(struct bns_vfs *v, struct model *m, int *code, char *text)
{
    struct senv s;
    struct bns_wal *w = NULL;
    struct bns_err err = {0};
    const char *bad;

    senv_init(&s, v, 9, 0);
    bad = open_log(&s, m, &w, &err, code);
    (void)snprintf(text, BNS_ERR_TEXT_MAX, "%s", err.text);
    if (*code == BNS_OK)
        model_close(&s, w);
    if (senv_free(&s, NULL) != 0)
        return "memory leaked";
    return bad;
}

/* Every byte of a sealed log of one segment: nothing acknowledged is lost or changed in silence. */
static void flip_of_every_byte_is_detected_or_harmless(void **state)
{
    struct model *m = malloc(sizeof *m), *again = malloc(sizeof *m);
    uint32_t detected = 0, harmless = 0;
    (void)state;

    for (uint64_t off = 0; off < 3000; off++) {
        struct bns_vfs *v = NULL;
        char path[64], text[BNS_ERR_TEXT_MAX];
        const char *bad;
        int code;

        assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 3, &v), BNS_OK);
        model_init(m, 3);
        small_log(v, m, 12, false, false);
        assert_int_equal(bns_vfs_list(v, DIR_WAL, last_name, path, NULL), BNS_OK);
        assert_int_equal(bns_vfs_mem_flip(v, path, off, (uint8_t)(1u << off % 8)), BNS_OK);
        bad = try_open(v, m, &code, text);
        if (code == BNS_OK && bad != NULL)
            fail_msg("byte %llu: %s", (unsigned long long)off, bad);
        if (code != BNS_OK) {
            uint64_t digest = bns_vfs_mem_digest(v, false);
            assert_int_equal(code, BNS_E_CORRUPT);
            assert_non_null(strstr(text, "bonsai wal repair w"));
            assert_non_null(strstr(text, "wal-0000000000000001.seg: offset "));
            (void)try_open(v, m, &code, text);
            assert_int_equal(code, BNS_E_CORRUPT);
            assert_true(digest == bns_vfs_mem_digest(v, false)); /* nothing changed on disk */
            detected++;
        } else {
            harmless++;
        }
        bns_vfs_mem_free(v);
        model_free(m);
    }
    print_message("  %u detected, %u harmless\n", detected, harmless);
    assert_true(detected > 1000);
    free(m);
    free(again);
}

/* The same on a file that was used before, sealed and not: behind the last record lie older ones,
 * and no flip makes one of them, or a mixture, look like a record. */
static void flip_on_a_worn_file_is_detected_or_harmless(void **state)
{
    struct model *m = malloc(sizeof *m);
    uint32_t codes[2] = {0};
    (void)state;

    for (uint64_t n = 0; n < 1200; n++) {
        struct bns_vfs *v = NULL;
        char path[64], text[BNS_ERR_TEXT_MAX];
        const char *bad;
        int code;

        assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 3, &v), BNS_OK);
        model_init(m, 3);
        small_log(v, m, 12, n % 2 == 1, true);
        assert_int_equal(bns_vfs_list(v, DIR_WAL, last_name, path, NULL), BNS_OK);
        assert_int_equal(
            bns_vfs_mem_flip(v, path, n * 55 % WAL_SEGMENT_MIN, (uint8_t)(1u << n % 8)), BNS_OK);
        for (size_t i = 0; n % 2 == 1 && i < m->count; i++)
            m->records[i].acked = false; /* rule 4: not sealed */
        bad = try_open(v, m, &code, text);
        if (code == BNS_OK && bad != NULL)
            fail_msg("flip %llu: %s", (unsigned long long)n, bad);
        codes[code == BNS_OK]++;
        bns_vfs_mem_free(v);
        model_free(m);
    }
    print_message("  %u detected, %u harmless\n", codes[0], codes[1]);
    assert_true(codes[0] > 50);
    assert_true(codes[1] > 100);
    free(m);
}

/* What lies behind the torn place of a worn file may be anything that an older use left there: the
 * tail's own records, as the segment before would have written them, are never read again, wherever
 * they begin. */
static void old_records_behind_a_torn_tail_stay_unread(void **state)
{
    static uint8_t old[WAL_SEGMENT_MIN];
    struct model *m = malloc(sizeof *m);
    (void)state;

    for (uint32_t n = 0; n < 100; n++) {
        struct bns_vfs *v = NULL;
        struct bns_file *f = NULL;
        struct bns_wal_scan scan;
        struct bns_wal_header h;
        struct bns_wal_head head;
        struct bns_slice payload;
        char path[64], text[BNS_ERR_TEXT_MAX];
        size_t got = 0;
        int code;

        assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 5, &v), BNS_OK);
        model_init(m, 5 + n);
        small_log(v, m, 12, true, true);
        assert_int_equal(bns_vfs_list(v, DIR_WAL, last_name, path, NULL), BNS_OK);
        assert_int_equal(bns_vfs_open(v, path, BNS_OPEN_WRITE, &f, NULL), BNS_OK);
        assert_int_equal(bns_file_read_at(f, 0, old, sizeof old, &got, NULL), BNS_OK);
        assert_int_equal(bns_wal_header_get(old, &h), BNS_OK);
        assert_int_equal(h.flags, WAL_SEGMENT_REUSED);
        bns_wal_scan_init(&scan, old, &h);
        while (bns_wal_scan_next(&scan, &head, &payload)) {
        }
        /* the tail's own records, as an older segment's: the same bytes under another salt */
        h.salt--;
        for (uint32_t off = WAL_HEADER_BYTES; off < scan.off;) {
            uint32_t len = bns_get_u32le(old + off + 24);
            bns_put_u32le(old + off + 4, bns_crc32c(h.salt, old + off + WAL_HEAD_BYTES, len));
            bns_put_u32le(old + off, bns_crc32c(h.salt, old + off + 4, WAL_HEAD_BYTES - 4));
            off += (uint32_t)bns_wal_framed(len);
        }
        payload = bns_slice(old + WAL_HEADER_BYTES, scan.off - WAL_HEADER_BYTES);
        assert_int_equal(bns_file_write_at(f, scan.off + n % 50 * 8, &payload, 1, NULL), BNS_OK);
        bns_file_close(f);
        assert_null(try_open(v, m, &code, text));
        assert_int_equal(code, BNS_OK);
        bns_vfs_mem_free(v);
        model_free(m);
    }
    free(m);
}

/* The unsealed tail, zeroed from every byte on as a torn write leaves it: a prefix of whole batches
 * survives; header and checkpoint are never in doubt. Cut short as a file: refused. */
static void cut_at_every_byte_leaves_a_prefix(void **state)
{
    static uint8_t zeros[4096];
    struct model *m = malloc(sizeof *m);
    uint64_t prefixes = 0;
    (void)state;

    for (uint64_t off = WAL_HEADER_BYTES; off < 1500; off++) {
        struct bns_slice z = bns_slice(zeros, (size_t)(sizeof zeros - off));
        struct bns_vfs *v = NULL;
        struct bns_file *f = NULL;
        char path[64], text[BNS_ERR_TEXT_MAX];
        const char *bad;
        int code;

        assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 4, &v), BNS_OK);
        model_init(m, 4);
        small_log(v, m, 8, true, false);
        assert_int_equal(bns_vfs_list(v, DIR_WAL, last_name, path, NULL), BNS_OK);
        assert_int_equal(bns_vfs_open(v, path, BNS_OPEN_WRITE, &f, NULL), BNS_OK);
        assert_int_equal(bns_file_write_at(f, off, &z, 1, NULL), BNS_OK);
        bns_file_close(f);
        for (size_t i = 0; i < m->count; i++)
            m->records[i].acked = false; /* rule 4: lost without a trace, but never garbled */
        bad = try_open(v, m, &code, text);
        if (off <= WAL_HEADER_BYTES + 36) { /* behind it an empty checkpoint is zeros anyway */
            assert_int_equal(code, BNS_E_CORRUPT); /* the checkpoint was synced before the name */
            bns_vfs_mem_free(v);
            model_free(m);
            continue;
        }
        if (code != BNS_OK)
            fail_msg("cut at %llu: %s", (unsigned long long)off, text);
        if (bad != NULL)
            fail_msg("cut at %llu: %s", (unsigned long long)off, bad);
        prefixes += m->count;
        assert_int_equal(bns_vfs_open(v, path, BNS_OPEN_WRITE, &f, NULL), BNS_OK);
        assert_int_equal(bns_file_truncate(f, off, NULL), BNS_OK);
        bns_file_close(f);
        (void)try_open(v, m, &code, text);
        assert_int_equal(code, BNS_E_CORRUPT);
        bns_vfs_mem_free(v);
        model_free(m);
    }
    assert_true(prefixes > 0);
    free(m);
}

/* A closed segment: any damage to a record, a missing file, a swapped file: refused. */
static void damage_in_a_closed_segment_is_refused(void **state)
{
    struct model *m = malloc(sizeof *m);
    (void)state;

    for (int kind = 0; kind < 3; kind++) {
        struct bns_vfs *v = NULL;
        struct senv s;
        struct bns_wal *w = NULL;
        struct bns_err err = {0};
        char path[64], text[BNS_ERR_TEXT_MAX];
        int code;

        assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 6, &v), BNS_OK);
        model_init(m, 6);
        senv_init(&s, v, 1, 0);
        assert_null(open_log(&s, m, &w, &err, &code));
        for (int i = 0; i < 60; i++) {
            assert_int_equal(model_append(m, w, 4000), BNS_OK);
            senv_pump(&s);
        }
        model_close(&s, w);
        assert_int_equal(senv_free(&s, NULL), 0);
        assert_int_equal(bns_vfs_list(v, DIR_WAL, first_name, path, NULL), 1);
        if (kind == 0) {
            assert_int_equal(bns_vfs_mem_flip(v, path, 40000, 1), BNS_OK);
        } else if (kind == 1) {
            assert_int_equal(bns_vfs_list(v, DIR_WAL, last_name, path, NULL), BNS_OK);
            assert_int_equal(bns_vfs_mem_flip(v, path, 20, 1), BNS_OK);
        } else {
            char to[64];
            assert_int_equal(bns_vfs_list(v, DIR_WAL, last_name, to, NULL), BNS_OK);
            assert_int_equal(bns_vfs_rename(v, path, to, NULL), BNS_OK);
        }
        (void)try_open(v, m, &code, text);
        assert_int_equal(code, BNS_E_CORRUPT);
        bns_vfs_mem_free(v);
        model_free(m);
    }
    free(m);
}

/* ---- planted bugs ---------------------------------------------------------------------------- */

static bool caught(uint32_t mutant, enum bns_vfs_mem_fault fault, uint64_t seeds)
{
    struct model *m = malloc(sizeof *m);
    bool found = false;

    for (uint64_t seed = 1; seed <= seeds && !found; seed++) {
        bool fired = true;
        for (uint64_t at = 1; fired && !found; at++) {
            struct crash c = {.seed = seed, .at = at, .fault = fault, .mutant = mutant};
            found = crash_run(&c, m, &fired) != NULL;
            if (found)
                print_message("  bug %u caught with seed=%llu at=%llu\n", mutant,
                              (unsigned long long)seed, (unsigned long long)at);
        }
    }
    free(m);
    return found;
}

static bool swarm_catches(uint32_t mutant)
{
    struct model *m = malloc(sizeof *m);
    bool found = false;

    for (uint64_t seed = 1; seed <= 400 && !found; seed++) {
        found = swarm_run(seed, mutant, m) != NULL;
        if (found)
            print_message("  bug %u caught by swarm seed %llu\n", mutant, (unsigned long long)seed);
    }
    free(m);
    return found;
}

/* The sweep above is able to fail: each planted bug of the log is caught by it. */
static void planted_bugs_are_caught(void **state)
{
    (void)state;
    assert_true(caught(WAL_MUTANT_ACK_BEFORE_SYNC, BNS_VFAULT_POWER, 25));
    assert_true(caught(WAL_MUTANT_TORN_TAIL, BNS_VFAULT_POWER, 100));
    assert_true(caught(WAL_MUTANT_NO_DIR_SYNC, BNS_VFAULT_POWER, 25));
    assert_true(swarm_catches(WAL_MUTANT_ACK_BEFORE_SYNC));
    assert_true(swarm_catches(WAL_MUTANT_TORN_TAIL));
    assert_true(swarm_catches(WAL_MUTANT_NO_DIR_SYNC));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(power_cut_at_every_operation),
        cmocka_unit_test(kill_at_every_operation),
        cmocka_unit_test(error_at_every_operation),
        cmocka_unit_test(allocation_fails_at_every_call),
        cmocka_unit_test(swarm_of_faults),
        cmocka_unit_test(flip_of_every_byte_is_detected_or_harmless),
        cmocka_unit_test(flip_on_a_worn_file_is_detected_or_harmless),
        cmocka_unit_test(old_records_behind_a_torn_tail_stay_unread),
        cmocka_unit_test(cut_at_every_byte_leaves_a_prefix),
        cmocka_unit_test(damage_in_a_closed_segment_is_refused),
        cmocka_unit_test(planted_bugs_are_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
