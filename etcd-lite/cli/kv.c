/* kv.c - put, get, del, compaction. */
#include "cli.h"

#include <strings.h>

static ProtobufCBinaryData bytes_of(const char *s)
{
    return (ProtobufCBinaryData){strlen(s), (uint8_t *)(uintptr_t)s};
}

static ProtobufCBinaryData one_zero(void)
{
    return (ProtobufCBinaryData){1, (uint8_t *)(uintptr_t) ""};
}

/* The end of a range by --prefix and --from-key; an empty key means the first one. */
static void range_of(struct ctl *c, ProtobufCBinaryData *key, ProtobufCBinaryData *end)
{
    if ((c->f.prefix && key->len == 0) || c->f.from_key) {
        if (key->len == 0)
            *key = one_zero();
        *end = one_zero();
    } else if (c->f.prefix) {
        uint8_t *dst = bns_arena_alloc(&c->arena, key->len);
        struct bns_slice s;

        BNS_ASSERT(dst != NULL);
        s = bns_etcd_prefix_end(bns_slice(key->data, key->len), dst);
        *end = (ProtobufCBinaryData){s.len, (uint8_t *)(uintptr_t)s.ptr};
    }
}

/* ---- put ------------------------------------------------------------------------------------- */

int ctl_put_request(struct ctl *c, int argc, char **argv, Etcdserverpb__PutRequest *r)
{
    static const char usage[] = "put command needs 1 argument and input from stdin or 2 arguments";
    struct bns_err err = {0};
    const char *value = argc > 1 ? argv[1] : NULL;

    etcdserverpb__put_request__init(r);
    if (argc == 0)
        return ctl_fail(CTL_ARGS, usage);
    if (c->f.ignore_value && argc > 1)
        return ctl_fail(CTL_ARGS, "put command needs only 1 argument when 'ignore-value' is set");
    if (!c->f.ignore_value && value == NULL)
        value = ctl_stdin(c, false);
    if (!c->f.ignore_value && value == NULL)
        return ctl_fail(CTL_ARGS, usage);
    if (ctl_parse_int(c->f.lease, 16, &r->lease, &err) != BNS_OK)
        return ctl_fail(CTL_ARGS, "bad lease ID (%s), expecting ID in Hex", err.text);
    r->has_lease = r->lease != 0;
    r->has_key = true;
    r->key = bytes_of(argv[0]);
    r->has_value = value != NULL;
    if (value != NULL)
        r->value = bytes_of(value);
    r->has_prev_kv = r->prev_kv = c->f.prev_kv;
    r->has_ignore_value = r->ignore_value = c->f.ignore_value;
    r->has_ignore_lease = r->ignore_lease = c->f.ignore_lease;
    return CTL_OK;
}

int ctl_put(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__PutRequest req;
    Etcdserverpb__PutResponse *r;
    int code = ctl_put_request(c, argc, argv, &req);

    if (code == CTL_OK)
        code = ctl_format(c, false);
    if (code == CTL_OK)
        code = ctl_ask(c, BNS_ETCD_PUT, &req.base, &r);
    if (code == CTL_OK)
        ctl_out_put(c, r);
    return code;
}

/* ---- get ------------------------------------------------------------------------------------- */

static int sort_of(struct ctl *c, Etcdserverpb__RangeRequest *r)
{
    static const char *const orders[] = {"", "ASCEND", "DESCEND"}, *const targets[] = {
                                                                       "KEY", "VERSION", "CREATE",
                                                                       "MODIFY", "VALUE"};
    int order = -1, target = c->f.sort_by[0] == '\0' ? 0 : -1;

    for (int i = 0; i < 3; i++)
        order = strcasecmp(c->f.order, orders[i]) == 0 ? i : order;
    for (int i = 0; i < 5; i++)
        target = strcasecmp(c->f.sort_by, targets[i]) == 0 ? i : target;
    if (order < 0)
        return ctl_fail(CTL_FEATURE, "bad sort order %s", c->f.order);
    if (target < 0)
        return ctl_fail(CTL_FEATURE, "bad sort target %s", c->f.sort_by);
    if (target == 0 && order == 1)
        order = 0; /* that is how it comes */
    r->has_sort_order = order > 0;
    r->sort_order = (Etcdserverpb__RangeRequest__SortOrder)order;
    r->has_sort_target = target > 0;
    r->sort_target = (Etcdserverpb__RangeRequest__SortTarget)target;
    return CTL_OK;
}

int ctl_get_request(struct ctl *c, int argc, char **argv, Etcdserverpb__RangeRequest *r)
{
    etcdserverpb__range_request__init(r);
    if (argc == 0)
        return ctl_fail(CTL_ARGS, "get command needs one argument as key and an optional argument "
                                  "as range_end");
    if (c->f.prefix && c->f.from_key)
        return ctl_fail(CTL_ARGS, "`--prefix` and `--from-key` cannot be set at the same time, "
                                  "choose one");
    if (strcmp(c->f.consistency, "s") != 0 && strcmp(c->f.consistency, "l") != 0)
        return ctl_fail(CTL_FEATURE, "unknown consistency flag \"%s\"", c->f.consistency);
    if (argc > 1 && (c->f.prefix || c->f.from_key))
        return ctl_fail(CTL_ARGS, "too many arguments, only accept one argument when `--prefix` or "
                                  "`--from-key` is set");
    r->has_serializable = r->serializable = c->f.consistency[0] == 's';
    r->has_key = true;
    r->key = bytes_of(argv[0]);
    if (argc > 1)
        r->range_end = bytes_of(argv[1]);
    r->has_limit = c->f.limit != 0;
    r->limit = c->f.limit;
    r->has_revision = c->f.rev > 0;
    r->revision = c->f.rev;
    r->has_keys_only = r->keys_only = c->f.keys_only;
    r->has_count_only = r->count_only = c->f.count_only;
    range_of(c, &r->key, &r->range_end);
    r->has_range_end = r->range_end.len > 0;
    return sort_of(c, r);
}

int ctl_get(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__RangeRequest req;
    Etcdserverpb__RangeResponse *r;
    int code = ctl_get_request(c, argc, argv, &req);

    if (code == CTL_OK)
        code = ctl_format(c, false);
    if (code == CTL_OK && c->f.at_least_rev > 0 && !req.serializable)
        return ctl_fail(CTL_ARGS, "`--at-least-rev` is for `--consistency=s`: a linearizable read "
                                  "sees all revisions");
    c->session.revision = c->f.at_least_rev;
    if (code == CTL_OK)
        code = ctl_ask(c, BNS_ETCD_RANGE, &req.base, &r);
    if (code == CTL_OK && c->f.value_only && c->out != CTL_SIMPLE)
        return ctl_fail(CTL_ARGS, "print-value-only is only for `--write-out=simple`");
    if (code == CTL_OK)
        ctl_out_range(c, r);
    return code;
}

/* ---- del ------------------------------------------------------------------------------------- */

int ctl_del_request(struct ctl *c, int argc, char **argv, Etcdserverpb__DeleteRangeRequest *r)
{
    etcdserverpb__delete_range_request__init(r);
    if (argc == 0 || argc > 2)
        return ctl_fail(CTL_ARGS, "del command needs one argument as key and an optional argument "
                                  "as range_end");
    if (c->f.prefix && c->f.from_key)
        return ctl_fail(CTL_ARGS, "`--prefix` and `--from-key` cannot be set at the same time, "
                                  "choose one");
    if (argc > 1 && (c->f.prefix || c->f.from_key))
        return ctl_fail(CTL_ARGS, "too many arguments, only accept one argument when `--prefix` or "
                                  "`--from-key` is set");
    r->has_key = true;
    r->key = bytes_of(argv[0]);
    if (argc > 1)
        r->range_end = bytes_of(argv[1]);
    r->has_prev_kv = r->prev_kv = c->f.prev_kv;
    range_of(c, &r->key, &r->range_end);
    r->has_range_end = r->range_end.len > 0;
    return CTL_OK;
}

int ctl_del(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__DeleteRangeRequest req;
    Etcdserverpb__DeleteRangeResponse *r;
    int code = ctl_del_request(c, argc, argv, &req);

    if (code == CTL_OK)
        code = ctl_format(c, false);
    if (code == CTL_OK)
        code = ctl_ask(c, BNS_ETCD_DELETE, &req.base, &r);
    if (code == CTL_OK)
        ctl_out_del(c, r);
    return code;
}

int ctl_compaction(struct ctl *c, int argc, char **argv)
{
    Etcdserverpb__CompactionRequest req = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    Etcdserverpb__CompactionResponse *r;
    struct bns_err err = {0};
    int code;

    if (argc != 1)
        return ctl_fail(CTL_ARGS, "compaction command needs 1 argument");
    if (ctl_parse_int(argv[0], 10, &req.revision, &err) != BNS_OK)
        return ctl_fail(CTL_ERROR, "%s", err.text);
    req.has_revision = true;
    req.has_physical = req.physical = c->f.physical;
    code = ctl_ask(c, BNS_ETCD_COMPACT, &req.base, &r);
    if (code == CTL_OK)
        (void)printf("compacted revision %lld\n", (long long)req.revision);
    return code;
}
