/* time.c - durations, sizes and RFC 3339 times as text.
 *
 * Both parsers read decimal digits with an optional fraction and a unit, in integers only: the
 * value is digits * unit + fraction * unit / 10^places, with fraction places past the ninth
 * ignored. What does not fit in 64 bits is an error.
 */
#include "base/time.h"

#include <stdio.h>

struct unit {
    const char *name;
    uint64_t scale;
};

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Reads [digits][.digits] at *text and moves past it. False when there is no digit or it
 * overflows. */
static bool number(const char **text, uint64_t *whole, uint64_t *nanos)
{
    const char *p = *text;
    uint64_t v = 0;
    uint64_t part = 0;
    uint64_t place = 100000000;
    bool any = false;

    for (; digit(*p); p++) {
        any = true;
        if (__builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
            return false;
    }
    if (*p == '.') {
        p++;
        for (; digit(*p); p++) {
            any = true;
            part += (uint64_t)(*p - '0') * place;
            place /= 10;
        }
    }
    *text = p;
    *whole = v;
    *nanos = part;
    return any;
}

/* whole.nanos units, in the base unit. False on overflow. */
static bool scaled(uint64_t whole, uint64_t nanos, uint64_t scale, uint64_t *out)
{
    unsigned __int128 v = (unsigned __int128)whole * scale;

    v += (unsigned __int128)nanos * scale / 1000000000u;
    if (v > UINT64_MAX)
        return false;
    *out = (uint64_t)v;
    return true;
}

/* The unit named at *text (longest name first in the table); NULL when there is none. */
static const struct unit *unit_at(const char **text, const struct unit *t, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(t[i].name);
        if (strncmp(*text, t[i].name, len) == 0) {
            *text += len;
            return &t[i];
        }
    }
    return NULL;
}

int bns_duration_parse(const char *text, uint64_t *out_ns, struct bns_err *err)
{
    static const struct unit units[] = {
        {"ns", 1},      {"us", BNS_US}, {"\xc2\xb5s", BNS_US}, {"\xce\xbcs", BNS_US},
        {"ms", BNS_MS}, {"s", BNS_SEC}, {"m", 60 * BNS_SEC},   {"h", 3600 * BNS_SEC},
    };
    const char *p = text;
    uint64_t sum = 0;

    if (strcmp(text, "0") == 0) {
        *out_ns = 0;
        return BNS_OK;
    }
    do {
        const struct unit *u;
        uint64_t whole;
        uint64_t nanos;
        uint64_t part;

        if (!number(&p, &whole, &nanos))
            goto fail;
        u = unit_at(&p, units, sizeof units / sizeof units[0]);
        if (u == NULL || !scaled(whole, nanos, u->scale, &part))
            goto fail;
        if (__builtin_add_overflow(sum, part, &sum))
            goto fail;
    } while (*p != '\0');
    *out_ns = sum;
    return BNS_OK;

fail:
    return bns_err_set(err, BNS_E_INVALID,
                       "\"%.64s\" is not a duration: write it with a unit, like 200ms, 1.5s, 1h30m",
                       text);
}

int bns_size_parse(const char *text, uint64_t *out_bytes, struct bns_err *err)
{
    static const struct unit units[] = {
        {"KiB", UINT64_C(1) << 10},
        {"MiB", UINT64_C(1) << 20},
        {"GiB", UINT64_C(1) << 30},
        {"TiB", UINT64_C(1) << 40},
        {"kB", 1000},
        {"KB", 1000},
        {"MB", 1000000},
        {"GB", 1000000000},
        {"TB", UINT64_C(1000000000000)},
        {"B", 1},
    };
    static const struct unit bytes = {"", 1};
    const char *p = text;
    const struct unit *u = &bytes;
    uint64_t whole;
    uint64_t nanos;

    if (!number(&p, &whole, &nanos))
        goto fail;
    if (*p != '\0')
        u = unit_at(&p, units, sizeof units / sizeof units[0]);
    if (u == NULL || *p != '\0' || (u->scale == 1 && nanos != 0))
        goto fail;
    if (!scaled(whole, nanos, u->scale, out_bytes))
        goto fail;
    return BNS_OK;

fail:
    return bns_err_set(err, BNS_E_INVALID,
                       "\"%.64s\" is not a size: write bytes, or a unit, like 4096, 64MiB, 10MB",
                       text);
}

/* Days since 1970-01-01 to year, month, day of the proleptic Gregorian calendar: years start in
 * March, so that the leap day is the last of its year; 400 years have 146,097 days. */
static void civil(int64_t days, int64_t *year, unsigned *month, unsigned *day)
{
    int64_t z = days + 719468; /* days since 0000-03-01 */
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    unsigned doe = (unsigned)(z - era * 146097);
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned mp = (5 * doy + 2) / 153;

    *day = doy - (153 * mp + 2) / 5 + 1;
    *month = mp < 10 ? mp + 3 : mp - 9;
    *year = (int64_t)yoe + era * 400 + (*month <= 2 ? 1 : 0);
}

void bns_time_format(int64_t wall_ms, char *dst)
{
    const int64_t day_ms = INT64_C(86400000);
    const int64_t ms_max = INT64_C(253402300799999); /* 9999-12-31T23:59:59.999Z */
    const int64_t ms_min = INT64_C(-62167219200000); /* 0000-01-01T00:00:00.000Z */
    int64_t days;
    unsigned ms;
    int64_t year;
    unsigned month;
    unsigned day;
    char text[64];

    if (wall_ms > ms_max)
        wall_ms = ms_max;
    if (wall_ms < ms_min)
        wall_ms = ms_min;
    days = wall_ms / day_ms - (wall_ms % day_ms < 0 ? 1 : 0);
    ms = (unsigned)(wall_ms - days * day_ms);
    civil(days, &year, &month, &day);
    (void)snprintf(text, sizeof text, "%04d-%02u-%02uT%02u:%02u:%02u.%03uZ", (int)year, month, day,
                   ms / 3600000, ms / 60000 % 60, ms / 1000 % 60, ms % 1000); /* fits: clamped */
    memcpy(dst, text, 24);
    dst[24] = '\0';
}
