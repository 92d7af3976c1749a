/* min_revision.c - read your own writes on any member, without asking the leader.
 *
 * A serializable read answers from what this member has applied, which may be older than what the
 * client has seen elsewhere. The revision in every answer's header says what the client has seen:
 * that is the token of its session. Sent along as metadata,
 *
 *     bonsai-min-revision: N        (decimal; JSON: Grpc-Metadata-Bonsai-Min-Revision)
 *
 * a serializable Range, or a transaction that only reads serializably, is answered by a state at
 * revision N or later: it waits here until this member has applied N. Revisions are applied in
 * order on every member, so a state at N has every write up to N. A client that sends the highest
 * revision it was ever told reads its own writes, and never goes back in time, whichever members
 * it talks to. No member asks another one for it.
 *
 * Requests that are linearizable, or write, ignore the number: they see everything anyway. Every
 * answer to a request with this metadata also has the trailer `bonsai-revision`: the number in its
 * header, for those who forward calls and do not read messages.
 *
 * A number that this member does not reach in the time of a request (5 s + two election timeouts,
 * or the call's own deadline) is answered UNAVAILABLE, so that clients go to another member. At
 * most WAITING_MAX reads wait; one whose client has gone leaves at once.
 *
 * The waiting reads are a heap by revision. The store is told the lowest of them, so an apply costs
 * one comparison; it posts one turn of the loop, which starts what has become possible.
 */
#include <stdio.h>

#include "server.h"

#define WAITING_MAX 4096u

#define TEXT_BAD "etcdserver: " ETCD_MIN_REVISION " is not a revision"
#define TEXT_BUSY "etcdserver: too many requests"

static void await_next(struct etcd_server *s);

/* ---- the metadata --------------------------------------------------------------------------- */

/* Digits alone, and no more than an int64_t holds. */
static bool parse(struct bns_slice text, int64_t *out)
{
    int64_t v = 0;

    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];

        if (c < '0' || c > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (int64_t)(c - '0'), &v))
            return false;
    }
    *out = v;
    return text.len > 0;
}

size_t etcd_task_token(const struct etcd_task *t, int64_t revision, char text[ETCD_TOKEN_TEXT],
                       struct bns_grpc_md *out)
{
    struct bns_slice v;
    int len;

    if (!bns_grpc_metadata(t->call, ETCD_MIN_REVISION, &v))
        return 0;
    len = snprintf(text, ETCD_TOKEN_TEXT, "%lld", (long long)revision); /* fits */
    *out = (struct bns_grpc_md){BNS_LIT("bonsai-revision"), bns_slice(text, (size_t)len)};
    return 1;
}

/* ---- waiting -------------------------------------------------------------------------------- */

/* A turn of the loop of its own: the apply that brought the revision is over. */
static void reached(struct bns_task *task)
{
    struct etcd_server *s = BNS_CONTAINER(task, struct etcd_server, min_revision.task);
    uint64_t now = (uint64_t)etcd_kv_revision(s->kv);
    struct bns_heap_node *n;

    s->min_revision.posted = false;
    while ((n = bns_heap_min(&s->min_revision.waiting)) != NULL && n->key <= now) {
        struct etcd_task *t = BNS_CONTAINER(n, struct etcd_task, behind);

        bns_heap_del(&s->min_revision.waiting, n);
        t->then(t);
    }
    await_next(s);
}

static void post(void *arg)
{
    struct etcd_server *s = arg;

    if (s->min_revision.posted)
        return;
    s->min_revision.posted = true;
    bns_post(s->env, &s->min_revision.task);
}

static void await_next(struct etcd_server *s)
{
    const struct bns_heap_node *n = bns_heap_min(&s->min_revision.waiting);

    etcd_kv_await(s->kv, n == NULL ? INT64_MAX : (int64_t)n->key, post, s);
}

void etcd_task_at_least(struct etcd_task *t, void (*then)(struct etcd_task *t))
{
    struct etcd_server *s = t->s;
    struct etcd_status st = {0};
    struct bns_slice text;
    int64_t least = 0;

    if (!bns_grpc_metadata(t->call, ETCD_MIN_REVISION, &text)) {
        then(t);
        return;
    }
    if (!parse(text, &least)) {
        etcd_task_fail(t, BNS_GRPC_INVALID_ARGUMENT, TEXT_BAD);
        return;
    }
    if (least <= etcd_kv_revision(s->kv) || BNS_MUTANT(s->env, ETCD_MUTANT_TOKEN_IGNORED)) {
        then(t);
        return;
    }
    if (!etcd_auth_someone(s->kv, &t->who, &st)) { /* nobody takes no place */
        etcd_task_fail(t, st.code, st.text);
        return;
    }
    if (s->min_revision.waiting.count >= WAITING_MAX ||
        bns_heap_insert(&s->min_revision.waiting, &t->behind, (uint64_t)least) != BNS_OK) {
        etcd_task_fail(t, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_BUSY);
        return;
    }
    bns_counter_add(s->min_revision.m_waits, 1);
    t->then = then;
    bns_grpc_set_ctx(t->call, t);
    etcd_task_enlist(t);
    await_next(s);
}

bool etcd_task_is_behind(const struct etcd_task *t)
{
    return t->behind.pos != 0;
}

void etcd_task_unwait_revision(struct etcd_task *t)
{
    bns_heap_del(&t->s->min_revision.waiting, &t->behind);
}

void etcd_task_gone(struct bns_grpc_call *c, enum bns_grpc_end why)
{
    struct etcd_task *t = bns_grpc_ctx(c);

    (void)why; /* whatever it was, nobody waits for an answer */
    if (t == NULL || !etcd_task_is_behind(t))
        return;
    etcd_task_drop(t);
    bns_grpc_finish(c, BNS_GRPC_CANCELLED, "", NULL, 0);
}

/* ---- birth and end -------------------------------------------------------------------------- */

void etcd_min_revision_init(struct etcd_server *s)
{
    bns_heap_init(&s->min_revision.waiting, s->env->alloc);
    s->min_revision.task.fn = reached;
    s->min_revision.m_waits =
        bns_counter(s->env->metrics, "bns_min_revision_waits_total", NULL,
                    "Serializable reads that waited for a revision their client had seen.");
}

void etcd_min_revision_free(struct etcd_server *s)
{
    bns_heap_free(&s->min_revision.waiting);
}
