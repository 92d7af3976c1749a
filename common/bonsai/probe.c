/* probe.c - asks a node one question in HTTP/1.1, as a client would, and looks at the status.
 *
 * One connection a probe; the answer's first line is all that is read. etcd answers /health with
 * 200 only when the cluster has a leader, so "ready" means that a put would work.
 */
#include "bonsai/bonsai.h"

#define STATUS_BYTES 12 /* "HTTP/1.1 200" */

static void on_open(void *arg)
{
    struct bonsai_probe *p = arg;
    static const char tail[] = " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    const char *path = p->path;
    struct bns_slice v[] = {BNS_LIT("GET "), bns_slice_str(path), bns_slice(tail, sizeof tail - 1)};

    if (bns_stream_write(p->stream, v, 3, NULL, NULL) != BNS_OK)
        bns_stream_close(p->stream);
}

static void on_data(void *arg, struct bns_slice data)
{
    struct bonsai_probe *p = arg;
    size_t take = STATUS_BYTES - p->reply_len;

    if (take > data.len)
        take = data.len;
    memcpy(p->reply + p->reply_len, data.ptr, take);
    p->reply_len += take;
    if (p->reply_len < STATUS_BYTES)
        return;
    p->good = memcmp(p->reply, "HTTP/1.", 7) == 0 && memcmp(p->reply + 8, " 200", 4) == 0;
    bns_stream_close(p->stream);
}

static void on_close(void *arg, int code)
{
    struct bonsai_probe *p = arg;

    (void)code; /* whatever the cause: good says whether an answer came */
    p->stream = NULL;
    if (!p->canceled)
        p->done(p->arg, p->good);
}

static const struct bns_stream_events events = {
    .on_open = on_open,
    .on_data = on_data,
    .on_close = on_close,
};

int bonsai_probe_start(struct bonsai_probe *p, const char *path, uint16_t port)
{
    BNS_ASSERT(p->stream == NULL);
    p->path = path;
    p->reply_len = 0;
    p->good = false;
    p->canceled = false;
    return bns_net_connect(p->env, "127.0.0.1", port, &events, p, &p->stream, NULL);
}

void bonsai_probe_cancel(struct bonsai_probe *p)
{
    p->canceled = true;
    if (p->stream != NULL)
        bns_stream_reset(p->stream);
}
