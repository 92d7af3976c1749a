/* check_history.c - is a history, as JSON lines, one that a right store can have?
 *
 *   check_history KIND FILE
 *
 * KIND is register, append, set, bank, ...: the kinds of history that common/sim/README.md
 * describes. A real client program writes FILE; this is the second opinion beside the program's own
 * checks. Exit codes: 0 nothing wrong was found; 1 an anomaly, or nobody knows within the bounds; 2
 * usage or a file that is no history of this kind.
 */
#include <stdio.h>
#include <stdlib.h>

#include "sim/check.h"

#define FILE_BYTES_MAX (512u * 1024 * 1024)

static int read_file(const char *path, struct bns_buf *out, struct bns_err *err)
{
    FILE *f = fopen(path, "re");
    char part[65536];
    size_t got;
    int rv = BNS_OK;

    if (f == NULL)
        return bns_err_set(err, BNS_E_NOTFOUND, "cannot open it");
    while (rv == BNS_OK && (got = fread(part, 1, sizeof part, f)) > 0)
        rv = bns_buf_add(out, part, got);
    if (ferror(f))
        rv = BNS_E_IO;
    (void)fclose(f); /* only read */
    return rv == BNS_OK ? rv : bns_err_set(err, rv, "%s", bns_err_default_text(rv));
}

static int usage(void)
{
    /* nobody to tell if it fails */
    (void)fprintf(stderr, "usage: check_history KIND FILE\nkinds:");
    for (size_t i = 0; bns_check_kinds[i] != NULL; i++)
        (void)fprintf(stderr, " %s", bns_check_kinds[i]); /* as above */
    (void)fprintf(stderr, "\n");                          /* as above */
    return 2;
}

/* The exit code; *v was filled unless rv is an error of reading. */
static int tell(const char *kind, const char *path, int rv, const struct bns_verdict *v,
                const struct bns_err *err)
{
    const char *text = err->text[0] != '\0' ? err->text
                       : v->text_len > 0    ? v->text
                                            : bns_err_default_text(rv);

    switch (rv) {
    case BNS_OK:
        printf("%s: nothing wrong in %zu operations\n", kind, v->checked);
        return 0;
    case BNS_E_CONFLICT:
        printf("%s: %s: %s\n", kind, v->anomaly, v->text);
        return 1;
    case BNS_E_UNSUPPORTED:
        return usage();
    default:
        (void)fprintf(stderr, "check_history: %s: %s\n", path, text); /* nobody to tell */
        return rv == BNS_E_TOOBIG || rv == BNS_E_NOMEM ? 1 : 2;
    }
}

int main(int argc, char **argv)
{
    struct bns_check_cfg cfg = {.alloc = bns_alloc_libc()};
    struct bns_history *h = NULL;
    struct bns_verdict v;
    struct bns_err err = {0};
    struct bns_buf text;
    int code, rv;

    if (argc != 3)
        return usage();
    bns_verdict_clear(&v);
    bns_buf_init(&text, cfg.alloc, FILE_BYTES_MAX);
    rv = read_file(argv[2], &text, &err);
    if (rv == BNS_OK)
        rv = bns_history_new(cfg.alloc, &h);
    if (rv == BNS_OK)
        rv = bns_history_parse(h, bns_buf_slice(&text), &err);
    bns_buf_free(&text);
    if (rv == BNS_OK)
        rv = bns_check_history(h, argv[1], &cfg, &v);
    code = tell(argv[1], argv[2], rv, &v, &err);
    bns_history_free(h);
    return code;
}
