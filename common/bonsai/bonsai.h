/* bonsai.h - what the files of the `bonsai` executable share.
 *
 * Reading order: main.c (verbs), systems.c (which systems there are, and their flags), supervise.c
 * (keeps the nodes running), probe.c (is it answering?), console.h (the web page of what runs),
 * state.c (what other calls of bonsai see), verbs.c (up -d, down, status, logs), ask.c (the verb
 * probe), table.c (output), wal.c (wal dump|verify|repair|stat).
 *
 * On disk, under the data directory:
 *     LOCK                 held by the supervisor
 *     state.json           supervisor and nodes: pid, port, state; replaced as a whole
 *     logs/<system>-n<k>.log, logs/bonsai.log
 *     <system>/n<k>/       data of node k
 */
#ifndef BNS_BONSAI_BONSAI_H
#define BNS_BONSAI_BONSAI_H

#include "app/cli.h"
#include "base/arena.h"
#include "base/env.h"

#include <sys/types.h>

#define BONSAI_SYSTEMS_MAX 8
#define BONSAI_NODES_MAX 9 /* a system; the tenth would meet another system's ports */
#define BONSAI_ARGV_MAX 32

struct bonsai_opts {
    const char *data_dir;
    const char *bin_dir;   /* where the systems' executables are */
    uint64_t nodes;        /* a system; 0 = as many as the data directory holds, or the default */
    uint64_t port_shift;   /* added to every port, so that two sets can run side by side */
    uint64_t console_port; /* 0 = any free one */
    bool console_given;    /* else it is shifted as the others are */
    bool detach;
    const struct bonsai_system *systems[BONSAI_SYSTEMS_MAX];
    size_t systems_count;
};

struct bonsai_node {
    const struct bonsai_system *system;
    uint32_t number; /* from 1 */
    uint32_t count;  /* nodes of this system */
    uint16_t port;   /* clients' */
};

/* ---- systems.c ---- */
struct bonsai_system {
    const char *name; /* also the executable's */
    uint16_t port;    /* of node 1's clients */
    const char *probe_path;
    const char *try_this; /* a command for the user; %u is node 1's port */
    const char *sim; /* the program that simulates it, beside its executable; NULL: none */
    uint32_t nodes_default;
    /* Fills argv behind argv[0]; strings come from the arena. BNS_E_NOMEM. */
    int (*argv)(const struct bonsai_opts *o, const struct bonsai_node *n, struct bns_arena *a,
                const char **argv, size_t argv_max);
};
extern const struct bonsai_system bonsai_systems[];
extern const size_t bonsai_systems_count;
/* BNS_E_INVALID with the nearest name. */
BNS_MUST_CHECK int bonsai_system_find(const char *name, const struct bonsai_system **out,
                                      struct bns_err *err);

/* ---- state.c ---- */
struct bonsai_node_state {
    char system[16];
    uint32_t number;
    uint16_t port;
    pid_t pid;         /* 0 = does not run now */
    uint64_t started;  /* kernel's start time of that pid: tells a reused pid from ours */
    const char *state; /* "starting" "ready" "waiting" "failed"; a constant */
    uint64_t ready_ms; /* from start to the first answer */
    uint64_t restarts;
    uint64_t running_ms; /* since its last start; 0 in what was read from the file */
};
struct bonsai_state {
    pid_t pid;        /* the supervisor's */
    uint16_t console; /* port of its web page */
    struct bonsai_node_state nodes[BONSAI_SYSTEMS_MAX * BONSAI_NODES_MAX];
    size_t nodes_count;
};
BNS_MUST_CHECK int bonsai_state_write(const char *data_dir, const struct bonsai_state *s,
                                      struct bns_err *err);
/* BNS_E_NOTFOUND: none there. BNS_E_CORRUPT: not ours. */
BNS_MUST_CHECK int bonsai_state_read(const char *data_dir, struct bonsai_state *out,
                                     struct bns_err *err);
void bonsai_state_remove(const char *data_dir);
uint64_t bonsai_pid_started(pid_t pid); /* 0: no such process */
uint64_t bonsai_pid_rss(pid_t pid);     /* bytes; 0: no such process */
uint64_t bonsai_pid_cpu_ms(pid_t pid);  /* user and system; 0: no such process */
/* Does a supervisor hold the data directory? */
bool bonsai_is_up(const char *data_dir);
/* Ends the nodes that a killed supervisor has left behind. Returns how many. */
size_t bonsai_reap(const char *data_dir);
/* SIGTERM, then SIGKILL after `limit_ms`; returns when the process is gone, or false when it is
 * not ours to signal. */
bool bonsai_end_process(pid_t pid, int limit_ms);

/* ---- probe.c ---- */
struct bonsai_probe {
    struct bns_env *env;
    void (*done)(void *arg, bool good);
    void *arg;
    struct bns_stream *stream; /* NULL when none is under way; the rest is the probe's own */
    const char *path;
    char reply[16];
    size_t reply_len;
    bool good;
    bool canceled;
};
/* One HTTP/1.1 GET of `path` (borrowed); done(arg, good) once, later, with good = "200 came back".
 * BNS_E_NOMEM: done will not run. */
BNS_MUST_CHECK int bonsai_probe_start(struct bonsai_probe *p, const char *path, uint16_t port);
/* done will not run. The probe is busy until its stream is NULL. */
void bonsai_probe_cancel(struct bonsai_probe *p);

/* ---- supervise.c ---- */
int bonsai_supervise(const struct bonsai_opts *o); /* the exit code */

/* ---- table.c ---- */
void bonsai_table(const struct bonsai_state *s, FILE *to);
int bonsai_table_json(const struct bonsai_state *s, FILE *to); /* BNS_E_NOMEM */
/* Prints the last `lines` lines of a file, each behind `prefix`. False: no such file. */
bool bonsai_tail(const char *path, size_t lines, const char *prefix, FILE *to);

/* ---- verbs.c, ask.c, wal.c: argv[0] is the verb; they return the exit code ---- */
int bonsai_up(int argc, char **argv);
int bonsai_supervise_verb(int argc, char **argv); /* internal: what `up -d` starts */
int bonsai_down(int argc, char **argv);
int bonsai_status(int argc, char **argv);
int bonsai_logs(int argc, char **argv);
int bonsai_ask(int argc, char **argv); /* the verb is probe */
int bonsai_wal(int argc, char **argv);
int bonsai_sim(int argc, char **argv); /* sim.c */
/* Where this executable is, and the systems' and their simulations beside it; in dst. */
const char *bonsai_own_dir(char *dst, size_t cap);

/* ---- sim_run.c, sim_shrink.c: argv[0] is the verb ---- */
int bonsai_sim_run(int argc, char **argv);
int bonsai_sim_replay(int argc, char **argv);
int bonsai_sim_shrink(int argc, char **argv);

#endif
