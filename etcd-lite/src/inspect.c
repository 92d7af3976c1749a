/* inspect.c - GET /inspect/raft, members, index, leases, watchers: this member's inside as JSON.
 *
 *     raft      term, role, who leads, commit and applied index, the log, each peer's progress
 *     members   who belongs to the cluster, and since when this member is connected with each
 *     index     keys, revisions, bytes, the largest keys        ?from=BASE64&limit=N&top=N
 *     leases    TTL, what is left, keys, checkpoint             ?cursor=NEXT&limit=N
 *     watchers  streams, watches, how far each is behind        ?cursor=NEXT&limit=N&top=N
 *               those of one stream                             ?stream=NUMBER&cursor=NEXT&limit=N
 *
 * Pages: an answer looks at `limit` things (1,000, at most 10,000); `next`, if it is there, is
 * where the next page begins. Nothing is locked in between.
 *
 * Access: with auth on all of it is an administrator's: a token in the header Authorization, as for
 * the JSON gateway. Keys tell a lot.
 */
#include "inspect.h"

#include "codec/base64.h"
#include "codec/pb.h"
#include "io/grpc_gateway.h"
#include "server.h"

#define ANSWER_MAX ((size_t)64 << 20)

typedef unsigned long long ull;

static void refuse(struct etcd_server *s, struct bns_http_req *q, struct etcd_status why)
{
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, s->env->alloc, 4096);
    rv = bns_buf_str(&b, "{\"error\":");
    if (rv == BNS_OK)
        rv = etcd_inspect_text(&b, bns_slice_str(why.text));
    if (rv == BNS_OK)
        rv = bns_buf_fmt(&b, ",\"code\":%d}", why.code);
    bns_http_reply(q, bns_grpc_gateway_status(why.code), "application/json",
                   rv == BNS_OK ? bns_buf_slice(&b) : BNS_LIT("{}"));
    bns_buf_free(&b);
}

/* Frees b. */
static void reply(struct etcd_server *s, struct bns_http_req *q, struct bns_buf *b, int rv)
{
    if (rv == BNS_OK)
        bns_http_reply(q, 200, "application/json", bns_buf_slice(b));
    else if (rv == BNS_E_NOTFOUND)
        refuse(s, q, (struct etcd_status){BNS_GRPC_NOT_FOUND, "no such stream"});
    else
        refuse(s, q, (struct etcd_status){BNS_GRPC_RESOURCE_EXHAUSTED, "out of memory"});
    bns_buf_free(b);
}

/* ---- who may look --------------------------------------------------------------------------- */

static bool admitted(struct etcd_server *s, struct bns_http_req *q)
{
    struct bns_slice token, bearer = BNS_LIT("Bearer ");
    struct etcd_status st = {0};
    struct etcd_who who = {.revision = 0};
    const char *user = NULL;

    if (s->node == NULL || etcd_auth_loading(s->kv)) {
        refuse(s, q, (struct etcd_status){BNS_GRPC_UNAVAILABLE, "etcdserver: not ready"});
        return false;
    }
    if (!etcd_auth_enabled(s->kv))
        return true;
    if (bns_http_header(q, "authorization", &token)) {
        if (token.len >= bearer.len && memcmp(token.ptr, bearer.ptr, bearer.len) == 0)
            token = bns_slice_skip(token, bearer.len);
        user = etcd_token_user(s->kv, token);
        if (user == NULL)
            who.why = etcd_auth_bad_token;
    }
    if (user != NULL) {
        who.name = bns_slice_str(user);
        who.revision = etcd_auth_revision(s->kv);
    }
    if (etcd_auth_admin(s->kv, &who, &st))
        return true;
    refuse(s, q, st);
    return false;
}

/* ---- parameters ----------------------------------------------------------------------------- */

/* Decimal, at most max. False: it is there and is no such number. */
static bool number(struct etcd_server *s, struct bns_http_req *q, const char *name, uint64_t max,
                   uint64_t *out)
{
    struct bns_buf b;
    uint64_t v = 0;
    int rv;
    bool good;

    bns_buf_init(&b, s->env->alloc, 64);
    rv = bns_http_param(q, name, &b);
    good = rv == BNS_OK && b.len > 0;
    for (size_t i = 0; good && i < b.len; i++)
        good = b.ptr[i] >= '0' && b.ptr[i] <= '9' && !__builtin_mul_overflow(v, 10, &v) &&
               !__builtin_add_overflow(v, (uint64_t)(b.ptr[i] - '0'), &v);
    bns_buf_free(&b);
    if (rv == BNS_E_NOTFOUND)
        return true;
    if (good && v <= max)
        *out = v;
    return good && v <= max;
}

/* False: answered. `from` is the decoded key, to be freed. */
static bool read_page(struct etcd_server *s, struct bns_http_req *q, struct etcd_inspect_page *p,
                      struct bns_buf *from)
{
    uint64_t limit = ETCD_INSPECT_LIMIT, top = ETCD_INSPECT_TOP;
    struct bns_buf text;
    const char *bad = NULL;
    int rv;

    *p = (struct etcd_inspect_page){.cursor = 0};
    if (!number(s, q, "limit", ETCD_INSPECT_LIMIT_MAX, &limit) || limit == 0)
        bad = "limit is none of 1 .. 10000";
    else if (!number(s, q, "top", ETCD_INSPECT_TOP_MAX, &top))
        bad = "top is none of 0 .. 100";
    else if (!number(s, q, "cursor", UINT64_MAX, &p->cursor))
        bad = "cursor is not what an answer has told as next";
    else if (!number(s, q, "stream", UINT64_MAX, &p->stream))
        bad = "stream is not a number";
    bns_buf_init(&text, s->env->alloc, 16384);
    rv = bns_http_param(q, "from", &text);
    if (rv == BNS_OK)
        rv = bns_base64_decode(from, bns_buf_slice(&text));
    if (rv != BNS_OK && rv != BNS_E_NOTFOUND)
        bad = "from is not base64";
    bns_buf_free(&text);
    if (bad != NULL)
        refuse(s, q, (struct etcd_status){BNS_GRPC_INVALID_ARGUMENT, bad});
    p->from = bns_buf_slice(from);
    p->limit = (uint32_t)limit;
    p->top = (uint32_t)top;
    return bad == NULL;
}

/* ---- raft ----------------------------------------------------------------------------------- */

static int put_ids(struct bns_buf *b, const char *name, const uint64_t *ids, size_t count)
{
    int rv = bns_buf_fmt(b, "\"%s\":[", name);

    for (size_t i = 0; rv == BNS_OK && i < count; i++)
        rv = bns_buf_fmt(b, "%s\"%llx\"", i == 0 ? "" : ",", (ull)ids[i]);
    return rv == BNS_OK ? bns_buf_byte(b, ']') : rv;
}

static int put_conf(struct bns_buf *b, const struct bns_raft_conf *c,
                    const struct bns_raft_status *st)
{
    int rv = bns_buf_fmt(b, ",\"configuration\":{\"index\":%llu,\"joint\":%s,\"pending\":%s,",
                         (ull)st->conf_index, st->joint ? "true" : "false",
                         st->conf_pending ? "true" : "false");

    if (rv == BNS_OK)
        rv = put_ids(b, "voters", c->voters, c->voters_count);
    if (rv == BNS_OK && c->voters_old_count > 0) {
        rv = bns_buf_byte(b, ',');
        if (rv == BNS_OK)
            rv = put_ids(b, "voters_old", c->voters_old, c->voters_old_count);
    }
    if (rv == BNS_OK)
        rv = bns_buf_byte(b, ',');
    if (rv == BNS_OK)
        rv = put_ids(b, "learners", c->learners, c->learners_count);
    return rv == BNS_OK ? bns_buf_byte(b, '}') : rv;
}

static int put_since(struct bns_buf *b, const char *name, uint64_t since, uint64_t now)
{
    if (since == 0)
        return bns_buf_fmt(b, ",\"%s\":null", name);
    return bns_buf_fmt(b, ",\"%s\":%llu", name, (ull)((now - since) / BNS_MS));
}

/* A leader knows where the others are; all know whom they are connected with. */
static int put_peers(struct etcd_server *s, struct bns_buf *b, const struct bns_raft_status *st)
{
    static const char *const states[] = {"probe", "replicate", "snapshot"};
    uint64_t now = bns_now_ns(s->env);
    bool leads = st->role == BNS_RAFT_LEADER;
    int rv = bns_buf_str(b, ",\"peers\":[");
    bool first = true;

    for (uint32_t i = 0; rv == BNS_OK && i < st->peers_count; i++) {
        if (st->peers[i].id == st->id)
            continue;
        rv = bns_buf_fmt(b, "%s{\"id\":\"%llx\",\"learner\":%s", first ? "" : ",",
                         (ull)st->peers[i].id, st->peers[i].learner ? "true" : "false");
        first = false;
        if (rv == BNS_OK)
            rv = put_since(b, "connected_ms", bns_raft_node_peer_since(s->node, st->peers[i].id),
                           now);
        if (rv == BNS_OK && leads)
            rv = bns_buf_fmt(b,
                             ",\"state\":\"%s\",\"match\":%llu,\"next\":%llu,\"inflight\":%u,"
                             "\"no_room\":%s,",
                             st->peers[i].state < 3 ? states[st->peers[i].state] : "",
                             (ull)st->peers[i].match, (ull)st->peers[i].next, st->peers[i].inflight,
                             st->peers[i].no_room ? "true" : "false");
        if (rv == BNS_OK && leads && st->peers[i].heard_ns == UINT64_MAX)
            rv = bns_buf_str(b, "\"heard_ms_ago\":null");
        else if (rv == BNS_OK && leads)
            rv = bns_buf_fmt(b, "\"heard_ms_ago\":%llu", (ull)(st->peers[i].heard_ns / BNS_MS));
        if (rv == BNS_OK)
            rv = bns_buf_byte(b, '}');
    }
    return rv == BNS_OK ? bns_buf_byte(b, ']') : rv;
}

static int put_raft(struct etcd_server *s, struct bns_buf *b)
{
    static const char *const roles[] = {
        [BNS_RAFT_FOLLOWER] = "follower",
        [BNS_RAFT_PRE_CANDIDATE] = "precandidate",
        [BNS_RAFT_CANDIDATE] = "candidate",
        [BNS_RAFT_LEADER] = "leader",
    };
    struct bns_raft_snapmeta durable = {0};
    struct bns_raft_status st;
    int rv;

    bns_raft_node_status(s->node, &st);
    etcd_kv_sm()->durable(s->kv, &durable);
    rv = bns_buf_fmt(
        b,
        "{\"member\":\"%llx\",\"cluster\":\"%llx\",\"role\":\"%s\",\"term\":%llu,"
        "\"leader\":\"%llx\",\"vote\":\"%llx\",\"commit\":%llu,\"applied\":%llu,"
        "\"learner\":%s,\"transferring_to\":\"%llx\",\"reads_waiting\":%u,"
        "\"log\":{\"first\":%llu,\"last\":%llu,\"durable\":%llu,\"bytes\":%llu,"
        "\"uncommitted_bytes\":%llu,\"no_room\":%s},\"snapshot\":{\"index\":%llu,\"term\":%llu}",
        (ull)st.id, (ull)s->cluster_id, roles[st.role], (ull)st.term, (ull)st.leader, (ull)st.vote,
        (ull)st.commit, (ull)st.applied, st.learner ? "true" : "false", (ull)st.transferee,
        st.reads_waiting, (ull)st.first_index, (ull)st.last_index, (ull)st.durable_index,
        (ull)st.log_bytes, (ull)st.uncommitted_bytes, st.no_room ? "true" : "false",
        (ull)durable.index, (ull)durable.term);
    if (rv == BNS_OK)
        rv = put_conf(b, bns_raft_node_conf(s->node), &st);
    if (rv == BNS_OK)
        rv = put_peers(s, b, &st);
    return rv == BNS_OK ? bns_buf_byte(b, '}') : rv;
}

/* ---- members -------------------------------------------------------------------------------- */

static int put_urls(struct bns_buf *b, const char *name, char *const *urls, size_t count)
{
    int rv = bns_buf_fmt(b, ",\"%s\":[", name);

    for (size_t i = 0; rv == BNS_OK && i < count; i++) {
        if (i > 0)
            rv = bns_buf_byte(b, ',');
        if (rv == BNS_OK)
            rv = etcd_inspect_text(b, bns_slice_str(urls[i]));
    }
    return rv == BNS_OK ? bns_buf_byte(b, ']') : rv;
}

static int put_member(struct etcd_server *s, struct bns_buf *b, const Etcdserverpb__Member *m)
{
    bool self = m->id == s->member_id;
    int rv = bns_buf_fmt(b, "{\"id\":\"%llx\",\"name\":", (ull)m->id);

    if (rv == BNS_OK)
        rv = etcd_inspect_text(b, bns_slice_str(m->name == NULL ? "" : m->name));
    if (rv == BNS_OK)
        rv = bns_buf_fmt(b, ",\"learner\":%s,\"leader\":%s,\"this\":%s",
                         m->islearner ? "true" : "false", m->id == s->leader ? "true" : "false",
                         self ? "true" : "false");
    if (rv == BNS_OK && !self)
        rv = put_since(b, "connected_ms", bns_raft_node_peer_since(s->node, m->id),
                       bns_now_ns(s->env));
    if (rv == BNS_OK)
        rv = put_urls(b, "peer_urls", m->peerurls, m->n_peerurls);
    if (rv == BNS_OK)
        rv = put_urls(b, "client_urls", m->clienturls, m->n_clienturls);
    return rv == BNS_OK ? bns_buf_byte(b, '}') : rv;
}

static int put_members(struct etcd_server *s, struct bns_buf *b)
{
    const struct bns_pb_limits limits = {.bytes = 1024 * 1024};
    Etcdserverpb__MemberListResponse *r = NULL;
    ProtobufCMessage *msg = NULL;
    struct bns_arena arena;
    struct bns_buf bytes;
    int rv;

    bns_arena_init(&arena, s->env->alloc, 4 * 1024 * 1024);
    bns_buf_init(&bytes, s->env->alloc, 1024 * 1024);
    rv = etcd_roster_put(s, 2, &bytes);
    if (rv == BNS_OK)
        rv = bns_pb_unpack(&etcdserverpb__member_list_response__descriptor, bns_buf_slice(&bytes),
                           &arena, &limits, &msg, NULL);
    if (rv == BNS_OK)
        rv = bns_buf_str(b, "{\"members\":[");
    r = (Etcdserverpb__MemberListResponse *)(void *)msg;
    for (size_t i = 0; rv == BNS_OK && i < r->n_members; i++) {
        if (i > 0)
            rv = bns_buf_byte(b, ',');
        if (rv == BNS_OK)
            rv = put_member(s, b, r->members[i]);
    }
    if (rv == BNS_OK)
        rv = bns_buf_str(b, "]}");
    bns_buf_free(&bytes);
    bns_arena_free(&arena);
    return rv;
}

/* ---- the routes ----------------------------------------------------------------------------- */

static void on_raft(void *arg, struct bns_http_req *q)
{
    struct etcd_server *s = arg;
    struct bns_buf b;

    if (!admitted(s, q))
        return;
    bns_buf_init(&b, s->env->alloc, ANSWER_MAX);
    reply(s, q, &b, put_raft(s, &b));
}

static void on_members(void *arg, struct bns_http_req *q)
{
    struct etcd_server *s = arg;
    struct bns_buf b;

    if (!admitted(s, q))
        return;
    bns_buf_init(&b, s->env->alloc, ANSWER_MAX);
    reply(s, q, &b, put_members(s, &b));
}

static int put_index(struct etcd_server *s, const struct etcd_inspect_page *p, struct bns_buf *b)
{
    return etcd_inspect_index(s->kv, p, b);
}

static int put_leases(struct etcd_server *s, const struct etcd_inspect_page *p, struct bns_buf *b)
{
    return etcd_inspect_leases(s->kv, p, bns_now_ns(s->env), b);
}

static int put_watchers(struct etcd_server *s, const struct etcd_inspect_page *p, struct bns_buf *b)
{
    return etcd_inspect_watchers(s->kv, p, b);
}

static void paged(struct etcd_server *s, struct bns_http_req *q,
                  int (*put)(struct etcd_server *s, const struct etcd_inspect_page *p,
                             struct bns_buf *b))
{
    struct etcd_inspect_page p;
    struct bns_buf b, from;

    if (!admitted(s, q))
        return;
    bns_buf_init(&from, s->env->alloc, 16384);
    if (read_page(s, q, &p, &from)) {
        bns_buf_init(&b, s->env->alloc, ANSWER_MAX);
        reply(s, q, &b, put(s, &p, &b));
    }
    bns_buf_free(&from);
}

static void on_index(void *arg, struct bns_http_req *q)
{
    paged(arg, q, put_index);
}

static void on_leases(void *arg, struct bns_http_req *q)
{
    paged(arg, q, put_leases);
}

static void on_watchers(void *arg, struct bns_http_req *q)
{
    paged(arg, q, put_watchers);
}

void etcd_inspect_routes(struct etcd_server *s, struct bns_http_route *out)
{
    static const struct {
        const char *path;
        bns_http_fn *fn;
    } t[ETCD_INSPECT_PATHS] = {
        {"/inspect/raft", on_raft},         {"/inspect/members", on_members},
        {"/inspect/index", on_index},       {"/inspect/leases", on_leases},
        {"/inspect/watchers", on_watchers},
    };

    for (size_t i = 0; i < ETCD_INSPECT_PATHS; i++)
        out[i] = (struct bns_http_route){"GET", t[i].path, t[i].fn, s, 0, false, false};
}
