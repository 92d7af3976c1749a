/* loop.h - what the files of the libuv env share. Nobody else includes this. */
#ifndef BNS_IO_LOOP_H
#define BNS_IO_LOOP_H

#include "io/env_uv.h"

#include <pthread.h>
#include <uv.h>

#define BNS_READ_BYTES (64u * 1024)

/* What other threads leave for the loop: tasks in post order, and workers with finished jobs. */
struct bns_ring {
    pthread_mutex_t lock;
    struct bns_list tasks;
    struct bns_list ready; /* struct bns_worker.ready */
    pthread_t owner;       /* the loop's thread */
    bool woken;            /* the loop knows already */
};

struct bns_env_uv {
    struct bns_env env; /* first */
    uv_loop_t loop;
    uv_prepare_t prepare;
    uv_idle_t idle;
    uv_timer_t timer;
    uv_async_t async;
    bool running;

    uint64_t now_ns;
    bool now_known;
    uint64_t turn_ns; /* when the first callback of this turn began; 0 = none has */

    struct bns_heap timers;
    uint64_t timer_armed; /* key the uv timer is set for, BNS_NEVER = stopped */

    struct bns_ring ring;
    struct bns_worker *pool; /* made at the first use */
    size_t workers;

    struct bns_list streams;
    struct bns_list dirty;  /* streams with bytes to flush at the end of the turn */
    struct bns_list ending; /* streams that owe on_close */
    struct bns_list listeners;
    struct bns_list signals;
    size_t conns;
    uint8_t *read_buf;

    struct bns_metrics *metrics; /* that the three below belong to */
    struct bns_hist *loop_lag;
    struct bns_gauge *conn_open;
    struct bns_counter *conn_refused;
    uint64_t accept_log_ns;
};

static inline struct bns_env_uv *bns_uv(struct bns_env *e)
{
    return (struct bns_env_uv *)(void *)e;
}

/* env_uv.c */
void bns_loop_enter(struct bns_env_uv *e); /* first thing in every callback of libuv */
void bns_loop_kick(struct bns_env_uv *e);  /* loop thread: do not block in this turn's poll */
uint64_t bns_loop_now(struct bns_env *env);

/* timer.c */
int bns_timers_init(struct bns_env_uv *e);
void bns_timers_arm(struct bns_env_uv *e); /* at the end of the turn */
void bns_timers_start(struct bns_env *env, struct bns_timer *t, uint64_t deadline_ns);
void bns_timers_stop(struct bns_env *env, struct bns_timer *t);

/* ring.c */
int bns_ring_init(struct bns_ring *r);
void bns_ring_free(struct bns_ring *r);
void bns_ring_own(struct bns_env_uv *e); /* the calling thread is the loop from now on */
void bns_ring_post(struct bns_env *env, struct bns_task *t);
void bns_ring_finish(struct bns_env_uv *e, struct bns_worker *w, struct bns_list *jobs);
void bns_ring_drain(struct bns_env_uv *e);

/* worker.c */
struct bns_worker {
    struct bns_env_uv *e;
    bns_worker_fn *fn; /* NULL: a pool, each job runs itself */
    void *arg;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct bns_list queue;
    bool stop;
    bool hold;            /* set once, before the first job */
    struct bns_list held; /* the thread's: a batch that is over, not handed back yet */
    uint32_t waiting;     /* threads that wait on cond */
    size_t submitted;     /* loop only: jobs whose done has not run */
    struct bns_list ready;
    struct bns_list finished; /* under the ring's lock */
    size_t threads_count;
    pthread_t threads[4];
};
int bns_workers_new(struct bns_env *env, const char *name, bns_worker_fn *fn, void *arg,
                    struct bns_worker **out);
void bns_workers_submit(struct bns_worker *w, struct bns_job *j);
void bns_workers_free(struct bns_worker *w);
void bns_workers_hold(struct bns_worker *w);
bool bns_workers_held(struct bns_worker *w);
void bns_workers_release(struct bns_worker *w);
/* disk_pool.c */
void bns_disk_pool_submit(struct bns_env *env, struct bns_job *j);
int bns_workers_start(struct bns_worker *w, const char *name, size_t threads);

/* tcp.c */
int bns_tcp_connect(struct bns_env *env, const char *host, uint16_t port,
                    const struct bns_stream_events *ev, void *arg, struct bns_stream **out,
                    struct bns_err *err);
void bns_tcp_tune(int fd);
int bns_tcp_adopt(struct bns_env_uv *e, int fd, struct bns_stream **out); /* fd taken on success */
bool bns_tcp_owned(const struct bns_stream *s); /* events were set, or it is closing */
void bns_tcp_turn_end(struct bns_env_uv *e);
void bns_tcp_drop_all(struct bns_env_uv *e);

/* listen.c */
int bns_tcp_listen(struct bns_env *env, const char *host, uint16_t port, bns_accept_fn *fn,
                   void *arg, struct bns_listener **out, struct bns_err *err);
uint16_t bns_tcp_listener_port(const struct bns_listener *l);
void bns_tcp_listener_close(struct bns_listener *l);

/* addr.c */
#include <netinet/in.h>
#include <sys/socket.h>
int bns_addr_parse(const char *host, uint16_t port, struct sockaddr_storage *out, socklen_t *len);
void bns_addr_set_port(struct sockaddr_storage *a, uint16_t port);
void bns_addr_format(const struct sockaddr_storage *in, struct bns_net_addr *out);

/* resolve.c: the addresses of a name, one after the other. fn runs once, on the loop, in a later
 * turn, with BNS_OK or BNS_E_NOTFOUND; it may free the lookup. */
struct bns_lookup;
typedef void bns_lookup_fn(void *arg, int code);
/* BNS_E_NOMEM, BNS_E_INVALID. */
int bns_lookup_start(struct bns_env_uv *e, const char *host, uint16_t port, bns_lookup_fn *fn,
                     void *arg, struct bns_lookup **out);
/* After fn: false when there is no further one. */
bool bns_lookup_next(struct bns_lookup *l, struct sockaddr_storage *out, socklen_t *len);
void bns_lookup_free(struct bns_lookup *l); /* fn does not run any more; NULL is fine */

#endif
