/* test_grpc_answers.c - the gRPC client against servers that answer in unusual ways. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "grpc_raw.h"

/* Says `say` as soon as the client has said something. */
struct teller {
    struct bns_stream *s;
    struct bns_buf say;
    bool said;
};

static void on_data(void *arg, struct bns_slice data)
{
    struct teller *t = arg;
    struct bns_slice v = bns_buf_slice(&t->say);

    (void)data;
    if (t->said)
        return;
    t->said = true;
    assert_int_equal(bns_stream_write(t->s, &v, 1, NULL, NULL), BNS_OK);
}

static void on_close(void *arg, int code)
{
    (void)code;
    ((struct teller *)arg)->s = NULL;
}

static void on_accept(void *arg, struct bns_stream *s)
{
    static const struct bns_stream_events ev = {.on_data = on_data, .on_close = on_close};
    struct teller *t = arg;

    t->s = s;
    bns_stream_set_events(s, &ev, t);
}

/* One unary call whose answer is t->say; r tells how it ended. */
static void ask(struct teller *t, struct rec *r)
{
    struct bns_grpc_call_options o = {.path = "/x.Y/Z"};
    struct bns_grpc_client *client;
    struct bns_listener *l;
    struct kit k;

    kit_open(&k, NULL);
    memset(r, 0, sizeof *r);
    assert_int_equal(bns_net_listen(&k.f.env, "127.0.0.1", 0, on_accept, t, &l, NULL), BNS_OK);
    assert_int_equal(
        bns_grpc_client_new(&k.f.env, "127.0.0.1", bns_listener_port(&k.f.env, l), &client, NULL),
        BNS_OK);
    o.deadline_ns = k.f.now + 5 * BNS_SEC;
    assert_int_equal(bns_grpc_unary(client, &o, BNS_LIT("q"), &rec_handler, r), BNS_OK);
    fake_run_for(&k.f, 6 * BNS_SEC);
    assert_int_equal(r->ended, 1);
    bns_listener_close(&k.f.env, l);
    bns_grpc_client_free(client);
    if (t->s != NULL)
        bns_stream_reset(t->s);
    fake_run_for(&k.f, BNS_MS);
    assert_int_equal(kit_close(&k, NULL), 0);
    bns_buf_free(&t->say);
}

static void put_headers(struct bns_buf *b, uint8_t flags, const char *status, const char *type,
                        const char *code)
{
    struct bns_buf h;

    bns_buf_init(&h, bns_alloc_libc(), 4096);
    if (status != NULL)
        put_field(&h, ":status", status);
    if (type != NULL)
        put_field(&h, "content-type", type);
    if (code != NULL)
        put_field(&h, "grpc-status", code);
    put_field(&h, "grpc-message", "a%20b%zz");
    put_field(&h, "seen-bin", "AP8B");
    put_frame(b, HEADERS, flags, 1, bns_buf_slice(&h));
    bns_buf_free(&h);
}

static void begin(struct teller *t)
{
    *t = (struct teller){.s = NULL};
    bns_buf_init(&t->say, bns_alloc_libc(), 1u << 20);
    put_frame(&t->say, SETTINGS, 0, 0, bns_slice(NULL, 0));
}

/* Goal: an answer that is not a plain gRPC answer has the status that gRPC's documents give it. */
static void answers_without_grpc_status(void **state)
{
    static const struct {
        const char *http, *type, *code;
        int want;
    } t[] = {
        {"200", "application/grpc", "7", 7},
        {"200", "application/grpc+proto", "0", 0},
        {"200", "application/grpc", "99", 2},
        {"200", "application/grpc", "x", 2},
        {"200", "application/grpc", NULL, 13},
        {"200", "text/html", NULL, 2},
        {"200", NULL, NULL, 2},
        {"400", NULL, NULL, 13},
        {"401", NULL, NULL, 16},
        {"403", NULL, NULL, 7},
        {"404", NULL, NULL, 12},
        {"429", NULL, NULL, 14},
        {"502", NULL, NULL, 14},
        {"503", NULL, NULL, 14},
        {"504", NULL, NULL, 14},
        {"418", NULL, NULL, 2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct teller s;
        struct rec r;

        begin(&s);
        put_headers(&s.say, 5, t[i].http, t[i].type, t[i].code);
        ask(&s, &r);
        print_message("  %s %s %s -> %d %s\n", t[i].http, t[i].type == NULL ? "-" : t[i].type,
                      t[i].code == NULL ? "-" : t[i].code, r.status, r.text);
        assert_int_equal(r.status, t[i].want);
        assert_int_equal(r.messages, 0);
        if (t[i].code != NULL) {
            assert_string_equal(r.text, "a b%zz"); /* a bad escape stays as it is */
            assert_int_equal(r.seen_len, 3);
        }
    }
}

/* Goal: so has each reset, and each way to be cut off. */
static void resets_and_losses(void **state)
{
    static const struct {
        uint8_t code;
        int want;
    } t[] = {{0, 13}, {2, 13}, {7, 14}, {8, 1}, {11, 8}, {12, 7}};
    struct teller s;
    struct rec r;

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        uint8_t code[4] = {0, 0, 0, t[i].code};
        begin(&s);
        put_frame(&s.say, RST_STREAM, 0, 1, bns_slice(code, 4));
        ask(&s, &r);
        assert_int_equal(r.status, t[i].want);
    }
    begin(&s); /* GOAWAY that did not take the call */
    put_frame(&s.say, GOAWAY, 0, 0, bns_slice("\0\0\0\0\0\0\0\0", 8));
    ask(&s, &r);
    assert_int_equal(r.status, 14);
    begin(&s); /* not HTTP/2 at all */
    bns_buf_clear(&s.say);
    assert_int_equal(bns_buf_str(&s.say, "HTTP/1.1 400 Bad Request\r\n\r\n"), BNS_OK);
    ask(&s, &r);
    assert_int_equal(r.status, 14);
    begin(&s); /* silence: the deadline */
    ask(&s, &r);
    assert_int_equal(r.status, 4);
}

/* Goal: bad messages end the call; a stream may be refused only after some were good. */
static void bad_messages_from_the_server(void **state)
{
    static const struct {
        struct bns_slice data;
        unsigned messages;
        int want;
    } t[] = {
        {{(const uint8_t *)"\0\0\0\0\1a", 6}, 1, 0},
        {{(const uint8_t *)"\0\0\0\0\1a\1\0\0\0\1b", 12}, 1, 12},
        {{(const uint8_t *)"\0\0\0\0\1a\7", 7}, 1, 13},
        {{(const uint8_t *)"\7\0\0\0\1a", 6}, 0, 13},
        {{(const uint8_t *)"\0\377\377\377\377", 5}, 0, 8},
        {{(const uint8_t *)"\0\0\0\0\0", 5}, 1, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct teller s;
        struct rec r;

        begin(&s);
        put_headers(&s.say, 4, "200", "application/grpc", NULL);
        put_frame(&s.say, DATA, 0, 1, t[i].data);
        put_headers(&s.say, 5, NULL, NULL, "0");
        ask(&s, &r);
        assert_int_equal(r.messages, t[i].messages);
        assert_int_equal(r.status, t[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_without_grpc_status),
        cmocka_unit_test(resets_and_losses),
        cmocka_unit_test(bad_messages_from_the_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
