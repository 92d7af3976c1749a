/* options_maint.c - the flags of quota, compaction by itself and hash checks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

#define MEMORY_SEGMENT (2u * 1024 * 1024) /* of the log: what is kept of it takes memory */

size_t etcd_maint_flags(struct etcd_options *o, struct bns_cli_flag *out)
{
    const struct bns_cli_flag flags[] = {
        {"storage", 0, BNS_VALUE_STR, &o->storage, "disk; memory: nothing is kept, for tests",
         NULL},
        {"quota-backend-bytes", 0, BNS_VALUE_STR, &o->quota_text, "0 = 2 GiB, negative = no quota",
         NULL},
        {"auto-compaction-mode", 0, BNS_VALUE_STR, &o->compaction_mode, "periodic or revision",
         NULL},
        {"auto-compaction-retention", 0, BNS_VALUE_STR, &o->compaction_retention,
         "what is kept: hours, a duration, or revisions; 0 = all", NULL},
        {"warning-apply-duration", 0, BNS_VALUE_DURATION, &o->warning_apply_ns,
         "an answer that took longer is logged", NULL},
        {"experimental-warning-apply-duration", 0, BNS_VALUE_DURATION, &o->warning_apply_ns,
         "its name in older releases", NULL},
        {"corrupt-check-time", 0, BNS_VALUE_DURATION, &o->corrupt_check_ns,
         "between two comparisons of all members' data; 0s = never", NULL},
        {"experimental-corrupt-check-time", 0, BNS_VALUE_DURATION, &o->corrupt_check_ns,
         "its name in older releases", NULL},
        {"experimental-initial-corrupt-check", 0, BNS_VALUE_BOOL, &o->initial_corrupt_check,
         "compare with the others' data after the start", NULL},
        {"experimental-compact-hash-check-enabled", 0, BNS_VALUE_BOOL, &o->compact_hash_check,
         "compare all members' data after a compaction", NULL},
        {"compact-hash-check-time", 0, BNS_VALUE_DURATION, &o->compact_hash_check_ns,
         "between two looks whether there was one", NULL},
        {"experimental-compact-hash-check-time", 0, BNS_VALUE_DURATION, &o->compact_hash_check_ns,
         "its name in older releases", NULL},
        {"auto-disarm", 0, BNS_VALUE_BOOL, &o->auto_disarm,
         "clear the alarm NOSPACE once there is room again", NULL},
    };

    _Static_assert(sizeof flags / sizeof flags[0] <= ETCD_MAINT_FLAGS, "room for all flags");
    memcpy(out, flags, sizeof flags);
    return sizeof flags / sizeof flags[0];
}

int etcd_maint_derive(struct etcd_options *o, struct bns_err *err)
{
    char *end = NULL;
    long long quota;

    o->memory = o->storage != NULL && strcmp(o->storage, "memory") == 0;
    if (o->storage != NULL && !o->memory && strcmp(o->storage, "disk") != 0)
        return bns_err_set(err, BNS_E_INVALID, "--storage \"%s\" is neither disk nor memory",
                           o->storage);
    if (o->memory)
        o->segment_bytes = MEMORY_SEGMENT;
    if (o->quota_text != NULL) {
        errno = 0;
        quota = strtoll(o->quota_text, &end, 10);
        if (end == o->quota_text || *end != 0 || errno != 0)
            return bns_err_set(err, BNS_E_INVALID,
                               "invalid value \"%s\" for flag -quota-backend-bytes: bytes, 0 for "
                               "2 GiB, or -1 for no quota",
                               o->quota_text);
        o->quota_bytes = quota < 0 ? UINT64_MAX : (uint64_t)quota;
    }
    return etcd_autocompact_parse(o->compaction_mode, o->compaction_retention, &o->autocompact,
                                  err);
}
