/* load.c - the load on an echo server: blocking sockets in turn, in plain C.
 *
 *     load ADDRESS PORT TLS CONNECTIONS ROUNDS REQUEST REPLY
 *
 * ADDRESS is an IPv4 address, or a path where PORT is 0; TLS is 0 or 1; REQUEST and
 * REPLY are sizes in bytes, and the bytes themselves come first on standard input.
 * Prints a line when all connections stand and each has its first request under way.
 * From then on a byte on standard input is an order for so many rounds over all
 * connections, and a line the report that they are done. At the end of the input it
 * fetches what is under way and ends.
 *
 * A load in Python is slower than the servers it measures: they would fall asleep after
 * each answer, and be charged for waking up. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

typedef struct {
    int fd;
    SSL *ssl; /* NULL over plain sockets */
} Connection;

enum { TIMEOUT = 20 }; /* seconds without an answer */

static void
fail(const char *what)
{
    perror(what);
    exit(1);
}

static size_t
number(const char *text)
{
    return (size_t)strtoul(text, NULL, 10);
}

static void *
fill(size_t size)
{
    char *data = malloc(size + 1);
    if (data == NULL || fread(data, 1, size, stdin) != size) fail("input");
    return data;
}

static int
dial(const char *address, size_t port)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_un un;
    } to = {0};
    socklen_t size = sizeof(to.in);
    to.in.sin_family = AF_INET;
    to.in.sin_port = htons((uint16_t)port);
    if (port == 0) {
        size = sizeof(to.un);
        to.un.sun_family = AF_UNIX;
        if (strlen(address) >= sizeof(to.un.sun_path)) fail("path");
        memcpy(to.un.sun_path, address, strlen(address) + 1);
    }
    else if (inet_pton(AF_INET, address, &to.in.sin_addr) != 1) {
        fail("address");
    }
    int fd = socket(to.any.sa_family, SOCK_STREAM, 0);
    if (fd < 0) fail("socket");
    struct timeval limit = {.tv_sec = TIMEOUT};
    int yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if (port != 0) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    if (connect(fd, &to.any, size) < 0) fail("connect");
    return fd;
}

static void
send_all(Connection *to, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t count = to->ssl != NULL ? SSL_write(to->ssl, data, (int)size)
                                        : send(to->fd, data, size, MSG_NOSIGNAL);
        if (count <= 0) fail("send");
        data += count;
        size -= (size_t)count;
    }
}

static void
receive(Connection *from, char *data, size_t size)
{
    while (size > 0) {
        ssize_t count = from->ssl != NULL ? SSL_read(from->ssl, data, (int)size)
                                          : recv(from->fd, data, size, MSG_WAITALL);
        if (count <= 0) fail("receive");
        data += count;
        size -= (size_t)count;
    }
}

int
main(int argc, char **argv)
{
    if (argc != 8) {
        fprintf(stderr, "usage: see the source\n");
        return 2;
    }
    size_t connections = number(argv[4]), rounds = number(argv[5]);
    size_t request_size = number(argv[6]), reply_size = number(argv[7]);
    char *request = fill(request_size), *reply = fill(reply_size);
    char *got = malloc(reply_size + 1);
    Connection *all = calloc(connections + 1, sizeof(Connection));
    SSL_CTX *context = number(argv[3]) ? SSL_CTX_new(TLS_client_method()) : NULL;
    if (got == NULL || all == NULL) fail("memory");
    for (size_t i = 0; i < connections; i++) {
        all[i].fd = dial(argv[1], number(argv[2]));
        if (context == NULL) continue;
        all[i].ssl = SSL_new(context);
        if (all[i].ssl == NULL || !SSL_set_fd(all[i].ssl, all[i].fd) ||
            SSL_connect(all[i].ssl) != 1) {
            fail("handshake");
        }
    }
    for (size_t i = 0; i < connections; i++)
        send_all(&all[i], request, request_size);
    printf("ready\n");
    fflush(stdout);
    while (getchar() != EOF) {
        for (size_t round = 0; round < rounds; round++) {
            for (size_t i = 0; i < connections; i++) {
                receive(&all[i], got, reply_size);
                if (memcmp(got, reply, reply_size) != 0) fail("wrong answer");
                send_all(&all[i], request, request_size);
            }
        }
        printf("done\n");
        fflush(stdout);
    }
    for (size_t i = 0; i < connections; i++)
        receive(&all[i], got, reply_size);
    return 0;
}
