/* sim_limits.c - which numbers of a configuration may be made smaller, and which rates are which
 * fault.
 *
 * A fault is a rate, or several that belong together, in the configuration; leaving it out sets
 * them to 0.
 */
#include "sim_limits.h"

#include <stddef.h>
#include <stdlib.h>

#define RATE(member) offsetof(struct etcd_sim_config, member)
#define RATES_MAX 4

static const struct fault {
    const char *name;
    size_t rates[RATES_MAX]; /* of doubles; 0 ends: nothing that is a rate stands first */
} faults[] = {
    {"loss", {RATE(world.net.loss)}},
    {"small", {RATE(world.net.small)}},
    {"slow", {RATE(world.disk.slow)}},
    {"eio", {RATE(world.disk.read_eio), RATE(world.disk.write_eio), RATE(world.disk.sync_eio)}},
    {"short", {RATE(world.disk.write_short)}},
    {"partition", {RATE(world.nemesis.partition)}},
    {"clog", {RATE(world.nemesis.clog)}},
    {"crash", {RATE(world.nemesis.crash)}},
    {"crash-all", {RATE(world.nemesis.crash_all)}},
    {"pause", {RATE(world.nemesis.pause)}},
    {"jump", {RATE(world.nemesis.jump)}},
    {"reset", {RATE(world.nemesis.reset)}},
    {"full", {RATE(world.nemesis.full)}},
    {"oom", {RATE(world.nemesis.oom)}},
    {"stop", {RATE(stop)}},
};
#define FAULTS (sizeof faults / sizeof faults[0])

static double *rate(struct etcd_sim_config *cfg, size_t at)
{
    return (double *)(void *)((char *)cfg + at);
}

static bool has(const struct etcd_sim_config *cfg, const struct fault *f)
{
    for (size_t i = 0; i < RATES_MAX && f->rates[i] != 0; i++) {
        if (*(const double *)(const void *)((const char *)cfg + f->rates[i]) > 0)
            return true;
    }
    return false;
}

static void leave_out(struct etcd_sim_config *cfg, const struct fault *f)
{
    for (size_t i = 0; i < RATES_MAX && f->rates[i] != 0; i++)
        *rate(cfg, f->rates[i]) = 0;
}

/* Is `name` in the list with commas? */
static bool listed(const char *list, const char *name)
{
    size_t len = strlen(name);

    for (const char *p = list; p != NULL; p = strchr(p, ',')) {
        p += *p == ',';
        if (strncmp(p, name, len) == 0 && (p[len] == ',' || p[len] == '\0'))
            return true;
    }
    return false;
}

static int limit_faults(struct etcd_sim_config *cfg, const char *list, struct bns_err *err)
{
    size_t known = 0, words = *list == '\0' || strcmp(list, "none") == 0 ? 0 : 1;

    for (const char *p = list; words > 0 && *p != '\0'; p++)
        words += *p == ',';
    for (size_t i = 0; i < FAULTS; i++)
        known += listed(list, faults[i].name);
    known += listed(list, "drift");
    if (known != words) {
        char text[200] = "";
        size_t len = 0;
        for (size_t i = 0; i < FAULTS; i++) { /* the names fit */
            int n = snprintf(text + len, sizeof text - len, "%s ", faults[i].name);
            len += (size_t)n;
        }
        BNS_ASSERT(len < sizeof text);
        return bns_err_set(err, BNS_E_INVALID,
                           "--faults '%.40s': not all are known; there are: "
                           "%sdrift none",
                           list, text);
    }
    for (size_t i = 0; i < FAULTS; i++) {
        if (!listed(list, faults[i].name))
            leave_out(cfg, &faults[i]);
    }
    if (!listed(list, "drift"))
        cfg->world.nemesis.drift_max_ppm = 0;
    return BNS_OK;
}

static int limit_number(struct etcd_sim_config *cfg, const char *name, uint64_t v,
                        struct bns_err *err)
{
    struct {
        const char *name;
        unsigned *number;
    } numbers[] = {{"nodes", &cfg->servers},   {"clients", &cfg->clients}, {"lanes", &cfg->lanes},
                   {"keys", &cfg->keys},       {"workers", &cfg->workers}, {"spares", &cfg->spares},
                   {"members", &cfg->members}, {"auth", &cfg->auth}};
    const size_t never_zero = 4;

    if (strcmp(name, "seconds") == 0) {
        if (v == 0 || v * BNS_SEC > cfg->run_ns)
            return bns_err_set(err, BNS_E_INVALID, "--seconds: 1 to %llu in this seed",
                               (unsigned long long)(cfg->run_ns / BNS_SEC));
        cfg->run_ns = v * BNS_SEC;
        return BNS_OK;
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (strcmp(name, numbers[i].name) != 0)
            continue;
        if ((v == 0 && i < never_zero) || v > *numbers[i].number)
            return bns_err_set(err, BNS_E_INVALID, "--%s: %d to %u in this seed", name,
                               i < never_zero, *numbers[i].number);
        *numbers[i].number = (unsigned)v;
        cfg->spares = cfg->members ? cfg->spares : 0;
        cfg->world.servers = cfg->servers + cfg->spares;
        cfg->world.nodes = cfg->world.servers + cfg->clients;
        return BNS_OK;
    }
    return bns_err_set(err, BNS_E_INVALID, "--%.40s: no such option", name);
}

int etcd_sim_limit(struct etcd_sim_config *cfg, const char *name, const char *value,
                   struct bns_err *err)
{
    char *end;
    unsigned long long v;

    if (strcmp(name, "faults") == 0)
        return limit_faults(cfg, value, err);
    v = strtoull(value, &end, 10);
    if (*value < '0' || *value > '9' || *end != '\0' || v > 1000000)
        return bns_err_set(err, BNS_E_INVALID, "--%.40s: '%.40s' is no number", name, value);
    return limit_number(cfg, name, v, err);
}

void etcd_sim_describe(const struct etcd_sim_config *cfg, FILE *to)
{
    const char *comma = "";

    (void)fprintf(
        to,
        "--nodes %u --clients %u --lanes %u --keys %u --workers %u --spares %u --members %u "
        "--auth %u --seconds %llu --faults ",
        cfg->servers, cfg->clients, cfg->lanes, cfg->keys, cfg->workers, cfg->spares, cfg->members,
        cfg->auth, (unsigned long long)(cfg->run_ns / BNS_SEC));
    for (size_t i = 0; i < FAULTS; i++) {
        if (!has(cfg, &faults[i]))
            continue;
        (void)fprintf(to, "%s%s", comma, faults[i].name);
        comma = ",";
    }
    if (cfg->world.nemesis.drift_max_ppm > 0) {
        (void)fprintf(to, "%sdrift", comma);
        comma = ",";
    }
    (void)fprintf(to, "%s\n", *comma == '\0' ? "none" : "");
}
