/* session_kv.c - who is in the queue: the keys under a prefix, by the order they were created in;
 * and whether a step may write at all.
 *
 * One walk over the index, no row is read. Two keys of one transaction have the same create
 * revision: then the first in key order counts as the older one, as etcd's sorted ranges have it.
 */
#include "kv_impl.h"
#include "server.h"
#include "session_run.h"

static bool begins(struct bns_slice key, struct bns_slice prefix)
{
    return key.len >= prefix.len && memcmp(key.ptr, prefix.ptr, prefix.len) == 0;
}

void etcd_session_look(const struct etcd_kv *kv, struct bns_slice prefix, struct bns_slice own,
                       int64_t rev, struct etcd_session_view *out)
{
    struct bns_slice all = BNS_LIT("\0");
    struct etcd_key *k = etcd_index_first(&kv->index, prefix, all);
    int64_t first = INT64_MAX, older = 0;

    BNS_ASSERT(prefix.len > 0);
    *out = (struct etcd_session_view){.revision = kv->now.revision};
    for (; k != NULL && begins(etcd_key_bytes(k), prefix); k = etcd_index_next(k, all)) {
        const struct etcd_rev *v = etcd_key_alive_at(k, kv->now.revision);
        struct bns_slice key = etcd_key_bytes(k);

        if (v == NULL)
            continue;
        if (v->create < first) {
            first = v->create;
            out->first = key;
        }
        if (v->create < rev && v->create >= older) {
            older = v->create;
            out->older = key;
        }
        if (v->create == rev && bns_slice_eq(key, own))
            out->ours = true;
    }
}

bool etcd_session_gate(struct etcd_task *t, uint64_t cost)
{
    struct etcd_server *s = t->s;

    if (etcd_kv_alarmed(s->kv, ETCD_ALARM_CORRUPT)) {
        etcd_task_fail(t, etcd_damaged.code, etcd_damaged.text);
        return false;
    }
    if (cost == 0)
        return true;
    if (!etcd_kv_alarmed(s->kv, ETCD_ALARM_NOSPACE)) {
        struct etcd_status st = {0};

        if (etcd_kv_room(s->kv, cost))
            return true;
        if (!etcd_auth_someone(s->kv, &t->who, &st)) {
            etcd_task_fail(t, st.code, st.text);
            return false;
        }
        (void)etcd_alarm_propose(s, s->member_id, ETCD_ALARM_NOSPACE, true); /* or the next */
    }
    etcd_task_fail(t, BNS_GRPC_RESOURCE_EXHAUSTED, ETCD_TEXT_NOSPACE);
    return false;
}
