/* check_read.c - histories of list-append, sets and banks, as operations of their checkers. */
#include "sim/check_append.h"
#include "sim/check_bank.h"
#include "sim/check_read.h"
#include "sim/check_set.h"

/* ---- list-append: f "txn", value [["append",key,element],["r",key,null or list],...] ----------
 * */

struct appends {
    struct bns_append_txn *txns;
    size_t count;
};

static int take_append_op(struct check_reader *r, const struct check_call *c, size_t i, bool ok,
                          struct bns_append_op *op)
{
    const json_t *in = json_array_get(c->in, i);
    const json_t *out = json_array_get(c->out, i);
    const char *f = json_string_value(json_array_get(in, 0));
    uint64_t *list = NULL;
    int rv;

    if (f == NULL || json_array_size(in) != 3)
        return check_bad(r, c->c, "each operation is [\"append\",key,element] or [\"r\",key,list]");
    op->append = strcmp(f, "append") == 0;
    if (!op->append && strcmp(f, "r") != 0)
        return check_bad(r, c->c, "a transaction is made of append and r");
    rv = check_id(r, json_array_get(in, 1), &op->key);
    if (rv == BNS_OK && op->append)
        rv = check_id(r, json_array_get(in, 2), &op->value);
    if (rv != BNS_OK || op->append || !ok)
        return rv;
    if (!json_equal(json_array_get(out, 0), json_array_get(in, 0)) ||
        !json_equal(json_array_get(out, 1), json_array_get(in, 1)))
        return check_bad(r, c->c, "the answer has other operations than the question");
    if (!json_is_array(json_array_get(out, 2)) && !json_is_null(json_array_get(out, 2)))
        return check_bad(r, c->c, "a read shows a list");
    rv = check_list(r, json_array_get(out, 2), &list, &op->list_count);
    op->list = list;
    return rv;
}

static int take_append(struct check_reader *r, void *arg, const struct check_call *c)
{
    struct appends *a = arg;
    struct bns_append_txn *t = &a->txns[a->count++];
    struct bns_append_op *ops;
    bool ok = c->c->end == BNS_HIST_OK;
    int rv = BNS_OK;

    if (strcmp(c->c->f, "txn") != 0 || !json_is_array(c->in))
        return check_bad(r, c->c, "no transaction: f \"txn\", value a list of operations");
    if (ok && json_array_size(c->out) != json_array_size(c->in))
        return check_bad(r, c->c, "the answer has other operations than the question");
    t->call = c->c->call;
    t->ret = check_ret(c->c);
    t->process = c->c->process;
    t->end = check_end(c->c);
    t->ops_count = json_array_size(c->in);
    t->ops = ops = check_take(r, t->ops_count, sizeof *ops);
    if (ops == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < t->ops_count && rv == BNS_OK; i++)
        rv = take_append_op(r, c, i, ok, &ops[i]);
    return rv;
}

int check_read_append(struct check_reader *r)
{
    struct appends a = {.txns = check_take(r, r->calls_count, sizeof *a.txns)};
    int rv = a.txns == NULL ? BNS_E_NOMEM : check_each(r, &a, take_append);

    return rv == BNS_OK ? bns_check_append(&r->cfg, a.txns, a.count, r->v) : rv;
}

/* ---- set ------------------------------------------------------------------------------------- */

struct sets {
    struct bns_set_op *ops;
    size_t count;
};

static int take_set(struct check_reader *r, void *arg, const struct check_call *c)
{
    struct sets *s = arg;
    struct bns_set_op *op = &s->ops[s->count++];
    uint64_t *list = NULL;
    int rv;

    op->call = c->c->call;
    op->ret = check_ret(c->c);
    op->end = check_end(c->c);
    op->key = c->c->key_id;
    op->add = strcmp(c->c->f, "add") == 0;
    if (op->add)
        return check_id(r, c->in, &op->value);
    if (strcmp(c->c->f, "read") != 0)
        return check_bad(r, c->c, "a set knows add and read");
    if (op->end != BNS_CHECK_OK)
        return BNS_OK;
    if (!json_is_array(c->out) && !json_is_null(c->out))
        return check_bad(r, c->c, "a read shows a list");
    rv = check_list(r, c->out, &list, &op->list_count);
    op->list = list;
    return rv;
}

int check_read_set(struct check_reader *r)
{
    struct sets s = {.ops = check_take(r, r->calls_count, sizeof *s.ops)};
    int rv = s.ops == NULL ? BNS_E_NOMEM : check_each(r, &s, take_set);

    return rv == BNS_OK ? bns_check_set(&r->cfg, s.ops, s.count, r->v) : rv;
}

/* ---- bank: f "transfer", value {"from","to","amount"}; f "read", answer {"accounts","rev"} ----
 * */

struct banks {
    struct bns_bank_op *ops;
    size_t count;
};

static int take_transfer(struct check_reader *r, const struct check_call *c, struct bns_bank_op *op)
{
    const char *from = json_string_value(json_object_get(c->in, "from"));
    const char *to = json_string_value(json_object_get(c->in, "to"));
    uint64_t amount = UINT64_MAX;
    int rv;

    if (from == NULL || to == NULL || !check_number(c->in, "amount", &amount) || amount > INT64_MAX)
        return check_bad(r, c->c, "a transfer is {\"from\":text,\"to\":text,\"amount\":number}");
    op->transfer = true;
    op->amount = (int64_t)amount;
    rv = check_text_id(r, from, &op->from);
    return rv == BNS_OK ? check_text_id(r, to, &op->to) : rv;
}

static int take_balances(struct check_reader *r, const struct check_call *c, struct bns_bank_op *op)
{
    json_t *accounts = json_object_get(c->out, "accounts");
    struct bns_bank_account *list = check_take(r, json_object_size(accounts), sizeof *list);
    const char *name;
    json_t *balance;
    int rv = BNS_OK;

    if (!json_is_object(accounts) || !check_number(c->out, "rev", &op->rev))
        return check_bad(r, c->c, "a read shows {\"accounts\":{name:balance},\"rev\":number}");
    if (list == NULL)
        return BNS_E_NOMEM;
    op->accounts = list;
    json_object_foreach(accounts, name, balance)
    {
        if (!json_is_integer(balance))
            return check_bad(r, c->c, "a balance is a whole number");
        list[op->accounts_count].balance = json_integer_value(balance);
        rv = check_text_id(r, name, &list[op->accounts_count++].id);
        if (rv != BNS_OK)
            return rv;
    }
    return BNS_OK;
}

static int take_bank(struct check_reader *r, void *arg, const struct check_call *c)
{
    struct banks *b = arg;
    struct bns_bank_op *op = &b->ops[b->count++];

    op->call = c->c->call;
    op->ret = check_ret(c->c);
    op->end = check_end(c->c);
    if (strcmp(c->c->f, "transfer") == 0)
        return take_transfer(r, c, op);
    if (strcmp(c->c->f, "read") != 0)
        return check_bad(r, c->c, "a bank knows transfer and read");
    return op->end == BNS_CHECK_OK ? take_balances(r, c, op) : BNS_OK;
}

int check_read_bank(struct check_reader *r)
{
    struct banks b = {.ops = check_take(r, r->calls_count, sizeof *b.ops)};
    int rv = b.ops == NULL ? BNS_E_NOMEM : check_each(r, &b, take_bank);

    return rv == BNS_OK ? bns_check_bank(&r->cfg, b.ops, b.count, r->v) : rv;
}
