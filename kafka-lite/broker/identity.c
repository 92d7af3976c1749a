/* identity.c - which cluster this directory is of: meta.properties, read before anything else is.
 * */
#include <inttypes.h>
#include <stdio.h>

#include "broker/broker.h"
#include "log/checkpoint.h"
#include "store/vfs.h"
#include "wire/uuid.h"

/* Kafka's random ids do not begin with a '-': they are arguments of its tools. */
static int random_id(struct bns_env *env, struct kafka_uuid *id, char text[KAFKA_UUID_TEXT])
{
    do {
        int rv = bns_entropy(env, id->bytes, sizeof id->bytes);

        if (rv != BNS_OK)
            return rv;
        id->bytes[6] = (uint8_t)((id->bytes[6] & 0x0f) | 0x40);
        id->bytes[8] = (uint8_t)((id->bytes[8] & 0x3f) | 0x80);
        kafka_uuid_text(id, text);
    } while (text[0] == '-');
    return BNS_OK;
}

static int make(struct kafka_broker *b, struct kafka_dir_id *m, struct bns_err *err)
{
    struct kafka_uuid id;
    char text[KAFKA_UUID_TEXT];
    int rv;

    if (b->cfg.cluster_id[0] != '\0' && !kafka_uuid_parse(&id, bns_slice_str(b->cfg.cluster_id)))
        return bns_err_set(err, BNS_E_INVALID, "cluster.id: \"%s\" is not one of 22 letters",
                           b->cfg.cluster_id);
    rv = random_id(b->env, &id, text);
    if (rv == BNS_OK && b->cfg.cluster_id[0] == '\0') {
        (void)snprintf(m->directory_id, sizeof m->directory_id, "%s", text); /* they fit */
        rv = random_id(b->env, &id, text);
        (void)snprintf(m->cluster_id, sizeof m->cluster_id, "%s", text);
    } else {
        (void)snprintf(m->directory_id, sizeof m->directory_id, "%s", text);
        (void)snprintf(m->cluster_id, sizeof m->cluster_id, "%s", b->cfg.cluster_id);
    }
    (void)snprintf(m->node_id, sizeof m->node_id, "%" PRId32, b->cfg.node_id);
    return rv == BNS_OK ? rv : bns_err_set(err, rv, "no random bytes for an id");
}

int kafka_identity(struct kafka_broker *b, struct bns_err *err)
{
    struct kafka_dir_id m = {0};
    struct bns_buf text;
    char path[BNS_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/meta.properties", b->cfg.data_dir);
    int rv;

    if (n < 0 || (size_t)n >= sizeof path)
        return bns_err_set(err, BNS_E_INVALID, "%s: the path is too long", b->cfg.data_dir);
    bns_buf_init(&text, b->env->alloc, 65536);
    rv = kafka_file_load(b->env->vfs, b->cfg.data_dir, "meta.properties", &text, err);
    if (rv == BNS_OK) {
        rv = kafka_meta_parse(bns_buf_slice(&text), &m, err);
    } else if (rv == BNS_E_NOTFOUND) {
        rv = make(b, &m, err);
        bns_buf_clear(&text);
        if (rv == BNS_OK)
            rv = kafka_meta_text(&text, &m);
        if (rv == BNS_OK)
            rv = kafka_file_replace(b->env->vfs, b->cfg.data_dir, "meta.properties",
                                    bns_buf_slice(&text), err);
    }
    bns_buf_free(&text);
    if (rv != BNS_OK)
        return rv;
    if (b->cfg.cluster_id[0] != '\0' && strcmp(b->cfg.cluster_id, m.cluster_id) != 0)
        return bns_err_set(err, BNS_E_INVALID, "%s: the directory is of cluster %s, not of %s",
                           path, m.cluster_id, b->cfg.cluster_id);
    if (!kafka_uuid_parse(&b->cluster, bns_slice_str(m.cluster_id)))
        return bns_err_set(err, BNS_E_INVALID, "%s: cluster.id \"%s\" is not one of 22 letters",
                           path, m.cluster_id);
    memcpy(b->cluster_text, m.cluster_id, sizeof b->cluster_text); /* as it was given */
    return BNS_OK;
}
