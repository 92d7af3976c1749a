/* wal.c - bonsai wal dump|verify|repair|stat DIR: looks into a write-ahead log that nobody writes.
 *
 * All four walk the log with the same code as a start does (store/wal_tool.c), so what verify
 * accepts, a daemon opens. A torn tail, which a crash leaves and the next start cuts, is no fault.
 * repair gives up records for good: it is refused while a daemon holds a data directory that the
 * log belongs to (LOCK in DIR or in one of the two directories above it).
 *
 * Exit codes: 0 fine; 4 corrupt; 5 in use; 2 usage; 1 anything else.
 */
#include "bonsai/bonsai.h"

#include "app/daemon.h"
#include "store/vfs_posix.h"
#include "store/wal.h"

#include <inttypes.h>
#include <unistd.h>

#define TYPES 8
#define GROUPS_MAX 64
#define BYTES_SHOWN 16

struct walk {
    char file[64]; /* of the record before, to count segments */
    uint64_t segments, records, bytes;
    uint64_t lsn_first, lsn_last;
    uint64_t by_type[TYPES];
    struct {
        uint32_t group;
        uint64_t records, bytes;
    } groups[GROUPS_MAX];
    size_t groups_count;
    uint64_t groups_more; /* records of groups beyond the table */
    bool print;
};

static const char *type_name(uint8_t type)
{
    switch (type) {
    case BNS_WAL_ENTRY:
        return "entry";
    case BNS_WAL_STATE:
        return "state";
    case BNS_WAL_TRUNCATE:
        return "truncate";
    case BNS_WAL_SNAPMARK:
        return "snapmark";
    case BNS_WAL_CHECKPOINT:
        return "checkpoint";
    case BNS_WAL_SEAL:
        return "seal";
    default:
        return "?";
    }
}

static uint64_t u64_at(struct bns_slice s, size_t off)
{
    uint64_t v = 0;

    for (size_t i = 0; i < 8; i++)
        v |= (uint64_t)s.ptr[off + i] << (8 * i);
    return v;
}

/* What the payload says, as far as its type tells. */
static void print_payload(uint8_t type, struct bns_slice p)
{
    if (type == BNS_WAL_ENTRY && p.len >= 17) {
        printf(" index=%" PRIu64 " term=%" PRIu64 " kind=%u data=", u64_at(p, 0), u64_at(p, 8),
               p.ptr[16]);
        for (size_t i = 17; i < p.len && i < 17 + BYTES_SHOWN; i++)
            printf("%02x", p.ptr[i]);
        printf("%s", p.len > 17 + BYTES_SHOWN ? "..." : "");
    } else if (type == BNS_WAL_STATE && p.len >= 24) {
        printf(" term=%" PRIu64 " vote=%" PRIx64 " commit=%" PRIu64, u64_at(p, 0), u64_at(p, 8),
               u64_at(p, 16));
    } else if (type == BNS_WAL_TRUNCATE && p.len >= 8) {
        printf(" from=%" PRIu64, u64_at(p, 0));
    } else if (type == BNS_WAL_SNAPMARK && p.len >= 16) {
        printf(" index=%" PRIu64 " term=%" PRIu64, u64_at(p, 0), u64_at(p, 8));
    }
}

static void count_group(struct walk *w, uint32_t group, uint64_t bytes)
{
    size_t i = 0;

    while (i < w->groups_count && w->groups[i].group != group)
        i++;
    if (i == GROUPS_MAX) {
        w->groups_more++;
        return;
    }
    if (i == w->groups_count)
        w->groups[w->groups_count++].group = group;
    w->groups[i].records++;
    w->groups[i].bytes += bytes;
}

/* tidy: params: implements bns_wal_visit_fn */
static int on_record(void *arg, const char *file, uint64_t off, uint64_t lsn, uint32_t group,
                     uint8_t type, struct bns_slice payload)
{
    struct walk *w = arg;

    if (strncmp(w->file, file, sizeof w->file - 1) != 0) {
        (void)snprintf(w->file, sizeof w->file, "%s", file);
        w->segments++;
    }
    if (w->records++ == 0)
        w->lsn_first = lsn;
    w->lsn_last = lsn;
    w->bytes += payload.len;
    w->by_type[type < TYPES ? type : 0]++;
    count_group(w, group, payload.len);
    if (w->print) {
        printf("lsn=%" PRIu64 " file=%s offset=%" PRIu64 " group=%u type=%s bytes=%zu", lsn, file,
               off, group, type_name(type), payload.len);
        print_payload(type, payload);
        printf("\n");
    }
    return BNS_OK;
}

static void print_stat(const struct walk *w)
{
    printf("segments  %" PRIu64 "\nrecords   %" PRIu64 "\nbytes     %" PRIu64 "\nlsn       %" PRIu64
           " .. %" PRIu64 "\n",
           w->segments, w->records, w->bytes, w->lsn_first, w->lsn_last);
    for (uint8_t t = 1; t < TYPES; t++)
        if (w->by_type[t] != 0)
            printf("  %-10s %" PRIu64 "\n", type_name(t), w->by_type[t]);
    for (size_t i = 0; i < w->groups_count; i++)
        printf("group %-3u %" PRIu64 " records, %" PRIu64 " bytes\n", w->groups[i].group,
               w->groups[i].records, w->groups[i].bytes);
    if (w->groups_more != 0)
        printf("further groups: %" PRIu64 " records\n", w->groups_more);
}

/* Is a lock of the directory, or of one of the two above it, held? Takes none. */
static int check_unlocked(struct bns_vfs *vfs, const char *dir, struct bns_err *err)
{
    static const char *const above[] = {"", "/..", "/../.."};

    for (size_t i = 0; i < 3; i++) {
        char path[BNS_PATH_MAX];
        struct bns_file *lock = NULL;
        int rv;

        if (snprintf(path, sizeof path, "%s%s/LOCK", dir, above[i]) >= (int)sizeof path)
            return bns_err_set(err, BNS_E_INVALID, "the name of the directory is too long");
        if (access(path, F_OK) != 0)
            continue;
        rv = bns_vfs_lock(vfs, path, &lock, err);
        bns_file_close(lock);
        if (rv != BNS_OK) {
            bns_err_wrap(err, "stop the daemon first");
            return rv;
        }
    }
    return BNS_OK;
}

static int repair(struct bns_vfs *vfs, const char *dir, struct bns_err *err)
{
    uint64_t lost = 0;
    int rv = check_unlocked(vfs, dir, err);

    if (rv == BNS_OK)
        rv = bns_wal_repair(vfs, bns_alloc_libc(), dir, &lost, err);
    if (rv != BNS_OK)
        return rv;
    if (lost == 0)
        printf("%s: nothing to repair\n", dir);
    else
        printf("%s: cut; %" PRIu64 " bytes given up\n", dir, lost);
    return BNS_OK;
}

static int run(struct bns_vfs *vfs, const char *verb, const char *dir, struct bns_err *err)
{
    struct walk w = {.print = strcmp(verb, "dump") == 0};
    int rv;

    if (strcmp(verb, "repair") == 0)
        return repair(vfs, dir, err);
    rv = bns_wal_visit(vfs, bns_alloc_libc(), dir, on_record, &w, err);
    if (rv != BNS_OK)
        return rv;
    if (strcmp(verb, "stat") == 0)
        print_stat(&w);
    else if (strcmp(verb, "verify") == 0)
        printf("%s: fine; %" PRIu64 " records, lsn %" PRIu64 " .. %" PRIu64 "\n", dir, w.records,
               w.lsn_first, w.lsn_last);
    return BNS_OK;
}

static int usage_error(const char *word)
{
    static const char *const verbs[] = {"dump", "verify", "repair", "stat"};
    const char *near = bns_nearest(word, verbs, 4);

    (void)fprintf(stderr, "bonsai wal: unknown verb '%.64s'; %s%s%s\n", word,
                  near == NULL ? "see bonsai wal --help" : "did you mean '",
                  near == NULL ? "" : near, near == NULL ? "" : "'?");
    return BNS_EXIT_USAGE;
}

int bonsai_wal(int argc, char **argv)
{
    static const struct bns_cli_flag none[] = {{NULL, 0, BNS_VALUE_STR, NULL, NULL, NULL}};
    const struct bns_cli cli = {
        "bonsai wal",
        "bonsai wal dump|verify|repair|stat DIR",
        "dump    every record, one a line\n"
        "verify  whether a daemon could open the log; exit code 4 when not\n"
        "repair  cuts the log at its first invalid record: what lies behind it is lost\n"
        "stat    how much of what is in it\n"
        "DIR holds the wal-*.seg files. Stop the daemon first.",
        "bonsai " BNS_VERSION,
        none,
        false};
    struct bns_cli_words words;
    struct bns_vfs *vfs = NULL;
    struct bns_err err = {0};
    int rv;

    if (bns_cli_parse(&cli, argc, argv, &words, &err) != BNS_OK) {
        (void)fprintf(stderr, "bonsai wal: %s\n", err.text);
        return BNS_EXIT_USAGE;
    }
    if (bns_cli_answered(&cli, &words))
        return BNS_EXIT_OK;
    if (words.count >= 1 && strcmp(argv[1], "dump") != 0 && strcmp(argv[1], "verify") != 0 &&
        strcmp(argv[1], "repair") != 0 && strcmp(argv[1], "stat") != 0)
        return usage_error(argv[1]);
    if (words.count != 2) {
        bns_cli_help(&cli, stderr);
        return BNS_EXIT_USAGE;
    }
    vfs = bns_vfs_posix(bns_alloc_libc());
    if (vfs == NULL)
        return BNS_EXIT_FAILURE;
    rv = run(vfs, argv[1], argv[2], &err);
    bns_vfs_posix_free(vfs);
    if (rv != BNS_OK)
        (void)fprintf(stderr, "bonsai wal %s: %s\n", argv[1], err.text);
    return rv == BNS_E_INVALID ? BNS_EXIT_USAGE : bns_exit_code(rv);
}
