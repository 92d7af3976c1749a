/* ctest: labels=threads */
/* test_env_uv.c - the production env: timers, tasks, workers, the pool, TCP on loopback.
 *
 * Method: each test makes an env, drives it by callbacks, and stops the loop when its condition
 * holds. A guard timer of 20 s turns a hang into a failure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/env_uv.h"
#include "sim/heap.h"

struct rig {
    struct bns_test_heap *heap;
    struct bns_env *env;
    struct bns_timer guard;
};

/* The loop's own system call, counted: what one turn queued must leave in one. */
static size_t sendmsg_calls;
ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
    sendmsg_calls++;
    return syscall(SYS_sendmsg, fd, m, flags);
}

static void guard_fired(void *arg)
{
    (void)arg;
    fprintf(stderr, "the test hangs\n");
    abort();
}

static void rig_start(struct rig *r)
{
    struct bns_err err;

    r->heap = bns_test_heap(0);
    assert_non_null(r->heap);
    if (bns_env_uv_new(bns_test_heap_alloc(r->heap), NULL, &r->env, &err) != BNS_OK)
        fail_msg("%s", err.text);
    bns_timer_init(&r->guard, guard_fired, r);
    bns_timer_start(r->env, &r->guard, bns_now_ns(r->env) + 20 * BNS_SEC);
}

static void rig_end(struct rig *r)
{
    bns_timer_stop(r->env, &r->guard);
    bns_env_uv_free(r->env);
    assert_int_equal(bns_test_heap_close(r->heap, NULL), 0);
}

static void stop_env(void *arg)
{
    bns_env_uv_stop(arg);
}

/* ---- timers and tasks ------------------------------------------------------------------------ */
struct fired {
    struct rig *r;
    struct bns_timer t;
    char name;
    char *log; /* appended to */
    bool again;
};

static void fired_fn(void *arg)
{
    struct fired *f = arg;
    size_t len = strlen(f->log);

    f->log[len] = f->name;
    f->log[len + 1] = '\0';
    if (f->again) { /* a deadline in the past, started while timers fire */
        f->again = false;
        bns_timer_start(f->r->env, &f->t, 0);
    }
}

static void timers_fire_in_deadline_order_and_ties_in_start_order(void **state)
{
    struct rig r;
    char log[16] = "";
    struct fired f[5];
    struct bns_timer stop;
    uint64_t now;

    (void)state;
    rig_start(&r);
    now = bns_now_ns(r.env);
    for (size_t i = 0; i < 5; i++) {
        f[i] = (struct fired){.r = &r, .name = (char)('a' + i), .log = log};
        bns_timer_init(&f[i].t, fired_fn, &f[i]);
    }
    bns_timer_start(r.env, &f[0].t, now + 3 * BNS_MS);
    bns_timer_start(r.env, &f[1].t, now + 2 * BNS_MS);
    bns_timer_start(r.env, &f[2].t, now + 2 * BNS_MS);
    bns_timer_start(r.env, &f[3].t, now + 1 * BNS_MS);
    bns_timer_start(r.env, &f[4].t, now + 1 * BNS_MS);
    bns_timer_stop(r.env, &f[3].t);
    bns_timer_start(r.env, &f[4].t, now + 4 * BNS_MS); /* moves */
    bns_timer_init(&stop, stop_env, r.env);
    bns_timer_start(r.env, &stop, now + 5 * BNS_MS);
    bns_env_uv_run(r.env);
    assert_string_equal(log, "bcae");
    assert_true(bns_now_ns(r.env) >= now + 5 * BNS_MS); /* never early */
    rig_end(&r);
}

static void a_timer_in_the_past_fires_on_the_next_turn(void **state)
{
    struct rig r;
    char log[16] = "";
    struct fired f = {.r = &r, .name = 'x', .log = log, .again = true};
    struct bns_timer stop;

    (void)state;
    rig_start(&r);
    bns_timer_init(&f.t, fired_fn, &f);
    bns_timer_init(&stop, stop_env, r.env);
    bns_timer_start(r.env, &f.t, 1);
    bns_timer_start(r.env, &stop, 1);
    assert_string_equal(log, ""); /* not inside the call */
    bns_env_uv_run(r.env);
    assert_string_equal(log, "x"); /* stop came before the second round */
    bns_timer_start(r.env, &stop, bns_now_ns(r.env));
    bns_env_uv_run(r.env);
    assert_string_equal(log, "xx");
    rig_end(&r);
}

#define POSTS 1000
struct posts {
    struct rig *r;
    struct bns_task tasks[POSTS];
    size_t next; /* loop only */
};
static struct posts *posts_now;

static void post_ran(struct bns_task *t)
{
    assert_ptr_equal(t, &posts_now->tasks[posts_now->next]);
    if (++posts_now->next == POSTS)
        bns_env_uv_stop(posts_now->r->env);
}

static void *post_all(void *arg)
{
    struct posts *p = arg;

    for (size_t i = 0; i < POSTS; i++)
        bns_post(p->r->env, &p->tasks[i]);
    return NULL;
}

static void tasks_of_another_thread_run_in_post_order(void **state)
{
    struct rig r;
    static struct posts p;
    pthread_t thread;

    (void)state;
    rig_start(&r);
    p = (struct posts){.r = &r};
    posts_now = &p;
    for (size_t i = 0; i < POSTS; i++)
        p.tasks[i].fn = post_ran;
    assert_int_equal(pthread_create(&thread, NULL, post_all, &p), 0);
    bns_env_uv_run(r.env);
    assert_int_equal(pthread_join(thread, NULL), 0);
    p.next = 0; /* and from the loop's own thread, before it runs */
    (void)post_all(&p);
    assert_int_equal(p.next, 0);
    bns_env_uv_run(r.env);
    assert_int_equal(p.next, POSTS);
    rig_end(&r);
}

/* ---- workers --------------------------------------------------------------------------------- */
#define JOBS 500
struct work {
    struct rig *r;
    struct bns_worker *w;
    struct bns_job jobs[JOBS];
    uint64_t ran[JOBS]; /* written by a worker, read after done */
    uint64_t seq;       /* worker only */
    size_t batches;     /* worker only */
    size_t done;
    bool in_order;
};
static struct work *work_now;

static void work_batch(void *arg, struct bns_list *jobs)
{
    struct work *w = arg;

    w->batches++;
    BNS_LIST_EACH(n, jobs)
    {
        struct bns_job *j = BNS_CONTAINER(n, struct bns_job, node);
        w->ran[j - w->jobs] = w->seq++;
    }
}

static void work_done(struct bns_job *j)
{
    struct work *w = work_now;
    size_t i = (size_t)(j - w->jobs);

    if (w->in_order)
        assert_int_equal(i, w->done);
    if (++w->done == JOBS)
        bns_env_uv_stop(w->r->env);
}

static void a_worker_takes_what_queued_as_one_batch_and_keeps_order(void **state)
{
    struct rig r;
    static struct work w;

    (void)state;
    rig_start(&r);
    w = (struct work){.r = &r, .in_order = true};
    work_now = &w;
    assert_int_equal(bns_worker_new(r.env, "test", work_batch, &w, &w.w), BNS_OK);
    for (size_t i = 0; i < JOBS; i++) {
        w.jobs[i].done = work_done;
        bns_worker_submit(r.env, w.w, &w.jobs[i]);
    }
    bns_env_uv_run(r.env);
    assert_int_equal(w.done, JOBS);
    bns_worker_free(r.env, w.w);
    assert_int_equal(w.seq, JOBS);
    assert_true(w.batches >= 1);
    assert_true(w.batches <= JOBS);
    for (size_t i = 0; i < JOBS; i++)
        assert_int_equal(w.ran[i], i);
    rig_end(&r);
}

static void pool_run(struct bns_job *j)
{
    work_now->ran[j - work_now->jobs] = 1;
}

static void the_pool_runs_every_job(void **state)
{
    struct rig r;
    static struct work w;

    (void)state;
    rig_start(&r);
    w = (struct work){.r = &r};
    work_now = &w;
    for (size_t i = 0; i < JOBS; i++) {
        w.jobs[i] = (struct bns_job){.run = pool_run, .done = work_done};
        bns_pool_submit(r.env, &w.jobs[i]);
    }
    bns_env_uv_run(r.env);
    for (size_t i = 0; i < JOBS; i++)
        assert_int_equal(w.ran[i], 1);
    rig_end(&r);
}

static void on_usr1(void *arg, int signo)
{
    assert_int_equal(signo, SIGUSR1);
    bns_env_uv_stop(arg);
}

static void a_signal_is_told_on_the_loop(void **state)
{
    struct rig r;

    (void)state;
    rig_start(&r);
    assert_int_equal(bns_env_uv_signal(r.env, SIGUSR1, on_usr1, r.env), BNS_OK);
    assert_int_equal(raise(SIGUSR1), 0);
    bns_env_uv_run(r.env);
    rig_end(&r);
}

/* ---- TCP ------------------------------------------------------------------------------------- */
struct end {
    struct net *n;
    struct bns_stream *s;
    size_t got;
    size_t released;
    int release_code;
    size_t writable;
    bool open, eof, closed, echo;
    int code;
};

struct net {
    struct rig r;
    struct bns_listener *l;
    struct end client, server;
    size_t accepted;
    size_t want_got;    /* of the server: stop the loop there; 0 = never */
    bool stop_on_close; /* of both */
    bool half;          /* the server keeps its half open after the end of the client's */
    bool pause;         /* the server does not read */
};

static void end_data(void *arg, struct bns_slice data)
{
    struct end *e = arg;

    e->got += data.len;
    if (e->n->want_got != 0 && e->n->server.got >= e->n->want_got)
        bns_env_uv_stop(e->n->r.env);
}

static void end_open(void *arg)
{
    struct end *e = arg;
    e->open = true;
}

static void end_eof(void *arg)
{
    struct end *e = arg;

    e->eof = true;
    if (!e->n->half)
        bns_stream_close(e->s);
}

static void end_writable(void *arg)
{
    struct end *e = arg;
    e->writable++;
}

static void end_closed(void *arg, int code)
{
    struct end *e = arg;

    assert_false(e->closed);
    e->closed = true;
    e->code = code;
    if (e->n->stop_on_close && e->n->client.closed && (e->n->server.closed || !e->n->server.s))
        bns_env_uv_stop(e->n->r.env);
}

static const struct bns_stream_events end_events = {
    .on_open = end_open,
    .on_data = end_data,
    .on_eof = end_eof,
    .on_writable = end_writable,
    .on_close = end_closed,
};

static void net_accept(void *arg, struct bns_stream *s)
{
    struct net *n = arg;

    n->accepted++;
    n->server = (struct end){.n = n, .s = s};
    bns_stream_set_events(s, &end_events, &n->server);
    if (n->pause)
        bns_stream_read(s, false);
}

static void net_listen(struct net *n)
{
    memset(n, 0, sizeof *n);
    rig_start(&n->r);
    assert_int_equal(bns_net_listen(n->r.env, "127.0.0.1", 0, net_accept, n, &n->l, NULL), BNS_OK);
    n->client.n = n;
}

static void net_start(struct net *n)
{
    net_listen(n);
    assert_int_equal(bns_net_connect(n->r.env, "127.0.0.1", bns_listener_port(n->r.env, n->l),
                                     &end_events, &n->client, &n->client.s, NULL),
                     BNS_OK);
}

static void net_end(struct net *n)
{
    bns_listener_close(n->r.env, n->l);
    rig_end(&n->r);
}

static void released(void *arg, int code)
{
    struct end *e = arg;

    e->released++;
    e->release_code = code;
}

static void many_small_writes_of_a_turn_leave_in_one_system_call(void **state)
{
    struct net n;

    (void)state;
    net_start(&n);
    for (int i = 0; i < 100; i++) {
        struct bns_slice v[2] = {BNS_LIT("ab"), BNS_LIT("c")};
        if (i >= 50)
            assert_int_equal(bns_stream_write(n.client.s, v, 1, released, &n.client), BNS_OK);
        else
            assert_int_equal(bns_stream_write(n.client.s, v, 2, released, &n.client), BNS_OK);
    }
    assert_int_equal(bns_stream_queued(n.client.s), 250);
    assert_int_equal(n.client.released, 0); /* never inside the call */
    n.want_got = 250;
    sendmsg_calls = 0;
    bns_env_uv_run(n.r.env);
    assert_int_equal(n.server.got, 250);
    assert_int_equal(sendmsg_calls, 2); /* 150 slices, 128 a call */
    assert_int_equal(n.client.released, 100);
    assert_int_equal(n.client.release_code, BNS_OK);
    assert_true(n.client.open);

    n.want_got = 0;
    n.stop_on_close = true;
    bns_stream_close(n.client.s);
    assert_int_equal(bns_stream_write(n.client.s, NULL, 0, NULL, NULL), BNS_E_OFF);
    bns_stream_close(n.client.s); /* again: nothing */
    bns_env_uv_run(n.r.env);
    assert_true(n.server.eof);
    assert_int_equal(n.client.code, BNS_OK);
    assert_int_equal(n.server.code, BNS_OK);
    net_end(&n);
}

static void close_writes_what_is_queued_first(void **state)
{
    struct net n;
    static uint8_t big[8u << 20];
    struct bns_slice v = bns_slice(big, sizeof big);

    (void)state;
    net_start(&n);
    n.want_got = 1;
    assert_int_equal(bns_stream_write(n.client.s, &(struct bns_slice){big, 1}, 1, NULL, NULL), 0);
    bns_env_uv_run(n.r.env);
    assert_int_equal(bns_stream_write(n.client.s, &v, 1, released, &n.client), BNS_OK);
    bns_stream_close(n.client.s);
    n.want_got = 0;
    n.stop_on_close = true;
    bns_env_uv_run(n.r.env);
    assert_int_equal(n.server.got, sizeof big + 1);
    assert_int_equal(n.client.released, 1);
    assert_int_equal(n.client.release_code, BNS_OK);
    net_end(&n);
}

static void reset_drops_what_is_queued_and_the_peer_learns_it(void **state)
{
    struct net n;
    static uint8_t big[8u << 20];
    struct bns_slice v = bns_slice(big, sizeof big);

    (void)state;
    net_start(&n);
    n.want_got = 1;
    assert_int_equal(bns_stream_write(n.client.s, &v, 1, released, &n.client), BNS_OK);
    bns_env_uv_run(n.r.env);
    bns_stream_reset(n.client.s);
    assert_int_equal(n.client.released, 0); /* not inside the call */
    n.want_got = 0;
    n.stop_on_close = true;
    bns_env_uv_run(n.r.env);
    assert_int_equal(n.client.released, 1);
    assert_int_equal(n.client.release_code, BNS_E_DROPPED);
    assert_int_equal(n.client.code, BNS_OK);
    assert_int_equal(n.server.code, BNS_E_DROPPED);
    assert_true(n.server.got < sizeof big);
    net_end(&n);
}

static void writable_is_told_when_the_queue_falls_below_the_mark(void **state)
{
    struct net n;
    static uint8_t big[16u << 20];
    struct bns_slice v = bns_slice(big, sizeof big);

    (void)state;
    net_start(&n);
    n.pause = true;
    n.want_got = 0;
    assert_int_equal(bns_stream_write(n.client.s, &v, 1, released, &n.client), BNS_OK);
    struct bns_timer stop;
    bns_timer_init(&stop, stop_env, n.r.env);
    bns_timer_start(n.r.env, &stop, bns_now_ns(n.r.env) + 50 * BNS_MS);
    bns_env_uv_run(n.r.env);
    assert_int_equal(n.client.writable, 0); /* the peer does not read */
    assert_true(bns_stream_queued(n.client.s) > BNS_STREAM_LOW_MARK);
    n.want_got = sizeof big;
    bns_stream_read(n.server.s, true);
    bns_env_uv_run(n.r.env);
    assert_int_equal(n.client.writable, 1);
    assert_int_equal(n.client.released, 1);
    n.want_got = 0;
    n.stop_on_close = true;
    bns_stream_reset(n.client.s);
    bns_env_uv_run(n.r.env);
    net_end(&n);
}

static void a_half_closed_peer_still_gets_its_answer(void **state)
{
    struct net n;
    struct bns_slice v = BNS_LIT("answer");

    (void)state;
    net_listen(&n);
    n.half = true;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(bns_listener_port(n.r.env, n.l)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(send(fd, "ask", 3, 0), 3);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    n.want_got = 3;
    n.stop_on_close = false;
    bns_env_uv_run(n.r.env);
    assert_int_equal(bns_stream_write(n.server.s, &v, 1, NULL, NULL), BNS_OK);
    bns_stream_close(n.server.s);
    n.client.closed = true;
    n.stop_on_close = true;
    n.want_got = 0;
    bns_env_uv_run(n.r.env);
    char buf[16];
    assert_int_equal(recv(fd, buf, sizeof buf, MSG_WAITALL), 6);
    assert_int_equal(close(fd), 0);
    net_end(&n);
}

static void a_refused_dial_is_told_by_on_close_without_on_open(void **state)
{
    struct net n;
    uint16_t port;

    (void)state;
    net_listen(&n);
    port = bns_listener_port(n.r.env, n.l);
    bns_listener_close(n.r.env, n.l);
    n.stop_on_close = true;
    assert_int_equal(
        bns_net_connect(n.r.env, "localhost", port, &end_events, &n.client, &n.client.s, NULL),
        BNS_OK);
    assert_false(n.client.closed);
    bns_env_uv_run(n.r.env);
    assert_true(n.client.closed);
    assert_false(n.client.open);
    assert_int_equal(n.client.code, BNS_E_DROPPED);
    rig_end(&n.r);
}

static void a_taken_port_is_named(void **state)
{
    struct net n;
    struct bns_listener *other = NULL;
    struct bns_err err;
    char want[64];

    (void)state;
    net_listen(&n);
    uint16_t port = bns_listener_port(n.r.env, n.l);
    assert_int_equal(bns_net_listen(n.r.env, "127.0.0.1", port, net_accept, &n, &other, &err),
                     BNS_E_ADDRINUSE);
    assert_true(snprintf(want, sizeof want, "address in use: 127.0.0.1 port %u", port) > 0);
    assert_string_equal(err.text, want);
    assert_int_equal(bns_net_listen(n.r.env, "nowhere", 0, net_accept, &n, &other, &err),
                     BNS_E_INVALID);
    assert_int_equal(bns_net_listen(n.r.env, "203.0.113.7", 0, net_accept, &n, &other, &err),
                     BNS_E_INVALID);
    net_end(&n);
}

static int die(void)
{
    struct bns_env *env;

    if (bns_env_uv_new(bns_alloc_libc(), NULL, &env, NULL) != BNS_OK)
        return 99;
    bns_fatal(env, 6, "fsync failed");
    return 98;
}

static void fatal_exits_with_the_code_and_one_line(void **state)
{
    char *argv[] = {"test_env_uv", "die", NULL}, line[64] = "";
    posix_spawn_file_actions_t fa;
    int fds[2], status;
    pid_t pid;

    (void)state;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(posix_spawn_file_actions_init(&fa), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&fa, fds[1], STDERR_FILENO), 0);
    assert_int_equal(posix_spawn(&pid, "/proc/self/exe", &fa, NULL, argv, environ), 0);
    assert_int_equal(posix_spawn_file_actions_destroy(&fa), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 6);
    assert_true(read(fds[0], line, sizeof line - 1) > 0);
    assert_string_equal(line, "fatal: fsync failed\n");
    assert_int_equal(close(fds[0]), 0);
    assert_int_equal(close(fds[1]), 0);
}

/* Out of descriptors: accepting pauses instead of spinning, and goes on when there are some. */
static void no_descriptors_left_does_not_spin(void **state)
{
    struct net n;
    struct rlimit old, low;
    struct bns_timer stop;
    struct rusage before, after;

    (void)state;
    net_start(&n);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    low = (struct rlimit){.rlim_cur = (rlim_t)dup(0), .rlim_max = old.rlim_max};
    assert_int_equal(close((int)low.rlim_cur), 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    bns_timer_init(&stop, stop_env, n.r.env);
    bns_timer_start(n.r.env, &stop, bns_now_ns(n.r.env) + 250 * BNS_MS);
    assert_int_equal(getrusage(RUSAGE_SELF, &before), 0);
    bns_env_uv_run(n.r.env);
    assert_int_equal(getrusage(RUSAGE_SELF, &after), 0);
    assert_int_equal(n.accepted, 0);
    assert_true(after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec -
                    before.ru_stime.tv_sec <=
                1);
    assert_true(after.ru_nvcsw - before.ru_nvcsw < 50);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    bns_timer_start(n.r.env, &stop, bns_now_ns(n.r.env) + 250 * BNS_MS);
    bns_env_uv_run(n.r.env);
    assert_int_equal(n.accepted, 1);
    n.stop_on_close = true;
    bns_stream_close(n.client.s);
    bns_env_uv_run(n.r.env);
    net_end(&n);
}

static void no_batch(void *arg, struct bns_list *jobs)
{
    (void)arg;
    (void)jobs;
}

/* The n-th allocation after the start fails: the call says so, or the connection ends. */
static void every_allocation_may_fail(void **state)
{
    bool fired = true;

    (void)state;
    for (int fail_at = 1; fired; fail_at++) {
        struct net n;
        struct bns_worker *w = NULL;
        struct bns_timer stop;
        struct bns_slice v = BNS_LIT("abc");

        memset(&n, 0, sizeof n);
        rig_start(&n.r);
        n.client.n = &n;
        bns_test_heap_fail_at(n.r.heap, fail_at);
        if (bns_net_listen(n.r.env, "127.0.0.1", 0, net_accept, &n, &n.l, NULL) == BNS_OK &&
            bns_net_connect(n.r.env, "127.0.0.1", bns_listener_port(n.r.env, n.l), &end_events,
                            &n.client, &n.client.s, NULL) == BNS_OK &&
            bns_stream_write(n.client.s, &v, 1, released, &n.client) != BNS_OK)
            assert_int_equal(n.client.released, 0);
        if (bns_worker_new(n.r.env, "w", no_batch, NULL, &w) != BNS_OK)
            assert_null(w);
        bns_timer_init(&stop, stop_env, n.r.env);
        bns_timer_start(n.r.env, &stop, bns_now_ns(n.r.env) + 20 * BNS_MS);
        bns_env_uv_run(n.r.env);
        bns_worker_free(n.r.env, w);
        bns_listener_close(n.r.env, n.l);
        bns_timer_stop(n.r.env, &n.r.guard);
        bns_env_uv_free(n.r.env);
        assert_int_equal(bns_test_heap_close(n.r.heap, &fired), 0);
    }
}

static void the_loop_counts_its_turns_and_connections(void **state)
{
    struct net n;
    struct bns_metrics *m;
    struct bns_buf text;

    (void)state;
    net_start(&n);
    assert_int_equal(bns_metrics_new(bns_alloc_libc(), &m), BNS_OK);
    bns_buf_init(&text, bns_alloc_libc(), 1u << 20);
    n.r.env->metrics = m;
    n.want_got = 1;
    assert_int_equal(
        bns_stream_write(n.client.s, &(struct bns_slice){(const uint8_t *)"x", 1}, 1, NULL, NULL),
        BNS_OK);
    bns_env_uv_run(n.r.env);
    n.want_got = 0;
    assert_int_equal(bns_metrics_text(m, &text), BNS_OK);
    assert_int_equal(bns_buf_byte(&text, 0), BNS_OK);
    assert_non_null(strstr((char *)text.ptr, "\nconn_open 2\n"));
    assert_non_null(strstr((char *)text.ptr, "loop_lag_seconds_count "));
    n.stop_on_close = true;
    bns_stream_close(n.client.s);
    bns_env_uv_run(n.r.env);
    n.r.env->metrics = NULL;
    net_end(&n);
    bns_buf_free(&text);
    bns_metrics_free(m);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_fire_in_deadline_order_and_ties_in_start_order),
        cmocka_unit_test(a_timer_in_the_past_fires_on_the_next_turn),
        cmocka_unit_test(tasks_of_another_thread_run_in_post_order),
        cmocka_unit_test(a_worker_takes_what_queued_as_one_batch_and_keeps_order),
        cmocka_unit_test(the_pool_runs_every_job),
        cmocka_unit_test(a_signal_is_told_on_the_loop),
        cmocka_unit_test(many_small_writes_of_a_turn_leave_in_one_system_call),
        cmocka_unit_test(close_writes_what_is_queued_first),
        cmocka_unit_test(reset_drops_what_is_queued_and_the_peer_learns_it),
        cmocka_unit_test(writable_is_told_when_the_queue_falls_below_the_mark),
        cmocka_unit_test(a_half_closed_peer_still_gets_its_answer),
        cmocka_unit_test(a_refused_dial_is_told_by_on_close_without_on_open),
        cmocka_unit_test(a_taken_port_is_named),
        cmocka_unit_test(fatal_exits_with_the_code_and_one_line),
        cmocka_unit_test(no_descriptors_left_does_not_spin),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(the_loop_counts_its_turns_and_connections),
    };
    if (argc == 2 && strcmp(argv[1], "die") == 0)
        return die();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
