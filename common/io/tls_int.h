/* tls_int.h - what the TLS files share. Nobody else includes this, or OpenSSL's TLS headers.
 *
 *   tls.c         struct bns_tls: life, looking at its files, messages and metrics
 *   tls_load.c    files to SSL_CTX
 *   tls_crl.c     revoked certificates
 *   tls_stream.c  one stream: records in and out
 *   tls_shake.c   handshakes: start, verdict, plain text that is refused
 *   tls_listen.c  listeners and dialling
 */
#ifndef BNS_IO_TLS_INT_H
#define BNS_IO_TLS_INT_H

#include <openssl/ssl.h>

#include "base/buf.h"
#include "base/env.h"
#include "io/tls.h"

#define BNS_TLS_SCRATCH (64u * 1024)
#define BNS_TLS_RECORD 16384u
#define BNS_TLS_TEXT_MAX 512u
#define BNS_TLS_DIGEST 32u

/* ---- certificates ---------------------------------------------------------------------------- */
struct bns_tls_files {
    char *cert, *key, *client_cert, *client_key, *ca, *crl;
};

struct bns_tls_crl;

struct bns_tls_ctx { /* what one look at the files makes */
    SSL_CTX *serve, *dial;
    struct bns_tls_crl *crl; /* NULL: no certificate is revoked */
};

enum bns_tls_result {
    BNS_TLS_OK,
    BNS_TLS_FAILED,  /* refused by either side, or broken */
    BNS_TLS_TIMEOUT, /* half-finished for too long */
    BNS_TLS_EVICTED, /* half-finished, and too many others are */
    BNS_TLS_PLAIN,   /* no TLS at all */
    BNS_TLS_RESULTS
};

struct bns_tls_look; /* one look at the files, in a pool job */

struct bns_tls {
    struct bns_env *env;
    uint32_t refs; /* the owner, streams, the task and the job while they are under way */
    char name[32];
    struct bns_tls_files files;
    bool serve, want_dial, client_cert_auth, skip_verify;
    char *allowed_cn, *allowed_hostname, *ciphers;
    int version_min, version_max;

    struct bns_tls_ctx ctx; /* in force */
    uint8_t digest[BNS_TLS_DIGEST];
    char bad[BNS_ERR_TEXT_MAX]; /* what was wrong at the last look, logged once */
    struct bns_tls_look *look;  /* under way */
    uint64_t looked_ns;
    bool look_again;
    bool stopped;
    void (*on_stopped)(void *arg);
    void *on_stopped_arg;

    struct bns_task turn;
    bool turn_posted;
    uint32_t starts_left;    /* handshakes that may begin in this turn */
    struct bns_list waiting; /* streams whose handshake may not begin yet */
    struct bns_list dirty;   /* streams with something to do at the end of the turn */
    uint8_t *plain;          /* BNS_TLS_SCRATCH: decrypted, for one call of on_data */
    uint8_t *staging;        /* BNS_TLS_RECORD: small writes together, before encryption */
    bool busy;               /* `plain` is in use */
    BIO_METHOD *bio;

    struct bns_counter *shakes[2][BNS_TLS_RESULTS]; /* dialled, accepted */
    struct bns_counter *reloads[2], *renegotiations, *cut, *revoked;
    struct bns_gauge *half;
    uint64_t log_ns, cut_log_ns;
};

/* tls.c */
void bns_tls_ref(struct bns_tls *t);
void bns_tls_unref(struct bns_tls *t);
void bns_tls_kick(struct bns_tls *t); /* runs the turn task in a later turn */
/* May a handshake begin now? If not the stream waits in t->waiting. */
bool bns_tls_may_start(struct bns_tls *t);
void bns_tls_count(struct bns_tls *t, bool accepted, enum bns_tls_result r);
void bns_tls_half(struct bns_tls *t, int by);
/* One line a second at most: what happened, with whom, and what to do. */
void bns_tls_reject_log(struct bns_tls *t, const struct bns_stream *under, bool accepted,
                        const char *why, const char *remedy);

/* tls_load.c: any thread, bytes and VFS calls only. */
BNS_MUST_CHECK int bns_tls_load(const struct bns_tls *t, struct bns_vfs *vfs, const uint8_t *known,
                                uint8_t digest[BNS_TLS_DIGEST], struct bns_tls_ctx *out,
                                struct bns_err *err);
void bns_tls_ctx_free(struct bns_tls_ctx *c);

/* tls_crl.c: any thread, but _verify. BNS_E_INVALID names the path. */
BNS_MUST_CHECK int bns_tls_crl_new(const struct bns_alloc *alloc, struct bns_slice text,
                                   const char *path, struct bns_tls_crl **out, struct bns_err *err);
void bns_tls_crl_free(struct bns_tls_crl *c); /* NULL is fine */
bool bns_tls_crl_has(const struct bns_tls_crl *c, const X509 *cert);
int bns_tls_crl_verify(int good, X509_STORE_CTX *x); /* OpenSSL's, once for each certificate */

/* ---- streams --------------------------------------------------------------------------------- */
enum bns_tls_state {
    BNS_TLS_WAITING, /* dialling, or accepted: no byte of TLS was exchanged */
    BNS_TLS_SHAKING,
    BNS_TLS_OPEN,
    BNS_TLS_CLOSING, /* the owner closed: what is queued goes out, then close_notify */
    BNS_TLS_ENDING   /* the stream below is being closed; on_close follows from it */
};

/* One write of the owner. */
struct bns_tls_write {
    struct bns_list node;
    bns_release_fn *release;
    void *arg;
    size_t count, at; /* slices, and the one that is next */
    size_t off;       /* bytes of it that are encrypted */
    struct bns_slice v[];
};

/* Encrypted bytes on their way to the stream below, which releases them. */
struct bns_tls_block {
    const struct bns_alloc *alloc;
    size_t len, cap;
    uint8_t bytes[];
};

struct bns_tls_stream {
    struct bns_stream base; /* first */
    struct bns_tls *t;
    struct bns_stream *under;
    struct bns_tls_listener *listener; /* accepted: until it is handed over */
    struct bns_list node;              /* listener->half */
    struct bns_list dirty;             /* t->dirty */
    struct bns_list wait;              /* t->waiting */
    struct bns_timer timer;            /* handshake, then closing */
    struct bns_stream_events ev;
    void *arg;
    SSL *ssl;
    struct bns_slice in;  /* what the stream below gave, during a call of OpenSSL */
    struct bns_buf held;  /* encrypted input that nobody wanted yet */
    struct bns_list out;  /* struct bns_tls_write, in order */
    struct bns_list done; /* encrypted whole: their release is due */
    struct bns_tls_block *block;
    size_t block_hint;
    size_t queued;
    char *server_name; /* dialled */
    const char *alpn;  /* dialled; static text */
    uint16_t chatter;  /* messages that are not data, since the last data */
    int code;          /* for on_close, when `coded` */
    enum bns_tls_state state;
    bool accepted;
    bool coded;
    bool reading; /* the owner wants data */
    bool resumes; /* it does again: what is held comes first */
    bool eof;     /* close_notify has come */
    bool high;    /* owes on_writable */
    bool renegotiates;
    bool no_memory; /* in the middle of a call of OpenSSL */
    bool half;      /* counted as a half-finished handshake */
};

/* tls_stream.c */
struct bns_tls_stream *bns_tls_stream_new(struct bns_tls *t);
void bns_tls_stream_free(struct bns_tls_stream *s);
extern const struct bns_stream_events bns_tls_under_events;
void bns_tls_mark(struct bns_tls_stream *s);          /* t->dirty */
void bns_tls_stream_turn(struct bns_tls_stream *s);   /* what was marked */
void bns_tls_stream_resume(struct bns_tls_stream *s); /* goes on with what was held */
BIO_METHOD *bns_tls_bio_new(void);
BNS_MUST_CHECK int bns_tls_ssl_new(struct bns_tls_stream *s, SSL_CTX *ctx);
bool bns_tls_give(struct bns_tls_stream *s); /* the block to the stream below */
/* Ends it after what is written; on_close gets `code`. */
void bns_tls_broken(struct bns_tls_stream *s, int code);

/* tls_shake.c */
void bns_tls_shake(struct bns_tls_stream *s); /* a step of the handshake, with s->in */
void bns_tls_shake_over(struct bns_tls_stream *s, enum bns_tls_result r); /* counts it */
void bns_tls_shake_lost(struct bns_tls_stream *s); /* the connection ended in the middle of it */
void bns_tls_on_timer(void *arg);
/* What OpenSSL's refusal means. The texts are valid until the next call of OpenSSL. */
struct bns_tls_verdict {
    const char *why, *remedy;
    int code;
};
void bns_tls_judge(struct bns_tls_stream *s, struct bns_tls_verdict *out);

/* tls_listen.c */
void bns_tls_listener_half(struct bns_tls_stream *s); /* no longer half-finished */
void bns_tls_hand_over(struct bns_tls_stream *s);

static inline struct bns_tls_stream *bns_tls_of(struct bns_stream *s)
{
    return (struct bns_tls_stream *)(void *)s;
}

#endif
