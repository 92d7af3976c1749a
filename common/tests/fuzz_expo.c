/* fuzz_expo.c - any bytes as a metrics text: each line is refused or read, and what was read is
 * read again the same when its line stands alone. */
#include "base/alloc.h"
#include "codec/expo.h"
#include "fuzz.h"

static void check_sample(const struct bns_expo_line *l)
{
    struct bns_slice left = l->labels, name, value;
    struct bns_expo x = {.rest = l->line};
    struct bns_expo_line again;
    size_t labels = 0;

    while (bns_expo_label(&left, &name, &value)) {
        BNS_ASSERT(name.len > 0 && name.ptr >= l->labels.ptr);
        BNS_ASSERT(value.ptr + value.len < l->labels.ptr + l->labels.len);
        labels++;
    }
    BNS_ASSERT(labels <= BNS_EXPO_LABELS_MAX);
    for (size_t i = 0; i < left.len; i++)
        BNS_ASSERT(left.ptr[i] == ' ' || left.ptr[i] == '\t');
    BNS_ASSERT(bns_expo_next(&x, &again) == BNS_OK);
    BNS_ASSERT(bns_slice_eq(again.name, l->name));
    BNS_ASSERT(bns_slice_eq(again.labels, l->labels));
    BNS_ASSERT(bns_slice_eq(again.value, l->value));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bns_expo x = {.rest = bns_slice(data, size)};
    struct bns_expo_line l;
    size_t lines = 0;
    int rv;

    while ((rv = bns_expo_next(&x, &l)) != BNS_E_NOTFOUND) {
        BNS_ASSERT(rv == BNS_OK || rv == BNS_E_PROTO);
        if (rv == BNS_OK && l.kind == BNS_EXPO_SAMPLE)
            check_sample(&l);
        lines++;
        BNS_ASSERT(lines <= size && x.line >= lines);
    }
    return 0;
}
