/* image.c - see image.h.
 *
 * A topic stands in a skip list by its name, and in a hash map by its id. Its name is behind it in
 * the same block, its partitions are one array, the nodes of each partition one block. What was set
 * for brokers stands in a small array sorted by name: there are as many as somebody configured.
 *
 * A record is checked against the image first, then memory is taken, then the image changes: an
 * error leaves it as it was.
 */
#include "meta/image.h"

#define BROKERS_MAX 4096u

struct broker {
    struct bns_slice name;
    struct kafka_config_set configs;
};

struct kafka_image {
    const struct bns_alloc *alloc;
    struct bns_skiplist by_name;
    struct bns_hmap by_id;
    struct broker *brokers;
    size_t brokers_count;
    uint64_t partitions;
    int64_t producer_next;
};

#define TOPIC_OF_NAME(node) BNS_CONTAINER(node, struct kafka_topic, by_name)

static uint64_t hash_id(const struct kafka_uuid *id)
{
    return bns_hash(0, id->bytes, sizeof id->bytes); /* ids are ours: nobody aims at them */
}

/* ---- configurations ------------------------------------------------------------------------- */

static uint32_t config_place(const struct kafka_config_set *s, struct bns_slice key, bool *there)
{
    uint32_t lo = 0, hi = s->count;

    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        int c = bns_slice_cmp(s->entries[mid].key, key);
        if (c == 0) {
            *there = true;
            return mid;
        }
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *there = false;
    return lo;
}

const struct kafka_config_entry *kafka_config_find(const struct kafka_config_set *s,
                                                   struct bns_slice key)
{
    bool there = false;
    uint32_t at = s == NULL ? 0 : config_place(s, key, &there);

    return there ? &s->entries[at] : NULL;
}

static void config_free(const struct bns_alloc *a, struct kafka_config_set *s)
{
    for (uint32_t i = 0; i < s->count; i++)
        bns_free(a, (void *)(uintptr_t)s->entries[i].key.ptr);
    bns_free(a, s->entries);
    *s = (struct kafka_config_set){.count = 0};
}

/* Key and value are one block, which the key's pointer owns. */
static int entry_new(const struct bns_alloc *a, const struct kafka_meta_record *r,
                     struct kafka_config_entry *out)
{
    uint8_t *block = bns_alloc(a, r->key.len + r->value.len + 1);

    if (block == NULL)
        return BNS_E_NOMEM;
    if (r->key.len > 0)
        memcpy(block, r->key.ptr, r->key.len);
    if (r->value.len > 0)
        memcpy(block + r->key.len, r->value.ptr, r->value.len);
    out->key = bns_slice(block, r->key.len);
    out->value = bns_slice(block + r->key.len, r->value.len);
    return BNS_OK;
}

static int config_room(const struct bns_alloc *a, struct kafka_config_set *s)
{
    uint32_t cap = s->cap == 0 ? 4 : s->cap * 2;
    struct kafka_config_entry *e;

    if (s->count < s->cap)
        return BNS_OK;
    e = bns_resize(a, s->entries, cap * sizeof *e);
    if (e == NULL)
        return BNS_E_NOMEM;
    s->entries = e;
    s->cap = cap;
    return BNS_OK;
}

static int config_set(const struct bns_alloc *a, struct kafka_config_set *s,
                      const struct kafka_meta_record *r)
{
    struct kafka_config_entry e;
    bool there;
    uint32_t at = config_place(s, r->key, &there);

    if (r->value.ptr == NULL) {
        if (there) {
            bns_free(a, (void *)(uintptr_t)s->entries[at].key.ptr);
            s->count--;
            memmove(&s->entries[at], &s->entries[at + 1], (s->count - at) * sizeof e);
        }
        return BNS_OK;
    }
    if ((!there && config_room(a, s) != BNS_OK) || entry_new(a, r, &e) != BNS_OK)
        return BNS_E_NOMEM;
    if (there) {
        bns_free(a, (void *)(uintptr_t)s->entries[at].key.ptr);
    } else {
        memmove(&s->entries[at + 1], &s->entries[at], (s->count - at) * sizeof e);
        s->count++;
    }
    s->entries[at] = e;
    return BNS_OK;
}

/* Where a broker is or would be. */
static size_t broker_place(const struct kafka_image *m, struct bns_slice name, bool *there)
{
    size_t i = 0;

    while (i < m->brokers_count && bns_slice_cmp(m->brokers[i].name, name) < 0)
        i++;
    *there = i < m->brokers_count && bns_slice_eq(m->brokers[i].name, name);
    return i;
}

static int broker_add(struct kafka_image *m, size_t at, struct bns_slice name)
{
    struct broker *grown;
    uint8_t *copy = bns_alloc(m->alloc, name.len + 1);

    if (copy == NULL)
        return BNS_E_NOMEM;
    grown = bns_resize(m->alloc, m->brokers, (m->brokers_count + 1) * sizeof *grown);
    if (grown == NULL) {
        bns_free(m->alloc, copy);
        return BNS_E_NOMEM;
    }
    m->brokers = grown;
    if (name.len > 0)
        memcpy(copy, name.ptr, name.len);
    memmove(grown + at + 1, grown + at, (m->brokers_count - at) * sizeof *grown);
    grown[at] = (struct broker){.name = bns_slice(copy, name.len)};
    m->brokers_count++;
    return BNS_OK;
}

static void broker_del(struct kafka_image *m, size_t at)
{
    config_free(m->alloc, &m->brokers[at].configs);
    bns_free(m->alloc, (void *)(uintptr_t)m->brokers[at].name.ptr);
    m->brokers_count--;
    memmove(m->brokers + at, m->brokers + at + 1, (m->brokers_count - at) * sizeof *m->brokers);
}

static int apply_broker_config(struct kafka_image *m, const struct kafka_meta_record *r,
                               struct bns_err *err)
{
    bool there;
    size_t at = broker_place(m, r->name, &there);
    int rv;

    if (!there && r->value.ptr == NULL)
        return BNS_OK;
    if (!there && m->brokers_count == BROKERS_MAX)
        return bns_err_set(err, BNS_E_CORRUPT, "metadata: over %u brokers are configured",
                           BROKERS_MAX);
    rv = there ? BNS_OK : broker_add(m, at, r->name);
    if (rv == BNS_OK)
        rv = config_set(m->alloc, &m->brokers[at].configs, r);
    if (at < m->brokers_count && bns_slice_eq(m->brokers[at].name, r->name) &&
        m->brokers[at].configs.count == 0)
        broker_del(m, at);
    return rv == BNS_OK ? rv : bns_err_set(err, rv, "metadata: out of memory");
}

/* ---- topics --------------------------------------------------------------------------------- */

static struct kafka_topic *topic_by_id(const struct kafka_image *m, const struct kafka_uuid *id)
{
    struct bns_hnode *n = bns_hmap_find(&m->by_id, hash_id(id));

    for (; n != NULL; n = bns_hmap_find_next(n)) {
        struct kafka_topic *t = BNS_CONTAINER(n, struct kafka_topic, by_id);
        if (memcmp(t->id.bytes, id->bytes, sizeof id->bytes) == 0)
            return t;
    }
    return NULL;
}

static void topic_free(struct kafka_image *m, struct kafka_topic *t)
{
    for (int32_t i = 0; i < t->partitions_count; i++)
        bns_free(m->alloc, (void *)(uintptr_t)t->partitions[i].replicas);
    bns_free(m->alloc, t->partitions);
    config_free(m->alloc, &t->configs);
    bns_free(m->alloc, t);
}

static int text_of(const struct kafka_uuid *id, struct bns_err *err, int rv, const char *what)
{
    return bns_err_set(err, rv, "metadata: topic with id %02x%02x%02x%02x...: %s", id->bytes[0],
                       id->bytes[1], id->bytes[2], id->bytes[3], what);
}

static int apply_topic(struct kafka_image *m, const struct kafka_meta_record *r,
                       struct bns_err *err)
{
    uint8_t levels = bns_skip_draw_levels(&m->by_name);
    size_t bytes = bns_skip_node_bytes(offsetof(struct kafka_topic, by_name), levels);
    struct kafka_topic *t;
    uint8_t *name;
    int rv;

    if (bns_skip_find(&m->by_name, r->name) != NULL)
        return text_of(&r->id, err, BNS_E_CORRUPT, "its name is taken");
    if (topic_by_id(m, &r->id) != NULL)
        return text_of(&r->id, err, BNS_E_CORRUPT, "its id is taken");
    t = bns_alloc_zero(m->alloc, bytes + r->name.len);
    if (t == NULL)
        return text_of(&r->id, err, BNS_E_NOMEM, "out of memory");
    name = (uint8_t *)t + bytes;
    memcpy(name, r->name.ptr, r->name.len);
    t->id = r->id;
    t->name = bns_slice(name, r->name.len);
    t->by_name.key = name;
    t->by_name.key_len = (uint32_t)r->name.len;
    t->by_name.levels = levels;
    if (bns_hmap_insert(&m->by_id, &t->by_id, hash_id(&t->id)) != BNS_OK) {
        bns_free(m->alloc, t);
        return text_of(&r->id, err, BNS_E_NOMEM, "out of memory");
    }
    rv = bns_skip_insert(&m->by_name, &t->by_name);
    BNS_ASSERT(rv == BNS_OK); /* the name was not there */
    return BNS_OK;
}

static int partitions_room(struct kafka_image *m, struct kafka_topic *t)
{
    int32_t cap = t->partitions_cap == 0 ? 1 : t->partitions_cap * 2;
    struct kafka_partition_state *p;

    if (t->partitions_count < t->partitions_cap)
        return BNS_OK;
    p = bns_resize(m->alloc, t->partitions, (size_t)cap * sizeof *p);
    if (p == NULL)
        return BNS_E_NOMEM;
    t->partitions = p;
    t->partitions_cap = cap;
    return BNS_OK;
}

static int apply_partition(struct kafka_image *m, const struct kafka_meta_record *r,
                           struct bns_err *err)
{
    const struct kafka_partition_state *p = &r->partition;
    struct kafka_topic *t = topic_by_id(m, &r->id);
    size_t count = p->replicas_count + p->isr_count;
    int32_t *nodes;

    if (t == NULL)
        return text_of(&r->id, err, BNS_E_CORRUPT, "a partition of a topic that is not there");
    if (p->index > t->partitions_count)
        return text_of(&r->id, err, BNS_E_CORRUPT, "a partition out of order");
    nodes = bns_alloc(m->alloc, (count + 1) * sizeof *nodes);
    if (nodes == NULL)
        return text_of(&r->id, err, BNS_E_NOMEM, "out of memory");
    if (p->index == t->partitions_count && partitions_room(m, t) != BNS_OK) {
        bns_free(m->alloc, nodes);
        return text_of(&r->id, err, BNS_E_NOMEM, "out of memory");
    }
    if (p->replicas_count > 0)
        memcpy(nodes, p->replicas, p->replicas_count * sizeof *nodes);
    if (p->isr_count > 0)
        memcpy(nodes + p->replicas_count, p->isr, p->isr_count * sizeof *nodes);
    if (p->index == t->partitions_count) {
        t->partitions_count++;
        m->partitions++;
    } else {
        bns_free(m->alloc, (void *)(uintptr_t)t->partitions[p->index].replicas);
    }
    t->partitions[p->index] = *p;
    t->partitions[p->index].replicas = nodes;
    t->partitions[p->index].isr = nodes + p->replicas_count;
    return BNS_OK;
}

static int apply_remove(struct kafka_image *m, const struct kafka_meta_record *r,
                        struct bns_err *err)
{
    struct kafka_topic *t = topic_by_id(m, &r->id);
    struct bns_skip_node *n;

    if (t == NULL)
        return text_of(&r->id, err, BNS_E_CORRUPT, "it is to go, and is not there");
    m->partitions -= (uint64_t)t->partitions_count;
    n = bns_skip_del(&m->by_name, t->name);
    BNS_ASSERT(n == &t->by_name); /* the same by its name as by its id */
    bns_hmap_del(&m->by_id, &t->by_id);
    topic_free(m, t);
    return BNS_OK;
}

static int apply_topic_config(struct kafka_image *m, const struct kafka_meta_record *r,
                              struct bns_err *err)
{
    struct bns_skip_node *n = bns_skip_find(&m->by_name, r->name);

    if (n == NULL)
        return bns_err_set(err, BNS_E_CORRUPT,
                           "metadata: configuration of a topic that is not there");
    if (config_set(m->alloc, &TOPIC_OF_NAME(n)->configs, r) != BNS_OK)
        return bns_err_set(err, BNS_E_NOMEM, "metadata: out of memory");
    return BNS_OK;
}

int kafka_image_apply(struct kafka_image *m, const struct kafka_meta_record *r, struct bns_err *err)
{
    switch (r->kind) {
    case KAFKA_RECORD_TOPIC:
        return apply_topic(m, r, err);
    case KAFKA_RECORD_PARTITION:
        return apply_partition(m, r, err);
    case KAFKA_RECORD_REMOVE_TOPIC:
        return apply_remove(m, r, err);
    case KAFKA_RECORD_CONFIG:
        return r->resource == KAFKA_RESOURCE_TOPIC ? apply_topic_config(m, r, err)
                                                   : apply_broker_config(m, r, err);
    case KAFKA_RECORD_PRODUCER_IDS:
        if (r->next < m->producer_next)
            return bns_err_set(err, BNS_E_CORRUPT, "metadata: producer ids that were given out");
        m->producer_next = r->next;
        return BNS_OK;
    }
    return bns_err_set(err, BNS_E_CORRUPT, "metadata: a record of kind %d", (int)r->kind);
}

/* ---- look-ups ------------------------------------------------------------------------------- */

const struct kafka_topic *kafka_image_topic(const struct kafka_image *m, struct bns_slice name)
{
    struct bns_skip_node *n = bns_skip_find(&m->by_name, name);

    return n == NULL ? NULL : TOPIC_OF_NAME(n);
}

const struct kafka_topic *kafka_image_topic_by_id(const struct kafka_image *m,
                                                  const struct kafka_uuid *id)
{
    return topic_by_id(m, id);
}

const struct kafka_topic *kafka_image_topic_from(const struct kafka_image *m, struct bns_slice name)
{
    struct bns_skip_node *n = bns_skip_seek(&m->by_name, name);

    return n == NULL ? NULL : TOPIC_OF_NAME(n);
}

const struct kafka_topic *kafka_image_topic_next(const struct kafka_topic *t)
{
    struct bns_skip_node *n = bns_skip_next(&t->by_name);

    return n == NULL ? NULL : TOPIC_OF_NAME(n);
}

size_t kafka_image_topics(const struct kafka_image *m)
{
    return m->by_name.count;
}

uint64_t kafka_image_partitions(const struct kafka_image *m)
{
    return m->partitions;
}

int64_t kafka_image_producer_next(const struct kafka_image *m)
{
    return m->producer_next;
}

const struct kafka_config_set *kafka_image_configs(const struct kafka_image *m, int8_t resource,
                                                   struct bns_slice name)
{
    bool there;
    size_t at;

    if (resource == KAFKA_RESOURCE_TOPIC) {
        const struct kafka_topic *t = kafka_image_topic(m, name);
        return t == NULL ? NULL : &t->configs;
    }
    at = broker_place(m, name, &there);
    return there ? &m->brokers[at].configs : NULL;
}

bool kafka_image_broker(const struct kafka_image *m, size_t i, struct bns_slice *name)
{
    if (i >= m->brokers_count)
        return false;
    *name = m->brokers[i].name;
    return true;
}

/* ---- as records ----------------------------------------------------------------------------- */

static int write_configs(const struct kafka_config_set *s, int8_t resource, struct bns_slice name,
                         struct bns_buf *b)
{
    struct kafka_meta_record r = {.kind = KAFKA_RECORD_CONFIG, .resource = resource, .name = name};
    int rv = BNS_OK;

    for (uint32_t i = 0; i < s->count && rv == BNS_OK; i++) {
        r.key = s->entries[i].key;
        r.value = s->entries[i].value;
        rv = kafka_meta_record_add(b, &r);
    }
    return rv;
}

enum { STEP_BROKERS, STEP_FIRST, STEP_TOPIC, STEP_PARTITIONS };

static int write_brokers(const struct kafka_image *m, struct kafka_image_cursor *c,
                         struct bns_buf *b)
{
    struct kafka_meta_record r = {.kind = KAFKA_RECORD_PRODUCER_IDS, .next = m->producer_next};

    if (c->at < m->brokers_count) {
        const struct broker *k = &m->brokers[c->at++];
        return write_configs(&k->configs, KAFKA_RESOURCE_BROKER, k->name, b);
    }
    c->step = STEP_FIRST;
    return kafka_meta_record_add(b, &r);
}

static int write_topic(struct kafka_image_cursor *c, struct bns_buf *b)
{
    const struct kafka_topic *t = c->topic;
    struct kafka_meta_record r = {.kind = KAFKA_RECORD_TOPIC, .id = t->id, .name = t->name};
    int rv = kafka_meta_record_add(b, &r);

    c->step = STEP_PARTITIONS;
    c->at = 0;
    return rv == BNS_OK ? write_configs(&t->configs, KAFKA_RESOURCE_TOPIC, t->name, b) : rv;
}

static int write_partition(struct kafka_image_cursor *c, struct bns_buf *b)
{
    const struct kafka_topic *t = c->topic;
    struct kafka_meta_record r = {.kind = KAFKA_RECORD_PARTITION, .id = t->id};

    if (c->at == (uint32_t)t->partitions_count) {
        c->topic = kafka_image_topic_next(t);
        c->step = STEP_TOPIC;
        return BNS_OK;
    }
    r.partition = t->partitions[c->at++];
    return kafka_meta_record_add(b, &r);
}

int kafka_image_write(const struct kafka_image *m, struct kafka_image_cursor *c, size_t bytes,
                      struct bns_buf *b)
{
    int rv = BNS_OK;

    while (rv == BNS_OK && !c->over && b->len < bytes) {
        if (c->step == STEP_BROKERS) {
            rv = write_brokers(m, c, b);
        } else if (c->step == STEP_FIRST) {
            c->topic = kafka_image_topic_from(m, bns_slice(NULL, 0));
            c->step = STEP_TOPIC;
        } else if (c->topic == NULL) {
            c->over = true;
        } else if (c->step == STEP_TOPIC) {
            rv = write_topic(c, b);
        } else {
            rv = write_partition(c, b);
        }
    }
    return rv;
}

/* ---- life ----------------------------------------------------------------------------------- */

int kafka_image_new(const struct bns_alloc *alloc, struct kafka_image **out)
{
    struct kafka_image *m = bns_alloc_zero(alloc, sizeof *m);

    *out = m;
    if (m == NULL)
        return BNS_E_NOMEM;
    m->alloc = alloc;
    bns_skip_init(&m->by_name, 1);
    bns_hmap_init(&m->by_id, alloc);
    return BNS_OK;
}

void kafka_image_free(struct kafka_image *m)
{
    struct bns_skip_node *n, *next;

    if (m == NULL)
        return;
    for (n = bns_skip_first(&m->by_name); n != NULL; n = next) {
        next = bns_skip_next(n);
        topic_free(m, TOPIC_OF_NAME(n));
    }
    while (m->brokers_count > 0)
        broker_del(m, m->brokers_count - 1);
    bns_free(m->alloc, m->brokers);
    bns_hmap_free(&m->by_id);
    bns_free(m->alloc, m);
}
