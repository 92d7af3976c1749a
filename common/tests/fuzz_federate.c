/* fuzz_federate.c - any bytes as the metrics of two nodes: the merged text is in the format, no
 * family comes twice, and it has as many samples as were counted going in. */
#include "app/federate.h"
#include "codec/expo.h"
#include "fake_env.h"
#include "fuzz.h"

#include <stdlib.h>

#define OWN_FAMILIES 4u

static void on_done(void *arg)
{
    (void)arg;
}

/* Samples of the merged text; types come once, and in order. */
static size_t count_samples(struct bns_slice text)
{
    struct bns_expo x = {.rest = text};
    struct bns_expo_line l;
    struct bns_slice last = {0};
    size_t samples = 0, types = 0;
    int rv;

    while ((rv = bns_expo_next(&x, &l)) == BNS_OK) {
        samples += l.kind == BNS_EXPO_SAMPLE;
        if (l.kind != BNS_EXPO_TYPE)
            continue;
        types++;
        BNS_ASSERT(types <= OWN_FAMILIES + 1 || bns_slice_cmp(last, l.name) < 0);
        last = l.name;
    }
    BNS_ASSERT(rv == BNS_E_NOTFOUND);
    return samples;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fake_env fake;
    struct bns_federate_target t[2] = {{.system = "s", .node = "n1"},
                                       {.system = "s", .node = "n2"}};
    const struct bns_federate_opts o = {.targets = t, .targets_count = 2};
    struct bns_federate *f = NULL;
    struct bns_buf out;
    size_t cut;

    if (size == 0 || size > 65536)
        return 0;
    cut = size * data[0] / 256;
    t[0].text = bns_slice(data, cut);
    t[1].text = bns_slice(data + cut, size - cut);
    fake_init(&fake, bns_alloc_libc());
    bns_buf_init(&out, bns_alloc_libc(), 1u << 26);
    if (bns_federate_start(&fake.env, &o, on_done, NULL, &f) == BNS_OK &&
        bns_federate_text(f, &out) == BNS_OK) {
        size_t want = 2u * OWN_FAMILIES;

        want += bns_federate_answer(f, 0)->samples + bns_federate_answer(f, 1)->samples;
        BNS_ASSERT(count_samples(bns_buf_slice(&out)) == want);
    }
    bns_federate_free(f);
    bns_buf_free(&out);
    fake_free(&fake);
    return 0;
}
