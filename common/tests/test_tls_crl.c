/* test_tls_crl.c - revocation lists: who is in one is refused, at both ends, from the next
 * handshake on.
 *
 * Method: as test_tls.c. Lists are made by OpenSSL, and cut and rotted byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "io/tls_int.h"
#include "tls_rig.h"

/* ---- lists ----------------------------------------------------------------------------------- */
static X509_CRL *list_of(const struct kit_pair *by, const struct kit_pair *const *revoked, size_t n)
{
    X509_CRL *l = X509_CRL_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, -3600), *next = X509_gmtime_adj(NULL, 86400);

    assert_int_equal(X509_CRL_set_version(l, 1), 1);
    assert_int_equal(X509_CRL_set_issuer_name(l, X509_get_subject_name(by->cert)), 1);
    assert_int_equal(X509_CRL_set1_lastUpdate(l, now), 1);
    assert_int_equal(X509_CRL_set1_nextUpdate(l, next), 1);
    for (size_t i = 0; i < n; i++) {
        X509_REVOKED *r = X509_REVOKED_new();

        assert_int_equal(X509_REVOKED_set_serialNumber(r, X509_get_serialNumber(revoked[i]->cert)),
                         1);
        assert_int_equal(X509_REVOKED_set_revocationDate(r, now), 1);
        assert_int_equal(X509_CRL_add0_revoked(l, r), 1);
    }
    assert_true(X509_CRL_sign(l, by->key, EVP_sha256()) > 0);
    ASN1_TIME_free(now);
    ASN1_TIME_free(next);
    return l;
}

enum form { PEM, DER };

/* Appends it to `out`. */
static void print_list(BIO *out, enum form form, const struct kit_pair *by,
                       const struct kit_pair *const *revoked, size_t n)
{
    X509_CRL *l = list_of(by, revoked, n);

    assert_int_equal(form == DER ? i2d_X509_CRL_bio(out, l) : PEM_write_bio_X509_CRL(out, l), 1);
    X509_CRL_free(l);
}

static struct bns_slice text_of(BIO *b)
{
    char *text = NULL;
    long len = BIO_get_mem_data(b, &text);

    return bns_slice(text, (size_t)len);
}

static void write_list(struct bns_vfs *vfs, const char *path, enum form form,
                       const struct kit_pair *const *revoked, size_t n)
{
    BIO *b = BIO_new(BIO_s_mem());

    print_list(b, form, &ca, revoked, n);
    kit_write(vfs, path, text_of(b));
    BIO_free(b);
}

/* ---- handshakes ------------------------------------------------------------------------------ */
struct ends { /* a rig whose two sides show certificates and have a list each */
    struct rig r;
    struct bns_tls *serve, *dial;
};

static int ends_start(struct ends *e, int fail_at, enum bns_tls_version max)
{
    struct bns_tls_config s = {.name = "crl",
                               .serve = true,
                               .cert_file = "server.pem",
                               .key_file = "server.key",
                               .ca_file = "ca.pem",
                               .crl_file = "serve.crl",
                               .client_cert_auth = true,
                               .version_max = max};
    struct bns_tls_config d = {.name = "d",
                               .dial = true,
                               .cert_file = "client.pem",
                               .key_file = "client.key",
                               .ca_file = "ca.pem",
                               .crl_file = "dial.crl"};
    struct bns_tls_listen_options o = {.host = "h", .fn = on_accept, .arg = &e->r};
    int rv;

    bns_test_heap_fail_at(e->r.heap, fail_at);
    rv = bns_tls_new(&e->r.k.f.env, &s, &e->serve, NULL);
    if (rv == BNS_OK)
        rv = bns_tls_new(&e->r.k.f.env, &d, &e->dial, NULL);
    if (rv != BNS_OK)
        return rv;
    bns_tls_listener_close(e->r.l);
    e->r.l = NULL;
    rv = bns_tls_listen(&e->r.k.f.env, e->serve, &o, &e->r.l, NULL);
    if (rv == BNS_OK)
        e->r.port = bns_tls_listener_port(e->r.l);
    return rv;
}

static void ends_begin(struct ends *e, const struct kit_pair *client, const struct kit_pair *server)
{
    memset(e, 0, sizeof *e);
    assert_int_equal(rig_start(&e->r, 0, NULL, NULL), BNS_OK);
    kit_write_pair(e->r.vfs, "server", server);
    kit_write_pair(e->r.vfs, "client", client);
    write_list(e->r.vfs, "serve.crl", PEM, NULL, 0);
    write_list(e->r.vfs, "dial.crl", PEM, NULL, 0);
}

static bool ends_end(struct ends *e)
{
    if (e->serve != NULL)
        bns_tls_stop(e->serve, nothing, NULL);
    if (e->dial != NULL)
        bns_tls_stop(e->dial, nothing, NULL);
    fake_run_for(&e->r.k.f, BNS_SEC);
    bns_tls_listener_close(e->r.l);
    e->r.l = NULL;
    fake_run_for(&e->r.k.f, BNS_SEC);
    bns_tls_free(e->serve);
    bns_tls_free(e->dial);
    return rig_end(&e->r);
}

static uint64_t revoked(struct ends *e, const char *name)
{
    char labels[64];

    (void)snprintf(labels, sizeof labels, "name=\"%s\"", name);
    return bns_counter(e->r.metrics, "bns_tls_revoked_total", labels, "")->value;
}

/* BNS_OK: served. */
static int once(struct ends *e)
{
    struct client c = {.hello = "hello"};
    int code;

    assert_int_equal(client_dial_as(&e->r, &c, e->dial, NULL), BNS_OK);
    fake_run_for(&e->r.k.f, BNS_SEC / 4);
    code = c.closed == 1 ? c.code : BNS_OK;
    assert_int_equal(c.got.len, code == BNS_OK ? 5 : 0);
    client_end(&e->r, &c);
    return code;
}

/* Goal: exactly who is in the other side's list is refused, in both versions of TLS, counted, and
 * told what to do. */
static void who_is_in_the_list_is_refused(void **state)
{
    struct kit_pair a = kit_issue(&ca, (struct kit_issue){.cn = "a"});
    struct kit_pair b = kit_issue(&ca, (struct kit_issue){.cn = "b"});
    const struct kit_pair *const just_a[] = {&a}, *const just_b[] = {&b}, *const just_ca[] = {&ca},
                                 *const two[] = {&a, &b, &ca};
    const struct {
        const struct kit_pair *const *serve, *const *dial;
        size_t serve_count, dial_count;
        bool by_server, by_client;
    } t[] = {
        {NULL, NULL, 0, 0, false, false},   {just_a, NULL, 1, 0, true, false},
        {just_b, NULL, 1, 0, false, false}, /* it is the server's own */
        {two, NULL, 2, 0, true, false},     {just_ca, NULL, 1, 0, true, false},
        {NULL, just_b, 0, 1, false, true},  {NULL, just_a, 0, 1, false, false},
        {two + 1, NULL, 2, 0, true, false},
    };
    (void)state;

    for (size_t i = 0; i < 2 * sizeof t / sizeof t[0]; i++) {
        size_t k = i / 2;
        bool old = i % 2 == 1;
        struct ends e;
        int code;

        ends_begin(&e, &a, &b);
        write_list(e.r.vfs, "serve.crl", k % 2 == 0 ? PEM : DER, t[k].serve, t[k].serve_count);
        write_list(e.r.vfs, "dial.crl", k % 2 == 0 ? DER : PEM, t[k].dial, t[k].dial_count);
        assert_int_equal(ends_start(&e, 0, old ? BNS_TLS_1_2 : BNS_TLS_DEFAULT), BNS_OK);
        code = once(&e);
        assert_int_equal(code, t[k].by_server || t[k].by_client ? BNS_E_UNAUTH : BNS_OK);
        assert_int_equal(revoked(&e, "crl"), t[k].by_server);
        assert_int_equal(revoked(&e, "d"), t[k].by_client);
        assert_int_equal(handshakes(&e.r, "crl", "accepted", "failed"), code != BNS_OK);
        if (code != BNS_OK && strstr(e.r.k.said, "certificate revoked") == NULL)
            fail_msg("the log says: %s", e.r.k.said);
        (void)ends_end(&e);
    }
    kit_pair_free(&a);
    kit_pair_free(&b);
}

/* Goal: a changed list counts from the next handshake on, at once after a reload; a broken one
 * changes nothing and is named; who was let in stays, and his ticket is good no more. */
static void a_changed_list_counts_from_the_next_handshake_on(void **state)
{
    struct kit_pair a = kit_issue(&ca, (struct kit_issue){.cn = "a"});
    const struct kit_pair *const just_a[] = {&a};
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    SSL_SESSION *session[2] = {NULL, NULL};
    SSL_CTX *ctx[2];
    struct client first = {.hello = "hello"};
    struct ends e;
    size_t n;
    (void)state;

    ends_begin(&e, &a, &both);
    assert_int_equal(ends_start(&e, 0, BNS_TLS_DEFAULT), BNS_OK);
    assert_int_equal(client_dial_as(&e.r, &first, e.dial, NULL), BNS_OK);
    fake_run_for(&e.r.k.f, BNS_SEC / 4);
    assert_int_equal(first.got.len, 5);
    for (size_t i = 0; i < 2; i++) {
        ctx[i] = SSL_CTX_new(TLS_client_method());
        assert_int_equal(SSL_CTX_set_max_proto_version(ctx[i], versions[i]), 1);
        assert_int_equal(SSL_CTX_use_certificate(ctx[i], a.cert), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey(ctx[i], a.key), 1);
        assert_false(resumed(&e.r, ctx[i], &session[i], &n));
        assert_int_equal(n, 1);
        assert_true(resumed(&e.r, ctx[i], &session[i], &n));
    }
    kit_write(e.r.vfs, "serve.crl", BNS_LIT("no list\n"));
    bns_tls_reload(e.serve);
    assert_int_equal(once(&e), BNS_OK);
    assert_non_null(strstr(e.r.k.said, "serve.crl: no revocation list in PEM or DER"));
    write_list(e.r.vfs, "serve.crl", PEM, just_a, 1);
    fake_run_for(&e.r.k.f, 2 * BNS_SEC);
    assert_int_equal(once(&e), BNS_E_UNAUTH);
    for (size_t i = 0; i < 2; i++) {
        assert_false(resumed(&e.r, ctx[i], &session[i], &n));
        assert_int_equal(n, 0);
        SSL_SESSION_free(session[i]);
        SSL_CTX_free(ctx[i]);
    }
    write_list(e.r.vfs, "serve.crl", DER, NULL, 0);
    bns_tls_reload(e.serve);
    assert_int_equal(once(&e), BNS_OK);
    assert_int_equal(first.closed, 0);
    client_end(&e.r, &first);
    (void)ends_end(&e);
    kit_pair_free(&a);
}

/* ---- files ----------------------------------------------------------------------------------- */
static void one_file_holds_many_lists(void **state)
{
    struct kit_pair a = kit_issue(&other_ca, (struct kit_issue){.cn = "a"});
    struct kit_pair b = kit_issue(&ca, (struct kit_issue){.cn = "b"});
    const struct kit_pair *const just_a[] = {&a}, *const just_b[] = {&b};
    BIO *text = BIO_new(BIO_s_mem());
    struct bns_tls_crl *c = NULL;
    (void)state;

    print_list(text, PEM, &other_ca, just_a, 1);
    assert_true(BIO_puts(text, "text between them\n") > 0);
    print_list(text, PEM, &ca, NULL, 0);
    print_list(text, PEM, &ca, just_b, 1);
    assert_int_equal(bns_tls_crl_new(bns_alloc_libc(), text_of(text), "f", &c, NULL), BNS_OK);
    assert_true(bns_tls_crl_has(c, a.cert));
    assert_true(bns_tls_crl_has(c, b.cert));
    assert_false(bns_tls_crl_has(c, both.cert));
    bns_tls_crl_free(c);
    assert_true(BIO_puts(text, "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n") > 0);
    assert_int_equal(bns_tls_crl_new(bns_alloc_libc(), text_of(text), "f", &c, NULL),
                     BNS_E_INVALID);
    BIO_free(text);
    kit_pair_free(&a);
    kit_pair_free(&b);
}

static void bad_files_are_named(void **state)
{
    static const struct {
        const char *path, *says;
    } t[] = {
        {"none.crl", "none.crl: no such file; check the path"},
        {"empty", "empty: no revocation list in PEM or DER"},
        {"ca.pem", "ca.pem: no revocation list in PEM or DER"},
        {"broken", "broken: no revocation list in PEM or DER"},
    };
    struct rig r;
    (void)state;

    assert_int_equal(rig_start(&r, 0, NULL, NULL), BNS_OK);
    kit_write(r.vfs, "empty", BNS_LIT(""));
    kit_write(r.vfs, "broken", BNS_LIT("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"));
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_tls_config cfg = {.name = "s",
                                     .serve = true,
                                     .cert_file = "both.pem",
                                     .key_file = "both.key",
                                     .ca_file = "ca.pem",
                                     .crl_file = t[i].path,
                                     .client_cert_auth = true};
        struct bns_tls *tls = NULL;
        struct bns_err err = {0};

        assert_int_equal(bns_tls_new(&r.k.f.env, &cfg, &tls, &err), BNS_E_INVALID);
        assert_string_equal(err.text, t[i].says);
    }
    (void)rig_end(&r);
}

/* Goal: a list that is cut anywhere, or has something behind it, is none; one that has rotted
 * anywhere is one or none. */
static void lists_cut_and_rotted_at_every_byte(void **state)
{
    const struct kit_pair *const some[] = {&both, &stranger};
    BIO *text = BIO_new(BIO_s_mem());
    struct bns_tls_crl *c = NULL;
    struct bns_slice whole;
    uint8_t bytes[2048];
    int rv;
    (void)state;

    print_list(text, DER, &ca, some, 2);
    whole = text_of(text);
    assert_true(whole.len + 1 <= sizeof bytes);
    for (size_t i = 0; i < whole.len; i++)
        assert_int_equal(bns_tls_crl_new(bns_alloc_libc(), bns_slice(whole.ptr, i), "f", &c, NULL),
                         BNS_E_INVALID);
    memcpy(bytes, whole.ptr, whole.len);
    bytes[whole.len] = 0;
    assert_int_equal(
        bns_tls_crl_new(bns_alloc_libc(), bns_slice(bytes, whole.len + 1), "f", &c, NULL),
        BNS_E_INVALID);
    for (size_t i = 0; i < 8 * whole.len; i++) {
        bytes[i / 8] ^= (uint8_t)(1u << i % 8);
        rv = bns_tls_crl_new(bns_alloc_libc(), bns_slice(bytes, whole.len), "f", &c, NULL);
        assert_true(rv == BNS_OK || rv == BNS_E_INVALID);
        if (rv == BNS_OK) {
            (void)bns_tls_crl_has(c, both.cert);
            bns_tls_crl_free(c);
        }
        bytes[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    BIO_free(text);
}

/* Goal: whichever allocation fails, at the start or in a handshake: nobody who is in the list is
 * served, and nothing is left. */
static void every_allocation_may_fail(void **state)
{
    const struct kit_pair *const just[] = {&both};
    bool fired = true;
    (void)state;

    for (int fail_at = 1; fired; fail_at++) {
        struct ends e;

        ends_begin(&e, &both, &ca);
        write_list(e.r.vfs, "serve.crl", PEM, just, 1);
        if (ends_start(&e, fail_at, BNS_TLS_DEFAULT) == BNS_OK) {
            struct client c = {.hello = "hello"};

            if (client_dial_as(&e.r, &c, e.dial, NULL) == BNS_OK) {
                fake_run_for(&e.r.k.f, BNS_SEC / 4);
                assert_int_equal(c.got.len, 0);
                client_end(&e.r, &c);
            }
        }
        fired = ends_end(&e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_in_the_list_is_refused),
        cmocka_unit_test(a_changed_list_counts_from_the_next_handshake_on),
        cmocka_unit_test(one_file_holds_many_lists),
        cmocka_unit_test(bad_files_are_named),
        cmocka_unit_test(lists_cut_and_rotted_at_every_byte),
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, make_certificates, free_certificates);
}
