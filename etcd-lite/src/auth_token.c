/* auth_token.c - simple tokens: who has shown a password not long ago.
 *
 * A token is 16 random letters, ".", and the Raft index of the entry that gave it. The member that
 * checked the password chooses the letters and proposes them with the name; each member that
 * applies the entry knows the token from then on. A member that has not come so far knows from the
 * index that it must wait (rpc_auth.c). The time to live starts anew with each use, on the member
 * where it is used. Tokens are not stored: a restart forgets them, and does not believe the entries
 * that it replays. A changed password, a deleted user, and auth being turned off void them.
 *
 * All live equally long, so the list in the order of the last use is in the order of expiry. Past
 * ETCD_TOKENS_MAX the one that expires first goes.
 */
#include "auth_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define TTL_NS (300 * BNS_SEC)

static void arm(struct etcd_kv *kv)
{
    struct etcd_tokens *t = &kv->auth->tokens;

    if (bns_list_empty(&t->list) || kv->stopping || kv->dead)
        bns_timer_stop(kv->env, &t->timer);
    else if (t->timer.node.pos == 0)
        bns_timer_start(kv->env, &t->timer,
                        BNS_CONTAINER(t->list.next, struct etcd_token, list)->expires_ns);
}

static void drop(struct etcd_kv *kv, struct etcd_token *k)
{
    bns_list_del(&k->list);
    bns_hmap_del(&kv->auth->tokens.map, &k->node);
    bns_free(kv->alloc, k);
}

static void on_timer(void *arg)
{
    struct etcd_kv *kv = arg;
    struct etcd_tokens *t = &kv->auth->tokens;
    uint64_t now = bns_now_ns(kv->env);

    while (!bns_list_empty(&t->list)) {
        struct etcd_token *k = BNS_CONTAINER(t->list.next, struct etcd_token, list);

        if (k->expires_ns > now)
            break;
        drop(kv, k);
    }
    arm(kv);
}

void etcd_tokens_init(struct etcd_kv *kv)
{
    struct etcd_tokens *t = &kv->auth->tokens;

    t->ttl_ns = TTL_NS;
    bns_hmap_init(&t->map, kv->alloc);
    bns_list_init(&t->list);
    bns_timer_init(&t->timer, on_timer, kv);
}

void etcd_tokens_setup(struct etcd_kv *kv, uint64_t ttl_ns, uint64_t replayed)
{
    kv->auth->tokens.ttl_ns = ttl_ns == 0 ? TTL_NS : ttl_ns;
    kv->auth->tokens.replayed = replayed;
}

void etcd_tokens_clear(struct etcd_kv *kv)
{
    struct etcd_tokens *t = &kv->auth->tokens;

    while (!bns_list_empty(&t->list))
        drop(kv, BNS_CONTAINER(t->list.next, struct etcd_token, list));
}

void etcd_auth_stop(struct etcd_kv *kv)
{
    bns_timer_stop(kv->env, &kv->auth->tokens.timer);
}

void etcd_tokens_forget(struct etcd_kv *kv, struct bns_slice user)
{
    BNS_LIST_EACH(n, &kv->auth->tokens.list)
    {
        struct etcd_token *k = BNS_CONTAINER(n, struct etcd_token, list);

        if (bns_slice_eq(bns_slice_str(k->user), user))
            drop(kv, k);
    }
}

static struct etcd_token *find(struct etcd_kv *kv, struct bns_slice text)
{
    struct etcd_tokens *t = &kv->auth->tokens;
    struct bns_hnode *n =
        t->map.count == 0 ? NULL : bns_hmap_find(&t->map, bns_hash(kv->seed, text.ptr, text.len));

    for (; n != NULL; n = bns_hmap_find_next(n)) {
        struct etcd_token *k = BNS_CONTAINER(n, struct etcd_token, node);

        if (bns_slice_eq(k->text, text))
            return k;
    }
    return NULL;
}

static void use(struct etcd_kv *kv, struct etcd_token *k)
{
    struct etcd_tokens *t = &kv->auth->tokens;

    k->expires_ns = bns_now_ns(kv->env) + t->ttl_ns;
    bns_list_del(&k->list);
    bns_list_push(&t->list, &k->list);
}

int etcd_tokens_give(struct etcd_kv *kv, uint64_t index, const char *user, const char *letters)
{
    struct etcd_tokens *t = &kv->auth->tokens;
    char text[ETCD_TOKEN_MAX + 1];
    size_t user_len = strlen(user) + 1;
    int len = snprintf(text, sizeof text, "%.16s.%" PRIu64, letters, index);
    struct etcd_token *k;
    int rv;

    BNS_ASSERT(len > 0 && (size_t)len < sizeof text);
    if (index <= t->replayed)
        return BNS_OK;
    if (t->map.count >= ETCD_TOKENS_MAX)
        drop(kv, BNS_CONTAINER(t->list.next, struct etcd_token, list));
    k = bns_alloc(kv->alloc, sizeof *k + user_len + (size_t)len);
    if (k == NULL)
        return BNS_E_NOMEM;
    memcpy(k->user, user, user_len);
    memcpy(k->user + user_len, text, (size_t)len);
    k->text = bns_slice((uint8_t *)k->user + user_len, (size_t)len);
    rv = bns_hmap_insert(&t->map, &k->node, bns_hash(kv->seed, text, (size_t)len));
    if (rv != BNS_OK) {
        bns_free(kv->alloc, k);
        return rv;
    }
    bns_list_init(&k->list);
    use(kv, k);
    arm(kv);
    return BNS_OK;
}

uint64_t etcd_token_index(struct bns_slice token)
{
    uint64_t v = 0;

    if (token.len <= ETCD_TOKEN_LETTERS + 1 || token.len > ETCD_TOKEN_MAX ||
        token.ptr[ETCD_TOKEN_LETTERS] != '.')
        return 0;
    for (size_t i = ETCD_TOKEN_LETTERS + 1; i < token.len; i++) {
        uint8_t c = token.ptr[i];

        if (c < '0' || c > '9' || __builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(c - '0'), &v))
            return 0;
    }
    return v;
}

const char *etcd_token_user(struct etcd_kv *kv, struct bns_slice token)
{
    struct etcd_token *k = find(kv, token);

    if (k == NULL || k->expires_ns <= bns_now_ns(kv->env))
        return NULL;
    use(kv, k);
    return k->user;
}

size_t etcd_tokens(const struct etcd_kv *kv)
{
    return kv->auth->tokens.map.count;
}
