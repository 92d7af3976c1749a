/* auth_range.h - what a user may read, or write, as disjoint intervals of keys.
 *
 * Thread: any. Memory: in the arena given. Errors: BNS_E_NOMEM.
 */
#ifndef ETCD_AUTH_RANGE_H
#define ETCD_AUTH_RANGE_H

#include "base/arena.h"
#include "base/err.h"

struct etcd_span {
    struct bns_slice from; /* the first key */
    struct bns_slice to;   /* the first key behind; ptr NULL: all keys from `from` on */
};

struct etcd_spans {
    struct etcd_span *at; /* sorted, disjoint, not adjacent once merged */
    size_t count, cap;
};

/* Adds a permission as etcd writes it: range_end empty = one key, "\0" = all keys from here on. A
 * range that holds no key is left out. */
BNS_MUST_CHECK int etcd_spans_add(struct etcd_spans *s, struct bns_arena *arena,
                                  struct bns_slice key, struct bns_slice range_end);
void etcd_spans_merge(struct etcd_spans *s);
/* Merged: the one with this key in it; NULL: none. */
const struct etcd_span *etcd_spans_find(const struct etcd_spans *s, struct bns_slice key);
/* Merged: are all keys of the request (written likewise) covered? */
bool etcd_spans_cover(const struct etcd_spans *s, struct bns_slice key, struct bns_slice range_end);

#endif
