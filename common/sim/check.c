/* check.c - verdicts: their texts and the names in them.
 *
 * A verdict is a fixed struct, so that saying what is wrong needs no memory: text beyond its end is
 * cut.
 */
#include "sim/check.h"

#include <stdarg.h>
#include <stdio.h>

void bns_verdict_clear(struct bns_verdict *v)
{
    memset(v, 0, sizeof *v);
}

static void say(struct bns_verdict *v, const char *fmt, va_list args)
{
    int n = vsnprintf(v->text + v->text_len, sizeof v->text - v->text_len, fmt, args);

    BNS_ASSERT(n >= 0);
    v->text_len += (size_t)n;
    if (v->text_len >= sizeof v->text)
        v->text_len = sizeof v->text - 1;
}

void bns_verdict_say(struct bns_verdict *v, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    say(v, fmt, args);
    va_end(args);
}

int bns_verdict_anomaly(struct bns_verdict *v, const char *anomaly, const char *fmt, ...)
{
    va_list args;

    BNS_ASSERT(v->anomaly == NULL);
    v->anomaly = anomaly;
    va_start(args, fmt);
    say(v, fmt, args);
    va_end(args);
    return BNS_E_CONFLICT;
}

int bns_verdict_senseless(struct bns_verdict *v, const char *fmt, ...)
{
    va_list args;

    v->text_len = 0;
    va_start(args, fmt);
    say(v, fmt, args);
    va_end(args);
    return BNS_E_INVALID;
}

void bns_verdict_op(struct bns_verdict *v, uint64_t call)
{
    for (size_t i = 0; i < v->ops_count; i++) {
        if (v->ops[i] == call)
            return;
    }
    if (v->ops_count < BNS_CHECK_SHOWN_MAX)
        v->ops[v->ops_count++] = call;
}

struct bns_check_name bns_check_name(const struct bns_check_cfg *cfg, uint64_t id)
{
    struct bns_check_name n;
    const char *s = cfg->names == NULL ? NULL : cfg->names->name(cfg->names->arg, id);

    if (s == NULL)
        (void)snprintf(n.s, sizeof n.s, "%llu", (unsigned long long)id); /* a number fits */
    else
        (void)snprintf(n.s, sizeof n.s, "%s", s); /* cut when long */
    return n;
}

void *bns_check_array(const struct bns_alloc *a, size_t count, size_t size)
{
    void *p = bns_alloc_array(a, count == 0 ? 1 : count, size);

    if (p != NULL)
        memset(p, 0, (count == 0 ? 1 : count) * size);
    return p;
}
