/* poll.c - the epoll set that the loop waits on.
 *
 * Owns:   the set, the timerfd, the bell, and a reference to each watcher's owner.
 * Thread: the loop's own; fl_poll_harvest() also while the GIL is let go. */
#include "core/poll.h"
#include "core/turn.h"
#include "core/loop.h"
#include "base/errors.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

atomic_uint fl_poll_fork_count;
static uv_once_t poll_once = UV_ONCE_INIT;

static void
on_fork(void)
{
    atomic_fetch_add(&fl_poll_fork_count, 1);
}

static void
poll_watch_forks(void)
{
    (void)pthread_atfork(NULL, NULL, on_fork);
}

static int
on_bell(FlWatcher *Py_UNUSED(watcher), uint32_t Py_UNUSED(events))
{
    return 0; /* that the wait ended is all that was wanted */
}

static int
on_timer(FlWatcher *watcher, uint32_t Py_UNUSED(events))
{
    /* Edge-triggered, so there is nothing to read. */
    FlPoll *poll = (FlPoll *)((char *)watcher - offsetof(FlPoll, timer));
    poll->fired = poll->armed;
    poll->armed = FL_POLL_UNARMED;
    return 0;
}

/* Another number for a descriptor that got a standard one, where the process was
 * started without those: daemons put other files in their place. Or -1 with errno. */
static int
poll_above_standard(int fd)
{
    if (FL_LIKELY(fd < 0 || fd > STDERR_FILENO)) return fd;
    int above = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int code = errno;
    close(fd);
    errno = code;
    return above;
}

/* The bell is a descriptor that is always ready, for a single event that each ring asks
 * for anew. So a ring is one call of the set's own, and nothing is written: where the
 * program has closed the descriptors (daemons do, all of them) and opened others, a
 * write would land in a stranger's file. 0 or an errno. */
static int
poll_init_bell(FlPoll *poll)
{
    FlWatcher *bell = &poll->bell;
    bell->fd = poll_above_standard(eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC));
    if (bell->fd < 0) return errno;
    int code = fl_poll_set(poll, bell, EPOLLONESHOT); /* and nothing yet */
    if (code != 0) return code;
    bell->events = EPOLLIN | EPOLLONESHOT; /* what poll_put_back() asks for */
    uint32_t generation = poll->slots[bell->fd].generation;
    poll->bell_data = (uint64_t)generation << 32 | (uint32_t)bell->fd;
    return 0;
}

int
fl_poll_ring(FlPoll *poll)
{
    enum { TRIES = 100 };
    if (FL_UNLIKELY(fl_poll_is_foreign(poll))) return 0; /* it is the parent's loop */
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT,
                                .data.u64 = poll->bell_data};
    int code = 0;
    for (int i = 0; i < TRIES; i++) {
        if (FL_LIKELY(epoll_ctl(poll->epfd, EPOLL_CTL_MOD, poll->bell.fd, &event) == 0))
            return 0;
        code = errno;
        /* Closed; or another file is in its place, which may be another set. */
        if (code == EBADF || code == ENOENT || code == EINVAL || code == EPERM) break;
    }
    return code;
}

int
fl_poll_init(FlPoll *poll)
{
    uv_once(&poll_once, poll_watch_forks);
    poll->forks = fl_poll_forks();
    poll->armed = FL_POLL_UNARMED;
    poll->limit = -1;
    poll->timer = (FlWatcher){.fd = -1, .call = on_timer};
    poll->bell = (FlWatcher){.fd = -1, .call = on_bell};
    poll->epfd = poll_above_standard(epoll_create1(EPOLL_CLOEXEC));
    if (poll->epfd < 0) return errno;
    poll->timer.fd = poll_above_standard(
        timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    if (poll->timer.fd < 0 && !fl_errors_is_refused(errno)) return errno;
    int code = 0;
    if (poll->timer.fd >= 0) { /* else waits have limits, see fl_poll_arm() */
        code = fl_poll_set(poll, &poll->timer, EPOLLIN | EPOLLET);
    }
    if (code == 0) {
        code = poll_init_bell(poll);
    }
    poll->made = code == 0;
    return code;
}

/* Nobody has the descriptor. */
static void
poll_forget(FlPollSlot *slot)
{
    if (FL_HAVE_GIL) {
        slot->transport = NULL;
    }
    else {
        Py_CLEAR(slot->transport);
    }
}

/* To add what the set has is an error that changes nothing, also where the set is the
 * parent's. */
bool
fl_poll_holds(const FlPoll *poll, int fd)
{
    struct epoll_event event = {.events = 0};
    if (epoll_ctl(poll->epfd, EPOLL_CTL_ADD, fd, &event) == 0) {
        (void)epoll_ctl(poll->epfd, EPOLL_CTL_DEL, fd, &event);
        return false;
    }
    return errno == EEXIST || errno == ENOMEM || errno == ENOSPC;
}

static void
poll_close(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

void
fl_poll_free(FlPoll *poll)
{
    bool made = poll->made; /* else nobody knew of them */
    poll->made = false;
    bool has_timer = !made || fl_poll_holds(poll, poll->timer.fd);
    bool has_bell = !made || fl_poll_holds(poll, poll->bell.fd);
    if (has_timer) {
        poll_close(&poll->timer.fd);
    }
    if (has_bell) {
        poll_close(&poll->bell.fd);
    }
    if (has_timer || has_bell) {
        poll_close(&poll->epfd);
    }
    poll->epfd = poll->timer.fd = poll->bell.fd = -1;
    for (size_t fd = 0; fd < poll->slot_count; fd++) {
        poll_forget(&poll->slots[fd]);
    }
    PyMem_RawFree(poll->slots);
    poll->slots = NULL;
    poll->slot_count = 0;
}

/* Makes room for the slot of fd. 0 or ENOMEM. */
static int
poll_reserve(FlPoll *poll, int fd)
{
    if (fd < 0) return EBADF;
    if ((size_t)fd < poll->slot_count) return 0;
    if (poll->epfd < 0) return EBADF; /* closed */
    size_t count = poll->slot_count ? poll->slot_count : 64;
    while (count <= (size_t)fd) {
        count *= 2;
    }
    FlPollSlot *slots = PyMem_RawRealloc(poll->slots, count * sizeof(FlPollSlot));
    if (slots == NULL) return ENOMEM;
    memset(slots + poll->slot_count, 0,
           (count - poll->slot_count) * sizeof(FlPollSlot));
    poll->slots = slots;
    poll->slot_count = count;
    return 0;
}

static int
poll_control(FlPoll *poll, int operation, int fd, uint32_t events, uint32_t generation)
{
    if (FL_UNLIKELY(fl_poll_is_foreign(poll))) return 0;
    struct epoll_event event = {
        .events = events,
        .data.u64 = (uint64_t)generation << 32 | (uint32_t)fd,
    };
    return epoll_ctl(poll->epfd, operation, fd, &event) == 0 ? 0 : errno;
}

static int
poll_add(FlPoll *poll, FlWatcher *watcher, uint32_t events)
{
    int fd = watcher->fd;
    if (fd < 0) return EBADF;
    int code = poll_reserve(poll, fd);
    if (code != 0) return code;
    FlPollSlot *slot = &poll->slots[fd];
    if (slot->watcher != NULL) return EEXIST;

    uint32_t generation = ++poll->next_generation;
    code = poll_control(poll, EPOLL_CTL_ADD, fd, events, generation);
    if (code == EEXIST) { /* left by someone who closed a duplicate too early */
        code = poll_control(poll, EPOLL_CTL_MOD, fd, events, generation);
    }
    if (code != 0) return code;
    slot->watcher = watcher;
    slot->generation = generation;
    fl_shared_put(&watcher->events, events);
    Py_XINCREF(watcher->owner);
    return 0;
}

static void
poll_remove(FlPoll *poll, FlWatcher *watcher)
{
    fl_shared_put(&watcher->events, 0);
    if ((size_t)watcher->fd < poll->slot_count &&
        poll->slots[watcher->fd].watcher == watcher) {
        poll->slots[watcher->fd].watcher = NULL;
        /* Fails where the program has closed the descriptor: all the same to us. */
        (void)poll_control(poll, EPOLL_CTL_DEL, watcher->fd, 0, 0);
    }
    Py_XDECREF(watcher->owner);
}

int
fl_poll_set(FlPoll *poll, FlWatcher *watcher, uint32_t events)
{
    if (events == watcher->events) return 0;
    if (watcher->events == 0) return poll_add(poll, watcher, events);
    if (events == 0) {
        poll_remove(poll, watcher);
        return 0;
    }
    FlPollSlot *slot = &poll->slots[watcher->fd];
    int code = poll_control(poll, EPOLL_CTL_MOD, watcher->fd, events, slot->generation);
    if (code == ENOENT) { /* closed and opened again behind our back */
        slot->generation = ++poll->next_generation;
        code = poll_control(poll, EPOLL_CTL_ADD, watcher->fd, events, slot->generation);
    }
    if (code == 0) {
        fl_shared_put(&watcher->events, events);
    }
    return code;
}

FlWatcher *
fl_poll_find(FlPoll *poll, int fd)
{
    if (fd < 0 || (size_t)fd >= poll->slot_count) return NULL;
    return poll->slots[fd].watcher;
}

int
fl_poll_own(FlPoll *poll, int fd, PyObject *transport)
{
    int code = poll_reserve(poll, fd);
    if (code != 0) return code;
    if (FL_HAVE_GIL) {
        poll->slots[fd].transport = transport;
        return 0;
    }
    PyObject *reference = PyWeakref_NewRef(transport, NULL);
    if (reference == NULL) {
        PyErr_Clear();
        return ENOMEM;
    }
    poll_forget(&poll->slots[fd]);
    poll->slots[fd].transport = reference;
    return 0;
}

void
fl_poll_disown(FlPoll *poll, int fd, PyObject *transport)
{
    if (FL_HAVE_GIL) { /* which may be about to go: no reference is taken of it */
        if (fd >= 0 && (size_t)fd < poll->slot_count &&
            poll->slots[fd].transport == transport) {
            poll_forget(&poll->slots[fd]);
        }
        return;
    }
    /* A collector in another thread: its weak reference is dead already. */
    FL_OWN_ELSE((FlLoop *)((char *)poll - offsetof(FlLoop, poll)), return);
    PyObject *owner = fl_poll_transport(poll, fd);
    if (owner == NULL) return;
    if (owner == transport) {
        poll_forget(&poll->slots[fd]);
    }
    Py_DECREF(owner);
}

PyObject *
fl_poll_transport(FlPoll *poll, int fd)
{
    if (fd < 0 || (size_t)fd >= poll->slot_count) return NULL;
    PyObject *transport = poll->slots[fd].transport;
    if (transport == NULL) return NULL;
    return FL_HAVE_GIL ? Py_NewRef(transport) : fl_compat_weakref_get(transport);
}

bool
fl_poll_has_transport(FlPoll *poll, int fd)
{
    if (FL_HAVE_GIL) {
        return fd >= 0 && (size_t)fd < poll->slot_count &&
               poll->slots[fd].transport != NULL;
    }
    PyObject *transport = fl_poll_transport(poll, fd);
    Py_XDECREF(transport);
    return transport != NULL;
}

/* A timer wakes the loop no sooner than POLL_TIMER_GAP nanoseconds after the one
 * before, and where another follows, POLL_TIMER_GAP_CROWD: waking costs 12 us, most of
 * it in the kernel. 10,000 timers a second cost 16 us each without the gaps, 8 with the
 * first and 2 with the second, which is what asyncio's own clock ticks in. A lone timer
 * is on time. */
enum {
    POLL_TIMER_GAP = 250000,
    POLL_TIMER_GAP_CROWD = 1000000,
    POLL_LIMIT_CROWD = 1,
    POLL_LIMIT_MAX = 60 * 1000,
};

void
fl_poll_arm(FlPoll *poll, int64_t deadline, int64_t next)
{
    if (FL_UNLIKELY(fl_poll_is_foreign(poll))) return; /* it is the parent's timer */
    int64_t soon = poll->fired + POLL_TIMER_GAP;
    int64_t crowded = poll->fired + POLL_TIMER_GAP_CROWD;
    bool crowd = next <= crowded;
    int64_t until = crowd ? crowded : deadline < soon ? soon : deadline;
    /* An earlier one stays: the timers that move on with each request then cost no
     * system call, but one wake-up where the earlier deadline was cancelled. */
    if (poll->armed != FL_POLL_UNARMED && poll->armed <= until) return;
    if (crowd && deadline <= soon) {
        poll->limit = POLL_LIMIT_CROWD; /* and no timer to set */
        return;
    }
    deadline = until;
    struct itimerspec spec = {
        .it_value = {.tv_sec = deadline / 1000000000, .tv_nsec = deadline % 1000000000},
    };
    if (timerfd_settime(poll->timer.fd, TFD_TIMER_ABSTIME, &spec, NULL) == 0) {
        poll->armed = deadline;
        return;
    }
    /* Closed behind our back: milliseconds are better than to sleep for ever. */
    int64_t left = (deadline - (int64_t)uv_hrtime()) / 1000000 + 1;
    poll->limit = left < 0 ? 0 : left < POLL_LIMIT_MAX ? (int)left : POLL_LIMIT_MAX;
}

void
fl_poll_disarm(FlPoll *poll)
{
    poll->armed = FL_POLL_UNARMED;
}

void
fl_poll_harvest(FlPoll *poll, FlPollWait wait)
{
    int n;
    if (poll->harvested > 0) return;
    fl_count_add(&poll->waits, 1);
    if (FL_UNLIKELY(fl_poll_is_foreign(poll))) {
        /* Forked by a callback of this turn: an edge that the child takes is one that
         * the parent, asleep on the same set, never hears of. */
        poll->harvested = 0;
        return;
    }
    int timeout = wait == FL_POLL_BLOCK ? poll->limit : (int)wait;
    n = epoll_wait(poll->epfd, poll->events, FL_POLL_BATCH, timeout);
    while (FL_UNLIKELY(n < 0) && errno == EINTR) {
        /* A signal, which the wake-up descriptor may have told of by now. */
        poll->interrupted = true;
        n = epoll_wait(poll->epfd, poll->events, FL_POLL_BATCH, 0);
    }
    poll->harvested = n < 0 ? -errno : n;
    if (n == 0 && timeout > 0) {
        poll->fired = (int64_t)uv_hrtime();
    }
    poll->limit = -1;
}

/* Has epoll report again what nobody was told of: level-triggered interest does so by
 * itself, edges and single events need to be asked for once more. */
static void
poll_put_back(FlPoll *poll, const struct epoll_event *untold, int count)
{
    for (int i = 0; i < count; i++) {
        uint64_t data = untold[i].data.u64;
        uint32_t fd = (uint32_t)data;
        if (fd >= poll->slot_count) continue;
        FlPollSlot *slot = &poll->slots[fd];
        if (slot->watcher != NULL && slot->generation == (uint32_t)(data >> 32) &&
            (slot->watcher->events & (EPOLLET | EPOLLONESHOT))) {
            (void)poll_control(poll, EPOLL_CTL_MOD, (int)fd, slot->watcher->events,
                               slot->generation);
        }
    }
}

/* One of those that are not timed. */
static inline int
poll_call(FlLoop *loop, FlWatcher *watcher, uint32_t events)
{
    loop->probes.until--;
    return watcher->call(watcher, events);
}

static FL_NEVER_INLINE int
poll_call_timed(FlLoop *loop, FlWatcher *watcher, PyObject *owner, uint32_t events)
{
    if (owner == NULL) return watcher->call(watcher, events); /* the loop's own */
    FlProbe probe;
    fl_probe_begin_event(loop, &probe, owner);
    int rc = watcher->call(watcher, events);
    return fl_probe_end(loop, &probe, FL_PROBE_EVENT, events, rc);
}

/* The watcher that an event is for, or NULL: it was removed, or the number given out
 * again, since the event came. */
static inline FlWatcher *
poll_watcher(const FlPoll *poll, const struct epoll_event *event)
{
    uint64_t data = event->data.u64;
    uint32_t fd = (uint32_t)data;
    if (fd >= poll->slot_count) return NULL;
    const FlPollSlot *slot = &poll->slots[fd];
    return slot->generation == (uint32_t)(data >> 32) ? slot->watcher : NULL;
}

/* Takes out what was collected: how many events, or an errno, negated. */
static inline int
poll_take(FlPoll *poll, struct epoll_event batch[FL_POLL_BATCH])
{
    int n = poll->harvested;
    poll->harvested = 0;
    if (FL_LIKELY(n > 0)) {
        memcpy(batch, poll->events, (size_t)n * sizeof(struct epoll_event));
    }
    return n;
}

int
fl_poll_queue(FlPoll *poll, FlLoop *loop)
{
    struct epoll_event batch[FL_POLL_BATCH];
    if (poll->harvested <= 0) return 0;
    int n = poll_take(poll, batch);
    int rc = 0;
    for (int i = 0; i < n; i++) {
        FlWatcher *watcher = poll_watcher(poll, &batch[i]);
        if (watcher == NULL) continue;
        if (!watcher->queues || rc < 0) {
            poll->events[poll->harvested++] = batch[i];
            continue;
        }
        fl_count_add(&loop->metrics.events, 1);
        PyObject *owner = Py_XNewRef(watcher->owner);
        rc = watcher->call(watcher, batch[i].events);
        Py_XDECREF(owner);
    }
    return rc;
}

int
fl_poll_dispatch(FlPoll *poll, FlLoop *loop)
{
    /* A callback may run a nested loop, which collects events of its own. */
    struct epoll_event batch[FL_POLL_BATCH];
    uint64_t waits = fl_count_get(&poll->waits);
    int n = poll_take(poll, batch);
    if (FL_UNLIKELY(fl_poll_is_foreign(poll))) return 0; /* as in fl_poll_harvest() */
    if (FL_UNLIKELY(n < 0)) { /* the program closed the set: asyncio's error, too */
        fl_errors_from_uv(n);
        return -1;
    }
    fl_count_add(&loop->metrics.events, (uint64_t)n);
    for (int i = 0; i < n; i++) {
        FlWatcher *watcher = poll_watcher(poll, &batch[i]);
        if (watcher == NULL) continue;
        PyObject *owner = Py_XNewRef(watcher->owner);
        uint64_t started = FL_UNLIKELY(loop->debug) ? uv_hrtime() : 0;
        int rc = FL_UNLIKELY(loop->probes.until == 0)
                     ? poll_call_timed(loop, watcher, owner, batch[i].events)
                     : poll_call(loop, watcher, batch[i].events);
        if (FL_UNLIKELY(started != 0) && owner != NULL && rc == 0) {
            rc = fl_turn_log_slow(loop, owner,
                                  fl_timer_seconds((int64_t)(uv_hrtime() - started)));
        }
        Py_XDECREF(owner);
        rc = FL_LIKELY(rc == 0) ? fl_turn_between(loop) : rc;
        if (FL_UNLIKELY(rc < 0 || fl_count_get(&poll->waits) != waits ||
                        fl_poll_is_foreign(poll))) {
            /* What is left is for the next wait, or was told of by the one within, or
             * is the parent's. */
            poll_put_back(poll, &batch[i + 1], n - i - 1);
            return rc;
        }
    }
    return 0;
}

int
fl_poll_traverse(FlPoll *poll, visitproc visit, void *arg)
{
    for (size_t fd = 0; fd < poll->slot_count; fd++) {
        FlWatcher *watcher = poll->slots[fd].watcher;
        if (watcher != NULL) {
            Py_VISIT(watcher->owner);
        }
    }
    return 0;
}

void
fl_poll_clear(FlPoll *poll)
{
    for (size_t fd = 0; fd < poll->slot_count; fd++) {
        FlWatcher *watcher = poll->slots[fd].watcher;
        if (watcher != NULL && watcher->owner != NULL) {
            poll_remove(poll, watcher);
        }
    }
}
