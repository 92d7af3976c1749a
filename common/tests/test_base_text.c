/* test_base_text.c - what base makes of text and into text: errors, UTF-8, durations, sizes, times,
 * log lines, metrics. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/log.h"
#include "base/metrics.h"
#include "base/prng.h"
#include "base/time.h"
#include "base/utf8.h"
#include "sim/heap.h"

/* ---- err ------------------------------------------------------------------------------------- */
static void every_code_has_its_row_and_others_are_unknown(void **state)
{
    (void)state;
#define CHECK(name, code, text, grpc, http, retry, definite)                                       \
    assert_int_equal(BNS_E_##name, code);                                                          \
    assert_string_equal(bns_err_name(BNS_E_##name), #name);                                        \
    assert_string_equal(bns_err_default_text(BNS_E_##name), text);                                 \
    assert_int_equal(bns_err_grpc(BNS_E_##name), grpc);                                            \
    assert_int_equal(bns_err_http(BNS_E_##name), http);                                            \
    assert_int_equal(bns_err_retryable(BNS_E_##name), retry);                                      \
    assert_int_equal(bns_err_definite(BNS_E_##name), definite);
    BNS_ERR_MAP(CHECK)
#undef CHECK
    assert_string_equal(bns_err_name(BNS_OK), "OK");
    assert_int_equal(bns_err_http(BNS_OK), 200);
    for (int i = 0; i < 3; i++) {
        static const int odd[] = {1, -1000, INT32_MIN};
        assert_string_equal(bns_err_name(odd[i]), "UNKNOWN");
        assert_string_equal(bns_err_default_text(odd[i]), "unknown error");
        assert_int_equal(bns_err_grpc(odd[i]), 2);
        assert_int_equal(bns_err_http(odd[i]), 500);
        assert_false(bns_err_retryable(odd[i]));
        assert_false(bns_err_definite(odd[i]));
    }
}

static void causes_are_chained_outwards(void **state)
{
    struct bns_err err;

    (void)state;
    assert_int_equal(bns_err_set(&err, BNS_E_IO, "read %d bytes", 7), BNS_E_IO);
    assert_int_equal(bns_err_wrap(&err, "segment %s", "a"), BNS_E_IO);
    assert_int_equal(bns_err_wrap(&err, "open wal"), BNS_E_IO);
    assert_string_equal(err.text, "open wal: segment a: read 7 bytes");
    assert_int_equal(bns_err_set(&err, BNS_E_CORRUPT, "again: %s", err.text), BNS_E_CORRUPT);
    assert_string_equal(err.text, "again: open wal: segment a: read 7 bytes");
    assert_int_equal(bns_err_set(NULL, BNS_E_IO, "x"), BNS_E_IO);
    assert_int_equal(bns_err_wrap(NULL, "x"), BNS_E_INTERNAL);
}

/* At every length around the bound the text is whole UTF-8 and ends in a NUL. */
static void long_texts_are_cut_between_characters(void **state)
{
    static const char *const units[] = {"x", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x8c\xb3"};

    (void)state;
    for (size_t u = 0; u < 4; u++) {
        for (size_t pad = 0; pad < 8; pad++) {
            char text[400] = "";
            struct bns_err err;
            size_t len;
            memset(text, '.', pad);
            while (strlen(text) < 300)
                strncat(text, units[u], 5);
            assert_int_equal(bns_err_set(&err, BNS_E_IO, "%s", text), BNS_E_IO);
            len = strlen(err.text);
            assert_true(len > BNS_ERR_TEXT_MAX - 5 && len < BNS_ERR_TEXT_MAX);
            assert_true(bns_utf8_valid(bns_slice_str(err.text)));
            assert_int_equal(bns_err_wrap(&err, "%s", "abc"), BNS_E_IO);
            assert_true(bns_utf8_valid(bns_slice_str(err.text)));
            assert_int_equal(bns_err_wrap(&err, "%s", text), BNS_E_IO);
            assert_true(strlen(err.text) < BNS_ERR_TEXT_MAX);
            assert_true(bns_utf8_valid(bns_slice_str(err.text)));
        }
    }
}

/* ---- UTF-8 ----------------------------------------------------------------------------------- */
static void utf8_takes_rfc3629_and_nothing_else(void **state)
{
    static const struct {
        const char *in;
        bool ok;
    } t[] = {
        {"", true},
        {"ascii only, longer than a word", true},
        {"\x7f", true},
        {"\xc2\x80", true},
        {"\xdf\xbf", true},
        {"\xe0\xa0\x80", true},
        {"\xed\x9f\xbf", true},
        {"\xee\x80\x80", true},
        {"\xef\xbf\xbf", true},
        {"\xf0\x90\x80\x80", true},
        {"\xf4\x8f\xbf\xbf", true},
        {"12345678\xc3\xa9", true},
        {"\x80", false},
        {"\xc0\x80", false},
        {"\xc1\xbf", false},
        {"\xc2", false},
        {"\xc2\x41", false},
        {"\xe0\x9f\xbf", false},
        {"\xed\xa0\x80", false}, /* a surrogate */
        {"\xe1\x80", false},
        {"\xe1\x80\xc0", false},
        {"\xf0\x8f\xbf\xbf", false},
        {"\xf4\x90\x80\x80", false}, /* past U+10FFFF */
        {"\xf1\x80\x80", false},
        {"\xf1\x80\x80\x41", false},
        {"\xf5\x80\x80\x80", false},
        {"\xff", false},
        {"12345678\xff", false},
        {"1234567\xc3", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++)
        assert_int_equal(bns_utf8_valid(bns_slice_str(t[i].in)), t[i].ok);
}

/* ---- time ------------------------------------------------------------------------------------ */
static void durations(void **state)
{
    static const struct {
        const char *in;
        uint64_t ns;
    } good[] = {
        {"0", 0},
        {"200ms", 200 * BNS_MS},
        {"1.5s", 1500 * BNS_MS},
        {".5s", 500 * BNS_MS},
        {"5.s", 5 * BNS_SEC},
        {"10m", 600 * BNS_SEC},
        {"2h", 7200 * BNS_SEC},
        {"1h30m", 5400 * BNS_SEC},
        {"1h0m0.25s", 3600 * BNS_SEC + 250 * BNS_MS},
        {"100us", 100 * BNS_US},
        {"100\xc2\xb5s", 100 * BNS_US},
        {"5ns", 5},
        {"0.9999999999999s", 999999999},
        {"18446744073709551615ns", UINT64_MAX},
    };
    static const char *const bad[] = {"",         "5",
                                      "s",        "-1s",
                                      "1x",       "1 s",
                                      "1s ",      "1s 2m",
                                      "1d",       ".s",
                                      ".",        "1..5s",
                                      "1e3s",     "18446744073709551616ns",
                                      "6000000h", "1ns18446744073709551615ns"};
    struct bns_err err;
    uint64_t ns;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(bns_duration_parse(good[i].in, &ns, &err), BNS_OK);
        assert_true(ns == good[i].ns);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ns = 77;
        assert_int_equal(bns_duration_parse(bad[i], &ns, &err), BNS_E_INVALID);
        assert_true(ns == 77);
    }
}

static void sizes(void **state)
{
    static const struct {
        const char *in;
        uint64_t bytes;
    } good[] = {
        {"0", 0},
        {"4096", 4096},
        {"64MiB", 64u << 20},
        {"1.5GiB", UINT64_C(3) << 29},
        {"10MB", 10000000},
        {"1KiB", 1024},
        {"1kB", 1000},
        {"7B", 7},
        {"2TB", UINT64_C(2000000000000)},
        {"18446744073709551615", UINT64_MAX},
    };
    static const char *const bad[] = {"",
                                      "-1",
                                      "1K",
                                      "1M",
                                      "MiB",
                                      "1.5",
                                      "1.5B",
                                      "1 MiB",
                                      "1MiBx",
                                      "0x10",
                                      "18446744073709551616",
                                      "16777216TiB"};
    struct bns_err err;
    uint64_t n;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(bns_size_parse(good[i].in, &n, &err), BNS_OK);
        assert_true(n == good[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(bns_size_parse(bad[i], &n, &err), BNS_E_INVALID);
}

static void times(void **state)
{
    static const struct {
        int64_t ms;
        const char *text;
    } t[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {-1, "1969-12-31T23:59:59.999Z"},
        {INT64_C(951782400000), "2000-02-29T00:00:00.000Z"},
        {INT64_C(1795408467042), "2026-11-23T04:34:27.042Z"},
        {INT64_C(4107542400000), "2100-03-01T00:00:00.000Z"},
        {INT64_MAX, "9999-12-31T23:59:59.999Z"},
        {INT64_MIN, "0000-01-01T00:00:00.000Z"},
    };
    char text[25];

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        bns_time_format(t[i].ms, text);
        assert_string_equal(text, t[i].text);
    }
}

/* ---- log ------------------------------------------------------------------------------------- */
static char line[4096];
static size_t lines;

static int64_t fixed_wall(void *arg)
{
    (void)arg;
    return INT64_C(1795408467042);
}

static void keep_line(void *arg, struct bns_slice s)
{
    (void)arg;
    assert_true(s.len < sizeof line);
    memcpy(line, s.ptr, s.len);
    line[s.len] = '\0';
    lines++;
}

static void log_lines_in_both_formats(void **state)
{
    struct bns_log log = {.level = BNS_LOG_INFO, .wall_ms = fixed_wall, .write = keep_line};

    (void)state;
    BNS_LOG(&log, BNS_LOG_WARN, "wal", "torn tail cut", BNS_U64("lsn", 17), BNS_I64("delta", -3),
            BNS_HEX("id", 0xabc), BNS_STR("path", "a=b"), BNS_STR("plain", "x/y"),
            BNS_BYTES("key", BNS_LIT("\x00\n\"\\ok\xff")));
    assert_string_equal(line,
                        "ts=2026-11-23T04:34:27.042Z level=warn mod=wal msg=\"torn tail cut\" "
                        "lsn=17 delta=-3 id=0000000000000abc path=\"a=b\" plain=x/y "
                        "key=\"\\\\x00\\n\\\"\\\\ok\\\\xff\"\n");
    log.format = BNS_LOG_JSON;
    BNS_LOG(&log, BNS_LOG_INFO, "wal", "torn", BNS_U64("lsn", 17), BNS_HEX("id", 1),
            BNS_STR("s", "\xc3\xa9\t\x01"), BNS_STR("none", NULL));
    assert_string_equal(line, "{\"ts\":\"2026-11-23T04:34:27.042Z\",\"level\":\"info\","
                              "\"mod\":\"wal\",\"msg\":\"torn\",\"lsn\":17,"
                              "\"id\":\"0000000000000001\",\"s\":\"\xc3\xa9\\t\\\\x01\","
                              "\"none\":\"(null)\"}\n");
    lines = 0;
    BNS_LOG(&log, BNS_LOG_DEBUG, "m", "quiet", BNS_U64("a", 1));
    BNS_LOG(NULL, BNS_LOG_ERROR, "m", "nowhere", BNS_U64("a", 1));
    assert_int_equal(lines, 0);
}

/* Whatever the values, a JSON line is one JSON object on one line, and a long one says it was cut.
 * */
static void log_lines_are_always_well_formed(void **state)
{
    struct bns_log log = {.format = BNS_LOG_JSON, .wall_ms = fixed_wall, .write = keep_line};
    static uint8_t bytes[3000];
    struct bns_prng p;

    (void)state;
    bns_prng_seed(&p, 5);
    for (int run = 0; run < 2000; run++) {
        size_t n = (size_t)bns_prng_below(&p, run % 2 == 0 ? 40 : sizeof bytes - 1);
        json_error_t at;
        json_t *j;
        for (size_t i = 0; i < n; i++)
            bytes[i] = (uint8_t)bns_prng_range(&p, 1, 255);
        bytes[n] = 0;
        BNS_LOG(&log, BNS_LOG_INFO, "m", "t", BNS_STR("a", (char *)bytes),
                BNS_BYTES("b", bns_slice(bytes, n)), BNS_STR("c", (char *)bytes),
                BNS_STR("d", (char *)bytes), BNS_STR("e", (char *)bytes));
        assert_int_equal(strcspn(line, "\n"), strlen(line) - 1);
        j = json_loads(line, JSON_REJECT_DUPLICATES, &at);
        if (j == NULL)
            fail_msg("%s at %d in %s", at.text, at.column, line);
        assert_true(json_object_get(j, "e") != NULL || json_is_true(json_object_get(j, "cut")));
        json_decref(j);
    }
}

static void a_site_is_limited(void **state)
{
    struct bns_log log = {0};
    uint64_t last = 0;

    (void)state;
    assert_true(bns_log_limit(&log, 0, BNS_SEC, &last));
    assert_false(bns_log_limit(&log, 5, BNS_SEC, &last));
    assert_true(bns_log_limit(&log, BNS_SEC + 1, BNS_SEC, &last));
    assert_false(bns_log_limit(&log, 2 * BNS_SEC, BNS_SEC, &last));
    assert_int_equal(log.dropped, 2);
}

/* ---- metrics --------------------------------------------------------------------------------- */
static void late_gauge(void *arg)
{
    bns_gauge_set(arg, 2.5);
}

/* Registers one of each and writes them; the only result is what it returns. */
static int build_metrics(const struct bns_alloc *alloc, struct bns_buf *out)
{
    struct bns_metrics *m = NULL;
    struct bns_counter *put, *get;
    struct bns_gauge *g;
    struct bns_hist *h;
    struct bns_buf labels;
    int rv = bns_metrics_new(alloc, &m);

    bns_buf_init(&labels, alloc, 1000);
    if (rv != BNS_OK)
        return rv;
    rv = bns_metrics_label(&labels, "method", BNS_LIT("P\"u\\t\n"));
    if (rv == BNS_OK)
        rv = bns_metrics_label(&labels, "x", BNS_LIT(""));
    if (rv == BNS_OK)
        rv = bns_buf_byte(&labels, 0);
    if (rv != BNS_OK)
        goto done;
    put = bns_counter(m, "rpc_total", (char *)labels.ptr, "calls\\\nanswered");
    get = bns_counter(m, "rpc_total", "method=\"Get\"", "calls\\\nanswered");
    g = bns_gauge(m, "a_level", NULL, "a level");
    h = bns_hist(m, "wal_fsync_seconds", NULL, "time of a sync");
    rv = bns_metrics_hook(m, late_gauge, g);
    bns_counter_add(put, UINT64_MAX);
    bns_counter_add(get, 2);
    bns_hist_observe(h, 0.0001);
    bns_hist_observe(h, 0.3);
    bns_hist_observe(h, 31);
    if (rv == BNS_OK && (put == NULL || get == NULL || g == NULL || h == NULL))
        rv = BNS_E_NOMEM;
    if (rv != BNS_OK)
        goto done;
    assert_ptr_equal(bns_counter(m, "rpc_total", "method=\"Get\"", ""), get);
    assert_int_equal(bns_hist_count(h), 3);
    rv = bns_metrics_text(m, out);

done:
    bns_buf_free(&labels);
    bns_metrics_free(m);
    return rv;
}

static void metrics_text_is_prometheus_0_0_4(void **state)
{
    struct bns_buf b;

    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 100000);
    assert_int_equal(build_metrics(bns_alloc_libc(), &b), BNS_OK);
    assert_int_equal(bns_buf_byte(&b, 0), BNS_OK);
    assert_string_equal((char *)b.ptr,
                        "# HELP a_level a level\n# TYPE a_level gauge\na_level 2.5\n"
                        "# HELP rpc_total calls\\\\\\nanswered\n# TYPE rpc_total counter\n"
                        "rpc_total{method=\"Get\"} 2\n"
                        "rpc_total{method=\"P\\\"u\\\\t\\n\",x=\"\"} 18446744073709551615\n"
                        "# HELP wal_fsync_seconds time of a sync\n"
                        "# TYPE wal_fsync_seconds histogram\n"
                        "wal_fsync_seconds_bucket{le=\"0.0001\"} 1\n"
                        "wal_fsync_seconds_bucket{le=\"0.00025\"} 1\n"
                        "wal_fsync_seconds_bucket{le=\"0.0005\"} 1\n"
                        "wal_fsync_seconds_bucket{le=\"0.001\"} 1\n"
                        "wal_fsync_seconds_bucket{le=\"0.0025\"} 1\n"
                        "wal_fsync_seconds_bucket{le=\"0.005\"} 1\n"
                        "wal_fsync_seconds_bucket{le=\"0.01\"} 1\n"
                        "wal_fsync_seconds_bucket{le=\"0.025\"} 1\n"
                        "wal_fsync_seconds_bucket{le=\"0.05\"} 1\n"
                        "wal_fsync_seconds_bucket{le=\"0.1\"} 1\n"
                        "wal_fsync_seconds_bucket{le=\"0.25\"} 1\n"
                        "wal_fsync_seconds_bucket{le=\"0.5\"} 2\n"
                        "wal_fsync_seconds_bucket{le=\"1\"} 2\n"
                        "wal_fsync_seconds_bucket{le=\"2.5\"} 2\n"
                        "wal_fsync_seconds_bucket{le=\"5\"} 2\n"
                        "wal_fsync_seconds_bucket{le=\"10\"} 2\n"
                        "wal_fsync_seconds_bucket{le=\"30\"} 2\n"
                        "wal_fsync_seconds_bucket{le=\"+Inf\"} 3\n"
                        "wal_fsync_seconds_sum 31.3001\n"
                        "wal_fsync_seconds_count 3\n");
    bns_buf_free(&b);
}

/* Also made before what it names, which may never come. */
static void an_alias_shows_the_same_numbers(void **state)
{
    struct bns_metrics *m = NULL;
    struct bns_buf out;
    (void)state;

    assert_int_equal(bns_metrics_new(bns_alloc_libc(), &m), BNS_OK);
    bns_buf_init(&out, bns_alloc_libc(), 1 << 20);
    assert_int_equal(bns_metrics_alias(m, "b_total", "a_total", "the same"), BNS_OK);
    assert_int_equal(bns_metrics_alias(m, "c_total", "never", "nothing"), BNS_OK);
    bns_counter_add(bns_counter(m, "a_total", "x=\"1\"", "first"), 7);
    assert_int_equal(bns_metrics_text(m, &out), BNS_OK);
    assert_int_equal(bns_buf_byte(&out, 0), BNS_OK);
    assert_string_equal((const char *)out.ptr, "# HELP a_total first\n"
                                               "# TYPE a_total counter\n"
                                               "a_total{x=\"1\"} 7\n"
                                               "# HELP b_total the same\n"
                                               "# TYPE b_total counter\n"
                                               "b_total{x=\"1\"} 7\n");
    bns_buf_free(&out);
    bns_metrics_free(m);
}

static void metrics_survive_oom(void **state)
{
    bool fired = true;

    (void)state;
    for (int fail_at = 1; fired; fail_at++) {
        struct bns_test_heap *h = bns_test_heap(fail_at);
        struct bns_buf b;
        int rv;
        bns_buf_init(&b, bns_test_heap_alloc(h), 100000);
        rv = build_metrics(bns_test_heap_alloc(h), &b);
        assert_true(rv == BNS_OK || b.len == 0);
        bns_buf_free(&b);
        assert_int_equal(bns_test_heap_close(h, &fired), 0);
        assert_int_equal(rv, fired ? BNS_E_NOMEM : BNS_OK);
    }
    assert_null(bns_counter(NULL, "a", NULL, "b"));
    bns_counter_add(NULL, 1); /* the helpers take NULL */
    bns_gauge_set(NULL, 1);
    bns_hist_observe(NULL, 1);
    assert_int_equal(bns_hist_count(NULL), 0);
    assert_int_equal(bns_metrics_hook(NULL, late_gauge, NULL), BNS_OK);
    bns_metrics_free(NULL);
}

/* Each bound is the double of the one before, or those of Prometheus' libraries; what is on a bound
 * is below it. */
static void other_buckets_are_written_and_counted(void **state)
{
    static const char want[] = "# HELP d of ours\n# TYPE d histogram\n"
                               "d_bucket{le=\"0.01\"} 1\nd_bucket{le=\"0.02\"} 2\n"
                               "d_bucket{le=\"0.04\"} 2\nd_bucket{le=\"+Inf\"} 3\n"
                               "d_sum 1.03\nd_count 3\n"
                               "# HELP p plain\n# TYPE p histogram\n"
                               "p_bucket{a=\"1\",le=\"0.005\"} 1\np_bucket{a=\"1\",le=\"0.01\"} 1\n"
                               "p_bucket{a=\"1\",le=\"0.025\"} 1\np_bucket{a=\"1\",le=\"0.05\"} 1\n"
                               "p_bucket{a=\"1\",le=\"0.1\"} 1\np_bucket{a=\"1\",le=\"0.25\"} 1\n"
                               "p_bucket{a=\"1\",le=\"0.5\"} 1\np_bucket{a=\"1\",le=\"1\"} 1\n"
                               "p_bucket{a=\"1\",le=\"2.5\"} 1\np_bucket{a=\"1\",le=\"5\"} 1\n"
                               "p_bucket{a=\"1\",le=\"10\"} 2\np_bucket{a=\"1\",le=\"+Inf\"} 3\n"
                               "p_sum{a=\"1\"} 21.001953125\np_count{a=\"1\"} 3\n";
    struct bns_metrics *m;
    struct bns_hist *d, *p;
    struct bns_buf b;

    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 10000);
    assert_int_equal(bns_metrics_new(bns_alloc_libc(), &m), BNS_OK);
    d = bns_hist_double(m, "d", "of ours", 0.01, 3);
    p = bns_hist_plain(m, "p", "a=\"1\"", "plain");
    assert_ptr_equal(bns_hist_double(m, "d", "of ours", 0.01, 3), d);
    bns_hist_observe(d, 0.01);
    bns_hist_observe(d, 0.02);
    bns_hist_observe(d, 1);
    bns_hist_observe(p, 0.001953125);
    bns_hist_observe(p, 10);
    bns_hist_observe(p, 11);
    assert_int_equal(bns_metrics_text(m, &b), BNS_OK);
    assert_int_equal(bns_buf_byte(&b, 0), BNS_OK);
    assert_string_equal((char *)b.ptr, want);
    bns_buf_free(&b);
    bns_metrics_free(m);
    assert_null(bns_hist_double(NULL, "d", "", 1, 1));
    assert_null(bns_hist_plain(NULL, "p", NULL, ""));
}

static void gauges_print_every_number(void **state)
{
    static const struct {
        double v;
        const char *text;
    } t[] = {{0, "0"},
             {1.0 / 3, "0.33333333333333331"},
             {1e300 * 1e300, "+Inf"},
             {-1e300 * 1e300, "-Inf"},
             {0.1, "0.1"},
             {-2, "-2"}};
    struct bns_metrics *m;
    struct bns_gauge *g;
    struct bns_buf b;

    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 1000);
    assert_int_equal(bns_metrics_new(bns_alloc_libc(), &m), BNS_OK);
    g = bns_gauge(m, "g", "a=\"1\"", "h");
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        char want[200];
        bns_gauge_set(g, t[i].v);
        bns_buf_clear(&b);
        assert_int_equal(bns_metrics_text(m, &b), BNS_OK);
        assert_int_equal(bns_buf_byte(&b, 0), BNS_OK);
        (void)snprintf(want, sizeof want, "# HELP g h\n# TYPE g gauge\ng{a=\"1\"} %s\n", t[i].text);
        assert_string_equal((char *)b.ptr, want);
    }
    bns_metrics_free(m);
    bns_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_its_row_and_others_are_unknown),
        cmocka_unit_test(causes_are_chained_outwards),
        cmocka_unit_test(long_texts_are_cut_between_characters),
        cmocka_unit_test(utf8_takes_rfc3629_and_nothing_else),
        cmocka_unit_test(durations),
        cmocka_unit_test(sizes),
        cmocka_unit_test(times),
        cmocka_unit_test(log_lines_in_both_formats),
        cmocka_unit_test(log_lines_are_always_well_formed),
        cmocka_unit_test(a_site_is_limited),
        cmocka_unit_test(metrics_text_is_prometheus_0_0_4),
        cmocka_unit_test(an_alias_shows_the_same_numbers),
        cmocka_unit_test(metrics_survive_oom),
        cmocka_unit_test(other_buckets_are_written_and_counted),
        cmocka_unit_test(gauges_print_every_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
