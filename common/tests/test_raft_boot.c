/* Goal:   every pair of (write-ahead log, state machine) that a crash can leave starts; every pair
 *         that none can leave is refused with a text that says what to do.
 * Method: a log is written record by record, a state machine says at which index its data stand,
 *         and the node is opened (never started: nobody answers it).
 */
#include "app/raft_node.h"
#include "base/metrics.h"
#include "base/varint.h"
#include "proto/raft_msg.h"
#include "store_env.h"

#define GROUP 1

/* A record of the log: s = hard state, e = entry, m = snapshot mark. */
struct rec {
    char kind;
    uint64_t index, term;
};

struct fixed_sm {
    struct bns_raft_snapmeta durable;
};

static void stub_durable(void *sm, struct bns_raft_snapmeta *out)
{
    *out = ((struct fixed_sm *)sm)->durable;
}

static const struct bns_sm_ops stub_ops = {.durable = stub_durable};

static void appended(struct bns_wal_append *a, int code)
{
    assert_int_equal(code, BNS_OK);
    *(bool *)a->arg = true;
}

static void append(struct senv *s, struct bns_wal *w, const struct rec *r)
{
    uint8_t payload[256] = {0};
    struct bns_wal_record rec = {.group = GROUP, .slices = 1};
    bool done = false;
    struct bns_wal_append a = {.records = &rec, .records_count = 1, .done = appended, .arg = &done};

    bns_put_u64le(payload, r->index);
    bns_put_u64le(payload + 8, r->term);
    rec.payload[0] = bns_slice(payload, 17);
    rec.type = BNS_WAL_ENTRY;
    if (r->kind == 's') {
        rec.type = BNS_WAL_STATE;
        bns_put_u64le(payload, r->term);
        bns_put_u64le(payload + 8, 0);
        rec.payload[0].len = 24;
    } else if (r->kind == 'm') {
        struct bns_raft_conf conf = {.voters = {1, 2, 3}, .voters_count = 3};
        struct bns_buf buf;

        bns_buf_init(&buf, bns_alloc_libc(), 4096);
        assert_int_equal(bns_raft_conf_encode(&conf, &buf), BNS_OK);
        memcpy(payload + 16, buf.ptr, buf.len);
        rec.payload[0].len = 16 + buf.len;
        rec.type = BNS_WAL_SNAPMARK;
        bns_buf_free(&buf);
    }
    assert_int_equal(bns_wal_append(w, &a), BNS_OK);
    senv_pump(s);
    assert_true(done);
}

static void closed(void *arg)
{
    *(bool *)arg = true;
}

static int ignore(void *arg, uint64_t lsn, uint32_t group, uint8_t type, struct bns_slice payload)
{
    (void)arg, (void)lsn, (void)group, (void)type, (void)payload;
    return BNS_OK;
}

/* Writes the records into a new log on mem. */
static void write_log(struct bns_vfs *mem, const struct rec *r, size_t count)
{
    struct bns_wal_config cfg = {.dir = "wal", .segment_bytes_max = 64 * 1024};
    struct bns_wal *w = NULL;
    struct senv s;
    bool done = false;

    senv_init(&s, mem, 1, 0);
    assert_int_equal(bns_wal_open(&s.env, &cfg, ignore, NULL, &w, NULL), BNS_OK);
    for (size_t i = 0; i < count; i++)
        append(&s, w, &r[i]);
    bns_wal_close(w, closed, &done);
    senv_pump(&s);
    assert_true(done);
    assert_int_equal(senv_free(&s, NULL), 0);
}

static int open_node(struct bns_vfs *mem, uint64_t index, uint64_t term, struct bns_raft_status *st,
                     struct bns_err *err)
{
    const struct bns_raft_peer_addr peers[3] = {{.id = 1}, {.id = 2}, {.id = 3}};
    struct bns_raft_node_config cfg = {
        .group = GROUP,
        .id = 1,
        .peers = peers,
        .peers_count = 3,
        .wal = {.dir = "wal", .segment_bytes_max = 64 * 1024},
    };
    struct fixed_sm sm = {.durable = {.index = index, .term = term}};
    struct bns_raft_node *n = NULL;
    struct bns_metrics *metrics = NULL;
    struct senv s;
    bool done = false;
    int rv;

    senv_init(&s, mem, 2, 0);
    assert_int_equal(bns_metrics_new(bns_alloc_libc(), &metrics), BNS_OK);
    s.env.metrics = metrics;
    rv = bns_raft_node_open(&s.env, &cfg, &stub_ops, &sm, &n, err);
    senv_pump(&s);
    if (rv == BNS_OK) {
        bns_raft_node_status(n, st);
        bns_raft_node_close(n, closed, &done);
        senv_pump(&s);
        assert_true(done);
    }
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_metrics_free(metrics);
    return rv;
}

/* The log that follows is what the core begins with: first is its first index, last its last. */
static void what_a_crash_leaves_starts(void **state)
{
    static const struct {
        const char *name;
        struct rec log[6];
        uint64_t index, term, first, last;
    } t[] = {
        {"nothing at all", {{0}}, 0, 0, 1, 0},
        {"entries, none applied", {{'s', 0, 1}, {'e', 1, 1}, {'e', 2, 1}}, 0, 0, 1, 2},
        {"entries, one applied", {{'s', 0, 1}, {'e', 1, 1}, {'e', 2, 1}}, 1, 1, 1, 2},
        {"all applied", {{'s', 0, 1}, {'e', 1, 1}, {'e', 2, 1}}, 2, 1, 1, 2},
        {"older entries released", {{'s', 0, 1}, {'e', 5, 1}, {'e', 6, 1}}, 6, 1, 6, 6},
        {"released up to the data", {{'s', 0, 1}, {'e', 5, 1}, {'e', 6, 1}}, 4, 1, 5, 6},
        {"behind a snapshot mark", {{'s', 0, 2}, {'m', 9, 2}, {'e', 10, 2}}, 9, 2, 10, 10},
        {"only a snapshot mark", {{'s', 0, 2}, {'e', 1, 1}, {'m', 9, 2}}, 9, 2, 10, 9},
        {"snapshot installed, not marked", {{'s', 0, 2}, {'e', 1, 1}}, 9, 2, 10, 9},
        {"the same, on an empty log", {{'s', 0, 2}}, 9, 2, 10, 9},
        {"the same, over a longer tail that was never committed",
         {{'s', 0, 5}, {'e', 1, 1}, {'e', 2, 3}, {'e', 3, 3}, {'e', 4, 3}},
         3,
         5,
         4,
         3},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_raft_status st = {0};
        struct bns_err err = {0};
        struct bns_vfs *mem = NULL;
        size_t count = 0;

        print_message("  %s\n", t[i].name);
        assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 1, &mem), BNS_OK);
        while (count < 6 && t[i].log[count].kind != 0)
            count++;
        write_log(mem, t[i].log, count);
        for (int life = 0; life < 2; life++) { /* what the first start writes, the second reads */
            if (open_node(mem, t[i].index, t[i].term, &st, &err) != BNS_OK)
                fail_msg("%s", err.text);
            assert_int_equal(st.first_index, t[i].first);
            assert_int_equal(st.last_index, t[i].last);
            assert_int_equal(st.applied, t[i].index);
        }
        bns_vfs_mem_free(mem);
    }
}

static void what_no_crash_leaves_is_refused(void **state)
{
    static const struct {
        const char *name;
        struct rec log[4];
        uint64_t index, term;
        const char *text;
    } t[] = {
        {"the log is gone, the data are there", {{0}}, 7, 2, "the write-ahead log is empty"},
        {"the data are gone, the log is there",
         {{'s', 0, 2}, {'m', 9, 2}, {'e', 10, 2}},
         0,
         0,
         "begins at index 10, but the data end at index 0"},
        {"the same, after a release",
         {{'s', 0, 2}, {'e', 5, 2}},
         0,
         0,
         "begins at index 5, but the data end at index 0"},
        {"an older copy of the data",
         {{'s', 0, 2}, {'e', 5, 2}, {'e', 6, 2}},
         3,
         2,
         "begins at index 5, but the data end at index 3"},
        {"a record is missing", {{'s', 0, 2}, {'e', 5, 2}, {'e', 7, 2}}, 5, 2, "is missing"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_raft_status st = {0};
        struct bns_err err = {0};
        struct bns_vfs *mem = NULL;
        size_t count = 0;

        print_message("  %s\n", t[i].name);
        assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 1, &mem), BNS_OK);
        while (count < 4 && t[i].log[count].kind != 0)
            count++;
        write_log(mem, t[i].log, count);
        assert_int_equal(open_node(mem, t[i].index, t[i].term, &st, &err), BNS_E_CORRUPT);
        if (strstr(err.text, t[i].text) == NULL)
            fail_msg("\"%s\" is not in \"%s\"", t[i].text, err.text);
        bns_vfs_mem_free(mem);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_crash_leaves_starts),
        cmocka_unit_test(what_no_crash_leaves_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
