/* force.c - see force.h.
 *
 * As in etcd: when a quorum is gone for good, one member that is left becomes a cluster of one with
 *   the same ids, and the others are removed: who comes back is told so, and stops. Unlike etcd,
 *   which cuts off what it does not know to be committed, all of its log is kept: a write that the
 *   lost members have acknowledged is in it, and perhaps nobody has told this member.
 * The change is one entry: the others are removed, this one is added with its peer URLs, in case
 *   the store had no members yet (they were in the flags alone).
 */
#include "force.h"

#include "cluster.h"
#include "codec/pb.h"

static int pack_self(const struct etcd_roster_member *self, struct bns_buf *out)
{
    Etcdserverpb__MemberChange c = ETCDSERVERPB__MEMBER_CHANGE__INIT;
    Etcdserverpb__Member m = ETCDSERVERPB__MEMBER__INIT, *members[] = {&m};
    char *urls[ETCD_URLS_MAX];

    for (size_t i = 0; i < self->peer_urls.count; i++)
        urls[i] = (char *)(uintptr_t)self->peer_urls.url[i];
    m.has_id = true;
    m.id = self->id;
    m.name = (char *)(uintptr_t)self->name;
    m.n_peerurls = self->peer_urls.count;
    m.peerurls = urls;
    c.n_members = 1;
    c.members = members;
    return bns_pb_pack(&c.base, out);
}

int etcd_force(struct etcd_server *s, struct bns_raft_conf_entry *out, struct bns_buf *bytes,
               struct bns_err *err)
{
    const struct etcd_roster_member *self;
    struct etcd_roster r;

    etcd_roster_read(s, &r);
    self = etcd_roster_find(&r, s->member_id);
    if (self == NULL)
        return bns_err_set(err, BNS_E_INVALID,
                           "--force-new-cluster: the data in %s are not those of a member",
                           s->opt->data_dir);
    memset(out, 0, sizeof *out);
    out->conf.voters[0] = s->member_id;
    out->conf.voters_count = 1;
    for (size_t i = 0; i < r.count; i++) {
        if (r.member[i].id != s->member_id)
            out->changes[out->changes_count++] =
                (struct bns_raft_change){BNS_RAFT_REMOVE, r.member[i].id};
    }
    out->changes[out->changes_count++] = (struct bns_raft_change){BNS_RAFT_ADD_VOTER, s->member_id};
    if (pack_self(self, bytes) != BNS_OK)
        return bns_err_set(err, BNS_E_NOMEM, "out of memory");
    out->context = bns_buf_slice(bytes);
    return BNS_OK;
}
