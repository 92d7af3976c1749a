/* host.c - see host.h. A name whose last label is all digits would be read as a number by some and
 * as a name by others: it is neither here. */
#include "base/host.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <string.h>

#define NAME_MAX_BYTES 253u
#define LABEL_MAX_BYTES 63u

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* One label, up to a dot or the end; its length, 0 when it is not one. */
static size_t label_len(const char *s, bool *number)
{
    size_t n = 0;

    *number = true;
    while (s[n] != 0 && s[n] != '.') {
        if (!digit(s[n]) && !letter(s[n]) && s[n] != '-')
            return 0;
        *number = *number && digit(s[n]);
        n++;
    }
    return n > LABEL_MAX_BYTES || s[0] == '-' || (n > 0 && s[n - 1] == '-') ? 0 : n;
}

static bool is_name(const char *host)
{
    bool number = true;
    size_t len = strnlen(host, NAME_MAX_BYTES + 2), at = 0;

    if (len > 0 && host[len - 1] == '.')
        len--; /* the root may be written */
    if (len == 0 || len > NAME_MAX_BYTES || host[len - 1] == '.')
        return false;
    while (at < len) {
        size_t n = label_len(host + at, &number);

        if (n == 0)
            return false;
        at += n + 1; /* over the dot, or the end */
    }
    return !number;
}

enum bns_host_kind bns_host_kind(const char *host)
{
    unsigned char bytes[16];

    if (inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1)
        return BNS_HOST_NUMERIC;
    return is_name(host) ? BNS_HOST_NAME : BNS_HOST_BAD;
}
