/* datagrams.c - the two queues of a datagram socket and their system calls.
 *
 * Owns:   references to data and addresses; the slots that batches are received in.
 * Thread: whichever holds the queue, with the GIL. */
#include "io/datagrams.h"
#include "base/errors.h"
#include "core/loop.h"
#include <errno.h>
#include <netinet/udp.h>
#include <sys/mman.h>
#include <sys/socket.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103 /* Linux 4.18 */
#endif

enum {
    DATAGRAMS_SLAB_BATCH = 4, /* what fits into the loop's read buffer */
    DATAGRAMS_SIZE = FL_SLAB_SIZE / DATAGRAMS_SLAB_BATCH, /* the most that IP carries */
    DATAGRAMS_STRIDE = DATAGRAMS_SIZE + 4160, /* slots must not share cache sets */
    DATAGRAMS_SCRATCH = FL_DATAGRAMS_BATCH * DATAGRAMS_STRIDE,
    DATAGRAMS_STREAK = 4,        /* this many single ones are no burst */
    DATAGRAMS_SEGMENTED = 65000, /* bytes that are sent as segments of one */
};

/* -- receiving --------------------------------------------------------------------- */

static int
inbox_make(FlInbox *inbox)
{
    inbox->head = inbox->count = 0;
    if (inbox->items != NULL) return 0;
    inbox->items = PyMem_Malloc(FL_DATAGRAMS_BATCH * sizeof(FlDatagram));
    if (inbox->items != NULL) return 0;
    PyErr_NoMemory();
    return -1;
}

/* Where the slots of a batch stand; NULL with MemoryError. */
static char *
inbox_slots(FlInbox *inbox, int asked, char *slab, size_t *stride)
{
    *stride = DATAGRAMS_SIZE;
    if (asked <= DATAGRAMS_SLAB_BATCH) return slab;
    *stride = DATAGRAMS_STRIDE;
    if (inbox->scratch == NULL) {
        /* Only pages that a datagram touched cost memory. */
        void *made = mmap(NULL, DATAGRAMS_SCRATCH, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (made == MAP_FAILED) {
            PyErr_NoMemory();
            return NULL;
        }
#ifdef MADV_NOHUGEPAGE
        (void)madvise(made, DATAGRAMS_SCRATCH, MADV_NOHUGEPAGE);
#endif
        inbox->scratch = made;
    }
    return inbox->scratch;
}

/* The data of the i-th datagram, for all before inbox_take_addresses(). 0 or -1 with
 * MemoryError. */
static int
inbox_take_data(FlInbox *inbox, int i, const char *data, size_t length)
{
    inbox->items[i].data = PyBytes_FromStringAndSize(data, (Py_ssize_t)length);
    if (inbox->items[i].data != NULL) return 0;
    while (i > 0) {
        Py_DECREF(inbox->items[--i].data);
    }
    return -1;
}

/* The addresses of n datagrams. Python 3.11 may collect garbage as it makes a tuple,
 * and so run code of the program's: what has its address can be delivered by then. 0 or
 * -1 with MemoryError. */
static int
inbox_take_addresses(FlInbox *inbox, FlPeers *peers, const FlAddress *addresses, int n)
{
    for (int i = 0; i < n; i++) {
        FlDatagram *datagram = &inbox->items[i];
        datagram->address = fl_peers_object(peers, &addresses[i], &datagram->name);
        if (datagram->address == NULL) {
            for (; i < n; i++) {
                Py_DECREF(inbox->items[i].data);
            }
            return -1;
        }
        inbox->count++;
    }
    return 0;
}

/* The plain call costs a tenth less than recvmmsg() does for a single datagram. */
static int
inbox_receive_one(FlInbox *inbox, FlPeers *peers, int fd, char *slab, size_t size,
                  int *code)
{
    FlAddress address;
    ssize_t n;
    do {
        address.length = sizeof(address.u);
        n = recvfrom(fd, slab, size, MSG_DONTWAIT, &address.u.any, &address.length);
    } while (n < 0 && errno == EINTR);
    *code = n < 0 ? errno : 0;
    if (n < 0 || inbox_take_data(inbox, 0, slab, (size_t)n) < 0) return -1;
    return inbox_take_addresses(inbox, peers, &address, 1) < 0 ? -1 : 1;
}

static int
inbox_receive_batch(FlInbox *inbox, FlPeers *peers, int fd, char *slab, int asked,
                    int *code)
{
    struct mmsghdr messages[FL_DATAGRAMS_BATCH];
    struct iovec vectors[FL_DATAGRAMS_BATCH];
    FlAddress addresses[FL_DATAGRAMS_BATCH];
    size_t stride;
    *code = 0;
    char *slots = inbox_slots(inbox, asked, slab, &stride);
    if (slots == NULL) return -1;
    for (int i = 0; i < asked; i++) {
        vectors[i] = (struct iovec){slots + (size_t)i * stride, DATAGRAMS_SIZE};
        messages[i].msg_hdr = (struct msghdr){
            .msg_name = &addresses[i].u,
            .msg_namelen = sizeof(addresses[i].u),
            .msg_iov = &vectors[i],
            .msg_iovlen = 1,
        };
    }
    int n;
    do {
        n = recvmmsg(fd, messages, (unsigned)asked, MSG_DONTWAIT, NULL);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        *code = errno;
        return -1;
    }
    for (int i = 0; i < n; i++) {
        addresses[i].length = messages[i].msg_hdr.msg_namelen;
        if (inbox_take_data(inbox, i, vectors[i].iov_base, messages[i].msg_len) < 0) {
            return -1;
        }
    }
    return inbox_take_addresses(inbox, peers, addresses, n) < 0 ? -1 : n;
}

static int
inbox_receive(FlInbox *inbox, FlPeers *peers, int fd, int family, char *slab,
              bool *more, int *code)
{
    /* Unix sockets carry more than IP does: one at a time has all the room. */
    if (family == AF_UNIX) {
        return inbox_receive_one(inbox, peers, fd, slab, FL_SLAB_SIZE, code);
    }
    /* Single ones are looked at for company now and then. */
    if (inbox->streak >= DATAGRAMS_STREAK && inbox->streak % DATAGRAMS_STREAK != 0) {
        int n = inbox_receive_one(inbox, peers, fd, slab, DATAGRAMS_SIZE, code);
        inbox->streak += n > 0;
        return n;
    }
    int asked = inbox->batch < 2 ? 2 : inbox->batch;
    int n = inbox_receive_batch(inbox, peers, fd, slab, asked, code);
    if (FL_UNLIKELY(n < 0) && fl_errors_is_refused(*code)) {
        return inbox_receive_one(inbox, peers, fd, slab, DATAGRAMS_SIZE, code);
    }
    if (n <= 0) return n;
    *more = n == asked;
    inbox->streak = n == 1 ? inbox->streak + 1 : 0;
    /* One more than came: if that does not come, the socket is empty. */
    inbox->batch = *more ? asked * 4 : n + 1;
    if (inbox->batch > FL_DATAGRAMS_BATCH) {
        inbox->batch = FL_DATAGRAMS_BATCH;
    }
    return n;
}

int
fl_inbox_receive(FlInbox *inbox, FlPeers *peers, int fd, int family, char *slab,
                 bool *more, int *code)
{
    *code = 0;
    *more = false;
    if (FL_UNLIKELY(inbox->receiving)) return 0; /* a turn within this very call */
    if (inbox_make(inbox) < 0) return -1;
    inbox->receiving = true;
    int n = inbox_receive(inbox, peers, fd, family, slab, more, code);
    inbox->receiving = false;
    return n;
}

int
fl_inbox_push(FlInbox *inbox, PyObject *data, PyObject *address)
{
    if (fl_inbox_is_empty(inbox) && inbox_make(inbox) < 0) return -1;
    if (inbox->count == FL_DATAGRAMS_BATCH) return 0; /* turns within turns: lost */
    inbox->items[inbox->count++] =
        (FlDatagram){.data = Py_NewRef(data), .address = Py_NewRef(address)};
    return 0;
}

void
fl_inbox_clear(FlInbox *inbox)
{
    while (inbox->head < inbox->count) {
        FlDatagram datagram = inbox->items[inbox->head++];
        Py_DECREF(datagram.data);
        Py_DECREF(datagram.address);
    }
}

void
fl_inbox_free(FlInbox *inbox)
{
    PyMem_Free(inbox->items);
    if (inbox->scratch != NULL) {
        (void)munmap(inbox->scratch, DATAGRAMS_SCRATCH);
    }
    *inbox = (FlInbox){0};
}

int
fl_inbox_traverse(FlInbox *inbox, visitproc visit, void *arg)
{
    for (int i = inbox->head; i < inbox->count; i++) {
        Py_VISIT(inbox->items[i].address);
    }
    return 0;
}

/* -- sending ----------------------------------------------------------------------- */

static inline FlDatagram *
outbox_at(const FlOutbox *outbox, size_t i)
{
    return &outbox->items[(outbox->head + i) & (outbox->capacity - 1)];
}

static int
outbox_grow(FlOutbox *outbox)
{
    size_t capacity = outbox->capacity ? outbox->capacity * 2 : FL_DATAGRAMS_BATCH;
    FlDatagram *items = PyMem_Malloc(capacity * sizeof(FlDatagram));
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < outbox->count; i++) {
        items[i] = *outbox_at(outbox, i);
    }
    PyMem_Free(outbox->items);
    outbox->items = items;
    outbox->capacity = capacity;
    outbox->head = 0;
    return 0;
}

int
fl_outbox_push(FlOutbox *outbox, PyObject *data, PyObject *address,
               const FlPeerName *name)
{
    /* First, for the data's own __buffer__() may queue others. */
    PyObject *bytes =
        PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
    if (bytes == NULL) return -1;
    if (outbox->count == outbox->capacity && outbox_grow(outbox) < 0) {
        Py_DECREF(bytes);
        return -1;
    }
    *outbox_at(outbox, outbox->count++) =
        (FlDatagram){bytes, Py_XNewRef(address), *name};
    fl_shared_put(&outbox->size,
                  outbox->size + (size_t)PyBytes_GET_SIZE(bytes) + FL_UDP_HEADER_SIZE);
    return 0;
}

void
fl_outbox_drop_first(FlOutbox *outbox)
{
    FlDatagram first = *fl_outbox_first(outbox);
    fl_shared_put(&outbox->size, outbox->size - (size_t)PyBytes_GET_SIZE(first.data) -
                                     FL_UDP_HEADER_SIZE);
    outbox->head = (outbox->head + 1) & (outbox->capacity - 1);
    outbox->count--;
    Py_DECREF(first.data);
    Py_XDECREF(first.address);
}

/* Up to which size the kernel cuts datagrams off a longer one itself, at a fifth of the
 * cost of sending them one by one. The answer to the question matters: kernels that do
 * not know of it would ignore the request and send the long one. */
static int
outbox_segment_size(int fd)
{
    int size;
    socklen_t length = sizeof(size);
    if (getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &size, &length) < 0) return 0;
    return size == 0 ? UINT16_MAX : 0; /* else the program does so itself */
}

/* How many datagrams from the i-th on, limit at most, are segments of one: all to the
 * same peer and of the same size, but for a shorter last. */
static size_t
outbox_segments(const FlOutbox *outbox, size_t i, size_t limit)
{
    FlDatagram *first = outbox_at(outbox, i);
    Py_ssize_t size = PyBytes_GET_SIZE(first->data);
    size_t total = (size_t)size, count = 1;
    if (size == 0 || size > outbox->segment_size) return 1;
    for (; count < limit; count++) {
        FlDatagram *next = outbox_at(outbox, i + count);
        Py_ssize_t length = PyBytes_GET_SIZE(next->data);
        total += (size_t)length;
        if (next->address != NULL || length == 0 || length > size ||
            total > DATAGRAMS_SEGMENTED || !fl_peers_same(&first->name, &next->name)) {
            break;
        }
        if (length < size) return count + 1;
    }
    return count;
}

static void
outbox_ask_segments(struct msghdr *message, char *control, size_t space, size_t size)
{
    memset(control, 0, space);
    message->msg_control = control;
    message->msg_controllen = space;
    struct cmsghdr *request = (struct cmsghdr *)control;
    uint16_t value = (uint16_t)size;
    request->cmsg_level = IPPROTO_UDP;
    request->cmsg_type = UDP_SEGMENT;
    request->cmsg_len = CMSG_LEN(sizeof(value));
    memcpy(CMSG_DATA(request), &value, sizeof(value));
}

/* True if the error is one of sending segments, not of the datagrams: then it is not
 * done again. A route may take smaller ones, a device none. */
static bool
outbox_refused_segments(FlOutbox *outbox, int code)
{
    if (code == EMSGSIZE || code == EINVAL) {
        outbox->segment_size = (int)PyBytes_GET_SIZE(fl_outbox_first(outbox)->data) - 1;
        return true;
    }
    if (code == EIO || code == EOPNOTSUPP) {
        outbox->segment_size = 0;
        return true;
    }
    return false;
}

int
fl_outbox_send(FlOutbox *outbox, int fd)
{
    struct mmsghdr messages[FL_DATAGRAMS_BATCH];
    struct iovec vectors[FL_DATAGRAMS_BATCH];
    size_t parts[FL_DATAGRAMS_BATCH]; /* datagrams of each message */
    enum { SPACE = CMSG_SPACE(sizeof(uint16_t)) };
    _Alignas(struct cmsghdr) char controls[FL_DATAGRAMS_BATCH][SPACE];
    if (outbox->segment_size < 0 && outbox->count > 1) {
        outbox->segment_size = outbox_segment_size(fd);
    }
again:;
    size_t limit =
        outbox->count < FL_DATAGRAMS_BATCH ? outbox->count : FL_DATAGRAMS_BATCH;
    unsigned count = 0;
    for (size_t i = 0; i < limit; count++) {
        FlDatagram *first = outbox_at(outbox, i);
        if (first->address != NULL) break;
        parts[count] = outbox_segments(outbox, i, limit - i);
        messages[count].msg_hdr = (struct msghdr){
            .msg_name = first->name.length > 0 ? &first->name.u : NULL,
            .msg_namelen = first->name.length,
            .msg_iov = &vectors[i],
            .msg_iovlen = parts[count],
        };
        if (parts[count] > 1) {
            outbox_ask_segments(&messages[count].msg_hdr, controls[count], SPACE,
                                (size_t)PyBytes_GET_SIZE(first->data));
        }
        for (size_t end = i + parts[count]; i < end; i++) {
            PyObject *data = outbox_at(outbox, i)->data;
            vectors[i] =
                (struct iovec){PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data)};
        }
    }
    int n;
    do {
        n = sendmmsg(fd, messages, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (FL_UNLIKELY(n < 0) && fl_errors_is_refused(errno)) {
        FL_ASSUME(count > 0); /* else there was nothing to fail with */
        n = sendmsg(fd, &messages[0].msg_hdr, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -1 : 1;
    }
    if (n < 0) {
        int code = errno;
        FL_ASSUME(count > 0);
        if (parts[0] > 1 && outbox_refused_segments(outbox, code)) goto again;
        return -code;
    }
    FL_ASSUME((unsigned)n <= count);
    int sent = 0;
    for (int i = 0; i < n; i++) {
        for (size_t part = 0; part < parts[i]; part++, sent++) {
            fl_outbox_drop_first(outbox);
        }
    }
    return sent;
}

void
fl_outbox_clear(FlOutbox *outbox)
{
    while (outbox->count > 0) {
        fl_outbox_drop_first(outbox);
    }
}

void
fl_outbox_free(FlOutbox *outbox)
{
    PyMem_Free(outbox->items);
    *outbox = (FlOutbox){0};
}

int
fl_outbox_traverse(FlOutbox *outbox, visitproc visit, void *arg)
{
    for (size_t i = 0; i < outbox->count; i++) {
        Py_VISIT(outbox_at(outbox, i)->address);
    }
    return 0;
}
