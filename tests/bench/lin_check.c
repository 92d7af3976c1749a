/* lin_check.c - is a history of registers, as JSON lines, linearizable?
 *
 *   lin_check FILE
 *
 * FILE is what common/sim/history.h describes; a real client program writes it, this is the second
 * opinion beside the program's own checker. Exit codes: 0 linearizable; 1 not, or nobody knows
 * within the budget; 2 usage or a file that is no history.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim/history.h"

#define FILE_BYTES_MAX (512u * 1024 * 1024)
#define VISITED_MAX (20u * 1000 * 1000)

static int read_file(const char *path, struct bns_buf *out)
{
    FILE *f = fopen(path, "re");
    char part[65536];
    size_t got;
    int rv = BNS_OK;

    if (f == NULL)
        return BNS_E_NOTFOUND;
    while (rv == BNS_OK && (got = fread(part, 1, sizeof part, f)) > 0)
        rv = bns_buf_add(out, part, got);
    if (ferror(f))
        rv = BNS_E_IO;
    (void)fclose(f); /* only read */
    return rv;
}

static int verdict(int rv, const struct bns_lin_op *ops, size_t count,
                   const struct bns_lin_result *res)
{
    if (rv == BNS_OK) {
        printf("linearizable: %zu operations, %" PRIu64 " configurations\n", count, res->visited);
        return 0;
    }
    if (rv == BNS_E_CONFLICT)
        printf("not linearizable: the operation invoked at line %" PRIu64
               " fits nowhere behind %zu operations of its key\n",
               ops[res->op].call + 1, res->prefix);
    else
        printf("unknown: %s after %" PRIu64 " configurations\n", bns_err_default_text(rv),
               res->visited);
    return 1;
}

int main(int argc, char **argv)
{
    const struct bns_alloc *alloc = bns_alloc_libc();
    struct bns_history *h = NULL;
    struct bns_lin_op *ops = NULL;
    struct bns_lin_result res = {0};
    struct bns_err err = {0};
    struct bns_buf text;
    size_t count = 0;
    int code = 2, rv;

    if (argc != 2) {
        (void)fprintf(stderr, "usage: lin_check FILE\n"); /* nobody to tell if it fails */
        return 2;
    }
    bns_buf_init(&text, alloc, FILE_BYTES_MAX);
    rv = read_file(argv[1], &text);
    if (rv == BNS_OK)
        rv = bns_history_new(alloc, &h);
    if (rv == BNS_OK)
        rv = bns_history_parse(h, bns_buf_slice(&text), &err);
    if (rv == BNS_OK)
        rv = bns_history_ops(h, &ops, &count, &err);
    if (rv != BNS_OK) {
        (void)fprintf(stderr, "lin_check: %s: %s\n", argv[1], /* as above */
                      err.text[0] != 0 ? err.text : bns_err_default_text(rv));
    } else {
        rv = bns_lin_check(alloc, &bns_lin_register, ops, count, VISITED_MAX, &res);
        code = verdict(rv, ops, count, &res);
    }
    bns_free(alloc, ops);
    bns_history_free(h);
    bns_buf_free(&text);
    return code;
}
