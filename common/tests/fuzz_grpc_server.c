/* fuzz_grpc_server.c - any bytes, after the preface, into a gRPC server with all kinds of methods.
 *
 * The first byte chooses: how the bytes are cut (bits 0..3), whether an acknowledged greeting goes
 * first (bit 4), whether the peer reads what it is sent (bit 5), a shared port (bit 6). Whatever
 * comes, the connection ends or waits, memory is bounded, and nothing is left. */
#include <stdlib.h>

#include "fuzz.h"
#include "grpc_raw.h"

static void http1_close(void *arg, int code)
{
    (void)arg;
    (void)code;
}

static void on_http1(void *arg, struct bns_stream *s, struct bns_slice read_so_far)
{
    static const struct bns_stream_events ev = {.on_close = http1_close};

    (void)arg;
    BNS_ASSERT(read_so_far.len > 0);
    bns_stream_set_events(s, &ev, NULL);
    bns_stream_reset(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bns_grpc_config cfg = {.queued_bytes_max = 100000};
    static const size_t cuts[] = {1,  2,   3,    5,    8,     13,    24, 33,
                                  57, 100, 1000, 5000, 16384, 65536, 9,  10};
    struct kit k;
    struct raw r;
    struct bns_buf b;

    if (size == 0)
        return 0;
    cfg.on_http1 = (data[0] & 64) != 0 ? on_http1 : NULL;
    kit_open(&k, &cfg);
    k.flood_bytes = 1000000;
    k.f.chunk = cuts[data[0] & 15];
    raw_dial(&r, &k);
    bns_buf_init(&b, bns_alloc_libc(), 1u << 20);
    if ((data[0] & 16) != 0)
        put_hello(&b);
    BNS_ASSERT(bns_buf_add(&b, data + 1, size - 1) == BNS_OK);
    if ((data[0] & 32) != 0)
        bns_stream_read(r.s, false);
    raw_flush(&r, &b);
    fake_run_for(&k.f, 30 * BNS_SEC);
    kit_finish_held(&k, BNS_GRPC_OK);
    fake_run_for(&k.f, BNS_SEC);
    BNS_ASSERT(bns_test_heap_peak(k.heap) < 8u * 1024 * 1024);
    raw_free(&r);
    bns_buf_free(&b);
    BNS_ASSERT(kit_close(&k, NULL) == 0);
    return 0;
}
