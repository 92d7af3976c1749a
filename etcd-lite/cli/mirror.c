/* mirror.c - make-mirror: the keys of a prefix, and then every change of them, in another cluster.
 *
 * First the keys as they were at one revision, page by page; a page's puts go out together. Then a
 * watch from the revision behind: each revision is one transaction at the destination (what deletes
 * more keys than a transaction may have is cut), one after the other. While some wait the watch is
 * not read, so no more than one of its messages is held. Leases are not mirrored. Any refusal ends
 * it, as with etcdctl. The count of keys and changes is printed every 30 seconds.
 */
#include "cli.h"

#include <inttypes.h>

#include "client/etcd/watch.h"
#include "io/env_uv.h"

#define PAGE 64      /* keys: of at most 1.5 MiB each, with the usual limits */
#define OPS_MAX 128u /* of a transaction, as etcd */
#define TELL_NS (30 * BNS_SEC)

struct batch { /* a transaction */
    struct bns_list node;
    struct bns_arena arena;
    Etcdserverpb__TxnRequest txn;
};

struct mirror {
    struct ctl *c, to; /* to: the destination's client and TLS */
    struct bns_slice prefix, dest;
    struct bns_etcd_watch *watch;
    struct bns_list batches;
    struct bns_timer tell;
    unsigned pending; /* calls under way at the destination */
    uint64_t total;
    int64_t revision;
    bool failed;
    int code;
};

static void fail(struct mirror *m, int code)
{
    if (!m->failed)
        m->code = code;
    m->failed = true;
    bns_env_uv_stop(m->c->env);
}

static void on_tell(void *arg)
{
    struct mirror *m = arg;

    (void)printf("%" PRIu64 "\n", m->total);
    (void)fflush(stdout); /* who reads along sees it now */
    bns_timer_start(m->c->env, &m->tell, bns_now_ns(m->c->env) + TELL_NS);
}

/* The key with the destination's prefix. */
static ProtobufCBinaryData moved(struct mirror *m, struct bns_arena *a,
                                 const ProtobufCBinaryData *key)
{
    struct bns_slice rest = bns_slice_skip(bns_slice(key->data, key->len), m->prefix.len);
    uint8_t *p = bns_arena_alloc(a, m->dest.len + rest.len + 1);

    BNS_ASSERT(p != NULL); /* the arena has no bound, and the process ends when memory does */
    if (m->dest.len > 0)
        memcpy(p, m->dest.ptr, m->dest.len);
    if (rest.len > 0)
        memcpy(p + m->dest.len, rest.ptr, rest.len);
    return (ProtobufCBinaryData){m->dest.len + rest.len, p};
}

/* ---- the keys that are there ----------------------------------------------------------------- */

static void put_told(void *arg, const struct bns_etcd_answer *a)
{
    struct mirror *m = arg;

    m->pending--;
    if (a->status != BNS_GRPC_OK)
        fail(m, m->failed ? m->code : ctl_reply_fail(m->c, a->status, a->text));
    m->total++;
    if (m->pending == 0)
        bns_env_uv_stop(m->c->env);
}

static void put_page(struct mirror *m, const Etcdserverpb__RangeResponse *r)
{
    for (size_t i = 0; i < r->n_kvs && !m->failed; i++) {
        ProtobufCBinaryData key = moved(m, &m->c->arena, &r->kvs[i]->key);
        struct bns_slice value = bns_slice(r->kvs[i]->value.data, r->kvs[i]->value.len);

        if (bns_etcd_put(m->to.etcd, bns_slice(key.data, key.len), value, 0, put_told, m) == BNS_OK)
            m->pending++;
        else
            fail(m, ctl_fail(CTL_ERROR, "out of memory"));
    }
    while (m->pending > 0)
        bns_env_uv_run(m->c->env); /* bounded by the timeout of the calls */
}

/* One page from *from on, which moves behind it; false: that was the last one. */
static bool copy_page(struct mirror *m, struct bns_buf *from, struct bns_slice end)
{
    Etcdserverpb__RangeRequest get = ETCDSERVERPB__RANGE_REQUEST__INIT;
    const Etcdserverpb__RangeResponse *r;
    struct ctl_scratch scratch = ctl_scratch(m->c);
    struct ctl_reply reply;
    bool more = false;

    get.has_key = get.has_range_end = get.has_limit = get.has_revision = true;
    get.key = (ProtobufCBinaryData){from->len, from->ptr};
    get.range_end = (ProtobufCBinaryData){end.len, (uint8_t *)(uintptr_t)end.ptr};
    get.limit = PAGE;
    get.revision = m->revision;
    reply = ctl_ask_at(m->c, m->c->etcd, BNS_ETCD_RANGE, &get.base);
    if (reply.status != BNS_GRPC_OK) {
        fail(m, ctl_reply_fail(m->c, reply.status, reply.text));
    } else {
        r = reply.msg;
        if (m->revision == 0 && r->header != NULL)
            m->revision = r->header->revision;
        put_page(m, r);
        more = r->more && r->n_kvs > 0 && !m->failed;
        if (more) {
            const ProtobufCBinaryData *last = &r->kvs[r->n_kvs - 1]->key;

            bns_buf_clear(from);
            BNS_ASSERT(bns_buf_add(from, last->data, last->len) == BNS_OK);
            BNS_ASSERT(bns_buf_byte(from, 0) == BNS_OK);
        }
    }
    ctl_scratch_end(m->c, scratch);
    return more;
}

/* ---- and then every change ------------------------------------------------------------------- */

static void free_batch(struct batch *b)
{
    struct bns_arena arena = b->arena;

    bns_arena_free(&arena); /* b lies in it */
}

static void send_next(struct mirror *m);

static void applied(void *arg, const struct bns_etcd_answer *a)
{
    struct mirror *m = arg;
    struct batch *b = BNS_CONTAINER(bns_list_pop(&m->batches), struct batch, node);

    m->pending--;
    m->total += b->txn.n_success;
    free_batch(b);
    if (a->status != BNS_GRPC_OK)
        fail(m, ctl_reply_fail(m->c, a->status, a->text));
    else if (bns_list_empty(&m->batches) && m->watch != NULL)
        bns_etcd_watch_read(m->watch, true);
    else
        send_next(m);
}

static void send_next(struct mirror *m)
{
    struct batch *b;
    struct bns_etcd_call_options o = {.method = BNS_ETCD_TXN};

    if (m->pending > 0 || m->failed || bns_list_empty(&m->batches))
        return;
    b = BNS_CONTAINER(m->batches.next, struct batch, node);
    o.request = &b->txn.base;
    if (bns_etcd_call(m->to.etcd, &o, applied, m, NULL) == BNS_OK)
        m->pending++;
    else
        fail(m, ctl_fail(CTL_ERROR, "out of memory"));
}

static ProtobufCBinaryData copy(struct bns_arena *a, const ProtobufCBinaryData *b)
{
    uint8_t *p = bns_arena_dup(a, b->len == 0 ? (const void *)"" : b->data, b->len);

    BNS_ASSERT(p != NULL);
    return (ProtobufCBinaryData){b->len, p};
}

static void add_op(struct mirror *m, struct batch *b, const Etcdserverpb__Event *e)
{
    struct {
        Etcdserverpb__RequestOp op;
        Etcdserverpb__PutRequest put;
        Etcdserverpb__DeleteRangeRequest del;
    } *o = bns_arena_alloc(&b->arena, sizeof *o);

    BNS_ASSERT(o != NULL);
    etcdserverpb__request_op__init(&o->op);
    if (e->type == ETCDSERVERPB__EVENT__EVENT_TYPE__DELETE) {
        etcdserverpb__delete_range_request__init(&o->del);
        o->del.has_key = true;
        o->del.key = moved(m, &b->arena, &e->kv->key);
        o->op.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
        o->op.request_delete_range = &o->del;
    } else {
        etcdserverpb__put_request__init(&o->put);
        o->put.has_key = o->put.has_value = true;
        o->put.key = moved(m, &b->arena, &e->kv->key);
        o->put.value = copy(&b->arena, &e->kv->value);
        o->op.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
        o->op.request_put = &o->put;
    }
    b->txn.success[b->txn.n_success++] = &o->op;
}

static struct batch *new_batch(struct mirror *m)
{
    struct bns_arena arena;
    struct batch *b;

    bns_arena_init(&arena, bns_alloc_libc(), SIZE_MAX);
    b = bns_arena_alloc(&arena, sizeof *b);
    BNS_ASSERT(b != NULL);
    b->arena = arena;
    etcdserverpb__txn_request__init(&b->txn);
    b->txn.success = bns_arena_alloc(&b->arena, OPS_MAX * sizeof *b->txn.success);
    BNS_ASSERT(b->txn.success != NULL);
    bns_list_push(&m->batches, &b->node);
    return b;
}

static void on_events(void *arg, const Etcdserverpb__WatchResponse *r)
{
    struct mirror *m = arg;
    struct batch *b = NULL;
    int64_t revision = 0;

    for (size_t i = 0; i < r->n_events; i++) {
        const Etcdserverpb__Event *e = r->events[i];

        if (e->kv == NULL)
            continue;
        if (b == NULL || e->kv->mod_revision != revision || b->txn.n_success == OPS_MAX)
            b = new_batch(m);
        revision = e->kv->mod_revision;
        add_op(m, b, e);
    }
    bns_etcd_watch_read(m->watch, false);
    send_next(m);
}

static void on_end(void *arg, int status, const char *text, int64_t compacted)
{
    struct mirror *m = arg;

    (void)compacted;
    m->watch = NULL;
    fail(m, ctl_reply_fail(m->c, status, text));
}

static void follow(struct mirror *m, struct bns_slice from, struct bns_slice end)
{
    static const struct bns_etcd_watch_handler handler = {.on_events = on_events, .on_end = on_end};
    const struct bns_etcd_watch_options o = {
        .key = from, .end = end, .start_revision = m->revision + 1, .handler = &handler, .arg = m};

    if (bns_etcd_watch_open(m->c->etcd, &o, &m->watch) != BNS_OK) {
        m->watch = NULL;
        m->code = ctl_fail(CTL_ERROR, "out of memory");
        return;
    }
    while (!m->failed)
        bns_env_uv_run(m->c->env); /* for ever, or until it fails */
    bns_etcd_watch_close(m->watch);
}

/* ---- the verb -------------------------------------------------------------------------------- */

static int connect_both(struct mirror *m, const char *dest)
{
    struct ctl_flags *f = &m->to.f;

    if (ctl_connect(m->c) != CTL_OK)
        return CTL_ARGS;
    m->to.program = m->c->program;
    m->to.env = m->c->env;
    *f = m->c->f;
    f->user = f->dest_user;
    f->password = f->dest_password;
    f->cacert = f->dest_cacert;
    f->cert = f->dest_cert;
    f->key = f->dest_key;
    f->insecure_transport = f->dest_insecure;
    f->skip_verify = false;
    f->discovery = ""; /* the records name the source */
    bns_arena_init(&m->to.arena, bns_alloc_libc(), SIZE_MAX);
    m->to.etcd = ctl_client(&m->to, &dest, 1);
    return m->to.etcd == NULL ? CTL_ARGS : CTL_OK;
}

static void run(struct mirror *m)
{
    struct ctl *c = m->c;
    struct bns_slice end;
    uint8_t *dst = bns_arena_alloc(&c->arena, m->prefix.len + 1);
    struct bns_slice first = m->prefix.len == 0 ? bns_slice("", 1) : m->prefix;
    struct bns_buf from;

    BNS_ASSERT(dst != NULL);
    end = bns_etcd_prefix_end(m->prefix, dst);
    bns_buf_init(&from, bns_alloc_libc(), SIZE_MAX);
    BNS_ASSERT(bns_buf_add(&from, first.ptr, first.len) == BNS_OK);
    bns_timer_init(&m->tell, on_tell, m);
    bns_timer_start(c->env, &m->tell, bns_now_ns(c->env) + TELL_NS);
    while (copy_page(m, &from, end))
        continue;
    bns_buf_free(&from);
    if (!m->failed)
        follow(m, first, end);
    bns_timer_stop(c->env, &m->tell);
}

int ctl_make_mirror(struct ctl *c, int argc, char **argv)
{
    struct mirror m = {.c = c};
    int code;

    if (argc != 1)
        return ctl_fail(CTL_ARGS, "make-mirror takes one destination argument");
    if (c->f.no_dest_prefix && c->f.dest_prefix[0] != '\0')
        return ctl_fail(CTL_ARGS,
                        "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same "
                        "time, choose one");
    bns_list_init(&m.batches);
    m.prefix = bns_slice_str(c->f.mirror_prefix);
    m.dest = m.prefix;
    if (c->f.no_dest_prefix || c->f.dest_prefix[0] != '\0')
        m.dest = bns_slice_str(c->f.dest_prefix);
    code = connect_both(&m, argv[0]);
    if (code == CTL_OK) {
        run(&m);
        code = m.code;
    }
    bns_etcd_free(m.to.etcd); /* a transaction under way ends: applied() frees its batch */
    for (struct bns_list *n; (n = bns_list_pop(&m.batches)) != NULL;)
        free_batch(BNS_CONTAINER(n, struct batch, node));
    bns_tls_free(m.to.tls);
    bns_arena_free(&m.to.arena);
    return code;
}
