/* tls_load.c - TLS handshakes a second, or connections that do nothing.
 *
 *   tls_load --endpoint HOST:PORT --ca FILE --clients 8 --duration 3s
 *       handshakes, each on a connection of its own, which is reset when the greetings of HTTP/2
 *       have gone both ways. Prints handshakes, their rate, latencies, and the CPU seconds of this
 *       program.
 *   tls_load --endpoint HOST:PORT [--ca FILE] --idle 1000
 *       opens so many connections (without --ca: without TLS), greets on each as an HTTP/2 client,
 *       prints READY once all are answered, and holds them until standard input ends.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "app/cli.h"
#include "io/env_uv.h"
#include "io/tls.h"
#include "store/vfs_posix.h"

#define SAMPLES_MAX (1u << 20)
#define IDLE_AT_ONCE 32u /* connections that are being opened */

struct load {
    struct bns_env *env;
    struct bns_tls *tls;
    char host[64];
    uint16_t port;
    uint64_t clients, duration_ns, idle;
    uint64_t end_ns;
    size_t running, count, errors, greeted, dialled;
    struct client *all;
    uint32_t *us;
    struct bns_timer timer, stdin_timer;
};

struct client {
    struct load *l;
    struct bns_stream *s;
    uint64_t since_ns;
    bool good;
};

static void dial(struct client *c);

/* ---- both ------------------------------------------------------------------------------------ */
static void on_open(void *arg)
{
    static const struct bns_slice hello = BNS_LIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                                                  "\0\0\0\4\0\0\0\0\0"
                                                  "\0\0\0\4\1\0\0\0\0");
    struct client *c = arg;

    if (bns_stream_write(c->s, &hello, 1, NULL, NULL) != BNS_OK)
        bns_stream_reset(c->s);
}

/* ---- handshakes ------------------------------------------------------------------------------ */
static void on_data(void *arg, struct bns_slice data)
{
    struct client *c = arg;
    struct load *l = c->l;

    (void)data; /* the server's SETTINGS: it is through too */
    if (c->good)
        return;
    c->good = true;
    if (l->count < SAMPLES_MAX)
        l->us[l->count] = (uint32_t)((bns_now_ns(l->env) - c->since_ns) / 1000);
    l->count++;
    bns_stream_reset(c->s);
}

static void on_close(void *arg, int code)
{
    struct client *c = arg;
    struct load *l = c->l;

    (void)code;
    l->errors += c->good ? 0 : 1;
    if (bns_now_ns(l->env) < l->end_ns)
        dial(c);
    else if (--l->running == 0)
        bns_env_uv_stop(l->env);
}

/* ---- idle connections ------------------------------------------------------------------------ */
static void idle_data(void *arg, struct bns_slice data)
{
    struct client *c = arg;

    if (c->good || data.len == 0)
        return;
    c->good = true;
    if (c->l->dialled < c->l->idle)
        dial(&c->l->all[c->l->dialled++]);
    if (++c->l->greeted < c->l->idle)
        return;
    (void)printf("READY\n"); /* fflush tells */
    (void)fflush(stdout);    /* who waits for it is gone otherwise */
}

static void idle_close(void *arg, int code)
{
    struct client *c = arg;

    (void)fprintf(stderr, "tls_load: a connection ended: %s\n", bns_err_name(code)); /* no matter */
    c->l->errors++;
    bns_env_uv_stop(c->l->env);
}

static void dial(struct client *c)
{
    static const struct bns_stream_events shake = {
        .on_open = on_open, .on_data = on_data, .on_close = on_close};
    static const struct bns_stream_events idle = {
        .on_open = on_open, .on_data = idle_data, .on_close = idle_close};
    struct load *l = c->l;
    const struct bns_tls_dial o = {.host = l->host, .port = l->port, .alpn = "h2"};
    struct bns_err err;

    c->good = false;
    c->since_ns = bns_now_ns(l->env);
    if (bns_tls_connect(l->env, l->tls, &o, l->idle > 0 ? &idle : &shake, c, &c->s, &err) !=
        BNS_OK) {
        (void)fprintf(stderr, "tls_load: %s\n", err.text); /* no matter */
        exit(1);
    }
}

static void on_stdin(void *arg)
{
    struct load *l = arg;
    char byte;

    if (l->greeted == l->idle && read(STDIN_FILENO, &byte, 1) == 0) { /* blocks: all is idle */
        bns_env_uv_stop(l->env);
        return;
    }
    bns_timer_start(l->env, &l->stdin_timer, bns_now_ns(l->env) + 10 * BNS_MS);
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static void report(struct load *l)
{
    size_t n = l->count < SAMPLES_MAX ? l->count : SAMPLES_MAX;
    struct rusage u;

    if (n == 0) {
        (void)fprintf(stderr, "tls_load: no handshake succeeded\n"); /* no matter */
        exit(1);
    }
    qsort(l->us, n, sizeof *l->us, by_value);
    (void)getrusage(RUSAGE_SELF, &u); /* cannot fail with these arguments */
    (void)printf("handshakes=%zu per_s=%.0f errors=%zu p50_us=%u p99_us=%u cpu_s=%.2f\n", l->count,
                 (double)l->count / ((double)l->duration_ns / 1e9), l->errors, l->us[n / 2],
                 l->us[n * 99 / 100],
                 (double)u.ru_utime.tv_sec + (double)u.ru_utime.tv_usec / 1e6 +
                     (double)u.ru_stime.tv_sec +
                     (double)u.ru_stime.tv_usec / 1e6); /* nothing to do without a stdout */
}

static int parse(struct load *l, int argc, char **argv, const char **ca)
{
    const char *endpoint = NULL;
    const struct bns_cli_flag flags[] = {
        {"endpoint", 0, BNS_VALUE_STR, &endpoint, "host:port", NULL},
        {"ca", 0, BNS_VALUE_STR, ca, "who signed the server's certificate", NULL},
        {"clients", 0, BNS_VALUE_U64, &l->clients, "at once", NULL},
        {"duration", 0, BNS_VALUE_DURATION, &l->duration_ns, "", NULL},
        {"idle", 0, BNS_VALUE_U64, &l->idle, "open so many and hold them", NULL},
        {NULL, 0, BNS_VALUE_STR, NULL, NULL, NULL},
    };
    const struct bns_cli cli = {.program = "tls_load", .usage = "tls_load [flags]", .flags = flags};
    struct bns_cli_words words;
    struct bns_err err = {.text = "--endpoint HOST:PORT is missing"};
    const char *colon;

    if (bns_cli_parse(&cli, argc, argv, &words, &err) != BNS_OK || endpoint == NULL ||
        (colon = strrchr(endpoint, ':')) == NULL || (size_t)(colon - endpoint) >= sizeof l->host) {
        (void)fprintf(stderr, "tls_load: %s\n", err.text); /* no matter */
        return 2;
    }
    memcpy(l->host, endpoint, (size_t)(colon - endpoint));
    l->port = (uint16_t)strtoul(colon + 1, NULL, 10);
    return 0;
}

static void raise_file_limit(void)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_NOFILE, &lim) != 0)
        return;
    lim.rlim_cur = lim.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &lim); /* the old limit may serve too */
}

int main(int argc, char **argv)
{
    struct load l = {.clients = 8, .duration_ns = 3 * BNS_SEC};
    const char *ca = NULL;
    struct bns_vfs *vfs = bns_vfs_posix(bns_alloc_libc());
    struct bns_tls_config cfg = {.name = "load", .dial = true};
    struct bns_err err;
    int rv = parse(&l, argc, argv, &ca);

    if (rv != 0)
        return rv;
    raise_file_limit();
    cfg.ca_file = ca;
    l.us = calloc(SAMPLES_MAX, sizeof *l.us);
    l.running = l.idle > 0 ? l.idle : l.clients;
    l.all = calloc(l.running, sizeof *l.all);
    if (vfs == NULL || l.us == NULL || l.all == NULL ||
        bns_env_uv_new(bns_alloc_libc(), vfs, &l.env, &err) != BNS_OK ||
        (ca != NULL && bns_tls_new(l.env, &cfg, &l.tls, &err) != BNS_OK)) {
        (void)fprintf(stderr, "tls_load: %s\n", ca == NULL ? "no memory" : err.text);
        return 1; /* as above */
    }
    l.end_ns = bns_now_ns(l.env) + l.duration_ns;
    for (size_t i = 0; i < l.running; i++)
        l.all[i].l = &l;
    while (l.dialled < l.running && (l.idle == 0 || l.dialled < IDLE_AT_ONCE))
        dial(&l.all[l.dialled++]);
    bns_timer_init(&l.stdin_timer, on_stdin, &l);
    if (l.idle > 0)
        bns_timer_start(l.env, &l.stdin_timer, bns_now_ns(l.env));
    bns_env_uv_run(l.env);
    if (l.idle == 0)
        report(&l);
    return l.errors > 0 && l.idle > 0 ? 1 : 0; /* the system frees the rest */
}
