/* cli.c - command line flags as a table.
 *
 * One pass over argv. Each flag is looked up by name in the table of the program, its value read by
 * bns_value_set(), which the environment and the configuration file use too, so that a value means
 * the same wherever it stands. A wrong name is answered with the nearest right one: nearest by
 * Levenshtein distance (Soviet Physics Doklady 10, 1966), computed in one row.
 */
#include "app/cli.h"

#include "base/time.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_BYTES 64 /* longer words are near to nothing */
#define FLAGS_MAX 256

const char *bns_value_kind_text(enum bns_value_kind kind)
{
    switch (kind) {
    case BNS_VALUE_STR:
        return "text";
    case BNS_VALUE_LIST:
        return "a list of words";
    case BNS_VALUE_BOOL:
        return "true or false";
    case BNS_VALUE_U64:
        return "a whole number";
    case BNS_VALUE_DURATION:
        return "a duration such as 200ms";
    case BNS_VALUE_BYTES:
        return "a size such as 64MiB";
    }
    return "?";
}

static int u64_parse(const char *text, uint64_t *out)
{
    uint64_t v = 0;

    if (*text == '\0')
        return BNS_E_INVALID;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*text - '0'), &v))
            return BNS_E_INVALID;
    }
    *out = v;
    return BNS_OK;
}

static int bool_parse(const char *text, bool *out)
{
    static const char *const words[2][6] = {{"false", "f", "0", "FALSE", "False", "F"},
                                            {"true", "t", "1", "TRUE", "True", "T"}};

    for (size_t i = 0; i < 12; i++) {
        if (strcmp(text, words[i / 6][i % 6]) == 0) {
            *out = i / 6 == 1;
            return BNS_OK;
        }
    }
    return BNS_E_INVALID;
}

int bns_value_set(enum bns_value_kind kind, void *dst, const char *text, struct bns_err *err)
{
    int rv = BNS_E_INVALID;

    switch (kind) {
    case BNS_VALUE_STR:
    case BNS_VALUE_LIST:
        *(const char **)dst = text;
        return BNS_OK;
    case BNS_VALUE_BOOL:
        rv = bool_parse(text, dst);
        break;
    case BNS_VALUE_U64:
        rv = u64_parse(text, dst);
        break;
    case BNS_VALUE_DURATION:
        rv = bns_duration_parse(text, dst, NULL);
        break;
    case BNS_VALUE_BYTES:
        rv = bns_size_parse(text, dst, NULL);
        break;
    }
    if (rv != BNS_OK)
        return bns_err_set(err, BNS_E_INVALID, "expected %s, found '%.64s'",
                           bns_value_kind_text(kind), text);
    return BNS_OK;
}

/* Levenshtein distance, case ignored. row[j] = distance of the first i bytes of a and j of b. */
static size_t distance(const char *a, const char *b)
{
    size_t row[NAME_MAX_BYTES + 1];
    size_t b_len = strlen(b);

    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t diagonal = row[0];

        row[0] = i + 1;
        for (size_t j = 0; j < b_len; j++) {
            bool same = tolower((unsigned char)a[i]) == tolower((unsigned char)b[j]);
            size_t best = diagonal + (same ? 0 : 1);

            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j + 1] + 1 < best)
                best = row[j + 1] + 1;
            diagonal = row[j + 1];
            row[j + 1] = best;
        }
    }
    return row[b_len];
}

const char *bns_nearest(const char *word, const char *const *candidates, size_t count)
{
    size_t len = strlen(word);
    size_t best = len / 3 < 2 ? 2 : len / 3;
    const char *found = NULL;

    if (len > NAME_MAX_BYTES)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        size_t d;

        if (strlen(candidates[i]) > NAME_MAX_BYTES)
            continue;
        d = distance(word, candidates[i]);
        /* A word that changes altogether is no likeness, however short. */
        if (d < len && (d < best || (d == best && found == NULL))) {
            best = d;
            found = candidates[i];
        }
    }
    return found;
}

static const struct bns_cli_flag *find(const struct bns_cli *cli, const char *name, size_t len)
{
    for (const struct bns_cli_flag *f = cli->flags; f->name != NULL; f++) {
        if (strlen(f->name) == len && memcmp(f->name, name, len) == 0)
            return f;
        if (len == 1 && f->letter != 0 && f->letter == name[0])
            return f;
    }
    return NULL;
}

static int unknown(const struct bns_cli *cli, const char *name, size_t len, struct bns_err *err)
{
    const char *names[FLAGS_MAX + 2] = {"help", "version"};
    size_t count = 2;
    char word[NAME_MAX_BYTES + 2];
    const char *near;

    for (const struct bns_cli_flag *f = cli->flags; f->name != NULL && count < FLAGS_MAX; f++)
        names[count++] = f->name;
    if (len > NAME_MAX_BYTES + 1)
        len = NAME_MAX_BYTES + 1;
    memcpy(word, name, len);
    word[len] = '\0';
    near = bns_nearest(word, names, count);
    if (near == NULL)
        return bns_err_set(err, BNS_E_INVALID, "unknown flag --%s; see %s --help", word,
                           cli->program);
    return bns_err_set(err, BNS_E_INVALID, "unknown flag --%s; did you mean --%s?", word, near);
}

static int set_flag(const struct bns_cli_flag *f, const char *text, struct bns_err *err)
{
    int rv = bns_value_set(f->kind, f->dst, text, err);

    if (rv != BNS_OK) {
        bns_err_wrap(err, "--%s", f->name);
        return rv;
    }
    if (f->given != NULL)
        *f->given = true;
    return BNS_OK;
}

/* Reads the flag at argv[*at] and moves *at past it and its value. */
static int take(const struct bns_cli *cli, int argc, char **argv, int *at,
                struct bns_cli_words *out, struct bns_err *err)
{
    const char *name = argv[(*at)++] + 1;
    const struct bns_cli_flag *f;
    const char *equal;
    size_t len;

    if (*name == '-')
        name++;
    equal = strchr(name, '=');
    len = equal == NULL ? strlen(name) : (size_t)(equal - name);
    f = find(cli, name, len);
    if (f == NULL && equal == NULL) {
        if (strcmp(name, "help") == 0 || strcmp(name, "h") == 0) {
            out->help = true;
            return BNS_OK;
        }
        if (strcmp(name, "version") == 0) {
            out->version = true;
            return BNS_OK;
        }
    }
    if (f == NULL)
        return unknown(cli, name, len, err);
    if (equal != NULL)
        return set_flag(f, equal + 1, err);
    if (f->kind == BNS_VALUE_BOOL)
        return set_flag(f, "true", err);
    if (*at >= argc)
        return bns_err_set(err, BNS_E_INVALID, "--%s needs a value: %s", f->name,
                           bns_value_kind_text(f->kind));
    return set_flag(f, argv[(*at)++], err);
}

int bns_cli_parse(const struct bns_cli *cli, int argc, char **argv, struct bns_cli_words *out,
                  struct bns_err *err)
{
    int at = 1;

    *out = (struct bns_cli_words){0};
    while (at < argc) {
        bool flag = argv[at][0] == '-' && argv[at][1] != '\0';
        int rv;

        if (flag && strcmp(argv[at], "--") == 0) {
            at++;
            break;
        }
        if (!flag) {
            if (cli->stop_at_word)
                break;
            argv[++out->count] = argv[at++];
            continue;
        }
        rv = take(cli, argc, argv, &at, out, err);
        if (rv != BNS_OK)
            return rv;
    }
    while (at < argc)
        argv[++out->count] = argv[at++];
    return BNS_OK;
}

/* Does "DATA_DIR" name the flag "data-dir"? */
static bool variable_names(const char *var, size_t len, const char *flag)
{
    if (strlen(flag) != len)
        return false;
    for (size_t i = 0; i < len; i++) {
        int c = flag[i] == '-' ? '_' : toupper((unsigned char)flag[i]);

        if (c != (unsigned char)var[i])
            return false;
    }
    return true;
}

int bns_cli_env(const struct bns_cli *cli, const char *prefix, char *const *environ,
                struct bns_err *err)
{
    size_t prefix_len = strlen(prefix);

    for (; *environ != NULL; environ++) {
        const char *name = *environ + prefix_len;
        const char *equal;

        if (strncmp(*environ, prefix, prefix_len) != 0)
            continue;
        equal = strchr(name, '=');
        if (equal == NULL || equal[1] == '\0')
            continue;
        for (const struct bns_cli_flag *f = cli->flags; f->name != NULL; f++) {
            int rv;

            if (!variable_names(name, (size_t)(equal - name), f->name))
                continue;
            rv = set_flag(f, equal + 1, err);
            if (rv != BNS_OK) {
                bns_err_wrap(err, "environment variable %.*s", (int)(equal - *environ), *environ);
                return rv;
            }
        }
    }
    return BNS_OK;
}

static const char *metavar(enum bns_value_kind kind)
{
    switch (kind) {
    case BNS_VALUE_STR:
        return " TEXT";
    case BNS_VALUE_LIST:
        return " A,B";
    case BNS_VALUE_BOOL:
        return "";
    case BNS_VALUE_U64:
        return " N";
    case BNS_VALUE_DURATION:
        return " DURATION";
    case BNS_VALUE_BYTES:
        return " SIZE";
    }
    return "";
}

void bns_cli_help(const struct bns_cli *cli, FILE *to)
{
    (void)fprintf(to, "usage: %s\n", cli->usage); /* a closed terminal is nobody's loss */
    if (cli->about != NULL)
        (void)fprintf(to, "\n%s\n", cli->about);
    (void)fprintf(to, "\nflags:\n");
    for (const struct bns_cli_flag *f = cli->flags; f->name != NULL; f++) {
        char left[80];

        if (f->help == NULL)
            continue;
        if (f->letter != 0)
            (void)snprintf(left, sizeof left, "-%c, --%s%s", f->letter, f->name, metavar(f->kind));
        else
            (void)snprintf(left, sizeof left, "--%s%s", f->name, metavar(f->kind));
        (void)fprintf(to, "  %-34s %s\n", left, f->help);
    }
    (void)fprintf(to, "  %-34s %s\n  %-34s %s\n", "-h, --help", "print this and exit", "--version",
                  "print the version and exit");
}

bool bns_cli_answered(const struct bns_cli *cli, const struct bns_cli_words *words)
{
    if (words->help)
        bns_cli_help(cli, stdout);
    else if (words->version)
        (void)printf("%s\n", cli->version);
    return words->help || words->version;
}
