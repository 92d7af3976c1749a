/* server.c - listeners, the set of connections and what they may take together. */
#include "broker/conn.h"

void kafka_server_cfg_default(struct kafka_server_cfg *cfg)
{
    *cfg = (struct kafka_server_cfg){
        .request_bytes_max = 100u * 1024 * 1024,
        .requests_max = 64,
        .conns_max = 20000,
        .inflight_bytes_max = UINT64_C(256) * 1024 * 1024,
        .idle_ns = 600 * BNS_SEC,
        .frame_ns = 30 * BNS_SEC,
    };
}

int kafka_server_new(const struct kafka_server_start *start, struct kafka_server **out)
{
    struct kafka_server *s = bns_alloc_zero(start->env->alloc, sizeof *s);

    if (s == NULL)
        return BNS_E_NOMEM;
    s->env = start->env;
    s->broker = start->broker;
    s->cfg = start->cfg;
    s->entries = start->entries;
    s->entries_count = start->entries_count;
    bns_list_init(&s->conns);
    bns_list_init(&s->hungry);
    *out = s;
    return BNS_OK;
}

static void accept_one(void *arg, struct bns_stream *stream)
{
    struct kafka_server *s = *(struct kafka_server **)arg; /* the first member of its listener */
    size_t i = 0;

    while (&s->listeners[i].server != arg)
        i++;
    if (!s->draining && s->conns_count < s->cfg.conns_max &&
        kafka_conn_new(s, s->listeners[i].what, stream) == BNS_OK)
        return;
    if (bns_log_limit(s->env->log, bns_now_ns(s->env), BNS_SEC, &s->refused_ns))
        BNS_LOG(s->env->log, BNS_LOG_WARN, "kafka", "a connection is refused",
                BNS_U64("connections", s->conns_count));
    bns_stream_refuse(stream);
}

int kafka_server_listen(struct kafka_server *s, struct kafka_listener *l, struct bns_err *err)
{
    size_t i = s->listeners_count;
    int rv;

    if (i == KAFKA_LISTENERS_MAX)
        return bns_err_set(err, BNS_E_INVALID, "more than %d listeners", KAFKA_LISTENERS_MAX);
    s->listeners[i].server = s;
    s->listeners[i].what = l;
    rv = bns_net_listen(s->env, l->host, l->port, accept_one, &s->listeners[i].server,
                        &s->listeners[i].listener, err);
    if (rv != BNS_OK)
        return rv;
    s->listeners_count++;
    l->port = bns_listener_port(s->env, s->listeners[i].listener);
    return BNS_OK;
}

static void stop_listening(struct kafka_server *s)
{
    for (size_t i = 0; i < s->listeners_count; i++)
        bns_listener_close(s->env, s->listeners[i].listener);
    s->listeners_count = 0;
}

void kafka_server_drain(struct kafka_server *s)
{
    s->draining = true;
    stop_listening(s);
    BNS_LIST_EACH(n, &s->conns)
    kafka_conn_stop(BNS_CONTAINER(n, struct kafka_conn, node));
}

void kafka_server_on_quiet(struct kafka_server *s, void (*fn)(void *arg), void *arg)
{
    s->on_quiet = fn;
    s->on_quiet_arg = arg;
}

bool kafka_server_busy(const struct kafka_server *s)
{
    return s->requests > 0;
}

void kafka_server_close(struct kafka_server *s)
{
    if (s == NULL)
        return;
    s->draining = true;
    stop_listening(s);
    BNS_LIST_EACH(n, &s->conns)
    kafka_conn_drop(BNS_CONTAINER(n, struct kafka_conn, node));
}

void kafka_server_free(struct kafka_server *s)
{
    if (s == NULL)
        return;
    stop_listening(s);
    while (!bns_list_empty(&s->conns))
        kafka_conn_part(BNS_CONTAINER(s->conns.next, struct kafka_conn, node));
    BNS_ASSERT(s->requests == 0);
    bns_free(s->env->alloc, s);
}

/* One that waits for room goes on; it lets the next one go on when it leaves some. Those that
 * cannot for a reason of their own leave the list, and come back when that is gone. */
void kafka_server_fed(struct kafka_server *s)
{
    struct bns_list *n;

    if (s->draining && s->requests == 0 && s->conns_count == 0 && s->on_quiet != NULL)
        s->on_quiet(s->on_quiet_arg);
    while (s->inflight < s->cfg.inflight_bytes_max && (n = bns_list_pop(&s->hungry)) != NULL) {
        if (kafka_conn_resume(BNS_CONTAINER(n, struct kafka_conn, hungry)))
            return;
    }
}

size_t kafka_server_conns(const struct kafka_server *s)
{
    return s->conns_count;
}

size_t kafka_server_requests(const struct kafka_server *s)
{
    return s->requests;
}

uint64_t kafka_server_inflight(const struct kafka_server *s)
{
    return s->inflight;
}

const struct kafka_entry *kafka_server_entry(const struct kafka_server *s, int key)
{
    for (size_t i = 0; i < s->entries_count; i++) {
        if (s->entries[i].key == key)
            return &s->entries[i];
    }
    return NULL;
}

const struct kafka_entry *kafka_server_entries(const struct kafka_server *s, size_t *count)
{
    *count = s->entries_count;
    return s->entries;
}
