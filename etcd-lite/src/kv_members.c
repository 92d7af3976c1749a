/* kv_members.c - the members, as the log made them.
 *
 * At first the flags of every member say who belongs to the cluster. A leader that is to change
 * members and finds nobody in the store puts that list into the log (ClusterMembersRequest); from
 * then on the store stands, also for members that come later and replay the log with other flags.
 * Who votes is Raft's (kv->now.conf); what is kept here is what Raft does not know: peer URLs,
 * learner or not for MemberList, who was removed and may never come back. Both change in the same
 * entry.
 *
 * Names and client URLs come from the members themselves, once they serve.
 */
#include "base/varint.h"
#include "cluster.h"
#include "codec/pb.h"
#include "kv_impl.h"

#define CHANGE_BYTES_MAX BNS_RAFT_CONTEXT_BYTES_MAX
#define ATTRIBUTES_BYTES_MAX (64u * 1024)

struct etcd_member_key etcd_member_key(uint64_t id)
{
    struct etcd_member_key k;

    bns_put_u64be(k.bytes, id);
    return k;
}

static struct bns_slice key_of(const struct etcd_member_key *k)
{
    return bns_slice(k->bytes, sizeof k->bytes);
}

struct bns_slice etcd_kv_member(const struct etcd_kv *kv, uint64_t id)
{
    struct etcd_member_key k = etcd_member_key(id);

    return etcd_bucket_get(kv, ETCD_BUCKET_ATTRIBUTES, key_of(&k));
}

bool etcd_kv_members_known(const struct etcd_kv *kv)
{
    return etcd_bucket_next(kv, ETCD_BUCKET_MEMBERS, NULL) != NULL;
}

bool etcd_kv_member_removed(const struct etcd_kv *kv, uint64_t id)
{
    struct etcd_member_key k = etcd_member_key(id);

    return etcd_bucket_get(kv, ETCD_BUCKET_REMOVED, key_of(&k)).ptr != NULL;
}

void etcd_kv_on_members(struct etcd_kv *kv, void (*fn)(void *arg), void *arg)
{
    kv->on_members = fn;
    kv->on_members_arg = arg;
}

void etcd_members_told(struct etcd_kv *kv)
{
    if (kv->on_members != NULL && !kv->dead)
        kv->on_members(kv->on_members_arg);
}

static bool is_known(const struct etcd_kv *kv, const struct etcd_member_key *k)
{
    return etcd_bucket_get(kv, ETCD_BUCKET_MEMBERS, key_of(k)).ptr != NULL;
}

/* A message as a value. What is too large or finds no slot is so on every member, and is left out:
 * what members send has been bounded before. */
static int put(struct etcd_kv *kv, enum etcd_bucket b, uint64_t id, const ProtobufCMessage *m)
{
    struct etcd_member_key k = etcd_member_key(id);
    struct bns_buf packed;
    int rv;

    bns_buf_init(&packed, kv->alloc, ATTRIBUTES_BYTES_MAX);
    rv = bns_pb_pack(m, &packed);
    if (rv == BNS_OK)
        rv = etcd_bucket_put(kv, b, key_of(&k), bns_buf_slice(&packed));
    bns_buf_free(&packed);
    return rv == BNS_E_TOOBIG ? BNS_OK : rv;
}

/* Of a member: what is the log's. */
static int put_member(struct etcd_kv *kv, const Etcdserverpb__Member *m, bool learner)
{
    Etcdserverpb__Member kept = ETCDSERVERPB__MEMBER__INIT;

    kept.has_id = true;
    kept.id = m->id;
    kept.name = m->name; /* of those with whom the cluster was made; the others say it themselves */
    kept.n_peerurls = m->n_peerurls;
    kept.peerurls = m->peerurls;
    kept.has_islearner = learner;
    kept.islearner = learner;
    return put(kv, ETCD_BUCKET_MEMBERS, m->id, &kept.base);
}

int etcd_members_attr(struct etcd_kv *kv, const Etcdserverpb__ClusterMemberAttrSetRequest *r)
{
    struct etcd_member_key k = etcd_member_key(r->member_id);
    const struct etcd_bucket_row *row = NULL;
    size_t count = 0;

    while ((row = etcd_bucket_next(kv, ETCD_BUCKET_ATTRIBUTES, row)) != NULL)
        count++;
    if (r->member_id == 0 || etcd_kv_member_removed(kv, r->member_id) ||
        (etcd_kv_members_known(kv) ? !is_known(kv, &k) : count >= BNS_RAFT_PEERS_MAX))
        return BNS_OK; /* nobody's */
    return put(kv, ETCD_BUCKET_ATTRIBUTES, r->member_id, &r->base);
}

int etcd_members_made(struct etcd_kv *kv, const Etcdserverpb__ClusterMembersRequest *r)
{
    int rv = BNS_OK;

    if (etcd_kv_members_known(kv))
        return BNS_OK;
    for (size_t i = 0; i < r->n_members && i < BNS_RAFT_PEERS_MAX && rv == BNS_OK; i++)
        rv = put_member(kv, r->members[i], r->members[i]->islearner);
    etcd_members_told(kv);
    return rv;
}

/* The row of a member, unpacked; *out NULL: there is none. BNS_E_NOMEM. */
static int stored(struct etcd_kv *kv, uint64_t id, const Etcdserverpb__Member **out)
{
    struct etcd_member_key k = etcd_member_key(id);
    struct bns_slice row = etcd_bucket_get(kv, ETCD_BUCKET_MEMBERS, key_of(&k));
    ProtobufCMessage *m = NULL;
    struct bns_err err = {0};
    int rv = BNS_OK;

    if (row.ptr != NULL)
        rv =
            bns_pb_unpack(&etcdserverpb__member__descriptor, row, &kv->apply.arena, NULL, &m, &err);
    *out = (const Etcdserverpb__Member *)m;
    return rv == BNS_E_NOMEM ? rv : BNS_OK;
}

/* Its URLs alone: it may have been promoted since the request was made. */
int etcd_members_update(struct etcd_kv *kv, const Etcdserverpb__Member *m)
{
    const Etcdserverpb__Member *is;
    int rv = stored(kv, m->id, &is);

    if (rv == BNS_OK && is != NULL) {
        Etcdserverpb__Member now = *is;

        now.n_peerurls = m->n_peerurls;
        now.peerurls = m->peerurls;
        rv = put_member(kv, &now, is->islearner);
    }
    etcd_members_told(kv);
    return rv;
}

/* ---- changes of the configuration ----------------------------------------------------------- */

static const Etcdserverpb__Member *named(const Etcdserverpb__MemberChange *c, uint64_t id)
{
    for (size_t i = 0; c != NULL && i < c->n_members; i++) {
        if (c->members[i]->id == id)
            return c->members[i];
    }
    return NULL;
}

static int bury(struct etcd_kv *kv, uint64_t id)
{
    struct etcd_member_key k = etcd_member_key(id);
    int rv = BNS_OK;

    if (!BNS_MUTANT(kv->env, ETCD_MUTANT_MEMBER_STAYS))
        rv = etcd_bucket_del(kv, ETCD_BUCKET_MEMBERS, key_of(&k));
    if (rv == BNS_OK)
        rv = etcd_bucket_del(kv, ETCD_BUCKET_ATTRIBUTES, key_of(&k));
    if (rv == BNS_OK)
        rv = etcd_bucket_put(kv, ETCD_BUCKET_REMOVED, key_of(&k), bns_slice(NULL, 0));
    return rv == BNS_E_TOOBIG ? BNS_OK : rv;
}

static int change(struct etcd_kv *kv, const struct bns_raft_change *c,
                  const Etcdserverpb__MemberChange *with)
{
    const Etcdserverpb__Member *m = named(with, c->id);

    if (c->kind == BNS_RAFT_REMOVE)
        return bury(kv, c->id);
    if (c->kind == BNS_RAFT_PROMOTE && BNS_MUTANT(kv->env, ETCD_MUTANT_PROMOTED_UNSAID))
        return BNS_OK;
    if (c->kind == BNS_RAFT_PROMOTE) { /* its URLs may have changed since the request was made */
        const Etcdserverpb__Member *is;
        int rv = stored(kv, c->id, &is);

        return rv != BNS_OK || is == NULL ? rv : put_member(kv, is, false);
    }
    return m == NULL ? BNS_OK : put_member(kv, m, c->kind == BNS_RAFT_ADD_LEARNER);
}

int etcd_members_conf(struct etcd_kv *kv, const struct bns_raft_entry *e, uint64_t *id)
{
    const struct bns_pb_limits limits = {.bytes = CHANGE_BYTES_MAX, .depth = 8, .elements = 4096};
    struct bns_raft_conf_entry conf;
    ProtobufCMessage *m = NULL;
    struct bns_err err = {0};
    int rv;

    *id = 0;
    if (bns_raft_change_decode(bns_rcbuf_slice(e->data), &conf) != BNS_OK)
        return BNS_OK; /* Raft takes no such entry */
    kv->now.conf = conf.conf;
    rv = bns_pb_unpack(&etcdserverpb__member_change__descriptor, conf.context, &kv->apply.arena,
                       &limits, &m, &err);
    if (rv == BNS_E_NOMEM)
        return rv;
    if (m != NULL)
        *id = ((const Etcdserverpb__MemberChange *)m)->id;
    rv = BNS_OK;
    for (size_t i = 0; i < conf.changes_count && rv == BNS_OK; i++)
        rv = change(kv, &conf.changes[i], (const Etcdserverpb__MemberChange *)m);
    return rv;
}
