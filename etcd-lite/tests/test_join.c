/* test_join.c - who a member is: the list that a cluster gives, the file that keeps it. */
#include <stdlib.h>
#include <unistd.h>

#include "join.h"
#include "kv_world.h"
#include "store/vfs_posix.h"

static int parse(const char *text, struct etcd_roster *r)
{
    struct bns_err err = {0};

    return etcd_join_parse(text, strlen(text), r, &err);
}

static void a_list_is_read_with_ids_of_64_bits(void **state)
{
    struct etcd_roster r;

    (void)state;
    assert_int_equal(parse("[{\"id\":18446744073709551615,\"peerURLs\":[\"http://10.0.0.1:2380\","
                           "\"http://a:1\"],\"name\":\"x\"},"
                           "{\"id\":1,\"peerURLs\":[\"https://b:2\"],\"isLearner\":true}]",
                           &r),
                     BNS_OK);
    assert_int_equal(r.count, 2);
    assert_true(r.member[0].id == UINT64_MAX);
    assert_int_equal(r.member[0].peer_urls.count, 2);
    assert_false(r.member[0].learner);
    assert_string_equal(r.member[1].peer_urls.url[0], "https://b:2");
    assert_true(r.member[1].learner);
}

static void what_is_no_list_is_refused(void **state)
{
    static const char five[] =
        "[{\"id\":1,\"peerURLs\":[\"http://a:1\",\"http://a:1\",\"http://a:1\","
        "\"http://a:1\",\"http://a:1\"]}]";
    static const char *const bad[] = {
        "",
        "{}",
        "[]",
        "[1]",
        "[{\"id\":1}]",
        "[{\"id\":1,\"peerURLs\":[]}]",
        "[{\"peerURLs\":[\"http://a:1\"]}]",
        "[{\"id\":1,\"peerURLs\":[1]}]",
        "[{\"id\":1,\"peerURLs\":[\"ftp://a:1\"]}]",
        five,
        "[{\"id\":1,\"peerURLs\":[\"http://a:1\"]}",
    };
    struct etcd_roster r;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(parse(bad[i], &r), BNS_E_PROTO);
}

/* Cut at every byte: what whole lines say, or refused. */
static void the_file_of_a_joined_member_is_whole_or_refused(void **state)
{
    static struct etcd_identity mine, is;
    char dir[] = "/tmp/bonsai-join-XXXXXX", path[64], text[4096];
    struct bns_vfs *vfs = bns_vfs_posix(bns_alloc_libc());
    struct bns_err err = {0};
    size_t len;
    FILE *f;

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_non_null(vfs);
    mine = (struct etcd_identity){.cluster_id = 0x1234, .member_id = UINT64_MAX, .joined = true};
    mine.told.count = 2;
    for (size_t i = 0; i < 2; i++) {
        mine.told.member[i].id = i + 1;
        mine.told.member[i].learner = i == 1;
        mine.told.member[i].peer_urls.count = i + 1;
        for (size_t u = 0; u <= i; u++)
            (void)snprintf(mine.told.member[i].peer_urls.url[u], ETCD_URL_MAX, "http://h%zu:%zu", i,
                           u + 1);
    }
    assert_int_equal(etcd_identity_check(vfs, dir, &mine, &is, &err), BNS_OK);
    assert_int_equal(etcd_identity_read(vfs, dir, &is, &err), BNS_OK);
    assert_true(is.cluster_id == mine.cluster_id && is.member_id == mine.member_id && is.joined);
    assert_int_equal(is.told.count, 2);
    assert_true(is.told.member[1].id == 2);
    assert_false(is.told.member[0].learner);
    assert_true(is.told.member[1].learner);
    assert_string_equal(is.told.member[1].peer_urls.url[1], "http://h1:2");
    (void)snprintf(path, sizeof path, "%s/identity", dir);
    f = fopen(path, "r");
    assert_non_null(f);
    len = fread(text, 1, sizeof text, f);
    (void)fclose(f);
    for (size_t cut = 0; cut < len; cut++) {
        int rv;

        f = fopen(path, "w");
        assert_non_null(f);
        assert_int_equal(fwrite(text, 1, cut, f), cut);
        (void)fclose(f);
        rv = etcd_identity_read(vfs, dir, &is, &err);
        if (rv != BNS_E_CORRUPT) { /* a line less: never another member or cluster */
            assert_int_equal(rv, BNS_OK);
            assert_true(is.cluster_id == mine.cluster_id && is.member_id == mine.member_id);
            assert_true(is.told.count <= mine.told.count);
        }
    }
    (void)unlink(path);
    (void)rmdir(dir);
    bns_vfs_posix_free(vfs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_is_read_with_ids_of_64_bits),
        cmocka_unit_test(what_is_no_list_is_refused),
        cmocka_unit_test(the_file_of_a_joined_member_is_whole_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
