/* http1.c - incremental parser of HTTP/1.x messages (RFC 9112), requests and responses.
 *
 * Machine:  DONE -> START -> HEAD -> one of BODY_LENGTH, BODY_CLOSE, CHUNK_* -> END -> DONE.
 * The head's lines are collected in `text`, each checked for its length and its CRLF when its LF
 * comes; when the empty line is there the head is parsed in place, so its slices point into `text`,
 * which then stands still until the next message. Bodies pass through without a copy. Chunk framing
 * and trailers go through a byte machine that stores nothing but counters.
 *
 * Everything that two parsers could read differently is refused, because a proxy in front may be
 * the other parser (request smuggling, RFC 9112 section 11.2). What fails is final.
 */
#include "codec/http1.h"

#include "codec/http1_int.h"

#define LINE_BYTES (8u * 1024)
#define HEAD_BYTES (64u * 1024)
#define BLANK_LINES_MAX 4u
#define CHUNK_EXT_MAX 1024u
#define TRAILER_MAX (8u * 1024)
#define CHUNK_DIGITS_MAX 15u

enum state {
    DONE,  /* between messages; the last head may still be looked at */
    START, /* a message is expected; blank lines are passed over */
    HEAD,
    BODY_LENGTH,
    BODY_CLOSE,
    CHUNK_SIZE,
    CHUNK_EXT,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    TRAILER_START,
    TRAILER,
    TRAILER_LF,
    LAST_LF,
    END, /* the END event is due */
};

void bns_http1_init(struct bns_http1 *p, enum bns_http1_kind kind, const struct bns_alloc *alloc,
                    const struct bns_http1_limits *limits)
{
    *p = (struct bns_http1){.kind = kind, .state = DONE};
    if (limits != NULL)
        p->limits = *limits;
    if (p->limits.line_bytes == 0)
        p->limits.line_bytes = LINE_BYTES;
    if (p->limits.head_bytes == 0)
        p->limits.head_bytes = HEAD_BYTES;
    if (p->limits.headers == 0 || p->limits.headers > BNS_HTTP1_HEADERS_MAX)
        p->limits.headers = BNS_HTTP1_HEADERS_MAX;
    bns_buf_init(&p->text, alloc, (size_t)p->limits.line_bytes + p->limits.head_bytes + 4);
    bns_buf_init(&p->fields, alloc, p->limits.headers * sizeof(struct bns_http1_header));
}

void bns_http1_free(struct bns_http1 *p)
{
    bns_buf_free(&p->text);
    bns_buf_free(&p->fields);
}

void bns_http1_trim(struct bns_http1 *p)
{
    if (p->state != DONE)
        return;
    bns_http1_free(p);
    memset(&p->head, 0, sizeof p->head);
}

void bns_http1_expect_no_body(struct bns_http1 *p)
{
    p->bodiless = true;
}

bool bns_http1_idle(const struct bns_http1 *p)
{
    return p->failed == BNS_OK && (p->state == DONE || (p->state == START && p->text.len == 0));
}

int bns_http1_fail(struct bns_http1 *p, int code, int status, const char *why)
{
    p->failed = code;
    p->status_hint = status;
    p->why = why;
    return code;
}

static int bad(struct bns_http1 *p, const char *why)
{
    return bns_http1_fail(p, BNS_E_PROTO, 400, why);
}

/* ---- the head's lines ------------------------------------------------------------------------ */
/* Whether n more bytes of the current line are within the limits. */
static int check_room(struct bns_http1 *p, size_t n, bool whole)
{
    size_t crlf = whole ? 2 : 0;

    if (p->lines == 0) {
        if (p->text.len + n > (size_t)p->limits.line_bytes + crlf)
            return bns_http1_fail(p, BNS_E_TOOBIG, 414, "first line is too long");
        return BNS_OK;
    }
    if (p->text.len - p->line_len + n > p->limits.head_bytes)
        return bns_http1_fail(p, BNS_E_TOOBIG, 431, "headers are too long");
    return BNS_OK;
}

/* Garbage is told by its first byte, without waiting for a line that may never end. */
static int check_first_byte(struct bns_http1 *p, uint8_t c)
{
    if (c == '\r' || (p->kind == BNS_HTTP1_REQUEST ? bns_http1_token_char(c) : c == 'H'))
        return BNS_OK;
    return bad(p, "this is not HTTP");
}

/* The line that starts at line_from has come to its LF, the last byte of `text`. */
static int end_line(struct bns_http1 *p, bool *head_complete)
{
    size_t len = p->text.len - p->line_from;

    *head_complete = false;
    if (len < 2 || p->text.ptr[p->text.len - 2] != '\r')
        return bad(p, "line ends without CR");
    if (len == 2 && p->lines == 0) {
        p->text.len = 0;
        p->state = START;
        if (++p->blank_lines > BLANK_LINES_MAX)
            return bad(p, "too many blank lines before the message");
        return BNS_OK;
    }
    if (len == 2) {
        *head_complete = true;
        return BNS_OK;
    }
    if (p->lines == 0)
        p->line_len = len;
    else if (p->lines > p->limits.headers)
        return bns_http1_fail(p, BNS_E_TOOBIG, 431, "too many headers");
    p->lines++;
    p->line_from = p->text.len;
    return BNS_OK;
}

/* What the head says about the body decides the next state. */
static int begin_body(struct bns_http1 *p)
{
    const struct bns_http1_head *h = &p->head;
    bool response = p->kind == BNS_HTTP1_RESPONSE;

    p->left = h->length;
    p->body_bytes = 0;
    if (response && (p->bodiless || h->status < 200 || h->status == 204 || h->status == 304)) {
        if (h->status >= 200)
            p->bodiless = false;
        p->state = END;
    } else if (h->chunked) {
        p->state = CHUNK_SIZE;
        p->left = 0;
        p->digits = 0;
    } else if (h->has_length || !response) {
        if (p->limits.body_bytes != 0 && h->length > p->limits.body_bytes)
            return bns_http1_fail(p, BNS_E_TOOBIG, 413, "body is too long");
        p->state = h->length > 0 ? BODY_LENGTH : END;
    } else {
        p->state = BODY_CLOSE;
        p->head.keep_alive = false;
    }
    return BNS_OK;
}

/* Collects lines until the head is whole. BNS_OK: it is, and parsed. */
static int read_head(struct bns_http1 *p, struct bns_slice *in)
{
    bool complete = false;
    int rv;

    while (!complete) {
        const uint8_t *lf;
        size_t n;

        if (in->len == 0)
            return BNS_E_AGAIN;
        if (p->text.len == 0) {
            rv = check_first_byte(p, in->ptr[0]);
            if (rv != BNS_OK)
                return rv;
            p->state = HEAD;
        }
        lf = memchr(in->ptr, '\n', in->len);
        n = lf == NULL ? in->len : (size_t)(lf - in->ptr) + 1;
        rv = check_room(p, n, lf != NULL);
        if (rv != BNS_OK)
            return rv;
        rv = bns_buf_add(&p->text, in->ptr, n);
        if (rv != BNS_OK)
            return bns_http1_fail(p, rv, 503, "no memory for the head");
        *in = bns_slice_skip(*in, n);
        if (lf == NULL)
            return BNS_E_AGAIN;
        rv = end_line(p, &complete);
        if (rv != BNS_OK)
            return rv;
    }
    rv = bns_http1_parse_head(p);
    return rv != BNS_OK ? rv : begin_body(p);
}

/* ---- chunks ---------------------------------------------------------------------------------- */
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

static int chunk_size_byte(struct bns_http1 *p, uint8_t c)
{
    int v = hex_value(c);

    if (v >= 0) {
        if (++p->digits > CHUNK_DIGITS_MAX)
            return bad(p, "chunk size is too long");
        p->left = p->left << 4 | (uint64_t)v;
        return BNS_OK;
    }
    if (p->digits == 0 || (c != '\r' && c != ';'))
        return bad(p, "bad chunk size");
    p->state = c == '\r' ? CHUNK_SIZE_LF : CHUNK_EXT;
    p->skipped = 0;
    return BNS_OK;
}

/* Passes over one byte of an extension or a trailer line. */
static int skip_byte(struct bns_http1 *p, uint8_t c, uint32_t skipped_max, enum state at_cr)
{
    if (c == '\r') {
        p->state = (int)at_cr;
        return BNS_OK;
    }
    if ((c < 0x20 && c != '\t') || c == 0x7f)
        return bad(p, "control byte in a chunk extension or trailer");
    if (++p->skipped > skipped_max)
        return bns_http1_fail(p, BNS_E_TOOBIG, 431, "chunk extension or trailer is too long");
    return BNS_OK;
}

/* The size line is whole. */
static int begin_chunk(struct bns_http1 *p)
{
    if (p->left == 0) {
        p->state = TRAILER_START;
        p->skipped = 0;
        return BNS_OK;
    }
    if (p->limits.body_bytes != 0 && p->left > p->limits.body_bytes - p->body_bytes)
        return bns_http1_fail(p, BNS_E_TOOBIG, 413, "body is too long");
    p->state = CHUNK_DATA;
    return BNS_OK;
}

/* A CR is behind; nothing but LF may follow. */
static int want_lf(struct bns_http1 *p, uint8_t c, enum state next)
{
    if (c != '\n')
        return bad(p, "CR without LF in a chunked body");
    p->state = (int)next;
    return BNS_OK;
}

static int chunk_byte(struct bns_http1 *p, uint8_t c)
{
    int rv;

    switch (p->state) {
    case CHUNK_SIZE:
        return chunk_size_byte(p, c);
    case CHUNK_EXT:
        return skip_byte(p, c, CHUNK_EXT_MAX, CHUNK_SIZE_LF);
    case CHUNK_SIZE_LF:
        rv = want_lf(p, c, CHUNK_DATA);
        return rv != BNS_OK ? rv : begin_chunk(p);
    case CHUNK_DATA_CR:
        if (c != '\r')
            return bad(p, "chunk is longer than its size");
        p->state = CHUNK_DATA_LF;
        return BNS_OK;
    case CHUNK_DATA_LF:
        p->digits = 0;
        return want_lf(p, c, CHUNK_SIZE);
    case TRAILER_START:
        if (c == '\r') {
            p->state = LAST_LF;
            return BNS_OK;
        }
        if (!bns_http1_token_char(c))
            return bad(p, "bad trailer");
        p->state = TRAILER;
        return skip_byte(p, c, TRAILER_MAX, TRAILER_LF);
    case TRAILER:
        return skip_byte(p, c, TRAILER_MAX, TRAILER_LF);
    case TRAILER_LF:
        return want_lf(p, c, TRAILER_START);
    default:
        BNS_ASSERT(p->state == LAST_LF);
        return want_lf(p, c, END);
    }
}

/* ---- events ---------------------------------------------------------------------------------- */
/* Hands out what is there of the current run of body bytes. */
static void give_data(struct bns_http1 *p, struct bns_slice *in, struct bns_http1_event *ev)
{
    size_t n = p->state != BODY_CLOSE && in->len > p->left ? (size_t)p->left : in->len;

    ev->kind = BNS_HTTP1_DATA;
    ev->data = bns_slice(in->ptr, n);
    *in = bns_slice_skip(*in, n);
    p->body_bytes += n;
    if (p->state == BODY_CLOSE)
        return;
    p->left -= n;
    if (p->left == 0)
        p->state = p->state == CHUNK_DATA ? CHUNK_DATA_CR : END;
}

static void begin_message(struct bns_http1 *p)
{
    bns_buf_clear(&p->text);
    bns_buf_clear(&p->fields);
    memset(&p->head, 0, sizeof p->head);
    p->line_len = 0;
    p->line_from = 0;
    p->lines = 0;
    p->blank_lines = 0;
    p->state = START;
}

int bns_http1_next(struct bns_http1 *p, struct bns_slice *in, struct bns_http1_event *ev)
{
    int rv;

    memset(ev, 0, sizeof *ev);
    while (p->failed == BNS_OK) {
        if (p->state == END) {
            p->state = DONE;
            ev->kind = BNS_HTTP1_END;
            return BNS_OK;
        }
        if (in->len == 0)
            return BNS_E_AGAIN;
        switch (p->state) {
        case DONE:
            begin_message(p);
            break;
        case START:
        case HEAD:
            rv = read_head(p, in);
            if (rv != BNS_OK)
                return rv;
            ev->kind = BNS_HTTP1_HEAD;
            ev->head = &p->head;
            return BNS_OK;
        case BODY_CLOSE:
            if (p->limits.body_bytes != 0 && in->len > p->limits.body_bytes - p->body_bytes)
                return bns_http1_fail(p, BNS_E_TOOBIG, 413, "body is too long");
            give_data(p, in, ev);
            return BNS_OK;
        case BODY_LENGTH:
        case CHUNK_DATA:
            give_data(p, in, ev);
            return BNS_OK;
        default:
            (void)chunk_byte(p, in->ptr[0]); /* a failure is in p->failed */
            *in = bns_slice_skip(*in, 1);
            break;
        }
    }
    return p->failed;
}

int bns_http1_eof(struct bns_http1 *p, bool *end)
{
    *end = p->state == BODY_CLOSE || p->state == END;
    if (p->failed != BNS_OK)
        return p->failed;
    if (*end) {
        p->state = DONE;
        return BNS_OK;
    }
    return bns_http1_idle(p) ? BNS_OK : bad(p, "closed in the middle of a message");
}
