/* test_srv.c - SRV records: what is taken out of a name server's answer, in which order it is
 * tried, and that nothing else is believed.
 *
 * Method: messages are written by hand, record by record; then cut at every byte and with every
 * byte changed. Nobody is asked: lookups through a name server are in tests/matrix.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "io/srv.h"

#define QUESTION                                                                                   \
    "\x05_etcd\x04_tcp\x07"                                                                        \
    "example\0\0\x21\0\x01"
#define ANSWER "\xc0\x0c\0\x21\0\x01\0\0\0\x3c" /* the question's name, SRV, IN, 60 s */

struct message {
    uint8_t bytes[8192];
    size_t len;
};

static void put(struct message *m, const void *bytes, size_t len)
{
    assert_true(m->len + len <= sizeof m->bytes);
    memcpy(m->bytes + m->len, bytes, len);
    m->len += len;
}

static void begin(struct message *m)
{
    m->len = 0;
    put(m, "\x12\x34\x81\x80\0\x01\0\0\0\0\0\0", 12);
    put(m, QUESTION, sizeof QUESTION - 1);
}

/* name: labels with their lengths, and what ends it. */
static void record(struct message *m, uint16_t priority, uint16_t weight, uint16_t port,
                   const char *name, size_t name_len)
{
    const uint8_t fixed[8] = {(uint8_t)((6 + name_len) >> 8), (uint8_t)(6 + name_len),
                              (uint8_t)(priority >> 8),       (uint8_t)priority,
                              (uint8_t)(weight >> 8),         (uint8_t)weight,
                              (uint8_t)(port >> 8),           (uint8_t)port};

    put(m, ANSWER, sizeof ANSWER - 1);
    put(m, fixed, sizeof fixed);
    put(m, name, name_len);
    m->bytes[7]++;
}

static int parse(const struct message *m, struct bns_srv out[BNS_SRV_MAX], size_t *count)
{
    struct bns_err err = {0};

    return bns_srv_parse(bns_slice(m->bytes, m->len), out, count, &err);
}

static void records_are_read_and_compressed_names_are_whole(void **state)
{
    struct bns_srv s[BNS_SRV_MAX];
    struct message m;
    size_t n = 99;

    (void)state;
    begin(&m);
    assert_int_equal(parse(&m, s, &n), BNS_OK);
    assert_int_equal(n, 0);
    record(&m, 1, 2, 2379, "\x02n1\xc0\x17", 5); /* .example of the question */
    record(&m, 65535, 0, 65535,
           "\x01"
           "a\x01"
           "b\0",
           5);
    put(&m, "\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x02\xc0\x17", 14); /* an alias */
    m.bytes[7]++;
    record(&m, 0, 0, 0, "\0", 1); /* "no such service" */
    assert_int_equal(parse(&m, s, &n), BNS_OK);
    assert_int_equal(n, 2);
    assert_string_equal(s[0].target, "n1.example");
    assert_int_equal(s[0].priority, 1);
    assert_int_equal(s[0].weight, 2);
    assert_int_equal(s[0].port, 2379);
    assert_string_equal(s[1].target, "a.b");
    assert_int_equal(s[1].priority, 65535);
    assert_int_equal(s[1].port, 65535);
}

static void names_that_are_no_hosts_are_refused(void **state)
{
    static const struct {
        const char *name;
        size_t len;
    } t[] = {{"\x03"
              "a/b\0",
              5},
             {"\x03"
              "a b\0",
              5},
             {"\x03"
              "a@b\0",
              5},
             {"\x03"
              "a\0b\0",
              5},
             {"\x03"
              "a:1\0",
              5},
             {"\xc0\x36", 2}, /* leads to itself */
             {"\xff\xff", 2},
             {"\x3f"
              "a\0",
              3},
             {"\x03"
              "a.b\0",
              5}};
    struct bns_srv s[BNS_SRV_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct message m;
        size_t n = 7;

        begin(&m);
        record(&m, 0, 0, 1, t[i].name, t[i].len);
        if (parse(&m, s, &n) != BNS_E_PROTO)
            fail_msg("row %d", (int)i);
        assert_int_equal(n, 7);
    }
}

static void there_are_no_more_than_that(void **state)
{
    struct bns_srv s[BNS_SRV_MAX];
    struct message m;
    size_t n = 0;

    (void)state;
    begin(&m);
    for (unsigned i = 0; i < BNS_SRV_MAX; i++)
        record(&m, 0, 0, (uint16_t)i,
               "\x01"
               "a\0",
               3);
    assert_int_equal(parse(&m, s, &n), BNS_OK);
    assert_int_equal(n, BNS_SRV_MAX);
    record(&m, 0, 0, 1,
           "\x01"
           "a\0",
           3);
    assert_int_equal(parse(&m, s, &n), BNS_E_TOOBIG);
}

/* Whatever is taken, it is a host's name. */
static void check(const struct message *m)
{
    struct bns_srv s[BNS_SRV_MAX];
    size_t n = 0;

    if (parse(m, s, &n) == BNS_OK) {
        for (size_t i = 0; i < n; i++)
            assert_int_not_equal(bns_host_kind(s[i].target), BNS_HOST_BAD);
    }
}

static void cut_and_damaged_messages_are_survived(void **state)
{
    struct message m;

    (void)state;
    begin(&m);
    record(&m, 1, 2, 2379, "\x02n1\xc0\x17", 5);
    record(&m, 1, 2, 2380,
           "\x01"
           "b\xc0\x36",
           4);
    for (size_t len = 0; len < m.len; len++) {
        struct message cut = m;

        struct bns_srv s[BNS_SRV_MAX];
        size_t n = 0;

        cut.len = len;
        assert_int_equal(parse(&cut, s, &n), BNS_E_PROTO);
    }
    for (size_t at = 0; at < m.len; at++) {
        for (unsigned v = 0; v < 256; v++) {
            struct message other = m;

            other.bytes[at] = (uint8_t)v;
            check(&other);
        }
    }
}

/* RFC 2782: lower priorities first; by weight within one, those of weight 0 hardly ever first. */
static void lower_priorities_come_first_and_weights_are_shares(void **state)
{
    unsigned first[3] = {0};
    struct bns_prng p;

    (void)state;
    bns_prng_seed(&p, 7);
    for (unsigned i = 0; i < 4000; i++) {
        struct bns_srv s[4] = {{2, 1, 9, "last"}, {1, 30, 1, "b"}, {1, 10, 0, "a"}, {1, 0, 2, "c"}};

        bns_srv_order(s, 4, &p);
        assert_string_equal(s[3].target, "last");
        assert_true(s[0].port != s[1].port && s[1].port != s[2].port && s[0].port != s[2].port);
        first[s[0].port]++;
    }
    assert_true(first[0] > 800 && first[0] < 1200);
    assert_true(first[1] > 2750 && first[1] < 3150);
    assert_true(first[2] < 200);
    bns_srv_order(NULL, 0, &p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_are_read_and_compressed_names_are_whole),
        cmocka_unit_test(names_that_are_no_hosts_are_refused),
        cmocka_unit_test(there_are_no_more_than_that),
        cmocka_unit_test(cut_and_damaged_messages_are_survived),
        cmocka_unit_test(lower_priorities_come_first_and_weights_are_shares),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
