/* grpc_admit.c - whoever serves decides, per call, before the method's handler hears of it.
 *
 * The server's configuration may hold a function `admit`. It sees the call's path and metadata and
 * says: go on; refused, with a status; or not known yet. In the last case the call is held: it has
 * no started handler, takes no message, and is asked about again every HOLD_NS until the answer is
 * another one, or the client goes, or its deadline passes.
 *
 * Whoever is held has shown nothing yet, so places are not for the taking: one connection has at
 * most HELD_CONN_MAX, and when all BNS_GRPC_HELD_MAX are taken the call that is held longest is
 * told to come again. Who is held for a good reason is so for a moment only.
 */
#include "io/grpc_impl.h"
#include "io/grpc_local.h"

#define HOLD_NS (5 * BNS_MS)
#define HELD_CONN_MAX 64u

static void on_hold(void *arg);

void bns_grpc_hold_init(struct bns_grpc_server *s)
{
    bns_list_init(&s->held);
    bns_timer_init(&s->hold_timer, on_hold, s);
}

void bns_grpc_unhold(struct bns_grpc_call *c)
{
    if (!c->held)
        return;
    c->held = false;
    bns_list_del(&c->hold);
    if (c->server != NULL)
        c->server->held_count--;
}

static void turn_away(struct bns_grpc_call *c)
{
    bns_grpc_unhold(c);
    bns_grpc_call_fail(c, BNS_GRPC_UNAVAILABLE, "too many calls wait to be admitted",
                       BNS_GRPC_END_RESET);
}

/* One that came another way has no connection of its own, and is its only call there. */
static bool too_many_of_one(const struct bns_grpc_call *c)
{
    uint32_t n = 0;

    if (c->s.h == NULL)
        return false;
    BNS_LIST_EACH(it, &c->server->held)
    {
        n += BNS_CONTAINER(it, struct bns_grpc_call, hold)->s.h == c->s.h;
    }
    return n >= HELD_CONN_MAX;
}

static bool hold(struct bns_grpc_call *c)
{
    struct bns_grpc_server *s = c->server;

    if (c->held)
        return false;
    if (too_many_of_one(c)) {
        turn_away(c);
        return false;
    }
    if (s->held_count >= BNS_GRPC_HELD_MAX)
        turn_away(BNS_CONTAINER(s->held.next, struct bns_grpc_call, hold));
    c->held = true;
    bns_list_push(&s->held, &c->hold);
    if (s->held_count++ == 0)
        bns_timer_start(s->env, &s->hold_timer, bns_now_ns(s->env) + HOLD_NS);
    bns_grpc_read(c, false);
    return false;
}

bool bns_grpc_keep_message(struct bns_grpc_call *c, struct bns_slice msg)
{
    if (!c->held)
        return false;
    c->held_msg = bns_slice(
        bns_arena_dup(&c->arena, msg.len == 0 ? (const void *)"" : msg.ptr, msg.len), msg.len);
    if (c->held_msg.ptr == NULL)
        bns_grpc_call_fail(c, BNS_GRPC_RESOURCE_EXHAUSTED, "out of memory", BNS_GRPC_END_RESET);
    return true;
}

bool bns_grpc_keep_end(struct bns_grpc_call *c)
{
    if (c->held)
        c->held_eof = true;
    return c->held;
}

/* Its handler hears of the call at last; `depth` keeps it, whatever the handler does. */
static void begin(struct bns_grpc_call *c)
{
    c->depth++;
    bns_grpc_call_begin_handler(c);
    if (c->held_msg.ptr != NULL)
        bns_grpc_local_message(c, c->held_msg);
    if (c->held_eof)
        bns_grpc_local_half_close(c);
    bns_grpc_call_leave(c);
}

bool bns_grpc_admitted(struct bns_grpc_call *c)
{
    struct bns_grpc_server *s = c->server;
    struct bns_grpc_refusal why = {0};

    if (s == NULL || s->cfg.admit == NULL)
        return true;
    if (c->asked_ns == 0)
        c->asked_ns = bns_now_ns(s->env) + 1;
    switch (s->cfg.admit(s->cfg.arg, c, c->path, c->asked_ns - 1, &why)) {
    case BNS_GRPC_ADMIT:
        return true;
    case BNS_GRPC_HOLD:
        return hold(c);
    default:
        bns_grpc_unhold(c);
        bns_grpc_call_fail(c, why.status, why.text, BNS_GRPC_END_RESET);
        return false;
    }
}

static void on_hold(void *arg)
{
    struct bns_grpc_server *s = arg;
    struct bns_list now, *n;

    bns_list_init(&now);
    bns_list_splice(&now, &s->held);
    while ((n = bns_list_pop(&now)) != NULL) {
        struct bns_grpc_call *c = BNS_CONTAINER(n, struct bns_grpc_call, hold);

        bns_list_push(&s->held, n); /* still held: the next time */
        if (!bns_grpc_admitted(c))
            continue;
        bns_grpc_unhold(c);
        bns_grpc_read(c, true); /* what came meanwhile is delivered in a later turn */
        begin(c);
    }
    if (s->held_count > 0)
        bns_timer_start(s->env, &s->hold_timer, bns_now_ns(s->env) + HOLD_NS);
}
