/* identity.h - whose data a directory holds: format, cluster and member, in <data-dir>/identity.
 *
 *   etcd-lite format 1
 *   cluster cdf818194e3a8c32
 *   member 8e9e05c52164694d
 *   joined                     only of a member that came later: its ids are not in the flags
 *   peer 8211f1d0f64f3269 http://10.0.0.2:2380     whom it was told of, as long as its log says
 *   peer ...                                       nothing; several URLs: commas between them
 */
#ifndef ETCD_IDENTITY_H
#define ETCD_IDENTITY_H

#include "members.h"
#include "store/vfs.h"

/* Large: 20 KiB. */
struct etcd_identity {
    uint64_t cluster_id, member_id;
    bool joined;
    struct etcd_roster told;
};

/* Blocking. BNS_E_NOTFOUND: there is no such file; BNS_E_UNSUPPORTED: a newer format;
 * BNS_E_CORRUPT: not such a file. */
BNS_MUST_CHECK int etcd_identity_read(struct bns_vfs *vfs, const char *dir,
                                      struct etcd_identity *out, struct bns_err *err);
/* Blocking. Writes `mine` when there is no file (durably), else compares, unless the member came
 * later. *out: whose the directory is. BNS_E_INVALID: another cluster or member; and as above. */
BNS_MUST_CHECK int etcd_identity_check(struct bns_vfs *vfs, const char *dir,
                                       const struct etcd_identity *mine, struct etcd_identity *out,
                                       struct bns_err *err);

/* A file of dir, whole or not there at all, and durable. Blocking. */
BNS_MUST_CHECK int etcd_identity_file(struct bns_vfs *vfs, const char *dir, const char *path,
                                      struct bns_slice text, struct bns_err *err);

#endif
