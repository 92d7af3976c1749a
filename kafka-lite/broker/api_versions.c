/* api_versions.c - ApiVersions: what is served, of which versions.
 *
 * A client that asks it at a version we do not have gets an answer of version 0 with error 35 and
 * the whole list (KIP-511), and asks again. From version 3 on a client tells what it is; a name
 * that could break a log line is an error.
 */
#include <ctype.h>

#include "broker/conn.h"
#include "broker/handlers.h"

/* [a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])? */
static bool good_name(struct bns_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        bool inner = i > 0 && i + 1 < s.len;

        if (!isalnum(s.ptr[i]) && !(inner && (s.ptr[i] == '.' || s.ptr[i] == '-')))
            return false;
    }
    return s.len > 0;
}

static void remember(struct kafka_request *q, const struct kafka_api_versions_request *m)
{
    struct bns_slice name = m->client_software_name, version = m->client_software_version;
    char *dst;

    if (q->conn == NULL)
        return;
    dst = q->conn->software;
    if (name.len > 40)
        name.len = 40;
    if (version.len > 20)
        version.len = 20;
    memcpy(dst, name.ptr, name.len);
    dst[name.len] = ' ';
    memcpy(dst + name.len + 1, version.ptr, version.len);
    dst[name.len + 1 + version.len] = '\0';
}

void kafka_handle_api_versions(struct kafka_request *q)
{
    const struct kafka_api_versions_request *m = q->msg;
    struct kafka_api_versions_response *r = kafka_response_new(q);
    size_t count;
    const struct kafka_entry *e = kafka_server_entries(q->server, &count);

    if (r == NULL) {
        kafka_reply_close(q, "out of memory");
        return;
    }
    if (q->form.version >= 3) {
        if (!good_name(m->client_software_name) || !good_name(m->client_software_version)) {
            r->error_code = KAFKA_ERR_INVALID_REQUEST;
            kafka_reply(q, r);
            return;
        }
        remember(q, m);
    }
    r->error_code = q->unsupported ? KAFKA_ERR_UNSUPPORTED_VERSION : KAFKA_ERR_NONE;
    r->api_keys.at = kafka_request_array(q, (int32_t)count, sizeof *r->api_keys.at);
    if (r->api_keys.at == NULL) {
        kafka_reply_close(q, "out of memory");
        return;
    }
    r->api_keys.count = (int32_t)count;
    for (size_t i = 0; i < count; i++) {
        r->api_keys.at[i].api_key = e[i].key;
        r->api_keys.at[i].min_version = e[i].shown_first;
        r->api_keys.at[i].max_version = e[i].last;
    }
    r->finalized_features_epoch = 0;
    kafka_reply(q, r);
}
