/* auth_hash.c - bcrypt by the system's libcrypt, on a worker: one hash takes 50 ms at cost 10.
 *
 * Format: "$2a$" cost "$" 22 letters of salt, 31 of hash, as Go writes and reads it. libcrypt gives
 * "$2a$" a twist against hashes of a bug that Go never had; its "$2b$" is the plain algorithm. So
 * the prefix is "$2b$" for the computation and "$2a$" in what is stored.
 *
 * A comparison takes the same time whichever byte differs. Passwords and scratch memory are wiped.
 */
#include "auth_hash.h"

#include <crypt.h>
#include <stdio.h>
#include <string.h>

static void wipe(void *p, size_t len)
{
    explicit_bzero(p, len);
}

static bool same(const char *a, const char *b, size_t len)
{
    uint8_t diff = 0;

    for (size_t i = 0; i < len; i++)
        diff |= (uint8_t)(a[i] ^ b[i]);
    return diff == 0;
}

/* Salt and cost as libcrypt wants them, of a new hash. */
static bool make_setting(const struct etcd_hash_job *j, char out[CRYPT_GENSALT_OUTPUT_SIZE])
{
    return crypt_gensalt_rn("$2b$", j->cost, (const char *)j->salt, (int)sizeof j->salt, out,
                            CRYPT_GENSALT_OUTPUT_SIZE) != NULL;
}

static void run(struct etcd_hash_job *j)
{
    char setting[CRYPT_GENSALT_OUTPUT_SIZE];
    const char *out = NULL;

    memset(setting, 0, sizeof setting);
    if (j->verify) {
        memcpy(setting, j->hash, sizeof j->hash);
        setting[2] = 'b';
        out = crypt_rn(j->password, setting, j->scratch, (int)sizeof *j->scratch);
    } else if (make_setting(j, setting)) {
        out = crypt_rn(j->password, setting, j->scratch, (int)sizeof *j->scratch);
    }
    if (out == NULL || strlen(out) != ETCD_HASH_LEN)
        return;
    if (j->verify) {
        j->ok = same(out + 4, j->hash + 4, ETCD_HASH_LEN - 4);
    } else {
        memcpy(j->hash, out, sizeof j->hash);
        j->hash[2] = 'a';
        j->ok = true;
    }
}

static void handle(void *arg, struct bns_list *jobs)
{
    (void)arg;
    BNS_LIST_EACH(n, jobs)
    {
        run(BNS_CONTAINER(n, struct etcd_hash_job, job.node));
    }
}

static void run_stopped(struct bns_task *t)
{
    struct etcd_hasher *h = BNS_CONTAINER(t, struct etcd_hasher, stop_task);

    h->stopped(h->stopped_arg);
}

static void on_done(struct bns_job *job)
{
    struct etcd_hash_job *j = BNS_CONTAINER(job, struct etcd_hash_job, job);
    struct etcd_hasher *h = j->hasher;

    wipe(j->password, sizeof j->password);
    wipe(j->scratch, sizeof *j->scratch);
    bns_free(h->env->alloc, j->scratch);
    j->scratch = NULL;
    BNS_ASSERT(h->jobs > 0);
    h->jobs--;
    j->done(j);
    if (h->jobs == 0 && h->stopped != NULL)
        bns_post(h->env, &h->stop_task);
}

static int submit(struct etcd_hasher *h, struct etcd_hash_job *j, struct bns_slice password)
{
    size_t len = password.len < ETCD_PASSWORD_BYTES ? password.len : ETCD_PASSWORD_BYTES;
    int rv = BNS_OK;

    if (h->stopped != NULL || h->jobs >= ETCD_HASH_WAITING_MAX)
        return BNS_E_BUSY;
    if (h->worker == NULL)
        rv = bns_worker_new(h->env, "auth", handle, h, &h->worker);
    if (rv != BNS_OK)
        return rv;
    j->scratch = bns_alloc_zero(h->env->alloc, sizeof *j->scratch);
    if (j->scratch == NULL)
        return BNS_E_NOMEM;
    memset(j->password, 0, sizeof j->password);
    if (len > 0)
        memcpy(j->password, password.ptr, len);
    j->hasher = h;
    j->ok = false;
    j->job = (struct bns_job){.done = on_done};
    bns_list_init(&j->job.node);
    h->jobs++;
    bns_worker_submit(h->env, h->worker, &j->job);
    return BNS_OK;
}

void etcd_hasher_init(struct etcd_hasher *h, struct bns_env *env)
{
    *h = (struct etcd_hasher){.env = env};
    h->stop_task.fn = run_stopped;
}

int etcd_hash_verify(struct etcd_hasher *h, struct etcd_hash_job *j, struct bns_slice password,
                     struct bns_slice hash)
{
    memset(j->hash, 0, sizeof j->hash);
    if (hash.len == ETCD_HASH_LEN) /* another length: no password fits */
        memcpy(j->hash, hash.ptr, hash.len);
    j->verify = true;
    return submit(h, j, password);
}

int etcd_hash_make(struct etcd_hasher *h, struct etcd_hash_job *j, struct bns_slice password,
                   uint32_t cost)
{
    int rv = password.len > ETCD_PASSWORD_BYTES ? BNS_E_TOOBIG
                                                : bns_entropy(h->env, j->salt, sizeof j->salt);

    if (rv != BNS_OK)
        return rv;
    j->verify = false;
    j->cost = cost;
    return submit(h, j, password);
}

void etcd_hasher_stop(struct etcd_hasher *h, void (*stopped)(void *arg), void *arg)
{
    h->stopped = stopped;
    h->stopped_arg = arg;
    if (h->jobs == 0)
        bns_post(h->env, &h->stop_task);
}

void etcd_hasher_free(struct etcd_hasher *h)
{
    if (h->worker != NULL)
        bns_worker_free(h->env, h->worker);
    h->worker = NULL;
}
