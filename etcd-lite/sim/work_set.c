/* work_set.c - elements are added to a set, each a key of its own; reads show all of them.
 *
 * A read goes through the set in pages, as controllers list their objects: the first page says at
 * which revision, the others ask for that one. Only one that a compaction overtakes is given up.
 */
#include "work.h"

#include <stdio.h>
#include <stdlib.h>

#define SET_TURNOVER 120 /* elements until another set begins */

static bool begin(struct sim_worker *w)
{
    struct bns_prng *p = &w->owner->env->prng;
    struct sim_set *s = &w->set;
    char text[32];

    s->adds = bns_prng_chance(p, 0.6);
    s->set = (unsigned)(w->m->elements / SET_TURNOVER);
    (void)snprintf(s->name, sizeof s->name, "e%u", s->set); /* both fit */
    if (s->adds) {
        s->element = ++w->m->elements;
        s->guarded = bns_prng_chance(p, 0.5);
        (void)snprintf(text, sizeof text, "%llu", (unsigned long long)s->element);
        work_record(w, BNS_HIST_INVOKE, "add", s->name, text);
        return true;
    }
    s->limit = bns_prng_chance(p, 0.5) ? 0 : (int64_t)bns_prng_range(p, 5, 40);
    s->rev = 0;
    s->text_len = 1;
    s->text[0] = '[';
    (void)snprintf(s->from, sizeof s->from, "%s/", s->name); /* fits */
    work_record(w, BNS_HIST_INVOKE, "read", s->name, NULL);
    return true;
}

static struct bns_slice encode_page(const struct sim_set *s, struct bns_arena *arena,
                                    const char **path)
{
    Etcdserverpb__RangeRequest r = ETCDSERVERPB__RANGE_REQUEST__INIT;
    char end[WORK_KEY_BYTES];

    *path = "/etcdserverpb.KV/Range";
    (void)snprintf(end, sizeof end, "%s0", s->name); /* '0' comes behind '/' */
    r.has_key = r.has_range_end = r.has_limit = r.has_revision = r.has_keys_only = true;
    r.key = work_bytes(s->from);
    r.range_end = work_bytes(end);
    r.limit = s->limit;
    r.revision = s->rev;
    r.keys_only = s->limit % 2 == 1;
    return work_pack(&r.base, arena);
}

static struct bns_slice encode(struct sim_worker *w, struct bns_arena *arena, const char **path)
{
    const struct sim_set *s = &w->set;
    struct work_txn t = {.yes_count = 1};

    if (!s->adds)
        return encode_page(s, arena, path);
    t.yes[0].what = WORK_PUT;
    (void)snprintf(t.yes[0].key, WORK_KEY_BYTES, "%s/%06llu", s->name,
                   (unsigned long long)s->element); /* all of them fit */
    (void)snprintf(t.yes[0].value, sizeof t.yes[0].value, "%llu", (unsigned long long)s->element);
    if (s->guarded) {
        t.compares_count = 1;
        t.compares[0].target = WORK_CREATE;
        memcpy(t.compares[0].key, t.yes[0].key, WORK_KEY_BYTES);
    }
    return work_encode_txn(&t, arena, path);
}

static const ProtobufCMessageDescriptor *answer(const struct sim_worker *w)
{
    return w->set.adds ? &etcdserverpb__txn_response__descriptor
                       : &etcdserverpb__range_response__descriptor;
}

static void take_page(struct sim_worker *w, const Etcdserverpb__RangeResponse *r)
{
    struct sim_set *s = &w->set;
    char key[WORK_KEY_BYTES] = "";

    s->more = r->more;
    if (s->rev == 0)
        s->rev = r->header->revision;
    if (r->more != ((size_t)r->count > r->n_kvs) || (r->more && r->n_kvs == 0) ||
        (s->limit > 0 && r->n_kvs > (size_t)s->limit))
        sim_complain(w->m, "a page of at most %lld has %zu of %lld, more: %d", (long long)s->limit,
                     r->n_kvs, (long long)r->count, r->more);
    for (size_t i = 0; i < r->n_kvs; i++) {
        size_t room = sizeof s->text - s->text_len;

        if (!work_text(r->kvs[i]->key, key, sizeof key) || strncmp(key, s->from, 2) != 0 ||
            strcmp(key, s->from) < 0 || strchr(key, '/') == NULL || room < 32) {
            sim_complain(w->m, "a page from %s on shows another key", s->from);
            return;
        }
        s->text_len +=
            (size_t)snprintf(s->text + s->text_len, room, "%s%llu", s->text_len > 1 ? "," : "",
                             strtoull(strchr(key, '/') + 1, NULL, 10)); /* fits */
    }
    if (r->more && !w->m->failed) /* what comes behind the last: keys have one length */
        (void)snprintf(s->from, sizeof s->from, "%.*s!", (int)sizeof s->from - 2, key);
}

static void decode(struct sim_worker *w, const ProtobufCMessage *msg)
{
    if (w->set.adds)
        w->got_yes = ((const Etcdserverpb__TxnResponse *)(const void *)msg)->succeeded;
    else
        take_page(w, (const Etcdserverpb__RangeResponse *)(const void *)msg);
}

static enum work_next ended(struct sim_worker *w, int status, const char *text)
{
    struct sim_set *s = &w->set;

    if (s->adds && status == BNS_GRPC_OK && !w->got_yes)
        sim_complain(w->m, "an element that nobody else adds is there already");
    if (s->adds && status != BNS_GRPC_OK)
        return work_lost(w, "add", s->name, !sim_op_definite(status, text));
    if (s->adds) {
        work_record(w, BNS_HIST_OK, "add", s->name, NULL);
        return WORK_DONE;
    }
    if (status != BNS_GRPC_OK)
        return work_lost(w, "read", s->name, false);
    if (s->more)
        return WORK_ASK;
    memcpy(s->text + s->text_len, "]", 2);
    work_record(w, BNS_HIST_OK, "read", s->name, s->text);
    return WORK_DONE;
}

const struct work_kind work_set = {.name = "set",
                                   .begin = begin,
                                   .encode = encode,
                                   .answer = answer,
                                   .decode = decode,
                                   .ended = ended};
