/* pb_json_cut.c - see pb_json_cut.h.
 *
 * A value that begins with a bracket ends with the bracket that closes it: one counter for both
 * kinds, because whether they match is the parser's question. A string ends at the quote that no
 * backslash precedes. Anything else ends before a blank, or before a bracket or quote.
 */
#include "codec/pb_json_cut.h"

void bns_json_cut_init(struct bns_json_cut *c, const struct bns_alloc *alloc, size_t bytes_max,
                       size_t elements_max)
{
    *c = (struct bns_json_cut){.elements_max = elements_max};
    bns_buf_init(&c->text, alloc, bytes_max);
}

void bns_json_cut_free(struct bns_json_cut *c)
{
    bns_buf_free(&c->text);
}

void bns_json_cut_reset(struct bns_json_cut *c)
{
    bns_buf_clear(&c->text);
    c->elements = 0;
    c->depth = 0;
    c->begun = c->scalar = c->in_string = c->escaped = c->whole = false;
}

static bool is_blank(uint8_t b)
{
    return b == ' ' || b == '\t' || b == '\n' || b == '\r';
}

static bool opens(uint8_t b)
{
    return b == '{' || b == '[';
}

/* Looks at one byte of a value; false: it is not part of it any more. */
static bool follow(struct bns_json_cut *c, uint8_t b)
{
    if (c->in_string) {
        c->in_string = c->escaped || b != '"';
        c->escaped = !c->escaped && b == '\\';
        c->whole = !c->in_string && c->depth == 0;
        return true;
    }
    if (c->scalar) {
        c->whole = is_blank(b) || opens(b) || b == '"';
        return !c->whole;
    }
    c->elements += b == ',' || b == ':' || opens(b);
    if (opens(b))
        c->depth++;
    else if (b == '"')
        c->in_string = true;
    else if ((b == '}' || b == ']') && c->depth > 0)
        c->whole = --c->depth == 0;
    else
        c->scalar = c->depth == 0;
    return true;
}

int bns_json_cut_next(struct bns_json_cut *c, struct bns_slice *in)
{
    size_t n = 0, from;
    int rv;

    BNS_ASSERT(!c->whole);
    while (!c->begun && n < in->len && is_blank(in->ptr[n]))
        n++;
    from = n;
    while (n < in->len && !c->whole && c->elements <= c->elements_max) {
        c->begun = true;
        if (follow(c, in->ptr[n]))
            n++;
    }
    if (c->elements > c->elements_max)
        return BNS_E_TOOBIG;
    rv = n > from ? bns_buf_add(&c->text, in->ptr + from, n - from) : BNS_OK;
    if (rv != BNS_OK)
        return rv;
    *in = bns_slice_skip(*in, n);
    return c->whole ? BNS_OK : BNS_E_AGAIN;
}

int bns_json_cut_end(struct bns_json_cut *c)
{
    BNS_ASSERT(!c->whole);
    if (!c->begun)
        return BNS_E_NOTFOUND;
    c->whole = c->scalar;
    return c->whole ? BNS_OK : BNS_E_PROTO;
}
