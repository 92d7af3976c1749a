/* console_logs.c - lines of a node's log, a piece at a time.
 *
 * Who reads asks without an offset first and gets the end of the log, then goes on behind `next`.
 * A piece has at most PIECE_BYTES and whole lines only, unless one line is longer than that. When
 * the log is shorter than the offset it was begun anew: `reset` says so, and the end is sent again.
 * Logs hold whatever a program wrote: what is not UTF-8 becomes U+FFFD.
 */
#include "bonsai/console.h"

#include "base/utf8.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_BYTES (64u * 1024)
#define PATH_BYTES 640

struct piece {
    uint64_t from, next, size;
    bool reset;
    uint8_t bytes[PIECE_BYTES];
    size_t len;
};

/* Reads the file from p->from. What cannot be read is not there. */
static void read_piece(struct piece *p, const char *path, uint64_t after)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    ssize_t n;

    if (fd < 0)
        return;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        (void)close(fd); /* it was read only */
        return;
    }
    p->size = (uint64_t)st.st_size;
    p->reset = after != UINT64_MAX && after > p->size;
    p->from = after;
    if (after == UINT64_MAX || p->reset)
        p->from = p->size > PIECE_BYTES ? p->size - PIECE_BYTES : 0;
    n = pread(fd, p->bytes, sizeof p->bytes, (off_t)p->from);
    (void)close(fd); /* it was read only */
    p->len = n < 0 ? 0 : (size_t)n;
}

/* Cuts what is not a whole line: at the front when we came in the middle, and at the end. */
static struct bns_slice whole_lines(struct piece *p, bool middle)
{
    struct bns_slice s = bns_slice(p->bytes, p->len);
    const uint8_t *nl;

    if (middle && (nl = memchr(s.ptr, '\n', s.len)) != NULL)
        s = bns_slice_skip(s, (size_t)(nl - s.ptr) + 1);
    nl = s.len == 0 ? NULL : memrchr(s.ptr, '\n', s.len);
    if (nl != NULL)
        s.len = (size_t)(nl - s.ptr) + 1;
    else if (p->len < PIECE_BYTES)
        s.len = 0; /* the line is still being written */
    p->next = p->from + (uint64_t)(s.ptr - p->bytes) + s.len;
    return s;
}

static json_t *text_json(struct bns_slice s)
{
    static char clean[3 * PIECE_BYTES]; /* of the one loop */
    size_t len = 0;

    while (s.len > 0) {
        size_t n = bns_utf8_step(s);

        if (n == 0 || s.ptr[0] == 0) {
            memcpy(clean + len, "\xef\xbf\xbd", 3);
            len += 3;
            n = 1;
        } else {
            memcpy(clean + len, s.ptr, n);
            len += n;
        }
        s = bns_slice_skip(s, n);
    }
    return json_stringn(clean, len);
}

static json_t *lines_json(struct bns_slice s)
{
    json_t *lines = json_array();

    while (s.len > 0) {
        const uint8_t *nl = memchr(s.ptr, '\n', s.len);
        size_t n = nl == NULL ? s.len : (size_t)(nl - s.ptr);

        if (json_array_append_new(lines, text_json(bns_slice(s.ptr, n))) != 0) {
            json_decref(lines);
            return NULL;
        }
        s = bns_slice_skip(s, n + 1);
    }
    return lines;
}

json_t *bonsai_console_logs(const char *data_dir, const char *node, uint64_t after)
{
    static struct piece p; /* too large for a stack; of the one loop */
    char path[PATH_BYTES];
    json_t *lines;
    bool middle;

    p = (struct piece){.from = 0};
    (void)snprintf(path, sizeof path, "%s/logs/%s.log", data_dir, node); /* both are bounded */
    read_piece(&p, path, after);
    middle = p.from > 0 && (after == UINT64_MAX || p.reset);
    lines = lines_json(whole_lines(&p, middle));
    if (lines == NULL)
        return NULL;
    return json_pack("{s:s, s:I, s:I, s:I, s:b, s:o}", "node", node, "from", (json_int_t)p.from,
                     "next", (json_int_t)p.next, "size", (json_int_t)p.size, "reset", (int)p.reset,
                     "lines", lines);
}
