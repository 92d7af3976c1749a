/* options_maint.c - the flags of quota, compaction by itself and hash checks. */
#include <string.h>

#include "options.h"

size_t etcd_maint_flags(struct etcd_options *o, struct bns_cli_flag *out)
{
    const struct bns_cli_flag flags[] = {
        {"quota-backend-bytes", 0, BNS_VALUE_U64, &o->quota_bytes, "0 = 2 GiB", NULL},
        {"auto-compaction-mode", 0, BNS_VALUE_STR, &o->compaction_mode, "periodic or revision",
         NULL},
        {"auto-compaction-retention", 0, BNS_VALUE_STR, &o->compaction_retention,
         "what is kept: hours, a duration, or revisions; 0 = all", NULL},
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
