/* bolt_kv.c - see bolt_kv.h: one job of the store's worker after the other.
 *
 *   BACKUP_OPEN, BACKUP_STEP ... -> a copy
 *   BACKUP_BOLT ... -> the file
 *   BACKUP_BLOB ... -> its bytes, and the digest
 *
 * Every job is a slice; writes, reads and compactions get their turns between two of them.
 */
#include "bolt_kv.h"

#include "kv_impl.h"

#define MEMBERS_BYTES_MAX (1024u * 1024)

struct etcd_dump {
    struct etcd_store_job job;
    struct etcd_kv *kv;
    etcd_dump_done *done;
    void *arg;
    struct bns_buf members;
    uint64_t bytes, began_ns;
    bool busy, closing;
    uint8_t chunk[ETCD_DUMP_CHUNK];
};

static void dump_free(struct etcd_dump *d)
{
    bns_buf_free(&d->members);
    bns_free(d->kv->alloc, d);
}

static void closed(struct etcd_store_job *j)
{
    struct etcd_dump *d = BNS_CONTAINER(j, struct etcd_dump, job);
    struct etcd_kv *kv = d->kv;

    if (!etcd_kv_job_over(kv, j))
        j->code = BNS_E_OFF; /* freed in either case */
    dump_free(d);
}

static void close_now(struct etcd_dump *d)
{
    struct etcd_backup *b = d->job.backup;

    if (b == NULL) {
        dump_free(d);
        return;
    }
    etcd_kv_took(d->kv, d->kv->m_snapshot, d->began_ns);
    d->job = (struct etcd_store_job){.kind = ETCD_STORE_BACKUP_CLOSE, .done = closed, .backup = b};
    etcd_kv_submit(d->kv, &d->job);
}

static void submit(struct etcd_dump *d, enum etcd_store_kind kind)
{
    d->job.kind = kind;
    d->busy = true;
    if (kind == ETCD_STORE_BACKUP_OPEN || kind == ETCD_STORE_BACKUP_STEP)
        etcd_kv_flush(d->kv); /* the copy follows what is applied meanwhile */
    etcd_kv_submit(d->kv, &d->job);
}

static void stepped(struct etcd_store_job *j)
{
    struct etcd_dump *d = BNS_CONTAINER(j, struct etcd_dump, job);
    struct etcd_kv *kv = d->kv;
    struct bns_slice bytes = bns_slice(NULL, 0);

    if (!etcd_kv_job_over(kv, j))
        return;
    d->busy = false;
    if (d->closing) {
        close_now(d);
        return;
    }
    if (j->code == BNS_OK && kv->stopping)
        j->code = BNS_E_SHUTDOWN;
    if (j->code == BNS_OK && j->kind != ETCD_STORE_BACKUP_BLOB) {
        bool copied = j->kind == ETCD_STORE_BACKUP_STEP && j->finished;
        bool made = j->kind == ETCD_STORE_BACKUP_BOLT && j->finished;

        j->finished = false;
        if (!made) {
            submit(d, copied || j->kind == ETCD_STORE_BACKUP_BOLT ? ETCD_STORE_BACKUP_BOLT
                                                                  : ETCD_STORE_BACKUP_STEP);
            return;
        }
        d->bytes = j->bytes;
    } else if (j->code == BNS_OK) {
        bytes = bns_slice(d->chunk, j->len);
    }
    d->done(d->arg, j->code, bytes, j->code == BNS_OK ? "" : j->err.text);
}

int etcd_dump_open(struct etcd_kv *kv, struct bns_slice members, etcd_dump_done *done, void *arg,
                   struct etcd_dump **out)
{
    struct etcd_dump *d = bns_alloc_zero(kv->alloc, sizeof *d);

    if (d == NULL)
        return BNS_E_NOMEM;
    d->kv = kv;
    d->done = done;
    d->arg = arg;
    d->job.done = stepped;
    d->began_ns = bns_now_ns(kv->env);
    bns_buf_init(&d->members, kv->alloc, MEMBERS_BYTES_MAX);
    if (bns_buf_add(&d->members, members.ptr, members.len) != BNS_OK) {
        dump_free(d);
        return BNS_E_NOMEM;
    }
    d->job.members = bns_buf_slice(&d->members);
    *out = d;
    submit(d, ETCD_STORE_BACKUP_OPEN);
    return BNS_OK;
}

uint64_t etcd_dump_bytes(const struct etcd_dump *d)
{
    return d->bytes;
}

void etcd_dump_read(struct etcd_dump *d)
{
    BNS_ASSERT(!d->busy);
    BNS_ASSERT(!d->closing);
    d->job.buf = d->chunk;
    d->job.len = sizeof d->chunk;
    submit(d, ETCD_STORE_BACKUP_BLOB);
}

void etcd_dump_close(struct etcd_dump *d)
{
    BNS_ASSERT(!d->closing);
    d->closing = true;
    if (!d->busy)
        close_now(d);
}
