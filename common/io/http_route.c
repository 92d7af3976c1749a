/* http_route.c - which handler gets a request: the table of routes, and the answers 404 and 405.
 *
 * The longest matching path wins, an exact one before a prefix, a named method before "*". A prefix
 * ends at a slash or at the end of the path: "/v1" matches "/v1" and "/v1/x", not "/v10". A GET
 * route answers HEAD. A path that is known with other methods gets 405 and says which.
 */
#include "io/http_int.h"

static bool path_matches(const struct bns_http_route *r, struct bns_slice path)
{
    struct bns_slice p = bns_slice_str(r->path);

    if (path.len < p.len || (p.len > 0 && memcmp(path.ptr, p.ptr, p.len) != 0))
        return false;
    if (path.len == p.len)
        return true;
    return r->prefix && (p.len == 0 || p.ptr[p.len - 1] == '/' || path.ptr[p.len] == '/');
}

static bool method_matches(const struct bns_http_route *r, struct bns_slice method)
{
    if (strcmp(r->method, "*") == 0 || bns_slice_eq(method, bns_slice_str(r->method)))
        return true;
    return bns_slice_eq(method, BNS_LIT("HEAD")) && strcmp(r->method, "GET") == 0;
}

static size_t rank(const struct bns_http_route *r)
{
    return 4 * strlen(r->path) + (r->prefix ? 0 : 2) + (strcmp(r->method, "*") == 0 ? 0 : 1);
}

static void not_found(void *arg, struct bns_http_req *q)
{
    (void)arg;
    bns_http_reply_text(q, 404, "not found\n");
}

static int add_allow(const struct bns_http_server *s, struct bns_slice path, struct bns_buf *out)
{
    int rv = BNS_OK;

    for (size_t i = 0; i < s->tables_count; i++) {
        for (size_t j = 0; j < s->tables[i].n; j++) {
            const struct bns_http_route *r = &s->tables[i].v[j];
            if (!path_matches(r, path))
                continue;
            if (out->len > 0 && rv == BNS_OK)
                rv = bns_buf_str(out, ", ");
            if (rv == BNS_OK)
                rv = bns_buf_str(out, r->method);
        }
    }
    return rv;
}

static void not_allowed(void *arg, struct bns_http_req *q)
{
    struct bns_buf allow;

    (void)arg;
    bns_buf_init(&allow, q->env->alloc, 4096);
    if (q->c == NULL || add_allow(q->c->s, q->path, &allow) != BNS_OK ||
        bns_http_set_header(q, "Allow", bns_buf_slice(&allow)) != BNS_OK)
        bns_http_abort(q); /* an answer without the header would be wrong */
    else
        bns_http_reply_text(q, 405, "method not allowed\n");
    bns_buf_free(&allow);
}

const struct bns_http_route *bns_http_find_route(const struct bns_http_server *s,
                                                 struct bns_slice method, struct bns_slice path)
{
    static const struct bns_http_route missing = {.method = "*", .path = "", .fn = not_found};
    static const struct bns_http_route other = {.method = "*", .path = "", .fn = not_allowed};
    const struct bns_http_route *best = NULL;
    bool known = false;

    for (size_t i = 0; i < s->tables_count; i++) {
        for (size_t j = 0; j < s->tables[i].n; j++) {
            const struct bns_http_route *r = &s->tables[i].v[j];
            if (!path_matches(r, path))
                continue;
            known = true;
            if (method_matches(r, method) && (best == NULL || rank(r) > rank(best)))
                best = r;
        }
    }
    if (best != NULL)
        return best;
    return known ? &other : &missing;
}
