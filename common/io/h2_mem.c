/* h2_mem.c - where nghttp2's memory comes from.
 *
 * nghttp2 gives each session a frame buffer of 16 KiB, of which an idle connection has written the
 * first hundred bytes. The general allocator likes to give it a block that was just returned, by a
 * TLS handshake for one, and then all of it is resident: 16 KiB a connection for nothing. So frame
 * buffers are cut from slabs of SLAB_COUNT, which the allocator maps anew because they are large:
 * pages that nobody writes to cost nothing. All else comes from the env's allocator as it is.
 *
 * A slab whose buffers are all free is given back, but for one. Clients have few connections, and
 * none of them; nor has the simulator, whose memory is written when it is allocated.
 */
#include "io/h2.h"

#define BUF_LEAST 16384u
#define BUF_BYTES (16384u + 64)
#define SLAB_COUNT 64u

struct slab {
    struct bns_list node; /* m->slabs: those with a free buffer first */
    uint32_t free_count;
    uint8_t free[SLAB_COUNT];
    _Alignas(16) uint8_t bytes[SLAB_COUNT][BUF_BYTES];
};

static struct slab *slab_new(struct bns_h2_mem *m)
{
    struct slab *s = bns_alloc(m->alloc, sizeof *s);
    uintptr_t at = (uintptr_t)s;

    if (s == NULL)
        return NULL;
    s->free_count = SLAB_COUNT;
    for (uint32_t i = 0; i < SLAB_COUNT; i++)
        s->free[i] = (uint8_t)(SLAB_COUNT - 1 - i);
    bns_list_push_front(&m->slabs, &s->node);
    m->lo = m->lo == 0 || at < m->lo ? at : m->lo;
    m->hi = at + sizeof *s > m->hi ? at + sizeof *s : m->hi;
    return s;
}

static void *take(struct bns_h2_mem *m)
{
    struct slab *s =
        bns_list_empty(&m->slabs) ? NULL : BNS_CONTAINER(m->slabs.next, struct slab, node);

    if (s == NULL || s->free_count == 0)
        s = slab_new(m);
    if (s == NULL)
        return NULL;
    if (--s->free_count == 0) {
        bns_list_del(&s->node);
        bns_list_push(&m->slabs, &s->node);
    }
    return s->bytes[s->free[s->free_count]];
}

static struct slab *slab_of(struct bns_h2_mem *m, const void *ptr)
{
    uintptr_t at = (uintptr_t)ptr;

    if (at < m->lo || at >= m->hi)
        return NULL;
    BNS_LIST_EACH(n, &m->slabs)
    {
        struct slab *s = BNS_CONTAINER(n, struct slab, node);
        if (at >= (uintptr_t)s->bytes && at < (uintptr_t)s->bytes + sizeof s->bytes)
            return s;
    }
    return NULL;
}

static void give_back(struct bns_h2_mem *m, struct slab *s, const void *ptr)
{
    size_t i = (size_t)((const uint8_t *)ptr - s->bytes[0]) / BUF_BYTES;

    BNS_ASSERT(ptr == s->bytes[i]);
    BNS_ASSERT(s->free_count < SLAB_COUNT);
    s->free[s->free_count++] = (uint8_t)i;
    bns_list_del(&s->node);
    if (s->free_count == SLAB_COUNT && !bns_list_empty(&m->slabs) &&
        BNS_CONTAINER(m->slabs.next, struct slab, node)->free_count > 0)
        bns_free(m->alloc, s);
    else
        bns_list_push_front(&m->slabs, &s->node);
}

/* ---- what nghttp2 calls ---------------------------------------------------------------------- */
static void *mem_alloc(size_t n, void *arg)
{
    struct bns_h2_mem *m = arg;

    return m->slab && n >= BUF_LEAST && n <= BUF_BYTES ? take(m) : bns_alloc(m->alloc, n);
}

static void mem_free(void *ptr, void *arg)
{
    struct bns_h2_mem *m = arg;
    struct slab *s = slab_of(m, ptr);

    if (s != NULL)
        give_back(m, s, ptr);
    else
        bns_free(m->alloc, ptr);
}

static void *mem_zero(size_t count, size_t size, void *arg)
{
    struct bns_h2_mem *m = arg;
    size_t n;

    return __builtin_mul_overflow(count, size, &n) ? NULL : bns_alloc_zero(m->alloc, n);
}

static void *mem_resize(void *ptr, size_t n, void *arg)
{
    struct bns_h2_mem *m = arg;
    struct slab *s = slab_of(m, ptr);
    void *moved;

    if (ptr == NULL)
        return mem_alloc(n, arg); /* so nghttp2 makes its buffers */
    if (s == NULL)
        return bns_resize(m->alloc, ptr, n);
    moved = bns_alloc(m->alloc, n);
    if (moved != NULL) {
        memcpy(moved, ptr, n < BUF_BYTES ? n : BUF_BYTES);
        give_back(m, s, ptr);
    }
    return moved;
}

void bns_h2_mem_init(struct bns_h2_mem *m, struct bns_env *env, bool server, nghttp2_mem *out)
{
    *m = (struct bns_h2_mem){.alloc = env->alloc, .slab = server && !env->sim};
    bns_list_init(&m->slabs);
    *out = (nghttp2_mem){m, mem_alloc, mem_free, mem_zero, mem_resize};
}

void bns_h2_mem_free(struct bns_h2_mem *m)
{
    struct bns_list *n;

    while ((n = bns_list_pop(&m->slabs)) != NULL) {
        struct slab *s = BNS_CONTAINER(n, struct slab, node);

        BNS_ASSERT(s->free_count == SLAB_COUNT); /* sessions are gone before their hub */
        bns_free(m->alloc, s);
    }
}
