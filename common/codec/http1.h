/* http1.h - HTTP/1.1 (RFC 9110, RFC 9112) as bytes: incremental parser of requests or responses
 * with their bodies, and the writing of heads and chunks.
 *
 * Use:     feed what arrived to bns_http1_next() until it says BNS_E_AGAIN. A message yields one
 *          HEAD, any number of DATA, one END; then the next message begins (keep-alive,
 *          pipelining). Stop calling it to hold a pipelined request back.
 * Thread:  any; a parser belongs to one connection.
 * Memory:  the head is copied into the parser and stays valid until the next message's first byte
 *          is fed after END. DATA slices point into the input.
 * Bounds:  struct bns_http1_limits, checked before anything is stored.
 * Strict:  lines end in CRLF. Refused: Content-Length with Transfer-Encoding, two different
 *          Content-Length, obs-fold, bare CR or LF, NUL and other control bytes, a space before the
 *          colon, signs or long numbers in lengths, a transfer coding other than one "chunked" (or
 *          any in 1.0), HTTP/1.1 without exactly one Host.
 */
#ifndef BNS_CODEC_HTTP1_H
#define BNS_CODEC_HTTP1_H

#include "base/buf.h"

#define BNS_HTTP1_HEADERS_MAX 100

struct bns_http1_limits {
    uint32_t line_bytes; /* request or status line; 0 = 8 KiB */
    uint32_t head_bytes; /* all header lines; 0 = 64 KiB */
    uint32_t headers;    /* lines; 0 = 100, the most there can be */
    uint64_t body_bytes; /* 0 = no limit */
};

enum bns_http1_kind { BNS_HTTP1_REQUEST, BNS_HTTP1_RESPONSE };

struct bns_http1_header {
    struct bns_slice name;  /* in lower case */
    struct bns_slice value; /* without the blanks around it */
};

struct bns_http1_head {
    struct bns_slice method; /* requests */
    struct bns_slice target; /* requests; "/...", "http://...", "*", or CONNECT's authority */
    int status;              /* responses */
    struct bns_slice reason; /* responses */
    uint8_t minor;           /* HTTP/1.minor: 0 or 1 */
    bool keep_alive;         /* by version and Connection header */
    bool expect_continue;    /* "Expect: 100-continue" */
    bool chunked;
    bool has_length;
    uint64_t length; /* Content-Length */
    size_t headers_count;
    const struct bns_http1_header *headers;
};

enum bns_http1_event_kind { BNS_HTTP1_HEAD, BNS_HTTP1_DATA, BNS_HTTP1_END };

struct bns_http1_event {
    enum bns_http1_event_kind kind;
    const struct bns_http1_head *head; /* HEAD */
    struct bns_slice data;             /* DATA: never empty */
};

struct bns_http1 {
    enum bns_http1_kind kind;
    struct bns_http1_limits limits;
    struct bns_buf text;   /* the head */
    struct bns_buf fields; /* its struct bns_http1_header array */
    size_t line_len;       /* bytes of the first line, once it is whole */
    size_t line_from;      /* where the line being collected starts in `text` */
    size_t lines;          /* whole lines collected */
    int state;
    uint32_t blank_lines; /* before the request line */
    uint32_t digits;      /* of the chunk size being read */
    uint32_t skipped;     /* bytes of chunk extension or trailer passed over */
    uint64_t left;        /* of the body or chunk */
    uint64_t body_bytes;  /* so far */
    bool bodiless;        /* the response being read answers HEAD */
    int failed;
    int status_hint; /* after an error on a request: the status to answer */
    const char *why; /* after an error: a constant text */
    struct bns_http1_head head;
};

void bns_http1_init(struct bns_http1 *p, enum bns_http1_kind kind, const struct bns_alloc *alloc,
                    const struct bns_http1_limits *limits);
void bns_http1_free(struct bns_http1 *p);

/* Takes bytes from the front of *in. BNS_OK: *ev is set, call again. BNS_E_AGAIN: *in is used up.
 * BNS_E_PROTO, BNS_E_TOOBIG, BNS_E_UNSUPPORTED, BNS_E_NOMEM: final; see p->status_hint, p->why. */
BNS_MUST_CHECK int bns_http1_next(struct bns_http1 *p, struct bns_slice *in,
                                  struct bns_http1_event *ev);
/* The peer closed. BNS_OK and *end: a response body that runs to the close is complete. BNS_OK and
 * !*end: between messages. BNS_E_PROTO: in the middle of one. */
BNS_MUST_CHECK int bns_http1_eof(struct bns_http1 *p, bool *end);
/* Before the response's head: it answers a HEAD request and has no body whatever it says. */
void bns_http1_expect_no_body(struct bns_http1 *p);
/* Whether no byte of a further message has been taken. */
bool bns_http1_idle(const struct bns_http1 *p);
void bns_http1_trim(struct bns_http1 *p); /* when idle: gives the memory back; the head is gone */

/* The first header of that name (given in lower case); false when there is none. */
bool bns_http1_find(const struct bns_http1_head *h, const char *name, struct bns_slice *value);

/* ---- writing: each appends to `out`; BNS_E_NOMEM, BNS_E_TOOBIG change nothing ---------------- */
const char *bns_http1_reason(int status); /* "Not Found"; "Unknown" for others */
BNS_MUST_CHECK int bns_http1_put_status(struct bns_buf *out, int status);
BNS_MUST_CHECK int bns_http1_put_request(struct bns_buf *out, const char *method,
                                         struct bns_slice target); /* BNS_E_INVALID: bad bytes */
BNS_MUST_CHECK int bns_http1_put_header(struct bns_buf *out, const char *name,
                                        struct bns_slice value); /* BNS_E_INVALID: control bytes */
BNS_MUST_CHECK int bns_http1_put_head_end(struct bns_buf *out);
/* "<hex>\r\n"; the caller sends len > 0 bytes and "\r\n" behind it. */
BNS_MUST_CHECK int bns_http1_put_chunk_head(struct bns_buf *out, uint64_t len);
BNS_MUST_CHECK int bns_http1_put_chunk(struct bns_buf *out,
                                       struct bns_slice data); /* whole; empty: none */
BNS_MUST_CHECK int bns_http1_put_last_chunk(struct bns_buf *out);

/* ---- targets --------------------------------------------------------------------------------- */
/* Splits at the first '?'; the scheme and authority of an absolute target are dropped. */
void bns_http1_target(struct bns_slice target, struct bns_slice *path, struct bns_slice *query);
/* Appends with %XX decoded ('+' as a space when `plus`). BNS_E_INVALID: bad %, or a NUL. */
BNS_MUST_CHECK int bns_url_decode(struct bns_buf *out, struct bns_slice in, bool plus);
/* Appends with every byte but letters, digits and -._~ (and those of `keep`) as %XX. */
BNS_MUST_CHECK int bns_url_encode(struct bns_buf *out, struct bns_slice in, const char *keep);
/* Takes the next name[=value] (both still encoded) off the front of *query; false at the end. */
bool bns_query_next(struct bns_slice *query, struct bns_slice *name, struct bns_slice *value);

#endif
