/* alarm.c - alarms as replicated state, raised and cleared through the log.
 *
 * An alarm is a row of a bucket: its key is the AlarmMember message, as etcd keeps it, its value
 * one byte when a member raised it of itself. What an alarm forbids is decided at apply, so members
 * agree whatever was under way; the checks before a proposal only spare the log.
 *
 * NOSPACE is raised by the member whose quota a write does not fit into, and that write's client is
 * answered once the alarm stands, as with etcd. What etcd leaves to an operator happens here by
 * itself (--auto-disarm): a member clears the alarm it raised when there is room again. To raise
 * and clear in turns would help nobody, so "room" is a sixteenth of the quota, and room for what
 * was refused if that is not more than half of it.
 */
#include "alarm.h"

#include "base/varint.h"
#include "codec/pb.h"
#include "kv_impl.h"
#include "server.h"

static const struct etcd_status no_space = {8, ETCD_TEXT_NOSPACE};
static const struct etcd_status too_many = {8, "etcdserver: too many requests"};

#define KEY_MAX 16 /* two tags, a 64-bit and a 32-bit varint */
#define BY_MEMBER 1u

struct key {
    uint8_t bytes[KEY_MAX + BNS_VARINT_MAX]; /* a varint is written through a full-size window */
    size_t len;
};

/* ---- rows ----------------------------------------------------------------------------------- */

static struct key key_of(uint64_t member, int type)
{
    struct key k = {.len = 0};

    if (member != 0) {
        k.bytes[k.len++] = 1 << 3;
        k.len += bns_varint_put(k.bytes + k.len, member);
    }
    if (type != 0) {
        k.bytes[k.len++] = 2 << 3;
        k.len += bns_varint_put(k.bytes + k.len, (uint64_t)type);
    }
    return k;
}

static void parse(struct bns_slice key, uint64_t *member, int *type)
{
    struct bns_pb_field f = {0};

    *member = 0;
    *type = 0;
    while (key.len > 0 && bns_pb_next(&key, &f) == BNS_OK) {
        if (f.id == 1)
            *member = f.u64;
        else if (f.id == 2)
            *type = (int)f.u64;
    }
}

void etcd_kv_alarms(const struct etcd_kv *kv,
                    void (*fn)(void *arg, uint64_t member, int type, bool auto_raised), void *arg)
{
    const struct etcd_bucket_row *r = NULL;

    while ((r = etcd_bucket_next(kv, ETCD_BUCKET_ALARMS, r)) != NULL) {
        struct bns_slice v = etcd_bucket_value(r);
        uint64_t member;
        int type;

        parse(etcd_bucket_key(r), &member, &type);
        fn(arg, member, type, v.len > 0 && v.ptr[0] == BY_MEMBER);
    }
}

static void note(void *arg, uint64_t member, int type, bool auto_raised)
{
    struct etcd_kv *kv = arg;

    (void)member;
    (void)auto_raised;
    kv->alarms_count++;
    if (type > 0 && type < 32)
        kv->alarms |= 1u << type;
}

void etcd_alarms_loaded(struct etcd_kv *kv)
{
    kv->alarms = 0;
    kv->alarms_count = 0;
    etcd_kv_alarms(kv, note, kv);
}

bool etcd_kv_alarmed(const struct etcd_kv *kv, int type)
{
    return (kv->alarms >> type & 1) != 0;
}

/* ---- entries -------------------------------------------------------------------------------- */

struct etcd_status etcd_alarm_refuses(const struct etcd_kv *kv,
                                      const Etcdserverpb__InternalRaftRequest *r)
{
    if (kv->alarms == 0)
        return etcd_ok;
    if (etcd_kv_alarmed(kv, ETCD_ALARM_CORRUPT) &&
        (r->put != NULL || r->delete_range != NULL || r->txn != NULL || r->compaction != NULL ||
         r->lease_grant != NULL || r->lease_revoke != NULL))
        return etcd_damaged;
    if (etcd_kv_alarmed(kv, ETCD_ALARM_NOSPACE) &&
        (r->put != NULL || r->lease_grant != NULL || (r->txn != NULL && etcd_cost_txn(r->txn) > 0)))
        return no_space;
    return etcd_ok;
}

struct collect {
    struct etcd_kv *kv;
    struct etcd_pending *p;
    int type; /* 0 = all */
};

static void add_part(void *arg, uint64_t member, int type, bool auto_raised)
{
    struct collect *c = arg;
    struct key k = key_of(member, type);
    struct bns_rcbuf *b;

    (void)auto_raised;
    if (c->p == NULL || (c->type != 0 && type != c->type))
        return;
    b = bns_rcbuf_copy(c->kv->alloc, bns_slice(k.bytes, k.len));
    if (b == NULL) {
        c->p->failed = true;
        return;
    }
    etcd_pending_row(c->p, &(struct etcd_rev){.main = 0}, b);
    c->p->parts[0].count++;
}

int etcd_alarm_apply(struct etcd_kv *kv, const Etcdserverpb__AlarmRequest *r,
                     struct etcd_pending *p, struct etcd_status *why)
{
    struct key k = key_of(r->memberid, (int)r->alarm);
    struct bns_slice key = bns_slice(k.bytes, k.len);
    bool there = etcd_bucket_get(kv, ETCD_BUCKET_ALARMS, key).ptr != NULL;
    struct collect c = {kv, p, (int)r->alarm};
    const uint8_t by = BY_MEMBER;
    int rv = BNS_OK;

    if (p != NULL)
        (void)etcd_pending_part(p, ETCD_PART_COMPACT, false); /* its rows are field 2 */
    switch ((int)r->action) {
    case ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__GET:
        etcd_kv_alarms(kv, add_part, &c);
        return BNS_OK;
    case ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__ACTIVATE:
        if (!there && kv->alarms_count >= ETCD_ALARMS_MAX) {
            *why = too_many;
            return BNS_OK;
        }
        if (!there) /* one byte or none: who raised it */
            rv = etcd_bucket_put(kv, ETCD_BUCKET_ALARMS, key, bns_slice(&by, r->by_member ? 1 : 0));
        if (rv == BNS_E_TOOBIG) {
            *why = too_many;
            return BNS_OK;
        }
        add_part(&c, r->memberid, (int)r->alarm, false);
        break;
    case ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE:
        if (!there)
            return BNS_OK;
        rv = etcd_bucket_del(kv, ETCD_BUCKET_ALARMS, key);
        add_part(&c, r->memberid, (int)r->alarm, false);
        break;
    default: /* refused before it was proposed */
        return BNS_OK;
    }
    etcd_alarms_loaded(kv);
    return rv;
}

/* ---- the server ----------------------------------------------------------------------------- */

static int encode(struct etcd_server *s, uint64_t member, int type, bool on, struct bns_buf *out)
{
    int rv = bns_pb_put_u64(out, 1,
                            on ? ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__ACTIVATE
                               : ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE);

    (void)s;
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(out, 2, member);
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(out, 3, (uint64_t)type);
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(out, 20000, 1);
    return rv;
}

bool etcd_alarm_propose(struct etcd_server *s, uint64_t member, int type, bool on)
{
    struct bns_rcbuf *entry = NULL;
    struct bns_buf b;
    bool taken;

    if (s->node == NULL || s->stopping)
        return false;
    bns_buf_init(&b, s->env->alloc, 64);
    if (encode(s, member, type, on, &b) == BNS_OK)
        entry = etcd_internal_encode(s->env->alloc, etcd_request_id(s), ETCD_OP_ALARM,
                                     bns_buf_slice(&b));
    taken = entry != NULL && bns_raft_node_propose(s->node, entry) == BNS_OK;
    bns_rcbuf_put(entry);
    bns_buf_free(&b);
    return taken;
}

/* The client is told when the alarm stands, so that it finds it in the list. */
static void raise_and_refuse(struct etcd_server *s, struct bns_grpc_call *c)
{
    struct etcd_task *t = etcd_task_new(s, c);
    struct bns_buf b;

    if (t == NULL)
        return;
    bns_buf_init(&b, s->env->alloc, 64);
    t->instead = &no_space;
    if (encode(s, s->member_id, ETCD_ALARM_NOSPACE, true, &b) == BNS_OK)
        etcd_task_propose(t, ETCD_OP_ALARM, bns_buf_slice(&b));
    else
        etcd_task_fail(t, no_space.code, no_space.text);
    bns_buf_free(&b);
}

/* Who is nobody, when users are asked for, changes nothing: no alarm either. */
static bool may_raise(struct etcd_server *s, struct bns_grpc_call *c)
{
    struct etcd_status st = {0};
    struct etcd_who who;
    struct etcd_cn cn;

    etcd_auth_peek(s, c, &cn, &who);
    if (etcd_auth_someone(s->kv, &who, &st))
        return true;
    bns_grpc_finish(c, st.code, st.text, NULL, 0);
    return false;
}

bool etcd_alarm_gate(struct etcd_server *s, struct bns_grpc_call *c, uint64_t cost)
{
    if (etcd_kv_alarmed(s->kv, ETCD_ALARM_CORRUPT)) {
        bns_grpc_finish(c, etcd_damaged.code, etcd_damaged.text, NULL, 0);
        return false;
    }
    if (cost == 0)
        return true;
    if (etcd_kv_alarmed(s->kv, ETCD_ALARM_NOSPACE)) {
        bns_grpc_finish(c, no_space.code, no_space.text, NULL, 0);
        return false;
    }
    if (etcd_kv_room(s->kv, cost))
        return true;
    if (!may_raise(s, c))
        return false;
    if (cost > s->alarm.refused_cost)
        s->alarm.refused_cost = cost;
    BNS_LOG(s->env->log, BNS_LOG_WARN, "etcd", "the quota is used up: alarm NOSPACE",
            BNS_U64("in_use", etcd_kv_db_size_in_use(s->kv)), BNS_U64("cost", cost));
    raise_and_refuse(s, c);
    return false;
}

struct own {
    uint64_t id;
    bool raised;
};

static void look_for_own(void *arg, uint64_t member, int type, bool auto_raised)
{
    struct own *o = arg;

    o->raised = o->raised || (auto_raised && member == o->id && type == ETCD_ALARM_NOSPACE);
}

void etcd_alarm_tick(struct etcd_server *s)
{
    struct own o = {.id = s->member_id};
    uint64_t quota = etcd_kv_quota(s->kv), want = quota / 16;

    if (!s->opt->auto_disarm || !etcd_kv_alarmed(s->kv, ETCD_ALARM_NOSPACE))
        return;
    if (s->alarm.refused_cost > want)
        want = s->alarm.refused_cost < quota / 2 ? s->alarm.refused_cost : quota / 2;
    etcd_kv_alarms(s->kv, look_for_own, &o);
    if (!o.raised || !etcd_kv_room(s->kv, want))
        return;
    if (!etcd_alarm_propose(s, o.id, ETCD_ALARM_NOSPACE, false))
        return;
    s->alarm.refused_cost = 0;
    BNS_LOG(s->env->log, BNS_LOG_INFO, "etcd", "there is room again: alarm NOSPACE is cleared",
            BNS_U64("in_use", etcd_kv_db_size_in_use(s->kv)));
}

struct put_all {
    struct bns_buf *out;
    int type, rv;
    uint32_t field;
};

static void put_one(void *arg, uint64_t member, int type, bool auto_raised)
{
    struct put_all *a = arg;
    struct key k = key_of(member, type);

    (void)auto_raised;
    if (a->rv == BNS_OK && (a->type == 0 || a->type == type))
        a->rv = bns_pb_put_bytes_always(a->out, a->field, bns_slice(k.bytes, k.len));
}

int etcd_alarm_put_all(struct etcd_server *s, int type, uint32_t field, struct bns_buf *out)
{
    struct put_all a = {out, type, BNS_OK, field};

    etcd_kv_alarms(s->kv, put_one, &a);
    return a.rv;
}
