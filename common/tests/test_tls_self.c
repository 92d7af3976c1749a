/* test_tls_self.c - certificates that sign themselves.
 *
 * Method: made into a file system in memory whose every call fails once, or loses its power, and
 * read back with OpenSSL. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "base/prng.h"
#include "io/tls_self.h"
#include "tls_rig.h"

static const char *const hosts[] = {"127.0.0.1", "localhost", "::1", "db, critical"};
static const struct bns_tls_self plain = {
    .dir = "d", .organization = "etcd", .hosts = hosts, .hosts_count = 4, .years = 1};

struct world {
    struct kit k;
    struct bns_vfs *vfs;
};

static void begin(struct world *w)
{
    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 1, &w->vfs), BNS_OK);
    kit_init(&w->k, bns_alloc_libc(), w->vfs);
    assert_int_equal(bns_vfs_mkdir(w->vfs, "d", NULL), BNS_OK);
    assert_int_equal(bns_vfs_sync_dir(w->vfs, ".", NULL), BNS_OK);
}

static void end(struct world *w)
{
    fake_free(&w->k.f);
    bns_vfs_mem_free(w->vfs);
}

static size_t slurp(struct bns_vfs *vfs, const char *path, char out[4096])
{
    struct bns_file *f = NULL;
    size_t got = 0;

    assert_int_equal(bns_vfs_open(vfs, path, BNS_OPEN_READ, &f, NULL), BNS_OK);
    assert_int_equal(bns_file_read_at(f, 0, out, 4096, &got, NULL), BNS_OK);
    bns_file_close(f);
    return got;
}

static X509 *read_cert(struct bns_vfs *vfs)
{
    char text[4096];
    BIO *b = BIO_new_mem_buf(text, (int)slurp(vfs, "d/cert.pem", text));
    X509 *c = PEM_read_bio_X509(b, NULL, NULL, NULL);

    BIO_free(b);
    assert_non_null(c);
    return c;
}

static void pair_is_whole(struct bns_vfs *vfs)
{
    X509 *c = read_cert(vfs);
    char text[4096];
    BIO *b = BIO_new_mem_buf(text, (int)slurp(vfs, "d/key.pem", text));
    EVP_PKEY *k = PEM_read_bio_PrivateKey(b, NULL, NULL, NULL);

    assert_non_null(k);
    assert_int_equal(X509_check_private_key(c, k), 1);
    EVP_PKEY_free(k);
    BIO_free(b);
    X509_free(c);
}

/* Goal: what the certificate says: its hosts, as addresses and as names, whose it is, how long. */
static void it_names_the_hosts_and_lasts_for_the_years(void **state)
{
    static const uint32_t years[] = {1, 3, BNS_TLS_SELF_YEARS_MAX};
    (void)state;

    for (size_t i = 0; i < sizeof years / sizeof years[0]; i++) {
        struct bns_tls_self o = plain;
        int days = 0, seconds = 0;
        struct world w;
        bool made = false;
        char name[32];
        X509 *c;

        o.years = years[i];
        begin(&w);
        assert_int_equal(bns_tls_self(&w.k.f.env, &o, &made, NULL), BNS_OK);
        assert_true(made);
        pair_is_whole(w.vfs);
        c = read_cert(w.vfs);
        assert_int_equal(X509_check_ip_asc(c, "127.0.0.1", 0), 1);
        assert_int_equal(X509_check_ip_asc(c, "::1", 0), 1);
        assert_int_equal(X509_check_ip_asc(c, "127.0.0.2", 0), 0);
        assert_int_equal(X509_check_host(c, "localhost", 0, 0, NULL), 1);
        assert_int_equal(X509_check_host(c, "other", 0, 0, NULL), 0);
        assert_int_equal(X509_check_ca(c), 1);
        assert_int_equal(X509_verify(c, X509_get0_pubkey(c)), 1);
        assert_true(X509_NAME_get_text_by_NID(X509_get_subject_name(c), NID_organizationName, name,
                                              sizeof name) > 0);
        assert_string_equal(name, "etcd");
        assert_int_equal(
            ASN1_TIME_diff(&days, &seconds, X509_get0_notBefore(c), X509_get0_notAfter(c)), 1);
        assert_int_equal(days, years[i] * 365);
        X509_free(c);
        end(&w);
    }
}

static void spans_that_are_none_are_refused(void **state)
{
    static const uint32_t years[] = {0, BNS_TLS_SELF_YEARS_MAX + 1, UINT32_MAX};
    struct world w;
    (void)state;

    begin(&w);
    for (size_t i = 0; i < sizeof years / sizeof years[0]; i++) {
        struct bns_tls_self o = plain;
        struct bns_err err = {0};

        o.years = years[i];
        assert_int_equal(bns_tls_self(&w.k.f.env, &o, NULL, &err), BNS_E_INVALID);
        assert_non_null(strstr(err.text, "selfSignedCertValidity is invalid"));
    }
    end(&w);
}

static void a_pair_that_is_there_stays(void **state)
{
    char before[4096], after[4096];
    size_t len;
    struct world w;
    bool made = true;
    (void)state;

    begin(&w);
    assert_int_equal(bns_tls_self(&w.k.f.env, &plain, NULL, NULL), BNS_OK);
    len = slurp(w.vfs, "d/cert.pem", before);
    assert_int_equal(bns_tls_self(&w.k.f.env, &plain, &made, NULL), BNS_OK);
    assert_false(made);
    assert_int_equal(slurp(w.vfs, "d/cert.pem", after), len);
    assert_memory_equal(before, after, len);
    end(&w);
}

static void half_a_pair_is_made_whole(void **state)
{
    static const char *const lost[] = {"d/cert.pem", "d/key.pem"};
    (void)state;

    for (size_t i = 0; i < 2; i++) {
        struct world w;
        bool made = false;

        begin(&w);
        assert_int_equal(bns_tls_self(&w.k.f.env, &plain, NULL, NULL), BNS_OK);
        assert_int_equal(bns_vfs_remove(w.vfs, lost[i], NULL), BNS_OK);
        assert_int_equal(bns_tls_self(&w.k.f.env, &plain, &made, NULL), BNS_OK);
        assert_true(made);
        pair_is_whole(w.vfs);
        end(&w);
    }
}

/* Goal: whichever call fails, or is the last before the power goes, and whatever is left of it: the
 * next start has a certificate and its own key. From nothing, and from half a pair. */
static void no_failure_leaves_a_pair_that_does_not_match(void **state)
{
    static const char *const lost[] = {NULL, "d/key.pem", "d/cert.pem"};
    struct bns_prng prng;
    size_t tried = 0;
    (void)state;

    bns_prng_seed(&prng, 7);
    for (size_t way = 0; way < 6; way++) {
        bool fired = true;

        for (uint64_t n = 1; fired; n++) {
            struct world w;
            int rv;

            begin(&w);
            if (lost[way / 2] != NULL) {
                assert_int_equal(bns_tls_self(&w.k.f.env, &plain, NULL, NULL), BNS_OK);
                assert_int_equal(bns_vfs_remove(w.vfs, lost[way / 2], NULL), BNS_OK);
            }
            bns_vfs_mem_fail_at(w.vfs, n, way % 2 == 1 ? BNS_VFAULT_POWER : BNS_VFAULT_EIO);
            rv = bns_tls_self(&w.k.f.env, &plain, NULL, NULL);
            fired = bns_vfs_mem_fired(w.vfs);
            assert_true(fired || rv == BNS_OK);
            bns_vfs_mem_fail_at(w.vfs, 0, BNS_VFAULT_NONE);
            if (way % 2 == 1) {
                if (!bns_vfs_mem_is_off(w.vfs))
                    bns_vfs_mem_power_cut(w.vfs, &prng);
                bns_vfs_mem_power_on(w.vfs);
            }
            assert_int_equal(bns_tls_self(&w.k.f.env, &plain, NULL, NULL), BNS_OK);
            pair_is_whole(w.vfs);
            tried++;
            end(&w);
        }
    }
    assert_true(tried > 40);
}

/* Goal: two sides with such pairs talk when the one that dials verifies nobody, or trusts the
 * other's certificate; otherwise they do not. */
static void who_trusts_it_or_nobody_is_served(void **state)
{
    static const struct {
        const char *ca;
        bool skip;
        int code;
    } rows[] = {
        {"d/cert.pem", false, BNS_OK}, {NULL, true, BNS_OK}, {"ca.pem", false, BNS_E_UNAUTH}};
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct bns_tls_config s = {
            .name = "s", .serve = true, .cert_file = "d/cert.pem", .key_file = "d/key.pem"};
        struct bns_tls_config d = {.name = "d",
                                   .dial = true,
                                   .cert_file = "d/cert.pem",
                                   .key_file = "d/key.pem",
                                   .ca_file = rows[i].ca,
                                   .skip_verify = rows[i].skip};
        struct bns_tls_listen_options o = {.host = "h", .fn = on_accept};
        struct bns_tls *serve = NULL, *dial = NULL;
        struct client c = {.hello = "hello"};
        struct bns_tls_self long_lived = plain;
        struct rig r;

        long_lived.years = 200; /* OpenSSL asks the real clock, which is not this env's */
        assert_int_equal(rig_start(&r, 0, NULL, NULL), BNS_OK);
        assert_int_equal(bns_vfs_mkdir(r.vfs, "d", NULL), BNS_OK);
        assert_int_equal(bns_tls_self(&r.k.f.env, &long_lived, NULL, NULL), BNS_OK);
        assert_int_equal(bns_tls_new(&r.k.f.env, &s, &serve, NULL), BNS_OK);
        assert_int_equal(bns_tls_new(&r.k.f.env, &d, &dial, NULL), BNS_OK);
        bns_tls_listener_close(r.l);
        o.arg = &r;
        assert_int_equal(bns_tls_listen(&r.k.f.env, serve, &o, &r.l, NULL), BNS_OK);
        r.port = bns_tls_listener_port(r.l);
        assert_int_equal(client_dial_as(&r, &c, dial, NULL), BNS_OK);
        fake_run_for(&r.k.f, BNS_SEC / 4);
        assert_int_equal(c.got.len, rows[i].code == BNS_OK ? 5 : 0);
        assert_int_equal(c.code, rows[i].code);
        client_end(&r, &c);
        bns_tls_stop(serve, nothing, NULL);
        bns_tls_stop(dial, nothing, NULL);
        fake_run_for(&r.k.f, BNS_SEC);
        bns_tls_listener_close(r.l);
        r.l = NULL;
        bns_tls_free(serve);
        bns_tls_free(dial);
        (void)rig_end(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_names_the_hosts_and_lasts_for_the_years),
        cmocka_unit_test(spans_that_are_none_are_refused),
        cmocka_unit_test(a_pair_that_is_there_stays),
        cmocka_unit_test(half_a_pair_is_made_whole),
        cmocka_unit_test(no_failure_leaves_a_pair_that_does_not_match),
        cmocka_unit_test(who_trusts_it_or_nobody_is_served),
    };

    return cmocka_run_group_tests(tests, make_certificates, free_certificates);
}
