/* plain.c - the verbs that are one call and one line: most of user and role, changes of
 * members.
 *
 * One table, one frame: the words of the command line go into the fields of the request in the
 * order of their numbers, as the descriptor tells their types (a text, a member's id in hex, the
 * URLs of --peer-urls), then the line is printed: {0} and {1} are words, {id} and {cluster} are
 * numbers.
 */
#include "cli.h"

#include <inttypes.h>

struct plain {
    const char *verb;
    int words;
    const char *usage; /* when there are more or less of them */
    enum bns_etcd_method method;
    const ProtobufCMessageDescriptor *request;
    const char *said;
    bool no_format; /* -w is any that there is, and does not count */
};

static const struct plain table[] = {
    {"auth disable", 0, "auth disable command does not accept any arguments", BNS_ETCD_AUTH_DISABLE,
     &etcdserverpb__auth_disable_request__descriptor, "Authentication Disabled", true},
    {"user delete", 1, "user delete command requires user name as its argument",
     BNS_ETCD_USER_DELETE, &etcdserverpb__auth_user_delete_request__descriptor, "User {0} deleted",
     false},
    {"user grant-role", 2, "user grant command requires user name and role name as its argument",
     BNS_ETCD_USER_GRANT, &etcdserverpb__auth_user_grant_role_request__descriptor,
     "Role {1} is granted to user {0}", false},
    {"user revoke-role", 2, "user revoke-role requires user name and role name as its argument",
     BNS_ETCD_USER_REVOKE, &etcdserverpb__auth_user_revoke_role_request__descriptor,
     "Role {1} is revoked from user {0}", false},
    {"role add", 1, "role add command requires role name as its argument", BNS_ETCD_ROLE_ADD,
     &etcdserverpb__auth_role_add_request__descriptor, "Role {0} created", false},
    {"role delete", 1, "role delete command requires role name as its argument",
     BNS_ETCD_ROLE_DELETE, &etcdserverpb__auth_role_delete_request__descriptor, "Role {0} deleted",
     false},
    {"member remove", 1, "member ID is not provided", BNS_ETCD_MEMBER_REMOVE,
     &etcdserverpb__member_remove_request__descriptor, "Member {id} removed from cluster {cluster}",
     false},
    {"member update", 1, "member ID is not provided", BNS_ETCD_MEMBER_UPDATE,
     &etcdserverpb__member_update_request__descriptor, "Member {id} updated in cluster {cluster}",
     false},
    {"member promote", 1, "member ID is not provided", BNS_ETCD_MEMBER_PROMOTE,
     &etcdserverpb__member_promote_request__descriptor, "Member {id} promoted in cluster {cluster}",
     false},
};

static int member_id(const char *text, uint64_t *id)
{
    struct bns_err err = {0};

    if (ctl_parse_uint(text, 16, id, &err) != BNS_OK)
        return ctl_fail(CTL_ARGS, "bad member ID arg (%s), expecting ID in Hex", err.text);
    return CTL_OK;
}

size_t ctl_split(struct ctl *c, const char *text, char ***out)
{
    size_t n = 0;

    *out = bns_arena_alloc(&c->arena, (strlen(text) + 1) * sizeof **out);
    BNS_ASSERT(*out != NULL);
    for (; *text != '\0'; text += *text == ',') {
        size_t len = strcspn(text, ",");

        if (len > 0)
            (*out)[n++] = bns_arena_dup(&c->arena, text, len);
        text += len;
    }
    return n;
}

/* One field of the request. CTL_OK, or said what is wrong. */
static int fill(struct ctl *c, const ProtobufCFieldDescriptor *f, char *req, char *word,
                uint64_t *id)
{
    int code;

    if (f->label == PROTOBUF_C_LABEL_REPEATED) {
        if (c->f.peer_urls[0] == '\0')
            return ctl_fail(CTL_ARGS, "member peer urls not provided");
        *(size_t *)(void *)(req + f->quantifier_offset) =
            ctl_split(c, c->f.peer_urls, (char ***)(void *)(req + f->offset));
        return CTL_OK;
    }
    BNS_ASSERT(word != NULL);
    if (f->type == PROTOBUF_C_TYPE_STRING) {
        *(char **)(void *)(req + f->offset) = word;
        return CTL_OK;
    }
    BNS_ASSERT(f->type == PROTOBUF_C_TYPE_UINT64);
    code = member_id(word, id);
    *(uint64_t *)(void *)(req + f->offset) = *id;
    *(protobuf_c_boolean *)(void *)(req + f->quantifier_offset) = true;
    return code;
}

/* The header is the first field of every answer. */
static uint64_t cluster_of(const ProtobufCMessage *m)
{
    const Etcdserverpb__ResponseHeader *h =
        *(Etcdserverpb__ResponseHeader *const *)(const void *)((const char *)m +
                                                               m->descriptor->fields[0].offset);

    return h == NULL ? 0 : h->cluster_id;
}

static void say(const char *said, char **words, uint64_t id, uint64_t cluster)
{
    for (const char *p = said; *p != '\0'; p++) {
        const char *end = *p == '{' ? strchr(p, '}') : NULL;

        if (end == NULL) {
            (void)putchar(*p);
            continue;
        }
        if (p[1] == '0' || p[1] == '1')
            (void)fputs(words[p[1] - '0'], stdout);
        else
            (void)printf("%16" PRIx64, p[1] == 'i' ? id : cluster);
        p = end;
    }
    (void)putchar('\n');
}

static int run(struct ctl *c, const struct plain *t, int argc, char **argv)
{
    _Alignas(16) char req[256];
    ProtobufCMessage *m = NULL;
    uint64_t id = 0;
    int code = CTL_OK;

    if (argc != t->words)
        return ctl_fail(CTL_ARGS, "%s", t->usage);
    BNS_ASSERT(t->request->sizeof_message <= sizeof req);
    protobuf_c_message_init(t->request, req);
    for (unsigned i = 0; i < t->request->n_fields && code == CTL_OK; i++)
        code = fill(c, &t->request->fields[i], req, (int)i < argc ? argv[i] : NULL, &id);
    if (code == CTL_OK)
        code = ctl_format(c, t->no_format);
    if (code == CTL_OK)
        code = ctl_ask(c, t->method, (const ProtobufCMessage *)(const void *)req, &m);
    if (code == CTL_OK && (t->no_format || !ctl_out_other(c, m)))
        say(t->said, argv, id, cluster_of(m));
    return code;
}

int ctl_plain(struct ctl *c, int argc, char **argv)
{
    size_t i = 0;

    while (i < sizeof table / sizeof table[0] && strcmp(table[i].verb, c->verb->name) != 0)
        i++;
    BNS_ASSERT(i < sizeof table / sizeof table[0]);
    return run(c, &table[i], argc, argv);
}
