/* api.c - the table of messages by key. */
#include "messages.h"
#include "wire/wire.h"

const struct kafka_api *kafka_api(int key)
{
    for (size_t i = 0; i < kafka_apis_count; i++) {
        if (kafka_apis[i].key == key)
            return &kafka_apis[i];
    }
    return NULL;
}
