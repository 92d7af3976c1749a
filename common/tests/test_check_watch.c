/* test_check_watch.c - watch: each anomaly by a small history that has it; what a right store tells
 * its watchers always passes; every kind of damage to it is found.
 */
#include "base/prng.h"
#include "check_kit.h"
#include "sim/check_watch.h"

/* Two acknowledged writes: revisions 2 and 3. */
#define PUTS                                                                                       \
    "0 i put a 1\n0 o put a {\"rev\":2}\n"                                                         \
    "0 i put b 2\n0 o put b {\"rev\":3}\n"
#define WATCH "9 i watch a {\"from\":true,\"start\":1}\n9 o watch a {\"created\":true,\"rev\":1}\n"

static const struct known_history known[] = {
    {"empty", NULL, BNS_OK, "", NULL},
    {"all is told", NULL, BNS_OK,
     PUTS WATCH "9 o watch a {\"rev\":3,\"events\":[[\"put\",\"a\",1,2],[\"put\",\"b\",2,3]]}\n"
                "9 o watch a {\"rev\":3,\"progress\":true}",
     NULL},
    {"nothing is told yet", NULL, BNS_OK, PUTS WATCH "9 o watch a {\"rev\":1,\"progress\":true}",
     NULL},
    {"a gap in the middle", "gap", 0, PUTS WATCH "9 o watch a {\"events\":[[\"put\",\"b\",2,3]]}",
     "was not told of a at revision 2, which the write of line 1 knows"},
    {"a gap behind progress", "gap", 0,
     PUTS WATCH "9 o watch a {\"events\":[[\"put\",\"a\",1,2]]}\n"
                "9 o watch a {\"rev\":3,\"progress\":true}",
     "b at revision 3"},
    {"a gap that another watch shows", "gap", 0,
     "0 i put a 1\n0 n put a null\n8 i watch a {\"start\":1}\n"
     "8 o watch a {\"events\":[[\"put\",\"a\",1,2]]}\n" WATCH
     "9 o watch a {\"rev\":2,\"progress\":true}",
     "which the watch of line 3 knows"},
    {"after a restart from the next revision", NULL, BNS_OK,
     PUTS WATCH "9 o watch a {\"events\":[[\"put\",\"a\",1,2]]}\n9 n watch a null\n"
                "9 i watch a {\"from\":true,\"start\":3}\n"
                "9 o watch a {\"events\":[[\"put\",\"b\",2,3]]}",
     NULL},
    {"a restart that tells again", "before-start", 0,
     PUTS WATCH "9 o watch a {\"events\":[[\"put\",\"a\",1,2]]}\n9 n watch a null\n"
                "9 i watch a {\"from\":true,\"start\":3}\n"
                "9 o watch a {\"events\":[[\"put\",\"a\",1,2],[\"put\",\"b\",2,3]]}",
     NULL},
    {"a restart with a gap", "gap", 0,
     PUTS WATCH "9 n watch a null\n9 i watch a {\"from\":true,\"start\":2}\n"
                "9 o watch a {\"events\":[[\"put\",\"b\",2,3]]}",
     NULL},
    {"twice", "duplicate", 0,
     PUTS WATCH "9 o watch a {\"events\":[[\"put\",\"a\",1,2]]}\n"
                "9 o watch a {\"events\":[[\"put\",\"a\",1,2]]}",
     NULL},
    {"in another order", "out-of-order", 0,
     PUTS WATCH "9 o watch a {\"events\":[[\"put\",\"b\",2,3]]}\n"
                "9 o watch a {\"events\":[[\"put\",\"a\",1,2]]}",
     "after revision 3"},
    {"one revision in two answers", "torn-revision", 0,
     "0 i txn - [[\"put\",\"a\",1],[\"put\",\"b\",2]]\n0 o txn - {\"rev\":2}\n" WATCH
     "9 o watch a {\"events\":[[\"put\",\"a\",1,2]]}\n"
     "9 o watch a {\"events\":[[\"put\",\"b\",2,2]]}",
     NULL},
    {"one revision in fragments", NULL, BNS_OK,
     "0 i txn - [[\"put\",\"a\",1],[\"put\",\"b\",2]]\n0 o txn - {\"rev\":2}\n" WATCH
     "9 o watch a {\"fragment\":true,\"events\":[[\"put\",\"a\",1,2]]}\n"
     "9 o watch a {\"events\":[[\"put\",\"b\",2,2]]}",
     NULL},
    {"half a revision", "gap", 0,
     "0 i txn - [[\"put\",\"a\",1],[\"put\",\"b\",2]]\n0 o txn - {\"rev\":2}\n" WATCH
     "9 o watch a {\"events\":[[\"put\",\"a\",1,2]]}",
     "b at revision 2"},
    {"a fragment whose rest never came", NULL, BNS_OK,
     "0 i txn - [[\"put\",\"a\",1],[\"put\",\"b\",2]]\n0 o txn - {\"rev\":2}\n" WATCH
     "9 o watch a {\"fragment\":true,\"events\":[[\"put\",\"a\",1,2]]}",
     NULL},
    {"progress ahead of events", "progress-ahead", 0,
     PUTS WATCH "9 o watch a {\"rev\":3,\"progress\":true}\n"
                "9 o watch a {\"events\":[[\"put\",\"a\",1,2],[\"put\",\"b\",2,3]]}",
     "progress 3"},
    {"progress goes back", "progress-back", 0,
     PUTS WATCH "9 o watch a {\"events\":[[\"put\",\"a\",1,2],[\"put\",\"b\",2,3]]}\n"
                "9 o watch a {\"rev\":2,\"progress\":true}",
     NULL},
    {"a header older than its events", "header-behind", 0,
     PUTS WATCH "9 o watch a {\"rev\":1,\"events\":[[\"put\",\"a\",1,2]]}", NULL},
    {"events before the confirmation", "before-created", 0,
     PUTS "9 i watch a {\"start\":1}\n9 o watch a {\"events\":[[\"put\",\"a\",1,2]]}\n"
          "9 o watch a {\"created\":true,\"rev\":3}",
     NULL},
    {"from now on", NULL, BNS_OK,
     "0 i put a 1\n0 o put a {\"rev\":2}\n"
     "9 i watch a {\"from\":true}\n9 o watch a {\"created\":true,\"rev\":2}\n"
     "0 i put b 2\n0 o put b {\"rev\":3}\n9 o watch a {\"events\":[[\"put\",\"b\",2,3]]}",
     NULL},
    {"from now on, with the past", "before-start", 0,
     "0 i put a 1\n0 o put a {\"rev\":2}\n"
     "9 i watch a {\"from\":true}\n9 o watch a {\"created\":true,\"rev\":2}\n"
     "9 o watch a {\"events\":[[\"put\",\"a\",1,2]]}",
     NULL},
    {"after it was cancelled", "after-cancel", 0,
     PUTS WATCH "9 o watch a {\"canceled\":true}\n"
                "9 o watch a {\"events\":[[\"put\",\"a\",1,2]]}",
     NULL},
    {"a key that is not watched", "wrong-key", 0,
     PUTS "9 i watch a {\"start\":1}\n9 o watch a {\"events\":[[\"put\",\"b\",2,3]]}", NULL},
    {"a range ends before its end", "wrong-key", 0,
     PUTS "9 i watch a {\"start\":1,\"end\":\"b\"}\n"
          "9 o watch a {\"events\":[[\"put\",\"a\",1,2],[\"put\",\"b\",2,3]]}",
     NULL},
    {"a prefix", NULL, BNS_OK,
     "0 i put k/a 1\n0 o put k/a {\"rev\":2}\n0 i put k0 1\n0 o put k0 {\"rev\":3}\n"
     "9 i watch k/ {\"start\":1,\"prefix\":true}\n"
     "9 o watch k/ {\"events\":[[\"put\",\"k/a\",1,2]]}\n"
     "9 o watch k/ {\"rev\":3,\"progress\":true}",
     NULL},
    {"what is filtered out", "wrong-key", 0,
     PUTS "9 i watch a {\"start\":1,\"filters\":[\"noput\"]}\n"
          "9 o watch a {\"events\":[[\"put\",\"a\",1,2]]}",
     NULL},
    {"a filter leaves no gap", NULL, BNS_OK,
     PUTS "9 i watch a {\"from\":true,\"start\":1,\"filters\":[\"noput\"]}\n"
          "9 o watch a {\"rev\":3,\"progress\":true}",
     NULL},
    {"two watchers, two values", "disagree", 0,
     "0 i put a 1\n0 n put a null\n1 i put a 2\n1 n put a null\n" WATCH
     "9 o watch a {\"events\":[[\"put\",\"a\",1,2]]}\n"
     "8 i watch a {\"start\":1}\n8 o watch a {\"events\":[[\"put\",\"a\",2,2]]}",
     NULL},
    {"not what was written", "disagree", 0,
     PUTS WATCH "9 o watch a {\"events\":[[\"put\",\"a\",7,2],[\"put\",\"b\",2,3]]}",
     "the write of line 1 says 1"},
    {"deleted instead of written", "disagree", 0,
     PUTS WATCH "9 o watch a {\"events\":[[\"delete\",\"a\",null,2],[\"put\",\"b\",2,3]]}", NULL},
    {"another key at that revision", "phantom", 0,
     PUTS WATCH "9 o watch a {\"events\":[[\"put\",\"b\",2,2],[\"put\",\"b\",2,3]]}",
     "did not change it"},
    {"two writes with one revision", "same-revision", 0,
     "0 i put a 1\n0 o put a {\"rev\":2}\n0 i put b 2\n0 o put b {\"rev\":2}", NULL},
    {"written by nobody", "phantom", 0,
     PUTS WATCH "9 o watch a {\"events\":[[\"put\",\"a\",1,2],[\"put\",\"b\",2,3],"
                "[\"put\",\"c\",9,4]]}",
     "c became 9 at revision 4; no writer"},
    {"written by others, where that is allowed", NULL, BNS_OK,
     "-1 n config - {\"others\":true}\n" PUTS WATCH
     "9 o watch a {\"events\":[[\"put\",\"a\",1,2],[\"put\",\"b\",2,3],[\"put\",\"c\",9,4]]}",
     NULL},
    {"deleted by a lease", NULL, BNS_OK,
     "-1 n config - {\"expiry\":true}\n" PUTS WATCH
     "9 o watch a {\"events\":[[\"put\",\"a\",1,2],[\"put\",\"b\",2,3],[\"delete\",\"a\",null,4]]}",
     NULL},
    {"a failed write", "phantom", 0,
     "0 i put a 1\n0 f put a null\n" WATCH "9 o watch a {\"events\":[[\"put\",\"a\",1,2]]}",
     "asked and failed"},
    {"an unknown write", NULL, BNS_OK,
     "0 i put a 1\n0 n put a null\n" WATCH "9 o watch a {\"events\":[[\"put\",\"a\",1,2]]}", NULL},
    {"an unknown write that happened twice", "phantom", 0,
     "0 i put a 1\n0 n put a null\n" WATCH
     "9 o watch a {\"events\":[[\"put\",\"a\",1,2],[\"put\",\"a\",1,3]]}",
     NULL},
    {"told before it was asked for", "phantom", 0,
     WATCH "9 o watch a {\"events\":[[\"put\",\"a\",1,2]]}\n0 i put a 1\n0 o put a {\"rev\":2}",
     "only later"},
    {"told before an unknown write asked", "phantom", 0,
     WATCH "9 o watch a {\"events\":[[\"put\",\"a\",1,2]]}\n0 i put a 1\n0 n put a null",
     "only later"},
    {"told before it was answered", NULL, BNS_OK,
     "0 i put a 1\n" WATCH "9 o watch a {\"events\":[[\"put\",\"a\",1,2]]}\n0 o put a {\"rev\":2}",
     NULL},
    {"a delete that found nothing", NULL, BNS_OK,
     PUTS WATCH "0 i delete c null\n0 o delete c {\"rev\":3,\"deleted\":false}\n"
                "0 i delete d null\n0 o delete d {\"rev\":3}\n"
                "9 o watch a {\"events\":[[\"put\",\"a\",1,2],[\"put\",\"b\",2,3]]}",
     NULL},
    {"a delete that is not told", "gap", 0,
     PUTS WATCH "0 i delete a null\n0 o delete a {\"rev\":4,\"deleted\":true}\n"
                "9 o watch a {\"events\":[[\"put\",\"a\",1,2],[\"put\",\"b\",2,3]]}\n"
                "9 o watch a {\"rev\":4,\"progress\":true}",
     NULL},
    {"compare and set", NULL, BNS_OK,
     PUTS WATCH "0 i cas a [1,7]\n0 o cas a {\"rev\":4,\"swapped\":true}\n"
                "0 i cas a [1,8]\n0 o cas a {\"rev\":4,\"swapped\":false}\n"
                "9 o watch a {\"events\":[[\"put\",\"a\",1,2],[\"put\",\"b\",2,3],"
                "[\"put\",\"a\",7,4]]}",
     NULL},
    {"an answer, and no watch", NULL, BNS_E_INVALID, "9 o watch a {\"created\":true}", "line 1"},
    {"a watch without a key", NULL, BNS_E_INVALID, "9 i watch - {}", "line 1"},
    {"no event", NULL, BNS_E_INVALID, WATCH "9 o watch a {\"events\":[[\"put\",\"a\",1]]}",
     "line 3"},
    {"no answer", NULL, BNS_E_INVALID, WATCH "9 o watch a 7", "line 3"},
    {"an answer without events", NULL, BNS_E_INVALID, WATCH "9 o watch a {\"rev\":7}", "line 3"},
    {"no change", NULL, BNS_E_INVALID, "0 i txn - [[\"put\"]]", "line 1"},
};

static void each_anomaly_is_named(void **state)
{
    (void)state;
    known_verdicts("watch", known, sizeof known / sizeof known[0]);
}

/* ---- what a right store tells ---------------------------------------------------------------- */

enum { REVS = 120, KEYS = 6, WATCHES = 5, CHANGES = 3 };

struct run {
    struct bns_watch_write writes[REVS];
    struct bns_watch_change changes[REVS][CHANGES];
    struct bns_watch_stream streams[WATCHES];
    struct bns_watch_told told[WATCHES][2 * REVS];
    struct bns_watch_change events[WATCHES][REVS * CHANGES];
    size_t events_count[WATCHES];
};

/* Revision i + 2 is made at 100 i: asked for before, answered after, told to watchers after. */
static void make_writes(struct bns_prng *p, struct run *r)
{
    for (size_t i = 0; i < REVS; i++) {
        size_t n = 1 + (size_t)bns_prng_below(p, CHANGES);
        uint64_t key = bns_prng_below(p, KEYS - CHANGES);
        struct bns_watch_write *w = &r->writes[i];

        *w = (struct bns_watch_write){.call = 100 * i + 900 - bns_prng_below(p, 900),
                                      .ret = 100 * i + 1000 + bns_prng_below(p, 900),
                                      .rev = i + 2,
                                      .changes = r->changes[i],
                                      .changes_count = n};
        for (size_t j = 0; j < n; j++)
            r->changes[i][j] =
                (struct bns_watch_change){.key = key + j, .value = 10 * i + j, .rev = i + 2};
        if (bns_prng_chance(p, 0.2)) {
            w->end = BNS_CHECK_INFO;
            w->ret = BNS_CHECK_OPEN;
            w->rev = 0;
        }
    }
}

/* One answer with the revisions from `from` on, or progress. */
static size_t tell(struct bns_prng *p, struct run *r, size_t n, size_t from)
{
    struct bns_watch_stream *s = &r->streams[n];
    struct bns_watch_told *t = &r->told[n][s->told_count++];
    size_t until = from + 1 + (size_t)bns_prng_below(p, 4);

    until = until > REVS ? REVS : until;
    *t = (struct bns_watch_told){.at = 100 * until + 950 + s->told_count,
                                 .kind = BNS_WATCH_EVENTS,
                                 .rev = until + 1,
                                 .events = r->events[n] + r->events_count[n]};
    for (size_t i = from; i < until; i++) {
        for (size_t j = 0; j < r->writes[i].changes_count; j++) {
            const struct bns_watch_change *x = &r->changes[i][j];
            if (x->key >= s->key_first && x->key < s->key_end) {
                r->events[n][r->events_count[n]++] = *x;
                t->events_count++;
            }
        }
    }
    if (t->events_count == 0)
        t->kind = BNS_WATCH_PROGRESS;
    return until;
}

static void make(struct bns_prng *p, struct run *r)
{
    memset(r, 0, sizeof *r);
    make_writes(p, r);
    for (size_t n = 0; n < WATCHES; n++) {
        size_t at = (size_t)bns_prng_below(p, REVS / 4);
        struct bns_watch_stream *s = &r->streams[n];

        *s = (struct bns_watch_stream){.call = 5 + n,
                                       .start = bns_prng_chance(p, 0.5) ? at + 2 : 0,
                                       .key_first = bns_prng_below(p, 2),
                                       .key_end = KEYS - bns_prng_below(p, 2),
                                       .told = r->told[n]};
        r->told[n][s->told_count++] =
            (struct bns_watch_told){.at = 100 * at + 950, .kind = BNS_WATCH_CREATED, .rev = at + 1};
        while (at < REVS - bns_prng_below(p, 30))
            at = tell(p, r, n, at);
    }
}

static int check(struct run *r, struct bns_verdict *v)
{
    struct bns_check_cfg cfg = {.alloc = bns_alloc_libc()};
    return bns_check_watch(&cfg, r->writes, REVS, r->streams, WATCHES, v);
}

/* Spoils one answer; what the verdict must be: one of two. */
static bool spoil(struct bns_prng *p, struct run *r, size_t n, const char **a, const char **b)
{
    struct bns_watch_stream *s = &r->streams[n];
    size_t i = 1 + (size_t)bns_prng_below(p, s->told_count - 1);
    struct bns_watch_told *t = &r->told[n][i];
    struct bns_watch_change *e = (struct bns_watch_change *)(uintptr_t)t->events;
    struct bns_watch_told swap = *t;

    if (t->kind != BNS_WATCH_EVENTS || i + 1 >= s->told_count)
        return false;
    *b = NULL;
    switch (bns_prng_below(p, 6)) {
    case 0: /* an event is dropped, and there is more after it */
        if (r->told[n][i + 1].kind != BNS_WATCH_EVENTS && r->told[n][i + 1].rev <= e[0].rev)
            return false;
        if (r->writes[e[0].rev - 2].rev == 0)
            return false; /* nobody else may know of it */
        t->events++;
        t->events_count--;
        *a = "gap";
        return true;
    case 1:
        if (r->told[n][i + 1].kind != BNS_WATCH_EVENTS)
            return false;
        *t = r->told[n][i + 1];
        r->told[n][i + 1] = swap;
        *a = "out-of-order";
        return true;
    case 2:
        r->told[n][i + 1] = *t;
        *a = "duplicate";
        return true;
    case 3:
        e[t->events_count - 1].value = 1000000;
        *a = "disagree";
        *b = "phantom";
        return true;
    case 4: /* told as progress what then comes */
        if (r->told[n][i - 1].kind == BNS_WATCH_CREATED)
            return false;
        r->told[n][i - 1] = (struct bns_watch_told){
            .at = r->told[n][i - 1].at, .kind = BNS_WATCH_PROGRESS, .rev = e[0].rev};
        *a = "progress-ahead";
        return true;
    default:
        t->rev = e[t->events_count - 1].rev - 1;
        *a = "header-behind";
        return true;
    }
}

static void a_right_store_passes_and_damage_is_found(void **state)
{
    struct run *r = malloc(sizeof *r);
    unsigned spoiled = 0;

    (void)state;
    assert_non_null(r);
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        const char *a = NULL, *b = NULL;
        struct bns_verdict v;
        struct bns_prng p;

        bns_prng_seed(&p, seed);
        make(&p, r);
        if (check(r, &v) != BNS_OK)
            fail_msg("seed %llu: %s: %s", (unsigned long long)seed, v.anomaly, v.text);
        if (!spoil(&p, r, (size_t)bns_prng_below(&p, WATCHES), &a, &b))
            continue;
        spoiled++;
        if (check(r, &v) != BNS_E_CONFLICT)
            fail_msg("seed %llu: %s is not found", (unsigned long long)seed, a);
        if (strcmp(v.anomaly, a) != 0 && (b == NULL || strcmp(v.anomaly, b) != 0))
            fail_msg("seed %llu: %s, not %s: %s", (unsigned long long)seed, v.anomaly, a, v.text);
    }
    print_message("%u times spoiled\n", spoiled);
    assert_true(spoiled > 1500);
    free(r);
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].rv == BNS_OK)
            check_survives_oom("watch", known[i].script,
                               known[i].anomaly == NULL ? BNS_OK : BNS_E_CONFLICT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_anomaly_is_named),
        cmocka_unit_test(a_right_store_passes_and_damage_is_found),
        cmocka_unit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
