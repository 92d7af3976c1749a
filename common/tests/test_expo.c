/* test_expo.c - the text exposition format: every accepted and every refused shape of a line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/metrics.h"
#include "codec/expo.h"

#include <math.h>
#include <stdio.h>

static bool eq(struct bns_slice s, const char *text)
{
    return bns_slice_eq(s, bns_slice_str(text));
}

static void samples_are_read_and_bad_ones_are_refused(void **state)
{
    static const struct {
        const char *line;
        int rv;
        const char *name, *labels, *value, *stamp;
    } t[] = {
        {"a 1", BNS_OK, "a", "", "1", ""},
        {"a:b_9 -1.5e+3", BNS_OK, "a:b_9", "", "-1.5e+3", ""},
        {"  a\t 1 \t", BNS_OK, "a", "", "1", ""},
        {"a{} 1", BNS_OK, "a", "", "1", ""},
        {"a{}1", BNS_OK, "a", "", "1", ""},
        {"a {x=\"y\"} 1 -5", BNS_OK, "a", "x=\"y\"", "1", "-5"},
        {"a{ x = \"y\" , } 1", BNS_OK, "a", " x = \"y\" , ", "1", ""},
        {"a{x=\"}\\\"\\\\\\n,\",y=\"\"} +Inf 12", BNS_OK, "a", "x=\"}\\\"\\\\\\n,\",y=\"\"", "+Inf",
         "12"},
        {"a{x=\"\xc3\xa9\"} NaN", BNS_OK, "a", "x=\"\xc3\xa9\"", "NaN", ""},
        {"a .5", BNS_OK, "a", "", ".5", ""},
        {"a 1.", BNS_OK, "a", "", "1.", ""},
        {"a", BNS_E_PROTO, 0, 0, 0, 0},
        {"a ", BNS_E_PROTO, 0, 0, 0, 0},
        {"a1", BNS_E_PROTO, 0, 0, 0, 0},
        {"a\"1", BNS_E_PROTO, 0, 0, 0, 0},
        {"1a 1", BNS_E_PROTO, 0, 0, 0, 0},
        {"a-b 1", BNS_E_PROTO, 0, 0, 0, 0},
        {"a x", BNS_E_PROTO, 0, 0, 0, 0},
        {"a 1 2 3", BNS_E_PROTO, 0, 0, 0, 0},
        {"a 1 x", BNS_E_PROTO, 0, 0, 0, 0},
        {"a 1 -", BNS_E_PROTO, 0, 0, 0, 0},
        {"a 1e", BNS_E_PROTO, 0, 0, 0, 0},
        {"a 1e+", BNS_E_PROTO, 0, 0, 0, 0},
        {"a .", BNS_E_PROTO, 0, 0, 0, 0},
        {"a 1.2.3", BNS_E_PROTO, 0, 0, 0, 0},
        {"a 0x10", BNS_E_PROTO, 0, 0, 0, 0},
        {"a --1", BNS_E_PROTO, 0, 0, 0, 0},
        {"a{x=\"y\" 1", BNS_E_PROTO, 0, 0, 0, 0},
        {"a{x=\"y} 1", BNS_E_PROTO, 0, 0, 0, 0},
        {"a{x=y} 1", BNS_E_PROTO, 0, 0, 0, 0},
        {"a{x} 1", BNS_E_PROTO, 0, 0, 0, 0},
        {"a{,} 1", BNS_E_PROTO, 0, 0, 0, 0},
        {"a{x:y=\"1\"} 1", BNS_E_PROTO, 0, 0, 0, 0},
        {"a{x=\"1\"y=\"2\"} 1", BNS_E_PROTO, 0, 0, 0, 0},
        {"a{x=\"\\t\"} 1", BNS_E_PROTO, 0, 0, 0, 0},
        {"a{x=\"\\", BNS_E_PROTO, 0, 0, 0, 0},
        {"a{x=\"\xff\"} 1", BNS_E_PROTO, 0, 0, 0, 0},
        {"a 1\r", BNS_E_PROTO, 0, 0, 0, 0},
        {"{x=\"y\"} 1", BNS_E_PROTO, 0, 0, 0, 0},
    };
    (void)state;

    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_expo x = {.rest = bns_slice_str(t[i].line)};
        struct bns_expo_line l;

        print_message("  %s\n", t[i].line);
        assert_int_equal(bns_expo_next(&x, &l), t[i].rv);
        if (t[i].rv == BNS_OK) {
            assert_int_equal(l.kind, BNS_EXPO_SAMPLE);
            assert_true(eq(l.name, t[i].name));
            assert_true(eq(l.labels, t[i].labels));
            assert_true(eq(l.value, t[i].value));
            assert_true(eq(l.stamp, t[i].stamp));
        }
        assert_int_equal(bns_expo_next(&x, &l), BNS_E_NOTFOUND);
        assert_int_equal(x.line, 1);
    }
}

static void numbers_have_the_values_that_go_reads(void **state)
{
    static const struct {
        const char *line;
        double v;
    } t[] = {
        {"a 0", 0},
        {"a -0.25", -0.25},
        {"a +1E3", 1000},
        {"a 1e999", HUGE_VAL},
        {"a -inf", -HUGE_VAL},
        {"a INFINITY", HUGE_VAL},
    };
    struct bns_expo_line l;
    struct bns_expo x = {.rest = BNS_LIT("a nan")};
    (void)state;

    assert_int_equal(bns_expo_next(&x, &l), BNS_OK);
    assert_true(isnan(l.number));
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        x = (struct bns_expo){.rest = bns_slice_str(t[i].line)};
        assert_int_equal(bns_expo_next(&x, &l), BNS_OK);
        assert_true(l.number == t[i].v);
    }
}

static void comments_are_passed_over_and_a_bad_line_hides_no_other(void **state)
{
    struct bns_expo x = {.rest = BNS_LIT("# any comment {{{\n\n#\n  # HELP a What it \\n is.\n"
                                         "# TYPE a counter\na 1\nbroken\n# TYPE a gouge\n"
                                         "# TYPE a\n# HELP a\n#TYPE b gauge\nb 2")};
    static const struct {
        int rv;
        enum bns_expo_kind kind;
        size_t line;
        const char *text;
    } want[] = {
        {BNS_OK, BNS_EXPO_HELP, 4, "What it \\n is."},
        {BNS_OK, BNS_EXPO_TYPE, 5, "counter"},
        {BNS_OK, BNS_EXPO_SAMPLE, 6, ""},
        {BNS_E_PROTO, 0, 7, NULL},
        {BNS_E_PROTO, 0, 8, NULL},
        {BNS_E_PROTO, 0, 9, NULL},
        {BNS_OK, BNS_EXPO_HELP, 10, ""},
        {BNS_OK, BNS_EXPO_TYPE, 11, "gauge"},
        {BNS_OK, BNS_EXPO_SAMPLE, 12, ""},
    };
    struct bns_expo_line l;
    (void)state;

    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        assert_int_equal(bns_expo_next(&x, &l), want[i].rv);
        assert_int_equal(x.line, want[i].line);
        if (want[i].rv == BNS_OK) {
            assert_int_equal(l.kind, want[i].kind);
            assert_true(eq(l.text, want[i].text));
        }
    }
    assert_int_equal(bns_expo_next(&x, &l), BNS_E_NOTFOUND);
}

static void labels_come_one_by_one(void **state)
{
    struct bns_slice s = BNS_LIT(" a=\"1\", b =\"x,}\" ,"), name, value;
    (void)state;

    assert_true(bns_expo_label(&s, &name, &value));
    assert_true(eq(name, "a") && eq(value, "1"));
    assert_true(bns_expo_label(&s, &name, &value));
    assert_true(eq(name, "b") && eq(value, "x,}"));
    assert_false(bns_expo_label(&s, &name, &value));
}

static void a_family_has_the_samples_of_its_type(void **state)
{
    static const struct {
        const char *sample, *family, *type;
        bool in;
    } t[] = {
        {"a", "a", "", true},
        {"ab", "a", "", false},
        {"a_sum", "a", "gauge", false},
        {"a_sum", "a", "histogram", true},
        {"a_sum", "a", "summary", true},
        {"a_bucket", "a", "histogram", true},
        {"a_bucket", "a", "summary", false},
        {"a_count", "a", "summary", true},
        {"a", "a_sum", "summary", false},
        {"a_total", "a", "histogram", false},
    };
    (void)state;

    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++)
        assert_int_equal(bns_expo_in_family(bns_slice_str(t[i].sample), bns_slice_str(t[i].family),
                                            bns_slice_str(t[i].type)),
                         t[i].in);
}

/* Bounds: one byte more than a line may have, one label more than a sample may have. */
static void lines_and_labels_are_bounded(void **state)
{
    static char text[BNS_EXPO_LINE_BYTES_MAX + 8];
    struct bns_expo x;
    struct bns_expo_line l;
    size_t len = 0;
    (void)state;

    for (size_t more = 0; more < 2; more++) {
        memset(text, 'a', sizeof text);
        memcpy(text + BNS_EXPO_LINE_BYTES_MAX - 2 + more, " 1", 2);
        x = (struct bns_expo){.rest = bns_slice(text, BNS_EXPO_LINE_BYTES_MAX + more)};
        assert_int_equal(bns_expo_next(&x, &l), more == 0 ? BNS_OK : BNS_E_PROTO);
    }
    for (size_t n = BNS_EXPO_LABELS_MAX; n <= BNS_EXPO_LABELS_MAX + 1; n++) {
        len = (size_t)snprintf(text, sizeof text, "a{");
        for (size_t i = 0; i < n; i++)
            len += (size_t)snprintf(text + len, sizeof text - len, "l%zu=\"\",", i);
        len += (size_t)snprintf(text + len, sizeof text - len, "} 1");
        x = (struct bns_expo){.rest = bns_slice(text, len)};
        assert_int_equal(bns_expo_next(&x, &l), n == BNS_EXPO_LABELS_MAX ? BNS_OK : BNS_E_PROTO);
    }
}

/* What our own registry writes is in the format, labels with every special byte included. */
static void our_own_metrics_are_read(void **state)
{
    struct bns_metrics *m = NULL;
    struct bns_buf label, text;
    struct bns_expo x;
    struct bns_expo_line l;
    size_t samples = 0;
    int rv;
    (void)state;

    assert_int_equal(bns_metrics_new(bns_alloc_libc(), &m), BNS_OK);
    bns_buf_init(&label, bns_alloc_libc(), 1000);
    bns_buf_init(&text, bns_alloc_libc(), 100000);
    assert_int_equal(bns_metrics_label(&label, "k", BNS_LIT("a\"b\\c\nd,}")), BNS_OK);
    assert_int_equal(bns_buf_byte(&label, 0), BNS_OK);
    bns_counter_add(bns_counter(m, "c_total", (const char *)label.ptr, "a \\ b"), 3);
    bns_gauge_set(bns_gauge(m, "g", NULL, "g"), -1e-30);
    bns_hist_observe(bns_hist(m, "h_seconds", "x=\"y\"", "h"), 0.01);
    assert_int_equal(bns_metrics_text(m, &text), BNS_OK);
    x = (struct bns_expo){.rest = bns_buf_slice(&text)};
    while ((rv = bns_expo_next(&x, &l)) == BNS_OK)
        samples += l.kind == BNS_EXPO_SAMPLE;
    assert_int_equal(rv, BNS_E_NOTFOUND);
    assert_true(samples > 5);
    bns_buf_free(&label);
    bns_buf_free(&text);
    bns_metrics_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_are_read_and_bad_ones_are_refused),
        cmocka_unit_test(numbers_have_the_values_that_go_reads),
        cmocka_unit_test(comments_are_passed_over_and_a_bad_line_hides_no_other),
        cmocka_unit_test(labels_come_one_by_one),
        cmocka_unit_test(a_family_has_the_samples_of_its_type),
        cmocka_unit_test(lines_and_labels_are_bounded),
        cmocka_unit_test(our_own_metrics_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
