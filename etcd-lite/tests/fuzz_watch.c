/* fuzz_watch.c - any bytes as watch requests on a living store.
 *
 * The input is a sequence of pieces: a length byte, that many bytes. Piece by piece: a WatchRequest
 * as the server takes it (decoded, then given to one of two streams); or, when the first bit of the
 * length is set, a put, a delete or a compaction that the watches see. One stream is read only now
 * and then. Every response must decode; after each input nothing may be left behind. */
#include "tests/fuzz.h"
#include "watch_world.h"

static struct kvw k;
static struct sink sinks[2];
static unsigned runs;

static void begin(void)
{
    bool up;

    if (k.w != NULL)
        kvw_free(&k);
    kvw_init(&k, runs, NULL);
    up = kvw_up(&k);
    BNS_ASSERT(up);
    (void)do_put(&k, "a", "1");
    (void)do_put(&k, "b", "2");
    (void)do_delete(&k, "a", NULL);
}

static void write_something(uint8_t how)
{
    static const char *const keys[] = {"a", "b", "c", ""};
    const char *key = keys[how >> 2 & 3];

    if ((how & 3) == 0)
        (void)do_delete(&k, "a", "");
    else if ((how & 3) == 1)
        (void)do_compact(&k, etcd_kv_revision(k.kv) - (how >> 4), false);
    else if (key[0] != 0)
        (void)do_put(&k, key, "v");
}

static void request(struct sink *x, struct bns_slice in)
{
    ProtobufCMessage *m = NULL;
    Etcdserverpb__WatchRequest *r;

    if (bns_pb_unpack(&etcdserverpb__watch_request__descriptor, in, &k.arena, NULL, &m, NULL) !=
        BNS_OK)
        return;
    r = (Etcdserverpb__WatchRequest *)m;
    if (r->request_union_case == ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST)
        r->create_request->progress_notify = false; /* the world would never come to rest */
    sink_now(x, sink_do_request, r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bns_slice in = bns_slice(data, size);

    if (runs++ % 1000 == 0)
        begin();
    sink_open(&sinks[0], &k);
    sink_open(&sinks[1], &k);
    while (in.len > 0) {
        uint8_t head = in.ptr[0];
        size_t len = head >> 2;
        in = bns_slice_skip(in, 1);
        if (len > in.len)
            len = in.len;
        sinks[1].hold = (head & 2) != 0;
        if ((head & 1) != 0 && len > 0)
            write_something(in.ptr[0]);
        else
            request(&sinks[head >> 1 & 1], bns_slice(in.ptr, len));
        for (int i = 0; i < (head & 3); i++)
            (void)bns_world_step(k.w);
        in = bns_slice_skip(in, len);
    }
    sink_now(&sinks[1], sink_do_read, NULL);
    sink_now(&sinks[0], sink_do_close, NULL); /* time does not stand still while one is open */
    sink_now(&sinks[1], sink_do_close, NULL);
    sink_close(&sinks[0]);
    sink_close(&sinks[1]);
    kvw_settle(&k);
    bns_arena_free(&k.arena);
    return 0;
}
