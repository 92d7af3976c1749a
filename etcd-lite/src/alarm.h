/* alarm.h - alarms: facts about the cluster that stop some requests on every member alike.
 *
 * NOSPACE: a member's quota is used up: no puts, no transactions with puts, no grants (status 8).
 * CORRUPT: a member's data differs: nothing that reads or writes keys or leases (status 15).
 *
 * Thread: the loop.
 */
#ifndef ETCD_ALARM_H
#define ETCD_ALARM_H

#include "kv.h"

#define ETCD_ALARM_NOSPACE ETCDSERVERPB__ALARM_TYPE__NOSPACE
#define ETCD_ALARM_CORRUPT ETCDSERVERPB__ALARM_TYPE__CORRUPT
#define ETCD_ALARMS_MAX 64u /* of all members together; further ones are refused */

struct etcd_server;
struct etcd_task;
struct bns_grpc_call;

/* ---- the replicated state -------------------------------------------------------------------- */
/* Is an alarm of this type active, whoever raised it? */
bool etcd_kv_alarmed(const struct etcd_kv *kv, int type);
/* Calls fn with each alarm; auto_raised: by a member, not by a client. */
void etcd_kv_alarms(const struct etcd_kv *kv,
                    void (*fn)(void *arg, uint64_t member, int type, bool auto_raised), void *arg);
/* The status a request is refused with because of an alarm; code 0 = it may go on. Every member
 * decides alike at the same entry. */
struct etcd_status etcd_alarm_refuses(const struct etcd_kv *kv,
                                      const Etcdserverpb__InternalRaftRequest *r);
/* An alarm entry. p may be NULL. BNS_E_NOMEM; *why = refused. */
struct etcd_pending;
BNS_MUST_CHECK int etcd_alarm_apply(struct etcd_kv *kv, const Etcdserverpb__AlarmRequest *r,
                                    struct etcd_pending *p, struct etcd_status *why);
void etcd_alarms_loaded(struct etcd_kv *kv); /* the buckets were filled or emptied */

/* ---- the server ------------------------------------------------------------------------------ */
/* May a write of this cost (0 = it adds nothing) be proposed? If not the call has been finished, or
 * is once the alarm stands: this member raises NOSPACE when its quota does not hold the write. */
BNS_MUST_CHECK bool etcd_alarm_gate(struct etcd_server *s, struct bns_grpc_call *c, uint64_t cost);
/* Proposes to raise or clear an alarm of a member; nobody waits. False: not proposed. */
bool etcd_alarm_propose(struct etcd_server *s, uint64_t member, int type, bool on);
void etcd_alarm_tick(struct etcd_server *s); /* clears our NOSPACE when there is room again */
/* Appends AlarmMember messages as field `field`. */
BNS_MUST_CHECK int etcd_alarm_put_all(struct etcd_server *s, int type, uint32_t field,
                                      struct bns_buf *out);

#endif
