/* member.c - member add and list, alarm. */
#include "cli.h"

#include <inttypes.h>

static char *join(struct ctl *c, char **items, size_t n)
{
    char *s = ctl_print(c, "%s", n > 0 ? items[0] : "");

    for (size_t i = 1; i < n; i++)
        s = ctl_print(c, "%s,%s", s, items[i]);
    return s;
}

/* ---- list ------------------------------------------------------------------------------------ */

static void list_fields(const Etcdserverpb__MemberListResponse *r)
{
    ctl_out_header(r->header);
    for (size_t i = 0; i < r->n_members; i++) {
        const Etcdserverpb__Member *m = r->members[i];

        (void)printf("\"ID\" : %" PRIu64 "\n\"Name\" : ", m->id);
        ctl_out_quoted((const uint8_t *)(m->name == NULL ? "" : m->name),
                       m->name == NULL ? 0 : strlen(m->name));
        (void)putchar('\n');
        for (size_t k = 0; k < m->n_peerurls; k++)
            (void)printf("\"PeerURL\" : \"%s\"\n", m->peerurls[k]);
        for (size_t k = 0; k < m->n_clienturls; k++)
            (void)printf("\"ClientURL\" : \"%s\"\n", m->clienturls[k]);
        (void)printf("\"IsLearner\" : %s\n\n", m->islearner ? "true" : "false");
    }
}

int ctl_member_list(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__MemberListRequest req = ETCDSERVERPB__MEMBER_LIST_REQUEST__INIT;
    Etcdserverpb__MemberListResponse *r;
    const char **cells;
    int code = ctl_format(c, true);

    (void)argc;
    (void)argv;
    req.has_linearizable = req.linearizable = true;
    if (code == CTL_OK)
        code = ctl_ask(c, BNS_ETCD_MEMBER_LIST, &req.base, &r);
    if (code != CTL_OK)
        return code;
    if (c->out == CTL_JSON || c->out == CTL_PROTOBUF) {
        (void)ctl_out_other(c, &r->base);
        return CTL_OK;
    }
    if (c->out == CTL_FIELDS) {
        list_fields(r);
        return CTL_OK;
    }
    cells = bns_arena_alloc(&c->arena, (r->n_members + 1) * 6 * sizeof *cells);
    BNS_ASSERT(cells != NULL);
    memcpy(cells,
           (const char *[]){"ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"},
           6 * sizeof *cells);
    for (size_t i = 0; i < r->n_members; i++) {
        const Etcdserverpb__Member *m = r->members[i];
        const char **row = cells + (i + 1) * 6;
        bool started = m->name != NULL && m->name[0] != '\0';

        row[0] = ctl_print(c, "%" PRIx64, m->id);
        row[1] = started ? "started" : "unstarted";
        row[2] = started ? m->name : "";
        row[3] = join(c, m->peerurls, m->n_peerurls);
        row[4] = join(c, m->clienturls, m->n_clienturls);
        row[5] = m->islearner ? "true" : "false";
        if (c->out == CTL_SIMPLE)
            (void)printf("%s, %s, %s, %s, %s, %s\n", row[0], row[1], row[2], row[3], row[4],
                         row[5]);
    }
    if (c->out == CTL_TABLE)
        ctl_table(cells, 6, r->n_members + 1);
    return CTL_OK;
}

/* ---- changes --------------------------------------------------------------------------------- */

/* What the new member is to be started with. */
static int print_environment(struct ctl *c, uint64_t id, const char *name)
{
    Etcdserverpb__MemberListRequest req = ETCDSERVERPB__MEMBER_LIST_REQUEST__INIT;
    Etcdserverpb__MemberListResponse *r;
    char *cluster = ctl_print(c, "%s", "");
    int code;

    req.has_linearizable = req.linearizable = true;
    code = ctl_ask(c, BNS_ETCD_MEMBER_LIST, &req.base, &r);
    if (code != CTL_OK)
        return code;
    for (size_t i = 0; i < r->n_members; i++) {
        const Etcdserverpb__Member *m = r->members[i];
        const char *called = m->id == id ? name : m->name == NULL ? "" : m->name;

        for (size_t k = 0; k < m->n_peerurls; k++)
            cluster = ctl_print(c, "%s%s%s=%s", cluster, cluster[0] == '\0' ? "" : ",", called,
                                m->peerurls[k]);
    }
    (void)printf("\nETCD_NAME=\"%s\"\nETCD_INITIAL_CLUSTER=\"%s\"\n"
                 "ETCD_INITIAL_ADVERTISE_PEER_URLS=\"%s\"\n"
                 "ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
                 name, cluster, c->f.peer_urls);
    return CTL_OK;
}

int ctl_member_add(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__MemberAddRequest req = ETCDSERVERPB__MEMBER_ADD_REQUEST__INIT;
    Etcdserverpb__MemberAddResponse *r;
    int code;

    if (argc < 1)
        return ctl_fail(CTL_ARGS, "member name not provided");
    if (argc > 1)
        return ctl_fail(CTL_ARGS, "too many arguments");
    if (c->f.peer_urls[0] == '\0')
        return ctl_fail(CTL_ARGS, "member peer urls not provided");
    req.n_peerurls = ctl_split(c, c->f.peer_urls, &req.peerurls);
    req.has_islearner = req.islearner = c->f.learner;
    code = ctl_format(c, false);
    if (code == CTL_OK)
        code = ctl_ask(c, BNS_ETCD_MEMBER_ADD, &req.base, &r);
    if (code != CTL_OK || ctl_out_other(c, &r->base))
        return code;
    if (r->member == NULL)
        return ctl_fail(CTL_ERROR, "the server did not say which member it has added");
    (void)printf("Member %16" PRIx64 " added to cluster %16" PRIx64 "\n", r->member->id,
                 r->header == NULL ? 0 : r->header->cluster_id);
    return print_environment(c, r->member->id, argv[0]);
}

/* ---- alarms ---------------------------------------------------------------------------------- */

static int alarm(struct ctl *c, int argc, Etcdserverpb__AlarmRequest__AlarmAction action)
{
    static const char *const names[] = {"NONE", "NOSPACE", "CORRUPT"};
    Etcdserverpb__AlarmRequest req = ETCDSERVERPB__ALARM_REQUEST__INIT;
    Etcdserverpb__AlarmResponse *r;
    int code;

    if (argc != 0)
        return ctl_fail(CTL_ARGS, "alarm %s command accepts no arguments",
                        action == ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__GET ? "list"
                                                                                 : "disarm");
    req.has_action = true;
    req.action = action;
    code = ctl_format(c, false);
    if (code == CTL_OK)
        code = ctl_ask(c, BNS_ETCD_ALARM, &req.base, &r);
    if (code != CTL_OK)
        return code;
    if (c->out == CTL_JSON || c->out == CTL_PROTOBUF) {
        (void)ctl_out_other(c, &r->base);
        return CTL_OK;
    }
    if (c->out == CTL_FIELDS)
        ctl_out_header(r->header);
    for (size_t i = 0; i < r->n_alarms; i++) {
        const char *name = (unsigned)r->alarms[i]->alarm < 3 ? names[r->alarms[i]->alarm] : "?";

        if (c->out == CTL_FIELDS)
            (void)printf("\"MemberID\" : %" PRIu64 "\n\"AlarmType\" : %s\n\n",
                         r->alarms[i]->memberid, name);
        else
            (void)printf("memberID:%" PRIu64 " alarm:%s \n", r->alarms[i]->memberid, name);
    }
    return CTL_OK;
}

int ctl_alarm_list(struct ctl *c, int argc, char **argv)
{
    (void)argv;
    return alarm(c, argc, ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__GET);
}

/* One after the other, each that is there: that is how etcd's client does it, too. */
int ctl_alarm_disarm(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__AlarmRequest get = ETCDSERVERPB__ALARM_REQUEST__INIT;
    Etcdserverpb__AlarmResponse *r, all = ETCDSERVERPB__ALARM_RESPONSE__INIT;
    int code;

    (void)argv;
    if (argc != 0)
        return alarm(c, argc, ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE);
    code = ctl_format(c, false);
    if (code == CTL_OK)
        code = ctl_ask(c, BNS_ETCD_ALARM, &get.base, &r);
    for (size_t i = 0; code == CTL_OK && i < r->n_alarms; i++) {
        Etcdserverpb__AlarmRequest off = ETCDSERVERPB__ALARM_REQUEST__INIT;
        void *ignored;

        off.has_action = off.has_memberid = off.has_alarm = true;
        off.action = ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE;
        off.memberid = r->alarms[i]->memberid;
        off.alarm = r->alarms[i]->alarm;
        code = ctl_ask(c, BNS_ETCD_ALARM, &off.base, &ignored);
        if (code == CTL_OK && c->out == CTL_SIMPLE)
            (void)printf("memberID:%" PRIu64 " alarm:%s \n", off.memberid,
                         off.alarm == ETCDSERVERPB__ALARM_TYPE__NOSPACE ? "NOSPACE" : "CORRUPT");
    }
    if (code != CTL_OK || c->out == CTL_SIMPLE)
        return code;
    all.alarms = r->alarms;
    all.n_alarms = r->n_alarms;
    if (c->out == CTL_JSON || c->out == CTL_PROTOBUF)
        (void)ctl_out_other(c, &all.base);
    return CTL_OK;
}
