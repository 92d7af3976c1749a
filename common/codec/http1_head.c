/* http1_head.c - the grammar of a whole HTTP/1.x head (RFC 9112 sections 3 to 6).
 *
 * http1.c has collected the lines; here the first line is split, header lines become name and value
 * (names are lowered in place), and the headers that decide about framing and the connection's life
 * are read: Content-Length, Transfer-Encoding, Host, Connection, Expect.
 */
#include <strings.h>

#include "codec/http1_int.h"

bool bns_http1_token_char(uint8_t c)
{
    static const char others[] = "!#$%&'*+-.^_`|~";

    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))
        return true;
    return c != 0 && memchr(others, c, sizeof others - 1) != NULL;
}

static int bad(struct bns_http1 *p, const char *why)
{
    return bns_http1_fail(p, BNS_E_PROTO, 400, why);
}

static bool is(struct bns_slice s, const char *lower)
{
    return s.len == strlen(lower) && strncasecmp((const char *)s.ptr, lower, s.len) == 0;
}

/* Takes everything before the first `c` off the front of *s, and the `c`. False when there is
 * none. */
static bool cut(struct bns_slice *s, char c, struct bns_slice *out)
{
    const uint8_t *at = s->len == 0 ? NULL : memchr(s->ptr, c, s->len);

    if (at == NULL)
        return false;
    *out = bns_slice(s->ptr, (size_t)(at - s->ptr));
    *s = bns_slice_skip(*s, out->len + 1);
    return true;
}

static struct bns_slice trim(struct bns_slice s)
{
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t'))
        s = bns_slice_skip(s, 1);
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

static int parse_version(struct bns_http1 *p, struct bns_slice s)
{
    if (s.len != 8 || memcmp(s.ptr, "HTTP/", 5) != 0 || s.ptr[6] != '.' || s.ptr[5] < '0' ||
        s.ptr[5] > '9' || s.ptr[7] < '0' || s.ptr[7] > '9')
        return bad(p, "malformed HTTP version");
    if (s.ptr[5] != '1' || s.ptr[7] > '1')
        return bns_http1_fail(p, BNS_E_UNSUPPORTED, 505, "only HTTP/1.0 and HTTP/1.1 are spoken");
    p->head.minor = (uint8_t)(s.ptr[7] - '0');
    return BNS_OK;
}

static bool target_ok(struct bns_slice method, struct bns_slice t)
{
    if (t.len == 0)
        return false;
    for (size_t i = 0; i < t.len; i++) {
        if (t.ptr[i] <= 0x20 || t.ptr[i] >= 0x7f)
            return false;
    }
    if (t.ptr[0] == '/' || is(t, "*") || bns_slice_eq(method, BNS_LIT("CONNECT")))
        return true;
    return (t.len > 7 && strncasecmp((const char *)t.ptr, "http://", 7) == 0) ||
           (t.len > 8 && strncasecmp((const char *)t.ptr, "https://", 8) == 0);
}

static int parse_request_line(struct bns_http1 *p, struct bns_slice line)
{
    struct bns_http1_head *h = &p->head;

    if (!cut(&line, ' ', &h->method) || !cut(&line, ' ', &h->target))
        return bad(p, "malformed request line");
    if (h->method.len == 0)
        return bad(p, "empty method");
    for (size_t i = 0; i < h->method.len; i++) {
        if (!bns_http1_token_char(h->method.ptr[i]))
            return bad(p, "bad byte in the method");
    }
    if (!target_ok(h->method, h->target))
        return bad(p, "bad request target");
    return parse_version(p, line);
}

static int parse_status_line(struct bns_http1 *p, struct bns_slice line)
{
    struct bns_http1_head *h = &p->head;
    struct bns_slice version;
    int rv;

    if (!cut(&line, ' ', &version))
        return bad(p, "malformed status line");
    rv = parse_version(p, version);
    if (rv != BNS_OK)
        return rv;
    if (line.len < 3 || (line.len > 3 && line.ptr[3] != ' '))
        return bad(p, "malformed status");
    for (size_t i = 0; i < 3; i++) {
        if (line.ptr[i] < '0' || line.ptr[i] > '9')
            return bad(p, "malformed status");
        h->status = h->status * 10 + (line.ptr[i] - '0');
    }
    if (h->status < 100 || h->status > 599)
        return bad(p, "status out of range");
    h->reason = bns_slice_skip(line, 4);
    for (size_t i = 0; i < h->reason.len; i++) {
        if ((h->reason.ptr[i] < 0x20 && h->reason.ptr[i] != '\t') || h->reason.ptr[i] == 0x7f)
            return bad(p, "control byte in the status line");
    }
    return BNS_OK;
}

static int parse_header(struct bns_http1 *p, uint8_t *line, size_t len)
{
    struct bns_http1_header f;
    size_t colon = 0;
    int rv;

    if (line[0] == ' ' || line[0] == '\t')
        return bad(p, "folded header line");
    while (colon < len && bns_http1_token_char(line[colon])) {
        if (line[colon] >= 'A' && line[colon] <= 'Z')
            line[colon] |= 0x20;
        colon++;
    }
    if (colon == 0 || colon == len || line[colon] != ':')
        return bad(p, "malformed header name");
    f.name = bns_slice(line, colon);
    f.value = trim(bns_slice(line + colon + 1, len - colon - 1));
    for (size_t i = 0; i < f.value.len; i++) {
        if ((f.value.ptr[i] < 0x20 && f.value.ptr[i] != '\t') || f.value.ptr[i] == 0x7f)
            return bad(p, "control byte in a header value");
    }
    rv = bns_buf_add(&p->fields, &f, sizeof f);
    if (rv != BNS_OK)
        return bns_http1_fail(p, rv, 503, "no memory for the headers");
    return BNS_OK;
}

static int read_length(struct bns_http1 *p, struct bns_slice v)
{
    uint64_t n = 0;

    if (v.len == 0 || v.len > 19)
        return bad(p, "bad Content-Length");
    for (size_t i = 0; i < v.len; i++) {
        if (v.ptr[i] < '0' || v.ptr[i] > '9')
            return bad(p, "bad Content-Length");
        n = n * 10 + (uint64_t)(v.ptr[i] - '0'); /* 19 digits stay below 2^64 */
    }
    if (p->head.has_length && p->head.length != n)
        return bad(p, "two different Content-Length");
    p->head.has_length = true;
    p->head.length = n;
    return BNS_OK;
}

static int read_coding(struct bns_http1 *p, struct bns_slice v)
{
    if (p->head.minor == 0)
        return bad(p, "Transfer-Encoding in HTTP/1.0");
    if (p->head.chunked)
        return bad(p, "two Transfer-Encoding");
    if (!is(v, "chunked"))
        return bns_http1_fail(p, BNS_E_UNSUPPORTED, 501, "only the chunked coding is known");
    p->head.chunked = true;
    return BNS_OK;
}

/* "close" wins over "keep-alive", in whatever order they come. */
static void read_connection(struct bns_http1 *p, struct bns_slice v, bool *close)
{
    struct bns_slice item;

    while (v.len > 0) {
        if (!cut(&v, ',', &item)) {
            item = v;
            v.len = 0;
        }
        item = trim(item);
        if (is(item, "close"))
            *close = true;
        else if (is(item, "keep-alive"))
            p->head.keep_alive = true;
    }
}

static int read_framing(struct bns_http1 *p)
{
    struct bns_http1_head *h = &p->head;
    bool close = false;
    size_t hosts = 0;
    int rv = BNS_OK;

    h->keep_alive = h->minor == 1;
    for (size_t i = 0; rv == BNS_OK && i < h->headers_count; i++) {
        const struct bns_http1_header *f = &h->headers[i];
        if (is(f->name, "content-length")) {
            rv = read_length(p, f->value);
        } else if (is(f->name, "transfer-encoding")) {
            rv = read_coding(p, f->value);
        } else if (is(f->name, "host")) {
            hosts++;
        } else if (is(f->name, "connection")) {
            read_connection(p, f->value, &close);
        } else if (is(f->name, "expect")) {
            if (!is(f->value, "100-continue"))
                return bns_http1_fail(p, BNS_E_UNSUPPORTED, 417, "unknown expectation");
            h->expect_continue = true;
        }
    }
    if (rv != BNS_OK)
        return rv;
    if (close)
        h->keep_alive = false;
    if (h->has_length && h->chunked)
        return bad(p, "both Content-Length and Transfer-Encoding");
    if (p->kind == BNS_HTTP1_REQUEST && (hosts > 1 || (hosts == 0 && h->minor == 1)))
        return bad(p, "exactly one Host header is needed");
    return BNS_OK;
}

int bns_http1_parse_head(struct bns_http1 *p)
{
    uint8_t *line = p->text.ptr;
    const uint8_t *end = p->text.ptr + p->text.len - 2; /* the empty line */
    bool first = true;
    int rv = BNS_OK;

    BNS_ASSERT(p->text.len >= 4);
    while (rv == BNS_OK && line < end) {
        uint8_t *lf = memchr(line, '\n', (size_t)(end - line));
        size_t len;

        BNS_ASSERT(lf != NULL);
        len = (size_t)(lf - line) - 1; /* http1.c has seen the CR */
        if (memchr(line, '\r', len) != NULL)
            rv = bad(p, "CR without LF");
        else if (!first)
            rv = parse_header(p, line, len);
        else if (p->kind == BNS_HTTP1_REQUEST)
            rv = parse_request_line(p, bns_slice(line, len));
        else
            rv = parse_status_line(p, bns_slice(line, len));
        first = false;
        line = lf + 1;
    }
    if (rv != BNS_OK)
        return rv;
    p->head.headers = (const struct bns_http1_header *)(const void *)p->fields.ptr;
    p->head.headers_count = p->fields.len / sizeof(struct bns_http1_header);
    return read_framing(p);
}

bool bns_http1_find(const struct bns_http1_head *h, const char *name, struct bns_slice *value)
{
    struct bns_slice want = bns_slice_str(name);

    for (size_t i = 0; i < h->headers_count; i++) {
        if (bns_slice_eq(h->headers[i].name, want)) {
            *value = h->headers[i].value;
            return true;
        }
    }
    return false;
}
