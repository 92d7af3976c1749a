/* broker.c - how a broker starts and stops. */
#include <inttypes.h>
#include <stdio.h>

#include "broker/broker.h"
#include "broker/conn.h"
#include "broker/handlers.h"
#include "meta/config_table.h"

static void on_ready(void *arg);
static void on_change(void *arg, const struct kafka_change *c);

static void fail(struct kafka_broker *b, int code, const struct bns_err *err)
{
    if (b->failed)
        return;
    b->failed = true;
    b->cfg.on_failed(b->cfg.arg, code, err);
}

static int open_meta(struct kafka_broker *b, struct bns_err *err)
{
    struct kafka_meta_config m = {.dir = b->meta_dir,
                                  .node_id = b->cfg.node_id,
                                  .statics = b->cfg.statics,
                                  .on_ready = on_ready,
                                  .on_change = on_change,
                                  .arg = b};
    int rv;

    memcpy(m.cluster_id, b->cluster.bytes, sizeof m.cluster_id);
    rv = kafka_meta_open(b->env, &m, &b->meta, err);
    return rv == BNS_OK ? kafka_meta_start(b->meta, err) : rv;
}

int kafka_broker_start(struct bns_env *env, const struct kafka_broker_cfg *cfg,
                       struct kafka_broker **out, struct bns_err *err)
{
    struct kafka_broker *b = bns_alloc_zero(env->alloc, sizeof *b);
    struct kafka_server_start s = {.env = env, .broker = b, .cfg = cfg->server};
    int n, rv;

    if (b == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory for a broker");
    b->env = env;
    b->cfg = *cfg;
    kafka_places_init(b);
    bns_list_init(&b->fetches.parked);
    bns_list_init(&b->ids.waiting);
    bns_arena_init(&b->ids.arena, env->alloc, 65536);
    s.entries = kafka_entries;
    s.entries_count = kafka_entries_count;
    rv = kafka_server_new(&s, &b->server);
    if (rv != BNS_OK) {
        (void)bns_err_set(err, rv, "no memory for a server");
        goto fail;
    }
    n = snprintf(b->meta_dir, sizeof b->meta_dir, "%s/metadata", cfg->data_dir);
    if (n < 0 || (size_t)n >= sizeof b->meta_dir) {
        rv = bns_err_set(err, BNS_E_INVALID, "%s: the path is too long", cfg->data_dir);
        goto fail;
    }
    rv = kafka_identity(b, err);
    if (rv == BNS_OK)
        rv = open_meta(b, err);
    if (rv != BNS_OK)
        goto fail;
    *out = b;
    return BNS_OK;

fail:
    kafka_broker_free(b);
    return rv;
}

/* ---- the metadata are there ------------------------------------------------------------------ */

static void part_cfg(void *arg, const struct kafka_part *p, struct kafka_part_cfg *out)
{
    struct kafka_broker *b = arg;
    const struct kafka_topic *t = kafka_image_topic_by_id(kafka_broker_image(b), kafka_part_id(p));

    if (t != NULL)
        kafka_places_cfg(b, t, out);
}

static void on_advance(void *arg, struct kafka_part *p)
{
    (void)arg;
    if (p != NULL)
        kafka_fetch_advanced(p);
}

static int listen_all(struct kafka_broker *b, struct bns_err *err)
{
    for (size_t i = 0; i < b->cfg.listeners_count; i++) {
        struct kafka_listener *l = &b->cfg.listeners[i];
        int rv = kafka_server_listen(b->server, l, err);

        if (rv != BNS_OK)
            return rv;
        if (l->advertised_port == 0)
            l->advertised_port = l->port;
    }
    return BNS_OK;
}

static void on_opened(void *arg, int code, const struct bns_err *err)
{
    struct kafka_broker *b = arg;
    struct bns_err why = {0};
    int rv;

    b->dir_opening = false;
    if (b->draining) {
        b->dir_open = code == BNS_OK;
        kafka_server_fed(b->server);
        return;
    }
    if (code != BNS_OK) {
        fail(b, code, err);
        return;
    }
    b->dir_open = true;
    rv = kafka_places_all(b, &why);
    if (rv == BNS_OK)
        rv = listen_all(b, &why);
    if (rv != BNS_OK) {
        fail(b, rv, &why);
        return;
    }
    b->serving = true;
    b->cfg.on_serving(b->cfg.arg);
}

static void on_ready(void *arg)
{
    struct kafka_broker *b = arg;
    struct kafka_dir_cfg d;
    struct bns_err err = {0};
    int rv;

    kafka_dir_cfg_default(&d);
    d.path = b->cfg.data_dir;
    d.cluster_id = b->cluster_text;
    d.node_id = b->cfg.node_id;
    d.flush = b->cfg.flush;
    d.part_cfg = part_cfg;
    d.on_advance = on_advance;
    d.arg = b;
    d.checkpoint_every_ns =
        (uint64_t)kafka_broker_number(b, "log.flush.offset.checkpoint.interval.ms", 60000) * BNS_MS;
    d.retention_every_ns =
        (uint64_t)kafka_broker_number(b, "log.retention.check.interval.ms", 300000) * BNS_MS;
    rv = kafka_dir_open(b->env, &d, on_opened, b, &b->dir, &err);
    b->dir_opening = rv == BNS_OK;
    if (rv != BNS_OK)
        fail(b, rv, &err);
}

static void on_change(void *arg, const struct kafka_change *c)
{
    struct kafka_broker *b = arg;

    if (b->dir_open)
        kafka_places_changed(b, c);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void on_dir_closed(void *arg, int code, const struct bns_err *err)
{
    struct kafka_broker *b = arg;

    if (code != BNS_OK)
        BNS_LOG(b->env->log, BNS_LOG_WARN, "kafka", "the stop was not a clean one",
                BNS_STR("why", err->text));
    b->dir = NULL;
    b->drained(b->drained_arg);
}

static void on_meta_closed(void *arg)
{
    struct kafka_broker *b = arg;

    b->meta = NULL;
    if (b->dir != NULL)
        kafka_dir_close(b->dir, on_dir_closed, b);
    else
        b->drained(b->drained_arg);
}

/* All requests are answered: nobody asks the metadata or the logs for anything any more. */
static void on_quiet_task(struct bns_task *t)
{
    struct kafka_broker *b = BNS_CONTAINER(t, struct kafka_broker, quiet);

    kafka_places_free(b);
    if (b->meta != NULL)
        kafka_meta_close(b->meta, on_meta_closed, b);
    else
        on_meta_closed(b);
}

static void on_quiet(void *arg)
{
    struct kafka_broker *b = arg;

    if (b->quiet_posted || b->places.ops > 0 || b->ids.asking || b->dir_opening)
        return;
    b->quiet_posted = true;
    b->quiet.fn = on_quiet_task;
    bns_post(b->env, &b->quiet);
}

void kafka_broker_drain(struct kafka_broker *b, void (*done)(void *arg), void *arg)
{
    b->draining = true;
    b->drained = done;
    b->drained_arg = arg;
    kafka_server_on_quiet(b->server, on_quiet, b);
    kafka_server_drain(b->server);
    kafka_fetch_all(b);
    kafka_server_fed(b->server);
}

void kafka_broker_free(struct kafka_broker *b)
{
    if (b == NULL)
        return;
    kafka_server_free(b->server);
    bns_arena_free(&b->ids.arena);
    bns_free(b->env->alloc, b);
}

const char *kafka_broker_not_ready(struct kafka_broker *b)
{
    if (b == NULL || !b->serving)
        return "starting";
    if (b->draining)
        return "stopping";
    return kafka_dir_failed(b->dir) ? kafka_dir_why(b->dir) : NULL;
}

/* ---- for the handlers ------------------------------------------------------------------------ */

const struct kafka_image *kafka_broker_image(const struct kafka_broker *b)
{
    return kafka_meta_image(b->meta);
}

int16_t kafka_broker_part(struct kafka_broker *b, const struct kafka_topic *t, int32_t index,
                          int32_t epoch, struct kafka_part **out)
{
    if (t == NULL || index < 0 || index >= t->partitions_count)
        return KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION;
    if (epoch >= 0 && epoch != t->partitions[index].leader_epoch)
        return epoch < t->partitions[index].leader_epoch ? KAFKA_ERR_FENCED_LEADER_EPOCH
                                                         : KAFKA_ERR_UNKNOWN_LEADER_EPOCH;
    *out = kafka_dir_find_id(b->dir, &t->id, index);
    if (*out != NULL && *kafka_part_user(*out) != NULL)
        return KAFKA_ERR_NONE;
    return kafka_dir_failed(b->dir) ? KAFKA_ERR_KAFKA_STORAGE_ERROR
                                    : KAFKA_ERR_NOT_LEADER_OR_FOLLOWER;
}

bool kafka_topic_is_internal(struct bns_slice name)
{
    return bns_slice_eq(name, BNS_LIT("__consumer_offsets")) ||
           bns_slice_eq(name, BNS_LIT("__transaction_state"));
}

int64_t kafka_broker_number(struct kafka_broker *b, const char *key, int64_t preset)
{
    struct bns_slice text = kafka_meta_broker_value(b->meta, key);
    int64_t n;

    return text.ptr != NULL && kafka_config_number(text, &n) == BNS_OK ? n : preset;
}

uint64_t kafka_broker_deadline(struct kafka_broker *b, int32_t timeout_ms)
{
    return bns_now_ns(b->env) + (timeout_ms > 0 ? (uint64_t)timeout_ms : 1) * BNS_MS;
}

bool kafka_uuid_is_zero(const struct kafka_uuid *u)
{
    static const struct kafka_uuid zero;

    return memcmp(u, &zero, sizeof zero) == 0;
}
