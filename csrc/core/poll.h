/* poll.h - the set of descriptors that a loop waits on.
 *
 * An epoll set of our own: a change of interest is one system call, and an error of it
 * is ours to report. libuv's loop would do the same and more, and abort the process
 * where the program closes a descriptor behind its back.
 *
 * Promises: a watcher hears of its descriptor until it is removed and never after,
 * also within one batch of events, even if the number was closed and given out again.
 * A forked child shares the set with its parent, so there nothing of it is touched any
 * more. */
#ifndef FL_POLL_H
#define FL_POLL_H
#include "base/state.h"
#include "core/metrics.h"
#include <sys/epoll.h>

typedef struct FlWatcher FlWatcher;

/* Called with EPOLL* bits. Returns 0, or -1 with the exception that must leave the
 * loop. The watcher's owner is kept alive during the call. */
typedef int (*FlWatcherCall)(FlWatcher *watcher, uint32_t events);

/* Embedded in whatever watches. Invariants: events is what epoll was last asked for, 0
 * exactly if the watcher is in no set; while it is, the set owns a reference to owner,
 * if there is one. */
struct FlWatcher {
    int fd;
    uint32_t events;
    FlWatcherCall call;
    PyObject
        *owner;  /* the object that embeds the watcher, or NULL for the loop's own */
    bool queues; /* call only queues callbacks: for fl_poll_queue() */
};

typedef struct {
    FlWatcher *watcher;
    PyObject *transport; /* the open transport that the descriptor belongs to, borrowed;
                            without a GIL, where any thread may let it go, our weak
                            reference to it */
    uint32_t generation; /* changes with each registration of the number */
} FlPollSlot;

enum { FL_POLL_BATCH = 256, FL_POLL_UNARMED = -1 };

typedef struct {
    int epfd;
    FlWatcher timer; /* of a timerfd: libuv's timers know only milliseconds */
    int64_t armed;   /* the deadline that it is set to, or FL_POLL_UNARMED */
    int64_t fired;   /* the one that it was set to when it last went off */
    FlWatcher bell;  /* of an eventfd that is readable always, asked for at a ring */
    uint64_t bell_data;
    bool made;         /* by fl_poll_init(), and not yet freed */
    FlPollSlot *slots; /* by descriptor */
    size_t slot_count;
    uint32_t next_generation;
    unsigned forks;    /* fl_poll_forks() when the set was made */
    size_t user_count; /* watchers of add_reader/add_writer: see loop.c */
    int harvested;     /* events that wait to be told of, or an errno, negated */
    int limit;         /* ms that a wait may last where the timerfd failed, or -1 */
    bool interrupted;  /* a signal ended a wait; whoever asks drops it */
    FlCount waits;     /* how many there were: a callback may take turns of its own */
    struct epoll_event events[FL_POLL_BATCH];
} FlPoll;

/* How often this process became another by fork(). Not of an interpreter but of the
 * process, like fork() itself. */
extern atomic_uint fl_poll_fork_count __attribute__((visibility("hidden")));

static inline unsigned
fl_poll_forks(void)
{
    return atomic_load_explicit(&fl_poll_fork_count, memory_order_relaxed);
}

/* True in a child of the process that made the set. */
static inline bool
fl_poll_is_foreign(const FlPoll *poll)
{
    return poll->forks != fl_poll_forks();
}

/* 0 or an errno. */
int fl_poll_init(FlPoll *poll);

/* Closes the descriptors, but for those that the program has closed: their numbers may
 * be a stranger's by now. */
void fl_poll_free(FlPoll *poll);

/* Asks for events of watcher->fd (0: none, and the watcher leaves the set). Returns 0
 * or an errno: EEXIST if another watcher has the descriptor, EBADF and EPERM from
 * epoll. Dropping interest never fails. Needs the GIL: it may drop a reference. */
int fl_poll_set(FlPoll *poll, FlWatcher *watcher, uint32_t events);

/* The watcher of a descriptor, borrowed, or NULL. */
FlWatcher *fl_poll_find(FlPoll *poll, int fd);

/* Whether set and descriptor are still the files that they were when the one was put
 * into the other. */
bool fl_poll_holds(const FlPoll *poll, int fd);

/* Notes that the descriptor belongs to a transport, until fl_poll_disown() or its end.
 * 0 or ENOMEM. */
int fl_poll_own(FlPoll *poll, int fd, PyObject *transport);
void fl_poll_disown(FlPoll *poll, int fd, PyObject *transport);

/* The open transport that a descriptor belongs to: a new reference, or NULL. */
PyObject *fl_poll_transport(FlPoll *poll, int fd);

/* Whether there is one. */
bool fl_poll_has_transport(FlPoll *poll, int fd);

/* Makes the next wait end at deadline, in nanoseconds of uv_hrtime(); a little later if
 * a wait has ended for a timer just before, the more so where next, the deadline behind
 * this one, is near as well. */
void fl_poll_arm(FlPoll *poll, int64_t deadline, int64_t next);

/* Has the next fl_poll_arm() set the timer, whatever it is set to. */
void fl_poll_disarm(FlPoll *poll);

/* Ends a wait, this one or the next. 0, or the errno that tells that the program closed
 * the set or the bell. Any thread, with or without the GIL. */
int fl_poll_ring(FlPoll *poll);

/* Collects events, unless some wait to be told of; FL_POLL_BLOCK waits for the first,
 * or for a signal. With or without the GIL. */
typedef enum { FL_POLL_LOOK = 0, FL_POLL_BLOCK = -1 } FlPollWait;
void fl_poll_harvest(FlPoll *poll, FlPollWait wait);

/* Of the events that were collected, calls the watchers that only queue callbacks. 0,
 * or -1 with the exception that must leave the loop. */
int fl_poll_queue(FlPoll *poll, FlLoop *loop);

/* Calls the watchers of the events that were collected, be it turns ago: each hears
 * only if it has asked since before. 0, or -1 with the exception that must leave the
 * loop; events not yet told of show up again in the next wait. In debug mode a slow
 * watcher is reported to the loop. */
int fl_poll_dispatch(FlPoll *poll, FlLoop *loop);

int fl_poll_traverse(FlPoll *poll, visitproc visit, void *arg);

/* Drops every watcher that has an owner. */
void fl_poll_clear(FlPoll *poll);

#endif
