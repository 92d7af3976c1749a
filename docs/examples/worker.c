/* worker.c - an example of common/client/etcd: workers that know each other, one of which leads.
 *
 *     build/release/bin/example_worker NAME [JOBS]        endpoint: ETCDCTL_ENDPOINTS
 *
 * Each registers its NAME under example/workers/, and hears who else is there. Each runs for
 * leader, with a lease of its own. The leader does JOBS jobs (3), resigns, and all of it ends.
 *
 * A job is an effect that only a leader may have. Who leads may have been asleep for longer than
 * its lease lives and not know it; so each job is a transaction which says "if the key of my
 * leadership still is the one that was created at my token". What comes too late changes nothing
 * (docs/concepts/locks.md). The effect lies in etcd itself here; docs/examples/fencing.py is a
 * resource elsewhere.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/etcd/lease.h"
#include "client/etcd/lock.h"
#include "client/etcd/peers.h"
#include "io/env_uv.h"

#define PREFIX "example/workers/"

struct worker {
    const char *name;
    unsigned jobs, done;
    struct bns_env *env;
    struct bns_etcd *etcd;
    struct bns_etcd_member *member;
    struct bns_etcd_peers *peers;
    struct bns_etcd_lease *lease;
    struct bns_etcd_lock *lock;
    struct bns_task last;
    int64_t token, lease_id;
    bool seen; /* by itself, among the peers */
    int code;
    bool ending;
};

/* Once: what comes while all is closed changes nothing any more. */
static void over(struct worker *w, int code)
{
    if (w->ending)
        return;
    w->ending = true;
    w->code = code;
    bns_env_uv_stop(w->env);
}

static void stand(struct worker *w);

/* ---- who is there ---------------------------------------------------------------------------- */

static void on_up(void *arg, int64_t revision)
{
    (void)printf("%s: registered at revision %" PRId64 "\n", ((struct worker *)arg)->name,
                 revision);
}

static void on_peer(void *arg, struct bns_slice name, struct bns_slice value, int64_t revision)
{
    (void)value;
    (void)revision;
    (void)printf("%s: sees %.*s\n", ((struct worker *)arg)->name, (int)name.len,
                 (const char *)name.ptr);
    if (bns_slice_eq(name, bns_slice_str(((struct worker *)arg)->name))) {
        ((struct worker *)arg)->seen = true;
        stand(arg);
    }
}

static void on_gone(void *arg, struct bns_slice name)
{
    (void)printf("%s: %.*s has gone\n", ((struct worker *)arg)->name, (int)name.len,
                 (const char *)name.ptr);
}

static void on_failed(void *arg, int status, const char *text)
{
    struct worker *w = arg;

    if (!w->ending)
        (void)fprintf(stderr, "%s: %d %s\n", w->name, status, text);
    over(w, 1);
}

/* ---- the leader's work ----------------------------------------------------------------------- */

static void resigned(void *arg, const struct bns_etcd_answer *a)
{
    struct worker *w = arg;

    if (w->ending)
        return;
    (void)printf("%s: resigned%s%s\n", w->name, a->status == 0 ? "" : ": ", a->text);
    over(w, 0);
}

static int next_job(struct worker *w);

static void job_done(void *arg, const struct bns_etcd_answer *a)
{
    struct worker *w = arg;
    const Etcdserverpb__TxnResponse *r = (const void *)a->msg;

    if (w->ending)
        return;
    if (a->status != 0) {
        on_failed(w, a->status, a->text); /* with a->unknown it may have been done */
        return;
    }
    if (!r->succeeded) {
        on_failed(w, BNS_GRPC_ABORTED, "leads no more: the job was refused");
        return;
    }
    (void)printf("%s: job %u done at revision %" PRId64 "\n", w->name, ++w->done,
                 r->header->revision);
    if (w->done < w->jobs) {
        if (next_job(w) != BNS_OK)
            on_failed(w, BNS_GRPC_RESOURCE_EXHAUSTED, "no memory");
        return;
    }
    bns_etcd_lock_close(w->lock, resigned, w);
    w->lock = NULL;
}

/* if create(key of the lock) = token: put example/job = who did it */
static int next_job(struct worker *w)
{
    Etcdserverpb__TxnRequest txn = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__Compare cmp = ETCDSERVERPB__COMPARE__INIT, *cmps[] = {&cmp};
    Etcdserverpb__RequestOp op = ETCDSERVERPB__REQUEST_OP__INIT, *ops[] = {&op};
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    const struct bns_etcd_call_options o = {.method = BNS_ETCD_TXN, .request = &txn.base};
    struct bns_slice key = bns_etcd_lock_key(w->lock), job = BNS_LIT("example/job"),
                     name = bns_slice_str(w->name);

    cmp.has_key = cmp.has_target = put.has_key = put.has_value = true;
    cmp.key = (ProtobufCBinaryData){key.len, (uint8_t *)(uintptr_t)key.ptr};
    cmp.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__CREATE;
    cmp.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION;
    cmp.create_revision = w->token;
    put.key = (ProtobufCBinaryData){job.len, (uint8_t *)(uintptr_t)job.ptr};
    put.value = (ProtobufCBinaryData){name.len, (uint8_t *)(uintptr_t)name.ptr};
    op.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    op.request_put = &put;
    txn.n_compare = txn.n_success = 1;
    txn.compare = cmps;
    txn.success = ops;
    return bns_etcd_call(w->etcd, &o, job_done, w, NULL);
}

static void on_held(void *arg, struct bns_slice key, int64_t token)
{
    struct worker *w = arg;

    (void)key;
    w->token = token;
    (void)printf("%s: leads, token %" PRId64 "\n", w->name, token);
    if (next_job(w) != BNS_OK)
        on_failed(w, BNS_GRPC_RESOURCE_EXHAUSTED, "no memory");
}

static void on_lock_lost(void *arg, int status, const char *text)
{
    ((struct worker *)arg)->lock = NULL;
    on_failed(arg, status, text);
}

static const struct bns_etcd_lock_handler leading = {on_held, on_lock_lost};

/* For leader, as soon as it has a lease and is to be seen. */
static void stand(struct worker *w)
{
    const struct bns_etcd_lock_options o = {.name = BNS_LIT("example/leader"),
                                            .value = bns_slice_str(w->name),
                                            .lease = w->lease_id,
                                            .handler = &leading,
                                            .arg = w};

    if (w->lease_id == 0 || !w->seen || w->ending)
        return;
    w->lease_id = 0; /* once */
    if (bns_etcd_lock_open(w->etcd, &o, &w->lock) != BNS_OK)
        on_failed(w, BNS_GRPC_RESOURCE_EXHAUSTED, "no memory");
}

static void on_granted(void *arg, int64_t id, int64_t ttl_s)
{
    struct worker *w = arg;

    (void)ttl_s;
    w->lease_id = id;
    stand(w);
}

static void on_lease_lost(void *arg, int status, const char *text)
{
    ((struct worker *)arg)->lease = NULL;
    on_failed(arg, status, text); /* stop at once: another one may lead */
}

static void on_peers_end(void *arg, int status, const char *text)
{
    ((struct worker *)arg)->peers = NULL;
    on_failed(arg, status, text);
}

/* ---- beginning and end ----------------------------------------------------------------------- */

static int begin(struct worker *w, struct bns_err *err)
{
    static const struct bns_etcd_member_handler registering = {on_up, NULL};
    static const struct bns_etcd_peers_handler viewing = {on_peer, on_gone, NULL, on_peers_end};
    static const struct bns_etcd_lease_handler leasing = {on_granted, NULL, on_lease_lost};
    const char *endpoint = getenv("ETCDCTL_ENDPOINTS");
    const char *const list[] = {endpoint == NULL ? "127.0.0.1:2379" : endpoint};
    const struct bns_etcd_options o = {.endpoints = list, .endpoints_count = 1};
    const struct bns_etcd_member_options mo = {.prefix = BNS_LIT(PREFIX),
                                               .name = bns_slice_str(w->name),
                                               .ttl_s = 5,
                                               .handler = &registering,
                                               .arg = w};
    const struct bns_etcd_lease_options lo = {.ttl_s = 5, .handler = &leasing, .arg = w};
    int rv = bns_env_uv_new(bns_alloc_libc(), NULL, &w->env, err);

    if (rv == BNS_OK)
        rv = bns_etcd_new(w->env, &o, &w->etcd, err);
    if (rv == BNS_OK)
        rv = bns_etcd_member_open(w->etcd, &mo, &w->member);
    if (rv == BNS_OK)
        rv = bns_etcd_peers_open(w->etcd, mo.prefix, &viewing, w, &w->peers);
    if (rv == BNS_OK)
        rv = bns_etcd_lease_open(w->etcd, &lo, &w->lease);
    return rv;
}

static void stop(struct bns_task *t)
{
    bns_env_uv_stop(BNS_CONTAINER(t, struct worker, last)->env);
}

static void gone(void *arg)
{
    struct worker *w = arg;

    bns_etcd_free(w->etcd);
    w->last.fn = stop; /* behind what the client has posted */
    bns_post(w->env, &w->last);
}

int main(int argc, char **argv)
{
    struct worker w = {.jobs = 3};
    struct bns_err err = {0};

    if (argc < 2 || argc > 3) {
        (void)fprintf(stderr, "usage: example_worker NAME [JOBS]\n");
        return 2;
    }
    w.name = argv[1];
    if (argc == 3)
        w.jobs = (unsigned)strtoul(argv[2], NULL, 10);
    if (w.jobs == 0) {
        (void)fprintf(stderr, "example_worker: JOBS is a number, 1 at least\n");
        return 2;
    }
    (void)setvbuf(stdout, NULL, _IOLBF, 0); /* each line as it happens; else it comes at the end */
    if (begin(&w, &err) == BNS_OK) {
        bns_env_uv_run(w.env);
    } else {
        (void)fprintf(stderr, "example_worker: %s\n", err.text);
        w.code = 1;
    }
    w.ending = true;
    bns_etcd_lock_close(w.lock, NULL, NULL);
    bns_etcd_lease_close(w.lease, true);
    bns_etcd_peers_close(w.peers);
    bns_etcd_member_close(w.member);
    if (w.etcd != NULL) {
        bns_etcd_drain(w.etcd, gone, &w); /* the others need not wait for the ends of the leases */
        bns_env_uv_run(w.env);
    }
    bns_env_uv_free(w.env);
    return w.code;
}
