/* flags.c - flags as Go's pflag reads them, with its messages.
 *
 * --name value, --name=value, -x value, -xvalue, -x=value; a boolean takes its value only behind
 * "=". Flags and words may be mixed; "--" ends the flags. A list takes words with commas, and grows
 * when its flag comes again; the first one replaces the default.
 */
#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "base/time.h"

int ctl_parse_int(const char *text, int base, int64_t *out, struct bns_err *err)
{
    char *end = NULL;
    long long v;

    errno = 0;
    v = strtoll(text, &end, base);
    if (end == text || *end != '\0' || *text == ' ' || strchr(text, 'x') != NULL)
        return bns_err_set(err, BNS_E_INVALID, "strconv.ParseInt: parsing \"%s\": invalid syntax",
                           text);
    if (errno == ERANGE)
        return bns_err_set(err, BNS_E_INVALID,
                           "strconv.ParseInt: parsing \"%s\": value out of range", text);
    *out = v;
    return BNS_OK;
}

int ctl_parse_uint(const char *text, int base, uint64_t *out, struct bns_err *err)
{
    char *end = NULL;
    unsigned long long v;

    errno = 0;
    v = strtoull(text, &end, base);
    if (end == text || *end != '\0' || strpbrk(text, " x+-") != NULL)
        return bns_err_set(err, BNS_E_INVALID, "strconv.ParseUint: parsing \"%s\": invalid syntax",
                           text);
    if (errno == ERANGE)
        return bns_err_set(err, BNS_E_INVALID,
                           "strconv.ParseUint: parsing \"%s\": value out of range", text);
    *out = v;
    return BNS_OK;
}

static int parse_bool(const char *text, bool *out, struct bns_err *err)
{
    static const char *const yes[] = {"1", "t", "T", "true", "TRUE", "True"}, *const no[] = {
                                                                                  "0",     "f",
                                                                                  "F",     "false",
                                                                                  "FALSE", "False"};

    for (size_t i = 0; i < 6; i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *out = strcmp(text, yes[i]) == 0;
            return BNS_OK;
        }
    }
    return bns_err_set(err, BNS_E_INVALID, "strconv.ParseBool: parsing \"%s\": invalid syntax",
                       text);
}

static int set_list(struct ctl_flags *f, const char *text, bool first, struct bns_arena *arena,
                    struct bns_err *err)
{
    if (first)
        f->endpoints_count = 0;
    while (*text != '\0') {
        size_t len = strcspn(text, ",");

        if (f->endpoints_count == CTL_ENDPOINTS_MAX)
            return bns_err_set(err, BNS_E_INVALID, "more than %u endpoints", CTL_ENDPOINTS_MAX);
        f->endpoints[f->endpoints_count++] = bns_arena_dup(arena, text, len);
        text += len + (text[len] == ',');
    }
    return BNS_OK;
}

static int set_value(const struct ctl_flag *flag, struct ctl_flags *f, const char *text,
                     struct bns_err *err)
{
    void *dst = (char *)f + flag->at;
    uint64_t ns;
    int rv = BNS_OK;

    switch (flag->kind) {
    case CTL_BOOL:
        return parse_bool(text, dst, err);
    case CTL_INT:
        return ctl_parse_int(text, 10, dst, err);
    case CTL_STR:
        *(const char **)dst = text;
        return BNS_OK;
    case CTL_DURATION:
        rv = bns_duration_parse(text, &ns, err);
        if (rv != BNS_OK || ns > INT64_MAX)
            return bns_err_set(err, BNS_E_INVALID, "time: invalid duration \"%s\"", text);
        *(int64_t *)dst = (int64_t)ns;
        return BNS_OK;
    case CTL_LIST:
        break; /* by set_list() */
    }
    return BNS_OK;
}

void ctl_flags_defaults(const struct ctl_flag *flags, struct ctl_flags *f)
{
    for (const struct ctl_flag *flag = flags; flag != NULL && flag->name != NULL; flag++) {
        if (flag->kind == CTL_LIST) {
            f->endpoints[0] = flag->value;
            f->endpoints_count = 1;
        } else {
            BNS_ASSERT(set_value(flag, f, flag->value, NULL) == BNS_OK);
        }
    }
}

static const struct ctl_flag *find(const struct ctl_flag *flags, const char *name, size_t len,
                                   char letter)
{
    for (const struct ctl_flag *f = flags; f != NULL && f->name != NULL; f++) {
        if (letter != 0 ? f->letter == letter
                        : strlen(f->name) == len && memcmp(f->name, name, len) == 0)
            return f;
    }
    return NULL;
}

static int give(struct ctl *c, const struct ctl_flag *flag, const char *text, struct bns_err *err)
{
    struct bns_err why = {0};
    size_t nth = (size_t)(flag - ctl_global_flags);
    bool global = flag >= ctl_global_flags && nth < 64 && ctl_global_flags[nth].name == flag->name;
    bool first = global && (c->given & UINT64_C(1) << nth) == 0;
    char shorthand[8] = "";
    int rv;

    if (flag->kind == CTL_LIST)
        rv = set_list(&c->f, text, first, &c->arena, &why);
    else
        rv = set_value(flag, &c->f, text, &why);
    if (global)
        c->given |= UINT64_C(1) << nth;
    if (rv == BNS_OK)
        return BNS_OK;
    if (flag->letter != 0)
        (void)snprintf(shorthand, sizeof shorthand, "-%c, ", flag->letter); /* fits */
    return bns_err_set(err, BNS_E_INVALID, "invalid argument \"%s\" for \"%s--%s\" flag: %s", text,
                       shorthand, flag->name, why.text);
}

/* One word that begins with "--"; *next is the word behind it, and is taken when it is needed. */
static int read_long(struct ctl *c, const struct ctl_flag *own, const char *word, char ***next,
                     struct bns_err *err)
{
    const char *name = word + 2, *eq = strchr(name, '=');
    size_t len = eq == NULL ? strlen(name) : (size_t)(eq - name);
    const struct ctl_flag *flag = find(own, name, len, 0);

    if (flag == NULL)
        flag = find(ctl_global_flags, name, len, 0);
    if (flag == NULL && len == 4 && memcmp(name, "help", 4) == 0) {
        c->f.help = true;
        return BNS_OK;
    }
    if (flag == NULL)
        return bns_err_set(err, BNS_E_INVALID, "unknown flag: --%.*s", (int)len, name);
    if (eq != NULL)
        return give(c, flag, eq + 1, err);
    if (flag->kind == CTL_BOOL)
        return give(c, flag, "true", err);
    if (**next == NULL)
        return bns_err_set(err, BNS_E_INVALID, "flag needs an argument: %s", word);
    return give(c, flag, *(*next)++, err);
}

static int read_short(struct ctl *c, const struct ctl_flag *own, const char *word, char ***next,
                      struct bns_err *err)
{
    for (const char *p = word + 1; *p != '\0'; p++) {
        const struct ctl_flag *flag = find(own, NULL, 0, *p);
        int rv;

        if (flag == NULL)
            flag = find(ctl_global_flags, NULL, 0, *p);
        if (flag == NULL && *p == 'h') {
            c->f.help = true;
            continue;
        }
        if (flag == NULL)
            return bns_err_set(err, BNS_E_INVALID, "unknown shorthand flag: '%c' in -%s", *p,
                               word + 1);
        if (p[1] == '=')
            return give(c, flag, p + 2, err);
        if (flag->kind == CTL_BOOL) {
            rv = give(c, flag, "true", err);
            if (rv != BNS_OK)
                return rv;
            continue;
        }
        if (p[1] != '\0')
            return give(c, flag, p + 1, err);
        if (**next == NULL)
            return bns_err_set(err, BNS_E_INVALID, "flag needs an argument: '%c' in -%s", *p,
                               word + 1);
        return give(c, flag, *(*next)++, err);
    }
    return BNS_OK;
}

int ctl_flags_read(struct ctl *c, const struct ctl_flag *own, int *argc, char **argv,
                   struct bns_err *err)
{
    char **next = argv;
    int words = 0, rv = BNS_OK;

    c->dashes = -1;
    while (rv == BNS_OK && *next != NULL) {
        char *word = *next++;

        if (c->dashes >= 0 || word[0] != '-' || word[1] == '\0')
            argv[words++] = word;
        else if (strcmp(word, "--") == 0)
            c->dashes = words;
        else if (word[1] == '-')
            rv = read_long(c, own, word, &next, err);
        else
            rv = read_short(c, own, word, &next, err);
    }
    argv[words] = NULL;
    *argc = words;
    return rv;
}

int ctl_flags_env(struct ctl *c, char *const *envp, struct bns_err *err)
{
    for (; *envp != NULL; envp++) {
        const char *eq = strchr(*envp, '=');
        char name[64];
        size_t len = 0;
        const struct ctl_flag *flag;
        int rv;

        if (eq == NULL || strncmp(*envp, "ETCDCTL_", 8) != 0 || eq - *envp >= 64)
            continue;
        for (const char *p = *envp + 8; p < eq; p++)
            name[len++] = *p == '_' ? '-' : (char)(*p | 0x20); /* lower case */
        flag = find(ctl_global_flags, name, len, 0);
        if (flag == NULL || eq[1] == '\0' ||
            (c->given & UINT64_C(1) << (flag - ctl_global_flags)) != 0)
            continue;
        rv = give(c, flag, eq + 1, err);
        if (rv != BNS_OK)
            return rv;
    }
    return BNS_OK;
}
