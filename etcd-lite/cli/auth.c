/* auth.c - auth enable, user and role, but what is in plain.c. */
#include "cli.h"

#include <inttypes.h>

/* Asks, and prints JSON or fields; when it returns CTL_OK and *simple, the text is the caller's. */
static int ask(struct ctl *c, enum bns_etcd_method m, const ProtobufCMessage *req, bool *simple)
{
    void *msg = NULL;
    int code = ctl_format(c, false);

    *simple = false;
    if (code == CTL_OK)
        code = ctl_ask(c, m, req, &msg);
    if (code == CTL_OK)
        *simple = !ctl_out_other(c, msg);
    return code;
}

static int said(struct ctl *c, enum bns_etcd_method m, const ProtobufCMessage *req,
                const char *text)
{
    bool simple;
    int code = ask(c, m, req, &simple);

    if (simple)
        (void)puts(text);
    return code;
}

/* ---- auth enable ----------------------------------------------------------------------------- */

static int status_of(struct ctl *c, enum bns_etcd_method m, const ProtobufCMessage *req,
                     const char **text)
{
    struct ctl_reply r = ctl_ask_at(c, c->etcd, m, req);

    *text = r.text;
    return r.status;
}

/* As etcdctl: a root that has not the role root is given it (the role is made), and again. */
int ctl_auth_enable(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__AuthEnableRequest enable = ETCDSERVERPB__AUTH_ENABLE_REQUEST__INIT;
    Etcdserverpb__AuthRoleAddRequest add = ETCDSERVERPB__AUTH_ROLE_ADD_REQUEST__INIT;
    Etcdserverpb__AuthUserGrantRoleRequest grant = ETCDSERVERPB__AUTH_USER_GRANT_ROLE_REQUEST__INIT;
    char root[] = "root";
    const char *text = "";
    int status;

    (void)argv;
    if (argc != 0)
        return ctl_fail(CTL_ARGS, "auth enable command does not accept any arguments");
    if (ctl_format(c, true) != CTL_OK) /* any of them, and the line is the same */
        return CTL_FEATURE;
    if (ctl_connect(c) != CTL_OK)
        return CTL_ARGS;
    add.name = grant.user = grant.role = root;
    status = status_of(c, BNS_ETCD_AUTH_ENABLE, &enable.base, &text);
    if (strcmp(text, "etcdserver: root user does not have root role") == 0) {
        status = status_of(c, BNS_ETCD_ROLE_ADD, &add.base, &text);
        if (status == BNS_GRPC_OK)
            status = status_of(c, BNS_ETCD_USER_GRANT, &grant.base, &text);
        if (status == BNS_GRPC_OK)
            status = status_of(c, BNS_ETCD_AUTH_ENABLE, &enable.base, &text);
    }
    if (status != BNS_GRPC_OK)
        return ctl_reply_fail(c, status, text);
    (void)puts("Authentication Enabled");
    return CTL_OK;
}

/* ---- users ----------------------------------------------------------------------------------- */

/* Asked for twice at a terminal, else read once; NULL: the error was said. */
static const char *new_password(struct ctl *c, const char *user)
{
    const char *once, *twice;

    if (!c->f.interactive) {
        once = ctl_stdin(c, true);
        return once == NULL ? "" : once;
    }
    once = ctl_password(c, ctl_print(c, "Password of %s: ", user));
    twice = ctl_password(c, ctl_print(c, "Type password of %s again for confirmation: ", user));
    if (once == NULL || twice == NULL || strcmp(once, twice) != 0) {
        (void)ctl_fail(CTL_ARGS, "given passwords are different");
        return NULL;
    }
    return once;
}

int ctl_user_add(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__AuthUserAddRequest req = ETCDSERVERPB__AUTH_USER_ADD_REQUEST__INIT;
    Etcdserverpb__UserAddOptions options = ETCDSERVERPB__USER_ADD_OPTIONS__INIT;
    char *colon;

    if (argc != 1)
        return ctl_fail(CTL_ARGS, "user add command requires user name as its argument");
    colon = strchr(argv[0], ':');
    req.name = argv[0];
    if (c->f.no_password) {
        options.has_no_password = options.no_password = true;
        req.options = &options;
    } else if (c->f.new_password[0] != '\0') {
        req.password = (char *)(uintptr_t)c->f.new_password;
    } else if (colon == NULL) {
        req.password = (char *)(uintptr_t)new_password(c, argv[0]);
        if (req.password == NULL)
            return CTL_ARGS;
    } else {
        *colon = '\0';
        req.password = colon + 1;
        if (argv[0][0] == '\0')
            return ctl_fail(CTL_ARGS, "empty user name is not allowed");
    }
    return said(c, BNS_ETCD_USER_ADD, &req.base, ctl_print(c, "User %s created", req.name));
}

static int print_role(struct ctl *c, const char *name);

int ctl_user_get(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__AuthUserGetRequest req = ETCDSERVERPB__AUTH_USER_GET_REQUEST__INIT;
    Etcdserverpb__AuthUserGetResponse *r;
    int code;

    if (argc != 1)
        return ctl_fail(CTL_ARGS, "user get command requires user name as its argument");
    req.name = argv[0];
    code = ctl_format(c, false);
    if (code == CTL_OK && c->out == CTL_FIELDS)
        return ctl_fail(CTL_FEATURE, "fields not supported as output format");
    if (code == CTL_OK)
        code = ctl_ask(c, BNS_ETCD_USER_GET, &req.base, &r);
    if (code != CTL_OK)
        return code;
    if (c->f.detail) {
        (void)printf("User: %s\n", argv[0]);
        for (size_t i = 0; i < r->n_roles && code == CTL_OK; i++) {
            (void)putchar('\n');
            code = print_role(c, r->roles[i]);
        }
        return code;
    }
    if (ctl_out_other(c, &r->base))
        return CTL_OK;
    (void)printf("User: %s\nRoles:", argv[0]);
    for (size_t i = 0; i < r->n_roles; i++)
        (void)printf(" %s", r->roles[i]);
    (void)putchar('\n');
    return CTL_OK;
}

int ctl_user_list(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__AuthUserListRequest req = ETCDSERVERPB__AUTH_USER_LIST_REQUEST__INIT;
    Etcdserverpb__AuthUserListResponse *r;
    int code;

    (void)argv;
    if (argc != 0)
        return ctl_fail(CTL_ARGS, "user list command requires no arguments");
    code = ctl_format(c, false);
    if (code == CTL_OK && c->out == CTL_FIELDS)
        return ctl_fail(CTL_FEATURE, "fields not supported as output format");
    if (code == CTL_OK)
        code = ctl_ask(c, BNS_ETCD_USER_LIST, &req.base, &r);
    if (code != CTL_OK || ctl_out_other(c, &r->base))
        return code;
    for (size_t i = 0; i < r->n_users; i++)
        (void)puts(r->users[i]);
    return CTL_OK;
}

int ctl_user_passwd(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__AuthUserChangePasswordRequest req =
        ETCDSERVERPB__AUTH_USER_CHANGE_PASSWORD_REQUEST__INIT;

    if (argc != 1)
        return ctl_fail(CTL_ARGS, "user passwd command requires user name as its argument");
    req.name = argv[0];
    req.password = (char *)(uintptr_t)new_password(c, argv[0]);
    if (req.password == NULL)
        return CTL_ARGS;
    return said(c, BNS_ETCD_USER_PASSWORD, &req.base, "Password updated");
}

/* ---- roles ----------------------------------------------------------------------------------- */

/* "[a, b)", with the prefix that it is, if it is one; or "[a, <open ended>". */
static void print_permission(const Etcdserverpb__Permission *p)
{
    uint8_t end[256];
    struct bns_slice key = {p->key.data, p->key.len}, want;

    (void)putchar('\t');
    if (p->range_end.len == 0) {
        (void)fwrite(p->key.data, 1, p->key.len, stdout);
        (void)putchar('\n');
        return;
    }
    (void)printf("[%.*s, ", (int)p->key.len, (const char *)p->key.data);
    if (p->range_end.len == 1 && p->range_end.data[0] == 0) {
        (void)fputs("<open ended>", stdout);
        if (p->key.len == 0 || (p->key.len == 1 && p->key.data[0] == 0))
            (void)fputs(" (prefix )", stdout);
    } else {
        (void)printf("%.*s)", (int)p->range_end.len, (const char *)p->range_end.data);
        want = p->key.len > 0 && p->key.len < sizeof end ? bns_etcd_prefix_end(key, end)
                                                         : bns_slice(NULL, 0);
        if (bns_slice_eq(want, bns_slice(p->range_end.data, p->range_end.len)))
            (void)printf(" (prefix %.*s)", (int)p->key.len, (const char *)p->key.data);
    }
    (void)putchar('\n');
}

static void role_simple(const char *name, const Etcdserverpb__AuthRoleGetResponse *r)
{
    (void)printf("Role %s\n", name);
    for (int write = 0; write < 2; write++) {
        (void)puts(write ? "KV Write:" : "KV Read:");
        for (size_t i = 0; i < r->n_perm; i++) {
            if (r->perm[i]->permtype == ETCDSERVERPB__PERMISSION__TYPE__READWRITE ||
                (int)r->perm[i]->permtype == write)
                print_permission(r->perm[i]);
        }
    }
}

static void role_fields(const Etcdserverpb__AuthRoleGetResponse *r)
{
    static const char *const names[] = {"READ", "WRITE", "READWRITE"};

    ctl_out_header(r->header);
    for (size_t i = 0; i < r->n_perm; i++) {
        const Etcdserverpb__Permission *p = r->perm[i];

        (void)printf("\"PermType\" :  %s\n\"Key\" : ",
                     (unsigned)p->permtype < 3 ? names[p->permtype] : "?");
        ctl_out_quoted(p->key.data, p->key.len);
        (void)fputs("\n\"RangeEnd\" : ", stdout);
        ctl_out_quoted(p->range_end.data, p->range_end.len);
        (void)putchar('\n');
    }
}

static int print_role(struct ctl *c, const char *name)
{
    Etcdserverpb__AuthRoleGetRequest req = ETCDSERVERPB__AUTH_ROLE_GET_REQUEST__INIT;
    Etcdserverpb__AuthRoleGetResponse *r;
    int code;

    req.role = (char *)(uintptr_t)name;
    code = ctl_ask(c, BNS_ETCD_ROLE_GET, &req.base, &r);
    if (code != CTL_OK)
        return code;
    if (c->out == CTL_FIELDS)
        role_fields(r);
    else if (!ctl_out_other(c, &r->base))
        role_simple(name, r);
    return CTL_OK;
}

int ctl_role_get(struct ctl *c, int argc, char **argv)
{
    int code;

    if (argc != 1)
        return ctl_fail(CTL_ARGS, "role get command requires role name as its argument");
    code = ctl_format(c, false);
    return code == CTL_OK ? print_role(c, argv[0]) : code;
}

int ctl_role_list(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__AuthRoleListRequest req = ETCDSERVERPB__AUTH_ROLE_LIST_REQUEST__INIT;
    Etcdserverpb__AuthRoleListResponse *r;
    int code;

    (void)argv;
    if (argc != 0)
        return ctl_fail(CTL_ARGS, "role list command requires no arguments");
    code = ctl_format(c, false);
    if (code == CTL_OK)
        code = ctl_ask(c, BNS_ETCD_ROLE_LIST, &req.base, &r);
    if (code != CTL_OK)
        return code;
    if (c->out == CTL_FIELDS) {
        ctl_out_header(r->header);
        (void)fputs("\"Roles\" :", stdout);
        for (size_t i = 0; i < r->n_roles; i++) {
            (void)putchar(' ');
            ctl_out_quoted((const uint8_t *)r->roles[i], strlen(r->roles[i]));
        }
        (void)putchar('\n');
    } else if (!ctl_out_other(c, &r->base)) {
        for (size_t i = 0; i < r->n_roles; i++)
            (void)puts(r->roles[i]);
    }
    return CTL_OK;
}

/* Key and end from words and --prefix, --from-key. CTL_ARGS: said what is wrong. */
static int key_range(struct ctl *c, int argc, char **argv, ProtobufCBinaryData *key,
                     ProtobufCBinaryData *end)
{
    struct bns_slice k = bns_slice_str(argv[0]);
    uint8_t *dst;

    if (argc > 1 && c->f.prefix)
        return ctl_fail(CTL_ARGS, "unexpected endkey argument with --prefix flag");
    if (argc > 1 && c->f.from_key)
        return ctl_fail(CTL_ARGS, "unexpected endkey argument with --from-key flag");
    if (c->f.prefix && c->f.from_key)
        return ctl_fail(CTL_ARGS, "--from-key and --prefix flags are mutually exclusive");
    *key = (ProtobufCBinaryData){k.len, (uint8_t *)(uintptr_t)k.ptr};
    if (argc > 1) {
        *end = (ProtobufCBinaryData){strlen(argv[1]), (uint8_t *)argv[1]};
        return CTL_OK;
    }
    if (!c->f.prefix && !c->f.from_key)
        return CTL_OK;
    if (k.len == 0)
        *key = (ProtobufCBinaryData){1, (uint8_t *)(uintptr_t) ""};
    *end = (ProtobufCBinaryData){1, (uint8_t *)(uintptr_t) ""};
    if (c->f.prefix && k.len > 0) {
        dst = bns_arena_alloc(&c->arena, k.len);
        BNS_ASSERT(dst != NULL);
        k = bns_etcd_prefix_end(k, dst);
        *end = (ProtobufCBinaryData){k.len, (uint8_t *)(uintptr_t)k.ptr};
    }
    return CTL_OK;
}

int ctl_role_grant(struct ctl *c, int argc, char **argv)
{
    static const char *const types[] = {"read", "write", "readwrite"};
    Etcdserverpb__AuthRoleGrantPermissionRequest req =
        ETCDSERVERPB__AUTH_ROLE_GRANT_PERMISSION_REQUEST__INIT;
    Etcdserverpb__Permission perm = ETCDSERVERPB__PERMISSION__INIT;
    int type = -1, code;

    if (argc < 3)
        return ctl_fail(CTL_ARGS, "role grant command requires role name, permission type, and key "
                                  "[endkey] as its argument");
    for (int i = 0; i < 3; i++)
        type = strcmp(argv[1], types[i]) == 0 ? i : type;
    if (type < 0)
        return ctl_fail(CTL_ARGS, "invalid permission type: %s", argv[1]);
    code = key_range(c, argc - 2, argv + 2, &perm.key, &perm.range_end);
    if (code != CTL_OK)
        return code;
    perm.has_permtype = perm.has_key = true;
    perm.permtype = (Etcdserverpb__Permission__Type)type;
    perm.has_range_end = perm.range_end.len > 0;
    req.name = argv[0];
    req.perm = &perm;
    return said(c, BNS_ETCD_ROLE_GRANT, &req.base, ctl_print(c, "Role %s updated", argv[0]));
}

int ctl_role_revoke(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__AuthRoleRevokePermissionRequest req =
        ETCDSERVERPB__AUTH_ROLE_REVOKE_PERMISSION_REQUEST__INIT;
    const char *text;
    int code;

    if (argc < 2)
        return ctl_fail(CTL_ARGS, "role revoke-permission command requires role name and key "
                                  "[endkey] as its argument");
    code = key_range(c, argc - 1, argv + 1, &req.key, &req.range_end);
    if (code != CTL_OK)
        return code;
    req.role = argv[0];
    req.has_key = true;
    req.has_range_end = req.range_end.len > 0;
    text = ctl_print(c, "Permission of key %s is revoked from role %s", argv[1], argv[0]);
    if (req.range_end.len == 1 && req.range_end.data[0] == 0)
        text = ctl_print(c, "Permission of range [%s, <open ended> is revoked from role %s",
                         argv[1], argv[0]);
    else if (req.has_range_end)
        text = ctl_print(c, "Permission of range [%s, %.*s) is revoked from role %s", argv[1],
                         (int)req.range_end.len, (const char *)req.range_end.data, argv[0]);
    return said(c, BNS_ETCD_ROLE_REVOKE, &req.base, text);
}
