/* net_impl.h - what streams and dialling share. For net.c and net_dial.c. */
#ifndef BNS_SIM_NET_IMPL_H
#define BNS_SIM_NET_IMPL_H

#include "sim/world_impl.h"

#define HOST_NONE UINT32_MAX

struct segment {
    struct bns_list node;
    uint64_t at;
    uint64_t id; /* for the record */
    size_t len;
    bool fin;
    uint8_t bytes[];
};

struct record { /* one bns_stream_write */
    struct bns_list node;
    bns_release_fn *release;
    void *arg;
    size_t count;
    size_t index; /* the slice that goes next */
    size_t off;   /* and how much of it went */
    struct bns_slice v[];
};

enum ep_state { EP_DIALING, EP_OPEN, EP_CLOSING, EP_ENDED };

struct link;

struct endpoint {
    struct bns_stream base; /* first */
    struct bns_list node;
    struct sim_node *n;
    struct link *link;
    unsigned side;
    enum ep_state state;
    struct bns_stream_events ev;
    void *arg;
    struct bns_list queue; /* struct record */
    size_t queued;
    bool high;
    bool reading;
    bool sent_fin;
    int code;
    struct sim_event *flush;
    struct sim_event *read;
};

struct pipe { /* from half i to half 1 - i */
    struct bns_list flying;
    struct bns_list received;
    size_t bytes; /* both lists */
    uint64_t last_at;
    uint64_t blocked_since;
    uint64_t gap;
    struct sim_event *deliver;
};

struct half {
    unsigned host; /* node id; HOST_NONE: no such machine */
    uint16_t port;
    struct endpoint *ep;
    uint64_t linger_until;
    struct sim_event *rst; /* a reset on its way to this half */
};

struct link {
    struct bns_list node;
    struct bns_world *w;
    struct half half[2]; /* 0 dialled */
    struct pipe pipe[2];
    struct sim_event *syn; /* handshake under way, either way */
    uint64_t dial_until;
    uint64_t gap;
};

struct bns_listener {
    struct bns_list node;
    struct sim_node *n;
    uint16_t port;
    bns_accept_fn *fn;
    void *arg;
};

uint64_t sim_latency(struct bns_world *w, unsigned from, unsigned to);
bool sim_path_blocked(const struct bns_world *w, unsigned from, unsigned to); /* now */
struct endpoint *sim_ep_new(struct sim_node *n, struct link *k, unsigned side, enum ep_state state);
void sim_ep_flush_soon(struct endpoint *ep, uint64_t ns);
void sim_ep_read_soon(struct endpoint *ep);
void sim_ep_end(struct endpoint *ep, int code); /* on_close follows in an event */

#endif
