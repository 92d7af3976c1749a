/* test_auth_hash.c - passwords: hashes that Go made are accepted, ours have its form; no thread is
 * needed in the simulated world; a full queue refuses. */
#include "auth_world.h"

#include "auth_hash.h"

static struct etcd_hasher hasher;
static struct etcd_hash_job jobs[ETCD_HASH_WAITING_MAX + 1];
static unsigned done;

static void count(struct etcd_hash_job *j)
{
    for (size_t i = 0; i < sizeof j->password; i++)
        assert_int_equal(j->password[i], 0); /* wiped */
    done++;
}

static struct bns_slice password, hash;
static int rv;

static void verify(struct bns_env *env, void *arg)
{
    (void)env;
    (void)arg;
    jobs[0] = (struct etcd_hash_job){.done = count};
    rv = etcd_hash_verify(&hasher, &jobs[0], password, hash);
}

static void make(struct bns_env *env, void *arg)
{
    (void)env;
    (void)arg;
    jobs[0] = (struct etcd_hash_job){.done = count};
    rv = etcd_hash_make(&hasher, &jobs[0], password, 4);
}

static void init(struct bns_env *env, void *arg)
{
    (void)arg;
    etcd_hasher_init(&hasher, env);
}

static void stopped(void *arg)
{
    *(bool *)arg = true;
}

static void stop(struct bns_env *env, void *arg)
{
    (void)env;
    etcd_hasher_stop(&hasher, stopped, arg);
}

static void release(struct bns_env *env, void *arg)
{
    (void)env;
    (void)arg;
    etcd_hasher_free(&hasher);
}

static bool right(struct kvw *k, struct bns_slice p, struct bns_slice h)
{
    password = p;
    hash = h;
    done = 0;
    assert_true(bns_world_call(k->w, 0, verify, NULL));
    assert_int_equal(rv, BNS_OK);
    kvw_settle(k);
    assert_int_equal(done, 1);
    return jobs[0].ok;
}

static void end(struct kvw *k)
{
    bool over = false;

    assert_true(bns_world_call(k->w, 0, stop, &over));
    kvw_settle(k);
    assert_true(over);
    assert_true(bns_world_call(k->w, 0, release, NULL));
    kvw_free(k);
}

static void begin(struct kvw *k)
{
    kvw_init(k, 1, NULL);
    assert_true(kvw_up(k));
    assert_true(bns_world_call(k->w, 0, init, NULL));
}

/* Made by golang.org/x/crypto/bcrypt. */
static void what_go_hashed_is_accepted(void **state)
{
    static const struct {
        const char *password, *hash;
    } t[] = {
        {"secret", "$2a$04$Q5HyG7pVH7qSYAryEpCjK.y9lewP27ctv8E9gBGo4t.LzLTjXQpuG"},
        {"", "$2a$04$yAXPo2n/Oay3QILqZEysAut.j1nhrrg0vGO7iFplJnuK4F4AqqPDS"},
        {"p\xc3\xa4ss\xc3\xbf\xc2\xa3",
         "$2a$04$neEz4k6VjoFvHBlZZdQfuuHxUIIrtpX3gZMFStQ9BQVi8CZgaJ25u"},
        {"\xff\xff\xa3", "$2a$04$APfu7r8rJVqpTQC0HIO0uOkkzhein0hjFACfUiiGK4YdykT6N3OKm"},
        {"0123456789012345678901234567890123456789012345678901234567890123456789xy",
         "$2a$04$nfV.B32TTx6buKEEUeaS5OR/XC5wPvW5LjWv7Unvzlm9fGgu30oAS"},
    };
    struct kvw k;

    (void)state;
    begin(&k);
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_slice p = bns_slice_str(t[i].password), h = bns_slice_str(t[i].hash);
        char other[61];

        assert_true(right(&k, p, h));
        assert_false(right(&k, BNS_LIT("another"), h));
        memcpy(other, t[i].hash, sizeof other);
        other[59] = other[59] == 'a' ? 'e' : 'a';
        assert_false(right(&k, p, bns_slice_str(other)));
        assert_false(right(&k, p, bns_slice(h.ptr, h.len - 1)));
    }
    assert_false(right(&k, BNS_LIT("secret"), BNS_LIT("")));
    assert_false(right(&k, BNS_LIT("secret"), bns_slice_str("secret")));
    end(&k);
}

static void what_we_hash_has_the_form_of_go_and_is_accepted(void **state)
{
    char first[61];
    struct kvw k;

    (void)state;
    begin(&k);
    for (int i = 0; i < 2; i++) {
        char made[61];

        password = BNS_LIT("hers");
        assert_true(bns_world_call(k.w, 0, make, NULL));
        assert_int_equal(rv, BNS_OK);
        kvw_settle(&k);
        assert_true(jobs[0].ok);
        memcpy(made, jobs[0].hash, sizeof made);
        assert_int_equal(strlen(made), 60);
        assert_memory_equal(made, "$2a$04$", 7);
        assert_true(right(&k, BNS_LIT("hers"), bns_slice_str(made)));
        assert_false(right(&k, BNS_LIT("her"), bns_slice_str(made)));
        if (i == 1)
            assert_string_not_equal(first, made); /* another salt */
        memcpy(first, made, sizeof first);
    }
    password = BNS_LIT("0123456789012345678901234567890123456789012345678901234567890123456789xyz");
    assert_true(bns_world_call(k.w, 0, make, NULL));
    assert_int_equal(rv, BNS_E_TOOBIG);
    end(&k);
}

static void fill(struct bns_env *env, void *arg)
{
    (void)env;
    (void)arg;
    for (unsigned i = 0; i <= ETCD_HASH_WAITING_MAX; i++) {
        jobs[i] = (struct etcd_hash_job){.done = count};
        rv = etcd_hash_verify(&hasher, &jobs[i], BNS_LIT("x"), BNS_LIT(""));
        assert_int_equal(rv, i < ETCD_HASH_WAITING_MAX ? BNS_OK : BNS_E_BUSY);
    }
}

static void a_full_queue_refuses_and_empties(void **state)
{
    struct kvw k;

    (void)state;
    begin(&k);
    done = 0;
    assert_true(bns_world_call(k.w, 0, fill, NULL));
    kvw_settle(&k);
    assert_int_equal(done, ETCD_HASH_WAITING_MAX);
    end(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_go_hashed_is_accepted),
        cmocka_unit_test(what_we_hash_has_the_form_of_go_and_is_accepted),
        cmocka_unit_test(a_full_queue_refuses_and_empties),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
