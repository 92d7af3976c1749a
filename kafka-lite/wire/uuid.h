/* uuid.h - ids as 22 letters. Thread: any. Memory: none. */
#ifndef KAFKA_WIRE_UUID_H
#define KAFKA_WIRE_UUID_H

#include "wire/schema.h"

#define KAFKA_UUID_TEXT 23 /* with the NUL behind it */

void kafka_uuid_text(const struct kafka_uuid *u, char to[KAFKA_UUID_TEXT]);
bool kafka_uuid_parse(struct kafka_uuid *u, struct bns_slice text); /* false: not 22 such letters */

#endif
