/* log.c - one record, one line, in logfmt or JSON.
 *
 * A line is built in a fixed buffer and handed over whole, so that lines of several writers never
 * mix. A pair that does not fit is left out as a whole and the line says "cut": what is written is
 * always well formed. Text is made safe here: control characters and bytes that are not UTF-8 leave
 * as \xNN, so that a value from outside can never forge a second line or a key.
 */
#include "base/log.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/time.h"
#include "base/utf8.h"

#define LINE_MAX_BYTES 2048u
#define TAIL_ROOM 16u /* for the cut mark, the closing brace and the newline */
#define BYTES_SHOWN_MAX 64u
#define STR_SHOWN_MAX 512u

struct line {
    char text[LINE_MAX_BYTES];
    size_t len;
    bool over; /* the pair being written did not fit */
    bool json;
};

static void put(struct line *l, const char *s, size_t n)
{
    if (l->over || n > sizeof l->text - TAIL_ROOM - l->len) {
        l->over = true;
        return;
    }
    memcpy(l->text + l->len, s, n);
    l->len += n;
}

static void put_str(struct line *l, const char *s)
{
    put(l, s, strlen(s));
}

static void put_hex_byte(struct line *l, uint8_t b)
{
    static const char hex[] = "0123456789abcdef";
    char x[5] = {'\\', '\\', 'x', hex[b >> 4], hex[b & 15]};

    put(l, x, sizeof x); /* the backslash is escaped in both formats */
}

/* One well-formed character of n bytes, or one bad byte when n is 0. */
static void put_char(struct line *l, const uint8_t *p, size_t n)
{
    if (n == 0 || *p < 0x20 || *p == 0x7f) {
        if (*p == '\n')
            put(l, "\\n", 2);
        else if (*p == '\t')
            put(l, "\\t", 2);
        else
            put_hex_byte(l, *p);
    } else {
        if (*p == '"' || *p == '\\')
            put(l, "\\", 1);
        put(l, (const char *)p, n);
    }
}

static bool needs_quotes(struct bns_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] <= ' ' || s.ptr[i] == '"' || s.ptr[i] == '=' || s.ptr[i] == '\\' ||
            s.ptr[i] >= 0x7f)
            return true;
    }
    return s.len == 0;
}

static void put_text(struct line *l, struct bns_slice s, size_t shown_max)
{
    bool quotes = l->json || needs_quotes(s);
    size_t i = 0;

    if (quotes)
        put(l, "\"", 1);
    while (i < s.len && i < shown_max) {
        size_t n = bns_utf8_step((struct bns_slice){s.ptr + i, s.len - i});
        put_char(l, s.ptr + i, n);
        i += n == 0 ? 1 : n;
    }
    if (i < s.len)
        put_str(l, "...");
    if (quotes)
        put(l, "\"", 1);
}

static void put_key(struct line *l, const char *key)
{
    if (l->json) {
        put_str(l, l->len == 1 ? "\"" : ",\"");
        put_str(l, key);
        put_str(l, "\":");
    } else {
        if (l->len > 0)
            put(l, " ", 1);
        put_str(l, key);
        put(l, "=", 1);
    }
}

static void put_value(struct line *l, const struct bns_log_kv *kv)
{
    char num[32];

    switch (kv->kind) {
    case BNS_KV_I64:
        (void)snprintf(num, sizeof num, "%lld", (long long)kv->i64); /* 20 digits at most */
        put_str(l, num);
        break;
    case BNS_KV_U64:
        (void)snprintf(num, sizeof num, "%llu", (unsigned long long)kv->u64);
        put_str(l, num);
        break;
    case BNS_KV_HEX:
        (void)snprintf(num, sizeof num, l->json ? "\"%016llx\"" : "%016llx",
                       (unsigned long long)kv->u64);
        put_str(l, num);
        break;
    case BNS_KV_STR:
        put_text(l, bns_slice_str(kv->str == NULL ? "(null)" : kv->str), STR_SHOWN_MAX);
        break;
    case BNS_KV_BYTES:
        put_text(l, kv->bytes, BYTES_SHOWN_MAX);
        break;
    }
}

void bns_log_write(struct bns_log *log, enum bns_log_level level, const char *mod, const char *msg,
                   const struct bns_log_kv *kv, size_t kv_count)
{
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    const struct bns_log_kv head[] = {BNS_STR("level", levels[level]), BNS_STR("mod", mod),
                                      BNS_STR("msg", msg)};
    char ts[25];
    struct line l;
    bool cut = false;

    if (log == NULL || log->write == NULL || level < log->level)
        return;
    l.len = 0;
    l.over = false;
    l.json = log->format == BNS_LOG_JSON;
    if (l.json)
        put(&l, "{", 1);
    if (log->wall_ms != NULL) {
        bns_time_format(log->wall_ms(log->arg), ts);
        put_key(&l, "ts");
        put_text(&l, bns_slice_str(ts), sizeof ts);
    }
    for (size_t i = 0; i < 3 + kv_count; i++) {
        const struct bns_log_kv *p = i < 3 ? &head[i] : &kv[i - 3];
        size_t start = l.len;

        put_key(&l, p->key);
        put_value(&l, p);
        if (l.over) {
            l.len = start;
            l.over = false;
            cut = true;
        }
    }
    if (cut) {
        const char *mark = l.json ? ",\"cut\":true" : " cut=true";
        memcpy(l.text + l.len, mark, strlen(mark));
        l.len += strlen(mark);
    }
    if (l.json)
        l.text[l.len++] = '}';
    l.text[l.len++] = '\n';
    log->write(log->arg, bns_slice(l.text, l.len));
}

bool bns_log_limit(struct bns_log *log, uint64_t now_ns, uint64_t every_ns, uint64_t *last_ns)
{
    if (*last_ns != 0 && now_ns - *last_ns < every_ns) {
        if (log != NULL)
            log->dropped++;
        return false;
    }
    *last_ns = now_ns == 0 ? 1 : now_ns; /* 0 means never */
    return true;
}

static int64_t stderr_wall_ms(void *arg)
{
    struct timespec ts;

    (void)arg;
    if (clock_gettime(CLOCK_REALTIME, &ts) != 0)
        return 0;
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void stderr_write(void *arg, struct bns_slice line)
{
    (void)arg;
    while (line.len > 0) {
        ssize_t n = write(STDERR_FILENO, line.ptr, line.len);
        if (n <= 0)
            return; /* a log that cannot be written must not stop the daemon */
        line = bns_slice_skip(line, (size_t)n);
    }
}

void bns_log_stderr(struct bns_log *log)
{
    *log = (struct bns_log){.level = BNS_LOG_INFO,
                            .format = BNS_LOG_LOGFMT,
                            .wall_ms = stderr_wall_ms,
                            .write = stderr_write};
}
