/* history_lin.c - operations of registers, out of a history. history.h has their shapes. */
#include "sim/history_impl.h"

static int value_id(struct bns_history *h, const json_t *v, uint64_t *out)
{
    uint32_t id;
    int rv = bns_history_intern_json(h, v, &id);

    *out = id;
    return rv;
}

/* A revision in an object; 0 when there is none. False when it is not a number. */
static bool number_of(const json_t *v, const char *name, uint64_t *out)
{
    const json_t *r = json_object_get(v, name);

    *out = 0;
    if (r == NULL)
        return true;
    if (!json_is_integer(r) || json_integer_value(r) < 0)
        return false;
    *out = (uint64_t)json_integer_value(r);
    return true;
}

/* The arguments, from the value of the invocation. */
static int take_call(struct bns_history *h, struct bns_lin_op *op, const json_t *v)
{
    const json_t *to = json_is_array(v) ? json_array_get(v, 1) : json_object_get(v, "new");
    const json_t *from = json_is_array(v) ? json_array_get(v, 0) : json_object_get(v, "old");
    int rv;

    if (op->f == BNS_LIN_PUT)
        return json_is_null(v) ? BNS_E_INVALID : value_id(h, v, &op->value);
    if (op->f != BNS_LIN_CAS)
        return BNS_OK;
    if (to == NULL || json_is_null(to))
        return BNS_E_INVALID;
    rv = value_id(h, to, &op->value);
    if (rv != BNS_OK)
        return rv;
    op->by_rev = json_object_get(v, "rev") != NULL;
    if (op->by_rev)
        return number_of(v, "rev", &op->expect) ? BNS_OK : BNS_E_INVALID;
    return from == NULL ? BNS_E_INVALID : value_id(h, from, &op->expect);
}

/* What an answer tells of the store beside its result. */
static int take_shown(struct bns_history *h, struct bns_lin_op *op, const json_t *v)
{
    const json_t *was = json_object_get(v, "was");

    if (!number_of(v, "rev", &op->rev) || !number_of(v, "at", &op->at))
        return BNS_E_INVALID;
    op->was_known = was != NULL;
    if (was == NULL || json_is_null(was))
        return BNS_OK;
    if (!number_of(was, "rev", &op->was_rev) || json_object_get(was, "value") == NULL)
        return BNS_E_INVALID;
    return value_id(h, json_object_get(was, "value"), &op->was_value);
}

/* The result, from the value of the completion. */
static int take_ok(struct bns_history *h, struct bns_lin_op *op, const json_t *v)
{
    const char *flag = op->f == BNS_LIN_CAS ? "swapped" : "deleted";
    int rv = take_shown(h, op, v);

    if (rv != BNS_OK)
        return rv;
    if (op->f == BNS_LIN_GET) {
        const json_t *inner = json_object_get(v, "value");
        return value_id(h, inner != NULL ? inner : v, &op->value);
    }
    if (op->f == BNS_LIN_CAS || op->f == BNS_LIN_DELETE)
        op->failed = json_is_false(json_object_get(v, flag));
    return BNS_OK;
}

static bool f_of(const char *text, enum bns_lin_f *out)
{
    static const struct {
        const char *text;
        enum bns_lin_f f;
    } t[] = {
        {"get", BNS_LIN_GET},   {"read", BNS_LIN_GET}, {"put", BNS_LIN_PUT},
        {"write", BNS_LIN_PUT}, {"cas", BNS_LIN_CAS},  {"delete", BNS_LIN_DELETE},
    };

    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        if (strcmp(text, t[i].text) == 0) {
            *out = t[i].f;
            return true;
        }
    }
    return false;
}

static int take(struct bns_history *h, const struct bns_history_call *c, struct bns_lin_op *op)
{
    json_t *in = NULL;
    json_t *out = NULL;
    int rv = BNS_E_INVALID;

    *op = (struct bns_lin_op){.call = c->call, .ret = BNS_LIN_OPEN, .key = c->key_id};
    if (!f_of(c->f, &op->f))
        return rv;
    rv = bns_history_json(c->in, &in);
    if (rv == BNS_OK)
        rv = bns_history_json(c->out, &out);
    if (rv == BNS_OK)
        rv = take_call(h, op, in);
    if (rv == BNS_OK && c->end == BNS_HIST_OK) {
        op->ret = c->ret;
        rv = take_ok(h, op, out);
    }
    json_decref(in);
    json_decref(out);
    return rv;
}

int bns_history_ops(struct bns_history *h, struct bns_lin_op **ops, size_t *count,
                    struct bns_err *err)
{
    const struct bns_alloc *a = bns_history_alloc(h);
    struct bns_history_call *calls = NULL;
    struct bns_lin_op *list = NULL;
    size_t calls_count = 0, n = 0;
    int rv;

    *ops = NULL;
    *count = 0;
    rv = bns_history_pair(h, &calls, &calls_count, err);
    if (rv != BNS_OK)
        return rv;
    list = bns_alloc_array(a, calls_count + 1, sizeof *list);
    if (list == NULL)
        rv = bns_err_set(err, BNS_E_NOMEM, "no memory for %zu operations", calls_count);
    for (size_t i = 0; i < calls_count && rv == BNS_OK; i++) {
        bool none = calls[i].end == BNS_HIST_FAIL;
        rv = take(h, &calls[i], &list[n]);
        if (rv != BNS_OK)
            rv = bns_err_set(err, rv, "history line %zu: %s", calls[i].call + 1,
                             rv == BNS_E_INVALID ? "no operation of a register"
                                                 : bns_err_default_text(rv));
        else if (!none && !(list[n].f == BNS_LIN_GET && calls[i].end != BNS_HIST_OK))
            n++;
    }
    bns_free(a, calls);
    if (rv != BNS_OK) {
        bns_free(a, list);
        return rv;
    }
    *ops = list;
    *count = n;
    return BNS_OK;
}
