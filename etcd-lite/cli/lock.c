/* lock.c - lock and elect: a lease that is kept alive, a key, and then a command, a signal, or the
 * loss of either. */
#include "cli.h"

#include <inttypes.h>
#include <signal.h>

#include "client/etcd/lease.h"
#include "client/etcd/lock.h"
#include "io/env_uv.h"

#define ELECT_TTL 60 /* seconds, as etcd's sessions */

struct session {
    struct ctl *c;
    struct bns_etcd_lease *lease;
    struct bns_etcd_lock *lock;
    struct bns_etcd_observe *observe;
    const char *name, *value;
    char **command; /* of lock; NULL: wait for a signal */
    struct bns_slice key;
    int64_t token;
    int code;
    bool held, over, released;
};

static void leave(struct session *s, int code)
{
    if (!s->over)
        s->code = code;
    s->over = true;
    bns_env_uv_stop(s->c->env);
}

static void on_signal(void *arg, int signo)
{
    (void)signo;
    leave(arg, CTL_OK);
}

static void on_held(void *arg, struct bns_slice key, int64_t token)
{
    struct session *s = arg;

    s->key = key;
    s->token = token;
    s->held = true;
    bns_env_uv_stop(s->c->env);
}

static void on_lock_lost(void *arg, int status, const char *text)
{
    struct session *s = arg;

    s->lock = NULL;
    leave(s, s->held ? ctl_fail(CTL_ERROR, "session expired") : ctl_reply_fail(s->c, status, text));
}

static void on_granted(void *arg, int64_t id, int64_t ttl)
{
    static const struct bns_etcd_lock_handler handler = {on_held, on_lock_lost};
    struct session *s = arg;
    const struct bns_etcd_lock_options o = {.name = bns_slice_str(s->name),
                                            .value = bns_slice_str(s->value),
                                            .lease = id,
                                            .handler = &handler,
                                            .arg = s};

    (void)ttl;
    if (bns_etcd_lock_open(s->c->etcd, &o, &s->lock) != BNS_OK)
        leave(s, ctl_fail(CTL_ERROR, "the name is too long, or out of memory"));
}

static void on_lease_lost(void *arg, int status, const char *text)
{
    struct session *s = arg;

    s->lease = NULL;
    leave(s, s->held ? ctl_fail(CTL_ERROR, "session expired") : ctl_reply_fail(s->c, status, text));
}

/* The key and its value as `get` prints them, in every format. */
static int print_key(struct session *s)
{
    Etcdserverpb__RangeRequest get = ETCDSERVERPB__RANGE_REQUEST__INIT;
    Etcdserverpb__RangeResponse *r;
    int code;

    get.has_key = true;
    get.key = (ProtobufCBinaryData){s->key.len, (uint8_t *)(uintptr_t)s->key.ptr};
    code = ctl_ask(s->c, BNS_ETCD_RANGE, &get.base, &r);
    if (code != CTL_OK)
        return code;
    if (r->n_kvs == 0 && s->c->out == CTL_SIMPLE)
        return ctl_fail(CTL_ERROR, "no lock found");
    ctl_out_range(s->c, r);
    (void)fflush(stdout); /* who waits for the lock sees it now */
    return CTL_OK;
}

static void on_released(void *arg, const struct bns_etcd_answer *a)
{
    struct session *s = arg;

    (void)a; /* if it failed, the lease's end does it */
    s->released = true;
    bns_env_uv_stop(s->c->env);
}

/* Gives the lock back, then the lease. */
static void end_session(struct session *s)
{
    if (s->lock != NULL) {
        bns_etcd_lock_close(s->lock, on_released, s); /* on_released surely comes, once */
        s->lock = NULL;
        while (!s->released)
            bns_env_uv_run(s->c->env); /* others stop it, too; the timeouts of two calls at most */
    }
    if (s->lease != NULL) {
        Etcdserverpb__LeaseRevokeRequest req = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
        struct ctl_reply r;

        req.has_id = true;
        req.id = bns_etcd_lease_id(s->lease);
        bns_etcd_lease_close(s->lease, false);
        s->lease = NULL;
        r = ctl_ask_at(s->c, s->c->etcd, BNS_ETCD_LEASE_REVOKE, &req.base);
        (void)r; /* if it failed, it runs out */
    }
}

/* Waits until it is held; CTL_OK, or the exit code. */
static int begin_session(struct session *s, int64_t ttl)
{
    static const struct bns_etcd_lease_handler handler = {on_granted, NULL, on_lease_lost};
    const struct bns_etcd_lease_options o = {.ttl_s = ttl, .handler = &handler, .arg = s};
    struct ctl *c = s->c;
    int code = ctl_format(c, false);

    if (code == CTL_OK)
        code = ctl_connect(c);
    if (code != CTL_OK)
        return code;
    if (bns_env_uv_signal(c->env, SIGINT, on_signal, s) != BNS_OK ||
        bns_env_uv_signal(c->env, SIGTERM, on_signal, s) != BNS_OK ||
        bns_etcd_lease_open(c->etcd, &o, &s->lease) != BNS_OK)
        return ctl_fail(CTL_ERROR, "out of memory");
    bns_env_uv_run(c->env);
    return CTL_OK;
}

int ctl_lock(struct ctl *c, int argc, char **argv)
{
    static struct session s; /* signals may come until the process ends */
    int code;

    s = (struct session){.c = c, .value = ""};
    if (argc == 0)
        return ctl_fail(CTL_ARGS,
                        "lock takes a lock name argument and an optional command to execute");
    s.name = argv[0];
    s.command = argc > 1 ? argv + 1 : NULL;
    code = begin_session(&s, c->f.ttl);
    if (code != CTL_OK)
        return code;
    if (s.held && !s.over && s.command != NULL) {
        char *const more[] = {
            ctl_print(c, "ETCD_LOCK_KEY=%.*s", (int)s.key.len, (const char *)s.key.ptr),
            ctl_print(c, "ETCD_LOCK_REV=%" PRId64, s.token), NULL};
        int status = ctl_run_kept(c, s.command, more);

        s.code =
            status == 0 ? CTL_OK : ctl_fail(CTL_ERROR, "%s", ctl_run_text(c, s.command, status));
    } else if (s.held && !s.over) {
        s.code = print_key(&s);
        if (s.code == CTL_OK && !s.over)
            bns_env_uv_run(c->env);
    }
    end_session(&s);
    return s.code;
}

/* ---- elect ----------------------------------------------------------------------------------- */

static void on_leader(void *arg, const Etcdserverpb__KeyValue *kv)
{
    struct session *s = arg;
    Etcdserverpb__RangeResponse r = ETCDSERVERPB__RANGE_RESPONSE__INIT;
    Etcdserverpb__KeyValue *kvs[] = {(Etcdserverpb__KeyValue *)(uintptr_t)kv};

    r.n_kvs = 1;
    r.kvs = kvs;
    r.count = 1;
    ctl_out_range(s->c, &r);
    (void)fflush(stdout); /* who reads along sees each one */
}

static void on_observe_end(void *arg, int status, const char *text)
{
    struct session *s = arg;

    s->observe = NULL;
    leave(s, ctl_reply_fail(s->c, status, text));
}

static int listen_to(struct session *s)
{
    static const struct bns_etcd_observe_handler handler = {on_leader, NULL, on_observe_end};
    struct ctl *c = s->c;
    int code = ctl_format(c, false);

    if (code == CTL_OK)
        code = ctl_connect(c);
    if (code != CTL_OK)
        return code;
    if (bns_env_uv_signal(c->env, SIGINT, on_signal, s) != BNS_OK ||
        bns_env_uv_signal(c->env, SIGTERM, on_signal, s) != BNS_OK ||
        bns_etcd_observe_open(c->etcd, bns_slice_str(s->name), &handler, s, &s->observe) != BNS_OK)
        return ctl_fail(CTL_ERROR, "the name is too long, or out of memory");
    bns_env_uv_run(c->env);
    bns_etcd_observe_close(s->observe);
    return s->code;
}

int ctl_elect(struct ctl *c, int argc, char **argv)
{
    static struct session s; /* signals may come until the process ends */
    int code;

    s = (struct session){.c = c, .value = ""};
    if (argc != 1 && argc != 2)
        return ctl_fail(CTL_ARGS, "elect takes one election name argument and an optional proposal "
                                  "argument");
    s.name = argv[0];
    if (argc == 2 && c->f.listen)
        return ctl_fail(CTL_ARGS, "proposal given but -l is set");
    if (argc == 1 && !c->f.listen)
        return ctl_fail(CTL_ARGS, "no proposal argument but -l not set");
    if (c->f.listen)
        return listen_to(&s);
    s.value = argv[1];
    code = begin_session(&s, ELECT_TTL);
    if (code != CTL_OK)
        return code;
    if (s.held && !s.over) {
        s.code = print_key(&s);
        if (s.code == CTL_OK && !s.over)
            bns_env_uv_run(c->env);
    }
    end_session(&s);
    return s.code;
}
