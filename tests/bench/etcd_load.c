/* etcd_load.c - a closed-loop load generator for anything that speaks etcd's v3 API.
 *
 *   etcd_load --endpoints 127.0.0.1:2379 --op put --clients 64 --duration 5s
 *
 * Each client has one request open at a time; clients share `--conns` connections (0: one each),
 * which are spread over the endpoints. One line comes out:
 *   op=put clients=64 conns=64 ops=12345 errors=0 ops_per_s=2469.0 p50_us=25000 p90_us=.. p99_us=..
 *   max_us=.. cpu_s=0.12
 *
 * --op watch: fan-out. `--clients` streams hold `--watchers` watches on one key; then the key is
 * put again and again, a few puts ahead of the slowest stream. ops counts events at the watches;
 * the latency is that of an event from its put to the last watch.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "app/cli.h"
#include "codec/pb.h"
#include "io/env_uv.h"
#include "io/grpc.h"

#define CLIENTS_MAX 4096u
#define SAMPLES_MAX (8u * 1024 * 1024)

#define PUTS_AHEAD 4u

enum op { PUT, GET, SGET, WATCH };

struct client {
    struct load *l;
    struct bns_grpc_client *conn;
    uint64_t key_next;
    uint64_t begun_ns;
    struct bns_grpc_ccall *stream; /* of watches */
    uint64_t watches, created, events;
};

struct load {
    struct bns_env *env;
    const char *endpoints, *op_name;
    uint64_t clients_count, conns, keys, value_bytes;
    uint64_t duration_ns;
    enum op op;
    struct client clients[CLIENTS_MAX];
    struct bns_grpc_client *grpc[CLIENTS_MAX];
    size_t grpc_count;
    struct bns_timer end;
    uint64_t start_ns, stop_ns;
    uint64_t ops, errors;
    size_t open;
    uint32_t *samples; /* microseconds */
    size_t samples_count;
    bool stopping;
    struct bns_buf req;
    char *value;
    char error[256];
    uint64_t watchers, created;
    uint64_t puts, puts_done, told;  /* told: puts that all watches have heard of */
    uint64_t put_ns[PUTS_AHEAD * 2]; /* when, by number */
    char watched[40]; /* the key: of this run alone, a put of the last one may still come */
    bool putting;
};

static void issue(struct client *c);

static void on_message(struct bns_grpc_ccall *call, struct bns_slice msg)
{
    (void)call;
    (void)msg;
}

static void on_status(struct bns_grpc_ccall *call, int status, const char *text)
{
    struct client *c = bns_grpc_ccall_arg(call);
    struct load *l = c->l;
    uint64_t now = bns_now_ns(l->env);

    l->open--;
    if (status != 0) {
        l->errors++;
        (void)snprintf(l->error, sizeof l->error, "%d %s", status, text); /* cut when long */
    } else if (!l->stopping) {
        l->ops++;
        if (l->samples_count < SAMPLES_MAX)
            l->samples[l->samples_count++] = (uint32_t)((now - c->begun_ns) / 1000);
    }
    if (!l->stopping) {
        issue(c);
    } else if (l->open == 0) {
        bns_env_uv_stop(l->env);
    }
}

static int encode(struct load *l, struct client *c)
{
    char key[32];
    int len = snprintf(key, sizeof key, "bench/%010llu",
                       (unsigned long long)(c->key_next++ * 2654435761u % l->keys));
    int rv;

    bns_buf_clear(&l->req);
    rv = bns_pb_put_bytes(&l->req, 1, bns_slice(key, (size_t)len));
    if (rv == BNS_OK && l->op == PUT)
        rv = bns_pb_put_bytes(&l->req, 2, bns_slice(l->value, l->value_bytes));
    if (rv == BNS_OK && l->op == SGET)
        rv = bns_pb_put_u64(&l->req, 7, 1);
    return rv;
}

static void issue(struct client *c)
{
    static const struct bns_grpc_client_handler handler = {.on_message = on_message,
                                                           .on_status = on_status};
    struct load *l = c->l;
    struct bns_grpc_call_options o = {.path = l->op == PUT ? "/etcdserverpb.KV/Put"
                                                           : "/etcdserverpb.KV/Range"};
    int rv = encode(l, c);

    c->begun_ns = bns_now_ns(l->env);
    if (rv == BNS_OK)
        rv = bns_grpc_unary(c->conn, &o, bns_buf_slice(&l->req), &handler, c);
    if (rv != BNS_OK) {
        (void)fprintf(stderr, "etcd_load: %s\n", bns_err_default_text(rv));
        exit(1);
    }
    l->open++;
}

static void on_end(void *arg)
{
    struct load *l = arg;

    l->stopping = true;
    l->stop_ns = bns_now_ns(l->env);
    if (l->op == WATCH)
        bns_env_uv_stop(l->env);
    if (l->open == 0)
        bns_env_uv_stop(l->env);
}

/* ---- watches --------------------------------------------------------------------------------- */

static void put_more(struct load *l);

static void put_status(struct bns_grpc_ccall *call, int status, const char *text)
{
    struct load *l = bns_grpc_ccall_arg(call);

    l->putting = false;
    if (status != 0) {
        l->errors++;
        (void)snprintf(l->error, sizeof l->error, "put: %d %s", status, text); /* cut when long */
        return;
    }
    l->puts_done++;
    put_more(l);
}

static void put_more(struct load *l)
{
    static const struct bns_grpc_client_handler handler = {.on_message = on_message,
                                                           .on_status = put_status};
    struct bns_grpc_call_options o = {.path = "/etcdserverpb.KV/Put"};
    int rv;

    if (l->putting || l->stopping || l->puts - l->told >= PUTS_AHEAD)
        return;
    bns_buf_clear(&l->req);
    rv = bns_pb_put_bytes(&l->req, 1, bns_slice_str(l->watched));
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes(&l->req, 2, bns_slice(l->value, l->value_bytes));
    l->putting = true;
    l->put_ns[l->puts++ % (PUTS_AHEAD * 2)] = bns_now_ns(l->env);
    if (rv == BNS_OK)
        rv = bns_grpc_unary(l->grpc[l->grpc_count - 1], &o, bns_buf_slice(&l->req), &handler, l);
    if (rv != BNS_OK) {
        (void)fprintf(stderr, "etcd_load: %s\n", bns_err_default_text(rv));
        exit(1);
    }
}

static void hear(struct load *l)
{
    uint64_t told = UINT64_MAX;

    for (uint64_t i = 0; i < l->clients_count; i++) {
        uint64_t n = l->clients[i].events / l->clients[i].watches;
        told = n < told ? n : told;
    }
    for (; l->told < told; l->told++) {
        uint64_t ns = bns_now_ns(l->env) - l->put_ns[l->told % (PUTS_AHEAD * 2)];
        if (l->samples_count < SAMPLES_MAX)
            l->samples[l->samples_count++] = (uint32_t)(ns / 1000);
    }
    put_more(l);
}

static void begin_puts(struct load *l)
{
    l->start_ns = bns_now_ns(l->env);
    bns_timer_start(l->env, &l->end, l->start_ns + l->duration_ns);
    put_more(l);
}

static void on_response(struct bns_grpc_ccall *call, struct bns_slice msg)
{
    struct client *c = bns_grpc_ccall_arg(call);
    struct load *l = c->l;
    uint64_t events = 0;

    while (msg.len > 0) {
        struct bns_pb_field f;

        if (bns_pb_next(&msg, &f) != BNS_OK) {
            l->errors++;
            return;
        }
        events += f.id == 11;
        if (f.id == 3 && ++l->created == l->watchers)
            begin_puts(l);
    }
    c->events += events;
    if (!l->stopping)
        l->ops += events;
    if (events > 0 && c->events % c->watches == 0)
        hear(l);
}

static void stream_status(struct bns_grpc_ccall *call, int status, const char *text)
{
    struct load *l = ((struct client *)bns_grpc_ccall_arg(call))->l;

    if (l->stopping)
        return;
    l->errors++;
    (void)snprintf(l->error, sizeof l->error, "watch: %d %s", status, text); /* cut when long */
    on_end(l);
}

static int open_watches(struct client *c)
{
    static const struct bns_grpc_client_handler handler = {.on_message = on_response,
                                                           .on_status = stream_status};
    struct load *l = c->l;
    size_t len = strlen(l->watched);
    struct bns_grpc_call_options o = {.path = "/etcdserverpb.Watch/Watch"};
    int rv = bns_grpc_call_start(c->conn, &o, &handler, c, &c->stream);

    bns_buf_clear(&l->req);
    if (rv == BNS_OK)
        rv = bns_pb_put_len(&l->req, 1, bns_pb_len_bytes(1, len)); /* create_request{key} */
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes(&l->req, 1, bns_slice(l->watched, len));
    for (uint64_t i = 0; rv == BNS_OK && i < c->watches; i++)
        rv = bns_grpc_ccall_send_copy(c->stream, bns_buf_slice(&l->req));
    return rv;
}

static int connect_all(struct load *l, struct bns_err *err)
{
    const char *list = l->endpoints;
    char hosts[16][64];
    uint16_t ports[16];
    size_t count = 0;

    while (*list != 0 && count < 16) {
        const char *colon = strchr(list, ':');
        size_t len = colon != NULL ? (size_t)(colon - list) : 64;

        if (len >= 64)
            return bns_err_set(err, BNS_E_INVALID, "--endpoints: host:port, separated by commas");
        memcpy(hosts[count], list, len);
        hosts[count][len] = 0;
        ports[count++] = (uint16_t)strtoul(colon + 1, (char **)&list, 10);
        if (*list == ',')
            list++;
    }
    for (size_t i = 0; i < l->conns; i++) {
        int rv = bns_grpc_client_new(l->env, hosts[i % count], ports[i % count],
                                     &l->grpc[l->grpc_count], err);
        if (rv != BNS_OK)
            return rv;
        l->grpc_count++;
    }
    return BNS_OK;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static unsigned at(const struct load *l, double share)
{
    return l->samples_count == 0 ? 0 : l->samples[(size_t)(share * (double)(l->samples_count - 1))];
}

static void report(struct load *l)
{
    struct rusage ru = {0};
    double s = (double)(l->stop_ns - l->start_ns) / 1e9;

    (void)getrusage(RUSAGE_SELF, &ru); /* cannot fail for SELF */
    qsort(l->samples, l->samples_count, sizeof l->samples[0], by_value);
    printf("op=%s clients=%llu conns=%llu ops=%llu errors=%llu ops_per_s=%.1f p50_us=%u p90_us=%u "
           "p99_us=%u max_us=%u cpu_s=%.2f\n",
           l->op_name, (unsigned long long)l->clients_count, (unsigned long long)l->conns,
           (unsigned long long)l->ops, (unsigned long long)l->errors, (double)l->ops / s,
           at(l, 0.5), at(l, 0.9), at(l, 0.99), at(l, 1),
           (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
               (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
    if (l->errors > 0)
        (void)fprintf(stderr, "etcd_load: the last error: %s\n", l->error);
}

static int run(struct load *l)
{
    struct bns_err err = {0};

    if (bns_env_uv_new(bns_alloc_libc(), NULL, &l->env, &err) != BNS_OK ||
        connect_all(l, &err) != BNS_OK) {
        (void)fprintf(stderr, "etcd_load: %s\n", err.text);
        return 1;
    }
    bns_buf_init(&l->req, l->env->alloc, 16u * 1024 * 1024);
    (void)snprintf(l->watched, sizeof l->watched, "bench/watched/%016llx",
                   (unsigned long long)bns_prng_next(&l->env->prng));
    bns_timer_init(&l->end, on_end, l);
    l->start_ns = bns_now_ns(l->env);
    if (l->op != WATCH) /* else when all watches are there */
        bns_timer_start(l->env, &l->end, l->start_ns + l->duration_ns);
    for (uint64_t i = 0; i < l->clients_count; i++) {
        struct client *c = &l->clients[i];
        *c = (struct client){.l = l, .conn = l->grpc[i % l->grpc_count], .key_next = i * 1000003};
        c->watches = l->watchers / l->clients_count + (i < l->watchers % l->clients_count);
        if (l->op != WATCH)
            issue(c);
        else if (open_watches(c) != BNS_OK)
            return 1;
    }
    bns_env_uv_run(l->env);
    report(l);
    for (size_t i = 0; i < l->grpc_count; i++)
        bns_grpc_client_free(l->grpc[i]);
    bns_buf_free(&l->req);
    bns_env_uv_free(l->env);
    return l->errors > 0 && l->ops == 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
    static struct load l = {.endpoints = "127.0.0.1:2379",
                            .op_name = "put",
                            .clients_count = 1,
                            .keys = 10000,
                            .value_bytes = 256,
                            .watchers = 10000,
                            .duration_ns = 3 * BNS_SEC};
    const struct bns_cli_flag flags[] = {
        {"endpoints", 0, BNS_VALUE_STR, &l.endpoints, "host:port, separated by commas", NULL},
        {"op", 0, BNS_VALUE_STR, &l.op_name, "put, get (linearizable), sget (serializable), watch",
         NULL},
        {"watchers", 0, BNS_VALUE_U64, &l.watchers, "in all, with --op watch", NULL},
        {"clients", 0, BNS_VALUE_U64, &l.clients_count, "requests open at a time", NULL},
        {"conns", 0, BNS_VALUE_U64, &l.conns, "connections; 0 = one a client", NULL},
        {"keys", 0, BNS_VALUE_U64, &l.keys, "different keys", NULL},
        {"value-bytes", 0, BNS_VALUE_U64, &l.value_bytes, "of a put", NULL},
        {"duration", 0, BNS_VALUE_DURATION, &l.duration_ns, "5s, 500ms", NULL},
        {NULL, 0, BNS_VALUE_STR, NULL, NULL, NULL},
    };
    const struct bns_cli cli = {.program = "etcd_load",
                                .usage = "etcd_load [flags]",
                                .version = BNS_VERSION,
                                .flags = flags};
    struct bns_cli_words words = {0};
    struct bns_err err = {0};
    int code;

    if (bns_cli_parse(&cli, argc, argv, &words, &err) != BNS_OK) {
        (void)fprintf(stderr, "etcd_load: %s\n", err.text);
        return BNS_EXIT_USAGE;
    }
    if (bns_cli_answered(&cli, &words))
        return 0;
    l.op = strcmp(l.op_name, "put") == 0     ? PUT
           : strcmp(l.op_name, "sget") == 0  ? SGET
           : strcmp(l.op_name, "watch") == 0 ? WATCH
                                             : GET;
    if (l.conns == 0)
        l.conns = l.clients_count;
    if (l.clients_count == 0 || l.clients_count > CLIENTS_MAX || l.conns > CLIENTS_MAX ||
        l.keys == 0 || (l.op == WATCH && l.watchers < l.clients_count))
        return BNS_EXIT_USAGE;
    l.samples = malloc(SAMPLES_MAX * sizeof *l.samples);
    l.value = malloc(l.value_bytes + 1);
    if (l.samples == NULL || l.value == NULL)
        return 1;
    memset(l.value, 'v', l.value_bytes);
    code = run(&l);
    free(l.samples);
    free(l.value);
    return code;
}
