/* auth_look.c - users and roles as they are stored, and questions about them.
 *
 * Rows are protobuf, read field by field where they lie. load (auth.c) has walked through all of
 * them, so a field that cannot be read is not met later.
 */
#include "auth_int.h"

#include "codec/pb.h"

/* ---- stored bytes --------------------------------------------------------------------------- */

bool etcd_user_next_role(struct bns_slice *rest, struct bns_slice *role)
{
    struct bns_pb_field f = {0};

    while (rest->len > 0) {
        if (bns_pb_next(rest, &f) != BNS_OK)
            return false; /* load has looked at all of them */
        if (f.id == 3 && f.wire == 2) {
            *role = f.bytes;
            return true;
        }
    }
    return false;
}

bool etcd_user_parse(struct bns_slice in, struct etcd_user_view *out)
{
    struct bns_pb_field f = {0};

    *out = (struct etcd_user_view){.password = {NULL, 0}};
    while (in.len > 0) {
        if (bns_pb_next(&in, &f) != BNS_OK || (f.id >= 1 && f.id <= 4 && f.wire != 2))
            return false;
        if (f.id == 2)
            out->password = f.bytes;
        if (f.id == 3) {
            out->roles_count++;
            out->root = out->root || bns_slice_eq(f.bytes, ETCD_ROOT);
        }
        if (f.id == 4)
            out->options = f.bytes.ptr == NULL ? bns_slice("", 0) : f.bytes;
    }
    in = out->options;
    while (in.len > 0) {
        if (bns_pb_next(&in, &f) != BNS_OK)
            return false;
        if (f.id == 1 && f.wire == 0)
            out->no_password = f.u64 != 0;
    }
    return true;
}

bool etcd_user_find(const struct etcd_kv *kv, struct bns_slice name, struct bns_slice *bytes,
                    struct etcd_user_view *out)
{
    *bytes = etcd_bucket_get(kv, ETCD_BUCKET_USERS, name);
    return bytes->ptr != NULL && etcd_user_parse(*bytes, out);
}

bool etcd_perm_parse(struct bns_slice in, struct etcd_perm_view *out)
{
    struct bns_pb_field f = {0};

    *out = (struct etcd_perm_view){.raw = in};
    while (in.len > 0) {
        if (bns_pb_next(&in, &f) != BNS_OK || (f.id == 1 && f.wire != 0) ||
            ((f.id == 2 || f.id == 3) && f.wire != 2))
            return false;
        if (f.id == 1)
            out->type = f.u64;
        if (f.id == 2)
            out->key = f.bytes;
        if (f.id == 3)
            out->range_end = f.bytes;
    }
    return true;
}

bool etcd_role_next_perm(struct bns_slice *rest, struct etcd_perm_view *out)
{
    struct bns_pb_field f = {0};

    while (rest->len > 0) {
        if (bns_pb_next(rest, &f) != BNS_OK)
            return false;
        if (f.id == 2 && f.wire == 2)
            return etcd_perm_parse(f.bytes, out);
    }
    return false;
}

bool etcd_user_has(struct bns_slice user, struct bns_slice role)
{
    struct bns_slice r;

    while (etcd_user_next_role(&user, &r)) {
        if (bns_slice_eq(r, role))
            return true;
    }
    return false;
}

/* ---- questions ------------------------------------------------------------------------------ */

bool etcd_auth_enabled(const struct etcd_kv *kv)
{
    return kv->auth->enabled;
}

uint64_t etcd_auth_revision(const struct etcd_kv *kv)
{
    return kv->auth->revision;
}

bool etcd_auth_loading(const struct etcd_kv *kv)
{
    return kv->install.active;
}

bool etcd_auth_has_role(const struct etcd_kv *kv, struct bns_slice user, struct bns_slice role)
{
    struct bns_slice bytes = etcd_bucket_get(kv, ETCD_BUCKET_USERS, user);

    return bytes.ptr != NULL && etcd_user_has(bytes, role);
}

bool etcd_auth_password(const struct etcd_kv *kv, struct bns_slice user, struct bns_slice *hash,
                        struct etcd_status *why)
{
    struct etcd_user_view u;
    struct bns_slice bytes;

    if (!kv->auth->enabled)
        *why = etcd_auth_off;
    else if (!etcd_user_find(kv, user, &bytes, &u))
        *why = etcd_auth_failed;
    else if (u.no_password)
        *why = etcd_auth_no_password_user;
    else
        *why = etcd_ok;
    if (why->code == 0)
        *hash = u.password;
    return why->code == 0;
}

int etcd_auth_put_user(const struct etcd_kv *kv, struct bns_slice name, struct bns_buf *out)
{
    struct bns_slice rest = etcd_bucket_get(kv, ETCD_BUCKET_USERS, name), role;
    int rv = rest.ptr == NULL ? BNS_E_NOTFOUND : BNS_OK;

    while (rv == BNS_OK && etcd_user_next_role(&rest, &role))
        rv = bns_pb_put_bytes_always(out, 2, role);
    return rv;
}

int etcd_auth_put_role(const struct etcd_kv *kv, struct bns_slice name, struct bns_buf *out)
{
    static const uint8_t all[] = {0x08, 0x02, 0x1a, 0x01, 0x00}; /* READWRITE, up to the end */
    struct bns_slice rest = etcd_bucket_get(kv, ETCD_BUCKET_ROLES, name);
    int rv = rest.ptr == NULL ? BNS_E_NOTFOUND : BNS_OK;
    struct etcd_perm_view p;

    if (rv == BNS_OK && bns_slice_eq(name, ETCD_ROOT))
        return bns_pb_put_bytes_always(out, 2, bns_slice(all, sizeof all));
    while (rv == BNS_OK && etcd_role_next_perm(&rest, &p))
        rv = bns_pb_put_bytes_always(out, 2, p.raw);
    return rv;
}

int etcd_auth_put_names(const struct etcd_kv *kv, bool roles, struct bns_buf *out)
{
    enum etcd_bucket b = roles ? ETCD_BUCKET_ROLES : ETCD_BUCKET_USERS;
    const struct etcd_bucket_row *row = NULL;
    int rv = BNS_OK;

    while (rv == BNS_OK && (row = etcd_bucket_next(kv, b, row)) != NULL)
        rv = bns_pb_put_bytes_always(out, 2, etcd_bucket_key(row));
    return rv;
}
