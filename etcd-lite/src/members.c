/* members.c - see members.h. */
#include "members.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/varint.h"
#include "codec/crypto.h"

int etcd_url_parse(const char *url, struct etcd_url *out, struct bns_err *err)
{
    const char *host = strstr(url, "://");
    const char *colon, *end;
    unsigned long port;
    size_t len;

    *out = (struct etcd_url){0};
    if (host == NULL)
        return bns_err_set(err, BNS_E_INVALID, "URL \"%s\" has no scheme: write http://host:port",
                           url);
    out->tls = strncmp(url, "https://", 8) == 0;
    if (!out->tls && strncmp(url, "http://", 7) != 0)
        return bns_err_set(err, BNS_E_INVALID, "URL \"%s\": the scheme is neither http nor https",
                           url);
    host += 3;
    colon = strrchr(host, ':');
    if (colon == NULL || colon[1] < '0' || colon[1] > '9')
        return bns_err_set(err, BNS_E_INVALID, "URL \"%s\" has no port: write http://host:port",
                           url);
    port = strtoul(colon + 1, (char **)&end, 10);
    if (port > 65535 || (*end != 0 && strcmp(end, "/") != 0))
        return bns_err_set(err, BNS_E_INVALID, "URL \"%s\": bad port, or something behind it", url);
    if (*host == '[' && colon > host && colon[-1] == ']') {
        host++;
        colon--;
    }
    len = (size_t)(colon - host);
    if (len < sizeof out->host)
        memcpy(out->host, host, len);
    if (bns_host_kind(out->host) == BNS_HOST_BAD)
        return bns_err_set(err, BNS_E_INVALID,
                           "URL \"%s\": the host is neither an address nor a name", url);
    out->port = (uint16_t)port;
    return BNS_OK;
}

/* Inserts in order; a copy is refused. */
static int urls_add(struct etcd_urls *u, struct bns_slice s, struct bns_err *err)
{
    char url[ETCD_URL_MAX];
    struct etcd_url parts;
    size_t at;
    int rv;

    if (s.len >= sizeof url)
        return bns_err_set(err, BNS_E_INVALID, "a URL of %zu bytes is too long", s.len);
    memcpy(url, s.ptr, s.len);
    url[s.len] = 0;
    rv = etcd_url_parse(url, &parts, err);
    if (rv != BNS_OK)
        return rv;
    if (u->count == ETCD_URLS_MAX)
        return bns_err_set(err, BNS_E_INVALID, "more than %d URLs in one list", ETCD_URLS_MAX);
    for (size_t i = 0; i < u->count; i++) {
        if (strcmp(u->url[i], url) == 0)
            return bns_err_set(err, BNS_E_INVALID, "URL \"%s\" stands there twice", url);
    }
    for (at = u->count; at > 0 && strcmp(u->url[at - 1], url) > 0; at--)
        memcpy(u->url[at], u->url[at - 1], ETCD_URL_MAX);
    memcpy(u->url[at], url, sizeof url);
    u->count++;
    return BNS_OK;
}

/* Takes the next item of a list separated by commas off *rest; false at the end. */
static bool next_item(const char **rest, struct bns_slice *out)
{
    const char *comma;

    if (*rest == NULL || **rest == 0)
        return false;
    comma = strchr(*rest, ',');
    *out = bns_slice(*rest, comma != NULL ? (size_t)(comma - *rest) : strlen(*rest));
    *rest = comma != NULL ? comma + 1 : NULL;
    return true;
}

int etcd_urls_parse(const char *list, struct etcd_urls *out, struct bns_err *err)
{
    struct bns_slice item;
    int rv = BNS_OK;

    out->count = 0;
    while (rv == BNS_OK && next_item(&list, &item))
        rv = urls_add(out, item, err);
    if (rv == BNS_OK && out->count == 0)
        return bns_err_set(err, BNS_E_INVALID, "the list of URLs is empty");
    return rv;
}

static struct etcd_member *member_named(struct etcd_members *m, struct bns_slice name)
{
    for (size_t i = 0; i < m->count; i++) {
        if (bns_slice_eq(bns_slice_str(m->member[i].name), name))
            return &m->member[i];
    }
    if (m->count == ETCD_MEMBERS_MAX || name.len >= ETCD_NAME_MAX)
        return NULL;
    memcpy(m->member[m->count].name, name.ptr, name.len);
    return &m->member[m->count++];
}

static int compute_ids(struct etcd_members *m, const char *token, struct bns_err *err)
{
    uint8_t ids[ETCD_MEMBERS_MAX * 8], digest[BNS_SHA1_BYTES];

    for (size_t i = 0; i < m->count; i++) {
        struct etcd_member *x = &m->member[i];
        struct bns_slice parts[ETCD_URLS_MAX + 1];

        for (size_t u = 0; u < x->peer_urls.count; u++)
            parts[u] = bns_slice_str(x->peer_urls.url[u]);
        parts[x->peer_urls.count] = bns_slice_str(token);
        if (bns_sha1(parts, x->peer_urls.count + 1, digest) != BNS_OK)
            return bns_err_set(err, BNS_E_INTERNAL, "SHA-1 is not available");
        x->id = bns_get_u64be(digest);
    }
    for (size_t i = 1; i < m->count; i++) {
        struct etcd_member x = m->member[i];
        size_t at = i;

        for (; at > 0 && m->member[at - 1].id > x.id; at--)
            m->member[at] = m->member[at - 1];
        m->member[at] = x;
    }
    for (size_t i = 0; i < m->count; i++) {
        if (i > 0 && m->member[i].id == m->member[i - 1].id)
            return bns_err_set(err, BNS_E_INVALID,
                               "initial cluster: members %s and %s have the same peer URLs",
                               m->member[i - 1].name, m->member[i].name);
        bns_put_u64be(ids + 8 * i, m->member[i].id);
    }
    struct bns_slice all = bns_slice(ids, 8 * m->count);
    if (bns_sha1(&all, 1, digest) != BNS_OK)
        return bns_err_set(err, BNS_E_INTERNAL, "SHA-1 is not available");
    m->cluster_id = bns_get_u64be(digest);
    return BNS_OK;
}

int etcd_members_parse(const char *list, const char *token, struct etcd_members *out,
                       struct bns_err *err)
{
    struct bns_slice item;

    memset(out, 0, sizeof *out);
    while (next_item(&list, &item)) {
        const uint8_t *eq = item.len > 0 ? memchr(item.ptr, '=', item.len) : NULL;
        struct etcd_member *m;
        int rv;

        if (eq == NULL || eq == item.ptr)
            return bns_err_set(err, BNS_E_INVALID,
                               "initial cluster: \"%.*s\" is not of the form name=http://host:port",
                               (int)(item.len < 100 ? item.len : 100), (const char *)item.ptr);
        m = member_named(out, bns_slice(item.ptr, (size_t)(eq - item.ptr)));
        if (m == NULL)
            return bns_err_set(err, BNS_E_INVALID,
                               "initial cluster: more than %d members, or a name over %d bytes",
                               ETCD_MEMBERS_MAX, ETCD_NAME_MAX - 1);
        rv = urls_add(&m->peer_urls, bns_slice_skip(item, (size_t)(eq - item.ptr) + 1), err);
        if (rv != BNS_OK) {
            bns_err_wrap(err, "initial cluster");
            return rv;
        }
    }
    if (out->count == 0)
        return bns_err_set(err, BNS_E_INVALID, "initial cluster: no member is named");
    return compute_ids(out, token, err);
}

const struct etcd_member *etcd_members_named(const struct etcd_members *m, const char *name)
{
    for (size_t i = 0; i < m->count; i++) {
        if (strcmp(m->member[i].name, name) == 0)
            return &m->member[i];
    }
    return NULL;
}

const struct etcd_member *etcd_members_find(const struct etcd_members *m, uint64_t id)
{
    for (size_t i = 0; i < m->count; i++) {
        if (m->member[i].id == id)
            return &m->member[i];
    }
    return NULL;
}

const struct etcd_roster_member *etcd_roster_find(const struct etcd_roster *r, uint64_t id)
{
    for (size_t i = 0; i < r->count; i++) {
        if (r->member[i].id == id)
            return &r->member[i];
    }
    return NULL;
}
