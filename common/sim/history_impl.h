/* history_impl.h - what history_pair.c, history_lin.c and check_history.c need of a history. */
#ifndef BNS_SIM_HISTORY_IMPL_H
#define BNS_SIM_HISTORY_IMPL_H

#include <jansson.h>

#include "sim/history.h"

const struct bns_alloc *bns_history_alloc(const struct bns_history *h);

/* The number of a text; NULL has 0. */
BNS_MUST_CHECK int bns_history_intern(struct bns_history *h, const char *s, uint32_t *id);
/* The number of a JSON value: equal values, equal numbers; null and no value have 0. */
BNS_MUST_CHECK int bns_history_intern_json(struct bns_history *h, const json_t *v, uint32_t *id);
uint32_t bns_history_key_id(const struct bns_history *h, size_t index); /* of an event; 0: none */

/* A value of a history as JSON; NULL text is null. The caller lets go of *out. */
BNS_MUST_CHECK int bns_history_json(const char *text, json_t **out);

#endif
