/* streamedge.c - levels or edges.
 *
 * Owns:   nothing.
 * Thread: the loop's own.
 *
 * The kernel tells of a level once and looks again in the wait after it, only to find
 * the socket empty: 0.1 us a connection, and 0.35 where the wait is for one. Of an edge
 * it tells once. So a TCP socket that each read empties, is asked for edges.
 *
 * A read that brings less than there is room for has emptied it, unless the peer's end,
 * an error or urgent data stood behind that, which the event has told of (EPOLLRDHUP,
 * EPOLLPRI). What comes after the event is another edge. Where that is not sure, be it
 * that nothing was read at all, levels are asked for again. Unix sockets end a read
 * where descriptors come with the bytes, and stay with levels; so do all where somebody
 * has put functions of his own before the C library's, which may end it anywhere. */
#include "io/streamedge.h"
#include <dlfcn.h>
#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif
#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
    EDGE_CALM = 16,         /* reads in a row that empty the socket, then edges */
    EDGE_UNREST = -240,     /* and how many more after one that did not */
    EDGE_NEVER = INT16_MIN, /* not at all */
};

/* Whether a function is the C library's own. */
static bool
edge_is_libc(void (*function)(void))
{
#ifdef __GLIBC__
    Dl_info its, libc;
    return dladdr((void *)(uintptr_t)function, &its) != 0 &&
           dladdr((void *)(uintptr_t)gnu_get_libc_version, &libc) != 0 &&
           its.dli_fbase == libc.dli_fbase;
#else
    (void)function;
    return false;
#endif
}

/* The same of those that read. It is the process's matter, and dear to find out. */
static bool
edge_reads_by_libc(void)
{
    enum { UNKNOWN, YES, NO };
    static atomic_int known;
    int answer = atomic_load_explicit(&known, memory_order_relaxed);
    if (answer == UNKNOWN) {
        bool own =
            edge_is_libc((void (*)(void))recv) && edge_is_libc((void (*)(void))readv);
        answer = own ? YES : NO;
        atomic_store_explicit(&known, answer, memory_order_relaxed);
    }
    return answer == YES;
}

static bool
edge_suits(const FlStream *self)
{
    int protocol = 0;
    socklen_t length = sizeof(protocol);
    return (self->family == AF_INET || self->family == AF_INET6) &&
           edge_reads_by_libc() &&
           getsockopt(self->base.watcher.fd, SOL_SOCKET, SO_PROTOCOL, &protocol,
                      &length) == 0 &&
           protocol == IPPROTO_TCP;
}

static int
edge_ask_for(FlStream *self, bool edges)
{
    FlTransport *base = &self->base;
    self->edges = edges;
    return fl_poll_set(&base->loop->poll, &base->watcher, fl_streamedge_wanted(self));
}

/* Levels again: what the read left is told of once more. 0 or -1, which was rc, too. */
static FL_NEVER_INLINE int
edge_ask_for_levels(FlStream *self, int rc)
{
    self->calm = EDGE_UNREST;
    int code = edge_ask_for(self, false);
    if (FL_LIKELY(code == 0) || rc < 0) return rc;
    return fl_transport_fatal_errno(&self->base, code,
                                    "Fatal read error on socket transport");
}

static FL_NEVER_INLINE void
edge_ask_for_edges(FlStream *self)
{
    if (edge_suits(self) && edge_ask_for(self, true) == 0) return;
    self->edges = false; /* levels it is, as before */
    self->calm = EDGE_NEVER;
}

int
fl_streamedge_settle(FlStream *self, uint32_t events, int rc)
{
    const FlWatcher *watcher = &self->base.watcher;
    bool emptied = self->emptied && !(events & ~(uint32_t)(EPOLLIN | EPOLLOUT));
    if (watcher->events & EPOLLET) {
        return FL_LIKELY(emptied) ? rc : edge_ask_for_levels(self, rc);
    }
    if (self->calm == EDGE_NEVER) return rc;
    if (!emptied) {
        self->calm = Py_MIN(self->calm, 0);
        return rc;
    }
    if (self->calm < EDGE_CALM) {
        self->calm++;
        return rc;
    }
    /* While it waits to write, too, levels it is. */
    if (rc == 0 && watcher->events == fl_streamedge_wanted(self)) {
        edge_ask_for_edges(self);
    }
    return rc;
}
