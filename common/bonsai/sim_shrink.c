/* sim_shrink.c - bonsai sim shrink: the smallest run of a seed that still fails in the same way.
 *
 * The program says what the seed has (--describe): numbers and a list of faults. Then, again and
 * again until nothing helps: leave out all faults, or each by itself; make each number 1, or half,
 * or one less. A change stays when the run still fails with the same words (numbers in them do not
 * count). Every try is another run with a trace of its own, so this is a search, not a proof; it is
 * bounded by --tries.
 *
 * Invariants: `best` always fails as the seed itself does.
 */
#include <stdlib.h>
#include <unistd.h>

#include "bonsai/sim_run.h"

#define NUMBERS_MAX 16
#define FAULTS_MAX 32
#define WORD_BYTES 24
#define COMPLAINT_BYTES 400

struct size {
    struct {
        char name[WORD_BYTES]; /* with its dashes */
        uint64_t value;
    } numbers[NUMBERS_MAX];
    size_t numbers_count;
    char faults[FAULTS_MAX][WORD_BYTES];
    size_t faults_count;
};

struct shrink {
    struct sim_program program;
    struct size first, best;
    char complaint[COMPLAINT_BYTES]; /* of the seed itself */
    char said[COMPLAINT_BYTES];      /* of the smallest */
    int code;                        /* of the seed itself */
    uint64_t tries, tries_max;
    bool quiet;
};

/* ---- a child's words ------------------------------------------------------------------------- */

/* Runs the program with its output in a file of no name. */
static int run(struct shrink *s, struct sim_child *child, char *out, size_t cap,
               struct bns_err *err)
{
    FILE *f = tmpfile();
    size_t n;
    int rv;

    if (f == NULL)
        return bns_err_set(err, BNS_E_IO, "cannot make a temporary file");
    child->output = fileno(f);
    rv = sim_children(&s->program, child, 1, err);
    rewind(f);
    n = fread(out, 1, cap - 1, f);
    out[n] = '\0';
    (void)fclose(f); /* it has no name: it is gone */
    return rv;
}

/* The line that says what was wrong, or the first one that says anything; in plain, numbers become
 * '#'. A program may die without a word. */
static void complaint_of(const char *text, char *out, char *plain, size_t cap)
{
    const char *line = text + strspn(text, " \n");
    size_t len, n = 0;

    for (const char *p = text; p != NULL && *p != '\0'; p = strchr(p, '\n')) {
        p += *p == '\n';
        if (strncmp(p, "seed 0x", 7) == 0 && strchr(p, ':') != NULL) {
            line = strchr(p, ':') + 1;
            line += strspn(line, " ");
            break;
        }
    }
    len = strcspn(line, "\n");
    if (len == 0) {
        line = "it says nothing";
        len = strlen(line);
    }
    (void)snprintf(out, cap, "%.*s", (int)(len < cap ? len : cap - 1), line);
    for (const char *p = out; *p != '\0' && n + 1 < cap; p++) {
        bool digit = *p >= '0' && *p <= '9';
        if (!digit || n == 0 || plain[n - 1] != '#')
            plain[n++] = digit ? '#' : *p;
    }
    plain[n] = '\0';
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static int add_faults(struct size *z, const char *list)
{
    if (strcmp(list, "none") == 0)
        return BNS_OK;
    while (*list != '\0') {
        size_t len = strcspn(list, ",");
        if (len == 0 || len >= WORD_BYTES || z->faults_count == FAULTS_MAX)
            return BNS_E_PROTO;
        memcpy(z->faults[z->faults_count], list, len);
        z->faults[z->faults_count++][len] = '\0';
        list += len + (list[len] == ',');
    }
    return BNS_OK;
}

/* "--nodes 3 --seconds 40 --faults loss,crash" */
static int parse_size(char *text, struct size *z)
{
    char *save = NULL;
    int rv = BNS_OK;

    memset(z, 0, sizeof *z);
    for (char *name = strtok_r(text, " \n", &save); name != NULL && rv == BNS_OK;
         name = strtok_r(NULL, " \n", &save)) {
        char *value = strtok_r(NULL, " \n", &save);
        char *end = value;

        if (value == NULL || strncmp(name, "--", 2) != 0 || strlen(name) >= WORD_BYTES)
            return BNS_E_PROTO;
        if (strcmp(name, "--faults") == 0) {
            rv = add_faults(z, value);
            continue;
        }
        if (z->numbers_count == NUMBERS_MAX)
            return BNS_E_PROTO;
        memcpy(z->numbers[z->numbers_count].name, name, strlen(name) + 1);
        z->numbers[z->numbers_count++].value = strtoull(value, &end, 10);
        if (*end != '\0')
            return BNS_E_PROTO;
    }
    return z->numbers_count > 0 ? rv : BNS_E_PROTO;
}

/* The size as flags; `than` leaves out what is as in it. Cut when full: it never is. */
static void print_size(const struct size *z, const struct size *than, char *out, size_t cap)
{
    size_t n = 0;

    out[0] = '\0';
    for (size_t i = 0; i < z->numbers_count; i++) {
        if (than == NULL || than->numbers[i].value != z->numbers[i].value)
            n += (size_t)snprintf(out + n, cap - n, " %s %llu", z->numbers[i].name,
                                  (unsigned long long)z->numbers[i].value);
    }
    if (than != NULL && than->faults_count == z->faults_count)
        return;
    n += (size_t)snprintf(out + n, cap - n, " --faults %s", z->faults_count == 0 ? "none" : "");
    for (size_t i = 0; i < z->faults_count; i++)
        n += (size_t)snprintf(out + n, cap - n, "%s%s", i == 0 ? "" : ",", z->faults[i]);
    BNS_ASSERT(n < cap);
}

static int run_size(struct shrink *s, const struct size *z, char *out, size_t cap, int *code,
                    struct bns_err *err)
{
    struct sim_child child = {.output = -1};
    char flags[2048];
    char *save = NULL;
    size_t n = 0;
    int rv;

    print_size(z, NULL, flags, sizeof flags);
    for (char *w = strtok_r(flags, " ", &save); w != NULL; w = strtok_r(NULL, " ", &save)) {
        BNS_ASSERT(n + 1 < SIM_ARGS_MAX);
        child.args[n++] = w;
    }
    rv = run(s, &child, out, cap, err);
    *code = child.code;
    return rv;
}

/* Does it still fail in the same way? If so it is the best. */
static int attempt(struct shrink *s, const struct size *z, bool *better, struct bns_err *err)
{
    char text[16384], said[COMPLAINT_BYTES], plain[COMPLAINT_BYTES], flags[2048];
    int code = 0, rv;

    *better = false;
    if (s->tries == s->tries_max)
        return BNS_OK;
    s->tries++;
    rv = run_size(s, z, text, sizeof text, &code, err);
    if (rv != BNS_OK || code != s->code)
        return rv;
    complaint_of(text, said, plain, sizeof said);
    *better = strcmp(plain, s->complaint) == 0;
    if (!*better)
        return BNS_OK;
    s->best = *z;
    memcpy(s->said, said, sizeof said);
    print_size(z, &s->first, flags, sizeof flags);
    if (!s->quiet)
        (void)fprintf(stderr, "try %llu still fails:%s\n", (unsigned long long)s->tries, flags);
    return BNS_OK;
}

/* ---- the search ------------------------------------------------------------------------------ */

static int shrink_faults(struct shrink *s, bool *better, struct bns_err *err)
{
    struct size z = s->best;
    bool good = false;
    int rv = BNS_OK;

    z.faults_count = 0;
    if (s->best.faults_count > 1)
        rv = attempt(s, &z, &good, err);
    *better |= good;
    for (size_t i = s->best.faults_count; i-- > 0 && rv == BNS_OK && !good;) {
        bool one = false;
        z = s->best;
        z.faults_count--;
        memmove(z.faults[i], z.faults[i + 1], (z.faults_count - i) * sizeof z.faults[0]);
        rv = attempt(s, &z, &one, err);
        *better |= one;
    }
    return rv;
}

static int shrink_number(struct shrink *s, size_t i, bool *better, struct bns_err *err)
{
    bool good = true;
    int rv = BNS_OK;

    while (good && rv == BNS_OK && s->best.numbers[i].value > 1) {
        uint64_t now = s->best.numbers[i].value;
        uint64_t smaller[] = {1, now / 2, now - 1};

        good = false;
        for (size_t j = 0; j < 3 && !good && rv == BNS_OK; j++) {
            struct size z = s->best;
            if (smaller[j] == 0 || smaller[j] == now || (j > 0 && smaller[j] == smaller[j - 1]))
                continue;
            z.numbers[i].value = smaller[j];
            rv = attempt(s, &z, &good, err);
        }
        *better |= good;
    }
    return rv;
}

static int search(struct shrink *s, struct bns_err *err)
{
    bool better = true;
    int rv = BNS_OK;

    while (better && rv == BNS_OK && s->tries < s->tries_max) {
        better = false;
        rv = shrink_faults(s, &better, err);
        for (size_t i = 0; i < s->best.numbers_count && rv == BNS_OK; i++)
            rv = shrink_number(s, i, &better, err);
    }
    return rv;
}

/* What the seed has, and how it fails. BNS_E_NOTFOUND: it does not. */
static int look(struct shrink *s, const char *seed, struct bns_err *err)
{
    struct sim_child child = {.args = {"--describe", "yes", NULL}, .output = -1};
    char text[16384];
    int rv = run(s, &child, text, sizeof text, err);

    if (rv == BNS_OK && (child.code != 0 || parse_size(text, &s->first) != BNS_OK))
        rv = bns_err_set(err, BNS_E_PROTO, "%s --describe gives no sizes", s->program.system->sim);
    if (rv != BNS_OK)
        return rv;
    s->best = s->first;
    rv = run_size(s, &s->first, text, sizeof text, &s->code, err);
    if (rv != BNS_OK)
        return rv;
    if (s->code == 0)
        return bns_err_set(err, BNS_E_NOTFOUND, "seed %s does not fail: nothing to shrink", seed);
    complaint_of(text, s->said, s->complaint, sizeof s->said);
    return BNS_OK;
}

static int shrink(struct shrink *s, uint64_t seed, struct bns_err *err)
{
    const char *mutant = getenv("BNS_MUTANT");
    char text[24], flags[2048];
    int rv;

    (void)snprintf(text, sizeof text, "0x%llx", (unsigned long long)seed); /* a number fits */
    if (setenv("BNS_SEED", text, 1) != 0)
        return bns_err_set(err, BNS_E_NOMEM, "no memory");
    rv = look(s, text, err);
    if (rv == BNS_OK)
        rv = search(s, err);
    if (rv != BNS_OK)
        return rv;
    print_size(&s->best, &s->first, flags, sizeof flags);
    (void)printf("%s\n%s%s%sbonsai sim replay %s %s%s\n", s->said,
                 mutant == NULL ? "" : "BNS_MUTANT=", mutant == NULL ? "" : mutant,
                 mutant == NULL ? "" : " ", s->program.system->name, text, flags);
    return BNS_OK;
}

int bonsai_sim_shrink(int argc, char **argv)
{
    struct shrink s = {.tries_max = 200};
    const struct bns_cli_flag flags[] = {
        {"tries", 0, BNS_VALUE_U64, &s.tries_max, "runs at most (200)", NULL},
        {"quiet", 'q', BNS_VALUE_BOOL, &s.quiet, "only the result", NULL},
        {NULL, 0, BNS_VALUE_STR, NULL, NULL, NULL},
    };
    const struct bns_cli cli = {"bonsai sim shrink",
                                "bonsai sim shrink SYSTEM SEED|TRACE [flags]",
                                "Looks for a smaller run of a seed that fails in the same way: "
                                "fewer faults, nodes,\nclients, seconds. Prints the command that "
                                "replays the smallest.",
                                "bonsai " BNS_VERSION,
                                flags,
                                false};
    struct bns_cli_words words;
    uint64_t seed = 0;
    struct bns_err err;
    int rv = bns_cli_parse(&cli, argc, argv, &words, &err);

    if (rv == BNS_OK && bns_cli_answered(&cli, &words))
        return BNS_EXIT_OK;
    if (rv == BNS_OK && words.count != 2)
        rv = bns_err_set(&err, BNS_E_INVALID, "name a system and a seed");
    if (rv == BNS_OK)
        rv = sim_seed(argv[2], &seed, &err);
    if (rv == BNS_OK)
        rv = sim_program_find(argv[1], &s.program, &err);
    if (rv == BNS_OK)
        rv = shrink(&s, seed, &err);
    if (rv == BNS_OK)
        return BNS_EXIT_OK;
    (void)fprintf(stderr, "bonsai sim shrink: %s\n", err.text);
    return rv == BNS_E_INVALID ? BNS_EXIT_USAGE : BNS_EXIT_FAILURE;
}
