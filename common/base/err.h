/* err.h - error codes, error texts that travel outward, assertions.
 *
 * Functions return int: BNS_OK (0) or a negative code of the table below. Details go to a
 * struct bns_err on the caller's stack, which may be NULL.
 *
 * Thread: any. Memory: nothing is allocated.
 */
#ifndef BNS_BASE_ERR_H
#define BNS_BASE_ERR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BNS_MUST_CHECK __attribute__((warn_unused_result))
#define BNS_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* X(name, code, text, gRPC status, HTTP status, retryable, definite)
 * "Definite": the operation certainly did not happen. */
#define BNS_ERR_MAP(X)                                                                             \
    X(NOMEM, -1, "out of memory", 8, 503, true, true)                                              \
    X(INVALID, -2, "invalid argument", 3, 400, false, true)                                        \
    X(PROTO, -3, "protocol error", 13, 400, false, true)                                           \
    X(TOOBIG, -4, "too big", 8, 413, false, true)                                                  \
    X(BUSY, -5, "busy", 8, 429, true, true)                                                        \
    X(TIMEOUT, -6, "timed out", 4, 504, true, false)                                               \
    X(CANCELED, -7, "canceled", 1, 499, false, false)                                              \
    X(NOTFOUND, -8, "not found", 5, 404, false, true)                                              \
    X(EXISTS, -9, "already exists", 6, 409, false, true)                                           \
    X(CONFLICT, -10, "conflict", 10, 409, true, true)                                              \
    X(NOTLEADER, -11, "not leader", 14, 503, true, true)                                           \
    X(NOQUORUM, -12, "no quorum", 14, 503, true, true)                                             \
    X(SHUTDOWN, -13, "shutting down", 14, 503, true, true)                                         \
    X(UNAUTH, -14, "not authenticated", 16, 401, false, true)                                      \
    X(FORBIDDEN, -15, "permission denied", 7, 403, false, true)                                    \
    X(IO, -16, "input/output error", 13, 500, false, false)                                        \
    X(NOSPACE, -17, "no space left", 8, 507, true, true)                                           \
    X(CORRUPT, -18, "corrupt data", 15, 500, false, true)                                          \
    X(UNSUPPORTED, -19, "not supported", 12, 501, false, true)                                     \
    X(INTERNAL, -20, "internal error", 13, 500, false, false)                                      \
    X(OFF, -21, "node is off", 14, 503, true, false) /* power was cut (simulator only) */          \
    X(DROPPED, -22, "dropped, outcome unknown", 14, 503, true, false)                              \
    X(ADDRINUSE, -23, "address in use", 14, 503, false, true)                                      \
    X(AGAIN, -24, "more input needed", 14, 503, true, true)

enum bns_code {
    BNS_OK = 0,
#define BNS_ERR_X(name, code, text, grpc, http, retry, definite) BNS_E_##name = (code),
    BNS_ERR_MAP(BNS_ERR_X)
#undef BNS_ERR_X
};

#define BNS_ERR_TEXT_MAX 252

struct bns_err {
    int code;
    char text[BNS_ERR_TEXT_MAX];
};

/* Stores code and text (cut at 251 bytes, never in the middle of a UTF-8 sequence); returns code.
 * `err` may be NULL. */
int bns_err_set(struct bns_err *err, int code, const char *fmt, ...) BNS_PRINTF(3, 4);

/* Puts "<fmt>: " before the text that is there; returns the code that is there (or BNS_E_INTERNAL
 * when err is NULL: callers keep their own code). */
int bns_err_wrap(struct bns_err *err, const char *fmt, ...) BNS_PRINTF(2, 3);

const char *bns_err_name(int code); /* "NOSPACE"; "UNKNOWN" for others */
const char *bns_err_default_text(int code);
int bns_err_grpc(int code); /* gRPC status, 2 (UNKNOWN) for unknown codes */
int bns_err_http(int code);
bool bns_err_retryable(int code);
bool bns_err_definite(int code);

/* Prints expression and place on stderr and aborts. The daemon frame turns SIGABRT into exit 70. */
_Noreturn void bns_assert_fail(const char *expr, const char *file, int line, const char *func);

#ifdef BNS_COVERAGE /* assertions excluded from branch coverage: evaluated without a branch here */
void bns_assert_eval(bool ok, const char *expr, const char *file, int line, const char *func);
#define BNS_ASSERT(x) bns_assert_eval((x), #x, __FILE__, __LINE__, __func__)
#else
#define BNS_ASSERT(x) ((x) ? (void)0 : bns_assert_fail(#x, __FILE__, __LINE__, __func__))
#endif

/* For checks that cost more than O(1): on in tests and in the simulator. */
#ifdef BNS_CHECKS
#define BNS_DCHECK(x) BNS_ASSERT(x)
#else
#define BNS_DCHECK(x) ((void)0)
#endif

#endif
