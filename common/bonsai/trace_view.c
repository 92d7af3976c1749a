/* trace_view.c - bonsai sim view: a trace of the simulator as one page.
 *
 * The page is trace_view.html as it stands in the tree; the trace goes into its element "trace".
 * There an HTML parser must not see a tag: in a JSON line '<' stands only inside of strings, where
 * \u003c says the same. The trace is parsed first, so that a damaged one is refused here, with its
 * line and the reason, and not shown half.
 */
#include "bonsai/trace_view.h"

#include "app/cli.h"
#include "bonsai/bonsai.h"
#include "bonsai/console.h"
#include "sim/trace.h"

#include <errno.h>
#include <unistd.h>

#define PLACE "id=\"trace\">"

static int add_escaped(struct bns_buf *out, struct bns_slice s)
{
    int rv = BNS_OK;

    while (s.len > 0 && rv == BNS_OK) {
        const uint8_t *lt = memchr(s.ptr, '<', s.len);
        size_t n = lt == NULL ? s.len : (size_t)(lt - s.ptr);

        rv = bns_buf_add(out, s.ptr, n);
        if (rv == BNS_OK && lt != NULL)
            rv = bns_buf_str(out, "\\u003c");
        s = bns_slice_skip(s, n + 1);
    }
    return rv;
}

int bonsai_trace_page(struct bns_slice trace, struct bns_buf *out, struct bns_err *err)
{
    struct bns_slice page = bonsai_trace_view_page();
    const uint8_t *at = memmem(page.ptr, page.len, PLACE, sizeof PLACE - 1);
    struct bns_trace *t = NULL;
    size_t head;
    int rv;

    BNS_ASSERT(at != NULL);
    head = (size_t)(at - page.ptr) + sizeof PLACE - 1;
    rv = bns_trace_parse(bns_alloc_libc(), trace, &t, err);
    if (rv != BNS_OK)
        return rv;
    bns_trace_free(t);
    rv = bns_buf_add(out, page.ptr, head);
    if (rv == BNS_OK)
        rv = bns_buf_byte(out, '\n');
    if (rv == BNS_OK)
        rv = add_escaped(out, trace);
    if (rv == BNS_OK)
        rv = bns_buf_add(out, page.ptr + head, page.len - head);
    return rv == BNS_OK ? BNS_OK : bns_err_set(err, rv, "the page: %s", bns_err_default_text(rv));
}

/* "-": standard input. */
static int read_all(const char *path, struct bns_buf *out, struct bns_err *err)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    int rv = BNS_OK;

    if (f == NULL)
        return bns_err_set(err, BNS_E_NOTFOUND, "%s", strerror(errno));
    while (rv == BNS_OK && !feof(f)) {
        rv = bns_buf_reserve(out, 65536);
        if (rv != BNS_OK)
            break;
        out->len += fread(out->ptr + out->len, 1, 65536, f);
        if (ferror(f))
            rv = bns_err_set(err, BNS_E_IO, "%s", strerror(errno));
    }
    if (rv == BNS_E_TOOBIG || rv == BNS_E_NOMEM)
        (void)bns_err_set(err, rv, "a trace has at most %u MiB",
                          BONSAI_TRACE_BYTES_MAX / 1024 / 1024);
    if (f != stdin)
        (void)fclose(f); /* it was read only */
    return rv;
}

static int write_all(const char *path, struct bns_slice page, struct bns_err *err)
{
    FILE *f = path == NULL ? stdout : fopen(path, "we");
    bool good;

    if (f == NULL)
        return bns_err_set(err, BNS_E_IO, "%s: %s", path, strerror(errno));
    good = fwrite(page.ptr, 1, page.len, f) == page.len && fflush(f) == 0;
    if (f != stdout && fclose(f) != 0)
        good = false;
    return good ? BNS_OK
                : bns_err_set(err, BNS_E_IO, "%s: %s", path == NULL ? "standard output" : path,
                              strerror(errno));
}

static int view(const char *from, const char *to, struct bns_err *err)
{
    struct bns_buf trace, page;
    int rv;

    bns_buf_init(&trace, bns_alloc_libc(), BONSAI_TRACE_BYTES_MAX);
    bns_buf_init(&page, bns_alloc_libc(), 2u * BONSAI_TRACE_BYTES_MAX);
    rv = read_all(from, &trace, err);
    if (rv == BNS_OK)
        rv = bonsai_trace_page(bns_buf_slice(&trace), &page, err);
    if (rv != BNS_OK)
        (void)bns_err_wrap(err, "%s", strcmp(from, "-") == 0 ? "standard input" : from);
    else
        rv = write_all(to, bns_buf_slice(&page), err);
    bns_buf_free(&trace);
    bns_buf_free(&page);
    return rv;
}

int bonsai_sim_view(int argc, char **argv)
{
    const char *to = NULL;
    const struct bns_cli_flag flags[] = {
        {"output", 'o', BNS_VALUE_STR, &to, "write the page there (standard output)", NULL},
        {NULL, 0, BNS_VALUE_STR, NULL, NULL, NULL},
    };
    const struct bns_cli cli = {"bonsai sim view",
                                "bonsai sim view [TRACE] [-o PAGE.html]",
                                "Makes one page of a trace (standard input, when none is named):\n"
                                "open it in a browser and step through the run.",
                                "bonsai " BNS_VERSION,
                                flags,
                                false};
    struct bns_cli_words words;
    struct bns_err err;

    if (bns_cli_parse(&cli, argc, argv, &words, &err) != BNS_OK) {
        (void)fprintf(stderr, "bonsai sim view: %s\n", err.text);
        return BNS_EXIT_USAGE;
    }
    if (bns_cli_answered(&cli, &words))
        return BNS_EXIT_OK;
    if (words.count > 1 || (to == NULL && isatty(1))) {
        (void)fprintf(stderr, "bonsai sim view: %s\n",
                      words.count > 1 ? "one trace at a time"
                                      : "the page is no text for a terminal: use -o PAGE.html");
        return BNS_EXIT_USAGE;
    }
    if (view(words.count == 0 ? "-" : argv[1], to, &err) != BNS_OK) {
        (void)fprintf(stderr, "bonsai sim view: %s\n", err.text);
        return BNS_EXIT_FAILURE;
    }
    return BNS_EXIT_OK;
}
