/* endpoint.c - verbs that ask each endpoint by itself: endpoint health, status, hashkv; defrag;
 * move-leader, which has to find the leader first. */
#include "cli.h"

#include <inttypes.h>

struct per_endpoint {
    const char *at;
    struct ctl_reply reply;
    uint64_t took_ns;
};

#define ALL_MAX CTL_ENDPOINTS_ALL

int ctl_endpoints(struct ctl *c, const char **all, size_t *count)
{
    Etcdserverpb__MemberListRequest req = ETCDSERVERPB__MEMBER_LIST_REQUEST__INIT;
    Etcdserverpb__MemberListResponse *r;
    int code;

    *count = c->f.endpoints_count;
    memcpy(all, c->f.endpoints, sizeof c->f.endpoints);
    if (!c->f.cluster)
        return CTL_OK;
    req.has_linearizable = req.linearizable = true;
    code = ctl_ask(c, BNS_ETCD_MEMBER_LIST, &req.base, &r);
    if (code != CTL_OK)
        return code;
    *count = 0;
    for (size_t i = 0; i < r->n_members; i++) {
        for (size_t k = 0; k < r->members[i]->n_clienturls && *count < ALL_MAX; k++)
            all[(*count)++] = r->members[i]->clienturls[k];
    }
    return CTL_OK;
}

/* Asks each endpoint. CTL_OK, or said why not even one could be asked. */
static int ask_each(struct ctl *c, enum bns_etcd_method m, const ProtobufCMessage *req,
                    struct per_endpoint *out, size_t *count)
{
    const char *all[ALL_MAX];
    int code = ctl_endpoints(c, all, count);

    for (size_t i = 0; code == CTL_OK && i < *count; i++) {
        struct bns_etcd *one = ctl_client(c, &all[i], 1);
        uint64_t begun;

        if (one == NULL)
            return CTL_ARGS;
        out[i].at = all[i];
        begun = bns_now_ns(c->env);
        out[i].reply = ctl_ask_at(c, one, m, req);
        out[i].took_ns = bns_now_ns(c->env) - begun;
        bns_etcd_free(one);
    }
    return code;
}

static struct per_endpoint *room(struct ctl *c)
{
    struct per_endpoint *e = bns_arena_alloc(&c->arena, ALL_MAX * sizeof *e);

    BNS_ASSERT(e != NULL);
    return e;
}

/* ---- health ---------------------------------------------------------------------------------- */

static void health_print(struct ctl *c, const struct per_endpoint *e, bool good, const char *error)
{
    const char *took = ctl_duration(c, e->took_ns);

    if (c->out == CTL_FIELDS) {
        (void)printf("\"Endpoint\" : \"%s\"\n\"Health\" : %s\n\"Took\" : %s\n\"Error\" : %s\n\n",
                     e->at, good ? "true" : "false", took, error);
    } else if (c->out == CTL_JSON) {
        (void)fputs("{\"endpoint\":", stdout);
        ctl_json_string(e->at);
        (void)printf(",\"health\":%s,\"took\":\"%s\"", good ? "true" : "false", took);
        if (error[0] != '\0') {
            (void)fputs(",\"error\":", stdout);
            ctl_json_string(error);
        }
        (void)putchar('}');
    } else if (good) {
        (void)fprintf(stderr, "%s is healthy: successfully committed proposal: took = %s\n", e->at,
                      took); /* there, as etcdctl 3.4 */
    } else {
        (void)fprintf(stderr, "%s is unhealthy: failed to commit proposal: %s\n", e->at, error);
    }
}

int ctl_endpoint_health(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__RangeRequest req = ETCDSERVERPB__RANGE_REQUEST__INIT;
    struct per_endpoint *e = room(c);
    const char *cells[4 * (ALL_MAX + 1)] = {"ENDPOINT", "HEALTH", "TOOK", "ERROR"};
    size_t count;
    bool healthy = true;
    int code = ctl_format_status(c);

    (void)argc;
    (void)argv;
    req.has_key = true;
    req.key = (ProtobufCBinaryData){6, (uint8_t *)(uintptr_t) "health"};
    if (code == CTL_OK)
        code = ask_each(c, BNS_ETCD_RANGE, &req.base, e, &count);
    if (code != CTL_OK)
        return code;
    if (c->out == CTL_JSON)
        (void)putchar('[');
    for (size_t i = 0; i < count; i++) {
        bool good =
            e[i].reply.status == BNS_GRPC_OK || e[i].reply.status == BNS_GRPC_PERMISSION_DENIED;
        const char *error = good ? "" : ctl_error_text(c, e[i].reply.status, e[i].reply.text);

        healthy = healthy && good;
        if (c->out == CTL_JSON && i > 0)
            (void)putchar(',');
        if (c->out != CTL_TABLE)
            health_print(c, &e[i], good, error);
        memcpy(cells + 4 * (i + 1),
               (const char *[]){e[i].at, good ? "true" : "false", ctl_duration(c, e[i].took_ns),
                                error},
               4 * sizeof *cells);
    }
    if (c->out == CTL_JSON)
        (void)puts("]");
    if (c->out == CTL_TABLE)
        ctl_table(cells, 4, count + 1);
    return healthy ? CTL_OK : ctl_fail(CTL_ERROR, "unhealthy cluster");
}

/* ---- status ---------------------------------------------------------------------------------- */

#define STATUS_COLUMNS 10u

static void status_fields(const char *at, const Etcdserverpb__StatusResponse *r)
{
    ctl_out_header(r->header);
    (void)printf("\"Version\" : \"%s\"\n\"DBSize\" : %" PRId64 "\n\"Leader\" : %" PRIu64
                 "\n\"IsLearner\" : %s\n\"RaftIndex\" : %" PRIu64 "\n\"RaftTerm\" : %" PRIu64
                 "\n\"RaftAppliedIndex\" : %" PRIu64 "\n\"Errors\" : [",
                 r->version == NULL ? "" : r->version, r->dbsize, r->leader,
                 r->islearner ? "true" : "false", r->raftindex, r->raftterm, r->raftappliedindex);
    for (size_t i = 0; i < r->n_errors; i++)
        (void)printf("%s\"%s\"", i > 0 ? " " : "", r->errors[i]);
    (void)printf("]\n\"Endpoint\" : \"%s\"\n\n", at);
}

static void status_row(struct ctl *c, const char *at, const Etcdserverpb__StatusResponse *r,
                       const char **row)
{
    uint64_t self = r->header == NULL ? 0 : r->header->member_id;
    char *errors = ctl_print(c, "%s", "");

    for (size_t i = 0; i < r->n_errors; i++)
        errors = ctl_print(c, "%s%s%s", errors, i > 0 ? ", " : "", r->errors[i]);
    row[0] = at;
    row[1] = ctl_print(c, "%" PRIx64, self);
    row[2] = r->version == NULL ? "" : r->version;
    row[3] = ctl_bytes(c, r->dbsize);
    row[4] = r->leader == self ? "true" : "false";
    row[5] = r->islearner ? "true" : "false";
    row[6] = ctl_print(c, "%" PRIu64, r->raftterm);
    row[7] = ctl_print(c, "%" PRIu64, r->raftindex);
    row[8] = ctl_print(c, "%" PRIu64, r->raftappliedindex);
    row[9] = errors;
}

/* Rows of a table, as lines, or the table. */
static void rows_print(struct ctl *c, const char *const *cells, size_t columns, size_t rows)
{
    if (c->out == CTL_TABLE) {
        ctl_table(cells, columns, rows);
        return;
    }
    for (size_t i = columns; i < columns * rows; i++)
        (void)printf("%s%s", cells[i], (i + 1) % columns == 0 ? "\n" : ", ");
}

/* [{"Endpoint":"...","<what>":{...}},...] */
static void json_print(const struct per_endpoint *e, size_t count, const char *what)
{
    bool first = true;

    (void)putchar('[');
    for (size_t i = 0; i < count; i++) {
        if (e[i].reply.status != BNS_GRPC_OK)
            continue;
        (void)fputs(first ? "{\"Endpoint\":" : ",{\"Endpoint\":", stdout);
        ctl_json_string(e[i].at);
        (void)printf(",\"%s\":", what);
        ctl_json(e[i].reply.msg);
        (void)putchar('}');
        first = false;
    }
    (void)puts("]");
}

int ctl_endpoint_status(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__StatusRequest req = ETCDSERVERPB__STATUS_REQUEST__INIT;
    struct per_endpoint *e = room(c);
    const char **cells = bns_arena_alloc(&c->arena, STATUS_COLUMNS * (ALL_MAX + 1) * sizeof *cells);
    size_t count, rows = 1;
    int code = ctl_format_status(c), worst = CTL_OK;

    (void)argc;
    (void)argv;
    BNS_ASSERT(cells != NULL);
    memcpy(cells,
           (const char *[]){"ENDPOINT", "ID", "VERSION", "DB SIZE", "IS LEADER", "IS LEARNER",
                            "RAFT TERM", "RAFT INDEX", "RAFT APPLIED INDEX", "ERRORS"},
           STATUS_COLUMNS * sizeof *cells);
    if (code == CTL_OK)
        code = ask_each(c, BNS_ETCD_STATUS, &req.base, e, &count);
    if (code != CTL_OK)
        return code;
    for (size_t i = 0; i < count; i++) {
        if (e[i].reply.status != BNS_GRPC_OK) {
            (void)fprintf(stderr, "Failed to get the status of endpoint %s (%s)\n", e[i].at,
                          ctl_error_text(c, e[i].reply.status, e[i].reply.text));
            worst = CTL_ERROR;
            continue;
        }
        if (c->out == CTL_FIELDS)
            status_fields(e[i].at, e[i].reply.msg);
        status_row(c, e[i].at, e[i].reply.msg, cells + STATUS_COLUMNS * rows++);
    }
    if (c->out == CTL_JSON)
        json_print(e, count, "Status");
    else if (c->out != CTL_FIELDS)
        rows_print(c, cells, STATUS_COLUMNS, rows);
    return worst;
}

/* ---- hashkv ---------------------------------------------------------------------------------- */

int ctl_endpoint_hashkv(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__HashKVRequest req = ETCDSERVERPB__HASH_KVREQUEST__INIT;
    struct per_endpoint *e = room(c);
    const char *cells[2 * (ALL_MAX + 1)] = {"ENDPOINT", "HASH"}, *failed = NULL;
    size_t count, rows = 1;
    int code = ctl_format_status(c);

    (void)argc;
    (void)argv;
    req.has_revision = c->f.rev != 0;
    req.revision = c->f.rev;
    if (code == CTL_OK)
        code = ask_each(c, BNS_ETCD_HASH_KV, &req.base, e, &count);
    if (code != CTL_OK)
        return code;
    for (size_t i = 0; i < count; i++) {
        const Etcdserverpb__HashKVResponse *r = e[i].reply.msg;

        if (e[i].reply.status != BNS_GRPC_OK) {
            failed = ctl_error_text(c, e[i].reply.status, e[i].reply.text);
            (void)fprintf(stderr, "Failed to get the hash of endpoint %s (%s)\n", e[i].at, failed);
            continue;
        }
        if (c->out == CTL_FIELDS) {
            ctl_out_header(r->header);
            (void)printf("\"Endpoint\" : \"%s\"\n\"Hash\" : %" PRIu32 "\n\n", e[i].at, r->hash);
        }
        cells[2 * rows] = e[i].at;
        cells[2 * rows++ + 1] = ctl_print(c, "%" PRIu32, r->hash);
    }
    if (c->out == CTL_JSON)
        json_print(e, count, "HashKV");
    else if (c->out != CTL_FIELDS)
        rows_print(c, cells, 2, rows);
    return failed == NULL ? CTL_OK : ctl_fail(CTL_ERROR, "%s", failed);
}

/* ---- defrag, move-leader --------------------------------------------------------------------- */

int ctl_defrag(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__DefragmentRequest req = ETCDSERVERPB__DEFRAGMENT_REQUEST__INIT;
    struct per_endpoint *e = room(c);
    size_t count;
    int code = ask_each(c, BNS_ETCD_DEFRAGMENT, &req.base, e, &count), worst = CTL_OK;

    (void)argc;
    (void)argv;
    for (size_t i = 0; code == CTL_OK && i < count; i++) {
        if (e[i].reply.status == BNS_GRPC_OK) {
            (void)printf("Finished defragmenting etcd member[%s]\n", e[i].at);
        } else {
            (void)fprintf(stderr, "Failed to defragment etcd member[%s] (%s)\n", e[i].at,
                          ctl_error_text(c, e[i].reply.status, e[i].reply.text));
            worst = CTL_ERROR;
        }
    }
    return code == CTL_OK ? worst : code;
}

int ctl_move_leader(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__StatusRequest status = ETCDSERVERPB__STATUS_REQUEST__INIT;
    Etcdserverpb__MoveLeaderRequest req = ETCDSERVERPB__MOVE_LEADER_REQUEST__INIT;
    struct per_endpoint *e = room(c);
    struct bns_err err = {0};
    struct ctl_reply r;
    size_t count;
    int code;

    if (argc != 1)
        return ctl_fail(CTL_ARGS, "move-leader command needs 1 argument");
    if (ctl_parse_uint(argv[0], 16, &req.targetid, &err) != BNS_OK)
        return ctl_fail(CTL_ARGS, "%s", err.text);
    req.has_targetid = true;
    code = ask_each(c, BNS_ETCD_STATUS, &status.base, e, &count);
    if (code != CTL_OK)
        return code;
    for (size_t i = 0; i < count; i++) {
        const Etcdserverpb__StatusResponse *s = e[i].reply.msg;
        struct bns_etcd *one;

        if (e[i].reply.status != BNS_GRPC_OK)
            return ctl_reply_fail(c, e[i].reply.status, e[i].reply.text);
        if (s->header == NULL || s->header->member_id != s->leader)
            continue;
        one = ctl_client(c, &e[i].at, 1);
        if (one == NULL)
            return CTL_ARGS;
        r = ctl_ask_at(c, one, BNS_ETCD_MOVE_LEADER, &req.base);
        bns_etcd_free(one);
        if (r.status != BNS_GRPC_OK)
            return ctl_reply_fail(c, r.status, r.text);
        (void)printf("Leadership transferred from %" PRIx64 " to %" PRIx64 "\n", s->leader,
                     req.targetid);
        return CTL_OK;
    }
    return ctl_fail(CTL_ARGS, "no leader endpoint given at [%s%s]", c->f.endpoints[0],
                    c->f.endpoints_count > 1 ? " ..." : "");
}
