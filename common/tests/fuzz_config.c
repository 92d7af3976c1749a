/* fuzz_config.c - any bytes as a configuration file: read or refused, never a crash. */
#include "app/config.h"
#include "tests/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = NULL;
    uint64_t n = 0, d = 0, b = 0;
    bool flag = false;
    const struct bns_config_key keys[] = {
        {"a", "text", BNS_VALUE_STR, &text},  {"a", "n", BNS_VALUE_U64, &n},
        {"a", "d", BNS_VALUE_DURATION, &d},   {"b", "size", BNS_VALUE_BYTES, &b},
        {"b", "flag", BNS_VALUE_BOOL, &flag}, {NULL, NULL, BNS_VALUE_STR, NULL},
    };
    struct bns_arena arena;
    struct bns_err err;
    int rv;

    if (size > 65536) /* libyaml's scanner is slow on some long inputs */
        return 0;
    bns_arena_init(&arena, bns_alloc_libc(), 1u << 20);
    rv = bns_config_parse("fuzz", bns_slice(data, size), keys, &arena, &err);
    BNS_ASSERT(rv == BNS_OK || rv == BNS_E_INVALID || rv == BNS_E_NOMEM);
    bns_arena_free(&arena);
    return 0;
}
