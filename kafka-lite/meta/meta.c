/* meta.c - see meta.h: the line of requests, and the command that is under way.
 *
 * A request is planned when nothing is under way: its plan (topics.c, configs.c) checks it against
 * the image, makes the response, and adds records to the command. Then the next one is planned, as
 * long as it claims nothing (a topic's name, a configuration) that an earlier one of this command
 * has claimed: so each plan may go by the image alone. The command is proposed, and while it is on
 * its way to the disk further requests queue: that is group commit without a timer.
 *
 * A plan holds only for the image that it was made from. Therefore a command carries the number of
 * commands before it, and applying one that comes at another place changes nothing: its requests
 * are planned again. With one member that cannot happen but after a timeout; with several it is
 * what fences a leader that is none any more.
 *
 *   waiting --plan--> batch --propose--> log --apply--> answered
 *      ^                |                       |
 *      +--- a claim ----+------ other base -----+
 *
 * A request that runs out of time leaves the line, or the batch: then the command may still come.
 */
#include "meta/meta_int.h"

#include <stdio.h>

#include "base/varint.h"

#define BATCH_OPS_MAX 64u

static void run(struct bns_task *t);

void kafka_meta_run_soon(struct kafka_meta *m)
{
    if (m->task_posted)
        return;
    m->task_posted = true;
    m->task.fn = run;
    bns_post(m->env, &m->task);
}

void kafka_meta_fatal(struct kafka_meta *m, int code, const struct bns_err *err)
{
    char text[BNS_ERR_TEXT_MAX + 32];

    (void)snprintf(text, sizeof text, "kafka metadata: %s",
                   err->text[0] != '\0' ? err->text : bns_err_default_text(code));
    bns_fatal(m->env, code == BNS_E_CORRUPT ? 4 : code == BNS_E_NOMEM ? 1 : 6, text);
}

/* ---- answers -------------------------------------------------------------------------------- */

static int16_t error_of(int code)
{
    switch (code) {
    case BNS_E_NOSPACE:
        return 56; /* KAFKA_STORAGE_ERROR */
    case BNS_E_SHUTDOWN:
        return 41; /* NOT_CONTROLLER */
    case BNS_E_TIMEOUT:
    case BNS_E_BUSY:
    case BNS_E_NOTLEADER:
        return 7; /* REQUEST_TIMED_OUT */
    default:
        return -1;
    }
}

/* The op is in no list any more. */
static void finish(struct kafka_meta_op *op, int code)
{
    struct kafka_meta *m = op->meta;

    bns_timer_stop(m->env, &op->timer);
    m->ops--;
    op->code = code;
    if (code != BNS_OK && code != BNS_E_NOMEM && kafka_plan_refuse(op, error_of(code)) != BNS_OK)
        op->code = BNS_E_NOMEM;
    op->done(op);
}

static void finish_all(struct bns_list *ops, int code)
{
    struct bns_list mine;

    bns_list_init(&mine);
    bns_list_splice(&mine, ops);
    while (!bns_list_empty(&mine))
        finish(BNS_CONTAINER(bns_list_pop(&mine), struct kafka_meta_op, node), code);
}

static void timed_out(void *arg)
{
    struct kafka_meta_op *op = arg;
    struct kafka_meta *m = op->meta;
    bool in_batch = !bns_list_empty(&m->batch);

    bns_list_del(&op->node);
    if (in_batch && bns_list_empty(&m->batch)) {
        m->request = 0; /* nobody waits for it; should it come, the next one is planned again */
        kafka_meta_run_soon(m);
    }
    finish(op, BNS_E_TIMEOUT);
}

/* ---- plans ---------------------------------------------------------------------------------- */

bool kafka_plan_claim(struct kafka_plan *p, int8_t resource, struct bns_slice name)
{
    uint64_t hash = bns_hash((uint64_t)(uint8_t)resource, name.ptr, name.len);

    for (size_t i = 0; i < p->claims_before; i++) {
        if (p->claims[i] == hash)
            return false;
    }
    if (p->claims_count < KAFKA_CLAIMS_MAX)
        p->claims[p->claims_count++] = hash;
    else
        p->full = true;
    return true;
}

int kafka_plan_add(struct kafka_plan *p, const struct kafka_meta_record *r)
{
    p->records_count++;
    return kafka_meta_record_add(&p->records, r);
}

static int plan_producer_ids(struct kafka_plan *p, struct kafka_producer_ids *out)
{
    struct kafka_meta_record r = {.kind = KAFKA_RECORD_PRODUCER_IDS};

    if (BNS_MUTANT(p->m->env, 201))
        p->producer_next = kafka_image_producer_next(p->m->image);
    out->first = p->producer_next;
    if (p->producer_next > INT64_MAX - KAFKA_PRODUCER_IDS_BLOCK)
        return BNS_E_TOOBIG;
    p->producer_next += KAFKA_PRODUCER_IDS_BLOCK;
    r.next = p->producer_next;
    return kafka_plan_add(p, &r);
}

static int plan_op(struct kafka_plan *p, struct kafka_meta_op *op)
{
    switch (op->kind) {
    case KAFKA_OP_CREATE_TOPICS:
        return kafka_plan_create_topics(p, op->request, op->response);
    case KAFKA_OP_DELETE_TOPICS:
        return kafka_plan_delete_topics(p, op->request, op->response);
    case KAFKA_OP_CREATE_PARTITIONS:
        return kafka_plan_create_partitions(p, op->request, op->response);
    case KAFKA_OP_ALTER_CONFIGS:
        return kafka_plan_alter_configs(p, op->request, op->response);
    case KAFKA_OP_INCREMENTAL_ALTER_CONFIGS:
        return kafka_plan_incremental(p, op->request, op->response);
    case KAFKA_OP_PRODUCER_IDS:
        return plan_producer_ids(p, op->response);
    }
    return BNS_E_INTERNAL;
}

/* One request into the command; false: it is to wait for the next one. */
static bool plan_next(struct kafka_plan *p, struct kafka_meta_op *op)
{
    size_t len = p->records.len, claims = p->claims_count;
    int64_t producer_next = p->producer_next;
    int rv;

    p->arena = op->arena;
    p->claims_before = claims;
    p->records_count = 0;
    rv = plan_op(p, op);
    if (rv == BNS_E_TOOBIG && len > KAFKA_COMMAND_HEAD_BYTES)
        rv = KAFKA_BLOCKED; /* it may fit into a command of its own */
    if (rv != BNS_OK) {
        p->records.len = len;
        p->claims_count = claims;
        p->producer_next = producer_next;
    }
    if (rv == KAFKA_BLOCKED)
        return false;
    bns_list_del(&op->node);
    if (rv == BNS_OK && p->records.len > len)
        bns_list_push(&p->m->batch, &op->node);
    else
        finish(op, rv);
    return true;
}

static void propose(struct kafka_meta *m)
{
    struct bns_rcbuf *data = bns_rcbuf_copy(m->env->alloc, bns_buf_slice(&m->plan.records));
    int rv = data == NULL ? BNS_E_NOMEM : bns_raft_node_propose(m->node, data);

    bns_rcbuf_put(data);
    if (rv == BNS_OK && BNS_MUTANT(m->env, 204))
        finish_all(&m->batch, BNS_OK);
    if (rv == BNS_OK)
        return;
    m->request = 0;
    finish_all(&m->batch, rv == BNS_E_NOMEM ? BNS_E_BUSY : rv);
}

static void run(struct bns_task *t)
{
    struct kafka_meta *m = BNS_CONTAINER(t, struct kafka_meta, task);
    struct kafka_plan *p = &m->plan;
    struct kafka_command_head head = {.base = m->state.commands};
    unsigned ops = 0;

    m->task_posted = false;
    if (m->closing) {
        kafka_meta_free_if_over(m);
        return;
    }
    if (!m->ready || m->request != 0 || bns_list_empty(&m->waiting))
        return;
    head.request = m->request_first++;
    bns_buf_clear(&p->records);
    p->claims_count = 0;
    p->full = false;
    p->producer_next = kafka_image_producer_next(m->image);
    if (kafka_command_begin(&p->records, &head) != BNS_OK) {
        finish_all(&m->waiting, BNS_E_BUSY);
        return;
    }
    while (!bns_list_empty(&m->waiting) && ops++ < BATCH_OPS_MAX && !p->full) {
        if (!plan_next(p, BNS_CONTAINER(m->waiting.next, struct kafka_meta_op, node)))
            break;
    }
    if (!bns_list_empty(&m->batch)) {
        m->request = head.request;
        propose(m);
    }
    if (m->request == 0 && !bns_list_empty(&m->waiting))
        kafka_meta_run_soon(m);
}

/* ---- what the state machine tells ----------------------------------------------------------- */

void kafka_meta_applied(struct kafka_meta *m, uint64_t request, bool valid)
{
    if (m->request == 0 || m->request != request)
        return;
    m->request = 0;
    if (valid) {
        finish_all(&m->batch, BNS_OK);
    } else {
        bns_list_splice(&m->batch, &m->waiting);
        bns_list_splice(&m->waiting, &m->batch);
    }
    kafka_meta_run_soon(m);
}

void kafka_meta_tell(struct kafka_meta *m, const struct kafka_change *c)
{
    if (m->told_ready && m->cfg.on_change != NULL)
        m->cfg.on_change(m->cfg.arg, c);
}

static void caught_up(struct bns_raft_read *r, int code)
{
    struct kafka_meta *m = BNS_CONTAINER(r, struct kafka_meta, read);

    m->reading = false;
    if (m->closing)
        return;
    if (code != BNS_OK) {
        kafka_meta_role(m, m->leading); /* asks again, while it leads */
        return;
    }
    m->ready = m->leading;
    if (m->ready && !m->told_ready) {
        m->told_ready = true;
        if (m->cfg.on_ready != NULL)
            m->cfg.on_ready(m->cfg.arg);
    }
    kafka_meta_run_soon(m);
}

/* Only the leader plans, and not before it has applied all that came before it. */
void kafka_meta_role(struct kafka_meta *m, bool leading)
{
    m->leading = leading;
    if (!leading)
        m->ready = false;
    if (!leading || m->ready || m->reading || m->closing || m->node == NULL)
        return;
    m->reading = true;
    m->read.fn = caught_up;
    bns_raft_node_read(m->node, &m->read, bns_now_ns(m->env) + 10 * BNS_SEC);
}

/* ---- requests ------------------------------------------------------------------------------- */

static void refuse(struct bns_task *t);

static void submit(struct kafka_meta *m, struct kafka_meta_op *op, enum kafka_op_kind kind,
                   const void *request, void *response)
{
    uint64_t deadline_ns = op->deadline_ns;

    op->meta = m;
    op->kind = kind;
    op->request = request;
    op->response = response;
    op->code = BNS_OK;
    if (m->closing || m->ops >= KAFKA_META_OPS_MAX) {
        bns_list_push(&m->refused, &op->node);
        if (!m->refuse_posted) {
            m->refuse_posted = true;
            m->refuse_task.fn = refuse;
            bns_post(m->env, &m->refuse_task);
        }
        bns_timer_init(&op->timer, timed_out, op);
        m->ops++;
        return;
    }
    m->ops++;
    bns_list_push(&m->waiting, &op->node);
    bns_timer_init(&op->timer, timed_out, op);
    bns_timer_start(m->env, &op->timer, deadline_ns);
    kafka_meta_run_soon(m);
}

static void refuse(struct bns_task *t)
{
    struct kafka_meta *m = BNS_CONTAINER(t, struct kafka_meta, refuse_task);

    m->refuse_posted = false;
    finish_all(&m->refused, m->closing ? BNS_E_SHUTDOWN : BNS_E_BUSY);
    kafka_meta_free_if_over(m);
}

void kafka_meta_create_topics(struct kafka_meta *m, struct kafka_meta_op *op,
                              const struct kafka_create_topics_request *q,
                              struct kafka_create_topics_response *a)
{
    submit(m, op, KAFKA_OP_CREATE_TOPICS, q, a);
}

void kafka_meta_delete_topics(struct kafka_meta *m, struct kafka_meta_op *op,
                              const struct kafka_delete_topics_request *q,
                              struct kafka_delete_topics_response *a)
{
    submit(m, op, KAFKA_OP_DELETE_TOPICS, q, a);
}

void kafka_meta_create_partitions(struct kafka_meta *m, struct kafka_meta_op *op,
                                  const struct kafka_create_partitions_request *q,
                                  struct kafka_create_partitions_response *a)
{
    submit(m, op, KAFKA_OP_CREATE_PARTITIONS, q, a);
}

void kafka_meta_alter_configs(struct kafka_meta *m, struct kafka_meta_op *op,
                              const struct kafka_alter_configs_request *q,
                              struct kafka_alter_configs_response *a)
{
    submit(m, op, KAFKA_OP_ALTER_CONFIGS, q, a);
}

void kafka_meta_incremental_alter_configs(struct kafka_meta *m, struct kafka_meta_op *op,
                                          const struct kafka_incremental_alter_configs_request *q,
                                          struct kafka_incremental_alter_configs_response *a)
{
    submit(m, op, KAFKA_OP_INCREMENTAL_ALTER_CONFIGS, q, a);
}

void kafka_meta_producer_ids(struct kafka_meta *m, struct kafka_meta_op *op,
                             struct kafka_producer_ids *out)
{
    submit(m, op, KAFKA_OP_PRODUCER_IDS, NULL, out);
}

/* ---- life ----------------------------------------------------------------------------------- */

static int raft_open(struct kafka_meta *m, struct bns_err *err)
{
    const struct kafka_meta_config *c = &m->cfg;
    struct bns_raft_peer_addr self = {.id = (uint64_t)c->node_id + 1};
    struct bns_raft_node_config nc = {
        .group = 1,
        .id = (uint64_t)c->node_id + 1,
        .peers = c->peers_count > 0 ? c->peers : &self,
        .peers_count = c->peers_count > 0 ? c->peers_count : 1,
        .listen_host = c->listen_host,
        .listen_port = c->listen_port,
        .election_ns = BNS_SEC,
        .heartbeat_ns = 100 * BNS_MS,
        .snapshot_entries = c->snapshot_entries,
        .wal = {.dir = m->wal,
                .segment_bytes_max = c->wal_segment_bytes != 0 ? c->wal_segment_bytes : 4u << 20,
                .reserve_bytes = c->reserve_bytes},
    };

    memcpy(nc.cluster_id, c->cluster_id, sizeof nc.cluster_id);
    return bns_raft_node_open(m->env, &nc, &kafka_meta_sm, m, &m->node, err);
}

/* A directory is there after a power cut when the one above it was synced. */
static int make_dirs(struct kafka_meta *m, struct bns_err *err)
{
    const char *slash = strrchr(m->dir, '/');
    char above[BNS_PATH_MAX] = ".";
    int rv = bns_vfs_mkdir(m->env->vfs, m->dir, err);

    if (slash == m->dir)
        (void)snprintf(above, sizeof above, "/");
    else if (slash != NULL)
        (void)snprintf(above, sizeof above, "%.*s", (int)(slash - m->dir), m->dir);
    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(m->env->vfs, above, err);
    if (rv == BNS_OK)
        rv = bns_vfs_mkdir(m->env->vfs, m->wal, err);
    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(m->env->vfs, m->dir, err);
    return rv;
}

static void meta_free(struct kafka_meta *m)
{
    bns_buf_free(&m->plan.records);
    bns_buf_free(&m->job_bytes);
    bns_buf_free(&m->incoming);
    kafka_image_free(m->job_image);
    kafka_image_free(m->image);
    bns_free(m->env->alloc, m);
}

int kafka_meta_open(struct bns_env *env, const struct kafka_meta_config *cfg,
                    struct kafka_meta **out, struct bns_err *err)
{
    struct kafka_meta *m = bns_alloc_zero(env->alloc, sizeof *m);
    uint8_t first[8];
    int rv, len;

    *out = NULL;
    if (m == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "kafka metadata: out of memory");
    m->env = env;
    m->cfg = *cfg;
    m->plan.m = m;
    bns_list_init(&m->waiting);
    bns_list_init(&m->batch);
    bns_list_init(&m->refused);
    bns_list_init(&m->writings);
    bns_buf_init(&m->plan.records, env->alloc, KAFKA_COMMAND_BYTES_MAX);
    bns_buf_init(&m->job_bytes, env->alloc, KAFKA_IMAGE_BYTES_MAX);
    bns_buf_init(&m->incoming, env->alloc, KAFKA_IMAGE_BYTES_MAX);
    len = snprintf(m->dir, sizeof m->dir, "%s", cfg->dir);
    if (len < 0 || (size_t)len + 32 > sizeof m->dir) {
        rv = bns_err_set(err, BNS_E_INVALID, "kafka metadata: the path %.64s... is too long",
                         cfg->dir);
        goto fail;
    }
    (void)snprintf(m->wal, sizeof m->wal, "%.*s/wal", len, m->dir);
    (void)snprintf(m->file, sizeof m->file, "%.*s/image", len, m->dir);
    rv = bns_entropy(env, first, sizeof first);
    m->request_first = bns_get_u64le(first) | 1;
    if (rv == BNS_OK)
        rv = make_dirs(m, err);
    if (rv == BNS_OK)
        rv = kafka_image_new(env->alloc, &m->image);
    if (rv == BNS_OK)
        rv = kafka_meta_load(m, err);
    if (rv == BNS_OK)
        rv = raft_open(m, err);
    if (rv != BNS_OK)
        goto fail;
    *out = m;
    return BNS_OK;

fail:
    meta_free(m);
    return rv;
}

int kafka_meta_start(struct kafka_meta *m, struct bns_err *err)
{
    return bns_raft_node_start(m->node, err);
}

void kafka_meta_free_if_over(struct kafka_meta *m)
{
    void (*done)(void *arg) = m->closed;
    void *done_arg = m->closed_arg;

    if (!m->node_closed || m->task_posted || m->refuse_posted || m->write_posted)
        return;
    BNS_ASSERT(m->job_done == NULL && bns_list_empty(&m->writings) && m->ops == 0);
    meta_free(m);
    if (done != NULL)
        done(done_arg);
}

static void node_closed(void *arg)
{
    struct kafka_meta *m = arg;

    m->node_closed = true;
    kafka_meta_free_if_over(m);
}

void kafka_meta_close(struct kafka_meta *m, void (*done)(void *arg), void *arg)
{
    BNS_ASSERT(!m->closing);
    m->closing = true;
    m->ready = false;
    m->request = 0;
    m->closed = done;
    m->closed_arg = arg;
    finish_all(&m->batch, BNS_E_SHUTDOWN);
    finish_all(&m->waiting, BNS_E_SHUTDOWN);
    finish_all(&m->refused, BNS_E_SHUTDOWN);
    bns_raft_node_close(m->node, node_closed, m);
}

bool kafka_meta_ready(const struct kafka_meta *m)
{
    return m->ready;
}

uint64_t kafka_meta_commands(const struct kafka_meta *m)
{
    return m->state.commands;
}

const struct kafka_image *kafka_meta_image(const struct kafka_meta *m)
{
    return m->image;
}

struct bns_raft_node *kafka_meta_node(const struct kafka_meta *m)
{
    return m->node;
}
