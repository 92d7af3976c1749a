/* Goal:   an answer that took longer than 100 ms, or than the flag says, is counted and logged, as
 *         etcd logs it; not more often than a log can bear.
 * Method: a real server in a simulated world, answers with a beginning of our choice. What /metrics
 *         shows is in tests/matrix/test_inspect.py. */
#include "client_world.h"

static struct {
    char text[1024];
    unsigned lines;
} logged;

static void take_line(void *arg, struct bns_slice line)
{
    (void)arg;
    if (memmem(line.ptr, line.len, "took too long", 13) == NULL)
        return;
    logged.lines++;
    (void)snprintf(logged.text, sizeof logged.text, "%.*s", (int)line.len, (const char *)line.ptr);
}

static void slow_answers_are_counted_and_logged(void **state)
{
    static const struct {
        uint64_t ago_ns, index;
        bool slow;
    } t[] = {
        {0, 7, false},           {100 * BNS_MS, 7, false}, {100 * BNS_MS + 1, 7, true},
        {250 * BNS_MS, 7, true}, {250 * BNS_MS, 0, true},
    };
    struct bns_counter slow = {0};
    uint64_t expect = 0;
    (void)state;

    cw_new(21, 1, NULL);
    (void)cw_leader();
    cw.server[0].log.write = take_line;
    cw.server[0].s->m_slow = &slow;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct etcd_task task = {.s = cw.server[0].s};
        struct etcd_answer a = {.index = t[i].index, .revision = 12};
        unsigned before = logged.lines;

        cw_pass(BNS_SEC);
        a.began_ns = bns_now_ns(cw.server[0].s->env) - t[i].ago_ns;
        etcd_metrics_answer(&task, &a);
        expect += t[i].slow;
        assert_int_equal(slow.value, expect);
        assert_int_equal(logged.lines, before + t[i].slow);
    }
    assert_non_null(strstr(logged.text, "apply request took too long"));
    assert_non_null(strstr(logged.text, "took_ms=250"));
    assert_non_null(strstr(logged.text, "expected-duration=100ms"));
    assert_non_null(strstr(logged.text, "prefix=\"read-only \""));
    cw.server[0].s->m_slow = NULL;
    cw_free();
}

static void a_thousand_slow_answers_are_counted_and_one_is_logged(void **state)
{
    struct bns_counter slow = {0};
    struct etcd_answer a = {.index = 1};
    struct etcd_task task;
    unsigned before;
    (void)state;

    cw_new(22, 1, NULL);
    (void)cw_leader();
    cw_pass(BNS_SEC);
    cw.server[0].log.write = take_line;
    cw.server[0].s->m_slow = &slow;
    before = logged.lines;
    task = (struct etcd_task){.s = cw.server[0].s};
    a.began_ns = bns_now_ns(cw.server[0].s->env) - BNS_SEC;
    for (int i = 0; i < 1000; i++)
        etcd_metrics_answer(&task, &a);
    assert_int_equal(slow.value, 1000);
    assert_int_equal(logged.lines, before + 1);
    cw.server[0].s->m_slow = NULL;
    cw_free();
}

static void what_is_slow_is_what_the_flag_says(void **state)
{
    static const struct {
        const char *flag, *text;
        uint64_t ns;
    } t[] = {
        {"--warning-apply-duration=2s", "expected-duration=2s", 2 * BNS_SEC},
        {"--experimental-warning-apply-duration=1500us", "expected-duration=1500us", 1500 * BNS_US},
    };
    (void)state;

    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_counter slow = {0};
        struct etcd_task task;
        struct etcd_answer a = {.index = 1};

        cw_extra = t[i].flag;
        cw_new(23, 1, NULL);
        cw_extra = NULL;
        (void)cw_leader();
        cw_pass(3 * BNS_SEC);
        cw.server[0].log.write = take_line;
        cw.server[0].s->m_slow = &slow;
        task = (struct etcd_task){.s = cw.server[0].s};
        a.began_ns = bns_now_ns(cw.server[0].s->env) - t[i].ns;
        etcd_metrics_answer(&task, &a);
        assert_int_equal(slow.value, 0);
        a.began_ns--;
        etcd_metrics_answer(&task, &a);
        assert_int_equal(slow.value, 1);
        assert_non_null(strstr(logged.text, t[i].text));
        cw.server[0].s->m_slow = NULL;
        cw_free();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_slow_is_what_the_flag_says),
        cmocka_unit_test(slow_answers_are_counted_and_logged),
        cmocka_unit_test(a_thousand_slow_answers_are_counted_and_one_is_logged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
