/* main.c - which verb, and its flags. */
#include "cli.h"

#include <stddef.h>
#include <unistd.h>

#define AT(field) offsetof(struct ctl_flags, field)

const struct ctl_flag ctl_global_flags[] = {
    {"cacert", 0, CTL_STR, AT(cacert), "",
     "verify certificates of TLS-enabled secure servers using this CA bundle"},
    {"cert", 0, CTL_STR, AT(cert), "", "identify secure client using this TLS certificate file"},
    {"command-timeout", 0, CTL_DURATION, AT(command_timeout_ns), "5s",
     "timeout for short running command (excluding dial timeout)"},
    {"debug", 0, CTL_BOOL, AT(debug), "false", "enable client-side debug logging"},
    {"dial-timeout", 0, CTL_DURATION, AT(dial_timeout_ns), "2s",
     "dial timeout for client connections"},
    {"discovery-srv", 'd', CTL_STR, AT(discovery), "",
     "domain name to query for SRV records describing cluster endpoints"},
    {"discovery-srv-name", 0, CTL_STR, AT(discovery_name), "",
     "service name to query when using DNS discovery"},
    {"endpoints", 0, CTL_LIST, AT(endpoints), "127.0.0.1:2379", "gRPC endpoints"},
    {"hex", 0, CTL_BOOL, AT(hex), "false", "print byte strings as hex encoded strings"},
    {"insecure-discovery", 0, CTL_BOOL, AT(insecure_discovery), "true",
     "accept insecure SRV records describing cluster endpoints"},
    {"insecure-skip-tls-verify", 0, CTL_BOOL, AT(skip_verify), "false",
     "skip server certificate verification (CAUTION: this option should be enabled only for "
     "testing purposes)"},
    {"insecure-transport", 0, CTL_BOOL, AT(insecure_transport), "true",
     "disable transport security for client connections"},
    {"keepalive-time", 0, CTL_DURATION, AT(keepalive_ns), "2s",
     "keepalive time for client connections"},
    {"keepalive-timeout", 0, CTL_DURATION, AT(keepalive_ns), "6s",
     "keepalive timeout for client connections"},
    {"key", 0, CTL_STR, AT(key), "", "identify secure client using this TLS key file"},
    {"password", 0, CTL_STR, AT(password), "",
     "password for authentication (if this option is used, --user option shouldn't include "
     "password)"},
    {"user", 0, CTL_STR, AT(user), "",
     "username[:password] for authentication (prompt if password is not supplied)"},
    {"write-out", 'w', CTL_STR, AT(write_out), "simple",
     "set the output format (fields, json, protobuf, simple, table)"},
    {0},
};

const struct ctl_flag ctl_get_flags[] = {
    {"at-least-rev", 0, CTL_INT, AT(at_least_rev), "0",
     "With --consistency=s: wait until the member has applied this revision"},
    {"consistency", 0, CTL_STR, AT(consistency), "l", "Linearizable(l) or Serializable(s)"},
    {"count-only", 0, CTL_BOOL, AT(count_only), "false", "Get only the count"},
    {"from-key", 0, CTL_BOOL, AT(from_key), "false",
     "Get keys that are greater than or equal to the given key using byte compare"},
    {"keys-only", 0, CTL_BOOL, AT(keys_only), "false", "Get only the keys"},
    {"limit", 0, CTL_INT, AT(limit), "0", "Maximum number of results"},
    {"order", 0, CTL_STR, AT(order), "", "Order of results; ASCEND or DESCEND (ASCEND by default)"},
    {"prefix", 0, CTL_BOOL, AT(prefix), "false", "Get keys with matching prefix"},
    {"print-value-only", 0, CTL_BOOL, AT(value_only), "false",
     "Only write values when using the \"simple\" output format"},
    {"rev", 0, CTL_INT, AT(rev), "0", "Specify the kv revision"},
    {"sort-by", 0, CTL_STR, AT(sort_by), "", "Sort target; CREATE, KEY, MODIFY, VALUE, or VERSION"},
    {0},
};

const struct ctl_flag ctl_put_flags[] = {
    {"ignore-lease", 0, CTL_BOOL, AT(ignore_lease), "false",
     "updates the key using its current lease"},
    {"ignore-value", 0, CTL_BOOL, AT(ignore_value), "false",
     "updates the key using its current value"},
    {"lease", 0, CTL_STR, AT(lease), "0", "lease ID (in hexadecimal) to attach to the key"},
    {"prev-kv", 0, CTL_BOOL, AT(prev_kv), "false",
     "return the previous key-value pair before modification"},
    {0},
};

const struct ctl_flag ctl_del_flags[] = {
    {"from-key", 0, CTL_BOOL, AT(from_key), "false",
     "delete keys that are greater than or equal to the given key using byte compare"},
    {"prefix", 0, CTL_BOOL, AT(prefix), "false", "delete keys with matching prefix"},
    {"prev-kv", 0, CTL_BOOL, AT(prev_kv), "false", "return deleted key-value pairs"},
    {0},
};

static const struct ctl_flag txn_flags[] = {
    {"interactive", 'i', CTL_BOOL, AT(interactive), "false",
     "Input transaction in interactive mode"},
    {0},
};

static const struct ctl_flag watch_flags[] = {
    {"interactive", 'i', CTL_BOOL, AT(interactive), "false", "Interactive mode"},
    {"prefix", 0, CTL_BOOL, AT(prefix), "false", "Watch on a prefix if prefix is set"},
    {"prev-kv", 0, CTL_BOOL, AT(prev_kv), "false",
     "get the previous key-value pair before the event happens"},
    {"rev", 0, CTL_INT, AT(rev), "0", "Revision to start watching"},
    {0},
};

static const struct ctl_flag compaction_flags[] = {
    {"physical", 0, CTL_BOOL, AT(physical), "false",
     "'true' to wait for compaction to physically remove all old revisions"},
    {0},
};

static const struct ctl_flag lease_keep_flags[] = {
    {"once", 0, CTL_BOOL, AT(once), "false",
     "Resets the keep-alive time to its original value and exits immediately"},
    {0},
};

static const struct ctl_flag lease_ttl_flags[] = {
    {"keys", 0, CTL_BOOL, AT(keys), "false", "Get keys attached to this lease"},
    {0},
};

static const struct ctl_flag member_add_flags[] = {
    {"learner", 0, CTL_BOOL, AT(learner), "false", "indicates if the new member is raft learner"},
    {"peer-urls", 0, CTL_STR, AT(peer_urls), "", "comma separated peer URLs for the new member."},
    {0},
};

static const struct ctl_flag member_update_flags[] = {
    {"peer-urls", 0, CTL_STR, AT(peer_urls), "",
     "comma separated peer URLs for the updated member."},
    {0},
};

static const struct ctl_flag endpoint_flags[] = {
    {"cluster", 0, CTL_BOOL, AT(cluster), "false",
     "use all endpoints from the cluster member list"},
    {0},
};

static const struct ctl_flag inspect_flags[] = {
    {"cluster", 0, CTL_BOOL, AT(cluster), "false",
     "use all endpoints from the cluster member list"},
    {0},
};

static const struct ctl_flag inspect_index_flags[] = {
    {"cluster", 0, CTL_BOOL, AT(cluster), "false",
     "use all endpoints from the cluster member list"},
    {"limit", 0, CTL_INT, AT(limit), "1000", "Number of keys to look at; 0: all of them"},
    {"top", 0, CTL_INT, AT(top), "10", "Number of the largest keys to show, at most 100"},
    {0},
};

static const struct ctl_flag inspect_leases_flags[] = {
    {"cluster", 0, CTL_BOOL, AT(cluster), "false",
     "use all endpoints from the cluster member list"},
    {"limit", 0, CTL_INT, AT(limit), "1000", "Number of leases to show; 0: all of them"},
    {0},
};

static const struct ctl_flag inspect_watchers_flags[] = {
    {"cluster", 0, CTL_BOOL, AT(cluster), "false",
     "use all endpoints from the cluster member list"},
    {"limit", 0, CTL_INT, AT(limit), "1000",
     "Number of streams (or watches of one stream) to show; 0: all of them"},
    {"stream", 0, CTL_INT, AT(stream), "0", "Show the watches of this stream"},
    {"top", 0, CTL_INT, AT(top), "10", "With -w json: watches of each stream to show, at most 100"},
    {0},
};

static const struct ctl_flag hashkv_flags[] = {
    {"cluster", 0, CTL_BOOL, AT(cluster), "false",
     "use all endpoints from the cluster member list"},
    {"rev", 0, CTL_INT, AT(rev), "0", "maximum revision to hash (default: all revisions)"},
    {0},
};

static const struct ctl_flag lock_flags[] = {
    {"ttl", 0, CTL_INT, AT(ttl), "10", "timeout for session"},
    {0},
};

static const struct ctl_flag elect_flags[] = {
    {"listen", 'l', CTL_BOOL, AT(listen), "false", "observation mode"},
    {0},
};

static const struct ctl_flag user_add_flags[] = {
    {"interactive", 0, CTL_BOOL, AT(interactive), "true",
     "Read password from stdin instead of interactive terminal"},
    {"new-user-password", 0, CTL_STR, AT(new_password), "",
     "Supply password from the command line flag"},
    {"no-password", 0, CTL_BOOL, AT(no_password), "false",
     "Create a user without password (CN based auth only)"},
    {0},
};

static const struct ctl_flag user_get_flags[] = {
    {"detail", 0, CTL_BOOL, AT(detail), "false", "Show permissions of roles granted to the user"},
    {0},
};

static const struct ctl_flag user_passwd_flags[] = {
    {"interactive", 0, CTL_BOOL, AT(interactive), "true",
     "Read password from stdin instead of interactive terminal"},
    {0},
};

static const struct ctl_flag role_flags[] = {
    {"from-key", 0, CTL_BOOL, AT(from_key), "false",
     "keys that are greater than or equal to the given key using byte compare"},
    {"prefix", 0, CTL_BOOL, AT(prefix), "false", "all keys with the prefix"},
    {0},
};

static const struct ctl_flag perf_flags[] = {
    {"auto-compact", 0, CTL_BOOL, AT(auto_compact), "false",
     "Compact storage with last revision after test is finished."},
    {"auto-defrag", 0, CTL_BOOL, AT(auto_defrag), "false",
     "Defragment storage after test is finished."},
    {"load", 0, CTL_STR, AT(load), "s",
     "The performance check's workload model. Accepted workloads: s(small), m(medium), l(large), "
     "xl(xLarge)"},
    {"prefix", 0, CTL_STR, AT(perf_prefix), "/etcdctl-check-perf/",
     "The prefix for writing the performance check's keys."},
    {0},
};

static const struct ctl_flag datascale_flags[] = {
    {"auto-compact", 0, CTL_BOOL, AT(auto_compact), "false",
     "Compact storage with last revision after test is finished."},
    {"auto-defrag", 0, CTL_BOOL, AT(auto_defrag), "false",
     "Defragment storage after test is finished."},
    {"load", 0, CTL_STR, AT(load), "s",
     "The datascale check's workload model. Accepted workloads: s(small), m(medium), l(large), "
     "xl(xLarge)"},
    {"prefix", 0, CTL_STR, AT(perf_prefix), "/etcdctl-check-datascale/",
     "The prefix for writing the datascale check's keys."},
    {0},
};

static const struct ctl_flag mirror_flags[] = {
    {"dest-cacert", 0, CTL_STR, AT(dest_cacert), "",
     "Verify certificates of TLS enabled secure servers using this CA bundle"},
    {"dest-cert", 0, CTL_STR, AT(dest_cert), "",
     "Identify secure client using this TLS certificate file for the destination cluster"},
    {"dest-insecure-transport", 0, CTL_BOOL, AT(dest_insecure), "true",
     "Disable transport security for client connections"},
    {"dest-key", 0, CTL_STR, AT(dest_key), "", "Identify secure client using this TLS key file"},
    {"dest-password", 0, CTL_STR, AT(dest_password), "",
     "Destination password for authentication (if this option is used, --dest-user option "
     "shouldn't include password)"},
    {"dest-prefix", 0, CTL_STR, AT(dest_prefix), "",
     "destination prefix to mirror a prefix to a different prefix in the destination cluster"},
    {"dest-user", 0, CTL_STR, AT(dest_user), "",
     "Destination username[:password] for authentication (prompt if password is not supplied)"},
    {"no-dest-prefix", 0, CTL_BOOL, AT(no_dest_prefix), "false",
     "mirror key-values to the root of the destination cluster"},
    {"prefix", 0, CTL_STR, AT(mirror_prefix), "", "Key-value prefix to mirror"},
    {0},
};

const struct ctl_verb ctl_verbs[] = {
    {"alarm disarm", "", "Disarms all alarms", NULL, ctl_alarm_disarm},
    {"alarm list", "", "Lists all alarms", NULL, ctl_alarm_list},
    {"auth disable", "", "Disables authentication", NULL, ctl_plain},
    {"auth enable", "", "Enables authentication", NULL, ctl_auth_enable},
    {"check datascale", "[options]",
     "Check the memory usage of holding data for different workloads on a given server endpoint.",
     datascale_flags, ctl_check_datascale},
    {"check perf", "[options]", "Check the performance of the etcd cluster", perf_flags,
     ctl_check_perf},
    {"compaction", "[options] <revision>", "Compacts the event history in etcd", compaction_flags,
     ctl_compaction},
    {"completion bash", "", "Generate the autocompletion script for bash", NULL, ctl_completion},
    {"defrag", "", "Defragments the storage of the etcd members with given endpoints",
     endpoint_flags, ctl_defrag},
    {"del", "[options] <key> [range_end]",
     "Removes the specified key or range of keys [key, range_end)", ctl_del_flags, ctl_del},
    {"elect", "<election-name> [proposal]", "Observes and participates in leader election",
     elect_flags, ctl_elect},
    {"endpoint hashkv", "", "Prints the KV history hash for each endpoint in --endpoints",
     hashkv_flags, ctl_endpoint_hashkv},
    {"endpoint health", "", "Checks the healthiness of endpoints specified in `--endpoints` flag",
     endpoint_flags, ctl_endpoint_health},
    {"endpoint status", "", "Prints out the status of endpoints specified in `--endpoints` flag",
     endpoint_flags, ctl_endpoint_status},
    {"get", "[options] <key> [range_end]", "Gets the key or a range of keys", ctl_get_flags,
     ctl_get},
    {"inspect index", "[options]", "Shows the key index of members and its largest keys",
     inspect_index_flags, ctl_inspect_index},
    {"inspect leases", "[options]", "Shows the leases as members have them", inspect_leases_flags,
     ctl_inspect_leases},
    {"inspect members", "[options]", "Shows whom members know and are connected with",
     inspect_flags, ctl_inspect_members},
    {"inspect raft", "[options]", "Shows the replicated log of members and its peers",
     inspect_flags, ctl_inspect_raft},
    {"inspect watchers", "[options]", "Shows streams of watches, and how far they are behind",
     inspect_watchers_flags, ctl_inspect_watchers},
    {"lease grant", "<ttl>", "Creates leases", NULL, ctl_lease_grant},
    {"lease keep-alive", "[options] <leaseID>", "Keeps leases alive (renew)", lease_keep_flags,
     ctl_lease_keep},
    {"lease list", "", "List all active leases", NULL, ctl_lease_list},
    {"lease revoke", "<leaseID>", "Revokes leases", NULL, ctl_lease_revoke},
    {"lease timetolive", "<leaseID> [options]", "Get lease information", lease_ttl_flags,
     ctl_lease_ttl},
    {"lock", "<lockname> [exec-command arg1 arg2 ...]", "Acquires a named lock", lock_flags,
     ctl_lock},
    {"make-mirror", "[options] <destination>", "Makes a mirror at the destination etcd cluster",
     mirror_flags, ctl_make_mirror},
    {"member add", "<memberName> [options]", "Adds a member into the cluster", member_add_flags,
     ctl_member_add},
    {"member list", "", "Lists all members in the cluster", NULL, ctl_member_list},
    {"member promote", "<memberID>", "Promotes a non-voting member in the cluster", NULL,
     ctl_plain},
    {"member remove", "<memberID>", "Removes a member from the cluster", NULL, ctl_plain},
    {"member update", "<memberID> [options]", "Updates a member in the cluster",
     member_update_flags, ctl_plain},
    {"move-leader", "<transferee-member-id>",
     "Transfers leadership to another etcd cluster member.", NULL, ctl_move_leader},
    {"put", "[options] <key> <value> (<value> can also be given from stdin)",
     "Puts the given key into the store", ctl_put_flags, ctl_put},
    {"role add", "<role name>", "Adds a new role", NULL, ctl_plain},
    {"role delete", "<role name>", "Deletes a role", NULL, ctl_plain},
    {"role get", "<role name>", "Gets detailed information of a role", NULL, ctl_role_get},
    {"role grant-permission", "[options] <role name> <permission type> <key> [endkey]",
     "Grants a key to a role", role_flags, ctl_role_grant},
    {"role list", "", "Lists all roles", NULL, ctl_role_list},
    {"role revoke-permission", "<role name> <key> [endkey]", "Revokes a key from a role",
     role_flags, ctl_role_revoke},
    {"snapshot save", "<filename>", "Stores an etcd node backend snapshot to a given file", NULL,
     ctl_snapshot_save},
    {"txn", "[options]", "Txn processes all the requests in one transaction", txn_flags, ctl_txn},
    {"user add", "<user name or user:password> [options]", "Adds a new user", user_add_flags,
     ctl_user_add},
    {"user delete", "<user name>", "Deletes a user", NULL, ctl_plain},
    {"user get", "<user name> [options]", "Gets detailed information of a user", user_get_flags,
     ctl_user_get},
    {"user grant-role", "<user name> <role name>", "Grants a role to a user", NULL, ctl_plain},
    {"user list", "", "Lists all users", NULL, ctl_user_list},
    {"user passwd", "<user name> [options]", "Changes password of user", user_passwd_flags,
     ctl_user_passwd},
    {"user revoke-role", "<user name> <role name>", "Revokes a role from a user", NULL, ctl_plain},
    {"version", "", "Prints the version of etcdctl", NULL, ctl_version},
    {"watch", "[options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
     "Watches events stream on keys or prefixes", watch_flags, ctl_watch},
    {0},
};

int ctl_version(struct ctl *c, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    (void)printf("%s version: %s\nAPI version: %.3s\n", c->program, "3.6.0", "3.6.0");
    return CTL_OK;
}

/* Is `word` the first word of a verb's name? Then the length of its name's rest is told, too. */
static bool is_group(const char *word)
{
    size_t len = strlen(word);

    for (const struct ctl_verb *v = ctl_verbs; v->name != NULL; v++) {
        if (strncmp(v->name, word, len) == 0 && v->name[len] == ' ')
            return true;
    }
    return false;
}

static const struct ctl_verb *find(const char *first, const char *second)
{
    size_t len = strlen(first);

    for (const struct ctl_verb *v = ctl_verbs; v->name != NULL; v++) {
        if (strcmp(v->name, first) == 0 ||
            (second != NULL && strncmp(v->name, first, len) == 0 && v->name[len] == ' ' &&
             strcmp(v->name + len + 1, second) == 0))
            return v;
    }
    return NULL;
}

bool etcd_cli_is_verb(const char *word)
{
    return is_group(word) || find(word, NULL) != NULL || strcmp(word, "help") == 0 ||
           strcmp(word, "compact") == 0;
}

int etcd_cli_flag(const char *arg)
{
    for (const struct ctl_flag *f = ctl_global_flags; f->name != NULL; f++) {
        size_t len = strlen(f->name);

        if (arg[1] == '-' && strncmp(arg + 2, f->name, len) == 0) {
            if (arg[2 + len] == '\0')
                return f->kind == CTL_BOOL ? 1 : 2;
            if (arg[2 + len] == '=')
                return 1;
        }
        if (f->letter != 0 && arg[0] == '-' && arg[1] == f->letter)
            return f->kind == CTL_BOOL || arg[2] != '\0' ? 1 : 2;
    }
    return 0;
}

/* Takes the first word that is none of the global flags nor a value of one out of argv. */
static char *take_word(char **argv)
{
    for (char **p = argv; *p != NULL; p++) {
        if (strcmp(*p, "--") == 0)
            return NULL;
        if ((*p)[0] != '-' || (*p)[1] == '\0') {
            char *word = *p;

            for (; *p != NULL; p++)
                p[0] = p[1];
            return word;
        }
        if (etcd_cli_flag(*p) == 2 && p[1] != NULL)
            p++;
    }
    return NULL;
}

static int usage_error(struct ctl *c, const char *group, const struct bns_err *err)
{
    (void)fprintf(stderr, "Error: %s\n", err->text); /* a closed terminal is nobody's loss */
    ctl_help(c, group, stdout);
    (void)fputc('\n', stderr);
    return ctl_fail(CTL_ERROR, "%s", err->text);
}

/* Finds the verb, and reads all flags. CTL_OK and no verb: help was asked for. */
static int read_words(struct ctl *c, int *argc, char **argv, const char **group)
{
    struct bns_err err = {0};
    char *first = take_word(argv), *second;
    bool help = first != NULL && strcmp(first, "help") == 0;

    if (help)
        first = take_word(argv);
    if (first != NULL && strcmp(first, "compact") == 0)
        first = ctl_print(c, "compaction");
    second = first != NULL && is_group(first) ? take_word(argv) : NULL;
    if (first != NULL)
        c->verb = find(first, second);
    if (first != NULL && c->verb == NULL && !is_group(first)) {
        (void)fprintf(stderr,
                      "Error: unknown command \"%s\" for \"%s\"\nRun '%s --help' for usage.\n",
                      first, c->program, c->program);
        return ctl_fail(CTL_ERROR, "unknown command \"%s\" for \"%s\"", first, c->program);
    }
    *group = first;
    if (c->verb != NULL)
        ctl_flags_defaults(c->verb->flags, &c->f);
    if (ctl_flags_read(c, c->verb == NULL ? NULL : c->verb->flags, argc, argv, &err) != BNS_OK ||
        ctl_flags_env(c, environ, &err) != BNS_OK)
        return usage_error(c, first, &err);
    if (help || c->f.help) {
        if (c->verb != NULL)
            *group = c->verb->name; /* both words */
        c->verb = NULL;
    }
    return CTL_OK;
}

/* Does it ask a server? */
static bool asks(const struct ctl_verb *v)
{
    return v->run != ctl_version && v->run != ctl_completion;
}

int etcd_cli_main(const char *program, int argc, char **argv)
{
    struct ctl c = {.program = program};
    const char *group = NULL;
    int code;

    bns_arena_init(&c.arena, bns_alloc_libc(), SIZE_MAX);
    ctl_flags_defaults(ctl_global_flags, &c.f);
    code = read_words(&c, &argc, argv + 1, &group);
    if (code == CTL_OK && c.verb == NULL)
        ctl_help(&c, group, stdout);
    else if (code == CTL_OK && asks(c.verb))
        code = ctl_discover(&c);
    if (code == CTL_OK && c.verb != NULL)
        code = c.verb->run(&c, argc, argv + 1);
    if (fflush(stdout) != 0 && code == CTL_OK)
        code = CTL_ERROR; /* the answer did not arrive */
    ctl_done(&c);
    return code;
}
