/* kvbytes.c - KeyValue{1:key 2:create_revision 3:mod_revision 4:version 5:value 6:lease} as bytes.
 * */
#include "kvbytes.h"

#include "base/varint.h"

enum { TAG_KEY = 0x0a, TAG_CREATE = 0x10, TAG_MOD = 0x18, TAG_VERSION = 0x20, TAG_VALUE = 0x2a };
enum { TAG_LEASE = 0x30 };

static size_t len_int(int64_t v)
{
    return v == 0 ? 0 : 1 + bns_varint_len((uint64_t)v);
}

static size_t len_bytes(struct bns_slice s)
{
    return s.len == 0 ? 0 : 1 + bns_varint_len(s.len) + s.len;
}

static uint8_t *put_int(uint8_t *p, uint8_t tag, int64_t v)
{
    if (v == 0)
        return p;
    *p++ = tag;
    return p + bns_varint_put(p, (uint64_t)v);
}

static uint8_t *put_bytes(uint8_t *p, uint8_t tag, struct bns_slice s)
{
    if (s.len == 0)
        return p;
    *p++ = tag;
    p += bns_varint_put(p, s.len);
    memcpy(p, s.ptr, s.len);
    return p + s.len;
}

struct bns_rcbuf *etcd_kvbytes_make(const struct bns_alloc *a, const struct etcd_kvview *v)
{
    size_t len = len_bytes(v->key) + len_int(v->create) + len_int(v->mod) + len_int(v->version) +
                 len_bytes(v->value) + len_int(v->lease);
    /* A varint is written through a full-size window: spare room behind the last one. */
    struct bns_rcbuf *b = bns_rcbuf_new(a, len + BNS_VARINT_MAX);
    uint8_t *p;

    if (b == NULL)
        return NULL;
    p = put_bytes(b->bytes, TAG_KEY, v->key);
    p = put_int(p, TAG_CREATE, v->create);
    p = put_int(p, TAG_MOD, v->mod);
    p = put_int(p, TAG_VERSION, v->version);
    p = put_bytes(p, TAG_VALUE, v->value);
    p = put_int(p, TAG_LEASE, v->lease);
    BNS_ASSERT((size_t)(p - b->bytes) == len);
    b->len = (uint32_t)len;
    return b;
}

static int take_bytes(struct bns_slice *in, struct bns_slice *out)
{
    uint64_t n;

    if (bns_varint_get(in, &n) != BNS_OK || n > in->len)
        return BNS_E_CORRUPT;
    *out = bns_slice(in->ptr, (size_t)n);
    *in = bns_slice_skip(*in, (size_t)n);
    return BNS_OK;
}

static int take_int(struct bns_slice *in, int64_t *out)
{
    uint64_t v;

    if (bns_varint_get(in, &v) != BNS_OK)
        return BNS_E_CORRUPT;
    *out = (int64_t)v;
    return BNS_OK;
}

int etcd_kvbytes_parse(struct bns_slice in, struct etcd_kvview *out)
{
    int rv = BNS_OK;

    *out = (struct etcd_kvview){{NULL, 0}, {NULL, 0}, 0, 0, 0, 0};
    while (in.len > 0 && rv == BNS_OK) {
        uint8_t tag = in.ptr[0];
        in = bns_slice_skip(in, 1);
        if (tag == TAG_KEY)
            rv = take_bytes(&in, &out->key);
        else if (tag == TAG_VALUE)
            rv = take_bytes(&in, &out->value);
        else if (tag == TAG_CREATE)
            rv = take_int(&in, &out->create);
        else if (tag == TAG_MOD)
            rv = take_int(&in, &out->mod);
        else if (tag == TAG_VERSION)
            rv = take_int(&in, &out->version);
        else if (tag == TAG_LEASE)
            rv = take_int(&in, &out->lease);
        else
            rv = BNS_E_CORRUPT;
    }
    return rv;
}
