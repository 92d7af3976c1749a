/* lease_look.c - TimeToLive: what is left of a lease, and its keys.
 *
 * With very many keys the answer is put together in several turns of the loop, KEYS_A_TURN keys
 * each. It has the keys of one revision: no entry is applied between its first turn and its last,
 * and it does not begin while an entry is open (apply_turns.c). So that neither can starve the
 * other, one answer and a turn of entries follow each other when both wait. Answers come in order
 * (etcd has none).
 *
 * A snapshot that is installed, the end of leadership, and a stop end all that wait: NOTLEADER.
 */
#include "codec/pb.h"
#include "kv_impl.h"
#include "lease_keys.h"

#define KEYS_A_TURN 4096u

static void run(struct bns_task *t);

void etcd_looks_init(struct etcd_kv *kv)
{
    bns_list_init(&kv->looks.waiting);
    kv->looks.task.fn = run;
}

static void post(struct etcd_kv *kv)
{
    if (kv->looks.posted)
        return;
    kv->looks.posted = true;
    bns_post(kv->env, &kv->looks.task);
}

static int put_head(struct etcd_kv *kv, const struct etcd_lease *e, struct bns_buf *out)
{
    int rv = bns_pb_put_i64(out, 2, e->id);

    if (rv == BNS_OK)
        rv = bns_pb_put_i64(out, 3, etcd_lease_remaining(e, bns_now_ns(kv->env)));
    if (rv == BNS_OK)
        rv = bns_pb_put_i64(out, 4, e->ttl);
    return rv;
}

/* Goes on with l, or begins; BNS_E_AGAIN: the turn is over. */
static int step(struct etcd_kv *kv, struct etcd_lease_look *l)
{
    const struct etcd_lease *e = etcd_lessor_find(&kv->leases.lessor, l->id);
    int rv = BNS_OK;

    if (!kv->leases.lessor.primary)
        return BNS_E_NOTLEADER;
    if (e == NULL)
        return BNS_E_NOTFOUND;
    if (!l->begun)
        rv = put_head(kv, e, l->out);
    l->begun = true;
    if (rv != BNS_OK || !l->keys)
        return rv;
    for (uint32_t n = 0; rv == BNS_OK; n++) {
        if (n == KEYS_A_TURN)
            return BNS_E_AGAIN;
        l->at = etcd_lease_keys_after(e->keys, l->at);
        if (l->at == NULL)
            return BNS_OK;
        rv = bns_pb_put_bytes_always(l->out, 5, l->at->key);
    }
    return rv;
}

static void run(struct bns_task *t)
{
    struct etcd_looks *q = BNS_CONTAINER(t, struct etcd_looks, task);
    struct etcd_kv *kv = BNS_CONTAINER(q, struct etcd_kv, looks);
    struct etcd_lease_look *l;
    int rv;

    q->posted = false;
    etcd_kv_check_drained(kv);
    if (kv->dead || kv->apply.open) /* the end of the entry comes back here */
        return;
    if (!bns_list_empty(&q->waiting)) {
        l = BNS_CONTAINER(q->waiting.next, struct etcd_lease_look, node);
        rv = step(kv, l);
        if (rv == BNS_E_AGAIN) {
            q->due = true;
            post(kv);
            return;
        }
        bns_list_del(&l->node);
        l->fn(l, rv);
    }
    q->due = false; /* an entry goes first, when there is one */
    if (!bns_list_empty(&q->waiting))
        post(kv);
    etcd_apply_step(kv);
}

bool etcd_look_first(struct etcd_kv *kv)
{
    if (!kv->looks.due)
        return false;
    post(kv);
    return true;
}

void etcd_look_turn_over(struct etcd_kv *kv)
{
    if (!kv->looks.entered)
        return;
    kv->looks.entered = false;
    kv->looks.due = !bns_list_empty(&kv->looks.waiting);
    if (kv->looks.due)
        post(kv);
}

void etcd_kv_lease_look(struct etcd_kv *kv, struct etcd_lease_look *l)
{
    int rv = BNS_E_AGAIN;

    bns_list_init(&l->node);
    l->at = NULL;
    l->begun = false;
    if (!l->keys || (bns_list_empty(&kv->looks.waiting) && !kv->apply.open))
        rv = step(kv, l);
    if (rv != BNS_E_AGAIN) {
        l->fn(l, rv);
        return;
    }
    bns_list_push(&kv->looks.waiting, &l->node);
    kv->looks.due = kv->looks.due || l->begun;
    post(kv);
}

void etcd_kv_lease_unlook(struct etcd_kv *kv, struct etcd_lease_look *l)
{
    bns_list_del(&l->node);
    if (bns_list_empty(&kv->looks.waiting))
        kv->looks.due = false;
    post(kv); /* applies may have waited for it */
}

void etcd_looks_end(struct etcd_kv *kv)
{
    struct bns_list *it;

    kv->looks.due = false;
    while ((it = bns_list_pop(&kv->looks.waiting)) != NULL) {
        struct etcd_lease_look *l = BNS_CONTAINER(it, struct etcd_lease_look, node);

        l->fn(l, BNS_E_NOTLEADER);
    }
}
