/* options_more.h - etcd's flags for logs, for who watches from outside, and for what works in
 * another way here, or not at all.
 *
 * Thread: start-up.
 */
#ifndef ETCD_OPTIONS_MORE_H
#define ETCD_OPTIONS_MORE_H

#include "app/cli.h"
#include "base/arena.h"
#include "members.h"

#define ETCD_MORE_FLAGS 96
#define ETCD_TAKEN_MAX 80

struct etcd_more {
    const char *logger, *log_outputs;
    bool debug;
    const char *metrics; /* basic; extensive: with grpc_server_handling_seconds */
    const char *metrics_urls_text, *feature_gates, *discovery_srv, *discovery_srv_name;
    uint64_t keepalive_ns, keepalive_timeout_ns;
    bool gateway; /* JSON is served */

    /* Flags that have no effect with the values they may have; as the table in the .c file. */
    struct etcd_taken {
        const char *text;
        uint64_t u64;
        bool is;
    } taken[ETCD_TAKEN_MAX];

    /* derived */
    struct etcd_urls metrics_urls;
};

struct etcd_options;

void etcd_more_defaults(struct etcd_more *m);
/* Writes at most ETCD_MORE_FLAGS, returns how many. */
size_t etcd_more_flags(struct etcd_options *o, struct bns_cli_flag *out);
/* Checks, sets o->level and o->format, and says what has no effect. BNS_E_INVALID. */
BNS_MUST_CHECK int etcd_more_derive(struct etcd_options *o, struct bns_err *err);
/* Sends the log, which goes to stderr, to where --log-outputs says. BNS_E_IO. */
BNS_MUST_CHECK int etcd_log_redirect(const struct etcd_options *o, struct bns_err *err);

#endif
