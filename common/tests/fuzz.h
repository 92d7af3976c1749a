/* fuzz.h - the entry point that every fuzz target defines. */
#ifndef BNS_TESTS_FUZZ_H
#define BNS_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
