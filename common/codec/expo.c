/* expo.c - the text exposition format of Prometheus, a line at a time.
 *
 * The grammar, as the format's page gives it:
 *
 *     line    := sample | "# HELP " name " " text | "# TYPE " name " " type | "#" anything | blank
 *     sample  := name [ "{" [ label ( "," label )* [ "," ] ] "}" ] value [ stamp ]
 *     label   := name "=" '"' ( any byte but " \ LF | \\ | \" | \n )* '"'
 *     value   := what Go's ParseFloat takes; here: decimal, NaN, +Inf, -Inf, Inf
 *
 * Blanks and tabs may stand between the tokens. A metric's name may hold a colon, a label's may
 * not. Nothing is unescaped: whoever writes the text again wants it as it was.
 */
#include "codec/expo.h"

#include "base/utf8.h"

#include <math.h>
#include <stdlib.h>

#define NUMBER_BYTES_MAX 64
#define STAMP_BYTES_MAX 20

static bool name_byte(uint8_t c, bool first, bool colon)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (colon && c == ':'))
        return true;
    return !first && c >= '0' && c <= '9';
}

static void skip_blanks(struct bns_slice *s)
{
    while (s->len > 0 && (s->ptr[0] == ' ' || s->ptr[0] == '\t'))
        *s = bns_slice_skip(*s, 1);
}

static bool take_name(struct bns_slice *s, bool colon, struct bns_slice *out)
{
    size_t n = 0;

    while (n < s->len && name_byte(s->ptr[n], n == 0, colon))
        n++;
    *out = bns_slice(s->ptr, n);
    *s = bns_slice_skip(*s, n);
    return n > 0;
}

static bool take_byte(struct bns_slice *s, char c)
{
    if (s->len == 0 || s->ptr[0] != (uint8_t)c)
        return false;
    *s = bns_slice_skip(*s, 1);
    return true;
}

/* What stands up to the next blank. */
static struct bns_slice take_word(struct bns_slice *s)
{
    size_t n = 0;
    struct bns_slice word;

    while (n < s->len && s->ptr[n] != ' ' && s->ptr[n] != '\t')
        n++;
    word = bns_slice(s->ptr, n);
    *s = bns_slice_skip(*s, n);
    return word;
}

/* Behind the opening quote; takes the closing one too. */
static bool take_quoted(struct bns_slice *s, struct bns_slice *out)
{
    for (size_t i = 0; i < s->len; i++) {
        if (s->ptr[i] == '"') {
            *out = bns_slice(s->ptr, i);
            *s = bns_slice_skip(*s, i + 1);
            return true;
        }
        if (s->ptr[i] != '\\')
            continue;
        i++;
        if (i == s->len || (s->ptr[i] != '\\' && s->ptr[i] != '"' && s->ptr[i] != 'n'))
            return false;
    }
    return false;
}

bool bns_expo_label(struct bns_slice *labels, struct bns_slice *name, struct bns_slice *value)
{
    struct bns_slice s = *labels;

    skip_blanks(&s);
    if (!take_name(&s, false, name))
        return false;
    skip_blanks(&s);
    if (!take_byte(&s, '='))
        return false;
    skip_blanks(&s);
    if (!take_byte(&s, '"') || !take_quoted(&s, value))
        return false;
    skip_blanks(&s);
    if (!take_byte(&s, ',') && s.len > 0 && s.ptr[0] != '}')
        return false;
    *labels = s;
    return true;
}

/* Behind the opening brace; takes the closing one too. */
static bool take_labels(struct bns_slice *s, struct bns_slice *out)
{
    const uint8_t *start = s->ptr;
    struct bns_slice name, value;

    for (size_t count = 0; count <= BNS_EXPO_LABELS_MAX; count++) {
        skip_blanks(s);
        if (s->len > 0 && s->ptr[0] == '}') {
            *out = bns_slice(start, (size_t)(s->ptr - start));
            *s = bns_slice_skip(*s, 1);
            return true;
        }
        if (!bns_expo_label(s, &name, &value))
            return false;
    }
    return false; /* too many */
}

static bool is_word(struct bns_slice s, const char *lower)
{
    size_t n = strlen(lower);

    if (s.len != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if ((s.ptr[i] | 0x20) != (uint8_t)lower[i])
            return false;
    return true;
}

/* Digits with at most one point among them, then perhaps an exponent. */
static bool is_decimal(struct bns_slice s)
{
    size_t digits = 0, points = 0, i = 0;

    for (; i < s.len && (s.ptr[i] == '.' || (s.ptr[i] >= '0' && s.ptr[i] <= '9')); i++) {
        digits += s.ptr[i] != '.';
        points += s.ptr[i] == '.';
    }
    if (digits == 0 || points > 1)
        return false;
    if (i == s.len)
        return true;
    if ((s.ptr[i++] | 0x20) != 'e')
        return false;
    if (i < s.len && (s.ptr[i] == '+' || s.ptr[i] == '-'))
        i++;
    digits = s.len - i;
    for (; i < s.len; i++)
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
    return digits > 0;
}

static bool read_number(struct bns_slice s, double *out)
{
    char text[NUMBER_BYTES_MAX + 1];
    struct bns_slice bare = s;
    bool minus = s.len > 0 && s.ptr[0] == '-';

    if (s.len == 0 || s.len > NUMBER_BYTES_MAX)
        return false;
    if (minus || s.ptr[0] == '+')
        bare = bns_slice_skip(s, 1);
    if (is_word(bare, "inf") || is_word(bare, "infinity")) {
        *out = minus ? -(double)INFINITY : (double)INFINITY;
        return true;
    }
    if (is_word(s, "nan")) {
        *out = (double)NAN;
        return true;
    }
    if (!is_decimal(bare))
        return false;
    memcpy(text, s.ptr, s.len);
    text[s.len] = '\0';
    *out = strtod(text, NULL); /* too large is infinite, as it is for the reader we follow */
    return true;
}

static bool is_stamp(struct bns_slice s)
{
    size_t i = s.len > 0 && s.ptr[0] == '-' ? 1 : 0;

    if (s.len == i || s.len > STAMP_BYTES_MAX)
        return false;
    for (; i < s.len; i++)
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
    return true;
}

static int read_sample(struct bns_slice s, struct bns_expo_line *out)
{
    out->kind = BNS_EXPO_SAMPLE;
    if (!take_name(&s, true, &out->name))
        return BNS_E_PROTO;
    skip_blanks(&s);
    if (take_byte(&s, '{')) {
        if (!take_labels(&s, &out->labels))
            return BNS_E_PROTO;
    } else if (out->name.ptr + out->name.len == s.ptr) {
        return BNS_E_PROTO; /* nothing between name and value */
    }
    skip_blanks(&s);
    out->value = take_word(&s);
    if (!read_number(out->value, &out->number))
        return BNS_E_PROTO;
    skip_blanks(&s);
    if (s.len == 0)
        return BNS_OK;
    out->stamp = take_word(&s);
    skip_blanks(&s);
    return is_stamp(out->stamp) && s.len == 0 ? BNS_OK : BNS_E_PROTO;
}

static bool known_type(struct bns_slice s)
{
    static const char *const types[] = {"counter", "gauge", "histogram", "summary", "untyped"};

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (bns_slice_eq(s, bns_slice_str(types[i])))
            return true;
    return false;
}

/* Behind the '#'. BNS_E_NOTFOUND: a comment. */
static int read_hash(struct bns_slice s, struct bns_expo_line *out)
{
    struct bns_slice word;

    skip_blanks(&s);
    word = take_word(&s);
    if (bns_slice_eq(word, BNS_LIT("HELP")))
        out->kind = BNS_EXPO_HELP;
    else if (bns_slice_eq(word, BNS_LIT("TYPE")))
        out->kind = BNS_EXPO_TYPE;
    else
        return BNS_E_NOTFOUND;
    skip_blanks(&s);
    if (!take_name(&s, true, &out->name) || (s.len > 0 && s.ptr[0] != ' ' && s.ptr[0] != '\t'))
        return BNS_E_PROTO;
    skip_blanks(&s);
    out->text = s;
    if (out->kind == BNS_EXPO_HELP)
        return BNS_OK;
    out->text = take_word(&s);
    skip_blanks(&s);
    return known_type(out->text) && s.len == 0 ? BNS_OK : BNS_E_PROTO;
}

static int read_line(struct bns_slice s, struct bns_expo_line *out)
{
    *out = (struct bns_expo_line){.line = s};
    if (s.len > BNS_EXPO_LINE_BYTES_MAX || !bns_utf8_valid(s) || memchr(s.ptr, 0, s.len) != NULL ||
        memchr(s.ptr, '\r', s.len) != NULL)
        return BNS_E_PROTO;
    skip_blanks(&s);
    if (s.len == 0)
        return BNS_E_NOTFOUND;
    if (take_byte(&s, '#'))
        return read_hash(s, out);
    return read_sample(s, out);
}

int bns_expo_next(struct bns_expo *x, struct bns_expo_line *out)
{
    while (x->rest.len > 0) {
        const uint8_t *end = memchr(x->rest.ptr, '\n', x->rest.len);
        size_t n = end == NULL ? x->rest.len : (size_t)(end - x->rest.ptr);
        struct bns_slice line = bns_slice(x->rest.ptr, n);
        int rv = BNS_E_NOTFOUND;

        x->rest = bns_slice_skip(x->rest, n + 1);
        x->line++;
        if (n > 0)
            rv = read_line(line, out);
        if (rv != BNS_E_NOTFOUND)
            return rv;
    }
    return BNS_E_NOTFOUND;
}

bool bns_expo_in_family(struct bns_slice sample, struct bns_slice family, struct bns_slice type)
{
    bool histogram = bns_slice_eq(type, BNS_LIT("histogram"));
    bool summary = bns_slice_eq(type, BNS_LIT("summary"));
    struct bns_slice tail;

    if (sample.len < family.len || !bns_slice_eq(bns_slice(sample.ptr, family.len), family))
        return false;
    tail = bns_slice_skip(sample, family.len);
    if (tail.len == 0)
        return true;
    if (histogram && bns_slice_eq(tail, BNS_LIT("_bucket")))
        return true;
    return (histogram || summary) &&
           (bns_slice_eq(tail, BNS_LIT("_sum")) || bns_slice_eq(tail, BNS_LIT("_count")));
}
