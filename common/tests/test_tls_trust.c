/* test_tls_trust.c - who is trusted, by which certificates, also when their files change.
 *
 * Method: as test_tls.c. A table of certificates on both sides, each tried on both versions of TLS;
 * whom a client trusts tells which certificate it was shown. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "tls_rig.h"

/* ---- who is trusted -------------------------------------------------------------------------- */
struct trust {
    const char *name;
    struct kit_issue server, client; /* signed by ca, unless by_other */
    const char *dialled;             /* the name that is asked for; NULL: 127.0.0.1 */
    const char *cn, *hostname;       /* allowed of clients */
    const char *log;                 /* in the last line */
    int code;                        /* of the client's end; BNS_OK: it is served */
    int code12;                      /* in TLS 1.2, when it is another */
    bool server_by_other, client_by_other, no_client, ask, skip;
    enum bns_tls_version serve_max, dial_min;
};

static const struct trust trusts[] = {
    {.name = "a server that asks for no certificate", .no_client = true},
    {.name = "mutual", .ask = true},
    {.name = "by a DNS name", .dialled = "localhost", .ask = true},
    {.name = "no client certificate",
     .ask = true,
     .no_client = true,
     .code = BNS_E_UNAUTH,
     .code12 = BNS_E_PROTO, /* the alert of TLS 1.2 has several meanings */
     .log = "--cert, --key"},
    {.name = "client of another CA",
     .ask = true,
     .client_by_other = true,
     .code = BNS_E_UNAUTH,
     .log = "trusted CA file"},
    {.name = "expired client",
     .ask = true,
     .client = {.from_s = -7200, .to_s = -3600},
     .code = BNS_E_UNAUTH,
     .log = "certificate has expired"},
    {.name = "client not yet valid",
     .ask = true,
     .client = {.from_s = 3600, .to_s = 7200},
     .code = BNS_E_UNAUTH,
     .log = "not yet valid"},
    {.name = "a server's certificate as client",
     .ask = true,
     .client = {.usage = "serverAuth"},
     .code = BNS_E_UNAUTH,
     .log = "clientAuth"},
    {.name = "a client's certificate as server",
     .server = {.usage = "clientAuth"},
     .code = BNS_E_UNAUTH,
     .log = "serverAuth"},
    {.name = "server of another CA", .server_by_other = true, .code = BNS_E_UNAUTH},
    {.name = "server of another CA, not verified", .server_by_other = true, .skip = true},
    {.name = "expired server",
     .server = {.from_s = -7200, .to_s = -3600},
     .code = BNS_E_UNAUTH,
     .log = "certificate has expired"},
    {.name = "server not yet valid",
     .server = {.from_s = 3600, .to_s = 7200},
     .code = BNS_E_UNAUTH,
     .log = "not yet valid"},
    {.name = "server of another address",
     .server = {.san = "IP:10.0.0.1"},
     .code = BNS_E_UNAUTH,
     .log = "subjectAltName"},
    {.name = "server of another name",
     .dialled = "db.example",
     .code = BNS_E_UNAUTH,
     .log = "subjectAltName"},
    {.name = "a common name is no name",
     .server = {.cn = "db.example", .san = "DNS:other.example"},
     .dialled = "db.example",
     .code = BNS_E_UNAUTH},
    {.name = "the allowed common name", .ask = true, .cn = "friend", .client = {.cn = "friend"}},
    {.name = "another common name",
     .ask = true,
     .cn = "friend",
     .client = {.cn = "foe"},
     .code = BNS_E_DROPPED,
     .log = "allowed CN"},
    {.name = "the allowed name", .ask = true, .hostname = "localhost"},
    {.name = "another name",
     .ask = true,
     .hostname = "friend.example",
     .code = BNS_E_DROPPED,
     .log = "allowed CN or hostname"},
    {.name = "no version in common",
     .serve_max = BNS_TLS_1_2,
     .dial_min = BNS_TLS_1_3,
     .code = BNS_E_PROTO,
     .log = "use TLS 1.2 or 1.3"},
};

static void trust_files(struct bns_vfs *vfs, const struct trust *t)
{
    struct kit_pair s = kit_issue(t->server_by_other ? &other_ca : &ca, t->server);
    struct kit_pair c = kit_issue(t->client_by_other ? &other_ca : &ca, t->client);

    kit_write_pair(vfs, "server", &s);
    kit_write_pair(vfs, "client", &c);
    kit_pair_free(&s);
    kit_pair_free(&c);
}

static void try_trust(const struct trust *t, enum bns_tls_version dial_max)
{
    struct bns_tls_config serve = {.name = "s",
                                   .serve = true,
                                   .cert_file = "server.pem",
                                   .key_file = "server.key",
                                   .ca_file = "ca.pem",
                                   .client_cert_auth = t->ask,
                                   .allowed_cn = t->cn,
                                   .allowed_hostname = t->hostname,
                                   .version_max = t->serve_max};
    struct bns_tls_config dial = {.name = "d",
                                  .dial = true,
                                  .cert_file = t->no_client ? NULL : "client.pem",
                                  .key_file = t->no_client ? NULL : "client.key",
                                  .ca_file = "ca.pem",
                                  .skip_verify = t->skip,
                                  .version_min = t->dial_min,
                                  .version_max = dial_max};
    struct client c = {.hello = "hello"};
    struct bns_tls *ts = NULL, *td = NULL;
    struct bns_tls_listener *l = NULL;
    struct bns_tls_listen_options o = {.host = "h", .fn = on_accept};
    struct rig r;

    assert_int_equal(rig_start(&r, 0, NULL, NULL), BNS_OK);
    trust_files(r.vfs, t);
    o.arg = &r;
    assert_int_equal(bns_tls_new(&r.k.f.env, &serve, &ts, NULL), BNS_OK);
    assert_int_equal(bns_tls_new(&r.k.f.env, &dial, &td, NULL), BNS_OK);
    assert_int_equal(bns_tls_listen(&r.k.f.env, ts, &o, &l, NULL), BNS_OK);
    r.port = bns_tls_listener_port(l);
    assert_int_equal(client_dial_as(&r, &c, td, t->dialled), BNS_OK);
    fake_run_for(&r.k.f, BNS_SEC / 2);
    if (t->code == BNS_OK) {
        char cn[64];

        assert_int_equal(c.got.len, 5);
        assert_int_equal(bns_tls_peer_cn(r.server, cn, sizeof cn), t->ask);
    } else {
        assert_int_equal(c.closed, 1);
        assert_int_equal(c.got.len, 0);
        if (c.code != (dial_max == BNS_TLS_1_2 && t->code12 != 0 ? t->code12 : t->code))
            fail_msg("code %d: %s", c.code, r.k.said);
        assert_true(r.k.log_lines > 0);
        if (t->log != NULL && strstr(r.k.said, t->log) == NULL)
            fail_msg("the log says: %s", r.k.said);
    }
    client_end(&r, &c);
    bns_tls_listener_close(l);
    fake_run_for(&r.k.f, BNS_SEC);
    bns_tls_free(ts);
    bns_tls_free(td);
    (void)rig_end(&r);
}

/* Goal: exactly who should be is served, on both versions; the log names what to do. */
static void who_is_trusted(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof trusts / sizeof trusts[0]; i++) {
        print_message("  %s\n", trusts[i].name);
        try_trust(&trusts[i], BNS_TLS_DEFAULT);
        if (trusts[i].dial_min == BNS_TLS_DEFAULT)
            try_trust(&trusts[i], BNS_TLS_1_2);
    }
}

/* ---- files ----------------------------------------------------------------------------------- */
static void bad_files_are_named(void **state)
{
    static const struct {
        const char *cert, *key, *ca, *says;
    } t[] = {
        {"none.pem", "both.key", NULL, "none.pem: no such file; check the path"},
        {"both.pem", "none.key", NULL, "none.key: no such file; check the path"},
        {"both.pem", "both.key", "none.pem", "none.pem: no such file; check the path"},
        {"both.pem", "stranger.key", NULL,
         "tls: private key does not match public key: stranger.key is not the key of both.pem"},
        {"both.key", "both.pem", NULL, "both.key: not a certificate in PEM"},
        {"both.pem", "ca.pem", NULL, "ca.pem: not a private key in PEM without a password"},
        {"empty", "both.key", NULL, "empty: not a certificate in PEM"},
        {"both.pem", "both.key", "empty", "empty: holds no certificate in PEM"},
        {"both.pem", "both.key", "broken", "broken: bad certificate"},
        {"both.pem", NULL, NULL,
         "KeyFile and CertFile must both be present[key: , cert: both.pem]"},
        {NULL, "both.key", NULL,
         "KeyFile and CertFile must both be present[key: both.key, cert: ]"},
        {NULL, NULL, NULL, "a TLS server needs a certificate and its key"},
    };
    struct rig r;

    (void)state;
    assert_int_equal(rig_start(&r, 0, NULL, NULL), BNS_OK);
    kit_write(r.vfs, "empty", BNS_LIT(""));
    kit_write(r.vfs, "broken",
              BNS_LIT("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"));
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_tls_config cfg = {.name = "s",
                                     .serve = true,
                                     .cert_file = t[i].cert,
                                     .key_file = t[i].key,
                                     .ca_file = t[i].ca,
                                     .client_cert_auth = true};
        struct bns_tls *tls = NULL;
        struct bns_err err = {0};

        assert_int_equal(bns_tls_new(&r.k.f.env, &cfg, &tls, &err), BNS_E_INVALID);
        if (strstr(err.text, t[i].says) == NULL)
            fail_msg("%s\ninstead of: %s", err.text, t[i].says);
    }
    (void)rig_end(&r);
}

/* Goal: a changed certificate is what the next handshake shows, a broken file changes nothing, and
 * open connections go on. How: whom the client trusts tells which certificate it was shown. */
static void changed_files_are_served_to_the_next_client(void **state)
{
    struct bns_tls_config d = {.name = "d", .dial = true, .ca_file = "other.pem"};
    struct bns_tls *other = NULL;
    struct rig r;
    struct client first, c = {0};

    (void)state;
    assert_int_equal(rig_start(&r, 0, NULL, NULL), BNS_OK);
    assert_int_equal(bns_tls_new(&r.k.f.env, &d, &other, NULL), BNS_OK);
    serve_once(&r, &first);
    kit_write_pem(r.vfs, "both.pem", stranger.cert, NULL); /* half of the change */
    fake_run_for(&r.k.f, 2 * BNS_SEC);
    serve_once(&r, &c);
    assert_non_null(strstr(r.k.said, "private key does not match"));
    client_end(&r, &c);
    kit_write_pem(r.vfs, "both.key", NULL, stranger.key);
    fake_run_for(&r.k.f, 2 * BNS_SEC);
    client_dial(&r, &c); /* waits for the look, and sees the new one */
    fake_run_for(&r.k.f, BNS_SEC / 4);
    assert_int_equal(c.code, BNS_E_UNAUTH);
    client_end(&r, &c);
    c = (struct client){.hello = "hello"};
    assert_int_equal(client_dial_as(&r, &c, other, NULL), BNS_OK);
    fake_run_for(&r.k.f, BNS_SEC / 4);
    assert_int_equal(c.got.len, 5);
    client_end(&r, &c);
    kit_write_pair(r.vfs, "both", &both); /* and back, at once: SIGHUP */
    bns_tls_reload(r.serve);
    serve_once(&r, &c);
    client_end(&r, &c);
    assert_int_equal(first.closed, 0);
    client_end(&r, &first);
    fake_run_for(&r.k.f, BNS_SEC);
    bns_tls_free(other);
    (void)rig_end(&r);
}

static void count(void *arg)
{
    ++*(size_t *)arg;
}

/* Goal: the end waits for a look that is under way; handshakes that wait for it go on. */
static void a_look_that_takes_long_is_waited_for(void **state)
{
    struct rig r;
    struct client c = {.hello = "hello"};
    size_t stopped = 0;

    (void)state;
    assert_int_equal(rig_start(&r, 0, NULL, NULL), BNS_OK);
    fake_run_for(&r.k.f, 2 * BNS_SEC);
    r.k.jobs_held = true;
    client_dial(&r, &c);
    fake_run_for(&r.k.f, BNS_SEC);
    assert_int_equal(r.accepted, 0);
    r.k.jobs_held = false;
    kit_run_jobs(&r.k.run);
    fake_run_for(&r.k.f, BNS_SEC / 4);
    assert_int_equal(c.got.len, 5);
    client_end(&r, &c);
    r.k.jobs_held = true;
    bns_tls_reload(r.serve);
    bns_tls_reload(r.serve); /* a second one follows the first */
    fake_run_for(&r.k.f, BNS_SEC);
    bns_tls_stop(r.serve, count, &stopped);
    fake_run_for(&r.k.f, BNS_SEC);
    assert_int_equal(stopped, 0);
    r.k.jobs_held = false;
    kit_run_jobs(&r.k.run);
    assert_int_equal(stopped, 1);
    (void)rig_end(&r);
}

/* ---- resumption ------------------------------------------------------------------------------ */

/* A ticket is good for as long as the certificate that was shown for it, and no longer. */
static void an_expired_certificate_is_not_resumed(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    struct bns_tls_config cfg = {.name = "s",
                                 .serve = true,
                                 .cert_file = "both.pem",
                                 .key_file = "both.key",
                                 .ca_file = "ca.pem",
                                 .client_cert_auth = true};
    struct kit_pair brief = kit_issue(&ca, (struct kit_issue){.from_s = -60, .to_s = 5});
    SSL_SESSION *session[2] = {NULL, NULL};
    SSL_CTX *ctx[2];
    struct rig r;
    size_t n;
    (void)state;

    assert_int_equal(rig_start(&r, 0, &cfg, NULL), BNS_OK);
    for (size_t i = 0; i < 2; i++) {
        ctx[i] = SSL_CTX_new(TLS_client_method());
        assert_int_equal(SSL_CTX_set_max_proto_version(ctx[i], versions[i]), 1);
        assert_int_equal(SSL_CTX_use_certificate(ctx[i], brief.cert), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey(ctx[i], brief.key), 1);
        assert_false(resumed(&r, ctx[i], &session[i], &n));
        assert_int_equal(n, 1);
        assert_true(resumed(&r, ctx[i], &session[i], &n));
        assert_int_equal(n, 1);
    }
    while (X509_cmp_current_time(X509_get0_notAfter(brief.cert)) > 0)
        (void)poll(NULL, 0, 100); /* OpenSSL asks the real clock */
    for (size_t i = 0; i < 2; i++) {
        assert_false(resumed(&r, ctx[i], &session[i], &n));
        assert_int_equal(n, 0);
        SSL_SESSION_free(session[i]);
        SSL_CTX_free(ctx[i]);
    }
    kit_pair_free(&brief);
    (void)rig_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_trusted),
        cmocka_unit_test(bad_files_are_named),
        cmocka_unit_test(changed_files_are_served_to_the_next_client),
        cmocka_unit_test(a_look_that_takes_long_is_waited_for),
        cmocka_unit_test(an_expired_certificate_is_not_resumed),
    };

    return cmocka_run_group_tests(tests, make_certificates, free_certificates);
}
