/* check_kit.h - tables of histories for the tests of checkers: short scripts, expected verdicts.
 *
 * A line "p i txn a [1]" is process p, type i(nvoke) o(k) f(ail) n (info), f, key ("-" is none),
 * value. Before the process may stand a time in ms: "@1500 p i ...".
 */
#ifndef BNS_TESTS_CHECK_KIT_H
#define BNS_TESTS_CHECK_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sim/check.h"
#include "sim/heap.h"

struct known_history {
    const char *name;
    const char *anomaly; /* NULL: none, or rv says what */
    int rv;              /* BNS_OK: BNS_E_CONFLICT when there is an anomaly */
    const char *script;
    const char *text; /* part of the verdict's text; NULL: any */
};

static inline int script_event(struct bns_history *h, const char *line, uint64_t *time_ms)
{
    struct bns_history_event e = {0};
    unsigned long long at;
    char type, f[16], key[32], value[512];
    long long process;
    int used = 0;

    if (sscanf(line, "@%llu %n", &at, &used) == 1)
        *time_ms = at;
    assert_int_equal(
        sscanf(line + used, "%lld %c %15s %31s %511[^\n]", &process, &type, f, key, value), 5);
    e.time = *time_ms * 1000000;
    e.process = process;
    e.type = type == 'i'   ? BNS_HIST_INVOKE
             : type == 'o' ? BNS_HIST_OK
             : type == 'f' ? BNS_HIST_FAIL
                           : BNS_HIST_INFO;
    e.f = f;
    e.key = key[0] == '-' ? NULL : key;
    e.value = value;
    return bns_history_add(h, &e);
}

static inline struct bns_history *script_history(const struct bns_alloc *a, const char *script)
{
    struct bns_history *h = NULL;
    uint64_t time_ms = 1;

    assert_int_equal(bns_history_new(a, &h), BNS_OK);
    for (const char *p = script; p != NULL && *p != '\0'; p = strchr(p, '\n')) {
        p += *p == '\n';
        assert_int_equal(script_event(h, p, &time_ms), BNS_OK);
    }
    return h;
}

static inline void known_verdicts(const char *kind, const struct known_history *t, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct bns_history *h = script_history(bns_alloc_libc(), t[i].script);
        struct bns_check_cfg cfg = {.alloc = bns_alloc_libc()};
        struct bns_verdict v;
        int rv = bns_check_history(h, kind, &cfg, &v);

        print_message("  %-34s %s %s\n", t[i].name, v.anomaly == NULL ? "-" : v.anomaly, v.text);
        if (t[i].anomaly == NULL) {
            assert_null(v.anomaly);
            assert_int_equal(rv, t[i].rv);
        } else {
            assert_non_null(v.anomaly);
            assert_string_equal(v.anomaly, t[i].anomaly);
            assert_int_equal(rv, BNS_E_CONFLICT);
            assert_true(v.ops_count > 0);
        }
        if (t[i].text != NULL)
            assert_non_null(strstr(v.text, t[i].text));
        bns_history_free(h);
    }
}

/* Every allocation in turn fails; the JSON library's own are not ours to fail. */
static inline void check_survives_oom(const char *kind, const char *script, int want)
{
    bool fired = true;

    for (int fail_at = 1; fired; fail_at++) {
        struct bns_test_heap *heap = bns_test_heap(0);
        struct bns_history *h = script_history(bns_test_heap_alloc(heap), script);
        struct bns_check_cfg cfg = {.alloc = bns_test_heap_alloc(heap)};
        struct bns_verdict v;
        int rv;

        bns_test_heap_fail_at(heap, fail_at);
        rv = bns_check_history(h, kind, &cfg, &v);
        bns_history_free(h);
        assert_int_equal(bns_test_heap_close(heap, &fired), 0);
        if (!fired || rv != BNS_E_NOMEM) /* a map that cannot grow goes on */
            assert_int_equal(rv, want);
    }
}

#endif
