/* hash.c - HashKV: one number for the store's contents at a revision, computed as etcd 3.6 does.
 *
 * CRC-32C over "key", then over (17-byte revision, 't' for a tombstone, KeyValue bytes) of every
 * row with main <= R, in order; left out are rows that a compaction at C has dropped or is about to
 * drop (main <= C and not the living newest of their key at R), and a tombstone exactly at C. So
 * members that are at different points of the physical compaction, and real etcd, get the same.
 * The store is read in slices; a compaction in between starts the computation again.
 */
#include "kv_impl.h"

#include "base/crc32c.h"
#include "base/varint.h"

#define SLICE_ROWS 256

struct hash {
    struct etcd_store_job job;
    struct etcd_kv *kv;
    etcd_done *done;
    void *arg;
    uint64_t began_ns;
    int64_t wanted, at, compacted;
    bool keeps_any;
    bool all; /* Hash: every row, compacted or not */
    uint32_t crc;
    struct etcd_row rows[SLICE_ROWS];
};

static const struct etcd_status changed = {14, "etcdserver: leader changed"};

static bool any_alive(const struct etcd_kv *kv, int64_t at)
{
    struct etcd_key *k = etcd_index_seek(&kv->index, bns_slice(NULL, 0));

    while (k != NULL && etcd_key_alive_at(k, at) == NULL)
        k = etcd_index_next(k, BNS_LIT("\0"));
    return k != NULL;
}

static bool is_kept(const struct hash *h, const struct etcd_row *r, struct bns_slice key)
{
    struct etcd_key *k = etcd_index_first(&h->kv->index, key, bns_slice(NULL, 0));
    const struct etcd_rev *v = k == NULL ? NULL : etcd_key_alive_at(k, h->at);

    return v != NULL && v->main == r->main && v->sub == r->sub;
}

static void add(struct hash *h, const struct etcd_row *r)
{
    uint8_t rev[18];
    struct etcd_kvview v;
    bool dead;

    if (etcd_kvbytes_parse(bns_rcbuf_slice(r->kv), &v) != BNS_OK)
        v = (struct etcd_kvview){.mod = 0}; /* hashed as it is: it will differ from the others' */
    dead = v.mod == 0;
    if (h->all) {
        bns_put_u64be(rev, (uint64_t)r->main);
        bns_put_u32be(rev + 8, r->sub);
        h->crc = bns_crc32c(h->crc, rev, 12);
        h->crc = bns_crc32c(h->crc, r->kv->bytes, r->kv->len);
        return;
    }
    if (r->main <= h->compacted && h->keeps_any && !is_kept(h, r, v.key))
        return;
    if (r->main == h->compacted && dead)
        return;
    bns_put_u64be(rev, (uint64_t)r->main);
    rev[8] = '_';
    bns_put_u64be(rev + 9, r->sub);
    rev[17] = 't';
    h->crc = bns_crc32c(h->crc, rev, dead ? 18 : 17);
    h->crc = bns_crc32c(h->crc, r->kv->bytes, r->kv->len);
}

static void end(struct hash *h, struct etcd_status why)
{
    struct etcd_kv *kv = h->kv;
    struct etcd_pending *p = why.code != 0 ? NULL : etcd_pending_new(kv);
    etcd_done *done = h->done;
    void *arg = h->arg;

    if (why.code == 0)
        etcd_kv_took(kv, h->all ? kv->m_hash : kv->m_hash_rev, h->began_ns);
    if (p != NULL) {
        size_t at = etcd_pending_part(p, ETCD_PART_HASH, false);
        p->done = done;
        p->arg = arg;
        p->revision = kv->now.revision;
        p->parts[at].hash = h->crc;
        p->parts[at].total = h->all ? 0 : h->at;
        p->parts[at].limit = h->all ? 0 : h->compacted;
    }
    bns_free(kv->alloc, h);
    kv->hashing--;
    if (p != NULL)
        etcd_pending_run(p);
    else
        etcd_refuse(done, arg, why.code != 0 ? why : etcd_no_memory);
    etcd_install_kick(kv);
}

static void start(struct hash *h);

static void scanned(struct etcd_store_job *j)
{
    struct hash *h = BNS_CONTAINER(j, struct hash, job);
    struct etcd_kv *kv = h->kv;
    bool past = false;

    if (!etcd_kv_job_over(kv, j))
        return;
    for (size_t i = 0; i < j->rows_count; i++) {
        past = past || h->rows[i].main > h->at;
        if (!past && j->code == BNS_OK)
            add(h, &h->rows[i]);
        bns_rcbuf_put(h->rows[i].kv);
    }
    if (j->code != BNS_OK)
        end(h, etcd_no_memory);
    else if (kv->install.active || kv->stopping)
        end(h, changed);
    else if (kv->now.compact_scheduled != h->compacted)
        start(h);
    else if (past || j->finished)
        end(h, etcd_ok);
    else
        etcd_kv_submit(kv, j);
}

static void start(struct hash *h)
{
    struct etcd_kv *kv = h->kv;

    h->compacted = kv->now.compact_scheduled;
    if (h->wanted > kv->now.revision || (h->wanted > 0 && h->wanted < h->compacted)) {
        end(h, h->wanted > kv->now.revision ? etcd_future : etcd_compacted);
        return;
    }
    if (h->at == 0)
        h->at = h->wanted <= 0 ? kv->now.revision : h->wanted;
    if (h->at < h->compacted) { /* "now" was overtaken by a compaction */
        h->at = kv->now.revision;
    }
    h->keeps_any = any_alive(kv, h->at);
    h->crc = bns_crc32c(0, "key", 3);
    etcd_kv_flush(kv);
    h->job = (struct etcd_store_job){.kind = ETCD_STORE_SCAN,
                                     .done = scanned,
                                     .rows = h->rows,
                                     .rows_cap = SLICE_ROWS,
                                     .after_main = h->all ? -1 : 0,
                                     .after_sub = UINT32_MAX};
    etcd_kv_submit(kv, &h->job);
}

static void begin(struct etcd_kv *kv, const struct hash *what, etcd_done *done, void *arg)
{
    struct hash *h;

    if (kv->dead || kv->stopping || kv->install.active) {
        etcd_refuse(done, arg, kv->install.active ? changed : etcd_stopped);
        return;
    }
    h = bns_alloc_zero(kv->alloc, sizeof *h);
    if (h == NULL) {
        etcd_refuse(done, arg, etcd_no_memory);
        return;
    }
    h->kv = kv;
    h->done = done;
    h->arg = arg;
    h->wanted = what->wanted;
    h->all = what->all;
    h->began_ns = bns_now_ns(kv->env);
    kv->hashing++;
    start(h);
}

void etcd_kv_hash(struct etcd_kv *kv, int64_t revision, etcd_done *done, void *arg)
{
    begin(kv, &(struct hash){.wanted = revision}, done, arg);
}

void etcd_kv_hash_all(struct etcd_kv *kv, etcd_done *done, void *arg)
{
    begin(kv, &(struct hash){.all = true}, done, arg);
}
