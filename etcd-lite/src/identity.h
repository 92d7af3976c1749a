/* identity.h - whose data a directory holds: format, cluster and member, in <data-dir>/identity.
 *
 *   etcd-lite format 1
 *   cluster cdf818194e3a8c32
 *   member 8e9e05c52164694d
 */
#ifndef ETCD_IDENTITY_H
#define ETCD_IDENTITY_H

#include "store/vfs.h"

/* Blocking. Writes the file when there is none (durably), else compares. BNS_E_INVALID: another
 * cluster or member; BNS_E_UNSUPPORTED: a newer format; BNS_E_CORRUPT: not such a file. */
BNS_MUST_CHECK int etcd_identity_check(struct bns_vfs *vfs, const char *dir, uint64_t cluster_id,
                                       uint64_t member_id, struct bns_err *err);

#endif
