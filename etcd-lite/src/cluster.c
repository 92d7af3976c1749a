/* cluster.c - changes of who belongs to the cluster.
 *
 * Only the leader changes anything: it knows what is under way, who is heard of, how far a learner
 * is. A request that comes to another member is sent on over the connections that carry Raft's
 * messages, and its answer comes back with the members as the leader had them after the change.
 *
 *   asked here or by another member -> leader? -> checks -> one entry -> applied (kv_members.c)
 *   -> answer
 *
 * An entry names whose request it was, so the waiter that every write has (kv.h) ends it. While
 * there is no leader, or a change before this one is under way, it is tried again. Once it has been
 * proposed, or sent on and not surely refused, it is not: at its deadline the client is told that
 * nobody knows.
 *
 * The members with whom the cluster was made are in the flags only, which others that come later do
 * not share: the first leader puts them into the log before anything is changed.
 */
#include "cluster.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/varint.h"
#include "codec/crypto.h"
#include "codec/pb.h"
#include "kv_bucket.h"
#include "server.h"

#define RETRY_NS (50 * BNS_MS)
#define ANSWER_MAX (1024u * 1024)
#define CHANGES_MAX 64u
#define HEALTH_NS (5 * BNS_SEC)
#define READY_PERCENT 90u

static const struct etcd_status ok = {0, NULL};
static const struct etcd_status stopped = {14, "etcdserver: server stopped"};
static const struct etcd_status timed_out = {14, "etcdserver: request timed out"};
static const struct etcd_status no_leader = {14, "etcdserver: no leader"};
static const struct etcd_status unhealthy = {14, "etcdserver: unhealthy cluster"};
static const struct etcd_status no_member = {5, "etcdserver: member not found"};
static const struct etcd_status id_exists = {9, "etcdserver: member ID already exist"};
static const struct etcd_status urls_exist = {9, "etcdserver: Peer URLs already exists"};
static const struct etcd_status no_learner = {9, "etcdserver: can only promote a learner member"};
static const struct etcd_status not_ready = {
    9, "etcdserver: can only promote a learner member which is in sync with leader"};
static const struct etcd_status many_learners = {9,
                                                 "etcdserver: too many learner members in cluster"};
static const struct etcd_status few_started = {
    9, "etcdserver: re-configuration failed due to not enough started members"};
static const struct etcd_status busy = {8, "etcdserver: too many requests"};
static const struct etcd_status no_space = {8, ETCD_TEXT_NOSPACE};

/* ---- may it be done? ------------------------------------------------------------------------ */

/* Heard of without a break for so long. */
static bool is_connected(const struct etcd_server *s, uint64_t id, uint64_t for_ns)
{
    uint64_t since = bns_raft_node_peer_since(s->node, id);

    return id == s->member_id || (since != 0 && since + for_ns <= bns_now_ns(s->env));
}

struct votes {
    size_t voters, started, connected;
};

static struct votes count_votes(const struct etcd_server *s, const struct etcd_roster *r,
                                uint64_t but)
{
    struct votes v = {0};

    for (size_t i = 0; i < r->count; i++) {
        const struct etcd_roster_member *m = &r->member[i];

        if (m->learner || m->id == but)
            continue;
        v.voters++;
        v.started += m->name[0] != 0;
        v.connected += is_connected(s, m->id, HEALTH_NS);
    }
    return v;
}

static struct etcd_status check_urls(const struct etcd_roster *r,
                                     const struct etcd_roster_member *m)
{
    for (size_t i = 0; i < r->count; i++) {
        const struct etcd_urls *urls = &r->member[i].peer_urls;

        for (size_t k = 0; k < urls->count && r->member[i].id != m->id; k++) {
            for (size_t u = 0; u < m->peer_urls.count; u++) {
                if (strcmp(urls->url[k], m->peer_urls.url[u]) == 0)
                    return urls_exist;
            }
        }
    }
    return ok;
}

/* A voter more: most of those that vote then must have been started, and all must be there. */
static struct etcd_status check_more(const struct etcd_server *s, const struct etcd_roster *r)
{
    struct votes v = count_votes(s, r, 0);

    if (!(v.started == 1 && v.voters == 1) && v.started < (v.voters + 1) / 2 + 1)
        return few_started;
    return v.connected < v.voters ? unhealthy : ok;
}

static struct etcd_status check_add(const struct etcd_server *s, const struct etcd_roster *r,
                                    enum etcd_change_kind kind, const struct etcd_roster_member *m)
{
    struct etcd_status why = s->opt->strict_reconfig ? check_more(s, r) : ok;
    uint64_t learners = 0;

    if (why.code != 0)
        return why;
    if (etcd_roster_find(r, m->id) != NULL || etcd_kv_member_removed(s->kv, m->id))
        return id_exists;
    why = check_urls(r, m);
    if (why.code != 0 || kind != ETCD_CHANGE_ADD_LEARNER)
        return why;
    for (size_t i = 0; i < r->count; i++)
        learners += r->member[i].learner;
    return learners >= s->opt->learners_max ? many_learners : ok;
}

static struct etcd_status check_remove(const struct etcd_server *s, const struct etcd_roster *r,
                                       const struct etcd_roster_member *m)
{
    const struct etcd_roster_member *is = etcd_roster_find(r, m->id);
    struct votes all = count_votes(s, r, 0), rest = count_votes(s, r, m->id);

    if (is == NULL)
        return no_member;
    if (!s->opt->strict_reconfig)
        return rest.voters == 0 && !is->learner ? few_started : ok;
    if (rest.started < rest.voters / 2 + 1)
        return few_started;
    if (is->learner || !is_connected(s, m->id, 0))
        return ok; /* who is not there is not missed */
    return all.connected - 1 < 1 + (all.voters - 1) / 2 ? unhealthy : ok;
}

static struct etcd_status check_promote(const struct etcd_server *s, const struct etcd_roster *r,
                                        const struct etcd_roster_member *m)
{
    const struct etcd_roster_member *is = etcd_roster_find(r, m->id);
    struct votes v = count_votes(s, r, 0);
    struct bns_raft_status st;

    if (is == NULL)
        return no_member;
    if (!is->learner)
        return no_learner;
    bns_raft_node_status(s->node, &st);
    for (size_t i = 0; i < st.peers_count; i++) {
        if (st.peers[i].id == m->id && st.peers[i].match * 100 < st.last_index * READY_PERCENT)
            return not_ready;
    }
    if (s->opt->strict_reconfig && v.started + 1 < (v.voters + 1) / 2 + 1)
        return few_started;
    return ok;
}

struct etcd_status etcd_cluster_check(const struct etcd_server *s, enum etcd_change_kind kind,
                                      const struct etcd_roster_member *m)
{
    const struct etcd_roster_member *is;
    struct etcd_roster r;

    etcd_roster_read(s, &r);
    is = etcd_roster_find(&r, m->id);
    switch (kind) {
    case ETCD_CHANGE_ADD:
    case ETCD_CHANGE_ADD_LEARNER:
        return check_add(s, &r, kind, m);
    case ETCD_CHANGE_PROMOTE:
        return check_promote(s, &r, m);
    case ETCD_CHANGE_REMOVE:
        return check_remove(s, &r, m);
    case ETCD_CHANGE_UPDATE:
        return is == NULL ? no_member : check_urls(&r, m);
    }
    return ok;
}

/* ---- the end of a request ------------------------------------------------------------------- */

static void unwait(struct etcd_change *c)
{
    if (!c->waiting)
        return;
    etcd_kv_unwait(c->s->kv, &c->wait);
    c->waiting = false;
    c->s->changes_waiting--;
}

static void finish(struct etcd_change *c, struct etcd_status status, struct bns_slice body)
{
    bns_list_del(&c->node);
    c->s->changes_count--;
    unwait(c);
    c->done(c, status, body);
}

static void refuse(struct etcd_change *c, struct etcd_status why)
{
    finish(c, why, bns_slice(NULL, 0));
}

static void tick_soon(struct etcd_server *s)
{
    if (!bns_list_empty(&s->changes) && s->changes_timer.node.pos == 0 && !s->stopping_asks)
        bns_timer_start(s->env, &s->changes_timer, bns_now_ns(s->env) + RETRY_NS);
}

static void later(struct etcd_change *c)
{
    c->retrying = true;
    tick_soon(c->s);
}

/* The answer without its header: for additions the member (2) and all (3), else all (2). */
static void succeed(struct etcd_change *c)
{
    bool adds = c->kind == ETCD_CHANGE_ADD || c->kind == ETCD_CHANGE_ADD_LEARNER;
    struct bns_buf b;
    int rv = BNS_OK;

    bns_buf_init(&b, c->s->env->alloc, ANSWER_MAX);
    c->m.learner = c->kind == ETCD_CHANGE_ADD_LEARNER;
    if (adds)
        rv = etcd_roster_put_one(c->s, 2, &c->m, &b);
    if (rv == BNS_OK)
        rv = etcd_roster_put(c->s, adds ? 3 : 2, &b);
    if (rv == BNS_OK)
        finish(c, ok, bns_buf_slice(&b));
    else
        refuse(c, busy);
    bns_buf_free(&b);
}

static void applied(struct etcd_waiter *w, struct etcd_answer *a)
{
    struct etcd_change *c = BNS_CONTAINER(w, struct etcd_change, wait);
    struct etcd_status status = {a->status, a->text};

    c->waiting = false;
    c->s->changes_waiting--;
    c->applied = true;
    if (status.code == 0 && c->kind == ETCD_CHANGE_PROMOTE)
        bns_counter_add(c->s->m_promoted, 1);
    if (a->status == 0)
        a->release(a->release_arg, BNS_OK);
    if (c->asking) /* on_change comes, and ends it */
        return;
    if (status.code == 0)
        succeed(c);
    else
        refuse(c, status);
}

/* ---- on the leader -------------------------------------------------------------------------- */

static int put_urls(const struct etcd_roster_member *m, struct bns_buf *out)
{
    int rv = bns_pb_put_u64(out, 1, m->id);

    if (rv == BNS_OK && m->name[0] != 0)
        rv = bns_pb_put_bytes(out, 2, bns_slice_str(m->name));
    for (size_t i = 0; rv == BNS_OK && i < m->peer_urls.count; i++)
        rv = bns_pb_put_bytes(out, 3, bns_slice_str(m->peer_urls.url[i]));
    return rv == BNS_OK ? bns_pb_put_u64(out, 5, m->learner ? 1 : 0) : rv;
}

static int put_member(uint32_t field, const struct etcd_roster_member *m, struct bns_buf *out)
{
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, out->alloc, ANSWER_MAX);
    rv = put_urls(m, &b);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes_always(out, field, bns_buf_slice(&b));
    bns_buf_free(&b);
    return rv;
}

/* Who belongs to the cluster, as the flags of its first members have it, into the log. */
static void say_members(struct etcd_server *s)
{
    struct bns_rcbuf *entry = NULL;
    struct etcd_roster r;
    struct bns_buf b;
    int rv = BNS_OK;

    etcd_roster_read(s, &r);
    bns_buf_init(&b, s->env->alloc, ANSWER_MAX);
    for (size_t i = 0; rv == BNS_OK && i < r.count; i++)
        rv = put_member(1, &r.member[i], &b);
    if (rv == BNS_OK)
        entry = etcd_internal_encode(s->env->alloc, etcd_request_id(s), ETCD_OP_MEMBERS,
                                     bns_buf_slice(&b));
    if (entry == NULL || bns_raft_node_propose(s->node, entry) != BNS_OK)
        BNS_LOG(s->env->log, BNS_LOG_DEBUG, "etcd", "members not told to the log: tried again");
    bns_rcbuf_put(entry);
    bns_buf_free(&b);
}

static int propose_update(struct etcd_change *c)
{
    struct bns_rcbuf *entry = NULL;
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, c->s->env->alloc, ANSWER_MAX);
    rv = put_urls(&c->m, &b);
    if (rv == BNS_OK)
        entry = etcd_internal_encode(c->s->env->alloc, c->wait.id, ETCD_OP_MEMBER_UPDATE,
                                     bns_buf_slice(&b));
    if (entry != NULL)
        rv = bns_raft_node_propose(c->s->node, entry);
    else
        rv = BNS_E_NOMEM;
    bns_rcbuf_put(entry);
    bns_buf_free(&b);
    return rv;
}

static struct etcd_status status_of(int code)
{
    switch (code) {
    case BNS_E_EXISTS:
        return id_exists;
    case BNS_E_NOTFOUND:
        return no_member;
    case BNS_E_INVALID:
    case BNS_E_TOOBIG:
        return few_started;
    case BNS_E_NOSPACE:
        return no_space;
    case BNS_E_SHUTDOWN:
        return stopped;
    default:
        return busy;
    }
}

/* Not done, and may be tried again; or surely never to be done; or nobody knows. */
static void fail(struct etcd_change *c, int code)
{
    unwait(c);
    c->proposed = code == BNS_E_DROPPED || code == BNS_E_TIMEOUT;
    if (c->proposed)
        refuse(c, timed_out);
    else if (code == BNS_E_BUSY || code == BNS_E_NOTLEADER)
        later(c);
    else
        refuse(c, status_of(code));
}

/* It is in the log, and maybe applied already; or it is not. */
static void on_change(void *arg, int code)
{
    struct etcd_change *c = arg;

    c->asking = false;
    if (c->s->stopping_asks && !c->applied)
        refuse(c, code == BNS_OK ? timed_out : stopped); /* no apply comes any more */
    else if (c->applied)
        succeed(c);
    else if (code != BNS_OK)
        fail(c, code);
}

static int propose_change(struct etcd_change *c)
{
    static const enum bns_raft_change_kind kinds[] = {
        [ETCD_CHANGE_ADD] = BNS_RAFT_ADD_VOTER,
        [ETCD_CHANGE_ADD_LEARNER] = BNS_RAFT_ADD_LEARNER,
        [ETCD_CHANGE_PROMOTE] = BNS_RAFT_PROMOTE,
        [ETCD_CHANGE_REMOVE] = BNS_RAFT_REMOVE,
    };
    struct bns_raft_change change = {kinds[c->kind], c->m.id};
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, c->s->env->alloc, BNS_RAFT_CONTEXT_BYTES_MAX);
    rv = bns_pb_put_u64(&b, 1, c->wait.id);
    if (rv == BNS_OK && c->kind != ETCD_CHANGE_REMOVE)
        rv = put_member(2, &c->m, &b);
    if (rv == BNS_OK)
        rv = bns_raft_node_change(c->s->node, &change, 1, bns_buf_slice(&b), on_change, c);
    c->asking = rv == BNS_OK;
    bns_buf_free(&b);
    return rv;
}

static void propose(struct etcd_change *c)
{
    struct etcd_server *s = c->s;
    const struct etcd_roster_member *is;
    struct etcd_roster r;
    int rv;

    etcd_roster_read(s, &r);
    is = etcd_roster_find(&r, c->m.id);
    if (is != NULL && c->kind == ETCD_CHANGE_UPDATE) { /* all but its URLs stays */
        c->m.learner = is->learner;
        memcpy(c->m.name, is->name, sizeof c->m.name);
    } else if (is != NULL) {
        c->m = *is;
    }
    c->wait.id = etcd_request_id(s);
    c->wait.fn = applied;
    rv = etcd_kv_wait(s->kv, &c->wait);
    c->waiting = rv == BNS_OK;
    s->changes_waiting += c->waiting;
    if (rv == BNS_OK)
        rv = c->kind == ETCD_CHANGE_UPDATE ? propose_update(c) : propose_change(c);
    c->proposed = rv == BNS_OK;
    if (rv != BNS_OK)
        fail(c, rv);
}

/* etcd's way: peer URLs in order, the token, the second it happens in. */
static int choose_id(struct etcd_change *c)
{
    struct bns_slice parts[ETCD_URLS_MAX + 2];
    uint8_t digest[BNS_SHA1_BYTES];
    char second[24];
    size_t n = 0;

    for (size_t u = 0; u < c->m.peer_urls.count; u++)
        parts[n++] = bns_slice_str(c->m.peer_urls.url[u]);
    parts[n++] = bns_slice_str(c->s->opt->initial_cluster_token);
    (void)snprintf(second, sizeof second, "%" PRId64, bns_wall_ms(c->s->env) / 1000); /* fits */
    parts[n++] = bns_slice_str(second);
    if (bns_sha1(parts, n, digest) != BNS_OK)
        return BNS_E_INTERNAL;
    c->m.id = bns_get_u64be(digest);
    return BNS_OK;
}

static void lead(struct etcd_change *c)
{
    bool adds = c->kind == ETCD_CHANGE_ADD || c->kind == ETCD_CHANGE_ADD_LEARNER;
    struct etcd_status why;

    if (c->s->changes_waiting > 0) { /* the checks must see what it has done */
        later(c);
        return;
    }
    if (!etcd_kv_members_known(c->s->kv)) {
        say_members(c->s);
        later(c);
        return;
    }
    if (adds && c->m.id == 0 && choose_id(c) != BNS_OK) {
        refuse(c, busy);
        return;
    }
    why = etcd_cluster_check(c->s, c->kind, &c->m);
    if (why.code != 0)
        refuse(c, why);
    else
        propose(c);
}

/* ---- elsewhere ------------------------------------------------------------------------------ */

/* Between members: {1: kind, 2: id, 3: peer URLs} -> {1: status, 2: text, 3: body}. */
static int encode(const struct etcd_change *c, struct bns_buf *b)
{
    int rv = bns_pb_put_u64(b, 1, (uint64_t)c->kind);

    if (rv == BNS_OK)
        rv = bns_pb_put_u64(b, 2, c->m.id);
    for (size_t i = 0; rv == BNS_OK && i < c->m.peer_urls.count; i++)
        rv = bns_pb_put_bytes(b, 3, bns_slice_str(c->m.peer_urls.url[i]));
    return rv;
}

/* The texts that a leader of ours may answer: a text of its bytes would not outlive the call. */
static struct etcd_status known_status(uint64_t code, struct bns_slice text)
{
    const struct etcd_status all[] = {stopped,     timed_out,  no_leader,  unhealthy, no_member,
                                      id_exists,   urls_exist, no_learner, not_ready, many_learners,
                                      few_started, busy,       no_space};

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if ((uint64_t)all[i].code == code && bns_slice_eq(bns_slice_str(all[i].text), text))
            return all[i];
    }
    return (struct etcd_status){2, "etcdserver: the leader refused"};
}

static void on_answer(void *arg, int code, struct bns_slice payload)
{
    struct etcd_change *c = arg;
    struct bns_slice text = {0}, body = {0};
    struct bns_pb_field f = {0};
    uint64_t status = 0;

    c->asking = c->sent = false;
    if (code == BNS_E_NOTLEADER || code == BNS_E_SHUTDOWN || code == BNS_E_FORBIDDEN) {
        c->proposed = false; /* surely not done */
        later(c);
        return;
    }
    while (code == BNS_OK && payload.len > 0) {
        code = bns_pb_next(&payload, &f);
        if (code == BNS_OK && f.id == 1)
            status = f.u64;
        else if (code == BNS_OK && f.id == 2)
            text = f.bytes;
        else if (code == BNS_OK && f.id == 3)
            body = f.bytes;
    }
    if (code == BNS_OK && status == 0)
        finish(c, ok, body);
    else if (code == BNS_OK)
        refuse(c, known_status(status, text));
    else
        refuse(c, c->s->stopping_asks ? stopped : timed_out); /* it may have been done */
}

static void send_on(struct etcd_change *c)
{
    struct bns_rpc_call_options o = {
        .method = ETCD_METHOD_CHANGE, .deadline_ns = c->deadline_ns, .done = on_answer, .arg = c};
    struct bns_buf b;
    int rv;

    if (bns_raft_node_peer_since(c->s->node, c->s->leader) == 0) {
        later(c); /* it would wait for one that has died */
        return;
    }
    bns_buf_init(&b, c->s->env->alloc, 8192);
    rv = encode(c, &b);
    if (rv == BNS_OK)
        rv = bns_raft_node_call(c->s->node, c->s->leader, &o, bns_buf_slice(&b));
    bns_buf_free(&b);
    c->proposed = c->asking = c->sent = rv == BNS_OK;
    if (rv != BNS_OK)
        later(c);
}

static void try_now(struct etcd_change *c)
{
    struct etcd_server *s = c->s;

    c->retrying = false;
    if (s->stopping_asks)
        refuse(c, stopped);
    else if (s->leader == s->member_id)
        lead(c);
    else if (c->from != NULL) /* the asker finds who leads */
        refuse(c, no_leader);
    else if (s->leader != 0)
        send_on(c);
    else
        later(c);
}

/* ---- all of them ---------------------------------------------------------------------------- */

void etcd_change(struct etcd_server *s, struct etcd_change *c)
{
    c->s = s;
    c->deadline_ns = bns_now_ns(s->env) + s->op_timeout_ns;
    bns_list_init(&c->node);
    s->changes_count++;
    if (s->changes_count > CHANGES_MAX) {
        refuse(c, busy);
        return;
    }
    bns_list_push(&s->changes, &c->node);
    try_now(c);
    tick_soon(s);
}

static void on_tick(void *arg)
{
    struct etcd_server *s = arg;
    uint64_t now = bns_now_ns(s->env);
    struct bns_list again, *it;

    bns_list_init(&again);
    bns_list_splice(&again, &s->changes);
    while ((it = bns_list_pop(&again)) != NULL) {
        struct etcd_change *c = BNS_CONTAINER(it, struct etcd_change, node);

        bns_list_push(&s->changes, &c->node);
        if (c->asking && (c->sent || now < c->deadline_ns))
            continue;
        if (c->asking) /* it waits for others, or for a leader to tell what became of it */
            bns_raft_node_change_forget(s->node, c);
        c->asking = false;
        if (c->applied)
            succeed(c);
        else if (c->deadline_ns <= now)
            refuse(c, c->proposed || s->leader != 0 ? timed_out : no_leader);
        else if (c->retrying)
            try_now(c);
    }
    tick_soon(s);
}

/* ---- asked by another member ---------------------------------------------------------------- */

static void reply(struct etcd_change *c, struct etcd_status status, struct bns_slice body)
{
    const struct bns_alloc *alloc = c->s->env->alloc;
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, alloc, 2 * ANSWER_MAX);
    rv = bns_pb_put_u64(&b, 1, (uint64_t)status.code);
    if (rv == BNS_OK && status.text != NULL)
        rv = bns_pb_put_bytes(&b, 2, bns_slice_str(status.text));
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes(&b, 3, body);
    if (rv == BNS_OK && (status.code != no_leader.code || status.text != no_leader.text))
        bns_rpc_reply(c->from, BNS_OK, bns_buf_slice(&b));
    else
        bns_rpc_reply(c->from, rv == BNS_OK ? BNS_E_NOTLEADER : rv, bns_slice(NULL, 0));
    bns_buf_free(&b);
    bns_free(alloc, c);
}

static int decode(struct etcd_change *c, struct bns_slice payload)
{
    struct bns_pb_field f = {0};
    uint64_t kind = 0;

    while (payload.len > 0) {
        int rv = bns_pb_next(&payload, &f);
        struct etcd_urls *urls = &c->m.peer_urls;

        if (rv != BNS_OK)
            return rv;
        if (f.id == 1 && f.wire == 0)
            kind = f.u64;
        else if (f.id == 2 && f.wire == 0)
            c->m.id = f.u64;
        if (f.id != 3)
            continue;
        if (f.wire != 2 || f.bytes.len >= ETCD_URL_MAX || urls->count == ETCD_URLS_MAX)
            return BNS_E_PROTO;
        memcpy(urls->url[urls->count++], f.bytes.ptr, f.bytes.len);
    }
    c->kind = (enum etcd_change_kind)kind;
    return kind >= ETCD_CHANGE_ADD && kind <= ETCD_CHANGE_UPDATE ? BNS_OK : BNS_E_PROTO;
}

/* Adding and updating need URLs that can be dialled; the asker has made sure, if it is ours. */
static bool is_sound(const struct etcd_change *c)
{
    bool needs = c->kind == ETCD_CHANGE_ADD || c->kind == ETCD_CHANGE_ADD_LEARNER ||
                 c->kind == ETCD_CHANGE_UPDATE;
    struct bns_raft_peer_addr addr;

    return !needs || (c->m.peer_urls.count > 0 &&
                      etcd_peer_addr(c->m.id, &c->m.peer_urls, &addr, NULL) == BNS_OK);
}

void etcd_change_request(struct etcd_server *s, struct bns_rpc_request *r, struct bns_slice payload)
{
    struct etcd_change *c = bns_alloc_zero(s->env->alloc, sizeof *c);

    if (c == NULL || decode(c, payload) != BNS_OK || !is_sound(c)) {
        bns_rpc_reply(r, c == NULL ? BNS_E_NOMEM : BNS_E_PROTO, bns_slice(NULL, 0));
        bns_free(s->env->alloc, c);
        return;
    }
    c->from = r;
    c->done = reply;
    etcd_change(s, c);
}

/* ---- start and stop ------------------------------------------------------------------------- */

void etcd_cluster_init(struct etcd_server *s)
{
    bns_list_init(&s->changes);
    bns_timer_init(&s->changes_timer, on_tick, s);
}

void etcd_cluster_role(struct etcd_server *s)
{
    if (s->stopping || s->node == NULL)
        return;
    if (!bns_list_empty(&s->changes)) /* in a turn of its own: the core is being drained */
        bns_timer_start(s->env, &s->changes_timer, bns_now_ns(s->env));
}

void etcd_cluster_stop(struct etcd_server *s)
{
    struct bns_list *it;

    bns_timer_stop(s->env, &s->changes_timer);
    while ((it = bns_list_pop(&s->changes)) != NULL) {
        struct etcd_change *c = BNS_CONTAINER(it, struct etcd_change, node);

        if (c->asking)
            bns_list_init(&c->node); /* the closing node answers */
        else
            refuse(c, stopped);
    }
}

/* ---- who is dialled ------------------------------------------------------------------------- */

/* Connections to those who belong no more. */
static void forget(struct etcd_server *s)
{
    const struct etcd_bucket_row *row = NULL;

    while ((row = etcd_bucket_next(s->kv, ETCD_BUCKET_REMOVED, row)) != NULL)
        bns_raft_node_peer_remove(s->node, bns_get_u64be(etcd_bucket_key(row).ptr));
}

void etcd_cluster_sync(struct etcd_server *s)
{
    struct etcd_roster r;

    etcd_roster_read(s, &r);
    for (size_t i = 0; i < r.count && s->node != NULL; i++) {
        struct bns_raft_peer_addr addr;
        struct bns_err err = {0};
        int rv = etcd_peer_addr(r.member[i].id, &r.member[i].peer_urls, &addr, &err);

        if (rv == BNS_OK)
            rv = bns_raft_node_peer_set(s->node, &addr);
        if (rv != BNS_OK)
            BNS_LOG(s->env->log, BNS_LOG_WARN, "etcd", "a member cannot be dialled",
                    BNS_HEX("member", r.member[i].id), BNS_STR("code", bns_err_name(rv)),
                    BNS_STR("error", err.text));
    }
    if (s->node != NULL)
        forget(s);
}
