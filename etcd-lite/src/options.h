/* options.h - etcd's flags, ETCD_* variables and configuration file, as far as they exist here.
 *
 * Thread: start-up. Memory: texts are borrowed from argv, the environment, or the arena given.
 */
#ifndef ETCD_OPTIONS_H
#define ETCD_OPTIONS_H

#include "app/cli.h"
#include "autocompact.h"
#include "base/arena.h"
#include "base/log.h"
#include "members.h"
#include "options_more.h"
#include "secure.h"

struct etcd_options {
    const char *name;
    const char *data_dir; /* default <name>.etcd */
    const char *wal_dir;  /* of the log; NULL or "": in data_dir */
    const char *listen_client_urls, *advertise_client_urls;
    const char *listen_peer_urls, *initial_advertise_peer_urls;
    const char *initial_cluster, *initial_cluster_token, *initial_cluster_state;
    const char *log_level, *log_format, *ports_file, *config_file;
    const char *listen_client_http_urls; /* NULL: HTTP is served where gRPC is */
    const char *cors, *host_whitelist;   /* separated by commas */
    uint64_t heartbeat_ms, election_ms;
    uint64_t snapshot_count;
    uint64_t watch_progress_ns; /* between two progress notices of a watch */
    uint64_t quota_bytes;
    uint64_t txn_ops_max, request_bytes_max, streams_max;
    const char *auth_token;    /* "simple[,ttl]" */
    uint64_t auth_token_ttl_s; /* derived from it, too */
    uint64_t warning_apply_ns; /* an answer that took longer is logged and counted */
    uint64_t bcrypt_cost;
    bool unsafe_no_fsync, insecure;
    const char *storage;    /* "disk" or "memory" */
    bool memory;            /* derived: nothing is written to the disk */
    const char *quota_text; /* 0 = default, negative = off */
    const char *compaction_mode, *compaction_retention;
    uint64_t corrupt_check_ns;      /* between two comparisons of all members' data; 0 = off */
    uint64_t compact_hash_check_ns; /* with compact_hash_check: looked at so often */
    bool initial_corrupt_check, compact_hash_check;
    bool strict_reconfig;  /* refuse a change of members that may cost the quorum */
    uint64_t learners_max; /* in the cluster */
    bool auto_disarm;      /* NOSPACE clears itself when there is room again */
    bool lease_checkpoint, lease_checkpoint_persist;
    /* Of the log. Not flags: the simulator has small disks and short runs. */
    uint32_t segment_bytes;
    uint64_t reserve_bytes, trailing_entries;
    uint32_t turn_keys; /* of etcd_kv_config; likewise */
    struct etcd_secure_options secure;
    struct etcd_more more;

    /* derived */
    bool as_etcd; /* called by that name: a stand-in for etcd */
    enum bns_log_level level;
    enum bns_log_format format;
    struct etcd_urls client_urls, client_http, advertised, peer_listen;
    struct etcd_url client, peer; /* the first of each */
    bool peer_default;            /* nobody asked for a peer listener */
    bool joins;                   /* --initial-cluster-state existing */
    bool discovered;              /* initial_cluster was told by name servers, just now */
    struct etcd_members members;
    const struct etcd_member *self;
    struct etcd_autocompact_cfg autocompact;
};

enum etcd_options_result { ETCD_RUN, ETCD_EXIT };

/* Reads --config-file, environment, flags (the later ones win), checks and derives. ETCD_EXIT:
 * *exit_code says with what; messages and help have been printed. */
enum etcd_options_result etcd_options_read(struct etcd_options *o, struct bns_arena *arena,
                                           int argc, char **argv, char **envp, int *exit_code);

/* One line on stderr, in the form of the log. */
void etcd_options_warn(const struct etcd_options *o, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* options_maint.c: appends its flags, at most ETCD_MAINT_FLAGS. */
#define ETCD_MAINT_FLAGS 16
size_t etcd_maint_flags(struct etcd_options *o, struct bns_cli_flag *out);
BNS_MUST_CHECK int etcd_maint_derive(struct etcd_options *o, struct bns_err *err);

#endif
