/* cli.h - the command line: etcdctl's verbs, flags, output and exit codes.
 *
 * Reading order: main.c (which verb), flags.c (the flags of Go's pflag), help.c, ask.c (one call,
 * waited for), out.c json.c table.c (output), then a file for each family of verbs.
 *
 * One process, one verb: the loop runs until an answer is there, then the verb goes on. What a verb
 * allocates lies in one arena that dies with the process.
 */
#ifndef ETCD_CLI_CLI_H
#define ETCD_CLI_CLI_H

#include "base/arena.h"
#include "client/etcd/etcd.h"

#include <stdio.h>

enum ctl_exit {
    CTL_OK = 0,
    CTL_ERROR = 1,
    CTL_CONNECTION = 2,
    CTL_INPUT = 3,
    CTL_FEATURE = 4,
    CTL_INTERRUPTED = 5,
    CTL_ARGS = 128
};

enum ctl_out { CTL_SIMPLE, CTL_JSON, CTL_FIELDS, CTL_TABLE, CTL_PROTOBUF };

#define CTL_ENDPOINTS_MAX BNS_ETCD_ENDPOINTS_MAX

/* The flags of all verbs; each verb reads its own. */
struct ctl_flags {
    const char *endpoints[CTL_ENDPOINTS_MAX];
    size_t endpoints_count;
    const char *cacert, *cert, *key, *user, *password, *write_out, *discovery, *discovery_name;
    bool insecure_discovery, hex, debug, insecure_transport, skip_verify, help, cluster;
    int64_t command_timeout_ns, dial_timeout_ns, keepalive_ns;
    bool prefix, from_key, keys_only, count_only, value_only, prev_kv, ignore_value, ignore_lease;
    bool interactive, once, keys, physical, learner, listen, no_password, detail;
    bool auto_compact, auto_defrag;
    int64_t rev, at_least_rev, limit, ttl, top, stream;
    const char *order, *sort_by, *consistency, *lease, *peer_urls, *new_password, *data_dir, *load;
    const char *perf_prefix, *mirror_prefix, *dest_prefix, *dest_cacert, *dest_cert, *dest_key;
    const char *dest_user, *dest_password;
    bool no_dest_prefix, dest_insecure;
};

enum ctl_kind { CTL_BOOL, CTL_INT, CTL_STR, CTL_DURATION, CTL_LIST };

struct ctl_flag {
    const char *name; /* NULL ends a table */
    char letter;
    enum ctl_kind kind;
    size_t at;         /* in struct ctl_flags */
    const char *value; /* the default, as text; it is also what is shown */
    const char *help;
};

struct ctl;

struct ctl_verb {
    const char *name; /* "lease grant" */
    const char *args; /* behind the name in the usage */
    const char *help;
    const struct ctl_flag *flags;
    int (*run)(struct ctl *c, int argc, char **argv);
};
extern const struct ctl_verb ctl_verbs[]; /* the last one has no name */
extern const struct ctl_flag ctl_global_flags[];

struct ctl {
    struct ctl_flags f;
    uint64_t given;      /* bit i: the i-th global flag stood on the command line */
    const char *program; /* "etcd-lite" or "etcdctl" */
    const struct ctl_verb *verb;
    enum ctl_out out;
    struct bns_env *env;
    struct bns_vfs *vfs;
    struct bns_tls *tls;
    struct bns_etcd *etcd; /* NULL until it is needed */
    struct bns_etcd_session session;
    struct bns_arena arena;
    struct ctl_kept *kept; /* answers */
    struct bns_task last;  /* of the loop */
    int dashes;            /* words before "--", or -1 */
};

/* main.c: argv[0] is the program, argv[1] the verb. The exit code. */
int etcd_cli_main(const char *program, int argc, char **argv);
/* Is this the first word of a verb (or a request for help of them)? */
bool etcd_cli_is_verb(const char *word);
/* Is that a flag that may stand before a verb? 0: no. 2: it takes the word behind it. */
int etcd_cli_flag(const char *arg);

/* flags.c. Defaults; then moves the words to the front of argv. CTL_OK, or err has the text. */
void ctl_flags_defaults(const struct ctl_flag *flags, struct ctl_flags *f);
int ctl_flags_read(struct ctl *c, const struct ctl_flag *own, int *argc, char **argv,
                   struct bns_err *err);
int ctl_flags_env(struct ctl *c, char *const *envp, struct bns_err *err);
/* Go's strconv. BNS_E_INVALID with its text. */
int ctl_parse_int(const char *text, int base, int64_t *out, struct bns_err *err);
int ctl_parse_uint(const char *text, int base, uint64_t *out, struct bns_err *err);

/* help.c */
void ctl_help(struct ctl *c, const char *group, FILE *to); /* the verb's, a group's, or all */
int ctl_completion(struct ctl *c, int argc, char **argv);

/* ask.c */
struct ctl_reply {
    int status;
    const char *text;
    void *msg; /* of the method's response type */
};
int ctl_fail(int code, const char *fmt, ...) BNS_PRINTF(2, 3); /* "Error: ..."; returns code */
int ctl_prepare(struct ctl *c); /* the loop; CTL_OK, or said why not */
int ctl_connect(struct ctl *c); /* CTL_OK, or said why not */
/* discovery.c: the endpoints that --discovery-srv leads to. CTL_OK, or said why not. */
int ctl_discover(struct ctl *c);
/* A client of these endpoints alone; NULL: said why not. */
struct bns_etcd *ctl_client(struct ctl *c, const char *const *endpoints, size_t count);
struct ctl_reply ctl_ask_at(struct ctl *c, struct bns_etcd *etcd, enum bns_etcd_method m,
                            const ProtobufCMessage *request);
/* Connects when there is need, asks; 0 and the message, or the exit code: the error was printed. */
int ctl_ask(struct ctl *c, enum bns_etcd_method m, const ProtobufCMessage *request, void *msg);
const char *ctl_error_text(struct ctl *c, int status, const char *text);
int ctl_reply_fail(struct ctl *c, int status, const char *text);
/* -w. CTL_FEATURE: said that it is not supported. */
int ctl_format(struct ctl *c, bool table);
int ctl_format_status(struct ctl *c); /* of what stands for no message: table, no protobuf */
void ctl_done(struct ctl *c);
/* A line of a terminal without echo, or of stdin; NULL at its end. */
const char *ctl_password(struct ctl *c, const char *prompt);
const char *ctl_stdin(struct ctl *c, bool line); /* all of it; NULL: nothing there */
char *ctl_print(struct ctl *c, const char *fmt, ...) BNS_PRINTF(2, 3); /* into the arena */

/* What is allocated in c->arena from now on, and the answers, go with the end. */
struct ctl_scratch {
    struct bns_arena arena;
    struct ctl_kept *kept;
};
struct ctl_scratch ctl_scratch(struct ctl *c);
void ctl_scratch_end(struct ctl *c, struct ctl_scratch s);

/* Runs a command with more variables and waits for it: its exit code, -1: it cannot be started,
 * -1 - n: signal n has ended it. */
int ctl_run(struct ctl *c, char *const *argv, char *const *more);
const char *ctl_run_text(struct ctl *c, char *const *argv, int code); /* as Go says it */
/* Likewise, and the loop goes on meanwhile. */
int ctl_run_kept(struct ctl *c, char *const *argv, char *const *more);

/* out.c: forms of output that many verbs share */
void ctl_out_bytes(struct ctl *c, const ProtobufCBinaryData *b); /* as is, or hex */
void ctl_out_quoted(const uint8_t *p, size_t n);                 /* Go's %q */
void ctl_out_protobuf(const ProtobufCMessage *m);                /* its bytes; NULL: none */
char *ctl_quoted(struct ctl *c, const char *before, const ProtobufCBinaryData *b); /* as text */
void ctl_out_header(const Etcdserverpb__ResponseHeader *h);                        /* fields */
void ctl_out_kv(struct ctl *c, const Etcdserverpb__KeyValue *kv, bool value_only);
void ctl_out_kv_fields(const char *prefix, const Etcdserverpb__KeyValue *kv);
void ctl_out_range(struct ctl *c, const Etcdserverpb__RangeResponse *r);
void ctl_out_txn(struct ctl *c, const Etcdserverpb__TxnResponse *r);
void ctl_out_put(struct ctl *c, const Etcdserverpb__PutResponse *r);
void ctl_out_del(struct ctl *c, const Etcdserverpb__DeleteRangeResponse *r);
/* -w json, protobuf: the message; -w fields: its header. False: it is for the caller to print. */
bool ctl_out_other(struct ctl *c, const ProtobufCMessage *m);
const char *ctl_duration(struct ctl *c, uint64_t ns); /* Go's text */
const char *ctl_bytes(struct ctl *c, int64_t n);      /* "20 kB" */

/* json.c: as Go's encoding/json prints etcd's messages */
void ctl_json(const ProtobufCMessage *m);
void ctl_json_fields(const ProtobufCMessage *m, bool *first); /* without braces */
void ctl_json_string(const char *s);
void ctl_json_bytes(const ProtobufCBinaryData *b);

/* table.c: cells are strings; row 0 is the head */
void ctl_table(const char *const *cells, size_t columns, size_t rows);

/* ---- verbs ---- */
int ctl_put(struct ctl *c, int argc, char **argv);
int ctl_get(struct ctl *c, int argc, char **argv);
int ctl_del(struct ctl *c, int argc, char **argv);
int ctl_compaction(struct ctl *c, int argc, char **argv);
/* One request out of words and flags, for the verb and for txn. CTL_OK, or said what is wrong. */
int ctl_put_request(struct ctl *c, int argc, char **argv, Etcdserverpb__PutRequest *r);
int ctl_get_request(struct ctl *c, int argc, char **argv, Etcdserverpb__RangeRequest *r);
int ctl_del_request(struct ctl *c, int argc, char **argv, Etcdserverpb__DeleteRangeRequest *r);
extern const struct ctl_flag ctl_put_flags[], ctl_get_flags[], ctl_del_flags[];
int ctl_txn(struct ctl *c, int argc, char **argv);
char **ctl_words(struct ctl *c, const char *line, int *count); /* a line as etcdctl splits it */
int ctl_watch(struct ctl *c, int argc, char **argv);
int ctl_lease_grant(struct ctl *c, int argc, char **argv);
int ctl_lease_revoke(struct ctl *c, int argc, char **argv);
int ctl_lease_ttl(struct ctl *c, int argc, char **argv);
int ctl_lease_list(struct ctl *c, int argc, char **argv);
int ctl_lease_keep(struct ctl *c, int argc, char **argv);
int ctl_plain(struct ctl *c, int argc, char **argv);            /* by c->verb; plain.c */
size_t ctl_split(struct ctl *c, const char *text, char ***out); /* "a,b" into words */
int ctl_member_list(struct ctl *c, int argc, char **argv);
int ctl_member_add(struct ctl *c, int argc, char **argv);
/* The endpoints to ask, one by one: those given, or with --cluster all that the members have. */
#define CTL_ENDPOINTS_ALL 256u
int ctl_endpoints(struct ctl *c, const char **all, size_t *count); /* all: CTL_ENDPOINTS_ALL */
int ctl_endpoint_health(struct ctl *c, int argc, char **argv);
int ctl_endpoint_status(struct ctl *c, int argc, char **argv);
int ctl_endpoint_hashkv(struct ctl *c, int argc, char **argv);
int ctl_alarm_list(struct ctl *c, int argc, char **argv);
int ctl_alarm_disarm(struct ctl *c, int argc, char **argv);
int ctl_defrag(struct ctl *c, int argc, char **argv);
int ctl_move_leader(struct ctl *c, int argc, char **argv);
int ctl_snapshot_save(struct ctl *c, int argc, char **argv);
int ctl_inspect_index(struct ctl *c, int argc, char **argv);
int ctl_inspect_leases(struct ctl *c, int argc, char **argv);
int ctl_inspect_members(struct ctl *c, int argc, char **argv);
int ctl_inspect_raft(struct ctl *c, int argc, char **argv);
int ctl_inspect_watchers(struct ctl *c, int argc, char **argv);
int ctl_lock(struct ctl *c, int argc, char **argv);
int ctl_elect(struct ctl *c, int argc, char **argv);
int ctl_auth_enable(struct ctl *c, int argc, char **argv);
int ctl_user_add(struct ctl *c, int argc, char **argv);
int ctl_user_get(struct ctl *c, int argc, char **argv);
int ctl_user_list(struct ctl *c, int argc, char **argv);
int ctl_user_passwd(struct ctl *c, int argc, char **argv);
int ctl_role_get(struct ctl *c, int argc, char **argv);
int ctl_role_list(struct ctl *c, int argc, char **argv);
int ctl_role_grant(struct ctl *c, int argc, char **argv);
int ctl_role_revoke(struct ctl *c, int argc, char **argv);
int ctl_check_perf(struct ctl *c, int argc, char **argv);
int ctl_check_datascale(struct ctl *c, int argc, char **argv);
int ctl_clean_up(struct ctl *c); /* of both checks: deletes their keys, then what was asked for */
int ctl_make_mirror(struct ctl *c, int argc, char **argv);
int ctl_version(struct ctl *c, int argc, char **argv);

#endif
