/* faults.c - system calls that fail, or do less than they were asked for.
 *
 * Preloaded into a Python. fault_set() says which call fails how: from the calls that
 * follow, the one numbered first, and every so many behind it, as many as limit says.
 * fault_random() fails any of them at random. A call that "fails" is not made, so that
 * nothing is lost by it; a short one is made with fewer bytes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SHORT = -1 };

static struct {
    char call[32];
    int code;
    long first, every, limit;
    long seen, made;
    unsigned long seed;
    int one_in; /* at random */
    int on;
} fault;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void
fault_set(const char *call, int code, long first, long every, long limit)
{
    pthread_mutex_lock(&lock);
    memset(&fault, 0, sizeof(fault));
    strncpy(fault.call, call, sizeof(fault.call) - 1);
    fault.code = code;
    fault.first = first;
    fault.every = every;
    fault.limit = limit;
    fault.on = 1;
    pthread_mutex_unlock(&lock);
}

void
fault_random(unsigned long seed, int one_in)
{
    pthread_mutex_lock(&lock);
    memset(&fault, 0, sizeof(fault));
    fault.seed = seed * 2 + 1;
    fault.one_in = one_in;
    fault.on = 1;
    pthread_mutex_unlock(&lock);
}

long
fault_clear(void)
{
    pthread_mutex_lock(&lock);
    long made = fault.made;
    fault.on = 0;
    pthread_mutex_unlock(&lock);
    return made;
}

long
fault_seen(void)
{
    return fault.seen;
}

static unsigned
draw(unsigned below)
{
    fault.seed = fault.seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(fault.seed >> 33) % below;
}

/* What a call may fail with at random, without an end to it. */
static const struct {
    const char *call;
    int codes[6];
} gentle[] = {
    {"recv", {EINTR, EAGAIN, SHORT}},
    {"recvfrom", {EINTR, EAGAIN}},
    {"recvmsg", {EINTR, EAGAIN}},
    {"recvmmsg", {EINTR, EAGAIN}},
    {"send", {EINTR, EAGAIN, SHORT}},
    {"sendto", {EINTR, EAGAIN}},
    {"sendmsg", {EINTR, EAGAIN, SHORT}},
    {"sendmmsg", {EINTR, EAGAIN}},
    {"read", {EINTR, EAGAIN, SHORT}},
    {"readv", {EINTR, EAGAIN, SHORT}},
    {"write", {EINTR, EAGAIN, SHORT}},
    {"writev", {EINTR, EAGAIN, SHORT}},
    {"sendfile", {EINTR, EAGAIN, SHORT}},
    {"accept4", {EINTR, EAGAIN}},
    {"epoll_wait", {EINTR}},
    {"epoll_pwait", {EINTR}},
};

/* 0, the error of this call, or SHORT. */
static int
fails(const char *call)
{
    if (!fault.on) return 0;
    int code = 0;
    pthread_mutex_lock(&lock);
    if (fault.one_in > 0) {
        for (size_t i = 0; i < sizeof(gentle) / sizeof(gentle[0]); i++) {
            if (strcmp(gentle[i].call, call) != 0) continue;
            if (draw((unsigned)fault.one_in) != 0) break;
            unsigned count = 0;
            while (count < 6 && gentle[i].codes[count] != 0)
                count++;
            code = gentle[i].codes[draw(count)];
            fault.made++;
            break;
        }
    }
    else if (fault.on && strcmp(fault.call, call) == 0) {
        long number = fault.seen++ - fault.first;
        if (number >= 0 && fault.made < fault.limit &&
            (number == 0 || (fault.every > 0 && number % fault.every == 0))) {
            fault.made++;
            code = fault.code;
        }
    }
    pthread_mutex_unlock(&lock);
    return code;
}

/* Descriptors that may not block are those of the loop; what a blocking call of the
 * test itself gets would be the test's trouble. */
#include <fcntl.h>
static int
blocks(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 || !(flags & O_NONBLOCK);
}

#define REAL(type, name, ...)                                                          \
    static type (*real)(__VA_ARGS__);                                                  \
    if (real == NULL) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name);

#define FAIL(name, result)                                                             \
    int code = fails(name);                                                            \
    if (code > 0) {                                                                    \
        errno = code;                                                                  \
        return result;                                                                 \
    }

#define LESS(length) (code == SHORT && (length) > 1 ? (length) / 2 : (length))

ssize_t
recv(int fd, void *data, size_t length, int flags)
{
    REAL(ssize_t, recv, int, void *, size_t, int)
    if (blocks(fd)) return real(fd, data, length, flags);
    FAIL("recv", -1)
    return real(fd, data, code == SHORT ? 1 : length, flags);
}

ssize_t
recvfrom(int fd, void *data, size_t length, int flags, struct sockaddr *address,
         socklen_t *size)
{
    REAL(ssize_t, recvfrom, int, void *, size_t, int, struct sockaddr *, socklen_t *)
    if (blocks(fd)) return real(fd, data, length, flags, address, size);
    FAIL("recvfrom", -1)
    return real(fd, data, length, flags, address, size);
}

ssize_t
recvmsg(int fd, struct msghdr *message, int flags)
{
    REAL(ssize_t, recvmsg, int, struct msghdr *, int)
    if (blocks(fd)) return real(fd, message, flags);
    FAIL("recvmsg", -1)
    return real(fd, message, flags);
}

int
recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags,
         struct timespec *timeout)
{
    REAL(int, recvmmsg, int, struct mmsghdr *, unsigned, int, struct timespec *)
    FAIL("recvmmsg", -1)
    return real(fd, messages, code == SHORT ? 1 : count, flags, timeout);
}

ssize_t
send(int fd, const void *data, size_t length, int flags)
{
    REAL(ssize_t, send, int, const void *, size_t, int)
    if (blocks(fd)) return real(fd, data, length, flags);
    FAIL("send", -1)
    return real(fd, data, LESS(length), flags);
}

ssize_t
sendto(int fd, const void *data, size_t length, int flags,
       const struct sockaddr *address, socklen_t size)
{
    REAL(ssize_t, sendto, int, const void *, size_t, int, const struct sockaddr *,
         socklen_t)
    if (blocks(fd)) return real(fd, data, length, flags, address, size);
    FAIL("sendto", -1)
    return real(fd, data, length, flags, address, size);
}

ssize_t
sendmsg(int fd, const struct msghdr *message, int flags)
{
    REAL(ssize_t, sendmsg, int, const struct msghdr *, int)
    if (blocks(fd)) return real(fd, message, flags);
    FAIL("sendmsg", -1)
    if (code == SHORT && message->msg_iovlen > 0 && message->msg_iov[0].iov_len > 1) {
        struct iovec some = message->msg_iov[0];
        some.iov_len /= 2;
        struct msghdr less = *message;
        less.msg_iov = &some;
        less.msg_iovlen = 1;
        return real(fd, &less, flags);
    }
    return real(fd, message, flags);
}

int
sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    REAL(int, sendmmsg, int, struct mmsghdr *, unsigned, int)
    FAIL("sendmmsg", -1)
    return real(fd, messages, LESS(count), flags);
}

ssize_t
read(int fd, void *data, size_t length)
{
    REAL(ssize_t, read, int, void *, size_t)
    if (blocks(fd)) return real(fd, data, length);
    FAIL("read", -1)
    /* Not that of an eventfd, which takes eight bytes or none. */
    return real(fd, data, code == SHORT && length > 8 ? 8 : length);
}

ssize_t
readv(int fd, const struct iovec *vectors, int count)
{
    REAL(ssize_t, readv, int, const struct iovec *, int)
    FAIL("readv", -1)
    struct iovec some = vectors[0];
    some.iov_len = LESS(some.iov_len);
    return code == SHORT ? real(fd, &some, 1) : real(fd, vectors, count);
}

ssize_t
write(int fd, const void *data, size_t length)
{
    REAL(ssize_t, write, int, const void *, size_t)
    /* An eventfd says EAGAIN only when it is readable: nobody is to believe it else. */
    if (length == 8 || blocks(fd)) return real(fd, data, length);
    FAIL("write", -1)
    return real(fd, data, code == SHORT && length > 8 ? length / 2 : length);
}

ssize_t
writev(int fd, const struct iovec *vectors, int count)
{
    REAL(ssize_t, writev, int, const struct iovec *, int)
    FAIL("writev", -1)
    struct iovec some = vectors[0];
    some.iov_len = LESS(some.iov_len);
    return code == SHORT ? real(fd, &some, 1) : real(fd, vectors, count);
}

ssize_t
sendfile(int out, int in, off_t *offset, size_t count)
{
    REAL(ssize_t, sendfile, int, int, off_t *, size_t)
    FAIL("sendfile", -1)
    return real(out, in, offset, LESS(count));
}

ssize_t
sendfile64(int out, int in, off64_t *offset, size_t count)
{
    REAL(ssize_t, sendfile64, int, int, off64_t *, size_t)
    FAIL("sendfile", -1)
    return real(out, in, offset, LESS(count));
}

int
accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    REAL(int, accept4, int, struct sockaddr *, socklen_t *, int)
    if (blocks(fd)) return real(fd, address, size, flags);
    FAIL("accept4", -1)
    return real(fd, address, size, flags);
}

int
epoll_create1(int flags)
{
    REAL(int, epoll_create1, int)
    FAIL("epoll_create1", -1)
    return real(flags);
}

int
epoll_ctl(int epfd, int operation, int fd, struct epoll_event *event)
{
    REAL(int, epoll_ctl, int, int, int, struct epoll_event *)
    if (operation != EPOLL_CTL_DEL) {
        FAIL("epoll_ctl", -1)
    }
    return real(epfd, operation, fd, event);
}

int
epoll_wait(int epfd, struct epoll_event *events, int count, int timeout)
{
    REAL(int, epoll_wait, int, struct epoll_event *, int, int)
    FAIL("epoll_wait", -1)
    return real(epfd, events, count, timeout);
}

int
epoll_pwait(int epfd, struct epoll_event *events, int count, int timeout,
            const sigset_t *mask)
{
    REAL(int, epoll_pwait, int, struct epoll_event *, int, int, const sigset_t *)
    FAIL("epoll_pwait", -1)
    return real(epfd, events, count, timeout, mask);
}

int
eventfd(unsigned value, int flags)
{
    REAL(int, eventfd, unsigned, int)
    FAIL("eventfd", -1)
    return real(value, flags);
}

int
timerfd_create(int clock, int flags)
{
    REAL(int, timerfd_create, int, int)
    FAIL("timerfd_create", -1)
    return real(clock, flags);
}

int
timerfd_settime(int fd, int flags, const struct itimerspec *value,
                struct itimerspec *old)
{
    REAL(int, timerfd_settime, int, int, const struct itimerspec *, struct itimerspec *)
    FAIL("timerfd_settime", -1)
    return real(fd, flags, value, old);
}

int
waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
    REAL(int, waitid, idtype_t, id_t, siginfo_t *, int)
    FAIL("waitid", -1)
    return real(type, id, info, options);
}

/* pidfd_open() goes this way. The arguments that a call does not have are harmless. */
long
syscall(long number, ...)
{
    REAL(long, syscall, long, ...)
    if (number == SYS_pidfd_open) {
        FAIL("pidfd_open", -1)
    }
    va_list args;
    va_start(args, number);
    long a[6];
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(args, long);
    va_end(args);
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
