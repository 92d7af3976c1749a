/* ctest: labels=threads */
/* test_env_stress.c - two loops on two threads: streams between them under random load, and posts
 * back and forth.
 *
 * Method: one loop echoes; the other dials CONNS streams, each of which writes pieces of random
 * size of a known pattern, pauses reading now and then, and ends by close, or by reset half way.
 * Every byte that comes back must be the pattern's next one; every write must be released once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <pthread.h>

#include "io/env_uv.h"
#include "sim/heap.h"

#define CONNS 48
#define BYTES_MAX (512u * 1024)
#define PATTERN 251u /* a prime, so that shifted data cannot match */

static uint8_t pattern[BYTES_MAX + 2 * PATTERN];

struct loop {
    struct bns_test_heap *heap;
    struct bns_env *env;
    struct bns_timer guard;
};

static void hang(void *arg)
{
    (void)arg;
    fprintf(stderr, "the test hangs\n");
    abort();
}

static void loop_start(struct loop *l)
{
    l->heap = bns_test_heap(0);
    assert_int_equal(bns_env_uv_new(bns_test_heap_alloc(l->heap), NULL, &l->env, NULL), BNS_OK);
    bns_timer_init(&l->guard, hang, l);
    bns_timer_start(l->env, &l->guard, bns_now_ns(l->env) + 60 * BNS_SEC);
}

static void loop_end(struct loop *l)
{
    bns_timer_stop(l->env, &l->guard);
    bns_env_uv_free(l->env);
    assert_int_equal(bns_test_heap_close(l->heap, NULL), 0);
}

static void *run(void *arg)
{
    struct loop *l = arg;

    bns_env_uv_run(l->env);
    return NULL;
}

/* ---- the echoing loop ------------------------------------------------------------------------ */
struct echoes {
    struct loop *l;
    size_t open;
    bool last; /* stop when the last one closes */
    struct bns_task stop;
};

struct echo {
    struct echoes *all;
    const struct bns_alloc *alloc;
    struct bns_stream *s;
};

struct piece {
    const struct bns_alloc *alloc;
    uint8_t bytes[];
};

static void piece_free(void *arg, int code)
{
    struct piece *p = arg;

    (void)code;
    bns_free(p->alloc, p);
}

static void echo_data(void *arg, struct bns_slice data)
{
    struct echo *e = arg;
    struct piece *p = bns_alloc(e->alloc, sizeof *p + data.len);
    struct bns_slice v = bns_slice(p->bytes, data.len);

    p->alloc = e->alloc;
    memcpy(p->bytes, data.ptr, data.len);
    if (bns_stream_write(e->s, &v, 1, piece_free, p) != BNS_OK)
        piece_free(p, 0);
    if (bns_stream_queued(e->s) > 128u * 1024)
        bns_stream_read(e->s, false);
}

static void echo_writable(void *arg)
{
    bns_stream_read(((struct echo *)arg)->s, true);
}

static void echo_closed(void *arg, int code)
{
    struct echo *e = arg;

    (void)code;
    if (--e->all->open == 0 && e->all->last)
        bns_env_uv_stop(e->all->l->env);
    bns_free(e->alloc, e);
}

static void echo_stop(struct bns_task *t)
{
    struct echoes *all = BNS_CONTAINER(t, struct echoes, stop);

    all->last = true;
    if (all->open == 0)
        bns_env_uv_stop(all->l->env);
}

static void echo_accept(void *arg, struct bns_stream *s)
{
    static const struct bns_stream_events ev = {
        .on_data = echo_data, .on_writable = echo_writable, .on_close = echo_closed};
    struct echoes *all = arg;
    const struct bns_alloc *a = all->l->env->alloc;
    struct echo *e = bns_alloc(a, sizeof *e);

    *e = (struct echo){.all = all, .alloc = a, .s = s};
    all->open++;
    bns_stream_set_events(s, &ev, e);
}

/* ---- the dialling loop ----------------------------------------------------------------------- */
struct dialler {
    struct loop *l;
    struct conn *conns;
    size_t closed;
};

struct conn {
    struct dialler *d;
    struct bns_stream *s;
    struct bns_prng prng;
    struct bns_timer pause;
    size_t total, written, got, pieces, released;
    bool resets;
};

static void conn_released(void *arg, int code)
{
    (void)code;
    ((struct conn *)arg)->released++;
}

static void conn_write(struct conn *c)
{
    while (c->written < c->total && bns_stream_queued(c->s) < 200u * 1024) {
        struct bns_slice v[3];
        size_t n = 1 + bns_prng_below(&c->prng, 3);

        for (size_t i = 0; i < n; i++) {
            size_t len = bns_prng_below(&c->prng, bns_prng_chance(&c->prng, 0.1) ? 60000 : 300);
            if (len > c->total - c->written)
                len = c->total - c->written;
            v[i] = bns_slice(pattern + c->written % PATTERN, len);
            c->written += len;
        }
        assert_int_equal(bns_stream_write(c->s, v, n, conn_released, c), BNS_OK);
        c->pieces++;
    }
}

static void conn_data(void *arg, struct bns_slice data)
{
    struct conn *c = arg;

    assert_true(data.len <= BYTES_MAX);
    assert_memory_equal(data.ptr, pattern + c->got % PATTERN, data.len);
    c->got += data.len;
    conn_write(c);
    if (c->resets && c->got > c->total / 2)
        bns_stream_reset(c->s);
    else if (c->got == c->total)
        bns_stream_close(c->s);
    else if (bns_prng_chance(&c->prng, 0.05)) {
        bns_stream_read(c->s, false);
        bns_timer_start(c->d->l->env, &c->pause, bns_now_ns(c->d->l->env) + BNS_MS);
    }
}

static void conn_resume(void *arg)
{
    bns_stream_read(((struct conn *)arg)->s, true);
}

static void conn_open(void *arg)
{
    conn_write(arg);
}

static void conn_closed(void *arg, int code)
{
    struct conn *c = arg;

    assert_int_equal(code, BNS_OK);
    assert_int_equal(c->released, c->pieces);
    assert_true(c->resets || c->got == c->total);
    bns_timer_stop(c->d->l->env, &c->pause);
    if (++c->d->closed == CONNS)
        bns_env_uv_stop(c->d->l->env);
}

static void echoed_bytes_are_the_bytes_sent(void **state)
{
    static const struct bns_stream_events ev = {.on_open = conn_open,
                                                .on_data = conn_data,
                                                .on_writable = conn_open,
                                                .on_close = conn_closed};
    static struct conn conns[CONNS];
    struct loop a, b;
    struct dialler d = {.l = &b, .conns = conns};
    struct bns_listener *l;
    struct echoes all = {.l = &a, .stop = {.fn = echo_stop}};
    pthread_t thread;
    uint16_t port;

    (void)state;
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (uint8_t)(i % PATTERN);
    loop_start(&a);
    loop_start(&b);
    assert_int_equal(bns_net_listen(a.env, "127.0.0.1", 0, echo_accept, &all, &l, NULL), BNS_OK);
    port = bns_listener_port(a.env, l);
    assert_int_equal(pthread_create(&thread, NULL, run, &a), 0);
    for (size_t i = 0; i < CONNS; i++) {
        struct conn *c = &conns[i];
        *c = (struct conn){.d = &d, .resets = i % 4 == 3};
        bns_prng_seed(&c->prng, i);
        c->total = 1 + bns_prng_below(&c->prng, BYTES_MAX);
        bns_timer_init(&c->pause, conn_resume, c);
        assert_int_equal(bns_net_connect(b.env, "127.0.0.1", port, &ev, c, &c->s, NULL), BNS_OK);
    }
    bns_env_uv_run(b.env);
    assert_int_equal(d.closed, CONNS);
    bns_post(a.env, &all.stop);
    assert_int_equal(pthread_join(thread, NULL), 0);
    bns_listener_close(a.env, l);
    loop_end(&b);
    loop_end(&a);
}

/* ---- posts ----------------------------------------------------------------------------------- */
#define ROUNDS 20000

struct ball {
    struct bns_task task; /* first */
    struct loop *sides;   /* two */
    size_t hits;
    struct bns_task stop[2];
};

static void stop_a(struct bns_task *t)
{
    struct ball *b = BNS_CONTAINER(t, struct ball, stop[0]);
    bns_env_uv_stop(b->sides[0].env);
}
static void stop_b(struct bns_task *t)
{
    struct ball *b = BNS_CONTAINER(t, struct ball, stop[1]);
    bns_env_uv_stop(b->sides[1].env);
}

static void hit(struct bns_task *t)
{
    struct ball *b = BNS_CONTAINER(t, struct ball, task);

    if (++b->hits < ROUNDS) {
        bns_post(b->sides[b->hits % 2].env, t);
        return;
    }
    bns_post(b->sides[0].env, &b->stop[0]);
    bns_post(b->sides[1].env, &b->stop[1]);
}

static void a_task_goes_to_and_fro_between_two_loops(void **state)
{
    struct loop sides[2];
    struct ball b = {.task.fn = hit, .sides = sides, .stop = {{.fn = stop_a}, {.fn = stop_b}}};
    pthread_t thread;

    (void)state;
    loop_start(&sides[0]);
    loop_start(&sides[1]);
    assert_int_equal(pthread_create(&thread, NULL, run, &sides[1]), 0);
    bns_post(sides[0].env, &b.task);
    bns_env_uv_run(sides[0].env);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(b.hits, ROUNDS);
    loop_end(&sides[0]);
    loop_end(&sides[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(echoed_bytes_are_the_bytes_sent),
        cmocka_unit_test(a_task_goes_to_and_fro_between_two_loops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
