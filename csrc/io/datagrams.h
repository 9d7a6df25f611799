/* datagrams.h - datagrams that came and are not yet delivered, and those that wait to
 * be sent; many of them to one system call.
 *
 * Promises: order and borders stay. No policy: what is done about an error, when what
 * is sent or delivered and how much may wait is the transport's business. */
#ifndef FL_DATAGRAMS_H
#define FL_DATAGRAMS_H
#include "io/peers.h"

enum { FL_DATAGRAMS_BATCH = 64 }; /* that one system call takes */

typedef struct {
    PyObject *data;
    PyObject *address;
    FlPeerName name;
} FlDatagram;

/* Invariants: items is NULL or FL_DATAGRAMS_BATCH long; items[head .. count) waits.
 * batch is how many the next system call asks for, unless streak says that they come
 * one by one: it counts the calls in a row that brought one. receiving while datagrams
 * come in. */
typedef struct {
    FlDatagram *items;
    int head;
    int count;
    int batch;
    unsigned streak;
    bool receiving;
    char *scratch; /* slots of a batch, once datagrams came in bursts */
} FlInbox;

/* Invariants: the ring's capacity is a power of two or 0. data is a bytes object. name
 * tells where it goes; if that is empty, address does, which the caller sees to; if
 * that is NULL, too, it goes to the connected peer. size is the sum of the data's
 * lengths and FL_UDP_HEADER_SIZE for each. segment_size is up to which size datagrams
 * may be sent as segments of one, negative before the first try. */
typedef struct {
    FlDatagram *items;
    size_t head;
    size_t count;
    size_t capacity;
    size_t size;
    int segment_size;
} FlOutbox;

/* Receives into an empty inbox, by way of slab, which has FL_SLAB_SIZE bytes. Returns
 * how many came, 0 for none; -1 with *code an errno, or 0 with an exception. *more
 * tells that others may wait in the socket. */
int fl_inbox_receive(FlInbox *inbox, FlPeers *peers, int fd, int family, char *slab,
                     bool *more, int *code);

/* For a datagram that came by other means. Takes references. 0 or -1. */
int fl_inbox_push(FlInbox *inbox, PyObject *data, PyObject *address);

static inline bool
fl_inbox_is_empty(const FlInbox *inbox)
{
    return inbox->head == inbox->count;
}

/* The first, references and all; the inbox is not empty. */
static inline FlDatagram
fl_inbox_pop(FlInbox *inbox)
{
    return inbox->items[inbox->head++];
}

/* Drops what waits; fl_inbox_free() frees the memory of an empty one. */
void fl_inbox_clear(FlInbox *inbox);
void fl_inbox_free(FlInbox *inbox);
int fl_inbox_traverse(FlInbox *inbox, visitproc visit, void *arg);

/* Queues a datagram: bytes are kept, anything else is copied. 0 or -1. */
int fl_outbox_push(FlOutbox *outbox, PyObject *data, PyObject *address,
                   const FlPeerName *name);

/* Sends what one system call takes of those in front that have no address, at least
 * one. Returns how many left, or a negated errno: then the first is at fault and still
 * there. */
int fl_outbox_send(FlOutbox *outbox, int fd);

static inline FlDatagram *
fl_outbox_first(const FlOutbox *outbox)
{
    return &outbox->items[outbox->head];
}

void fl_outbox_drop_first(FlOutbox *outbox);

void fl_outbox_clear(FlOutbox *outbox);
void fl_outbox_free(FlOutbox *outbox);
int fl_outbox_traverse(FlOutbox *outbox, visitproc visit, void *arg);

#endif
