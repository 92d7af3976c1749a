/* http1_write.c - writing HTTP/1.1 heads and chunks, and the parts of a request target.
 *
 * Every function either appends all it has to say or changes nothing. Header values from outside
 * cannot smuggle a line: control bytes are refused.
 */
#include "codec/http1_int.h"

const char *bns_http1_reason(int status)
{
    static const struct {
        int status;
        const char *text;
    } t[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {499, "Client Closed Request"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
    };

    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        if (t[i].status == status)
            return t[i].text;
    }
    return "Unknown";
}

int bns_http1_put_status(struct bns_buf *out, int status)
{
    BNS_ASSERT(status >= 100);
    BNS_ASSERT(status <= 599);
    return bns_buf_fmt(out, "HTTP/1.1 %d %s\r\n", status, bns_http1_reason(status));
}

/* Several pieces, all or nothing. */
static int put(struct bns_buf *out, const struct bns_slice *v, size_t n)
{
    size_t bytes = 0;
    int rv;

    for (size_t i = 0; i < n; i++) {
        if (__builtin_add_overflow(bytes, v[i].len, &bytes))
            return BNS_E_TOOBIG;
    }
    rv = bns_buf_reserve(out, bytes);
    if (rv != BNS_OK)
        return rv;
    for (size_t i = 0; i < n; i++) {
        if (v[i].len > 0)
            memcpy(out->ptr + out->len, v[i].ptr, v[i].len);
        out->len += v[i].len;
    }
    return BNS_OK;
}

int bns_http1_put_request(struct bns_buf *out, const char *method, struct bns_slice target)
{
    struct bns_slice v[] = {bns_slice_str(method), BNS_LIT(" "), target, BNS_LIT(" HTTP/1.1\r\n")};

    for (const char *c = method; *c != '\0'; c++) {
        if (!bns_http1_token_char((uint8_t)*c))
            return BNS_E_INVALID;
    }
    for (size_t i = 0; i < target.len; i++) {
        if (target.ptr[i] <= 0x20 || target.ptr[i] >= 0x7f)
            return BNS_E_INVALID;
    }
    if (v[0].len == 0 || target.len == 0)
        return BNS_E_INVALID;
    return put(out, v, sizeof v / sizeof v[0]);
}

int bns_http1_put_header(struct bns_buf *out, const char *name, struct bns_slice value)
{
    struct bns_slice v[] = {bns_slice_str(name), BNS_LIT(": "), value, BNS_LIT("\r\n")};

    for (const char *c = name; *c != '\0'; c++) {
        if (!bns_http1_token_char((uint8_t)*c))
            return BNS_E_INVALID;
    }
    for (size_t i = 0; i < value.len; i++) {
        if ((value.ptr[i] < 0x20 && value.ptr[i] != '\t') || value.ptr[i] == 0x7f)
            return BNS_E_INVALID;
    }
    if (v[0].len == 0)
        return BNS_E_INVALID;
    return put(out, v, sizeof v / sizeof v[0]);
}

int bns_http1_put_head_end(struct bns_buf *out)
{
    return bns_buf_add(out, "\r\n", 2);
}

int bns_http1_put_chunk_head(struct bns_buf *out, uint64_t len)
{
    BNS_ASSERT(len > 0); /* an empty chunk would end the body */
    return bns_buf_fmt(out, "%llx\r\n", (unsigned long long)len);
}

int bns_http1_put_chunk(struct bns_buf *out, struct bns_slice data)
{
    struct bns_slice v[] = {data, BNS_LIT("\r\n")};
    size_t start = out->len;
    int rv;

    if (data.len == 0)
        return BNS_OK;
    rv = bns_http1_put_chunk_head(out, data.len);
    if (rv != BNS_OK)
        return rv;
    rv = put(out, v, 2);
    if (rv != BNS_OK)
        out->len = start;
    return rv;
}

int bns_http1_put_last_chunk(struct bns_buf *out)
{
    return bns_buf_add(out, "0\r\n\r\n", 5);
}

/* ---- targets --------------------------------------------------------------------------------- */
void bns_http1_target(struct bns_slice target, struct bns_slice *path, struct bns_slice *query)
{
    const uint8_t *at;

    if (target.len > 0 && target.ptr[0] != '/') {
        const uint8_t *colon = memmem(target.ptr, target.len, "://", 3);
        if (colon != NULL) {
            target = bns_slice_skip(target, (size_t)(colon - target.ptr) + 3);
            while (target.len > 0 && target.ptr[0] != '/' && target.ptr[0] != '?')
                target = bns_slice_skip(target, 1);
        }
    }
    at = target.len == 0 ? NULL : memchr(target.ptr, '?', target.len);
    *path = bns_slice(target.ptr, at == NULL ? target.len : (size_t)(at - target.ptr));
    *query = at == NULL ? bns_slice(NULL, 0) : bns_slice_skip(target, path->len + 1);
    if (path->len == 0)
        *path = BNS_LIT("/"); /* an absolute target may stop at its authority */
}

static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int bns_url_decode(struct bns_buf *out, struct bns_slice in, bool plus)
{
    size_t start = out->len;
    int rv = bns_buf_reserve(out, in.len);

    if (rv != BNS_OK)
        return rv;
    for (size_t i = 0; i < in.len; i++) {
        int c = in.ptr[i];
        if (c == '%') {
            int hi = in.len - i > 2 ? hex_value(in.ptr[i + 1]) : -1;
            int lo = in.len - i > 2 ? hex_value(in.ptr[i + 2]) : -1;
            c = hi < 0 || lo < 0 ? 0 : hi * 16 + lo;
            i += 2;
        } else if (plus && c == '+') {
            c = ' ';
        }
        if (c == 0) {
            out->len = start;
            return BNS_E_INVALID;
        }
        out->ptr[out->len++] = (uint8_t)c;
    }
    return BNS_OK;
}

int bns_url_encode(struct bns_buf *out, struct bns_slice in, const char *keep)
{
    static const char hex[] = "0123456789ABCDEF";
    int rv;

    if (in.len > SIZE_MAX / 3)
        return BNS_E_TOOBIG;
    rv = bns_buf_reserve(out, in.len * 3);
    if (rv != BNS_OK)
        return rv;
    for (size_t i = 0; i < in.len; i++) {
        uint8_t c = in.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (letter || (c >= '0' && c <= '9') ||
            (c != 0 && (strchr("-._~", c) != NULL || strchr(keep, c) != NULL))) {
            out->ptr[out->len++] = c;
        } else {
            out->ptr[out->len++] = '%';
            out->ptr[out->len++] = (uint8_t)hex[c >> 4];
            out->ptr[out->len++] = (uint8_t)hex[c & 15];
        }
    }
    return BNS_OK;
}

bool bns_query_next(struct bns_slice *query, struct bns_slice *name, struct bns_slice *value)
{
    struct bns_slice item;
    const uint8_t *at;

    do {
        if (query->len == 0)
            return false;
        at = memchr(query->ptr, '&', query->len);
        item = bns_slice(query->ptr, at == NULL ? query->len : (size_t)(at - query->ptr));
        *query = bns_slice_skip(*query, item.len + (at == NULL ? 0 : 1));
    } while (item.len == 0);
    at = memchr(item.ptr, '=', item.len);
    *name = bns_slice(item.ptr, at == NULL ? item.len : (size_t)(at - item.ptr));
    *value = bns_slice_skip(item, name->len + (at == NULL ? 0 : 1));
    return true;
}
