/* check_history.c - histories as JSON lines into the checkers: settings, registers, and the table
 * of kinds. README.md has the shapes.
 *
 * May fail: no memory; what the history says (validated, never asserted).
 */
#include "sim/check_read.h"

#define ARENA_BYTES_MAX ((size_t)4 << 30)

int check_bad(struct check_reader *r, const struct bns_history_call *c, const char *what)
{
    return bns_verdict_senseless(r->v, "history line %zu: %s", c->call + 1, what);
}

enum bns_check_end check_end(const struct bns_history_call *c)
{
    return c->end == BNS_HIST_OK     ? BNS_CHECK_OK
           : c->end == BNS_HIST_FAIL ? BNS_CHECK_FAILED
                                     : BNS_CHECK_INFO;
}

uint64_t check_ret(const struct bns_history_call *c)
{
    return c->end == BNS_HIST_OK ? c->ret : BNS_CHECK_OPEN;
}

int check_id(struct check_reader *r, const json_t *v, uint64_t *out)
{
    uint32_t id;
    int rv = bns_history_intern_json(r->h, v, &id);

    *out = id;
    return rv;
}

int check_text_id(struct check_reader *r, const char *s, uint64_t *out)
{
    json_t *v = json_string(s);
    int rv = v == NULL ? BNS_E_NOMEM : check_id(r, v, out);

    json_decref(v);
    return rv;
}

void *check_take(struct check_reader *r, size_t count, size_t size)
{
    size_t bytes;
    void *p = NULL;

    if (!__builtin_mul_overflow(count == 0 ? 1 : count, size, &bytes))
        p = bns_arena_alloc(&r->arena, bytes);
    return p == NULL ? NULL : memset(p, 0, bytes);
}

int check_list(struct check_reader *r, const json_t *v, uint64_t **out, size_t *count)
{
    int rv = BNS_OK;

    *count = json_array_size(v);
    *out = check_take(r, *count, sizeof **out);
    if (*out == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < *count && rv == BNS_OK; i++)
        rv = check_id(r, json_array_get(v, i), &(*out)[i]);
    return rv;
}

bool check_number(const json_t *v, const char *name, uint64_t *out)
{
    const json_t *n = json_object_get(v, name);

    if (n == NULL)
        return true;
    if (!json_is_integer(n) || json_integer_value(n) < 0)
        return false;
    *out = (uint64_t)json_integer_value(n);
    return true;
}

int check_each(struct check_reader *r, void *arg,
               int (*take)(struct check_reader *r, void *arg, const struct check_call *c))
{
    int rv = BNS_OK;

    for (size_t i = 0; i < r->calls_count && rv == BNS_OK; i++) {
        json_t *in = NULL;
        json_t *out = NULL;

        rv = bns_history_json(r->calls[i].in, &in);
        if (rv == BNS_OK)
            rv = bns_history_json(r->calls[i].out, &out);
        if (rv == BNS_OK)
            rv = take(r, arg, &(struct check_call){&r->calls[i], in, out});
        json_decref(in);
        json_decref(out);
    }
    return rv;
}

/* ---- kinds ----------------------------------------------------------------------------------- */

static const struct {
    const char *kind;
    int (*read)(struct check_reader *r);
} readers[] = {
    {"register", check_read_register}, {"append", check_read_append}, {"set", check_read_set},
    {"bank", check_read_bank},         {"watch", check_read_watch},   {"lock", check_read_lock},
    {"lease", check_read_lease},
};

const char *const bns_check_kinds[] = {"register", "append", "set",   "bank",
                                       "watch",    "lock",   "lease", NULL};

static const char *name_of(void *arg, uint64_t id)
{
    return bns_history_text(arg, id);
}

/* The settings that the history itself has. */
static int configure(struct check_reader *r, size_t i)
{
    struct bns_history_event e = bns_history_at(r->h, i);
    const json_t *total;
    json_t *v;
    uint64_t slack_ms = r->cfg.slack_ns / 1000000, drift_ppm = r->cfg.drift_ppm;
    int rv;

    if (e.process != -1 || e.type != BNS_HIST_INFO || strcmp(e.f, "config") != 0)
        return BNS_OK;
    rv = bns_history_json(e.value, &v);
    if (rv != BNS_OK)
        return rv;
    total = json_object_get(v, "total");
    if ((total != NULL && !json_is_integer(total)) || !check_number(v, "slack_ms", &slack_ms) ||
        slack_ms > UINT32_MAX || !check_number(v, "drift_ppm", &drift_ppm) || drift_ppm > 1000000)
        rv = bns_verdict_senseless(r->v, "history line %zu: settings that are none", i + 1);
    if (json_is_false(json_object_get(v, "realtime")))
        r->cfg.no_realtime = true;
    if (json_is_true(json_object_get(v, "negative")))
        r->cfg.negative_ok = true;
    if (json_is_true(json_object_get(v, "others")))
        r->cfg.others_write = true;
    if (json_is_true(json_object_get(v, "expiry")))
        r->cfg.expiry = true;
    if (total != NULL) {
        r->cfg.total_known = true;
        r->cfg.total = json_integer_value(total);
    }
    if (rv == BNS_OK) {
        r->cfg.slack_ns = slack_ms * 1000000;
        r->cfg.drift_ppm = (uint32_t)drift_ppm;
    }
    json_decref(v);
    return rv;
}

int bns_check_history(struct bns_history *h, const char *kind, const struct bns_check_cfg *cfg,
                      struct bns_verdict *v)
{
    struct check_reader r = {.h = h, .cfg = *cfg, .v = v};
    struct bns_check_names names = {name_of, h};
    struct bns_err err = {0};
    size_t n = 0;
    int rv = BNS_OK;

    bns_verdict_clear(v);
    while (n < sizeof readers / sizeof readers[0] && strcmp(readers[n].kind, kind) != 0)
        n++;
    if (n == sizeof readers / sizeof readers[0])
        return BNS_E_UNSUPPORTED;
    r.cfg.names = &names;
    bns_arena_init(&r.arena, cfg->alloc, ARENA_BYTES_MAX);
    for (size_t i = 0; i < bns_history_count(h) && rv == BNS_OK; i++)
        rv = configure(&r, i);
    if (rv == BNS_OK) {
        rv = bns_history_pair(h, &r.calls, &r.calls_count, &err);
        if (rv == BNS_E_INVALID)
            bns_verdict_say(v, "%s", err.text);
    }
    if (rv == BNS_OK)
        rv = readers[n].read(&r);
    bns_free(bns_history_alloc(h), r.calls);
    bns_arena_free(&r.arena);
    return rv;
}
