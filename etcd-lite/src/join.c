/* join.c - a new member asks the cluster who it is.
 *
 * GET /members on the peer port of one that is there already (peer_http.c; a real etcd answers the
 * same). The member in the list that has our peer URLs is us; the others must be the ones that the
 * flags name, or the flags are those of another cluster.
 */
#include "join.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "io/http.h"
#include "secure.h"

#define LIST_MAX (1024u * 1024)
#define TRY_NS (2 * BNS_SEC)
#define RETRY_NS (200 * BNS_MS)
#define GIVE_UP_NS (10 * BNS_SEC)

struct etcd_join {
    struct bns_env *env;
    const struct etcd_options *opt;
    struct etcd_secure secure;
    etcd_join_done *done;
    void *arg;
    struct bns_http_fetch *fetch;
    struct bns_timer timer;
    uint64_t give_up_ns;
    size_t member, url; /* who is asked next */
    struct etcd_identity who;
    struct bns_err err;
    int refused; /* by the last one that answered; 0: nobody has */
    struct bns_err why;
};

/* ---- the list ------------------------------------------------------------------------------- */

static int take_member(const json_t *o, struct etcd_roster_member *m, struct bns_err *err)
{
    const json_t *id = json_object_get(o, "id"), *urls = json_object_get(o, "peerURLs");

    /* ids of 64 bits come as texts: see etcd_join_parse */
    if (!json_is_string(id) || !json_is_array(urls) || json_array_size(urls) == 0 ||
        json_array_size(urls) > ETCD_URLS_MAX)
        return bns_err_set(err, BNS_E_PROTO, "a member without id or peer URLs");
    errno = 0;
    m->id = strtoull(json_string_value(id), NULL, 10);
    if (m->id == 0 || errno != 0)
        return bns_err_set(err, BNS_E_PROTO, "a member with an id that cannot be");
    m->learner = json_is_true(json_object_get(o, "isLearner"));
    for (size_t u = 0; u < json_array_size(urls); u++) {
        const char *url = json_string_value(json_array_get(urls, u));
        struct etcd_url parts;

        if (url == NULL || strlen(url) >= ETCD_URL_MAX ||
            etcd_url_parse(url, &parts, NULL) != BNS_OK)
            return bns_err_set(err, BNS_E_PROTO, "a member with a peer URL that is none");
        memcpy(m->peer_urls.url[m->peer_urls.count++], url, strlen(url) + 1);
    }
    return BNS_OK;
}

/* jansson's integers have 63 bits, ids 64: "id":123 becomes "id":"123". Members are written by
 * programs, without blanks; others are refused. */
static char *quote_ids(const char *text, size_t len)
{
    char *out = malloc(2 * len + 1);
    size_t n = 0;

    for (size_t i = 0; out != NULL && i < len;) {
        bool id = len - i > 5 && memcmp(text + i, "\"id\":", 5) == 0;

        if (!id) {
            out[n++] = text[i++];
            continue;
        }
        memcpy(out + n, "\"id\":\"", 6);
        n += 6;
        for (i += 5; i < len && text[i] >= '0' && text[i] <= '9';)
            out[n++] = text[i++];
        out[n++] = '"';
    }
    if (out != NULL)
        out[n] = 0;
    return out;
}

int etcd_join_parse(const char *text, size_t len, struct etcd_roster *out, struct bns_err *err)
{
    char *quoted = len > LIST_MAX ? NULL : quote_ids(text, len);
    json_t *list = quoted == NULL ? NULL : json_loads(quoted, 0, NULL);
    int rv = BNS_OK;

    memset(out, 0, sizeof *out);
    if (len > LIST_MAX)
        rv = bns_err_set(err, BNS_E_TOOBIG, "a list of members of %zu bytes", len);
    else if (quoted == NULL)
        rv = bns_err_set(err, BNS_E_NOMEM, "no memory for a list of members");
    else if (!json_is_array(list) || json_array_size(list) == 0)
        rv = bns_err_set(err, BNS_E_PROTO, "no list of members");
    else if (json_array_size(list) > ETCD_ROSTER_MAX)
        rv = bns_err_set(err, BNS_E_TOOBIG, "%zu members: %d are possible", json_array_size(list),
                         ETCD_ROSTER_MAX);
    for (size_t i = 0; rv == BNS_OK && i < json_array_size(list); i++)
        rv = take_member(json_array_get(list, i), &out->member[out->count++], err);
    json_decref(list);
    free(quoted);
    return rv;
}

/* ---- who is who ----------------------------------------------------------------------------- */

static bool same_urls(const struct etcd_urls *a, const struct etcd_urls *b)
{
    size_t same = 0;

    for (size_t i = 0; i < a->count; i++) {
        for (size_t k = 0; k < b->count; k++)
            same += strcmp(a->url[i], b->url[k]) == 0;
    }
    return a->count == b->count && same == a->count;
}

static const struct etcd_roster_member *with_urls(const struct etcd_roster *r,
                                                  const struct etcd_urls *urls)
{
    for (size_t i = 0; i < r->count; i++) {
        if (same_urls(&r->member[i].peer_urls, urls))
            return &r->member[i];
    }
    return NULL;
}

static int find_self(struct etcd_join *j)
{
    const struct etcd_options *o = j->opt;
    const struct etcd_roster *r = &j->who.told;
    const struct etcd_roster_member *self = with_urls(r, &o->self->peer_urls);

    if (r->count != o->members.count)
        return bns_err_set(&j->err, BNS_E_INVALID,
                           "error validating peerURLs: member count is unequal: the cluster has "
                           "%zu members, --initial-cluster %zu",
                           r->count, o->members.count);
    for (size_t i = 0; i < o->members.count; i++) {
        const struct etcd_member *m = &o->members.member[i];

        if (with_urls(r, &m->peer_urls) == NULL)
            return bns_err_set(&j->err, BNS_E_INVALID,
                               "error validating peerURLs: unmatched member while checking "
                               "PeerURLs: the cluster has nobody at %s (%s in --initial-cluster)",
                               m->peer_urls.url[0], m->name);
    }
    if (self == NULL) /* it was among them */
        return bns_err_set(&j->err, BNS_E_INVALID, "this member is not in the cluster's list");
    j->who.member_id = self->id;
    j->who.joined = true;
    return BNS_OK;
}

/* ---- asking --------------------------------------------------------------------------------- */

static void ask(struct etcd_join *j);

static void next(struct etcd_join *j)
{
    if (++j->url < j->opt->members.member[j->member].peer_urls.count)
        return;
    j->url = 0;
    j->member = (j->member + 1) % j->opt->members.count;
}

static void answered(void *arg, int code, const struct bns_http_answer *a)
{
    struct etcd_join *j = arg;
    struct bns_slice cluster = {0};
    char hex[20] = "";

    j->fetch = NULL;
    if (code == BNS_OK && a->status == 200 &&
        bns_http1_find(a->head, "x-etcd-cluster-id", &cluster) && cluster.len < sizeof hex) {
        memcpy(hex, cluster.ptr, cluster.len);
        j->who.cluster_id = strtoull(hex, NULL, 16);
        if (j->who.cluster_id == 0)
            code = BNS_E_PROTO;
        else
            code = etcd_join_parse((const char *)a->body.ptr, a->body.len, &j->who.told, &j->err);
        if (code == BNS_OK)
            code = find_self(j);
        if (code == BNS_OK) {
            j->done(j->arg, code, &j->who, &j->err);
            return;
        }
        j->refused = code; /* maybe it lags: the next is asked */
        j->why = j->err;
        memset(&j->who, 0, sizeof j->who);
    }
    if (bns_now_ns(j->env) >= j->give_up_ns) {
        if (j->refused == BNS_OK)
            j->refused = bns_err_set(&j->why, BNS_E_DROPPED,
                                     "cannot fetch cluster info from peer urls: could not "
                                     "retrieve cluster information from the given URLs "
                                     "(--initial-cluster)");
        j->done(j->arg, j->refused, NULL, &j->why);
        return;
    }
    next(j);
    bns_timer_start(j->env, &j->timer, bns_now_ns(j->env) + RETRY_NS);
}

static void ask(struct etcd_join *j)
{
    const struct etcd_members *m = &j->opt->members;
    struct bns_http_fetch_opts o = {.target = "/members", .timeout_ns = TRY_NS};
    struct etcd_url u = {0};

    if (&m->member[j->member] == j->opt->self)
        j->member = (j->member + 1) % m->count;
    o.body_bytes_max = LIST_MAX;
    if (etcd_url_parse(m->member[j->member].peer_urls.url[j->url], &u, &j->err) == BNS_OK) {
        o.host = u.host;
        o.port = u.port;
        o.tls = u.tls ? j->secure.peer : NULL;
        if (bns_http_fetch(j->env, &o, answered, j, &j->fetch, &j->err) == BNS_OK)
            return;
    }
    answered(j, BNS_E_DROPPED, NULL);
}

static void on_timer(void *arg)
{
    ask(arg);
}

int etcd_join(struct bns_env *env, const struct etcd_options *opt, etcd_join_done *done, void *arg,
              struct etcd_join **out, struct bns_err *err)
{
    struct etcd_join *j;
    int rv;

    if (opt->members.count < 2)
        return bns_err_set(err, BNS_E_INVALID,
                           "--initial-cluster-state existing: --initial-cluster must name the "
                           "members that are there already, and this one");
    j = bns_alloc_zero(env->alloc, sizeof *j);
    if (j == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "out of memory");
    j->env = env;
    j->opt = opt;
    j->done = done;
    j->arg = arg;
    j->give_up_ns = bns_now_ns(env) + GIVE_UP_NS;
    bns_timer_init(&j->timer, on_timer, j);
    rv = etcd_secure_open(env, &opt->secure, &j->secure, err);
    if (rv != BNS_OK) {
        bns_free(env->alloc, j);
        return rv;
    }
    *out = j;
    bns_timer_start(env, &j->timer, bns_now_ns(env));
    return BNS_OK;
}

static void stopped(void *arg)
{
    struct etcd_join *j = arg;

    etcd_secure_free(&j->secure);
    bns_free(j->env->alloc, j);
}

void etcd_join_free(struct etcd_join *j)
{
    if (j == NULL)
        return;
    bns_timer_stop(j->env, &j->timer);
    if (j->fetch != NULL)
        bns_http_fetch_cancel(j->fetch);
    etcd_secure_stop(&j->secure, stopped, j);
}
