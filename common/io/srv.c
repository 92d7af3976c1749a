/* srv.c - see srv.h: glibc's resolver asks, and takes names out of messages.
 *
 * The data of an SRV record: priority, weight, port (16 bits each, big endian), target (a name).
 * A target is believed to be a host's name only after a look at its letters: it becomes part of
 * URLs.
 */
#include "io/srv.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <resolv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/varint.h"

#define MESSAGE_MAX 65535 /* what TCP can carry; longer ones do not exist */
#define SRV_FIXED 6

static int bad(struct bns_err *err, const char *what)
{
    return bns_err_set(err, BNS_E_PROTO, "the name server's answer is damaged: %s", what);
}

static int parse_one(const ns_msg *m, const ns_rr *rr, struct bns_srv *out, struct bns_err *err)
{
    const uint8_t *data = ns_rr_rdata(*rr);

    if (ns_rr_rdlen(*rr) <= SRV_FIXED)
        return bad(err, "an SRV record is too short");
    out->priority = (uint16_t)(data[0] << 8 | data[1]);
    out->weight = (uint16_t)(data[2] << 8 | data[3]);
    out->port = (uint16_t)(data[4] << 8 | data[5]);
    if (ns_name_uncompress(ns_msg_base(*m), ns_msg_end(*m), data + SRV_FIXED, out->target,
                           sizeof out->target) < 0)
        return bad(err, "a name cannot be read");
    if (strcmp(out->target, ".") == 0 || out->target[0] == '\0') {
        out->target[0] = '\0'; /* decidedly not available at this domain */
        return BNS_OK;
    }
    if (bns_host_kind(out->target) == BNS_HOST_BAD)
        return bad(err, "a target is not the name of a host");
    return BNS_OK;
}

int bns_srv_parse(struct bns_slice msg, struct bns_srv out[BNS_SRV_MAX], size_t *count,
                  struct bns_err *err)
{
    size_t n = 0;
    ns_msg m;

    if (msg.len > MESSAGE_MAX || ns_initparse(msg.ptr, (int)msg.len, &m) != 0)
        return bad(err, "it is no message");
    for (int i = 0; i < ns_msg_count(m, ns_s_an); i++) {
        struct bns_srv one;
        ns_rr rr;
        int rv;

        if (ns_parserr(&m, ns_s_an, i, &rr) != 0)
            return bad(err, "a record cannot be read");
        if (ns_rr_type(rr) != ns_t_srv || ns_rr_class(rr) != ns_c_in)
            continue; /* an alias on the way */
        rv = parse_one(&m, &rr, &one, err);
        if (rv != BNS_OK)
            return rv;
        if (one.target[0] == '\0')
            continue;
        if (n == BNS_SRV_MAX)
            return bns_err_set(err, BNS_E_TOOBIG, "more than %u SRV records", BNS_SRV_MAX);
        out[n++] = one;
    }
    *count = n;
    return BNS_OK;
}

static int by_priority(const void *a, const void *b)
{
    const struct bns_srv *x = a, *y = b;

    if (x->priority != y->priority)
        return x->priority < y->priority ? -1 : 1;
    return x->weight < y->weight ? -1 : x->weight > y->weight; /* those of weight 0 first */
}

/* RFC 2782, page 3: of what is left of one priority, one by its weight, again and again. */
static void draw(struct bns_srv *srv, size_t count, struct bns_prng *prng)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += srv[i].weight;
    for (size_t at = 0; at + 1 < count; at++) {
        uint64_t pick = bns_prng_below(prng, sum + 1), seen = 0;
        struct bns_srv chosen;
        size_t i = at;

        while (i + 1 < count && seen + srv[i].weight < pick)
            seen += srv[i++].weight;
        chosen = srv[i];
        memmove(&srv[at + 1], &srv[at], (i - at) * sizeof *srv);
        srv[at] = chosen;
        sum -= chosen.weight;
    }
}

void bns_srv_order(struct bns_srv *srv, size_t count, struct bns_prng *prng)
{
    size_t begin = 0;

    if (count == 0)
        return;
    qsort(srv, count, sizeof *srv, by_priority);
    while (begin < count) {
        size_t end = begin;

        while (end < count && srv[end].priority == srv[begin].priority)
            end++;
        draw(srv + begin, end - begin, prng);
        begin = end;
    }
}

/* " on 10.0.0.53:53": the first name server; "" when it has an IPv6 address. */
static void server_text(const struct __res_state *r, char text[64])
{
    char address[INET_ADDRSTRLEN];

    text[0] = '\0';
    if (r->nscount > 0 && r->nsaddr_list[0].sin_family == AF_INET &&
        inet_ntop(AF_INET, &r->nsaddr_list[0].sin_addr, address, sizeof address) != NULL)
        (void)snprintf(text, 64, " on %s:%u", address,
                       ntohs(r->nsaddr_list[0].sin_port)); /* fits */
}

int bns_srv_lookup(const char *name, struct bns_prng *prng, struct bns_srv out[BNS_SRV_MAX],
                   size_t *count, struct bns_err *err)
{
    uint8_t *msg = bns_alloc(bns_alloc_libc(), MESSAGE_MAX);
    struct __res_state r;
    char server[64];
    bool none;
    int len, rv;

    memset(&r, 0, sizeof r);
    if (msg == NULL || res_ninit(&r) != 0) {
        bns_free(bns_alloc_libc(), msg);
        return bns_err_set(err, BNS_E_NOMEM, "lookup %s: out of memory", name);
    }
    server_text(&r, server);
    len = res_nsearch(&r, name, ns_c_in, ns_t_srv, msg, MESSAGE_MAX);
    none = r.res_h_errno == HOST_NOT_FOUND || r.res_h_errno == NO_DATA;
    *count = 0;
    if (len >= 0)
        rv = bns_srv_parse(bns_slice(msg, len < MESSAGE_MAX ? (size_t)len : MESSAGE_MAX), out,
                           count, err);
    else if (none)
        rv = BNS_OK;
    else
        rv = bns_err_set(err, BNS_E_IO, "no name server answered");
    if (rv == BNS_OK && *count == 0)
        rv = bns_err_set(err, BNS_E_NOTFOUND, "no such host");
    if (rv == BNS_OK)
        bns_srv_order(out, *count, prng);
    else
        bns_err_wrap(err, "lookup %s%s", name, server);
    res_nclose(&r);
    bns_free(bns_alloc_libc(), msg);
    return rv;
}
