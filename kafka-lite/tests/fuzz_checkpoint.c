/* fuzz_checkpoint.c - any bytes as the small files beside a log: refused, or written again as they
 * were read; and as an index: look-ups stay inside it. */
#include "log/checkpoint.h"
#include "log/index.h"
#include "store/vfs_ram.h"

#include "../../common/tests/fuzz.h"

static int again(void *arg, struct bns_slice topic, int32_t partition, int64_t offset)
{
    return kafka_checkpoint_add(arg, topic, partition, offset);
}

static void epochs(struct bns_slice in)
{
    struct kafka_epochs e, back;
    struct bns_buf b;

    kafka_epochs_init(&e, bns_alloc_libc());
    kafka_epochs_init(&back, bns_alloc_libc());
    bns_buf_init(&b, bns_alloc_libc(), 1 << 24);
    if (kafka_epochs_parse(&e, in, NULL) == BNS_OK) {
        BNS_ASSERT(kafka_epochs_text(&e, &b) == BNS_OK);
        BNS_ASSERT(kafka_epochs_parse(&back, bns_buf_slice(&b), NULL) == BNS_OK);
        BNS_ASSERT(back.count == e.count);
        for (int32_t asked = -2; asked < 20; asked++) {
            struct kafka_epoch end = kafka_epochs_end(&e, asked, INT64_MAX);
            BNS_ASSERT(end.epoch <= asked || end.epoch == -1);
            BNS_ASSERT((end.epoch == -1) == (end.start == -1));
        }
    }
    kafka_epochs_free(&e);
    kafka_epochs_free(&back);
    bns_buf_free(&b);
}

static void index_file(struct bns_vfs *vfs, struct bns_slice in, uint32_t entry_bytes,
                       const char *path)
{
    struct kafka_home dir = {.vfs = vfs, .alloc = bns_alloc_libc(), .path = "d"};
    struct bns_file *f = NULL;
    struct kafka_index ix;
    struct kafka_entry e;
    uint32_t n = 0;

    BNS_ASSERT(bns_vfs_open(vfs, path, BNS_OPEN_CREATE | BNS_OPEN_TRUNC, &f, NULL) == BNS_OK);
    BNS_ASSERT(in.len == 0 || bns_file_write_at(f, 0, &in, 1, NULL) == BNS_OK);
    bns_file_close(f);
    if (kafka_index_open(&ix, &dir, 5, entry_bytes, 0, NULL) != BNS_OK)
        return;
    BNS_ASSERT(kafka_index_find(&ix, 100, in.len % 2 == 0, &n, NULL) == BNS_OK && n <= ix.count);
    e = (struct kafka_entry){ix.last.key < INT64_MAX ? ix.last.key + 1 : 0, ix.last.value + 1};
    BNS_ASSERT(kafka_index_add(&ix, e, NULL) == BNS_OK);
    BNS_ASSERT(kafka_index_sync(&ix, NULL) == BNS_OK);
    BNS_ASSERT(kafka_index_cut(&ix, 0, NULL) == BNS_OK && ix.count == 0);
    kafka_index_close(&ix);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bns_slice in = bns_slice(data, size), value;
    struct bns_vfs *vfs = bns_vfs_ram(bns_alloc_libc(), 1 << 24);
    struct kafka_dir_id meta;
    struct bns_buf b;

    bns_buf_init(&b, bns_alloc_libc(), 1 << 24);
    (void)(kafka_checkpoint_parse(in, again, &b, NULL) == BNS_OK);
    epochs(in);
    (void)(kafka_partition_parse(in, &value, NULL) == BNS_OK);
    if (kafka_meta_parse(in, &meta, NULL) == BNS_OK) {
        bns_buf_clear(&b);
        BNS_ASSERT(kafka_meta_text(&b, &meta) == BNS_OK);
        BNS_ASSERT(kafka_meta_parse(bns_buf_slice(&b), &meta, NULL) == BNS_OK);
    }
    BNS_ASSERT(kafka_clean_parse(in) >= -1);
    bns_buf_free(&b);
    index_file(vfs, in, KAFKA_OFFSET_ENTRY, "d/00000000000000000005.index");
    index_file(vfs, in, KAFKA_TIME_ENTRY, "d/00000000000000000005.timeindex");
    bns_vfs_ram_free(vfs);
    return 0;
}
