/* test_vfs_posix.c - the VFS on the real file system, in a directory of its own under $TMPDIR.
 *
 * The system calls are replaced by functions of this file that call the kernel, unless a plan says
 * that this one fails: so interruptions, short transfers and every errno can be had. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "sim/heap.h"
#include "store/vfs_posix.h"

/* ---- the plan: the n-th system call from now fails, or moves fewer bytes --------------------- */
static struct {
    int countdown; /* 0: nothing planned */
    int error;     /* 0: a short transfer of one byte */
    bool fired;
} plan;

static void plan_set(int countdown, int error)
{
    plan.countdown = countdown;
    plan.error = error;
    plan.fired = false;
}

static bool strikes(void)
{
    if (plan.countdown == 0 || --plan.countdown > 0)
        return false;
    plan.fired = true;
    errno = plan.error;
    return true;
}

ssize_t pread(int fd, void *dst, size_t len, off_t off)
{
    if (strikes()) {
        if (plan.error != 0)
            return -1;
        len = len > 1 ? 1 : len;
    }
    return syscall(SYS_pread64, fd, dst, len, off);
}

ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
    if (strikes()) {
        if (plan.error != 0)
            return -1;
        return iov[0].iov_len == 0 ? 0 : syscall(SYS_pwrite64, fd, iov[0].iov_base, 1, off);
    }
    return syscall(SYS_pwritev, fd, iov, n, off, 0);
}

int open(const char *path, int flags, ...)
{
    return strikes() ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0600);
}

int fsync(int fd)
{
    return strikes() ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return strikes() ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int ftruncate(int fd, off_t size)
{
    return strikes() ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

int flock(int fd, int op)
{
    return strikes() ? -1 : (int)syscall(SYS_flock, fd, op);
}

static char dir[256];
static struct bns_vfs *vfs;
static char path_space[4][BNS_PATH_MAX];

static const char *at(int i, const char *name)
{
    (void)snprintf(path_space[i], BNS_PATH_MAX, "%s/%s", dir, name);
    return path_space[i];
}

static int setup(void **state)
{
    const char *base = getenv("TMPDIR");
    (void)state;
    (void)snprintf(dir, sizeof dir, "%s/bns-vfs-XXXXXX", base == NULL ? "/tmp" : base);
    if (mkdtemp(dir) == NULL)
        return -1;
    vfs = bns_vfs_posix(bns_alloc_libc());
    return vfs == NULL ? -1 : 0;
}

static int remove_name(void *arg, const char *name)
{
    (void)arg;
    return bns_vfs_remove(vfs, at(3, name), NULL);
}

static int teardown(void **state)
{
    (void)state;
    if (bns_vfs_list(vfs, dir, remove_name, NULL, NULL) != BNS_OK)
        return -1;
    bns_vfs_posix_free(vfs);
    bns_vfs_posix_free(NULL);
    return rmdir(dir);
}

static struct bns_file *make(const char *path)
{
    struct bns_file *f = NULL;
    assert_int_equal(bns_vfs_open(vfs, path, BNS_OPEN_CREATE | BNS_OPEN_TRUNC, &f, NULL), BNS_OK);
    return f;
}

/* Many more slices than one system call takes, some empty, come back as one run of bytes. */
static void slices_are_written_one_behind_the_other(void **state)
{
    static uint8_t bytes[3000], back[4000];
    struct bns_slice v[1500];
    struct bns_file *f = make(at(0, "a"));
    uint64_t size = 0;
    size_t got = 0, off = 0;
    (void)state;

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i < 1500; i++) {
        size_t len = i % 5; /* 0..4, 3,000 in all */
        v[i] = bns_slice(len == 0 ? NULL : bytes + off, len);
        off += len;
    }
    assert_int_equal(off, sizeof bytes);
    assert_int_equal(bns_file_write_at(f, 500, v, 1500, NULL), BNS_OK);
    assert_int_equal(bns_file_size(f, &size, NULL), BNS_OK);
    assert_int_equal(size, 3500);
    assert_int_equal(bns_file_read_at(f, 500, back, 3000, &got, NULL), BNS_OK);
    assert_int_equal(got, 3000);
    assert_memory_equal(back, bytes, 3000);
    assert_int_equal(bns_file_read_at(f, 3400, back, 3000, &got, NULL), BNS_OK);
    assert_int_equal(got, 100); /* short only at the end */
    assert_int_equal(bns_file_read_at(f, 9999, back, 10, &got, NULL), BNS_OK);
    assert_int_equal(got, 0);
    assert_int_equal(bns_file_read_at(f, 0, back, 1, &got, NULL), BNS_OK);
    assert_int_equal(back[0], 0); /* the hole */
    assert_int_equal(bns_file_sync(f, true, NULL), BNS_OK);
    assert_int_equal(bns_file_sync(f, false, NULL), BNS_OK);
    assert_int_equal(bns_file_truncate(f, 10, NULL), BNS_OK);
    assert_int_equal(bns_file_size(f, &size, NULL), BNS_OK);
    assert_int_equal(size, 10);
    assert_int_equal(bns_file_write_at(f, 0, v, 0, NULL), BNS_OK);
    bns_file_close(f);
    bns_file_close(NULL);
}

/* The kernel stops a write in its middle (a size limit): the rest is tried, then NOSPACE. */
static void partial_write_goes_on_and_then_fails(void **state)
{
    static uint8_t bytes[8192];
    struct sigaction ignore = {.sa_handler = SIG_IGN}, old;
    struct rlimit limit, small;
    struct bns_slice v[2] = {bns_slice(bytes, 4096), bns_slice(bytes, 4096)};
    struct bns_file *f = make(at(0, "b"));
    struct bns_err err = {0};
    uint64_t size = 0;
    int rv;
    (void)state;

    assert_int_equal(sigaction(SIGXFSZ, &ignore, &old), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = limit;
    small.rlim_cur = 6000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    rv = bns_file_write_at(f, 0, v, 2, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(sigaction(SIGXFSZ, &old, NULL), 0);
    assert_int_equal(rv, BNS_E_NOSPACE);
    assert_non_null(strstr(err.text, "pwritev"));
    assert_int_equal(bns_file_size(f, &size, NULL), BNS_OK);
    assert_int_equal(size, 6000);
    bns_file_close(f);
}

/* Every error names path, call and reason, and has a code of ours. */
static void errors_name_path_and_call(void **state)
{
    static const struct {
        const char *name;
        int flags, rv;
        const char *text;
    } t[] = {
        {"none", BNS_OPEN_READ, BNS_E_NOTFOUND, "none: open: No such file or directory"},
        {"none", BNS_OPEN_WRITE, BNS_E_NOTFOUND, "none: open: No such file or directory"},
        {"c", BNS_OPEN_CREATE, BNS_OK, ""},
        {"c", BNS_OPEN_CREATE | BNS_OPEN_EXCL, BNS_E_EXISTS, "c: open: File exists"},
        {"c/d", BNS_OPEN_CREATE, BNS_E_NOTFOUND, "c/d: open: Not a directory"},
    };
    struct bns_file *f = NULL;
    struct bns_file_stat st;
    struct bns_err err;
    char longer[600];
    uint64_t bytes;
    (void)state;

    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        err.text[0] = '\0';
        assert_int_equal(bns_vfs_open(vfs, at(0, t[i].name), t[i].flags, &f, &err), t[i].rv);
        assert_non_null(strstr(err.text, t[i].text));
        if (t[i].rv == BNS_OK)
            bns_file_close(f);
    }
    memset(longer, 'a', sizeof longer);
    longer[599] = '\0';
    assert_int_equal(bns_vfs_open(vfs, longer, 0, &f, &err), BNS_E_INVALID);
    assert_int_equal(bns_vfs_remove(vfs, at(0, "none"), &err), BNS_E_NOTFOUND);
    assert_non_null(strstr(err.text, "none: remove:"));
    assert_int_equal(bns_vfs_rename(vfs, at(0, "none"), at(1, "x"), &err), BNS_E_NOTFOUND);
    assert_int_equal(bns_vfs_stat(vfs, at(0, "none"), &st, &err), BNS_E_NOTFOUND);
    assert_int_equal(bns_vfs_sync_dir(vfs, at(0, "none"), &err), BNS_E_NOTFOUND);
    assert_int_equal(bns_vfs_list(vfs, at(0, "none"), remove_name, NULL, &err), BNS_E_NOTFOUND);
    assert_int_equal(bns_vfs_free_bytes(vfs, at(0, "none"), &bytes, &err), BNS_E_NOTFOUND);
    assert_int_equal(bns_vfs_mkdir(vfs, at(0, "c"), &err), BNS_E_EXISTS);
    assert_int_equal(bns_vfs_mkdir(vfs, at(0, "none/d"), &err), BNS_E_NOTFOUND);
    assert_int_equal(bns_vfs_lock(vfs, at(0, "none/d"), &f, &err), BNS_E_NOTFOUND);
    assert_int_equal(bns_vfs_free_bytes(vfs, dir, &bytes, &err), BNS_OK);
    assert_true(bytes > 0);
    assert_int_equal(bns_vfs_open(vfs, at(0, "c"), BNS_OPEN_READ, &f, &err), BNS_OK);
    assert_int_equal(bns_file_truncate(f, 1, &err), BNS_E_IO); /* opened for reading only */
    assert_int_equal(bns_file_truncate(f, UINT64_MAX, &err), BNS_E_INVALID);
    assert_int_equal(bns_file_write_at(f, UINT64_MAX, NULL, 0, &err), BNS_E_INVALID);
    assert_int_equal(bns_file_read_at(f, UINT64_MAX, longer, 1, NULL, &err), BNS_E_INVALID);
    bns_file_close(f);
}

/* Directories are 0700, files 0600, whatever the umask allows; descriptors do not leak to
 * children. */
static void modes_are_private(void **state)
{
    struct bns_file *f;
    struct bns_file_stat st;
    struct stat os;
    mode_t old = umask(0);
    (void)state;

    assert_int_equal(bns_vfs_mkdir(vfs, at(0, "sub"), NULL), BNS_OK);
    assert_int_equal(bns_vfs_mkdir(vfs, at(0, "sub"), NULL), BNS_OK); /* there already */
    f = make(at(1, "e"));
    (void)umask(old);
    assert_int_equal(stat(at(0, "sub"), &os), 0);
    assert_int_equal(os.st_mode & 0777, 0700);
    assert_int_equal(stat(at(1, "e"), &os), 0);
    assert_int_equal(os.st_mode & 0777, 0600);
    assert_int_equal(bns_vfs_stat(vfs, at(0, "sub"), &st, NULL), BNS_OK);
    assert_true(st.is_dir);
    assert_int_equal(bns_vfs_stat(vfs, at(1, "e"), &st, NULL), BNS_OK);
    assert_false(st.is_dir);
    assert_int_equal(st.size, 0);
    bns_file_close(f);
    assert_int_equal(bns_vfs_sync_dir(vfs, dir, NULL), BNS_OK);
    assert_int_equal(bns_vfs_remove(vfs, at(0, "sub"), NULL), BNS_OK);
}

/* One holder at a time, also inside one process; the loser is told who holds it. */
static void lock_is_exclusive(void **state)
{
    struct bns_file *a = NULL, *b = NULL;
    struct bns_err err;
    char pid[32];
    (void)state;

    assert_int_equal(bns_vfs_lock(vfs, at(0, "LOCK"), &a, &err), BNS_OK);
    assert_int_equal(bns_vfs_lock(vfs, at(0, "LOCK"), &b, &err), BNS_E_BUSY);
    (void)snprintf(pid, sizeof pid, "(pid %ld)", (long)getpid());
    assert_non_null(strstr(err.text, pid));
    bns_file_close(a);
    assert_int_equal(bns_vfs_lock(vfs, at(0, "LOCK"), &b, &err), BNS_OK);
    bns_file_close(b);
}

struct seen {
    char names[64];
    int stop_at;
};

static int see(void *arg, const char *name)
{
    struct seen *s = arg;
    size_t len = strlen(s->names);
    (void)snprintf(s->names + len, sizeof s->names - len, "%s ", name);
    return --s->stop_at == 0 ? BNS_E_CANCELED : BNS_OK;
}

/* Names come sorted by bytes, without the dots; a visitor stops it; rename replaces. */
static void names_are_sorted(void **state)
{
    static const char *const names[] = {"b", "a", "B", "10", "9"};
    struct seen s = {.stop_at = 0};
    (void)state;

    assert_int_equal(bns_vfs_mkdir(vfs, at(0, "l"), NULL), BNS_OK);
    for (size_t i = 0; i < 5; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "l/%s", names[i]);
        bns_file_close(make(at(1, name)));
    }
    assert_int_equal(bns_vfs_list(vfs, at(0, "l"), see, &s, NULL), BNS_OK);
    assert_string_equal(s.names, "10 9 B a b ");
    s = (struct seen){.stop_at = 2};
    assert_int_equal(bns_vfs_list(vfs, at(0, "l"), see, &s, NULL), BNS_E_CANCELED);
    assert_string_equal(s.names, "10 9 ");
    assert_int_equal(bns_vfs_rename(vfs, at(1, "l/a"), at(2, "l/b"), NULL), BNS_OK);
    assert_int_equal(bns_vfs_remove(vfs, at(0, "l"), NULL), BNS_E_EXISTS); /* not empty */
    assert_int_equal(bns_vfs_remove(vfs, at(1, "l/b"), NULL), BNS_OK);
    assert_int_equal(bns_vfs_remove(vfs, at(1, "l/B"), NULL), BNS_OK);
    assert_int_equal(bns_vfs_remove(vfs, at(1, "l/9"), NULL), BNS_OK);
    assert_int_equal(bns_vfs_remove(vfs, at(1, "l/10"), NULL), BNS_OK);
    assert_int_equal(bns_vfs_remove(vfs, at(0, "l"), NULL), BNS_OK);
}

/* Every allocation of a listing and an open fails once: NOMEM, nothing leaks. */
static void allocation_fails_at_every_call(void **state)
{
    bool fired = true;
    (void)state;
    for (int n = 2; fired; n++) { /* the first one is the vfs itself */
        struct bns_test_heap *h = bns_test_heap(n);
        struct bns_vfs *v = bns_vfs_posix(bns_test_heap_alloc(h));
        struct seen s = {.stop_at = 0};
        struct bns_file *f = NULL;
        int rv = bns_vfs_open(v, at(0, "m"), BNS_OPEN_CREATE, &f, NULL);

        if (rv == BNS_OK)
            rv = bns_vfs_list(v, dir, see, &s, NULL);
        bns_file_close(f);
        bns_vfs_posix_free(v);
        assert_int_equal(bns_test_heap_close(h, &fired), 0);
        assert_int_equal(rv, fired ? BNS_E_NOMEM : BNS_OK);
    }
}

/* One of everything; returns the first error. */
static int exercise(struct bns_err *err)
{
    struct bns_slice v[3] = {BNS_LIT("abc"), BNS_LIT(""), BNS_LIT("defgh")};
    struct bns_file *f = NULL;
    char back[8];
    size_t got = 0;
    uint64_t size = 0;
    int rv = bns_vfs_open(vfs, at(0, "x"), BNS_OPEN_CREATE | BNS_OPEN_TRUNC, &f, err);

    if (rv == BNS_OK)
        rv = bns_file_write_at(f, 0, v, 3, err);
    if (rv == BNS_OK)
        rv = bns_file_sync(f, true, err);
    if (rv == BNS_OK)
        rv = bns_file_sync(f, false, err);
    if (rv == BNS_OK)
        rv = bns_file_read_at(f, 0, back, sizeof back, &got, err);
    if (rv == BNS_OK) {
        assert_int_equal(got, sizeof back);
        assert_memory_equal(back, "abcdefgh", sizeof back);
        rv = bns_file_truncate(f, 4, err);
    }
    if (rv == BNS_OK)
        rv = bns_file_size(f, &size, err);
    if (rv == BNS_OK)
        assert_int_equal(size, 4);
    bns_file_close(f);
    f = NULL;
    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(vfs, dir, err);
    if (rv == BNS_OK)
        rv = bns_vfs_lock(vfs, at(0, "LOCK"), &f, err);
    bns_file_close(f);
    return rv;
}

/* Every system call interrupted once, the write and the read cut short: nobody notices. */
static void interruptions_are_invisible(void **state)
{
    static const int short_calls[] = {2, 5}; /* pwritev, pread */
    (void)state;
    plan.fired = true;
    for (int n = 1; plan.fired; n++) {
        plan_set(n, EINTR);
        assert_int_equal(exercise(NULL), BNS_OK);
    }
    for (size_t i = 0; i < 2; i++) {
        plan_set(short_calls[i], 0);
        assert_int_equal(exercise(NULL), BNS_OK);
        assert_true(plan.fired);
    }
    plan_set(0, 0);
}

/* Every system call fails once, with every errno that has a code of its own. */
static void errors_have_codes(void **state)
{
    static const struct {
        int error, code;
    } t[] = {
        {EIO, BNS_E_IO},          {ENOSPC, BNS_E_NOSPACE},  {EDQUOT, BNS_E_NOSPACE},
        {EFBIG, BNS_E_NOSPACE},   {ENOMEM, BNS_E_NOMEM},    {EACCES, BNS_E_FORBIDDEN},
        {EPERM, BNS_E_FORBIDDEN}, {EROFS, BNS_E_FORBIDDEN}, {EMFILE, BNS_E_IO},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        plan.fired = true;
        for (int n = 1; plan.fired; n++) {
            struct bns_err err = {0};
            int rv;
            plan_set(n, t[i].error);
            rv = exercise(&err);
            assert_int_equal(rv, plan.fired ? t[i].code : BNS_OK);
            if (plan.fired)
                assert_non_null(strstr(err.text, dir));
        }
        plan_set(0, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_are_written_one_behind_the_other),
        cmocka_unit_test(partial_write_goes_on_and_then_fails),
        cmocka_unit_test(errors_name_path_and_call),
        cmocka_unit_test(modes_are_private),
        cmocka_unit_test(lock_is_exclusive),
        cmocka_unit_test(names_are_sorted),
        cmocka_unit_test(interruptions_are_invisible),
        cmocka_unit_test(errors_have_codes),
        cmocka_unit_test(allocation_fails_at_every_call),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
