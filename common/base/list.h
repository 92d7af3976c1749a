/* list.h - intrusive circular doubly linked list. Header only.
 *
 *   struct job { struct bns_list node; ... };
 *   struct bns_list queue;  bns_list_init(&queue);
 *   bns_list_push(&queue, &job->node);
 *   struct job *j = BNS_CONTAINER(bns_list_pop(&queue), struct job, node);
 */
#ifndef BNS_BASE_LIST_H
#define BNS_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bns_list {
    struct bns_list *next;
    struct bns_list *prev;
};

#define BNS_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Visits every node; `n` may be removed in the body. */
#define BNS_LIST_EACH(n, head)                                                                     \
    for (struct bns_list *n = (head)->next, *n##_next = n->next; n != (head);                      \
         n = n##_next, n##_next = n->next)

static inline void bns_list_init(struct bns_list *l)
{
    l->next = l;
    l->prev = l;
}

static inline bool bns_list_empty(const struct bns_list *l)
{
    return l->next == l;
}

/* Appends at the tail. */
static inline void bns_list_push(struct bns_list *head, struct bns_list *n)
{
    n->prev = head->prev;
    n->next = head;
    head->prev->next = n;
    head->prev = n;
}

static inline void bns_list_push_front(struct bns_list *head, struct bns_list *n)
{
    bns_list_push(head->next, n);
}

/* Removes n from its list; n is then a list of its own, so a second removal does no harm. */
static inline void bns_list_del(struct bns_list *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    bns_list_init(n);
}

/* Removes and returns the first node, NULL when empty. */
static inline struct bns_list *bns_list_pop(struct bns_list *head)
{
    struct bns_list *n = head->next;
    if (n == head)
        return NULL;
    bns_list_del(n);
    return n;
}

/* Moves all nodes of `from` to the tail of `to`; `from` is empty afterwards. */
static inline void bns_list_splice(struct bns_list *to, struct bns_list *from)
{
    if (bns_list_empty(from))
        return;
    from->next->prev = to->prev;
    from->prev->next = to;
    to->prev->next = from->next;
    to->prev = from->prev;
    bns_list_init(from);
}

#endif
