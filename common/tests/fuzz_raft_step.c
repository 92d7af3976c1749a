/* fuzz_raft_step.c - a lying peer against one core: any messages in any order, mixed with honest
 * inputs of the driver. The core must not crash, must not break its own assertions, and must not
 * take memory beyond its bounds.
 *
 * Each 12 bytes of input are one action; small numbers, so that terms and indexes collide. */
#include "base/varint.h"
#include "fuzz.h"
#include "proto/raft_msg.h"

#define MEMORY_MAX (8u << 20)

struct harness {
    struct bns_raft *raft;
    uint64_t now, live;
    uint64_t seq, applied, installing;
    struct bns_alloc alloc;
};

static void *count_resize(void *ctx, void *ptr, size_t n)
{
    struct harness *h = ctx;
    uint64_t *p = ptr == NULL ? NULL : (uint64_t *)ptr - 2;
    uint64_t old = p == NULL ? 0 : p[0];
    uint64_t *q = bns_resize(bns_alloc_libc(), p, n + 16);

    BNS_ASSERT(q != NULL);
    q[0] = n;
    h->live += n - old;
    BNS_ASSERT(h->live < MEMORY_MAX);
    return q + 2;
}

static void *count_alloc(void *ctx, size_t n)
{
    return count_resize(ctx, NULL, n);
}

static void count_release(void *ctx, void *ptr)
{
    struct harness *h = ctx;
    uint64_t *p = ptr == NULL ? NULL : (uint64_t *)ptr - 2;

    if (p == NULL)
        return;
    h->live -= p[0];
    bns_free(bns_alloc_libc(), p);
}

static void step(struct harness *h, struct bns_raft_in in)
{
    int rv = bns_raft_step(h->raft, h->now, &in);
    bool change = in.kind == BNS_RAFT_IN_CHANGE || in.kind == BNS_RAFT_IN_TRANSFER;
    BNS_ASSERT(rv == BNS_OK || rv == BNS_E_PROTO || rv == BNS_E_BUSY || rv == BNS_E_NOTLEADER ||
               (change && (rv == BNS_E_EXISTS || rv == BNS_E_NOTFOUND || rv == BNS_E_INVALID)));
}

static void drain(struct harness *h)
{
    struct bns_raft_out o;

    while (bns_raft_next(h->raft, &o)) {
        if (o.kind == BNS_RAFT_OUT_PERSIST)
            h->seq = o.seq;
        else if (o.kind == BNS_RAFT_OUT_APPLY)
            h->applied = o.index;
        else if (o.kind == BNS_RAFT_OUT_INSTALL)
            h->installing = o.index;
        else if (o.kind == BNS_RAFT_OUT_SEND)
            BNS_ASSERT(o.after_seq <= h->seq);
    }
}

/* A configuration of a few bits: nodes 1 to 5, each a voter, an old voter, a learner or none. */
static struct bns_rcbuf *conf_entry(struct harness *h, uint32_t bits)
{
    struct bns_raft_conf_entry c = {.changes_count = 1};
    struct bns_rcbuf *b = NULL;

    c.changes[0] = (struct bns_raft_change){BNS_RAFT_REMOVE, 1};
    for (uint64_t id = 1; id <= 5; id++, bits >>= 2) {
        if ((bits & 3) == 1 || (bits & 3) == 3)
            c.conf.voters[c.conf.voters_count++] = id;
        if ((bits & 3) == 3)
            c.conf.voters_old[c.conf.voters_old_count++] = id;
        if ((bits & 3) == 2)
            c.conf.learners[c.conf.learners_count++] = id;
    }
    if (c.conf.voters_count == 0)
        c.conf.voters[c.conf.voters_count++] = 7;
    BNS_ASSERT(bns_raft_change_encode(&h->alloc, &c, &b) == BNS_OK);
    return b;
}

static void receive(struct harness *h, const uint8_t *d)
{
    struct bns_raft_entry e[3];
    struct bns_raft_msg m = {.type = d[1] % 15,
                             .reject = (d[2] & 1) != 0,
                             .flags = d[2] >> 3,
                             .from = 1 + d[3] % 4,
                             .to = 1 + (d[3] >> 7),
                             .term = d[4] == 255 ? UINT64_MAX : d[4] % 8,
                             .log_term = d[5] % 8,
                             .index = d[6] == 255 ? UINT64_MAX - 1 : d[6] % 16,
                             .commit = d[7] == 255 ? UINT64_MAX : d[7] % 16,
                             .hint_index = d[8] % 16,
                             .hint_term = d[8] >> 5,
                             .read_ctx = d[9] == 255 ? UINT64_MAX : d[9],
                             .entries = e,
                             .entries_count = d[10] % 4};

    for (size_t i = 0; i < m.entries_count; i++) {
        e[i] = (struct bns_raft_entry){.index = m.index + 1 + i + (d[11] == 1),
                                       .term = m.log_term + (d[11] >> (2 * i) & 3),
                                       .kind = d[11] >> 7,
                                       .data = bns_rcbuf_copy(&h->alloc, bns_slice(d, 12))};
        if ((d[2] & 4) == 0 || (d[11] >> i & 1) == 0)
            continue;
        bns_rcbuf_put(e[i].data);
        e[i].kind = BNS_RAFT_CONF;
        e[i].data = conf_entry(h, (uint32_t)d[9] << 2 | d[8]);
    }
    step(h, (struct bns_raft_in){.kind = BNS_RAFT_IN_RECV, .msg = &m});
    for (size_t i = 0; i < m.entries_count; i++)
        bns_rcbuf_put(e[i].data);
}

static void snapshot(struct harness *h, const uint8_t *d, const struct bns_raft_conf *conf)
{
    struct bns_raft_snapmeta s = {.index = d[1] % 32, .term = d[2] % 8, .conf = *conf};

    step(h, (struct bns_raft_in){.kind = BNS_RAFT_IN_SNAPSHOT_RECEIVED,
                                 .snap = &s,
                                 .peer = d[3] % 5,
                                 .term = d[4] == 255 ? UINT64_MAX : d[4] % 8});
}

static void change(struct harness *h, const uint8_t *d)
{
    struct bns_raft_change c[3];

    for (size_t i = 0; i < 3; i++)
        c[i] = (struct bns_raft_change){(enum bns_raft_change_kind)(d[3 + i] % 6), d[6 + i] % 6};
    step(h, (struct bns_raft_in){.kind = BNS_RAFT_IN_CHANGE,
                                 .changes = c,
                                 .changes_count = d[2] % 4,
                                 .context = bns_slice(d, 12)});
}

static void driver(struct harness *h, const uint8_t *d)
{
    struct bns_rcbuf *data = bns_rcbuf_copy(&h->alloc, bns_slice(d, 12));

    switch (d[1] % 12) {
    case 0:
        h->now += (uint64_t)d[2] * 10000000;
        step(h, (struct bns_raft_in){.kind = BNS_RAFT_IN_TIMER});
        break;
    case 1:
        step(h, (struct bns_raft_in){.kind = BNS_RAFT_IN_PROPOSE, .data = &data, .data_count = 1});
        break;
    case 2:
        step(h, (struct bns_raft_in){.kind = BNS_RAFT_IN_READ, .cookie = d[2]});
        break;
    case 3:
        step(h, (struct bns_raft_in){.kind = BNS_RAFT_IN_STORED, .seq = h->seq});
        break;
    case 4:
        step(h, (struct bns_raft_in){.kind = BNS_RAFT_IN_APPLIED, .index = h->applied});
        break;
    case 5:
        if (h->installing != 0) {
            step(h, (struct bns_raft_in){.kind = BNS_RAFT_IN_APPLIED, .index = h->applied});
            step(h, (struct bns_raft_in){.kind = BNS_RAFT_IN_INSTALLED, .index = h->installing});
            if (h->installing > h->applied)
                h->applied = h->installing;
        }
        h->installing = 0;
        break;
    case 6:
        step(h, (struct bns_raft_in){.kind = BNS_RAFT_IN_SNAPSHOT_SENT,
                                     .peer = 2 + (d[2] & 1),
                                     .ok = (d[3] & 1) != 0});
        break;
    case 7:
        step(h, (struct bns_raft_in){.kind = BNS_RAFT_IN_UNREACHABLE, .peer = 2 + (d[2] & 1)});
        break;
    case 8:
        step(h, (struct bns_raft_in){.kind = BNS_RAFT_IN_TRANSFER, .peer = d[2] % 6});
        break;
    case 9:
        step(h, (struct bns_raft_in){.kind = BNS_RAFT_IN_ROOM, .ok = (d[2] & 1) != 0});
        break;
    case 10:
        change(h, d);
        break;
    default:
        step(h, (struct bns_raft_in){.kind = BNS_RAFT_IN_CAMPAIGN});
        break;
    }
    bns_rcbuf_put(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bns_raft_boot boot = {.snap.conf = {.voters = {1, 2, 3}, .voters_count = 3}};
    struct bns_raft_config cfg = {.id = 1,
                                  .seed = 1,
                                  .uncommitted_bytes_max = 4096,
                                  .msg_bytes_max = 256,
                                  .inflight_msgs_max = 4,
                                  .trailing_entries = 2,
                                  .reads_max = 8};
    struct harness h = {.now = 1};

    h.alloc = (struct bns_alloc){count_alloc, count_resize, count_release, &h};
    BNS_ASSERT(bns_raft_init(&h.raft, &cfg, &boot, &h.alloc, h.now) == BNS_OK);
    for (size_t at = 0; at + 12 <= size && at < 12000; at += 12) {
        const uint8_t *d = data + at;
        struct bns_raft_status st;
        if (d[0] < 160)
            receive(&h, d);
        else if (d[0] < 180)
            snapshot(&h, d, bns_raft_conf(h.raft));
        else
            driver(&h, d);
        drain(&h);
        bns_raft_status(h.raft, &st);
        BNS_ASSERT(st.applied <= st.commit);
        BNS_ASSERT(st.commit <= st.last_index);
        if (st.applied >= st.first_index && (d[0] & 7) == 0)
            step(&h, (struct bns_raft_in){.kind = BNS_RAFT_IN_SNAPSHOT_TAKEN, .index = st.applied});
    }
    bns_raft_close(h.raft);
    BNS_ASSERT(h.live == 0);
    return 0;
}
