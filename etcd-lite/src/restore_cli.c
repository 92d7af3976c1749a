/* restore_cli.c - etcd-lite snapshot restore|status: flags, output and exit codes of etcdutl.
 *
 * No server is asked: both work on files. Exit codes: 0, 1 an error, 128 wrong arguments.
 */
#include <inttypes.h>
#include <stdio.h>

#include "app/cli.h"
#include "io/env_uv.h"
#include "restore_int.h"
#include "store/vfs_posix.h"

#define EXIT_BAD_ARGS 128

static int complain(int code, const char *text)
{
    (void)fprintf(stderr, "Error: %s\n", text); /* nothing to do if stderr is closed */
    return code;
}

/* ---- status --------------------------------------------------------------------------------- */

/* As Go's humanize: powers of 1,000, one digit behind the point below 10. */
static void human(uint64_t bytes, char *dst, size_t cap)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double v = (double)bytes;
    size_t u = 0;

    for (; v >= 1000 && u < 6; u++)
        v /= 1000;
    v = (double)(uint64_t)(v * 10 + 0.5) / 10;
    (void)snprintf(dst, cap, u > 0 && v < 10 ? "%.1f %s" : "%.0f %s", v, units[u]); /* short */
}

static void line(const int width[5])
{
    for (int i = 0; i < 5; i++) {
        (void)putchar('+');
        for (int k = 0; k < width[i] + 2; k++)
            (void)putchar('-');
    }
    (void)puts("+");
}

static void table(char cell[5][32])
{
    static const char *const head[5] = {"HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"};
    int width[5];

    for (int i = 0; i < 5; i++) {
        size_t h = strlen(head[i]), c = strlen(cell[i]);

        width[i] = (int)(h > c ? h : c);
    }
    line(width);
    for (int i = 0; i < 5; i++) {
        int room = width[i] - (int)strlen(head[i]);

        (void)printf("| %*s%s%*s ", room / 2, "", head[i], room - room / 2, "");
    }
    (void)puts("|");
    line(width);
    for (int i = 0; i < 5; i++)
        (void)printf("| %*s ", width[i], cell[i]);
    (void)puts("|");
    line(width);
}

static int print_status(const struct etcd_snapshot_status *st, const char *format)
{
    char cell[5][32] = {{0}};

    (void)snprintf(cell[0], sizeof cell[0], "%" PRIx32, st->hash); /* all fit */
    (void)snprintf(cell[1], sizeof cell[1], "%" PRId64, st->revision);
    (void)snprintf(cell[2], sizeof cell[2], "%" PRIu64, st->keys);
    human(st->bytes, cell[3], sizeof cell[3]);
    memcpy(cell[4], st->version, sizeof cell[4]);
    if (strcmp(format, "table") == 0)
        table(cell);
    else if (strcmp(format, "simple") == 0)
        (void)printf("%s, %s, %s, %s, %s\n", cell[0], cell[1], cell[2], cell[3], cell[4]);
    else if (strcmp(format, "json") == 0)
        (void)printf("{\"hash\":%" PRIu32 ",\"revision\":%" PRId64 ",\"totalKey\":%" PRIu64
                     ",\"totalSize\":%" PRIu64 ",\"version\":\"%s\"}\n",
                     st->hash, st->revision, st->keys, st->bytes, st->version);
    else
        (void)printf("\"Hash\" : %" PRIu32 "\n\"Revision\" : %" PRId64 "\n\"Keys\" : %" PRIu64
                     "\n\"Size\" : %" PRIu64 "\n\"Version\" : %s\n",
                     st->hash, st->revision, st->keys, st->bytes, st->version);
    return ferror(stdout) || fflush(stdout) != 0 ? complain(1, "cannot write the answer") : 0;
}

static bool printable(struct etcd_snapshot_status *st)
{
    for (char *p = st->version; *p != 0; p++) {
        if ((*p < '0' || *p > '9') && (*p < 'a' || *p > 'z') && *p != '.' && *p != '-')
            return false;
    }
    return true;
}

static int run_status(int argc, char **argv)
{
    static const char *const formats[] = {"simple", "json", "table", "fields"};
    const char *format = "simple";
    const struct bns_cli_flag flags[] = {
        {"write-out", 'w', BNS_VALUE_STR, &format, "simple, json, table or fields", NULL}, {0}};
    const struct bns_cli cli = {
        .program = "etcd-lite",
        .usage = "etcd-lite snapshot status FILE [-w simple|json|table|fields]",
        .about = "Reads the whole file and tells hash, revision, keys alive, bytes, version.",
        .flags = flags};
    struct etcd_snapshot_status st;
    struct bns_cli_words words;
    struct bns_err err = {0};
    struct bns_vfs *vfs;
    bool known = false;
    int rv = bns_cli_parse(&cli, argc, argv, &words, &err);

    if (rv != BNS_OK)
        return complain(1, err.text);
    if (bns_cli_answered(&cli, &words))
        return 0;
    for (size_t i = 0; i < 4; i++)
        known = known || strcmp(format, formats[i]) == 0;
    if (!known)
        return complain(4, "unsupported output format");
    if (words.count != 1)
        return complain(EXIT_BAD_ARGS, "snapshot status requires exactly one argument");
    vfs = bns_vfs_posix(bns_alloc_libc());
    if (vfs == NULL)
        return complain(1, "out of memory");
    rv = etcd_snapshot_status(vfs, bns_alloc_libc(), argv[1], &st, &err);
    bns_vfs_posix_free(vfs);
    if (rv == BNS_OK && !printable(&st))
        return complain(1, "the snapshot's storageVersion is no version");
    return rv == BNS_OK ? print_status(&st, format) : complain(1, err.text);
}

/* ---- restore -------------------------------------------------------------------------------- */

struct run {
    struct bns_env *env;
    struct etcd_restore *restore;
    const struct etcd_restore_config *cfg;
    int code;
};

static void restored(void *arg, int code, const char *text)
{
    struct run *r = arg;

    r->code = code == BNS_OK ? 0 : complain(1, text);
    if (code == BNS_OK)
        (void)fprintf(stderr, "restored snapshot %s at revision %" PRId64 " into %s\n",
                      r->cfg->file, etcd_restore_revision(r->restore),
                      etcd_restore_dir(r->restore)); /* nothing to do if stderr is closed */
    bns_env_uv_stop(r->env);
}

static int restore_file(const struct etcd_restore_config *cfg)
{
    struct run r = {.cfg = cfg, .code = 1};
    struct bns_err err = {0};
    struct bns_vfs *vfs = bns_vfs_posix(bns_alloc_libc());
    int rv = vfs == NULL ? bns_err_set(&err, BNS_E_NOMEM, "out of memory")
                         : bns_env_uv_new(bns_alloc_libc(), vfs, &r.env, &err);

    if (rv == BNS_OK)
        rv = etcd_restore_start(r.env, cfg, restored, &r, &r.restore, &err);
    if (rv == BNS_OK)
        bns_env_uv_run(r.env);
    else
        r.code = complain(1, cfg->wide[0] != 0 ? cfg->wide : err.text);
    etcd_restore_free(r.restore);
    bns_env_uv_free(r.env);
    bns_vfs_posix_free(vfs);
    return r.code;
}

static int run_restore(int argc, char **argv)
{
    static char wide[ETCD_RESTORE_TEXT_MAX];
    struct etcd_restore_config cfg = {.name = "default",
                                      .initial_cluster = "default=http://localhost:2380",
                                      .token = "etcd-cluster",
                                      .peer_urls = "http://localhost:2380",
                                      .wide = wide};
    bool compacted = false;
    const struct bns_cli_flag flags[] = {
        {"data-dir", 0, BNS_VALUE_STR, &cfg.data_dir, "the new data directory", NULL},
        {"name", 0, BNS_VALUE_STR, &cfg.name, "this member's name", NULL},
        {"initial-cluster", 0, BNS_VALUE_STR, &cfg.initial_cluster,
         "the members of the new cluster: name=url,...", NULL},
        {"initial-cluster-token", 0, BNS_VALUE_STR, &cfg.token, "its token", NULL},
        {"initial-advertise-peer-urls", 0, BNS_VALUE_STR, &cfg.peer_urls, "this member's peer URLs",
         NULL},
        {"skip-hash-check", 0, BNS_VALUE_BOOL, &cfg.skip_hash,
         "take a file without a digest, or with another one", NULL},
        {"bump-revision", 0, BNS_VALUE_U64, &cfg.bump, "add this to the revision", NULL},
        {"mark-compacted", 0, BNS_VALUE_BOOL, &compacted,
         "all revisions before count as compacted (with --bump-revision)", NULL},
        {0}};
    const struct bns_cli cli = {.program = "etcd-lite",
                                .usage = "etcd-lite snapshot restore FILE --data-dir DIR [flags]",
                                .about = "Makes the data directory of a new cluster's member.",
                                .flags = flags};
    struct bns_cli_words words;
    struct bns_err err = {0};
    int rv = bns_cli_parse(&cli, argc, argv, &words, &err);

    if (rv != BNS_OK)
        return complain(1, err.text);
    if (bns_cli_answered(&cli, &words))
        return 0;
    if (words.count != 1)
        return complain(EXIT_BAD_ARGS, "snapshot restore requires exactly one argument");
    if ((cfg.bump > 0) != compacted)
        return complain(EXIT_BAD_ARGS, "--mark-compacted required if --revision-bump > 0");
    cfg.file = argv[1];
    return restore_file(&cfg);
}

int etcd_snapshot_main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "restore") == 0)
        return run_restore(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "status") == 0)
        return run_status(argc - 1, argv + 1);
    (void)fputs("usage: etcd-lite snapshot restore|status FILE [flags]\n", stderr); /* as above */
    return EXIT_BAD_ARGS;
}
