/* help.c - what --help prints, in etcdctl's form; the completion for bash. */
#include "cli.h"

#define TEXT_MAX 120u

/* "  -w, --write-out="simple"" as etcdctl shows a flag with its default. */
static void left(const struct ctl_flag *f, char *out)
{
    char value[64];

    if (f->kind == CTL_STR)
        (void)snprintf(value, sizeof value, "=\"%s\"", f->value);
    else if (f->kind == CTL_BOOL)
        (void)snprintf(value, sizeof value, "[=%s]", f->value);
    else if (f->kind == CTL_LIST)
        (void)snprintf(value, sizeof value, "=[%s]", f->value);
    else
        (void)snprintf(value, sizeof value, "=%s", f->value);
    if (f->letter != 0)
        (void)snprintf(out, TEXT_MAX, "  -%c, --%s%s", f->letter, f->name, value);
    else
        (void)snprintf(out, TEXT_MAX, "      --%s%s", f->name, value);
}

static void columns(const char *const *texts, const char *const *helps, size_t count, FILE *to)
{
    size_t width = 0;

    for (size_t i = 0; i < count; i++) {
        if (strlen(texts[i]) > width)
            width = strlen(texts[i]);
    }
    width = (width / 8 + 1) * 8;
    for (size_t i = 0; i < count; i++) {
        size_t at = strlen(texts[i]);

        (void)fputs(texts[i], to);
        for (; at < width; at = (at / 8 + 1) * 8)
            (void)fputc('\t', to);
        (void)fprintf(to, "%s\n", helps[i]);
    }
}

static void options(const struct ctl_flag *flags, const char *name, FILE *to)
{
    char text[32][TEXT_MAX];
    const char *texts[32], *helps[32];
    char help[TEXT_MAX];
    size_t n = 0;
    bool helped = false;

    (void)snprintf(help, sizeof help, "help for %s", name);
    for (const struct ctl_flag *f = flags; f != NULL && f->name != NULL; f++) {
        BNS_ASSERT(n < 30);
        if (!helped && strcmp(f->name, "help") > 0) {
            (void)snprintf(text[n], TEXT_MAX, "  -h, --help[=false]");
            helps[n] = help;
            texts[n] = text[n];
            n++;
            helped = true;
        }
        left(f, text[n]);
        texts[n] = text[n];
        helps[n++] = f->help;
    }
    if (!helped) {
        (void)snprintf(text[n], TEXT_MAX, "  -h, --help[=false]");
        helps[n] = help;
        texts[n] = text[n];
        n++;
    }
    columns(texts, helps, n, to);
}

static void verbs(const char *group, FILE *to)
{
    char text[64][TEXT_MAX];
    const char *texts[64], *helps[64];
    size_t n = 0, len = group == NULL ? 0 : strlen(group) + 1;

    for (const struct ctl_verb *v = ctl_verbs; v->name != NULL; v++) {
        if (group != NULL && (strncmp(v->name, group, len - 1) != 0 || v->name[len - 1] != ' '))
            continue;
        BNS_ASSERT(n < 64);
        (void)snprintf(text[n], TEXT_MAX, "\t%s", v->name + len);
        texts[n] = text[n] + 1; /* the tab before it is not counted */
        helps[n++] = v->help;
    }
    for (size_t i = 0; i < n; i++) {
        size_t width = 0, at;

        for (size_t k = 0; k < n; k++)
            width = strlen(texts[k]) > width ? strlen(texts[k]) : width;
        width = (width / 8 + 1) * 8;
        (void)fprintf(to, "\t%s", texts[i]);
        for (at = strlen(texts[i]); at < width; at = (at / 8 + 1) * 8)
            (void)fputc('\t', to);
        (void)fprintf(to, "%s\n", helps[i]);
    }
}

/* The last word of a verb's name: what its flag --help is for. */
static const char *last_word(const char *name)
{
    const char *space = strrchr(name, ' ');

    return space == NULL ? name : space + 1;
}

void ctl_help(struct ctl *c, const char *group, FILE *to)
{
    const struct ctl_verb *verb = NULL;

    for (const struct ctl_verb *v = ctl_verbs; group != NULL && v->name != NULL; v++) {
        if (c->verb == v || strcmp(v->name, group) == 0)
            verb = v;
    }
    if (verb != NULL) {
        (void)fprintf(to, "NAME:\n\t%s - %s\n\nUSAGE:\n\t%s %s%s%s [flags]\n\nOPTIONS:\n",
                      verb->name, verb->help, c->program, verb->name,
                      verb->args[0] == '\0' ? "" : " ", verb->args);
        options(verb->flags, last_word(verb->name), to);
        (void)fprintf(to, "\nGLOBAL OPTIONS:\n");
    } else if (group != NULL) {
        (void)fprintf(to,
                      "NAME:\n\t%s - the verbs of this family\n\nUSAGE:\n\t%s %s <subcommand> "
                      "[flags]\n\nCOMMANDS:\n",
                      group, c->program, group);
        verbs(group, to);
        (void)fprintf(to, "\nGLOBAL OPTIONS:\n");
    } else {
        (void)fprintf(to,
                      "NAME:\n\t%s - A simple command line client for etcd3.\n\nUSAGE:\n\t%s "
                      "[flags]\n\nCOMMANDS:\n",
                      c->program, c->program);
        verbs(NULL, to);
        (void)fprintf(to, "\nOPTIONS:\n");
    }
    options(ctl_global_flags, c->program, to);
    (void)fputc('\n', to);
}

/* A script for bash: the verbs, their second words, the flags of each. */
int ctl_completion(struct ctl *c, int argc, char **argv)
{
    const char *name = strrchr(c->program, '/') == NULL ? c->program : strrchr(c->program, '/') + 1;

    (void)argc;
    (void)argv;
    (void)printf("# bash completion for %s: source this\n_bonsai_etcd()\n{\n"
                 "    local cur=\"${COMP_WORDS[COMP_CWORD]}\" verb=\"\" word words\n"
                 "    for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
                 "        case \"$word\" in -*) ;; *) verb=\"${verb:+$verb }$word\" ;; esac\n"
                 "    done\n    case \"$verb\" in\n",
                 name);
    for (const struct ctl_verb *v = ctl_verbs; v->name != NULL; v++) {
        (void)printf("    \"%s\"*) words=\"", v->name);
        for (const struct ctl_flag *f = v->flags; f != NULL && f->name != NULL; f++)
            (void)printf("--%s ", f->name);
        (void)printf("$flags\" ;;\n");
    }
    for (const struct ctl_verb *v = ctl_verbs; v->name != NULL; v++) {
        size_t len = strcspn(v->name, " ");

        if (v->name[len] == '\0' || (v != ctl_verbs && strncmp(v[-1].name, v->name, len + 1) == 0))
            continue; /* one word, or its family was done */
        (void)printf("    \"%.*s\") words=\"", (int)len, v->name);
        for (const struct ctl_verb *w = v; w->name != NULL; w++) {
            if (strncmp(w->name, v->name, len + 1) == 0)
                (void)printf("%s ", w->name + len + 1);
        }
        (void)printf("\" ;;\n");
    }
    (void)printf("    *) words=\"");
    for (const struct ctl_verb *v = ctl_verbs; v->name != NULL; v++) {
        size_t len = strcspn(v->name, " ");

        if (v == ctl_verbs || strncmp(v[-1].name, v->name, len + (v->name[len] != '\0')) != 0)
            (void)printf("%.*s ", (int)len, v->name);
    }
    (void)printf("$flags\" ;;\n    esac\n    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
                 "_bonsai_etcd_flags()\n{\n    local flags=\"--help ");
    for (const struct ctl_flag *f = ctl_global_flags; f->name != NULL; f++)
        (void)printf("--%s ", f->name);
    (void)printf("\"\n    _bonsai_etcd\n}\ncomplete -o default -F _bonsai_etcd_flags %s\n", name);
    return CTL_OK;
}
