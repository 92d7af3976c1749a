/* out.c - forms of output that many verbs share: what etcdctl prints as simple and as fields. */
#include "cli.h"

#include <inttypes.h>
#include <stdlib.h>

#include "codec/pb.h"

void ctl_out_bytes(struct ctl *c, const ProtobufCBinaryData *b)
{
    if (!c->f.hex) {
        (void)fwrite(b->data, 1, b->len, stdout);
        return;
    }
    for (size_t i = 0; i < b->len; i++)
        (void)printf("\\x%02x", b->data[i]);
}

/* Bytes of a valid UTF-8 sequence at p, 0: none is. */
static size_t utf8_len(const uint8_t *p, size_t n)
{
    size_t len = *p < 0x80 ? 1 : *p >= 0xc2 && *p < 0xe0 ? 2 : *p >= 0xe0 && *p < 0xf0 ? 3 : 0;

    if (*p >= 0xf0 && *p < 0xf5)
        len = 4;
    if (len == 0 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return len;
}

static void quote(FILE *to, const uint8_t *p, size_t n)
{
    static const char from[] = "\a\b\f\n\r\t\v\"\\", letters[] = "abfnrtv\"\\";

    (void)putc('"', to);
    for (size_t i = 0; i < n;) {
        const char *found = p[i] == 0 ? NULL : strchr(from, p[i]);
        size_t len = utf8_len(p + i, n - i);

        if (found != NULL)
            (void)fprintf(to, "\\%c", letters[found - from]);
        else if (len == 0 || (len == 1 && (p[i] < 0x20 || p[i] == 0x7f)))
            (void)fprintf(to, "\\x%02x", p[i]);
        else
            (void)fwrite(p + i, 1, len, to);
        i += len == 0 ? 1 : len;
    }
    (void)putc('"', to);
}

void ctl_out_quoted(const uint8_t *p, size_t n)
{
    quote(stdout, p, n);
}

char *ctl_quoted(struct ctl *c, const char *before, const ProtobufCBinaryData *b)
{
    char *text = NULL, *kept;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    BNS_ASSERT(f != NULL);
    (void)fputs(before, f);
    quote(f, b->data, b->len);
    BNS_ASSERT(fclose(f) == 0); /* there is memory, or the process ends */
    kept = bns_arena_dup(&c->arena, text, len);
    free(text);
    BNS_ASSERT(kept != NULL);
    return kept;
}

void ctl_out_header(const Etcdserverpb__ResponseHeader *h)
{
    static const Etcdserverpb__ResponseHeader none = ETCDSERVERPB__RESPONSE_HEADER__INIT;

    if (h == NULL)
        h = &none;
    (void)printf("\"ClusterID\" : %" PRIu64 "\n\"MemberID\" : %" PRIu64 "\n\"Revision\" : %" PRId64
                 "\n\"RaftTerm\" : %" PRIu64 "\n",
                 h->cluster_id, h->member_id, h->revision, h->raft_term);
}

void ctl_out_kv(struct ctl *c, const Etcdserverpb__KeyValue *kv, bool value_only)
{
    if (!value_only) {
        ctl_out_bytes(c, &kv->key);
        (void)putchar('\n');
    }
    ctl_out_bytes(c, &kv->value);
    (void)putchar('\n');
}

void ctl_out_kv_fields(const char *prefix, const Etcdserverpb__KeyValue *kv)
{
    (void)printf("\"%sKey\" : ", prefix);
    ctl_out_quoted(kv->key.data, kv->key.len);
    (void)printf("\n\"%sCreateRevision\" : %" PRId64 "\n\"%sModRevision\" : %" PRId64
                 "\n\"%sVersion\" : %" PRId64 "\n\"%sValue\" : ",
                 prefix, kv->create_revision, prefix, kv->mod_revision, prefix, kv->version,
                 prefix);
    ctl_out_quoted(kv->value.data, kv->value.len);
    (void)printf("\n\"%sLease\" : %" PRId64 "\n", prefix, kv->lease);
}

void ctl_out_protobuf(const ProtobufCMessage *m)
{
    struct bns_buf b;

    if (m == NULL)
        return;
    bns_buf_init(&b, bns_alloc_libc(), SIZE_MAX);
    BNS_ASSERT(bns_pb_pack(m, &b) == BNS_OK); /* there is memory, or the process ends */
    (void)fwrite(b.ptr, 1, b.len, stdout);
    bns_buf_free(&b);
}

bool ctl_out_other(struct ctl *c, const ProtobufCMessage *m)
{
    if (c->out == CTL_PROTOBUF) {
        ctl_out_protobuf(m);
        return true;
    }
    if (c->out == CTL_JSON) {
        ctl_json(m);
        (void)putchar('\n');
        return true;
    }
    if (c->out == CTL_FIELDS) { /* the header is the first field of every answer */
        ctl_out_header(*(
            Etcdserverpb__ResponseHeader *const *)(const void *)((const char *)m +
                                                                 m->descriptor->fields[0].offset));
        return true;
    }
    return false;
}

void ctl_out_range(struct ctl *c, const Etcdserverpb__RangeResponse *r)
{
    if (c->out == CTL_JSON || c->out == CTL_PROTOBUF) {
        (void)ctl_out_other(c, &r->base);
        return;
    }
    if (c->out == CTL_FIELDS)
        ctl_out_header(r->header);
    for (size_t i = 0; i < r->n_kvs; i++) {
        if (c->out == CTL_FIELDS)
            ctl_out_kv_fields("", r->kvs[i]);
        else
            ctl_out_kv(c, r->kvs[i], c->f.value_only);
    }
    if (c->out == CTL_FIELDS)
        (void)printf("\"More\" : %s\n\"Count\" : %" PRId64 "\n", r->more ? "true" : "false",
                     r->count);
}

void ctl_out_put(struct ctl *c, const Etcdserverpb__PutResponse *r)
{
    if (c->out == CTL_SIMPLE) {
        (void)puts("OK");
        if (r->prev_kv != NULL)
            ctl_out_kv(c, r->prev_kv, false);
    } else if (ctl_out_other(c, &r->base) && c->out == CTL_FIELDS && r->prev_kv != NULL) {
        ctl_out_kv_fields("Prev", r->prev_kv);
    }
}

void ctl_out_del(struct ctl *c, const Etcdserverpb__DeleteRangeResponse *r)
{
    if (c->out == CTL_JSON || c->out == CTL_PROTOBUF) {
        (void)ctl_out_other(c, &r->base);
        return;
    }
    if (c->out == CTL_FIELDS) {
        ctl_out_header(r->header);
        (void)printf("\"Deleted\" : %" PRId64 "\n", r->deleted);
    } else {
        (void)printf("%" PRId64 "\n", r->deleted);
    }
    for (size_t i = 0; i < r->n_prev_kvs; i++) {
        if (c->out == CTL_FIELDS)
            ctl_out_kv_fields("Prev", r->prev_kvs[i]);
        else
            ctl_out_kv(c, r->prev_kvs[i], false);
    }
}

static void out_op(struct ctl *c, const Etcdserverpb__ResponseOp *op)
{
    if (c->out == CTL_SIMPLE)
        (void)putchar('\n');
    switch (op->response_case) {
    case ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_RANGE:
        ctl_out_range(c, op->response_range);
        break;
    case ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_PUT:
        ctl_out_put(c, op->response_put);
        break;
    case ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_DELETE_RANGE:
        ctl_out_del(c, op->response_delete_range);
        break;
    default:
        break; /* txn asks for nothing else */
    }
}

void ctl_out_txn(struct ctl *c, const Etcdserverpb__TxnResponse *r)
{
    if (c->out == CTL_JSON || c->out == CTL_PROTOBUF) {
        (void)ctl_out_other(c, &r->base);
        return;
    }
    if (c->out == CTL_FIELDS) {
        ctl_out_header(r->header);
        (void)printf("\"Succeeded\" : %s\n", r->succeeded ? "true" : "false");
    } else {
        (void)puts(r->succeeded ? "SUCCESS" : "FAILURE");
    }
    for (size_t i = 0; i < r->n_responses; i++)
        out_op(c, r->responses[i]);
}

/* A decimal fraction without the zeros at its end: 2.491459 of 2491459 with 6 digits. */
static char *fraction(struct ctl *c, uint64_t v, unsigned digits, const char *unit)
{
    uint64_t scale = 1;
    char *text, *end;

    for (unsigned i = 0; i < digits; i++)
        scale *= 10;
    if (v % scale == 0)
        return ctl_print(c, "%" PRIu64 "%s", v / scale, unit);
    text = ctl_print(c, "%" PRIu64 ".%0*" PRIu64, v / scale, (int)digits, v % scale);
    for (end = text + strlen(text); end[-1] == '0';)
        *--end = '\0';
    return ctl_print(c, "%s%s", text, unit);
}

const char *ctl_duration(struct ctl *c, uint64_t ns)
{
    uint64_t m = ns / BNS_SEC / 60;
    char *s;

    if (ns < 1000)
        return ctl_print(c, ns == 0 ? "0s" : "%uns", (unsigned)ns);
    if (ns < 1000000)
        return fraction(c, ns, 3, "µs");
    if (ns < BNS_SEC)
        return fraction(c, ns, 6, "ms");
    s = fraction(c, ns % (60 * BNS_SEC), 9, "s");
    if (m >= 60)
        return ctl_print(c, "%" PRIu64 "h%" PRIu64 "m%s", m / 60, m % 60, s);
    return m > 0 ? ctl_print(c, "%" PRIu64 "m%s", m, s) : s;
}

const char *ctl_bytes(struct ctl *c, int64_t n)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    double v = (double)(n < 0 ? 0 : n);
    size_t unit = 0;

    if (n < 10)
        return ctl_print(c, "%" PRId64 " B", n);
    for (; v >= 1000 && unit < 5; unit++)
        v /= 1000;
    v = (double)(int64_t)(v * 10 + 0.5) / 10;
    return ctl_print(c, v < 10 ? "%.1f %s" : "%.0f %s", v, units[unit]);
}
