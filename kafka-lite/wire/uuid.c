/* uuid.c - ids of topics, clusters and directories as people see them: 22 letters of base64 in its
 * URL-safe alphabet, without padding. */
#include "wire/uuid.h"

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void kafka_uuid_text(const struct kafka_uuid *u, char to[KAFKA_UUID_TEXT])
{
    uint32_t bits = 0, have = 0;
    size_t n = 0;

    for (size_t i = 0; i < sizeof u->bytes; i++) {
        bits = bits << 8 | u->bytes[i];
        for (have += 8; have >= 6; have -= 6)
            to[n++] = letters[bits >> (have - 6) & 63];
    }
    to[n++] = letters[bits << (6 - have) & 63];
    to[n] = '\0';
}

bool kafka_uuid_parse(struct kafka_uuid *u, struct bns_slice text)
{
    uint32_t bits = 0, have = 0;
    size_t n = 0;

    if (text.len != KAFKA_UUID_TEXT - 1)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        const char *at = text.ptr[i] == '\0' ? NULL : strchr(letters, text.ptr[i]);
        if (at == NULL)
            return false;
        bits = bits << 6 | (uint32_t)(at - letters);
        have += 6;
        if (have >= 8) {
            have -= 8;
            u->bytes[n++] = (uint8_t)(bits >> have);
        }
    }
    return true; /* 4 bits are left over, and may be anything, as in Java */
}
