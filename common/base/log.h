/* log.h - one line a record: JSON or logfmt, typed keys, a level, a rate limit per site.
 *
 * Thread:  the loop that owns the struct bns_log. Text constants only in `msg`.
 * Format:  {"ts":"...","level":"info","mod":"wal","msg":"torn tail cut","lsn":17,...}
 *          ts=... level=info mod=wal msg="torn tail cut" lsn=17
 * Secrets: never log values, tokens or passwords; byte strings are escaped and cut at 64 bytes.
 */
#ifndef BNS_BASE_LOG_H
#define BNS_BASE_LOG_H

#include "base/err.h"
#include "base/slice.h"

enum bns_log_level {
    BNS_LOG_DEBUG,
    BNS_LOG_INFO,
    BNS_LOG_WARN,
    BNS_LOG_ERROR,
    BNS_LOG_NOTHING, /* as a log's level alone: no line is written */
};
enum bns_log_format { BNS_LOG_LOGFMT, BNS_LOG_JSON };

struct bns_log {
    enum bns_log_level level;
    enum bns_log_format format;
    int64_t (*wall_ms)(void *arg);
    void (*write)(void *arg, struct bns_slice line); /* with its newline */
    void *arg;
    uint64_t dropped; /* lines kept back by the rate limit */
};

struct bns_log_kv {
    const char *key;
    enum { BNS_KV_I64, BNS_KV_U64, BNS_KV_STR, BNS_KV_BYTES, BNS_KV_HEX } kind;
    union {
        int64_t i64;
        uint64_t u64; /* also HEX: printed as 16 hex digits */
        const char *str;
        struct bns_slice bytes;
    };
};

#define BNS_I64(k, v) ((struct bns_log_kv){.key = (k), .kind = BNS_KV_I64, .i64 = (int64_t)(v)})
#define BNS_U64(k, v) ((struct bns_log_kv){.key = (k), .kind = BNS_KV_U64, .u64 = (uint64_t)(v)})
#define BNS_HEX(k, v) ((struct bns_log_kv){.key = (k), .kind = BNS_KV_HEX, .u64 = (uint64_t)(v)})
#define BNS_STR(k, v) ((struct bns_log_kv){.key = (k), .kind = BNS_KV_STR, .str = (v)})
#define BNS_BYTES(k, v) ((struct bns_log_kv){.key = (k), .kind = BNS_KV_BYTES, .bytes = (v)})

/* log may be NULL (nothing is written). */
void bns_log_write(struct bns_log *log, enum bns_log_level level, const char *mod, const char *msg,
                   const struct bns_log_kv *kv, size_t kv_count);

#define BNS_LOG(log, level, mod, msg, ...)                                                         \
    bns_log_write((log), (level), (mod), (msg), (const struct bns_log_kv[]){__VA_ARGS__},          \
                  sizeof((const struct bns_log_kv[]){__VA_ARGS__}) / sizeof(struct bns_log_kv))

/* At most one line a `every_ns`; `last_ns` is a field of the caller's, 0 at first. */
bool bns_log_limit(struct bns_log *log, uint64_t now_ns, uint64_t every_ns, uint64_t *last_ns);

void bns_log_stderr(struct bns_log *log); /* fills the struct: logfmt, info, stderr */

#endif
