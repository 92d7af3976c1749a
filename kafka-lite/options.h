/* options.h - what kafka-lite is told: a properties file, KAFKA_* variables, --override and flags,
 * in rising order.
 *
 * Thread: any, start-up. Memory: the arena's.
 */
#ifndef KAFKA_OPTIONS_H
#define KAFKA_OPTIONS_H

#include "app/daemon.h"
#include "base/arena.h"
#include "broker/broker.h"

struct kafka_options {
    struct kafka_broker_cfg broker;
    struct kafka_config_set statics;
    const char *data_dir, *ports_file, *admin_host;
    uint64_t admin_port;
    bool admin;
    enum bns_log_level level;
    enum bns_log_format format;
    struct bns_arena *arena;
    size_t unknown; /* keys that nobody knows, as the real one they are passed over */
};

/* True: run. False: exit with *code. What is wrong is on stderr. */
bool kafka_options_read(struct kafka_options *o, struct bns_arena *arena, int argc, char **argv,
                        char *const *environ, int *code);

#endif
