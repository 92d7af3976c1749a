/* daemon.h - the frame that every daemon runs in.
 *
 *     parse (cli.h, config.h)  ->  lock the data directory  ->  start  ->  READY  ->  run
 *     SIGTERM, SIGINT, and SIGHUP (the terminal is gone) unless the daemon takes it to read its
 *     files again: drain, at most drain_ns, then stop; a second one: stop at once
 *     SIGABRT (an assertion): backtrace on stderr, exit 70. SIGPIPE is ignored.
 *
 * READY is one line on stdout: "READY etcd-lite pid=4711 client=127.0.0.1:2379 ...". With a ports
 * file the same names and ports are written there, one "name port" a line, complete or not at all:
 * tests listen on port 0 and read them.
 *
 * Thread:  the loop's, which is the caller's of bns_daemon_run().
 * Errors:  bns_daemon_run() prints one line, "program: what failed", and returns the exit code.
 */
#ifndef BNS_APP_DAEMON_H
#define BNS_APP_DAEMON_H

#include "app/cli.h"
#include "base/env.h"

#define BNS_DAEMON_PORTS_MAX 16

struct bns_daemon;

struct bns_daemon_ops {
    /* Opens stores and listeners; may block (replay). Calls bns_daemon_port() for each listener and
     * bns_daemon_ready() once clients are answered, here or later. On error the process ends
     * after the message: nothing has to be undone. */
    int (*start)(struct bns_daemon *d, void *arg, struct bns_err *err);
    /* Stop taking work, finish what is there, then call bns_daemon_stop(). NULL: stop at once. */
    void (*drain)(struct bns_daemon *d, void *arg);
    /* The loop has ended: free everything, or, when bns_daemon_cut(), only end what would outlive
     * the process: work may be under way, and the process ends at once. Not called when start
     * failed. May be NULL. */
    void (*stop)(struct bns_daemon *d, void *arg);
    /* SIGHUP: read files again. False, or NULL: there are none, SIGHUP is as SIGTERM. */
    bool (*reload)(struct bns_daemon *d, void *arg);
};

struct bns_daemon_config {
    const char *program;    /* "etcd-lite" */
    const char *data_dir;   /* made with its parents when missing; NULL: none, nothing is locked */
    const char *ports_file; /* may be NULL */
    enum bns_log_level log_level;
    enum bns_log_format log_format;
    uint64_t drain_ns; /* 0 = 10 s */
};

/* Runs a daemon from lock to exit; returns the exit code (cli.h). */
int bns_daemon_run(const struct bns_daemon_config *cfg, const struct bns_daemon_ops *ops,
                   void *arg);

struct bns_env *bns_daemon_env(struct bns_daemon *d); /* with log, metrics and the POSIX VFS */

/* Names a listening address, before ready. `name` and `host` are borrowed until the end. At most
 * BNS_DAEMON_PORTS_MAX. */
void bns_daemon_port(struct bns_daemon *d, const char *name, const char *host, uint16_t port);

/* Writes the ports file, prints READY. Once. A ports file that cannot be written is fatal (1). */
void bns_daemon_ready(struct bns_daemon *d);

/* Begins the drain, as SIGTERM does. */
void bns_daemon_drain(struct bns_daemon *d);

/* Ends the loop; bns_daemon_run() returns `exit_code`. */
void bns_daemon_stop(struct bns_daemon *d, int exit_code);

/* In stop: the drain did not finish; its limit passed, or a second signal came. */
bool bns_daemon_cut(const struct bns_daemon *d);

/* The exit code for an error at start: CORRUPT 4, BUSY and ADDRINUSE 5, INVALID 3, others 1. */
int bns_exit_code(int code);

/* SIGABRT as above; for programs that do not run in the frame. */
void bns_daemon_catch_abort(void);

#endif
