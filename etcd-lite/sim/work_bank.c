/* work_bank.c - money is moved between accounts, and nobody may see it appear or vanish.
 *
 * The accounts are opened by one transaction, on condition that they are not there. A transfer
 * reads two balances, then writes both on condition that neither has changed: by mod revision, by
 * version or by value. All balances are read at once, by a range or by a transaction of reads; the
 * total is known.
 */
#include "work.h"

#include <stdio.h>
#include <stdlib.h>

#define ACCOUNTS 5u
#define MONEY 20 /* of each account, at first: little, so that many transfers are refused */

enum { OPEN, READ_RANGE, READ_TXN, LOOK, MOVE }; /* steps */

static bool begin(struct sim_worker *w)
{
    struct bns_prng *p = &w->owner->env->prng;
    struct sim_bank *b = &w->bank;
    char text[64];

    if (!w->m->bank_open) {
        w->step = OPEN;
        return true;
    }
    if (bns_prng_chance(p, 0.4)) {
        w->step = bns_prng_chance(p, 0.5) ? READ_RANGE : READ_TXN;
        work_record(w, BNS_HIST_INVOKE, "read", NULL, NULL);
        return true;
    }
    w->step = LOOK;
    b->account[0] = (unsigned)bns_prng_below(p, ACCOUNTS);
    b->account[1] = (b->account[0] + 1 + (unsigned)bns_prng_below(p, ACCOUNTS - 1)) % ACCOUNTS;
    b->amount = (int64_t)bns_prng_range(p, 1, 5);
    b->target = (int)bns_prng_below(p, 3);
    (void)snprintf(text, sizeof text, "{\"from\":\"b%u\",\"to\":\"b%u\",\"amount\":%lld}",
                   b->account[0], b->account[1], (long long)b->amount); /* fits */
    work_record(w, BNS_HIST_INVOKE, "transfer", NULL, text);
    return true;
}

static void encode_open(struct work_txn *t)
{
    t->compares_count = 1;
    t->compares[0] = (struct work_compare){.target = WORK_CREATE, .key = "b0"};
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        struct work_part *p = &t->yes[t->yes_count++];

        p->what = WORK_PUT;
        (void)snprintf(p->key, sizeof p->key, "b%u", i); /* both fit */
        (void)snprintf(p->value, sizeof p->value, "%d", MONEY);
    }
}

static void encode_gets(const unsigned *accounts, unsigned n, struct work_txn *t)
{
    for (unsigned i = 0; i < n; i++) {
        struct work_part *p = &t->yes[t->yes_count++];

        p->what = WORK_GET;
        (void)snprintf(p->key, sizeof p->key, "b%u", accounts[i]); /* fits */
    }
}

static void encode_move(const struct sim_bank *b, struct work_txn *t)
{
    for (unsigned i = 0; i < 2; i++) {
        struct work_compare *c = &t->compares[t->compares_count++];
        struct work_part *p = &t->yes[t->yes_count++];
        int64_t to = b->balance[b->account[i]] + (i == 0 ? -b->amount : b->amount);

        c->target = b->target == 0 ? WORK_MOD : (b->target == 1 ? WORK_VERSION : WORK_VALUE);
        c->number = b->target == 0 ? b->mod[i] : b->version[i];
        (void)snprintf(c->key, sizeof c->key, "b%u", b->account[i]); /* all of them fit */
        (void)snprintf(c->value, sizeof c->value, "%lld", (long long)b->balance[b->account[i]]);
        p->what = WORK_PUT;
        (void)snprintf(p->key, sizeof p->key, "b%u", b->account[i]);
        (void)snprintf(p->value, sizeof p->value, "%lld", (long long)to);
    }
}

static struct bns_slice encode_range(struct bns_arena *arena, const char **path)
{
    Etcdserverpb__RangeRequest r = ETCDSERVERPB__RANGE_REQUEST__INIT;

    *path = "/etcdserverpb.KV/Range";
    r.has_key = r.has_range_end = true;
    r.key = work_bytes("b");
    r.range_end = work_bytes("c");
    return work_pack(&r.base, arena);
}

static struct bns_slice encode(struct sim_worker *w, struct bns_arena *arena, const char **path)
{
    static const unsigned all[ACCOUNTS] = {0, 1, 2, 3, 4};
    struct work_txn t = {.compares_count = 0};

    if (w->step == READ_RANGE)
        return encode_range(arena, path);
    if (w->step == OPEN)
        encode_open(&t);
    else if (w->step == READ_TXN)
        encode_gets(all, ACCOUNTS, &t);
    else if (w->step == LOOK)
        encode_gets(w->bank.account, 2, &t);
    else
        encode_move(&w->bank, &t);
    return work_encode_txn(&t, arena, path);
}

static const ProtobufCMessageDescriptor *answer(const struct sim_worker *w)
{
    return w->step == READ_RANGE ? &etcdserverpb__range_response__descriptor
                                 : &etcdserverpb__txn_response__descriptor;
}

static void take(struct sim_worker *w, const Etcdserverpb__KeyValue *kv)
{
    char text[32];
    unsigned account;

    if (kv == NULL || kv->key.len != 2 || !work_text(kv->value, text, sizeof text)) {
        sim_complain(w->m, "an account is missing, or has another key or value than was written");
        return;
    }
    account = kv->key.data[1] - (unsigned)'0';
    if (account >= ACCOUNTS) {
        sim_complain(w->m, "there is an account that nobody opened");
        return;
    }
    w->bank.balance[account] = strtoll(text, NULL, 10);
    for (unsigned i = 0; i < 2; i++) {
        if (w->bank.account[i] != account)
            continue;
        w->bank.mod[i] = kv->mod_revision;
        w->bank.version[i] = kv->version;
    }
}

static void decode(struct sim_worker *w, const ProtobufCMessage *msg)
{
    const Etcdserverpb__RangeResponse *range = (const void *)msg;
    const Etcdserverpb__TxnResponse *txn = (const void *)msg;
    size_t n = w->step == READ_TXN ? ACCOUNTS : 2;

    if (w->step == READ_RANGE) {
        if (range->n_kvs != ACCOUNTS)
            sim_complain(w->m, "%u accounts were opened, %zu are there", ACCOUNTS, range->n_kvs);
        for (size_t i = 0; i < range->n_kvs; i++)
            take(w, range->kvs[i]);
        return;
    }
    w->got_yes = txn->succeeded;
    for (size_t i = 0; i < n && (w->step == READ_TXN || w->step == LOOK); i++)
        take(w, work_kv(txn, i));
}

static enum work_next record_read(struct sim_worker *w)
{
    char text[256];
    int n = snprintf(text, sizeof text, "{\"accounts\":{");

    for (unsigned i = 0; i < ACCOUNTS; i++) /* all of them fit */
        n += snprintf(text + n, sizeof text - (size_t)n, "%s\"b%u\":%lld", i > 0 ? "," : "", i,
                      (long long)w->bank.balance[i]);
    (void)snprintf(text + n, sizeof text - (size_t)n, "},\"rev\":%lld}", (long long)w->got_rev);
    work_record(w, BNS_HIST_OK, "read", NULL, text);
    return WORK_DONE;
}

static void opened(struct sim_worker *w)
{
    char text[32];
    struct bns_history_event e = {
        .time = bns_world_now(w->m->w), .process = -1, .type = BNS_HIST_INFO, .f = "config"};

    if (w->m->bank_open)
        return;
    w->m->bank_open = true;
    (void)snprintf(text, sizeof text, "{\"total\":%u}", ACCOUNTS * MONEY); /* fits */
    e.value = text;
    BNS_ASSERT(bns_history_add(w->m->work_history, &e) == BNS_OK);
}

static enum work_next ended(struct sim_worker *w, int status, const char *text)
{
    bool ok = status == BNS_GRPC_OK;

    switch (w->step) {
    case OPEN:
        if (ok)
            opened(w); /* by this worker, or by another before */
        return WORK_DONE;
    case READ_RANGE:
    case READ_TXN:
        return ok ? record_read(w) : work_lost(w, "read", NULL, false);
    case LOOK:
        if (!ok || w->bank.balance[w->bank.account[0]] < w->bank.amount)
            return work_lost(w, "transfer", NULL, false);
        w->step = MOVE;
        return WORK_ASK;
    default:
        if (!ok || !w->got_yes)
            return work_lost(w, "transfer", NULL, !ok && !sim_op_definite(status, text));
        work_record(w, BNS_HIST_OK, "transfer", NULL, NULL);
        return WORK_DONE;
    }
}

const struct work_kind work_bank = {.name = "bank",
                                    .begin = begin,
                                    .encode = encode,
                                    .answer = answer,
                                    .decode = decode,
                                    .ended = ended};
