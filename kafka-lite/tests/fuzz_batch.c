/* fuzz_batch.c - any bytes as record batches: refused, or heads and records inside the input. */
#include "log/batch.h"

#include "../../common/tests/fuzz.h"

static void inside(struct bns_slice whole, struct bns_slice part)
{
    BNS_ASSERT(part.ptr == NULL || (part.ptr >= whole.ptr && part.len <= whole.len &&
                                    part.ptr + part.len <= whole.ptr + whole.len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bns_slice in = bns_slice(data, size), key, value;
    struct kafka_batch b;
    struct kafka_record r;

    while (kafka_batch_next(&in, &b, NULL) == BNS_OK) {
        struct bns_slice records = b.records;
        int32_t n = 0;

        (void)kafka_batch_crc_ok(&b);
        while (kafka_record_next(&records, &r, NULL) == BNS_OK) {
            n++;
            inside(b.bytes, r.key);
            inside(b.bytes, r.value);
            for (int32_t i = 0; i < r.headers_count; i++) {
                BNS_ASSERT(kafka_header_next(&r.headers, &key, &value) == BNS_OK);
                inside(b.bytes, key);
                inside(b.bytes, value);
            }
            BNS_ASSERT(r.headers.len == 0);
        }
        BNS_ASSERT(kafka_records_check(&b, NULL) != BNS_OK || n == b.count);
    }
    return 0;
}
