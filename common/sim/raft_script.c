/* raft_script.c - scenario scripts for the Raft core: the commands.
 *
 *   nodes N [key=value...]     a group of N; election=1s heartbeat=100ms inflight= msgbytes=
 *                              uncommitted= trailing= (entries); voters=M: the others join later
 *   advance 500ms|2s           virtual time passes: timers and messages; roles are printed
 *   settle                     delivers what is on its way, and what that causes
 *   deliver N                  delivers the next N messages only
 *   propose TEXT via N         as the driver of N; x*20 proposes x twenty times
 *   read [N times] via N       linearizable reads; `reads` prints how they went
 *   campaign N                 an election now
 *   change +4 ~5 ^5 -1 via N   adds voter 4, adds learner 5, promotes 5, removes 1: one entry
 *   transfer N to M            N hands its leadership to M
 *   full N, free N             the log of N has no room, has room again
 *   conf N                     the configuration in force at N
 *   cut A > B | partition A.. | B..   links that lose; partition cuts both ways
 *   heal                       all links work
 *   crash N, restart N         loses what the disk has not done
 *   hold N, release N          the disk of N stops finishing writes; finishes all
 *   drop                       what is on its way is lost
 *   snapshot N                 the state machine of N makes itself durable, the log is trimmed
 *   streams fail|work          snapshots on their way
 *   trace on|off               messages are printed as they arrive
 *   counts                     messages sent since the last counts, by type
 *   status                     one line a node
 *   log N, state N             entries in the log of N; what its state machine has applied
 */
#include <stdio.h>
#include <stdlib.h>

#include "sim/raft_script.h"
#include "sim/raft_script_int.h"

#define WORDS_MAX 24

struct script {
    struct rs_world w;
    char words[WORDS_MAX][48];
    size_t words_count;
};

static uint64_t number(const char *s, uint64_t otherwise)
{
    char *end;
    uint64_t v = strtoull(s, &end, 10);

    if (end == s)
        return otherwise;
    if (strcmp(end, "ms") == 0)
        return v * RS_MS;
    if (strcmp(end, "s") == 0)
        return v * 1000 * RS_MS;
    return *end == '\0' || *end == '*' ? v : otherwise;
}

/* The node that word i names, NULL when there is none. */
static struct rs_node *node(struct script *s, size_t i)
{
    uint64_t id = i < s->words_count ? number(s->words[i], 0) : 0;
    return id >= 1 && id <= s->w.count ? &s->w.nodes[id - 1] : NULL;
}

static bool is(const struct script *s, size_t i, const char *word)
{
    return i < s->words_count && strcmp(s->words[i], word) == 0;
}

/* ---- commands: BNS_E_INVALID when the words make no sense ------------------------------------ */

static int cmd_nodes(struct script *s)
{
    uint64_t count = s->words_count > 1 ? number(s->words[1], 0) : 0;
    struct bns_raft_config *c = &s->w.cfg;

    if (count < 1 || count > RS_NODES_MAX || s->w.count != 0)
        return BNS_E_INVALID;
    s->w.voters = (size_t)count;
    for (size_t i = 2; i < s->words_count; i++) {
        char *eq = strchr(s->words[i], '=');
        uint64_t v = eq == NULL ? 0 : number(eq + 1, 0);
        if (v == 0)
            return BNS_E_INVALID;
        *eq = '\0';
        if (is(s, i, "election"))
            c->election_ns = v;
        else if (is(s, i, "heartbeat"))
            c->heartbeat_ns = v;
        else if (is(s, i, "inflight"))
            c->inflight_msgs_max = (uint32_t)v;
        else if (is(s, i, "msgbytes"))
            c->msg_bytes_max = (uint32_t)v;
        else if (is(s, i, "uncommitted"))
            c->uncommitted_bytes_max = v;
        else if (is(s, i, "trailing"))
            c->trailing_entries = v;
        else if (is(s, i, "voters") && v <= count)
            s->w.voters = (size_t)v;
        else
            return BNS_E_INVALID;
    }
    rs_open(&s->w, (size_t)count);
    return BNS_OK;
}

static int cmd_propose(struct script *s)
{
    struct rs_node *n = is(s, 2, "via") ? node(s, 3) : NULL;
    char *star = s->words_count > 1 ? strchr(s->words[1], '*') : NULL;
    uint64_t times = star == NULL ? 1 : number(star + 1, 0);
    uint64_t done = 0;
    int rv = BNS_OK;

    if (n == NULL || n->raft == NULL || times == 0)
        return BNS_E_INVALID;
    if (star != NULL)
        *star = '\0';
    for (; done < times && rv == BNS_OK; done += rv == BNS_OK) {
        struct bns_rcbuf *b = bns_rcbuf_copy(s->w.alloc, bns_slice_str(s->words[1]));
        struct bns_raft_in in = {.kind = BNS_RAFT_IN_PROPOSE, .data = &b, .data_count = 1};
        BNS_ASSERT(b != NULL);
        rv = rs_step(&s->w, n, in);
        bns_rcbuf_put(b);
    }
    if (rv != BNS_OK && times > 1)
        rs_print(&s->w, "  %s after %llu", bns_err_name(rv), (unsigned long long)done);
    else if (rv != BNS_OK)
        rs_print(&s->w, "  %s", bns_err_name(rv));
    return BNS_OK;
}

static int cmd_change(struct script *s)
{
    static const char signs[] = "+~^-"; /* in the order of the kinds */
    struct bns_raft_change c[WORDS_MAX];
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_CHANGE, .changes = c};
    size_t via = s->words_count < 3 ? 0 : s->words_count - 2;
    struct rs_node *n = is(s, via, "via") ? node(s, via + 1) : NULL;
    int rv;

    if (n == NULL || n->raft == NULL)
        return BNS_E_INVALID;
    for (size_t i = 1; i < via; i++) {
        const char *sign = strchr(signs, s->words[i][0]);
        if (sign == NULL)
            return BNS_E_INVALID;
        c[in.changes_count].kind = (enum bns_raft_change_kind)(sign - signs + 1);
        c[in.changes_count++].id = number(s->words[i] + 1, 0);
    }
    rv = rs_step(&s->w, n, in);
    if (rv != BNS_OK)
        rs_print(&s->w, "  %s", bns_err_name(rv));
    return BNS_OK;
}

static int cmd_transfer(struct script *s)
{
    struct rs_node *n = node(s, 1);
    struct rs_node *to = is(s, 2, "to") ? node(s, 3) : NULL;
    int rv;

    if (n == NULL || n->raft == NULL || to == NULL)
        return BNS_E_INVALID;
    rv = rs_step(&s->w, n, (struct bns_raft_in){.kind = BNS_RAFT_IN_TRANSFER, .peer = to->id});
    if (rv != BNS_OK)
        rs_print(&s->w, "  %s", bns_err_name(rv));
    return BNS_OK;
}

static size_t print_ids(char *to, size_t cap, const char *what, const uint64_t *ids, size_t n)
{
    size_t len = n == 0 ? 0 : (size_t)snprintf(to, cap, " %s", what);

    for (size_t i = 0; i < n; i++)
        len += (size_t)snprintf(to + len, cap - len, " %llu", (unsigned long long)ids[i]);
    return len;
}

static void cmd_conf(struct script *s, const struct rs_node *n)
{
    const struct bns_raft_conf *c = bns_raft_conf(n->raft);
    struct bns_raft_status st;
    char text[256] = "";
    size_t len = print_ids(text, sizeof text, "voters", c->voters, c->voters_count);

    bns_raft_status(n->raft, &st);
    len += print_ids(text + len, sizeof text - len, "old", c->voters_old, c->voters_old_count);
    (void)print_ids(text + len, sizeof text - len, "learners", c->learners, c->learners_count);
    rs_print(&s->w, "  %llu:%s%s%s", (unsigned long long)n->id, text[0] == 0 ? " joins" : text,
             st.conf_pending ? ", a change is pending" : "", st.removed ? ", removed" : "");
}

static int cmd_read(struct script *s)
{
    size_t at = is(s, 1, "via") ? 1 : 3;
    struct rs_node *n = is(s, at, "via") ? node(s, at + 1) : NULL;
    uint64_t times = at == 1 ? 1 : number(s->words[1], 0);

    if (n == NULL || n->raft == NULL)
        return BNS_E_INVALID;
    for (uint64_t i = 0; i < times; i++) {
        struct bns_raft_in in = {.kind = BNS_RAFT_IN_READ, .cookie = i + 1};
        int rv = bns_raft_step(n->raft, s->w.now, &in);
        if (rv != BNS_OK)
            rs_print(&s->w, "  %s after %llu", bns_err_name(rv), (unsigned long long)i);
        if (rv != BNS_OK)
            break;
    }
    return rs_step(&s->w, n, (struct bns_raft_in){.kind = BNS_RAFT_IN_STORED, .seq = n->stored});
}

static void cmd_reads(struct script *s)
{
    for (size_t i = 0; i < s->w.count; i++) {
        struct rs_node *n = &s->w.nodes[i];
        if (n->reads_ok > 0)
            rs_print(&s->w, "  via %llu: %llu answered at index %llu", (unsigned long long)n->id,
                     (unsigned long long)n->reads_ok, (unsigned long long)n->read_index);
        if (n->reads_failed > 0)
            rs_print(&s->w, "  via %llu: %llu failed", (unsigned long long)n->id,
                     (unsigned long long)n->reads_failed);
        n->reads_ok = n->reads_failed = 0;
    }
}

static int cmd_partition(struct script *s)
{
    bool left[RS_NODES_MAX] = {false};
    bool right[RS_NODES_MAX] = {false};
    bool *side = left;

    for (size_t i = 1; i < s->words_count; i++) {
        struct rs_node *n = node(s, i);
        if (is(s, i, "|"))
            side = right;
        else if (n == NULL)
            return BNS_E_INVALID;
        else
            side[n->id - 1] = true;
    }
    for (size_t a = 0; a < s->w.count; a++)
        for (size_t b = 0; b < s->w.count; b++)
            if (left[a] && right[b])
                s->w.cut[a][b] = s->w.cut[b][a] = true;
    return side == right ? BNS_OK : BNS_E_INVALID;
}

static int cmd_cut(struct script *s)
{
    struct rs_node *a = node(s, 1);
    struct rs_node *b = node(s, 3);

    if (a == NULL || b == NULL || !is(s, 2, ">"))
        return BNS_E_INVALID;
    s->w.cut[a->id - 1][b->id - 1] = true;
    return BNS_OK;
}

static void cmd_counts(struct script *s)
{
    for (uint8_t t = 1; t <= BNS_RAFT_MSG_LAST; t++) {
        if (s->w.sent[t] > 0)
            rs_print(&s->w, "  %llu %s", (unsigned long long)s->w.sent[t], rs_type(t));
        s->w.sent[t] = 0;
    }
}

static void cmd_status(struct script *s)
{
    for (size_t i = 0; i < s->w.count; i++) {
        struct rs_node *n = &s->w.nodes[i];
        struct bns_raft_status st;
        if (n->raft == NULL) {
            rs_print(&s->w, "  %llu down", (unsigned long long)n->id);
            continue;
        }
        bns_raft_status(n->raft, &st);
        rs_print(&s->w,
                 "  %llu %s term %llu leader %llu log %llu..%llu durable %llu commit %llu "
                 "applied %llu",
                 (unsigned long long)n->id, rs_role(st.role), (unsigned long long)st.term,
                 (unsigned long long)st.leader, (unsigned long long)st.first_index,
                 (unsigned long long)st.last_index, (unsigned long long)st.durable_index,
                 (unsigned long long)st.commit, (unsigned long long)st.applied);
    }
}

static int cmd_log(struct script *s, struct rs_node *n)
{
    for (uint64_t i = n->next_base + 1; i <= n->next_last; i++) {
        const struct bns_raft_entry *e = &n->next_log[i];
        if (e->kind == BNS_RAFT_CONF) {
            rs_print(&s->w, "  %llu term %llu configuration", (unsigned long long)i,
                     (unsigned long long)e->term);
            continue;
        }
        rs_print(&s->w, "  %llu term %llu %.*s", (unsigned long long)i, (unsigned long long)e->term,
                 e->data == NULL ? 5 : (int)e->data->len,
                 e->data == NULL ? "no-op" : (const char *)e->data->bytes);
    }
    return BNS_OK;
}

/* Commands that name one node. */
static int on_node(struct script *s, struct rs_node *n)
{
    if (n == NULL)
        return BNS_E_INVALID;
    if (is(s, 0, "log"))
        return cmd_log(s, n);
    if (is(s, 0, "restart") && n->raft == NULL) {
        rs_boot(&s->w, n);
        return BNS_OK;
    }
    if (n->raft == NULL)
        return BNS_E_INVALID;
    if (is(s, 0, "crash")) {
        rs_crash(&s->w, n);
    } else if (is(s, 0, "hold")) {
        n->hold = true;
    } else if (is(s, 0, "release")) {
        n->hold = false;
        rs_release(&s->w, n);
    } else if (is(s, 0, "full") || is(s, 0, "free")) {
        return rs_step(&s->w, n,
                       (struct bns_raft_in){.kind = BNS_RAFT_IN_ROOM, .ok = is(s, 0, "free")});
    } else if (is(s, 0, "conf")) {
        cmd_conf(s, n);
    } else if (is(s, 0, "campaign")) {
        return rs_step(&s->w, n, (struct bns_raft_in){.kind = BNS_RAFT_IN_CAMPAIGN});
    } else if (is(s, 0, "snapshot")) {
        rs_snapshot(&s->w, n);
    } else if (is(s, 0, "state")) {
        rs_print(&s->w, "  index %llu: %s", (unsigned long long)n->sm.index, n->sm.text);
    } else {
        return BNS_E_INVALID;
    }
    return BNS_OK;
}

static int run_command(struct script *s)
{
    int rv = BNS_OK;

    if (is(s, 0, "nodes"))
        rv = cmd_nodes(s);
    else if (s->w.count == 0)
        rv = BNS_E_INVALID;
    else if (is(s, 0, "advance") && s->words_count == 2)
        rs_advance(&s->w, number(s->words[1], 0));
    else if (is(s, 0, "settle"))
        rs_settle(&s->w);
    else if (is(s, 0, "deliver") && s->words_count == 2)
        rs_deliver(&s->w, (size_t)number(s->words[1], 0));
    else if (is(s, 0, "propose"))
        rv = cmd_propose(s);
    else if (is(s, 0, "change"))
        rv = cmd_change(s);
    else if (is(s, 0, "transfer"))
        rv = cmd_transfer(s);
    else if (is(s, 0, "read"))
        rv = cmd_read(s);
    else if (is(s, 0, "reads"))
        cmd_reads(s);
    else if (is(s, 0, "partition"))
        rv = cmd_partition(s);
    else if (is(s, 0, "cut"))
        rv = cmd_cut(s);
    else if (is(s, 0, "heal"))
        memset(s->w.cut, 0, sizeof s->w.cut);
    else if (is(s, 0, "drop"))
        rs_drop(&s->w);
    else if (is(s, 0, "streams"))
        s->w.streams_fail = is(s, 1, "fail");
    else if (is(s, 0, "trace"))
        s->w.trace = is(s, 1, "on");
    else if (is(s, 0, "counts"))
        cmd_counts(s);
    else if (is(s, 0, "status"))
        cmd_status(s);
    else
        rv = on_node(s, node(s, 1));
    return s->w.full ? BNS_E_NOSPACE : rv;
}

/* ---- the text ------------------------------------------------------------------------------- */

static void split(struct script *s, struct bns_slice line)
{
    size_t len = 0;

    s->words_count = 0;
    for (size_t i = 0; i <= line.len; i++) {
        bool blank = i == line.len || line.ptr[i] == ' ';
        if (blank && len > 0) {
            s->words[s->words_count++][len] = '\0';
            len = 0;
        } else if (!blank && s->words_count < WORDS_MAX && len + 1 < sizeof s->words[0]) {
            s->words[s->words_count][len++] = (char)line.ptr[i];
        }
    }
}

static struct bns_slice next_line(struct bns_slice *in)
{
    const uint8_t *nl = in->len == 0 ? NULL : memchr(in->ptr, '\n', in->len);
    size_t len = nl == NULL ? in->len : (size_t)(nl - in->ptr);
    struct bns_slice line = bns_slice(in->ptr, len);

    *in = bns_slice_skip(*in, len + 1);
    return line;
}

static int copy_line(struct bns_buf *out, struct bns_slice line)
{
    int rv = bns_buf_add(out, line.ptr, line.len);
    return rv == BNS_OK ? bns_buf_byte(out, '\n') : rv;
}

/* Commands are copied; what they print is collected and follows the `----`. */
static int run_text(struct script *s, struct bns_slice in, struct bns_buf *out,
                    struct bns_buf *printed, struct bns_err *err)
{
    bool expected = false; /* inside the old output: skipped */
    int rv = BNS_OK;

    for (size_t number_of_line = 1; in.len > 0 && rv == BNS_OK; number_of_line++) {
        struct bns_slice line = next_line(&in);
        if (expected && line.len > 0)
            continue;
        expected = false;
        rv = copy_line(out, line);
        if (line.len == 0 || line.ptr[0] == '#' || rv != BNS_OK)
            continue;
        if (bns_slice_eq(line, BNS_LIT("----"))) {
            rv = bns_buf_add(out, printed->ptr, printed->len);
            bns_buf_clear(printed);
            expected = true;
            continue;
        }
        split(s, line);
        rv = run_command(s);
        if (rv != BNS_OK)
            return bns_err_set(err, rv, "line %zu: %.*s: %s", number_of_line, (int)line.len,
                               (const char *)line.ptr, bns_err_default_text(rv));
    }
    return rv;
}

int bns_raft_script_run(struct bns_slice script, struct bns_buf *out, struct bns_err *err)
{
    const struct bns_alloc *alloc = bns_alloc_libc();
    struct script *s = bns_alloc_zero(alloc, sizeof *s);
    struct bns_buf printed;
    int rv = BNS_E_NOMEM;

    bns_buf_init(&printed, alloc, 1 << 20);
    if (s != NULL) {
        s->w.alloc = alloc;
        s->w.out = &printed;
        s->w.queue = bns_alloc_array(alloc, RS_QUEUE_MAX, sizeof *s->w.queue);
        if (s->w.queue != NULL)
            rv = run_text(s, script, out, &printed, err);
        rs_close(&s->w);
    }
    bns_free(alloc, s);
    bns_buf_free(&printed);
    return rv;
}
