/* disk_pool.c - jobs in any order, on two threads a loop.
 *
 * The threads are made at the first job, so a daemon that reads no cold file pays nothing for them.
 * A job that blocks on a disk holds up one other at most; what must be ordered has a worker.
 */
#include "io/loop.h"

void bns_disk_pool_submit(struct bns_env *env, struct bns_job *j)
{
    struct bns_env_uv *e = bns_uv(env);

    BNS_ASSERT(j->run != NULL);
    if (e->pool == NULL && bns_workers_new(env, "pool", NULL, NULL, &e->pool) != BNS_OK) {
        bns_fatal(env, 1, "cannot start the threads of the disk pool");
        return;
    }
    bns_workers_submit(e->pool, j);
}
