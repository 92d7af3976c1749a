/* table.c - what people see: the table of nodes, and ends of log files. */
#include "bonsai/bonsai.h"

#include <inttypes.h>
#include <stdlib.h>

#define TAIL_BYTES (256L * 1024)

static void row(const struct bonsai_node_state *n, FILE *to)
{
    char address[32], ready[24] = "-", memory[24] = "-", pid[16] = "-";

    (void)snprintf(address, sizeof address, "127.0.0.1:%u", n->port);
    if (n->ready_ms > 0 || strcmp(n->state, "ready") == 0)
        (void)snprintf(ready, sizeof ready, "%" PRIu64 " ms", n->ready_ms);
    if (n->pid != 0) {
        uint64_t kib = bonsai_pid_rss(n->pid) / 1024;

        (void)snprintf(memory, sizeof memory, "%" PRIu64 ".%" PRIu64 " MiB", kib / 1024,
                       kib % 1024 * 10 / 1024);
        (void)snprintf(pid, sizeof pid, "%ld", (long)n->pid);
    }
    (void)fprintf(to, "%-12s n%-4u %-16s %-9s %-9s %-9s %-8" PRIu64 " %s\n", n->system, n->number,
                  address, n->state, ready, memory, n->restarts, pid);
}

void bonsai_table(const struct bonsai_state *s, FILE *to)
{
    (void)fprintf(to, "%-12s %-5s %-16s %-9s %-9s %-9s %-8s %s\n", "SYSTEM", "NODE", "ADDRESS",
                  "STATE", "READY IN", "MEMORY", "RESTARTS", "PID");
    for (size_t i = 0; i < s->nodes_count; i++)
        row(&s->nodes[i], to);
    if (s->console != 0)
        (void)fprintf(to, "\nsee:  http://127.0.0.1:%u/\n", s->console);
    for (size_t i = 0; i < s->nodes_count; i++) {
        const struct bonsai_system *sys;

        if (s->nodes[i].number != 1 || bonsai_system_find(s->nodes[i].system, &sys, NULL) != BNS_OK)
            continue;
        (void)fprintf(to, "try:  ");
        for (const char *p = sys->try_this; *p != '\0'; p++) {
            if (p[0] == '%' && p[1] == 'u') {
                (void)fprintf(to, "%u", s->nodes[i].port);
                p++;
            } else {
                (void)fputc(*p, to);
            }
        }
        (void)fputc('\n', to);
    }
}

bool bonsai_tail(const char *path, size_t lines, const char *prefix, FILE *to)
{
    FILE *f = fopen(path, "re");
    char *text;
    size_t len = 0, at;

    if (f == NULL)
        return false;
    text = malloc(TAIL_BYTES);
    if (text != NULL && fseek(f, 0, SEEK_END) == 0) {
        long size = ftell(f);

        if (fseek(f, size > TAIL_BYTES ? size - TAIL_BYTES : 0, SEEK_SET) == 0)
            len = fread(text, 1, TAIL_BYTES, f);
    }
    (void)fclose(f); /* it was read only */
    at = len;
    while (at > 0 && lines > 0) {
        at--;
        while (at > 0 && text[at - 1] != '\n')
            at--;
        lines--;
    }
    while (at < len) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t n = end == NULL ? len - at : (size_t)(end - (text + at));

        (void)fprintf(to, "%s%.*s\n", prefix, (int)n, text + at);
        at += n + 1;
    }
    free(text);
    return true;
}
