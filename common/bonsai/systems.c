/* systems.c - the systems that bonsai can run, and the flags that each wants.
 *
 * A system is in this table when its daemon is in the tree. Flags are the real system's own, so
 * that what `ps` shows is what its documentation says. Node n listens on the default port +
 * 100 (n - 1).
 */
#include "bonsai/bonsai.h"

#include <stdarg.h>

#define HOST "127.0.0.1"
#define STEP 100
#define PEER 1 /* the peer port stands behind the client port */

struct args {
    struct bns_arena *arena;
    const char **argv;
    size_t count;
    size_t max;
    bool failed; /* no memory */
};

static void add(struct args *a, const char *text)
{
    BNS_ASSERT(a->count + 1 < a->max);
    a->argv[a->count++] = text;
    a->argv[a->count] = NULL;
}

/* --flag text, with text printed into the arena. */
BNS_PRINTF(3, 4) static void flag(struct args *a, const char *name, const char *fmt, ...)
{
    char text[2048];
    const char *copy;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    BNS_ASSERT(n >= 0 && n < (int)sizeof text);
    copy = bns_arena_dup(a->arena, text, (size_t)n);
    if (copy == NULL) {
        a->failed = true;
        return;
    }
    add(a, name);
    add(a, copy);
}

static unsigned node_port(const struct bonsai_opts *o, const struct bonsai_system *s,
                          uint32_t number)
{
    return (unsigned)(s->port + o->port_shift + STEP * (number - 1));
}

static int etcd_argv(const struct bonsai_opts *o, const struct bonsai_node *n, struct bns_arena *a,
                     const char **argv, size_t argv_max)
{
    struct args args = {.arena = a, .argv = argv, .count = 1, .max = argv_max};
    char cluster[1024] = "";
    size_t len = 0;

    for (uint32_t i = 1; i <= n->count; i++) {
        int w = snprintf(cluster + len, sizeof cluster - len, "%sn%u=http://" HOST ":%u",
                         i == 1 ? "" : ",", i, node_port(o, n->system, i) + PEER);
        BNS_ASSERT(w > 0 && (size_t)w < sizeof cluster - len);
        len += (size_t)w;
    }
    flag(&args, "--name", "n%u", n->number);
    flag(&args, "--data-dir", "%s/%s/n%u", o->data_dir, n->system->name, n->number);
    flag(&args, "--listen-client-urls", "http://" HOST ":%u", n->port);
    flag(&args, "--advertise-client-urls", "http://" HOST ":%u", n->port);
    flag(&args, "--listen-peer-urls", "http://" HOST ":%u", n->port + PEER);
    flag(&args, "--initial-advertise-peer-urls", "http://" HOST ":%u", n->port + PEER);
    flag(&args, "--initial-cluster", "%s", cluster);
    flag(&args, "--initial-cluster-state", "new");
    return args.failed ? BNS_E_NOMEM : BNS_OK;
}

const struct bonsai_system bonsai_systems[] = {
    {
        .name = "etcd-lite",
        .port = 2379,
        .probe_path = "/health",
        .try_this = "ETCDCTL_API=3 etcdctl --endpoints=" HOST ":%u put greeting hello",
        .sim = "sim_daemon",
        .nodes_default = 3,
        .argv = etcd_argv,
    },
};
const size_t bonsai_systems_count = sizeof bonsai_systems / sizeof bonsai_systems[0];

int bonsai_system_find(const char *name, const struct bonsai_system **out, struct bns_err *err)
{
    const char *names[BONSAI_SYSTEMS_MAX];
    const char *near;

    for (size_t i = 0; i < bonsai_systems_count; i++) {
        names[i] = bonsai_systems[i].name;
        if (strcmp(name, names[i]) == 0) {
            *out = &bonsai_systems[i];
            return BNS_OK;
        }
    }
    near = bns_nearest(name, names, bonsai_systems_count);
    if (near == NULL)
        return bns_err_set(err, BNS_E_INVALID, "unknown system '%.64s'; there is: etcd-lite", name);
    return bns_err_set(err, BNS_E_INVALID, "unknown system '%.64s'; did you mean '%s'?", name,
                       near);
}
