/* env_uv.h - the production env: libuv for loop, timers and sockets, threads for workers.
 *
 * Thread:   an env belongs to the thread that runs bns_env_uv_run(); several may live in one
 *           process, each on a thread of its own. bns_post() is the only call for other threads.
 * Memory:   *out is owned by the caller, freed by bns_env_uv_free().
 * Set-up:   after new, the caller may set env->log and env->metrics (before run).
 *
 * Streams of this env report on_close with these codes: BNS_OK closed or reset by us, or an orderly
 * end of the peer when on_eof is NULL; BNS_E_DROPPED refused, unreachable or reset by the peer;
 * BNS_E_TIMEOUT the dial took longer than 10 s, or the peer took no byte for 10 s while closing.
 * Releases of bytes that were not handed to the kernel get BNS_E_DROPPED.
 */
#ifndef BNS_IO_ENV_UV_H
#define BNS_IO_ENV_UV_H

#include "base/env.h"

/* vfs is borrowed and may be NULL (nothing below uses it). BNS_E_NOMEM, BNS_E_IO. */
BNS_MUST_CHECK int bns_env_uv_new(const struct bns_alloc *alloc, struct bns_vfs *vfs,
                                  struct bns_env **out, struct bns_err *err);

/* Runs the loop until bns_env_uv_stop(). May be called again. */
void bns_env_uv_run(struct bns_env *env);
/* On the loop thread: the turn ends, then run returns. Other threads post a task that calls it. */
void bns_env_uv_stop(struct bns_env *env);

/* Calls fn(arg, signo) on the loop for each signal. BNS_E_NOMEM, BNS_E_INVALID. */
BNS_MUST_CHECK int bns_env_uv_signal(struct bns_env *env, int signo,
                                     void (*fn)(void *arg, int signo), void *arg);

/* The loop is not running. Workers are freed and listeners closed. Streams that are closing are
 * told on_close; streams that nobody closed are dropped without a call. NULL is fine. */
void bns_env_uv_free(struct bns_env *env);

#endif
