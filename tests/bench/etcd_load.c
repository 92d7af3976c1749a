/* etcd_load.c - a closed-loop load generator for anything that speaks etcd's v3 API.
 *
 *   etcd_load --endpoints 127.0.0.1:2379 --op put --clients 64 --duration 5s
 *
 * Each client has one request open at a time; clients share `--conns` connections (0: one each),
 * which are spread over the endpoints. One line comes out:
 *   op=put clients=64 conns=64 ops=12345 late=64 errors=0 ops_per_s=2469.0 p50_us=25000 p90_us=..
 *   p99_us=.. max_us=.. gap_us=0 cpu_s=0.12
 * late: what was open at the end and came after it; of no rate, but it cost the server something.
 *
 * --op fill: puts every one of `--keys` once and ends.
 * --op range, srange: `--range-keys` keys in a row, the first one anywhere.
 *
 * --rate N: an open loop. N requests a second are due at even times, whatever became of those
 * before; `--clients` bounds how many are open, and a latency counts from when the request was
 * due, so that a server that stands still is seen by all that should have asked it meanwhile.
 * --kill PID: (with --rate) after --duration that process is killed, and the run ends with the
 * first success of a request that was due after that: gap_us tells how long it took.
 *
 * --op watch: fan-out. `--clients` streams hold `--watchers` watches on one key; then the key is
 * put again and again, a few puts ahead of the slowest stream. ops counts events at the watches;
 * the latency is that of an event from its put to the last watch.
 * --op hold: as many watches, each on a key of its own. Prints READY when all are there and holds
 * them until standard input ends.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "app/cli.h"
#include "codec/pb.h"
#include "io/env_uv.h"
#include "io/grpc.h"

#define CLIENTS_MAX 4096u
#define SAMPLES_MAX (8u * 1024 * 1024)

#define PUTS_AHEAD 4u

enum op { PUT, GET, SGET, RANGE, SRANGE, FILL, WATCH, HOLD };
static const char *const op_names[] = {"put",    "get",  "sget",  "range",
                                       "srange", "fill", "watch", "hold"};

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
    uint64_t clients_count, conns, keys, value_bytes, range_keys;
    uint64_t rate, due_count; /* requests that were due and are begun */
    struct client *idle[CLIENTS_MAX];
    size_t idle_count;
    struct bns_timer tick;
    uint64_t kill_pid, killed_ns, gap_ns;
    uint64_t filled;
    uint64_t duration_ns;
    enum op op;
    struct client clients[CLIENTS_MAX];
    struct bns_grpc_client *grpc[CLIENTS_MAX];
    size_t grpc_count;
    struct bns_timer end;
    uint64_t start_ns, stop_ns;
    uint64_t ops, errors;
    uint64_t late; /* successes of requests that were open at the end */
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

static bool watches(const struct load *l)
{
    return l->op == WATCH || l->op == HOLD;
}

static void issue(struct client *c);
static void pace(void *arg);
static void kill_it(struct load *l);

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
    } else if (l->stopping) {
        l->late++;
    } else {
        l->ops++;
        if (l->samples_count < SAMPLES_MAX)
            l->samples[l->samples_count++] = (uint32_t)((now - c->begun_ns) / 1000);
    }
    if (status == 0 && l->killed_ns > 0 && l->gap_ns == 0 && c->begun_ns > l->killed_ns) {
        l->gap_ns = now - l->killed_ns;
        l->stop_ns = now;
        bns_env_uv_stop(l->env);
    }
    if (l->rate > 0 && !l->stopping) {
        l->idle[l->idle_count++] = c;
        pace(l);
    } else if (!l->stopping && (l->op != FILL || l->filled < l->keys)) {
        issue(c);
    } else if (l->open == 0) {
        l->stop_ns = l->op == FILL ? now : l->stop_ns;
        bns_env_uv_stop(l->env);
    }
}

/* ---- requests -------------------------------------------------------------------------------- */

static int key_text(char *dst, size_t bytes_max, uint64_t n)
{
    return snprintf(dst, bytes_max, "bench/%010llu", (unsigned long long)n);
}

static int encode(struct load *l, struct client *c)
{
    bool range = l->op == RANGE || l->op == SRANGE;
    uint64_t n = l->op == FILL ? l->filled++ : c->key_next++;
    uint64_t first = n * 2654435761u % (range ? l->keys - l->range_keys + 1 : l->keys);
    char key[32];
    int rv;

    bns_buf_clear(&l->req);
    rv = bns_pb_put_bytes(&l->req, 1, bns_slice(key, (size_t)key_text(key, sizeof key, first)));
    if (rv == BNS_OK && (l->op == PUT || l->op == FILL))
        rv = bns_pb_put_bytes(&l->req, 2, bns_slice(l->value, l->value_bytes));
    if (rv == BNS_OK && range) {
        int len = key_text(key, sizeof key, first + l->range_keys);
        rv = bns_pb_put_bytes(&l->req, 2, bns_slice(key, (size_t)len));
    }
    if (rv == BNS_OK && (l->op == SGET || l->op == SRANGE))
        rv = bns_pb_put_u64(&l->req, 7, 1);
    return rv;
}

static void issue_as_of(struct client *c, uint64_t begun_ns)
{
    static const struct bns_grpc_client_handler handler = {.on_message = on_message,
                                                           .on_status = on_status};
    struct load *l = c->l;
    struct bns_grpc_call_options o = {
        .path = l->op == PUT || l->op == FILL ? "/etcdserverpb.KV/Put" : "/etcdserverpb.KV/Range"};
    int rv = encode(l, c);

    c->begun_ns = begun_ns;
    if (rv == BNS_OK)
        rv = bns_grpc_unary(c->conn, &o, bns_buf_slice(&l->req), &handler, c);
    if (rv != BNS_OK) {
        (void)fprintf(stderr, "etcd_load: %s\n", bns_err_default_text(rv));
        exit(1);
    }
    l->open++;
}

static void issue(struct client *c)
{
    issue_as_of(c, bns_now_ns(c->l->env));
}

/* Begins what is due, as far as clients are idle, and comes back when the next one is. */
static void pace(void *arg)
{
    struct load *l = arg;
    uint64_t due, now = bns_now_ns(l->env);

    while ((due = l->start_ns + l->due_count * BNS_SEC / l->rate) <= now && l->idle_count > 0 &&
           !l->stopping) {
        l->due_count++;
        issue_as_of(l->idle[--l->idle_count], due);
    }
    if (!l->stopping && l->idle_count > 0)
        bns_timer_start(l->env, &l->tick, due);
}

static void kill_it(struct load *l)
{
    if (kill((pid_t)l->kill_pid, SIGKILL) != 0) {
        perror("etcd_load: --kill");
        exit(1);
    }
    l->killed_ns = bns_now_ns(l->env);
    bns_timer_start(l->env, &l->end, l->killed_ns + 30 * BNS_SEC); /* then there is no gap_us */
}

static void on_end(void *arg)
{
    struct load *l = arg;

    if (l->kill_pid > 0 && l->killed_ns == 0) {
        kill_it(l);
        return;
    }
    l->stopping = true;
    l->stop_ns = bns_now_ns(l->env);
    if (watches(l) || l->killed_ns > 0 || l->open == 0)
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

/* All watches are there: holds them until standard input ends. */
static void hold(void *arg)
{
    struct load *l = arg;
    char byte;

    if (l->start_ns == 0) {
        l->start_ns = bns_now_ns(l->env);
        (void)printf("READY\n"); /* fflush tells */
        (void)fflush(stdout);    /* who waits for it is gone otherwise */
    }
    if (read(STDIN_FILENO, &byte, 1) == 0) { /* blocks: nothing else is to be done */
        on_end(l);
        return;
    }
    bns_timer_start(l->env, &l->tick, bns_now_ns(l->env) + 10 * BNS_MS);
}

static void begin_puts(struct load *l)
{
    if (l->op == HOLD) {
        l->start_ns = 0;
        hold(l);
        return;
    }
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
    char key[64];
    size_t len = strlen(l->watched);
    struct bns_grpc_call_options o = {.path = "/etcdserverpb.Watch/Watch"};
    int rv = bns_grpc_call_start(c->conn, &o, &handler, c, &c->stream);

    memcpy(key, l->watched, len);
    for (uint64_t i = 0; rv == BNS_OK && i < c->watches; i++) {
        if (l->op == HOLD)
            len = (size_t)snprintf(key, sizeof key, "%s/%05zu/%06llu", l->watched,
                                   (size_t)(c - l->clients), (unsigned long long)i);
        bns_buf_clear(&l->req);
        rv = bns_pb_put_len(&l->req, 1, bns_pb_len_bytes(1, len)); /* create_request{key} */
        if (rv == BNS_OK)
            rv = bns_pb_put_bytes(&l->req, 1, bns_slice(key, len));
        if (rv == BNS_OK)
            rv = bns_grpc_ccall_send_copy(c->stream, bns_buf_slice(&l->req));
    }
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
    printf("op=%s clients=%llu conns=%llu ops=%llu late=%llu errors=%llu ops_per_s=%.1f ",
           l->op_name, (unsigned long long)l->clients_count, (unsigned long long)l->conns,
           (unsigned long long)l->ops, (unsigned long long)l->late, (unsigned long long)l->errors,
           (double)l->ops / s);
    printf("p50_us=%u p90_us=%u p99_us=%u max_us=%u gap_us=%llu cpu_s=%.2f\n", at(l, 0.5),
           at(l, 0.9), at(l, 0.99), at(l, 1), (unsigned long long)(l->gap_ns / 1000),
           (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
               (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
    if (l->errors > 0)
        (void)fprintf(stderr, "etcd_load: the last error: %s\n", l->error);
}

static int begin(struct client *c, struct load *l, uint64_t i)
{
    *c = (struct client){.l = l, .conn = l->grpc[i % l->grpc_count], .key_next = i * 1000003};
    c->watches = l->watchers / l->clients_count + (i < l->watchers % l->clients_count);
    if (watches(l))
        return open_watches(c);
    if (l->rate > 0)
        l->idle[l->idle_count++] = c;
    else if (l->op != FILL || l->filled < l->keys)
        issue(c);
    return BNS_OK;
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
    bns_timer_init(&l->tick, l->op == HOLD ? hold : pace, l);
    l->start_ns = bns_now_ns(l->env);
    if (!watches(l) && l->op != FILL) /* else when all watches or keys are there */
        bns_timer_start(l->env, &l->end, l->start_ns + l->duration_ns);
    for (uint64_t i = 0; i < l->clients_count; i++)
        if (begin(&l->clients[i], l, i) != BNS_OK)
            return 1;
    if (l->rate > 0)
        pace(l);
    bns_env_uv_run(l->env);
    report(l);
    for (size_t i = 0; i < l->grpc_count; i++)
        bns_grpc_client_free(l->grpc[i]);
    bns_buf_free(&l->req);
    bns_env_uv_free(l->env);
    return l->errors > 0 && l->ops == 0 ? 1 : 0;
}

/* Completes them; false: they make no sense. */
static bool arguments(struct load *l)
{
    size_t op = 0, ops = sizeof op_names / sizeof op_names[0];

    while (op < ops && strcmp(l->op_name, op_names[op]) != 0)
        op++;
    l->op = (enum op)op;
    if (l->conns == 0)
        l->conns = l->clients_count;
    if (l->kill_pid > INT32_MAX || (l->kill_pid > 0 && l->rate == 0) ||
        (l->rate > 0 && (watches(l) || l->op == FILL)))
        return false;
    return op < ops && l->clients_count > 0 && l->clients_count <= CLIENTS_MAX &&
           l->conns <= CLIENTS_MAX && l->keys > 0 && l->range_keys > 0 &&
           l->range_keys <= l->keys && (!watches(l) || l->watchers >= l->clients_count);
}

int main(int argc, char **argv)
{
    static struct load l = {.endpoints = "127.0.0.1:2379",
                            .op_name = "put",
                            .clients_count = 1,
                            .keys = 10000,
                            .value_bytes = 256,
                            .watchers = 10000,
                            .range_keys = 100,
                            .duration_ns = 3 * BNS_SEC};
    const struct bns_cli_flag flags[] = {
        {"endpoints", 0, BNS_VALUE_STR, &l.endpoints, "host:port, separated by commas", NULL},
        {"op", 0, BNS_VALUE_STR, &l.op_name,
         "put, fill, get and range (linearizable), sget and srange (serializable), watch, hold",
         NULL},
        {"watchers", 0, BNS_VALUE_U64, &l.watchers, "in all, with --op watch or hold", NULL},
        {"range-keys", 0, BNS_VALUE_U64, &l.range_keys, "of a range", NULL},
        {"rate", 0, BNS_VALUE_U64, &l.rate, "requests due a second; 0 = as many as can be", NULL},
        {"kill", 0, BNS_VALUE_U64, &l.kill_pid, "the process to be killed after --duration", NULL},
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
    if (!arguments(&l))
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
