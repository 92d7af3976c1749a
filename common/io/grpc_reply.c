/* grpc_reply.c - headers, trailers and metadata of gRPC (PROTOCOL-HTTP2, "Responses").
 *
 * Forms:   HEADERS {:status 200, content-type} DATA* HEADERS+END_STREAM {grpc-status, ...}
 *          trailers-only: one HEADERS+END_STREAM with both, the form clients take for "no answer
 *          was begun, it may be tried again".
 * Memory:  nghttp2 borrows names and values until the frame is sent; constants are static, the
 *          rest lies in the call's arena, which lives as long as the stream.
 */
#include "codec/base64.h"
#include "io/grpc_impl.h"

#define NV(n, v)                                                                                   \
    {                                                                                              \
        (uint8_t *)(uintptr_t)(n), (uint8_t *)(uintptr_t)(v), sizeof(n) - 1, sizeof(v) - 1,        \
            NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE                           \
    }

static const nghttp2_nv ok_headers[] = {NV(":status", "200"),
                                        NV("content-type", "application/grpc")};
static const nghttp2_nv encodings = NV("grpc-accept-encoding", "identity");

static const char *const codes[BNS_GRPC_CODES] = {"0", "1",  "2",  "3",  "4",  "5",  "6",  "7", "8",
                                                  "9", "10", "11", "12", "13", "14", "15", "16"};

static nghttp2_nv nv_of(struct bns_slice name, struct bns_slice value)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name.ptr, (uint8_t *)(uintptr_t)value.ptr, name.len,
                        value.len, NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

static bool is_bin(struct bns_slice name)
{
    return name.len > 4 && memcmp(name.ptr + name.len - 4, "-bin", 4) == 0;
}

/* Moves a finished buffer into the arena. */
static int into_arena(struct bns_arena *a, struct bns_buf *b, struct bns_slice *out)
{
    void *p = bns_arena_dup(a, b->len == 0 ? (const void *)"" : b->ptr, b->len);

    *out = bns_slice(p, b->len);
    bns_buf_free(b);
    return p == NULL ? BNS_E_NOMEM : BNS_OK;
}

static bool plain_text(struct bns_slice in)
{
    for (size_t i = 0; i < in.len; i++) {
        if (in.ptr[i] < 0x20 || in.ptr[i] > 0x7e || in.ptr[i] == '%')
            return false;
    }
    return true;
}

int bns_grpc_encode_text(struct bns_arena *a, struct bns_slice in, struct bns_slice *out)
{
    struct bns_buf b;

    if (in.len > BNS_H2_HEADER_LIST_MAX / 8)
        in.len = BNS_H2_HEADER_LIST_MAX / 8; /* three bytes each, and room for the rest */
    if (plain_text(in)) {
        *out = bns_slice(bns_arena_dup(a, in.len == 0 ? (const void *)"" : in.ptr, in.len), in.len);
        return out->ptr == NULL ? BNS_E_NOMEM : BNS_OK;
    }
    bns_buf_init(&b, a->alloc, BNS_H2_HEADER_LIST_MAX);
    if (bns_grpc_percent_encode(&b, in) != BNS_OK) {
        bns_buf_free(&b);
        return BNS_E_NOMEM;
    }
    return into_arena(a, &b, out);
}

const char *bns_grpc_decode_text(struct bns_arena *a, struct bns_slice in)
{
    struct bns_buf b;
    struct bns_slice out;

    bns_buf_init(&b, a->alloc, BNS_H2_HEADER_LIST_MAX);
    if (bns_grpc_percent_decode(&b, in) != BNS_OK) {
        bns_buf_free(&b);
        return NULL;
    }
    return into_arena(a, &b, &out) == BNS_OK ? (const char *)out.ptr : NULL;
}

int bns_grpc_value(struct bns_arena *a, const struct bns_grpc_md *md, struct bns_slice *out)
{
    struct bns_buf b;
    int rv;

    if (!is_bin(md->name)) {
        *out = bns_slice(
            bns_arena_dup(a, md->value.len == 0 ? (const void *)"" : md->value.ptr, md->value.len),
            md->value.len);
        return out->ptr == NULL ? BNS_E_NOMEM : BNS_OK;
    }
    bns_buf_init(&b, a->alloc, BNS_H2_HEADER_LIST_MAX);
    rv = bns_base64_encode(&b, md->value, false);
    if (rv != BNS_OK) {
        bns_buf_free(&b);
        return rv;
    }
    return into_arena(a, &b, out);
}

int bns_grpc_trailers(struct bns_grpc_call *c, int status, const char *text,
                      const struct bns_grpc_md *md, size_t md_count)
{
    nghttp2_nv *v;
    size_t n = 0;
    const char *code;
    struct bns_slice s;

    BNS_ASSERT(status >= 0);
    BNS_ASSERT(status < BNS_GRPC_CODES);
    /* The first two places are kept for the headers of a trailers-only answer. */
    v = bns_arena_alloc(&c->arena, (md_count + 5) * sizeof *v);
    if (v == NULL)
        return BNS_E_NOMEM;
    v[n++] = ok_headers[0];
    v[n++] = ok_headers[1];
    code = codes[status];
    v[n++] = nv_of(BNS_LIT("grpc-status"), bns_slice_str(code));
    if (text != NULL && text[0] != '\0') {
        if (bns_grpc_encode_text(&c->arena, bns_slice_str(text), &s) != BNS_OK)
            return BNS_E_NOMEM;
        v[n++] = nv_of(BNS_LIT("grpc-message"), s);
    }
    if (status == BNS_GRPC_UNIMPLEMENTED)
        v[n++] = encodings;
    for (size_t i = 0; i < md_count; i++) {
        struct bns_slice name =
            bns_slice(bns_arena_dup(&c->arena, md[i].name.ptr, md[i].name.len), md[i].name.len);
        int rv = bns_grpc_value(&c->arena, &md[i], &s);

        if (name.ptr == NULL || rv != BNS_OK)
            return BNS_E_NOMEM;
        v[n++] = nv_of(name, s);
    }
    c->status = status;
    c->trailers = v + 2;
    c->trailers_count = n - 2;
    return BNS_OK;
}

static int submitted(struct bns_grpc_call *c, int rv)
{
    c->s.submitted = rv == 0;
    return rv == 0 ? BNS_OK : BNS_E_NOMEM;
}

int bns_grpc_submit_headers(struct bns_grpc_call *c)
{
    nghttp2_data_provider p = bns_h2_stream_provider(&c->s);

    BNS_ASSERT(!c->s.submitted);
    return submitted(c, nghttp2_submit_response(c->s.h->session, c->s.id, ok_headers, 2, &p));
}

int bns_grpc_submit_only(struct bns_grpc_call *c)
{
    BNS_ASSERT(!c->s.submitted);
    return submitted(c, nghttp2_submit_headers(c->s.h->session, NGHTTP2_FLAG_END_STREAM, c->s.id,
                                               NULL, c->trailers - 2, c->trailers_count + 2, NULL));
}

int bns_grpc_submit_http(struct bns_grpc_call *c, const char *status)
{
    nghttp2_nv v = nv_of(BNS_LIT(":status"), bns_slice_str(status));

    BNS_ASSERT(!c->s.submitted);
    return submitted(c, nghttp2_submit_headers(c->s.h->session, NGHTTP2_FLAG_END_STREAM, c->s.id,
                                               NULL, &v, 1, NULL));
}

/* ---- metadata in --------------------------------------------------------------------------- */
int bns_grpc_field_add(struct bns_arena *a, struct bns_grpc_field **list, struct bns_slice name,
                       struct bns_slice value, bool *bad)
{
    struct bns_grpc_field *f = bns_arena_alloc(a, sizeof *f);
    struct bns_buf b;
    int rv;

    if (f == NULL)
        return BNS_E_NOMEM;
    f->md.name = bns_slice(bns_arena_dup(a, name.ptr, name.len), name.len);
    if (f->md.name.ptr == NULL)
        return BNS_E_NOMEM;
    if (is_bin(name)) {
        bns_buf_init(&b, a->alloc, BNS_H2_HEADER_LIST_MAX);
        rv = bns_base64_decode(&b, value);
        if (rv == BNS_E_INVALID)
            *bad = true;
        if (rv == BNS_OK)
            rv = into_arena(a, &b, &f->md.value);
        bns_buf_free(&b);
        if (rv != BNS_OK)
            return rv == BNS_E_INVALID ? BNS_OK : BNS_E_NOMEM;
    } else {
        f->md.value = bns_slice(
            bns_arena_dup(a, value.len == 0 ? (const void *)"" : value.ptr, value.len), value.len);
        if (f->md.value.ptr == NULL)
            return BNS_E_NOMEM;
    }
    f->next = *list;
    *list = f;
    return BNS_OK;
}

bool bns_grpc_field_get(const struct bns_grpc_field *f, const char *name, struct bns_slice *out)
{
    struct bns_slice n = bns_slice_str(name);

    for (; f != NULL; f = f->next) {
        if (bns_slice_eq(f->md.name, n)) {
            *out = f->md.value;
            return true;
        }
    }
    return false;
}
