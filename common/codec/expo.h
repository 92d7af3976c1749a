/* expo.h - the text exposition format of Prometheus, 0.0.4, a line at a time.
 *
 *     # HELP raft_term Current term.
 *     # TYPE raft_term gauge
 *     raft_term{group="1"} 3 1795419862675      the time stamp is optional
 *
 * Strict where two readers could disagree (names, quotes, escapes, numbers, UTF-8), and it goes on
 * behind a bad line: one broken metric of one node must not hide the others.
 *
 * Thread: any. Memory: nothing is allocated; slices point into the text. Errors: see next().
 */
#ifndef BNS_CODEC_EXPO_H
#define BNS_CODEC_EXPO_H

#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"

#define BNS_EXPO_LINE_BYTES_MAX 65536
#define BNS_EXPO_LABELS_MAX 64 /* of one sample */

enum bns_expo_kind { BNS_EXPO_HELP, BNS_EXPO_TYPE, BNS_EXPO_SAMPLE };

struct bns_expo_line {
    enum bns_expo_kind kind;
    struct bns_slice line; /* all of it, without its line break */
    struct bns_slice name;
    struct bns_slice text;   /* HELP: as escaped there; TYPE: "counter", ... */
    struct bns_slice labels; /* SAMPLE: what stands between the braces; may end with a comma */
    struct bns_slice value;  /* SAMPLE: as written */
    struct bns_slice stamp;  /* SAMPLE: the time stamp as written, or empty */
    double number;           /* SAMPLE */
};

struct bns_expo {
    struct bns_slice rest; /* set by the caller */
    size_t line;           /* number of the last line read, from 1 */
};

/* The next line that says something; blank lines and comments are passed over. BNS_E_NOTFOUND: the
 * end. BNS_E_PROTO: line x->line is not in the format; the next call goes on behind it. */
BNS_MUST_CHECK int bns_expo_next(struct bns_expo *x, struct bns_expo_line *out);

/* Takes the first label off `labels` (of a line that next() gave): its name, and its value as
 * escaped there. False when none is left. */
bool bns_expo_label(struct bns_slice *labels, struct bns_slice *name, struct bns_slice *value);

/* Does a sample of this name belong to the family? A histogram's samples have _bucket, _sum and
 * _count behind the family's name, a summary's _sum and _count. type may be empty. */
bool bns_expo_in_family(struct bns_slice sample, struct bns_slice family, struct bns_slice type);

#endif
