/* fuzz_kafka_conn.c - any bytes from a client: the connection answers, waits or closes, and nothing
 * is left.
 *
 * The first byte says how the rest is cut (bits 0..3) and in which order parked requests are
 * answered (bit 4), and whether the client reads (bit 5). */
#include "conn_kit.h"
#include "tests/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t cuts[] = {1, 2, 3, 5, 7, 13, 64, 65536};
    struct kafka_server_cfg cfg;
    struct kit k;
    struct kit_client c;

    if (size == 0)
        return 0;
    kafka_server_cfg_default(&cfg);
    cfg.requests_max = 8;
    cfg.request_bytes_max = 100000;
    kit_open(&k, &cfg);
    k.f.chunk = cuts[data[0] & 7];
    client_open(&k, &c);
    bns_stream_read(c.s, (data[0] & 32) == 0);
    client_say(&c, data + 1, size - 1);
    for (size_t turn = 0; turn < 4; turn++) {
        size_t n = k.parked_count;

        kit_run(&k);
        n = k.parked_count;
        for (size_t i = 0; i < n; i++) {
            size_t at = (data[0] & 16) == 0 ? i : n - 1 - i;

            if (k.parked[at] != NULL)
                kit_answer(&k, at, 0);
        }
    }
    client_close(&c);
    kit_close(&k);
    return 0;
}
