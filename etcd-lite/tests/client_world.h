/* client_world.h - real servers and one node with our client, in one virtual world. For the tests
 * of common/client/etcd. */
#ifndef ETCD_TESTS_CLIENT_WORLD_H
#define ETCD_TESTS_CLIENT_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "client/etcd/etcd.h"
#include "server.h"
#include "sim/world.h"

#define CW_SERVERS_MAX 3u
#define CW_PORT 2379

struct cw {
    struct bns_world *w;
    unsigned servers, size; /* nodes: the servers, then one for the client */
    struct bns_arena arena;
    struct {
        struct etcd_options opt;
        struct etcd_server *s; /* NULL: dead */
        char text[11][400];
        struct bns_log log;
    } server[CW_SERVERS_MAX];
    struct bns_env *env; /* the client's */
    char endpoint[CW_SERVERS_MAX][64];
    const char *endpoints[CW_SERVERS_MAX];
    void (*begin)(struct cw *w); /* as code of the client's node */
    void *test;
};

static struct cw cw;
static const char *cw_extra;                /* one more flag of each server, NULL: none */
static const char *cw_extra_2;              /* and another one, if cw_extra is there */
static const struct bns_node_main *cw_main; /* what runs on the servers' nodes; NULL: our server */

static int64_t cw_ms(void *arg)
{
    (void)arg;
    return (int64_t)(bns_world_now(cw.w) / BNS_MS);
}

static void cw_line(void *arg, struct bns_slice line)
{
    (void)arg;
    if (getenv("BNS_TRACE") != NULL)
        print_message("%.*s", (int)line.len, (const char *)line.ptr);
}

static void cw_options(unsigned id)
{
    char *argv[12], *none[] = {NULL};
    char cluster[300] = "";
    int code = 0, n = 0;
    const char *host = bns_world_host(cw.w, id);

    for (unsigned i = 0; i < cw.servers; i++)
        (void)snprintf(cluster + strlen(cluster), sizeof cluster - strlen(cluster),
                       "%sn%u=http://%s:2380", i == 0 ? "" : ",", i, bns_world_host(cw.w, i));
    for (n = 0; n < 9; n++)
        argv[n] = cw.server[id].text[n];
    (void)snprintf(argv[0], 400, "etcd-lite");
    (void)snprintf(argv[1], 400, "--name=n%u", id);
    (void)snprintf(argv[2], 400, "--data-dir=/data");
    (void)snprintf(argv[3], 400, "--listen-client-urls=http://%s:%d", host, CW_PORT);
    (void)snprintf(argv[4], 400, "--advertise-client-urls=http://%s:%d", host, CW_PORT);
    (void)snprintf(argv[5], 400, "--listen-peer-urls=http://%s:2380", host);
    (void)snprintf(argv[6], 400, "--initial-advertise-peer-urls=http://%s:2380", host);
    (void)snprintf(argv[7], 400, "--initial-cluster=%s", cluster);
    (void)snprintf(argv[8], 400, "--insecure");
    if (cw_extra != NULL)
        (void)snprintf(argv[n++] = cw.server[id].text[9], 400, "%s", cw_extra);
    if (cw_extra != NULL && cw_extra_2 != NULL)
        (void)snprintf(argv[n++] = cw.server[id].text[10], 400, "%s", cw_extra_2);
    argv[n] = NULL;
    assert_int_equal(etcd_options_read(&cw.server[id].opt, &cw.arena, n, argv, none, &code),
                     ETCD_RUN);
}

static int cw_server_start(struct bns_env *env, unsigned id, void *arg)
{
    struct bns_err err = {0};
    int rv;

    (void)arg;
    cw.server[id].log = (struct bns_log){.level = BNS_LOG_INFO, .wall_ms = cw_ms, .write = cw_line};
    env->log = &cw.server[id].log;
    rv = bns_vfs_mkdir(env->vfs, "/data", &err);
    if (rv == BNS_OK)
        rv = etcd_server_start(env, &cw.server[id].opt, NULL, &cw.server[id].s, &err);
    if (rv != BNS_OK)
        print_message("n%u: %s\n", id, err.text);
    return rv;
}

static void cw_server_died(unsigned id, int code, const char *text, void *arg)
{
    (void)code;
    (void)text;
    (void)arg;
    if (cw.server[id].s != NULL)
        etcd_kv_died(cw.server[id].s->kv);
    cw.server[id].s = NULL;
}

static int cw_client_start(struct bns_env *env, unsigned id, void *arg)
{
    (void)id;
    (void)arg;
    cw.env = env;
    return BNS_OK;
}

static void cw_new(uint64_t seed, unsigned servers, const struct bns_world_config *cfg)
{
    const struct bns_node_main server = {.start = cw_server_start,
                                         .died = cw_server_died,
                                         .restart_ns = 500 * BNS_MS},
                               client = {.start = cw_client_start};
    struct bns_world_config calm = bns_world_calm(servers + 1);

    memset(&cw, 0, sizeof cw);
    cw.servers = servers;
    calm.servers = servers;
    bns_arena_init(&cw.arena, bns_alloc_libc(), 1024 * 1024);
    assert_int_equal(bns_world_new(seed, cfg == NULL ? &calm : cfg, &cw.w), BNS_OK);
    for (unsigned i = 0; i < servers; i++) {
        cw_options(i);
        (void)snprintf(cw.endpoint[i], sizeof cw.endpoint[i], "http://%s:%d",
                       bns_world_host(cw.w, i), CW_PORT);
        cw.endpoints[i] = cw.endpoint[i];
        bns_world_start(cw.w, i, cw_main == NULL ? &server : cw_main);
    }
    bns_world_start(cw.w, servers, &client);
    assert_null(bns_world_run(cw.w, BNS_MS, NULL, NULL));
}

static void cw_free(void)
{
    size_t left;

    bns_world_connect_all(cw.w);
    assert_null(bns_world_run(cw.w, bns_world_now(cw.w) + 15 * BNS_SEC, NULL, NULL));
    left = bns_test_heap_in_use(bns_world_heap(cw.w, cw.servers));
    for (unsigned i = 0; i < cw.servers; i++)
        bns_world_kill(cw.w, i); /* gives back what its store has of libc */
    bns_world_free(cw.w);
    bns_arena_free(&cw.arena);
    assert_int_equal(left, 0); /* of the client's node */
}

static inline struct bns_etcd *cw_client(struct bns_etcd_options *o)
{
    struct bns_etcd_options own = {.first_endpoint = true};
    struct bns_etcd *c = NULL;
    struct bns_err err = {0};

    if (o == NULL)
        o = &own;
    if (o->endpoints == NULL) {
        o->endpoints = cw.endpoints;
        o->endpoints_count = cw.servers;
    }
    if (bns_etcd_new(cw.env, o, &c, &err) != BNS_OK)
        fail_msg("%s", err.text);
    return c;
}

/* Virtual time goes on for at most `ns`, until *flag. */
static const char *cw_flag(struct bns_world *w, void *arg)
{
    (void)w;
    return *(bool *)arg ? "yes" : NULL;
}

static inline bool cw_until(bool *flag, uint64_t ns)
{
    return *flag || bns_world_run(cw.w, bns_world_now(cw.w) + ns, cw_flag, flag) != NULL;
}

static inline void cw_pass(uint64_t ns)
{
    assert_null(bns_world_run(cw.w, bns_world_now(cw.w) + ns, NULL, NULL));
}

/* The server that leads, after waiting for one. */
static inline unsigned cw_leader(void)
{
    for (unsigned turn = 0; turn < 300; turn++) {
        for (unsigned i = 0; i < cw.servers; i++) {
            if (cw.server[i].s != NULL && cw.server[i].s->serving &&
                cw.server[i].s->leader == cw.server[i].opt.self->id)
                return i;
        }
        cw_pass(100 * BNS_MS);
    }
    fail_msg("nobody leads");
    return 0;
}

#endif
