/* txn.c - a transaction, read line by line: comparisons, a blank line, what is done if they hold,
 * a blank line, what is done if not, a blank line.
 *
 *     value("a") = "1"        version create mod value lease; = != < >
 *     put a "two words"       get, put, del with the flags of those verbs
 */
#include "cli.h"

#define REQUESTS_MAX 4096u
#define WORDS_MAX 128

/* ---- words ----------------------------------------------------------------------------------- */

static int hex_of(char ch)
{
    if (ch >= '0' && ch <= '9')
        return ch - '0';
    ch = (char)(ch | 0x20);
    return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

/* A text in double quotes as Go reads it; *in stands behind it. NULL: it is none. */
static char *unquote(struct ctl *c, const char **in)
{
    static const char from[] = "abfnrtv\"\\'", to[] = "\a\b\f\n\r\t\v\"\\'";
    const char *p = *in;
    char *out = bns_arena_alloc(&c->arena, strlen(p) + 1), *dst = out;

    BNS_ASSERT(out != NULL);
    if (*p++ != '"')
        return NULL;
    for (; *p != '"'; p++) {
        const char *found;

        if (*p == '\0')
            return NULL;
        if (*p != '\\') {
            *dst++ = *p;
            continue;
        }
        p++;
        found = *p == '\0' ? NULL : strchr(from, *p);
        if (found != NULL) {
            *dst++ = to[found - from];
        } else if (*p == 'x' && hex_of(p[1]) >= 0 && hex_of(p[2]) >= 0) {
            *dst++ = (char)(hex_of(p[1]) * 16 + hex_of(p[2]));
            p += 2;
        } else {
            return NULL;
        }
    }
    *dst = '\0';
    *in = p + 1;
    return out;
}

char **ctl_words(struct ctl *c, const char *line, int *count)
{
    char **words = bns_arena_alloc(&c->arena, (WORDS_MAX + 1) * sizeof *words);

    BNS_ASSERT(words != NULL);
    *count = 0;
    while (*count < WORDS_MAX) {
        const char *p = line + strspn(line, " \t\r\n"), *end;

        line = p;
        if (*p == '\0')
            break;
        if (*p == '"' && (words[*count] = unquote(c, &line)) != NULL) {
            ++*count;
            continue;
        }
        end = *p == '\'' ? strchr(p + 1, '\'') : NULL;
        if (end != NULL) {
            words[(*count)++] = bns_arena_dup(&c->arena, p + 1, (size_t)(end - p - 1));
            line = end + 1;
            continue;
        }
        end = p + strcspn(p, " \t\r\n");
        words[(*count)++] = bns_arena_dup(&c->arena, p, (size_t)(end - p));
        line = end;
    }
    words[*count] = NULL;
    return words;
}

/* A line without the blanks around it; NULL at the end. */
static const char *next_line(struct ctl *c)
{
    const char *line = ctl_stdin(c, true), *end;

    if (line == NULL)
        return NULL;
    line += strspn(line, " \t\r\n");
    for (end = line + strlen(line); end > line && strchr(" \t\r\n", end[-1]) != NULL;)
        end--;
    return bns_arena_dup(&c->arena, line, (size_t)(end - line));
}

/* ---- comparisons ----------------------------------------------------------------------------- */

struct target {
    const char *name, *alias;
    Etcdserverpb__Compare__CompareTarget target;
    Etcdserverpb__Compare__TargetUnionCase which;
};
static const struct target targets[] = {
    {"ver", "version", ETCDSERVERPB__COMPARE__COMPARE_TARGET__VERSION,
     ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION},
    {"c", "create", ETCDSERVERPB__COMPARE__COMPARE_TARGET__CREATE,
     ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION},
    {"m", "mod", ETCDSERVERPB__COMPARE__COMPARE_TARGET__MOD,
     ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION},
    {"val", "value", ETCDSERVERPB__COMPARE__COMPARE_TARGET__VALUE,
     ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE},
    {"lease", "lease", ETCDSERVERPB__COMPARE__COMPARE_TARGET__LEASE,
     ETCDSERVERPB__COMPARE__TARGET_UNION_LEASE},
};

static bool set_target(Etcdserverpb__Compare *cmp, const struct target *t, const char *value)
{
    int64_t n = 0;

    cmp->target = t->target;
    cmp->target_union_case = t->which;
    if (t->which == ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE) {
        cmp->value = (ProtobufCBinaryData){strlen(value), (uint8_t *)(uintptr_t)value};
        return true;
    }
    if (ctl_parse_int(value, t->which == ETCDSERVERPB__COMPARE__TARGET_UNION_LEASE ? 16 : 10, &n,
                      NULL) != BNS_OK)
        return false;
    cmp->version = n; /* all of them lie there */
    return true;
}

static int compare(struct ctl *c, const char *line, Etcdserverpb__Compare *cmp)
{
    static const char *const ops[] = {"=", ">", "<", "!="};
    const char *open = strchr(line, '('), *p, *key, *value = NULL, *op = "";
    int found = -1;

    etcdserverpb__compare__init(cmp);
    if (open == NULL || strchr(open, ')') == NULL)
        return ctl_fail(CTL_INPUT, "malformed comparison: %s", line);
    p = open + 1;
    key = unquote(c, &p);
    if (key != NULL && *p++ == ')') {
        size_t len;

        p += strspn(p, " ");
        len = strcspn(p, " \"");
        op = bns_arena_dup(&c->arena, p, len);
        p += len;
        p += strspn(p, " ");
        value = unquote(c, &p);
    }
    for (int i = 0; i < 4; i++)
        found = strcmp(op, ops[i]) == 0 ? i : found;
    if (value == NULL || found < 0)
        return ctl_fail(CTL_INPUT, "malformed comparison: %s; got %.*s(\"%s\") %s \"%s\"", line,
                        (int)(open - line), line, key == NULL ? "" : key, op,
                        value == NULL ? "" : value);
    cmp->has_key = cmp->has_target = cmp->has_result = true;
    cmp->key = (ProtobufCBinaryData){strlen(key), (uint8_t *)(uintptr_t)key};
    cmp->result = (Etcdserverpb__Compare__CompareResult)found;
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        size_t len = (size_t)(open - line);

        if ((strlen(targets[i].name) == len && memcmp(line, targets[i].name, len) == 0) ||
            (strlen(targets[i].alias) == len && memcmp(line, targets[i].alias, len) == 0))
            return set_target(cmp, &targets[i], value)
                       ? CTL_OK
                       : ctl_fail(CTL_INPUT, "invalid txn compare request: %s", line);
    }
    return ctl_fail(CTL_INPUT, "malformed comparison: %s (unknown target %.*s)", line,
                    (int)(open - line), line);
}

static int read_compares(struct ctl *c, Etcdserverpb__TxnRequest *txn)
{
    const char *line;

    while ((line = next_line(c)) != NULL && *line != '\0') {
        Etcdserverpb__Compare *cmp = bns_arena_alloc(&c->arena, sizeof *cmp);
        int code;

        BNS_ASSERT(cmp != NULL);
        if (txn->n_compare == REQUESTS_MAX)
            return ctl_fail(CTL_INPUT, "too many comparisons");
        code = compare(c, line, cmp);
        if (code != CTL_OK)
            return code;
        txn->compare[txn->n_compare++] = cmp;
    }
    return line == NULL ? ctl_fail(CTL_INPUT, "EOF") : CTL_OK;
}

/* ---- requests -------------------------------------------------------------------------------- */

static int request(struct ctl *c, const char *line, Etcdserverpb__RequestOp *op)
{
    const struct ctl_flag *flags;
    struct ctl_flags was = c->f;
    struct bns_err err = {0};
    int argc, code = CTL_INPUT;
    char **argv = ctl_words(c, line, &argc);

    etcdserverpb__request_op__init(op);
    if (argc < 2)
        return ctl_fail(CTL_INPUT, "invalid txn compare request: %s", line);
    flags = strcmp(argv[0], "get") == 0   ? ctl_get_flags
            : strcmp(argv[0], "put") == 0 ? ctl_put_flags
            : strcmp(argv[0], "del") == 0 ? ctl_del_flags
                                          : NULL;
    if (flags == NULL)
        return ctl_fail(CTL_INPUT, "invalid txn request: %s", line);
    ctl_flags_defaults(flags, &c->f);
    argc--;
    if (ctl_flags_read(c, flags, &argc, argv + 1, &err) != BNS_OK)
        return ctl_fail(CTL_INPUT, "invalid txn request: %s", line);
    if (flags == ctl_get_flags) {
        op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE;
        op->request_range = bns_arena_alloc(&c->arena, sizeof *op->request_range);
        code = ctl_get_request(c, argc, argv + 1, op->request_range);
    } else if (flags == ctl_put_flags) {
        op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
        op->request_put = bns_arena_alloc(&c->arena, sizeof *op->request_put);
        code = ctl_put_request(c, argc, argv + 1, op->request_put);
    } else {
        op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
        op->request_delete_range = bns_arena_alloc(&c->arena, sizeof *op->request_delete_range);
        code = ctl_del_request(c, argc, argv + 1, op->request_delete_range);
    }
    c->f = was;
    return code;
}

static int read_requests(struct ctl *c, Etcdserverpb__RequestOp **ops, size_t *count)
{
    const char *line;

    while ((line = next_line(c)) != NULL && *line != '\0') {
        Etcdserverpb__RequestOp *op = bns_arena_alloc(&c->arena, sizeof *op);
        int code;

        BNS_ASSERT(op != NULL);
        if (*count == REQUESTS_MAX)
            return ctl_fail(CTL_INPUT, "too many requests");
        code = request(c, line, op);
        if (code != CTL_OK)
            return code;
        ops[(*count)++] = op;
    }
    return line == NULL ? ctl_fail(CTL_INPUT, "EOF") : CTL_OK;
}

static void prompt(struct ctl *c, const char *text)
{
    if (c->f.interactive) {
        (void)puts(text);
        (void)fflush(stdout); /* a closed terminal is nobody's loss */
    }
}

int ctl_txn(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__TxnRequest txn = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__TxnResponse *r;
    int code;

    (void)argv;
    if (argc != 0)
        return ctl_fail(CTL_ARGS, "txn command does not accept argument");
    txn.compare = bns_arena_alloc(&c->arena, REQUESTS_MAX * sizeof(void *));
    txn.success = bns_arena_alloc(&c->arena, REQUESTS_MAX * sizeof(void *));
    txn.failure = bns_arena_alloc(&c->arena, REQUESTS_MAX * sizeof(void *));
    BNS_ASSERT(txn.compare != NULL && txn.success != NULL && txn.failure != NULL);
    prompt(c, "compares:");
    code = read_compares(c, &txn);
    if (code == CTL_OK) {
        prompt(c, "success requests (get, put, del):");
        code = read_requests(c, txn.success, &txn.n_success);
    }
    if (code == CTL_OK) {
        prompt(c, "failure requests (get, put, del):");
        code = read_requests(c, txn.failure, &txn.n_failure);
    }
    if (code == CTL_OK)
        code = ctl_format(c, false);
    if (code == CTL_OK)
        code = ctl_ask(c, BNS_ETCD_TXN, &txn.base, &r);
    if (code == CTL_OK)
        ctl_out_txn(c, r);
    return code;
}
