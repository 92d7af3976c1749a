/* check_read.h - how a history becomes the operations of a checker: what its readers share. */
#ifndef BNS_SIM_CHECK_READ_H
#define BNS_SIM_CHECK_READ_H

#include "base/arena.h"
#include "sim/check.h"
#include "sim/history_impl.h"

struct check_reader {
    struct bns_history *h;
    struct bns_check_cfg cfg;
    struct bns_verdict *v;
    struct bns_history_call *calls;
    size_t calls_count;
    struct bns_arena arena; /* operations and lists; freed at the end */
};

/* One call with its values as JSON. */
struct check_call {
    const struct bns_history_call *c;
    const json_t *in, *out;
};

int check_bad(struct check_reader *r, const struct bns_history_call *c, const char *what);
enum bns_check_end check_end(const struct bns_history_call *c);
uint64_t check_ret(const struct bns_history_call *c); /* BNS_CHECK_OPEN unless it ended ok */
/* The number of a JSON value, also of null. */
BNS_MUST_CHECK int check_id(struct check_reader *r, const json_t *v, uint64_t *out);
BNS_MUST_CHECK int check_text_id(struct check_reader *r, const char *s, uint64_t *out);
/* The numbers of the values of an array, in the arena. */
BNS_MUST_CHECK int check_list(struct check_reader *r, const json_t *v, uint64_t **out,
                              size_t *count);
void *check_take(struct check_reader *r, size_t count, size_t size); /* zeroed, from the arena */
/* A number of an object; false when it is there and no number >= 0. Not there: *out stays. */
bool check_number(const json_t *v, const char *name, uint64_t *out);

/* Calls `take` for each call, with its values; stops at the first error. */
BNS_MUST_CHECK int check_each(struct check_reader *r, void *arg,
                              int (*take)(struct check_reader *r, void *arg,
                                          const struct check_call *c));

/* The readers, by kind of history. */
int check_read_register(struct check_reader *r);
int check_read_append(struct check_reader *r);
int check_read_set(struct check_reader *r);
int check_read_bank(struct check_reader *r);
int check_read_watch(struct check_reader *r);
int check_read_lock(struct check_reader *r);
int check_read_lease(struct check_reader *r);

#endif
