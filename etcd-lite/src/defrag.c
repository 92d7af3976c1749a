/* defrag.c - Defragment: gives pages that compaction has freed back to the file system, while reads
 * and writes go on.
 *
 * The store's file is made with auto_vacuum=INCREMENTAL: a free page can be filled with the last
 * page of the file, which then ends one page earlier. A job of the store moves PAGES of them; the
 * jobs of applies and reads that queued meanwhile run before the next one. At the end a checkpoint
 * brings the WAL into the file and cuts it. Writes that free pages meanwhile make it a little
 * longer, so it ends after as many pages as were free at its beginning.
 *
 * Whoever asks while one is running is answered with it. A stop of the store ends it; what has been
 * moved stays moved.
 */
#include "kv_impl.h"

#define PAGES 32u /* about a millisecond of the store's worker */

static void step(struct etcd_kv *kv);

static void finish(struct etcd_kv *kv, struct etcd_status why)
{
    struct etcd_defrag *d = &kv->defrag;
    struct bns_list all, *n;

    d->running = false;
    bns_hist_observe(d->m_seconds, (double)(bns_now_ns(kv->env) - d->began_ns) / 1e9);
    bns_list_init(&all);
    bns_list_splice(&all, &d->waiting);
    while ((n = bns_list_pop(&all)) != NULL) {
        struct etcd_defrag_wait *w = BNS_CONTAINER(n, struct etcd_defrag_wait, node);

        w->done(w, why);
    }
    etcd_install_kick(kv);
}

static void stepped(struct etcd_store_job *j)
{
    struct etcd_defrag *d = BNS_CONTAINER(j, struct etcd_defrag, job);
    struct etcd_kv *kv = BNS_CONTAINER(d, struct etcd_kv, defrag);

    if (!etcd_kv_job_over(kv, j))
        return; /* the node is going down: nobody is answered */
    if (kv->stopping) {
        finish(kv, etcd_stopped);
        return;
    }
    if (j->kind == ETCD_STORE_CHECKPOINT) {
        finish(kv, etcd_ok);
        return;
    }
    d->moved += j->bytes;
    d->at_end = j->finished || kv->install.active || d->moved >= d->free_bytes;
    step(kv);
}

static void step(struct etcd_kv *kv)
{
    struct etcd_defrag *d = &kv->defrag;

    d->job = (struct etcd_store_job){.done = stepped, .len = PAGES};
    d->job.kind = d->at_end ? ETCD_STORE_CHECKPOINT : ETCD_STORE_VACUUM;
    etcd_kv_submit(kv, &d->job);
}

void etcd_kv_defrag(struct etcd_kv *kv, struct etcd_defrag_wait *w)
{
    struct etcd_defrag *d = &kv->defrag;

    if (kv->dead || kv->stopping || kv->install.active) {
        w->done(w, etcd_stopped);
        return;
    }
    bns_list_push(&d->waiting, &w->node);
    if (d->running)
        return;
    d->running = true;
    d->moved = 0;
    d->at_end = false;
    d->began_ns = bns_now_ns(kv->env);
    d->free_bytes = kv->db_bytes - kv->db_bytes_used;
    etcd_kv_flush(kv);
    step(kv);
}

void etcd_defrag_init(struct etcd_kv *kv)
{
    bns_list_init(&kv->defrag.waiting);
    if (kv->env->metrics != NULL)
        kv->defrag.m_seconds =
            bns_hist(kv->env->metrics, "etcd_disk_backend_defrag_duration_seconds", NULL,
                     "The latency distribution of backend defragmentation.");
}
