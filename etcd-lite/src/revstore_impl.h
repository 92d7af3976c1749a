/* revstore_impl.h - what the files of the revision store share. */
#ifndef ETCD_REVSTORE_IMPL_H
#define ETCD_REVSTORE_IMPL_H

#include "revstore.h"
#include "store/sqlite_vfs.h"

enum etcd_stmt {
    ETCD_STMT_BEGIN,
    ETCD_STMT_COMMIT,
    ETCD_STMT_PUT,
    ETCD_STMT_GET,
    ETCD_STMT_DELETE,
    ETCD_STMT_SCAN,
    ETCD_STMT_LEASE_PUT,
    ETCD_STMT_LEASE_DELETE,
    ETCD_STMT_LEASES,
    ETCD_STMT_META,
    ETCD_STMT_PAGES,
    ETCD_STMT_FREE,
    ETCD_STMT_VACUUM,
    ETCD_STMTS
};

struct etcd_store {
    struct bns_env *env;
    const struct bns_alloc *alloc; /* callable from the worker */
    struct bns_vfs *vfs;
    struct bns_sqlite_vfs *svfs;
    struct bns_worker *worker;
    char dir[BNS_PATH_MAX];
    uint64_t number; /* of kv-<n>.db */
    sqlite3 *db;
    sqlite3_stmt *stmt[ETCD_STMTS];
    bool in_tx, changed;
    uint32_t page_bytes;
    uint64_t db_bytes, db_bytes_used;
    struct etcd_meta meta; /* as written last */
    uint64_t backups;      /* file numbers given so far */
    struct bns_list open;  /* struct etcd_backup */
    struct bns_file *install;
    int bad; /* the first failure of the database: nothing runs after it */
    struct bns_err bad_err;
};

/* An outgoing snapshot: first the copy, then the file that it is read from. */
struct etcd_backup {
    struct bns_list node; /* the store's */
    char name[32];
    sqlite3 *db;
    sqlite3_backup *copy;
    struct bns_file *file;
    struct etcd_export *bolt; /* of one for clients: bolt_export.h */
    bool exported;
};

/* revstore.c */
BNS_MUST_CHECK int etcd_store_path(const struct etcd_store *s, char *dst, const char *name,
                                   struct bns_err *err);
BNS_MUST_CHECK int etcd_store_db_open(struct etcd_store *s, const char *name, sqlite3 **out,
                                      struct bns_err *err);
BNS_MUST_CHECK int etcd_store_exec(sqlite3 *db, const char *sql, struct bns_err *err);
BNS_MUST_CHECK int etcd_store_attach(struct etcd_store *s, const char *name, struct bns_err *err);
void etcd_store_detach(struct etcd_store *s);
BNS_MUST_CHECK int etcd_store_commit(struct etcd_store *s, struct bns_err *err);
BNS_MUST_CHECK int etcd_store_checkpoint(struct etcd_store *s, struct bns_err *err);
BNS_MUST_CHECK int etcd_store_meta_read(sqlite3 *db, struct etcd_meta *out, struct bns_err *err);
BNS_MUST_CHECK int etcd_store_stat(struct etcd_store *s, struct bns_err *err);
int etcd_store_clean(struct etcd_store *s, struct bns_err *err);

/* revstore_jobs.c: the handler of the worker */
void etcd_store_handle(void *arg, struct bns_list *jobs);

/* revstore_snap.c */
int etcd_store_snap_job(struct etcd_store *s, struct etcd_store_job *j);
void etcd_store_snap_died(struct etcd_store *s);

#endif
