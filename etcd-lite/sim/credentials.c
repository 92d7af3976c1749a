/* credentials.c - the tokens of a client node: one of root, one of u.
 *
 * A client asks for a token when a call was refused for want of one, or with one that a member
 * does not know (those that were given before it started are void). Without auth tokens are looked
 * at by nobody. Once all has settled after the faults both are asked for anew, so that what must
 * succeed then does: `fresh`.
 */
#include "daemon_int.h"

#include "codec/pb.h"

#define TICK_NS (200 * BNS_MS)
#define CALL_NS (3 * BNS_SEC)

static const char *const names[] = {"root", "u"};

size_t sim_creds_md(const struct sim_client *o, bool user, struct bns_grpc_md *out)
{
    const struct sim_creds *c = &o->creds[user];

    if (!o->m->cfg->auth || c->token_len == 0)
        return 0;
    *out = (struct bns_grpc_md){BNS_LIT("token"), bns_slice(c->token, c->token_len)};
    return 1;
}

void sim_creds_use(struct sim_client *o, bool user, struct bns_grpc_call_options *opt)
{
    struct sim_creds *c = &o->creds[user];

    opt->md = &c->md;
    opt->md_count = sim_creds_md(o, user, &c->md);
}

void sim_creds_stale(struct sim_client *o, bool user)
{
    o->creds[user].stale = true;
}

bool sim_creds_fresh(const struct etcd_sim *m)
{
    for (unsigned i = 0; i < m->cfg->clients; i++) {
        for (unsigned k = 0; k < 2; k++) {
            if (m->clients[i].creds[k].got_ns < m->quiet_ns)
                return false;
        }
    }
    return m->quiet_ns != 0;
}

static void on_message(struct bns_grpc_ccall *call, struct bns_slice msg)
{
    struct sim_creds *c = bns_grpc_ccall_arg(call);
    const Etcdserverpb__AuthenticateResponse *r;
    ProtobufCMessage *out = NULL;
    struct bns_arena arena;

    bns_arena_init(&arena, bns_alloc_libc(), 65536);
    if (bns_pb_unpack(&etcdserverpb__authenticate_response__descriptor, msg, &arena, NULL, &out,
                      NULL) == BNS_OK) {
        r = (const Etcdserverpb__AuthenticateResponse *)(const void *)out;
        c->token_len = r->token == NULL ? 0 : strlen(r->token);
        if (c->token_len == 0 || c->token_len > sizeof c->token)
            sim_complain(c->owner->m, "a token of %zu bytes", c->token_len);
        else
            memcpy(c->token, r->token, c->token_len);
    } else {
        sim_complain(c->owner->m, "n%u answered Authenticate with bytes that are none", c->server);
    }
    bns_arena_free(&arena);
}

static void on_status(struct bns_grpc_ccall *call, int status, const char *text)
{
    struct sim_creds *c = bns_grpc_ccall_arg(call);
    bool off = status == BNS_GRPC_FAILED_PRECONDITION && strcmp(text, etcd_auth_off.text) == 0;

    c->busy = false;
    if (c->owner->m->phase == SIM_DONE || c->owner->m->failed)
        return;
    bns_world_note(c->owner->m->w, "token of %s: %d %s", names[c->user], status, text);
    if (status == BNS_GRPC_OK || off) {
        c->stale = false;
        c->got_ns = c->asked_ns;
    }
    if (status == BNS_GRPC_OK)
        c->owner->m->out->tokens++;
}

static const struct bns_grpc_client_handler handler = {.on_message = on_message,
                                                       .on_status = on_status};

static void ask(struct sim_creds *c)
{
    struct bns_env *env = c->owner->env;
    struct bns_grpc_call_options opt = {.path = "/etcdserverpb.Auth/Authenticate",
                                        .deadline_ns = bns_now_ns(env) + CALL_NS};
    Etcdserverpb__AuthenticateRequest r = ETCDSERVERPB__AUTHENTICATE_REQUEST__INIT;
    struct bns_arena arena;
    struct bns_slice req;

    c->busy = true;
    c->asked_ns = bns_world_now(c->owner->m->w);
    c->server = sim_pick(c->owner->m, &env->prng);
    r.name = r.password = (char *)(uintptr_t)names[c->user];
    bns_arena_init(&arena, bns_alloc_libc(), 4096);
    BNS_ASSERT(bns_pb_pack_arena(&r.base, &arena, &req) == BNS_OK);
    if (bns_grpc_unary(c->owner->grpc[c->server], &opt, req, &handler, c) != BNS_OK)
        sim_complain(c->owner->m, "the client has no memory");
    bns_arena_free(&arena);
}

static void turn(void *arg)
{
    struct sim_creds *c = arg;
    struct etcd_sim *m = c->owner->m;
    bool old = m->quiet_ns != 0 && c->got_ns < m->quiet_ns;

    if (m->phase >= SIM_STRICT || m->failed)
        return;
    if (!c->busy && (old || (c->stale && m->authority.on != SIM_NO)))
        ask(c);
    bns_timer_start(c->owner->env, &c->timer,
                    bns_now_ns(c->owner->env) + bns_prng_below(&c->owner->env->prng, TICK_NS));
}

void sim_creds_start(struct sim_client *o)
{
    for (unsigned k = 0; k < 2; k++) {
        struct sim_creds *c = &o->creds[k];

        c->owner = o;
        c->user = k == 1;
        bns_timer_init(&c->timer, turn, c);
        bns_timer_start(o->env, &c->timer, bns_now_ns(o->env) + BNS_SEC);
    }
}
