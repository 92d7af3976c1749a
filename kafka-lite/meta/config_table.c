/* config_table.c - see config_table.h: finding a key, checking a value.
 *
 * A value is trimmed and read as its type, then looked at by its key's rule; what is wrong is said
 * in the words of Kafka's ConfigException, which shows the value as Java prints it.
 */
#include "meta/config_table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "wire/schema.h"

#define TEXT_MAX 128

static const struct kafka_config_key *find(const struct kafka_config_key *keys, size_t count,
                                           struct bns_slice name)
{
    size_t lo = 0, hi = count;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int c = bns_slice_cmp(bns_slice_str(keys[mid].name), name);
        if (c == 0)
            return &keys[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

const struct kafka_config_key *kafka_topic_key(struct bns_slice name)
{
    return find(kafka_topic_keys, kafka_topic_keys_count, name);
}

const struct kafka_config_key *kafka_broker_key(struct bns_slice name)
{
    return find(kafka_broker_keys, kafka_broker_keys_count, name);
}

struct bns_slice kafka_config_trim(struct bns_slice s)
{
    while (s.len > 0 && s.ptr[0] <= ' ')
        s = bns_slice_skip(s, 1);
    while (s.len > 0 && s.ptr[s.len - 1] <= ' ')
        s.len--;
    return s;
}

bool kafka_config_element(struct bns_slice *list, struct bns_slice *out)
{
    size_t n = 0;

    if (list->ptr == NULL || (list->len == 0 && out->ptr == NULL))
        return false;
    while (n < list->len && list->ptr[n] != ',')
        n++;
    *out = kafka_config_trim(bns_slice(list->ptr, n));
    if (n == list->len)
        *list = bns_slice(NULL, 0);
    else
        *list = bns_slice_skip(*list, n + 1);
    return true;
}

int kafka_config_number(struct bns_slice text, int64_t *out)
{
    char digits[32];
    char *end = NULL;
    long long v;

    if (text.len == 0 || text.len >= sizeof digits || text.ptr[0] <= ' ')
        return BNS_E_INVALID;
    memcpy(digits, text.ptr, text.len);
    digits[text.len] = '\0';
    errno = 0;
    v = strtoll(digits, &end, 10);
    if (errno != 0 || end != digits + text.len)
        return BNS_E_INVALID;
    *out = v;
    return BNS_OK;
}

static bool same_word(struct bns_slice text, const char *word)
{
    size_t len = strlen(word);

    if (text.len != len)
        return false;
    for (size_t i = 0; i < len; i++) {
        uint8_t c = text.ptr[i];
        if (c >= 'A' && c <= 'Z')
            c = (uint8_t)(c + 'a' - 'A');
        if (c != (uint8_t)word[i])
            return false;
    }
    return true;
}

bool kafka_config_true(struct bns_slice text)
{
    return same_word(kafka_config_trim(text), "true");
}

/* ---- checks --------------------------------------------------------------------------------- */

static int invalid(const struct kafka_config_key *k, struct bns_slice value, struct bns_err *err,
                   const char *why)
{
    int len = value.len < TEXT_MAX ? (int)value.len : TEXT_MAX;

    return bns_err_set(err, BNS_E_INVALID, "Invalid value %.*s for configuration %s: %s", len,
                       value.len > 0 ? (const char *)value.ptr : "", k->name, why);
}

static const char *type_name(enum kafka_config_type t)
{
    static const char *const names[] = {
        [KAFKA_CONFIG_BOOLEAN] = "BOOLEAN",  [KAFKA_CONFIG_STRING] = "STRING",
        [KAFKA_CONFIG_INT] = "INT",          [KAFKA_CONFIG_SHORT] = "SHORT",
        [KAFKA_CONFIG_LONG] = "LONG",        [KAFKA_CONFIG_DOUBLE] = "DOUBLE",
        [KAFKA_CONFIG_LIST] = "LIST",        [KAFKA_CONFIG_CLASS] = "CLASS",
        [KAFKA_CONFIG_PASSWORD] = "PASSWORD"};
    return names[t];
}

static int check_number(const struct kafka_config_key *k, struct bns_slice raw, struct bns_err *err)
{
    struct bns_slice value = kafka_config_trim(raw);
    static const int64_t limit[] = {[KAFKA_CONFIG_INT] = INT32_MAX,
                                    [KAFKA_CONFIG_SHORT] = INT16_MAX,
                                    [KAFKA_CONFIG_LONG] = INT64_MAX};
    char why[TEXT_MAX], shown[32];
    int64_t v = 0;

    (void)snprintf(why, sizeof why, "Not a number of type %s", type_name(k->type));
    if (kafka_config_number(value, &v) != BNS_OK || v > limit[k->type] || v < -limit[k->type] - 1)
        return invalid(k, raw, err, why);
    if (k->also != NULL && bns_slice_eq(value, bns_slice_str(k->also)))
        return BNS_OK;
    (void)snprintf(shown, sizeof shown, "%lld", (long long)v);
    if (k->also != NULL && (v < k->min || v > k->max))
        (void)snprintf(why, sizeof why, "Value must be between %lld and %lld or equal to %s",
                       (long long)k->min, (long long)k->max, k->also);
    else if (k->has_min && v < k->min)
        (void)snprintf(why, sizeof why, "Value must be at least %lld", (long long)k->min);
    else if (k->has_max && v > k->max)
        (void)snprintf(why, sizeof why, "Value must be no more than %lld", (long long)k->max);
    else
        return BNS_OK;
    return invalid(k, bns_slice_str(shown), err, why);
}

/* As Java prints a double: the fewest digits that are that number, with an exponent from 10^7 on
 * and under 10^-3. */
static void show_double(double v, char *to, size_t size)
{
    double abs = v < 0 ? -v : v;
    char digits[64] = "";
    char *e;

    for (int n = 0; n < 17; n++) {
        (void)snprintf(digits, sizeof digits, "%.*e", n, v);
        if (strtod(digits, NULL) == v)
            break;
    }
    e = strchr(digits, 'e');
    if (e == NULL) { /* no finite number */
        (void)snprintf(to, size, "%s", v > 0 ? "Infinity" : v < 0 ? "-Infinity" : "NaN");
    } else if (abs == 0 || (abs >= 1e-3 && abs < 1e7)) {
        int places = (int)(e - digits) - (v < 0) - 2 - (int)strtol(e + 1, NULL, 10);
        (void)snprintf(to, size, "%.*f", places > 1 ? places : 1, v);
    } else {
        long exponent = strtol(e + 1, NULL, 10);
        *e = '\0';
        (void)snprintf(to, size, "%s%sE%ld", digits, strchr(digits, '.') != NULL ? "" : ".0",
                       exponent);
    }
}

static int check_double(const struct kafka_config_key *k, struct bns_slice raw, struct bns_err *err)
{
    struct bns_slice value = kafka_config_trim(raw);
    char digits[64], shown[64], why[TEXT_MAX];
    char *end = NULL;
    double v;

    if (value.len == 0 || value.len >= sizeof digits)
        return invalid(k, raw, err, "Not a number of type DOUBLE");
    memcpy(digits, value.ptr, value.len);
    digits[value.len] = '\0';
    v = strtod(digits, &end);
    if (end != digits + value.len || v != v)
        return invalid(k, raw, err, "Not a number of type DOUBLE");
    show_double(v, shown, sizeof shown);
    if (k->has_min && v < (double)k->min)
        (void)snprintf(why, sizeof why, "Value must be at least %lld", (long long)k->min);
    else if (k->has_max && v > (double)k->max)
        (void)snprintf(why, sizeof why, "Value must be no more than %lld", (long long)k->max);
    else
        return BNS_OK;
    return invalid(k, bns_slice_str(shown), err, why);
}

static bool one_of(const struct kafka_config_key *k, struct bns_slice value)
{
    for (size_t i = 0; k->values != NULL && k->values[i] != NULL; i++) {
        if (bns_slice_eq(value, bns_slice_str(k->values[i])))
            return true;
    }
    return k->values == NULL;
}

static int check_word(const struct kafka_config_key *k, struct bns_slice value, struct bns_err *err)
{
    char why[TEXT_MAX];
    size_t len;

    if (one_of(k, value))
        return BNS_OK;
    len = (size_t)snprintf(why, sizeof why, "String must be one of: ");
    for (size_t i = 0; k->values[i] != NULL && len < sizeof why; i++)
        len +=
            (size_t)snprintf(why + len, sizeof why - len, "%s%s", i > 0 ? ", " : "", k->values[i]);
    return invalid(k, value, err, why);
}

static bool is_pair(struct bns_slice e)
{
    size_t colon = 0;

    while (colon < e.len && e.ptr[colon] != ':')
        colon++;
    if (colon == 0 || colon + 1 >= e.len)
        return false;
    for (size_t i = 0; i < e.len; i++) {
        if (i != colon && (e.ptr[i] < '0' || e.ptr[i] > '9'))
            return false;
    }
    return true;
}

static int check_throttled(const struct kafka_config_key *k, struct bns_slice value,
                           struct bns_err *err)
{
    struct bns_slice list = value, e = {NULL, 0};
    char why[TEXT_MAX + 96], shown[TEXT_MAX];
    size_t len = 1;
    bool ok = true;

    if (value.len == 0 || bns_slice_eq(value, BNS_LIT("*")))
        return BNS_OK;
    while (ok && kafka_config_element(&list, &e))
        ok = is_pair(e);
    (void)snprintf(why, sizeof why,
                   "%s must be the literal '*' or a list of replicas in the following format: "
                   "[partitionId]:[brokerId],[partitionId]:[brokerId],...",
                   k->name);
    if (ok)
        return BNS_OK;
    (void)snprintf(shown, sizeof shown, "[");
    list = value;
    e = bns_slice(NULL, 0);
    while (len < sizeof shown && kafka_config_element(&list, &e))
        len += (size_t)snprintf(shown + len, sizeof shown - len, "%s%.*s", len > 1 ? ", " : "",
                                (int)(e.len < TEXT_MAX ? e.len : TEXT_MAX),
                                e.len > 0 ? (const char *)e.ptr : "");
    if (len < sizeof shown)
        (void)snprintf(shown + len, sizeof shown - len, "]");
    return invalid(k, bns_slice_str(shown), err, why);
}

/* The same element twice is once. */
static int check_list(const struct kafka_config_key *k, struct bns_slice value, struct bns_err *err)
{
    struct bns_slice list = value, e = {NULL, 0};
    int rv = BNS_OK;

    if (k->throttled)
        return check_throttled(k, value, err);
    if (k->values == NULL || value.len == 0)
        return BNS_OK;
    while (kafka_config_element(&list, &e)) {
        if (e.len == 0)
            return bns_err_set(err, BNS_E_INVALID, "Configuration '%s' values must not be empty.",
                               k->name);
    }
    list = value;
    e = bns_slice(NULL, 0);
    while (rv == BNS_OK && kafka_config_element(&list, &e))
        rv = check_word(k, e, err);
    return rv;
}

int kafka_config_check(const struct kafka_config_key *k, struct bns_slice value,
                       struct bns_err *err)
{
    struct bns_slice v = kafka_config_trim(value);

    switch (k->type) {
    case KAFKA_CONFIG_BOOLEAN:
        return same_word(v, "true") || same_word(v, "false")
                   ? BNS_OK
                   : invalid(k, value, err, "Expected value to be either true or false");
    case KAFKA_CONFIG_INT:
    case KAFKA_CONFIG_SHORT:
    case KAFKA_CONFIG_LONG:
        return check_number(k, value, err);
    case KAFKA_CONFIG_DOUBLE:
        return check_double(k, value, err);
    case KAFKA_CONFIG_LIST:
        return check_list(k, v, err);
    case KAFKA_CONFIG_STRING:
        return check_word(k, v, err);
    case KAFKA_CONFIG_CLASS:
    case KAFKA_CONFIG_PASSWORD:
        return BNS_OK;
    }
    return BNS_E_INTERNAL;
}
