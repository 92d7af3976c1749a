/* bolt_kv.h - a snapshot of the store for clients, as etcd's own file; seen from the loop.
 *
 * Made while writes go on: SQLite's online backup gives a copy at one applied index, the store's
 * worker turns that over a slice a job (bolt_export.h). What is read afterwards lies in a file: a
 * reader that stops reading costs the file and nothing else.
 *
 * Thread:  the loop; done runs there, never inside a call.
 * Memory:  *out is owned until close. Bytes are borrowed for the call of done.
 * Errors:  done's code, with the text: what the store's files said, BNS_E_TOOBIG (a name that bbolt
 *          cannot hold), BNS_E_SHUTDOWN. When the node dies done does not run any more.
 */
#ifndef ETCD_BOLT_KV_H
#define ETCD_BOLT_KV_H

#include "kv.h"

struct etcd_dump;

typedef void etcd_dump_done(void *arg, int code, struct bns_slice bytes, const char *text);

/* members: Member messages, each in a field 2 (copied), for as long as the log has not said who
 * they are. BNS_E_NOMEM. */
BNS_MUST_CHECK int etcd_dump_open(struct etcd_kv *kv, struct bns_slice members,
                                  etcd_dump_done *done, void *arg, struct etcd_dump **out);
uint64_t etcd_dump_bytes(const struct etcd_dump *d); /* of the file, once done has run */
/* The next bytes, at most ETCD_DUMP_CHUNK; behind the last the SHA-256 of all. One at a time. */
void etcd_dump_read(struct etcd_dump *d);
void etcd_dump_close(struct etcd_dump *d); /* at any time; done does not run any more */

#define ETCD_DUMP_CHUNK (32u * 1024)

#endif
