/* auth_hash.h - bcrypt, off the loop.
 *
 * Thread: the loop; the hashing itself runs on a worker of its own.
 * Memory: a job is the caller's until done has run. It is wiped then.
 * Bounds: ETCD_HASH_WAITING_MAX jobs.
 */
#ifndef ETCD_AUTH_HASH_H
#define ETCD_AUTH_HASH_H

#include "base/env.h"

#define ETCD_HASH_WAITING_MAX 256u
#define ETCD_HASH_LEN 60u       /* "$2a$10$" and 53 letters */
#define ETCD_PASSWORD_BYTES 72u /* more are not looked at by bcrypt; new passwords are refused */

struct etcd_hasher {
    struct bns_env *env;
    struct bns_worker *worker; /* made for the first job */
    uint32_t jobs;
    void (*stopped)(void *arg);
    void *stopped_arg;
    struct bns_task stop_task;
};

struct etcd_hash_job {
    struct bns_job job;
    struct etcd_hasher *hasher;
    void (*done)(struct etcd_hash_job *j);
    bool verify; /* else: make */
    bool ok;     /* the password is right; the hash was made */
    char password[ETCD_PASSWORD_BYTES + 1];
    char hash[ETCD_HASH_LEN + 1];
    uint8_t salt[16];
    uint32_t cost; /* 4 .. 31 */
    struct crypt_data *scratch;
};

void etcd_hasher_init(struct etcd_hasher *h, struct bns_env *env);
/* Is the password the one that was hashed? Always done later, never inside the call. BNS_E_BUSY,
 * BNS_E_NOMEM, BNS_E_INTERNAL (no thread): done will not run. */
BNS_MUST_CHECK int etcd_hash_verify(struct etcd_hasher *h, struct etcd_hash_job *j,
                                    struct bns_slice password, struct bns_slice hash);
/* Makes a hash into j->hash. As above; BNS_E_TOOBIG: the password is longer than 72 bytes. */
BNS_MUST_CHECK int etcd_hash_make(struct etcd_hasher *h, struct etcd_hash_job *j,
                                  struct bns_slice password, uint32_t cost);
/* No job comes any more; stopped runs when those that are there are done. */
void etcd_hasher_stop(struct etcd_hasher *h, void (*stopped)(void *arg), void *arg);
void etcd_hasher_free(struct etcd_hasher *h); /* after stopped, or when nothing was ever hashed */

#endif
