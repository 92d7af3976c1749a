/* http.c - /health, /livez, /readyz and /version on the client port, as etcd answers them;
 * app/admin.h's /metrics and /healthz beside them.
 *
 * /livez says that this process works on its own data, /readyz that clients should be sent here:
 * each is a list of checks, every check also has a path of its own. Checks run one after the other;
 * those that read really do: a serializable one asks this member's store, a linearizable one takes
 * a round of the quorum. ?exclude=a&exclude=b leaves checks out, ?verbose names them.
 */
#include <stdio.h>

#include "server.h"

#define PROBE_NS (5 * BNS_SEC)

static void reply_json(struct bns_http_req *q, int status, struct bns_slice body)
{
    bns_http_reply(q, status, "application/json", body);
}

/* Is name=value among the parameters? Every one of that name counts. */
static bool asks(const struct bns_http_req *q, const char *name, const char *value)
{
    struct bns_slice rest = bns_http_query(q);
    size_t name_len = strlen(name);

    while (rest.len > 0) {
        const uint8_t *amp = memchr(rest.ptr, '&', rest.len);
        size_t len = amp == NULL ? rest.len : (size_t)(amp - rest.ptr);
        struct bns_slice p = bns_slice(rest.ptr, len);

        rest = bns_slice(rest.ptr + len, rest.len - len);
        if (rest.len > 0)
            rest = bns_slice(rest.ptr + 1, rest.len - 1);
        if (p.len < name_len || memcmp(p.ptr, name, name_len) != 0)
            continue;
        p = bns_slice(p.ptr + name_len, p.len - name_len);
        if (p.len > 0 && p.ptr[0] == '=')
            p = bns_slice(p.ptr + 1, p.len - 1);
        else if (p.len > 0)
            continue;
        if (value == NULL || bns_slice_eq(p, bns_slice_str(value)))
            return true;
    }
    return false;
}

/* ---- checks --------------------------------------------------------------------------------- */

enum check { CORRUPTION, SERIALIZABLE, LINEARIZABLE, NON_LEARNER, CHECKS };
#define ALL_LIVE (1u << SERIALIZABLE)
#define ALL_READY ((1u << CHECKS) - 1)

static const char *const check_names[CHECKS] = {"data_corruption", "serializable_read",
                                                "linearizable_read", "non_learner"};

struct probe {
    struct bns_raft_read read;
    struct etcd_server *s;
    struct bns_http_req *q;
    const char *path;
    unsigned unasked, asked; /* bits of enum check */
    const char *failed[CHECKS];
    bool health; /* /health: JSON, one reason */
    Etcdserverpb__RangeRequest range;
};

static void go_on(struct probe *p);

static void serialized(void *arg, struct etcd_answer *a)
{
    struct probe *p = arg;

    if (a->status == 0)
        a->release(a->release_arg, BNS_OK);
    else if (!etcd_kv_alarmed(p->s->kv, ETCD_ALARM_CORRUPT)) /* that is another check's */
        p->failed[SERIALIZABLE] = a->text;
    go_on(p);
}

static void linearized(struct bns_raft_read *r, int code)
{
    struct probe *p = BNS_CONTAINER(r, struct probe, read);

    if (code != BNS_OK)
        p->failed[LINEARIZABLE] =
            p->s->leader == 0 ? "etcdserver: no leader" : "etcdserver: request timed out";
    go_on(p);
}

static void answer_health(struct probe *p)
{
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, p->s->env->alloc, 1024);
    if (p->failed[LINEARIZABLE] == NULL && p->failed[SERIALIZABLE] == NULL) {
        bns_counter_add(p->s->m_healthy, 1);
        reply_json(p->q, 200, BNS_LIT("{\"health\":\"true\",\"reason\":\"\"}"));
        return;
    }
    bns_counter_add(p->s->m_unhealthy, 1);
    rv = bns_buf_fmt(&b, "{\"health\":\"false\",\"reason\":\"RANGE ERROR:%s\"}",
                     p->failed[SERIALIZABLE] != NULL ? p->failed[SERIALIZABLE]
                                                     : p->failed[LINEARIZABLE]);
    reply_json(p->q, 503, rv == BNS_OK ? bns_buf_slice(&b) : BNS_LIT("{\"health\":\"false\"}"));
    bns_buf_free(&b);
}

static void answer_checks(struct probe *p)
{
    static const char *const before[CHECKS] = {"", "range error: ", "range error: ", ""};
    struct bns_buf b;
    bool bad = false;
    int rv = BNS_OK;

    bns_buf_init(&b, p->s->env->alloc, 4096);
    for (int i = 0; i < CHECKS && rv == BNS_OK; i++) {
        if ((p->asked >> i & 1) == 0)
            continue;
        bad = bad || p->failed[i] != NULL;
        rv = p->failed[i] != NULL
                 ? bns_buf_fmt(&b, "[-]%s failed: %s%s\n", check_names[i], before[i], p->failed[i])
                 : bns_buf_fmt(&b, "[+]%s ok\n", check_names[i]);
    }
    if (!bad && !asks(p->q, "verbose", NULL)) {
        bns_http_reply_text(p->q, 200, "ok");
        bns_buf_free(&b);
        return;
    }
    if (rv == BNS_OK)
        rv = bns_buf_fmt(&b, "%s check %s\n", p->path, bad ? "failed" : "passed");
    bns_http_reply(p->q, bad || rv != BNS_OK ? 503 : 200, "text/plain; charset=utf-8",
                   bns_buf_slice(&b));
    bns_buf_free(&b);
}

static void finish(struct probe *p)
{
    if (p->health)
        answer_health(p);
    else
        answer_checks(p);
    bns_free(p->s->env->alloc, p);
}

/* The next check that is to do, or the answer. A check that waits comes back here. */
static void go_on(struct probe *p)
{
    struct bns_raft_status st;
    unsigned bit = 0;

    while (p->unasked != 0) {
        while ((p->unasked >> bit & 1) == 0)
            bit++;
        p->unasked &= ~(1u << bit);
        switch ((enum check)bit) {
        case CORRUPTION:
            if (etcd_kv_alarmed(p->s->kv, ETCD_ALARM_CORRUPT))
                p->failed[bit] = "alarm activated: CORRUPT";
            break;
        case SERIALIZABLE:
            etcd_kv_range(p->s->kv, &p->range, serialized, p);
            return;
        case LINEARIZABLE:
            if (p->s->leader == 0) {
                p->failed[bit] = "etcdserver: no leader";
                break;
            }
            p->read.fn = linearized;
            bns_list_init(&p->read.node);
            bns_raft_node_read(p->s->node, &p->read, bns_now_ns(p->s->env) + PROBE_NS);
            return;
        default:
            bns_raft_node_status(p->s->node, &st);
            if (st.learner)
                p->failed[bit] = "not supported for learner";
            break;
        }
    }
    finish(p);
}

static struct probe *probe_new(struct etcd_server *s, struct bns_http_req *q, const char *path,
                               unsigned asked)
{
    static const uint8_t first = 0;
    struct probe *p = bns_alloc_zero(s->env->alloc, sizeof *p);

    if (p == NULL || s->node == NULL) {
        bns_http_reply_text(q, 503, p == NULL ? "out of memory\n" : "stopping\n");
        bns_free(s->env->alloc, p);
        return NULL;
    }
    p->s = s;
    p->q = q;
    p->path = path;
    p->unasked = p->asked = asked;
    p->range = (Etcdserverpb__RangeRequest)ETCDSERVERPB__RANGE_REQUEST__INIT;
    p->range.has_key = p->range.has_limit = p->range.has_keys_only = true;
    p->range.key = (ProtobufCBinaryData){1, (uint8_t *)(uintptr_t)&first};
    p->range.limit = 1;
    p->range.keys_only = true;
    return p;
}

struct etcd_check_path {
    const char *path;
    unsigned checks;
};

static const struct etcd_check_path check_paths[ETCD_CHECK_PATHS] = {
    {"/livez", ALL_LIVE},
    {"/livez/serializable_read", 1u << SERIALIZABLE},
    {"/readyz", ALL_READY},
    {"/readyz/data_corruption", 1u << CORRUPTION},
    {"/readyz/serializable_read", 1u << SERIALIZABLE},
    {"/readyz/linearizable_read", 1u << LINEARIZABLE},
    {"/readyz/non_learner", 1u << NON_LEARNER},
};

static void on_checks(void *arg, struct bns_http_req *q)
{
    struct etcd_server *s = arg;
    const struct etcd_check_path *c = check_paths;
    struct probe *p;
    unsigned asked;

    while (!bns_slice_eq(bns_http_path(q), bns_slice_str(c->path)))
        c++; /* one of them: they are what is routed here */
    asked = c->checks;
    for (int i = 0; i < CHECKS; i++) {
        if (asks(q, "exclude", check_names[i]))
            asked &= ~(1u << i);
    }
    p = probe_new(s, q, c->path, asked);
    if (p != NULL)
        go_on(p);
}

/* ---- /health -------------------------------------------------------------------------------- */

static const char *unhealthy(struct etcd_server *s, struct bns_http_req *q, bool serializable)
{
    if (etcd_kv_alarmed(s->kv, ETCD_ALARM_CORRUPT) && !asks(q, "exclude", "CORRUPT"))
        return "{\"health\":\"false\",\"reason\":\"ALARM CORRUPT\"}";
    if (etcd_kv_alarmed(s->kv, ETCD_ALARM_NOSPACE) && !asks(q, "exclude", "NOSPACE"))
        return "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}";
    if (s->leader == 0 && !serializable)
        return "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}";
    return NULL;
}

static void on_health(void *arg, struct bns_http_req *q)
{
    struct etcd_server *s = arg;
    bool serializable = asks(q, "serializable", "true");
    const char *why = unhealthy(s, q, serializable);
    struct probe *p;

    if (why != NULL) {
        bns_counter_add(s->m_unhealthy, 1);
        reply_json(q, 503, bns_slice_str(why));
        return;
    }
    p = probe_new(s, q, "/health", serializable ? 1u << SERIALIZABLE : 1u << LINEARIZABLE);
    if (p == NULL)
        return;
    p->health = true;
    go_on(p);
}

static void on_version(void *arg, struct bns_http_req *q)
{
    (void)arg;
    reply_json(q, 200,
               BNS_LIT("{\"etcdserver\":\"" ETCD_API_VERSION
                       "\",\"etcdcluster\":\"" ETCD_API_VERSION "\",\"storage\":\"" ETCD_API_VERSION
                       "\",\"bonsai\":\"" BNS_VERSION "\"}"));
}

int etcd_http_routes(struct etcd_server *s)
{
    struct bns_http_route *r = s->routes;
    int rv;

    s->admin = (struct bns_admin){.env = s->env, .own_ready = true};
    rv = bns_admin_routes(&s->admin, s->http);
    if (rv != BNS_OK)
        return rv;
    *r++ = (struct bns_http_route){"GET", "/health", on_health, s, 0, false, false};
    for (size_t i = 0; i < ETCD_CHECK_PATHS; i++)
        *r++ = (struct bns_http_route){"GET", check_paths[i].path, on_checks, s, 0, false, false};
    if (s->metrics_http != NULL) { /* --listen-metrics-urls: all but /version, as in etcd */
        s->metrics_admin = s->admin;
        rv = bns_admin_routes(&s->metrics_admin, s->metrics_http);
        if (rv == BNS_OK)
            rv = bns_http_server_routes(s->metrics_http, s->routes, (size_t)(r - s->routes));
        if (rv != BNS_OK)
            return rv;
    }
    *r++ = (struct bns_http_route){"GET", "/version", on_version, s, 0, false, false};
    etcd_inspect_routes(s, r); /* not with the metrics: it tells keys */
    r += ETCD_INSPECT_PATHS;
    return bns_http_server_routes(s->http, s->routes, (size_t)(r - s->routes));
}
