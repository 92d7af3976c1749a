/* errors.c - names of error codes. */
#include "broker/errors.h"

const char *kafka_err_name(int code)
{
    static const struct {
        int code;
        const char *name;
    } names[] = {
#define KAFKA_ERR_X(name, code) {(code), #name},
        KAFKA_ERR_MAP(KAFKA_ERR_X)
#undef KAFKA_ERR_X
    };

    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (names[i].code == code)
            return names[i].name;
    }
    return "UNKNOWN";
}
