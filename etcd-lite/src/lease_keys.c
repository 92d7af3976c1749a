/* lease_keys.c - the keys on one lease, in order: a treap.
 *
 * A lease may hold a million keys, and whoever renews it, revokes it or puts one more key on it
 * needs WRITE on all of them (auth_check.c). With the keys in order that is one search for each gap
 * between a user's permissions, not one for each key.
 *
 * The tree is ordered by key, and a heap by priority (Seidel and Aragon, 1996). The priority is the
 * key's hash, which has the member's own seed in it: nobody can choose keys that make a list of the
 * tree. What the tree looks like differs between members, and shows nowhere.
 */
#include "lease_keys.h"

#include "lease.h"

static bool above(const struct etcd_lease_key *a, const struct etcd_lease_key *b)
{
    return a->node.hash > b->node.hash;
}

static struct etcd_lease_key **down(struct etcd_lease_key *at, const struct etcd_lease_key *k)
{
    return bns_slice_cmp(k->key, at->key) < 0 ? &at->left : &at->right;
}

void etcd_lease_keys_add(struct etcd_lease_key **root, struct etcd_lease_key *k)
{
    struct etcd_lease_key **p = root, *rest, **below = &k->left, **behind = &k->right;

    while (*p != NULL && above(*p, k))
        p = down(*p, k);
    rest = *p;
    *p = k;
    while (rest != NULL) { /* what was there goes to its two sides */
        if (bns_slice_cmp(rest->key, k->key) < 0) {
            *below = rest;
            below = &rest->right;
            rest = rest->right;
        } else {
            *behind = rest;
            behind = &rest->left;
            rest = rest->left;
        }
    }
    *below = NULL;
    *behind = NULL;
}

void etcd_lease_keys_del(struct etcd_lease_key **root, struct etcd_lease_key *k)
{
    struct etcd_lease_key **p = root, *a = k->left, *b = k->right;

    while (*p != k) {
        BNS_ASSERT(*p != NULL);
        p = down(*p, k);
    }
    while (a != NULL && b != NULL) {
        if (above(a, b)) {
            *p = a;
            p = &a->right;
            a = a->right;
        } else {
            *p = b;
            p = &b->left;
            b = b->left;
        }
    }
    *p = a != NULL ? a : b;
    k->left = k->right = NULL;
}

const struct etcd_lease_key *etcd_lease_keys_seek(const struct etcd_lease_key *root,
                                                  struct bns_slice from)
{
    const struct etcd_lease_key *best = NULL;

    while (root != NULL) {
        if (bns_slice_cmp(root->key, from) < 0) {
            root = root->right;
        } else {
            best = root;
            root = root->left;
        }
    }
    return best;
}

const struct etcd_lease_key *etcd_lease_keys_after(const struct etcd_lease_key *root,
                                                   const struct etcd_lease_key *k)
{
    const struct etcd_lease_key *best = NULL;

    while (root != NULL) {
        if (k != NULL && bns_slice_cmp(root->key, k->key) <= 0) {
            root = root->right;
        } else {
            best = root;
            root = root->left;
        }
    }
    return best;
}

/* The last of those below `before`, or of all when it is NULL. */
static const struct etcd_lease_key *last_below(const struct etcd_lease_key *root,
                                               const struct etcd_lease_key *before)
{
    const struct etcd_lease_key *best = NULL;

    while (root != NULL) {
        if (before == NULL || bns_slice_cmp(root->key, before->key) < 0) {
            best = root;
            root = root->right;
        } else {
            root = root->left;
        }
    }
    return best;
}

void etcd_lease_keys(const struct etcd_lease *e, struct bns_slice *out)
{
    const struct etcd_lease_key *k = NULL;
    size_t n = e->keys_count;

    while ((k = last_below(e->keys, k)) != NULL) {
        BNS_ASSERT(n > 0);
        out[--n] = k->key;
    }
    BNS_ASSERT(n == 0);
}
