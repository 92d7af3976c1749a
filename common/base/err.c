/* err.c - the error table's lookups, texts that travel outward, the end of a broken process.
 *
 * A text is built in a buffer of its own before it replaces the old one, so that the old text may
 * be an argument of the new one. It is cut at a UTF-8 boundary. Nothing here allocates or fails.
 */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct row {
    int code;
    const char *name;
    const char *text;
    int grpc;
    int http;
    bool retryable;
    bool definite;
};

#define ROW(name, code, text, grpc, http, retry, definite)                                         \
    {code, #name, text, grpc, http, retry, definite},
static const struct row rows[] = {{BNS_OK, "OK", "ok", 0, 200, false, false}, BNS_ERR_MAP(ROW)};
#undef ROW

/* Row n holds code -n: checked here, once a lookup. NULL for codes outside the table. */
static const struct row *find(int code)
{
    const struct row *r;

    if (code > 0 || code <= -(int)(sizeof rows / sizeof rows[0]))
        return NULL;
    r = &rows[-code];
    BNS_ASSERT(r->code == code);
    return r;
}

const char *bns_err_name(int code)
{
    const struct row *r = find(code);
    return r == NULL ? "UNKNOWN" : r->name;
}

const char *bns_err_default_text(int code)
{
    const struct row *r = find(code);
    return r == NULL ? "unknown error" : r->text;
}

int bns_err_grpc(int code)
{
    const struct row *r = find(code);
    return r == NULL ? 2 : r->grpc;
}

int bns_err_http(int code)
{
    const struct row *r = find(code);
    return r == NULL ? 500 : r->http;
}

bool bns_err_retryable(int code)
{
    const struct row *r = find(code);
    return r != NULL && r->retryable;
}

bool bns_err_definite(int code)
{
    const struct row *r = find(code);
    return r != NULL && r->definite;
}

/* Drops a UTF-8 sequence that the end of the buffer has cut in two. */
static void cut_partial(char *text, size_t len)
{
    size_t back = 0;
    size_t want;
    uint8_t lead;

    while (back < 4 && back < len && ((uint8_t)text[len - 1 - back] & 0xc0) == 0x80)
        back++;
    if (back >= len)
        return;
    lead = (uint8_t)text[len - 1 - back];
    want = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    if (back + 1 < want)
        text[len - 1 - back] = '\0';
}

/* vsnprintf that cuts cleanly; returns the bytes written. */
static size_t put(char *dst, size_t cap, const char *fmt, va_list ap)
{
    int n = vsnprintf(dst, cap, fmt, ap);

    if (n < 0) {
        dst[0] = '\0';
        return 0;
    }
    if ((size_t)n < cap)
        return (size_t)n;
    cut_partial(dst, cap - 1);
    return strlen(dst);
}

int bns_err_set(struct bns_err *err, int code, const char *fmt, ...)
{
    char text[BNS_ERR_TEXT_MAX];
    va_list ap;

    BNS_ASSERT(code < 0);
    if (err == NULL)
        return code;
    va_start(ap, fmt);
    (void)put(text, sizeof text, fmt, ap); /* the length is not needed */
    va_end(ap);
    memcpy(err->text, text, sizeof text);
    err->code = code;
    return code;
}

int bns_err_wrap(struct bns_err *err, const char *fmt, ...)
{
    char text[BNS_ERR_TEXT_MAX];
    size_t len;
    size_t room;
    size_t old;
    va_list ap;

    if (err == NULL)
        return BNS_E_INTERNAL;
    va_start(ap, fmt);
    len = put(text, sizeof text - 2, fmt, ap);
    va_end(ap);
    memcpy(text + len, ": ", 2);
    len += 2;
    room = sizeof text - 1 - len;
    old = strnlen(err->text, sizeof err->text - 1);
    memcpy(text + len, err->text, old < room ? old : room);
    len += old < room ? old : room;
    text[len] = '\0';
    if (old > room)
        cut_partial(text, len);
    memcpy(err->text, text, sizeof text);
    return err->code;
}

_Noreturn void bns_assert_fail(const char *expr, const char *file, int line, const char *func)
{
    fprintf(stderr, "assertion failed: %s, %s() at %s:%d\n", expr, func, file, line);
    (void)fflush(stderr); /* the process ends here whatever it says */
    abort();
}

#ifdef BNS_COVERAGE
void bns_assert_eval(bool ok, const char *expr, const char *file, int line, const char *func)
{
    if (!ok)
        bns_assert_fail(expr, file, line, func);
}
#endif
