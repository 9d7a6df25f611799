/* echo.c - what libuv does by itself: an echo server in plain C.
 *
 *     echo          over TCP, on a free port of 127.0.0.1
 *     echo FOLDER   over a Unix socket in that folder
 *
 * Prints its address in JSON, then serves until it is killed. Reads into one buffer and
 * tries to write at once, so that no loop over libuv can do with less. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

typedef union {
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
} Connection;

typedef struct {
    uv_write_t request;
    char data[]; /* what the socket did not take */
} Rest;

static char buffer[256 * 1024];
static int unix_socket;

static void
check(int status, const char *what)
{
    if (status >= 0) return;
    fprintf(stderr, "%s: %s\n", what, uv_strerror(status));
    exit(1);
}

static void
on_closed(uv_handle_t *handle)
{
    free(handle);
}

static void
on_written(uv_write_t *request, int status)
{
    (void)status; /* the reading end hears of a loss */
    free(request);
}

static void
on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)handle;
    (void)suggested;
    *buf = uv_buf_init(buffer, sizeof(buffer));
}

static void
on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buf)
{
    if (count < 0) {
        uv_close((uv_handle_t *)stream, on_closed);
        return;
    }
    uv_buf_t out = uv_buf_init(buf->base, (unsigned)count);
    int sent = uv_try_write(stream, &out, 1);
    size_t done = sent > 0 ? (size_t)sent : 0;
    if (done == (size_t)count) return;
    size_t size = (size_t)count - done;
    Rest *rest = malloc(sizeof(Rest) + size);
    if (rest == NULL) abort();
    memcpy(rest->data, buf->base + done, size);
    out = uv_buf_init(rest->data, (unsigned)size);
    if (uv_write(&rest->request, stream, &out, 1, on_written) < 0) free(rest);
}

static void
on_connection(uv_stream_t *server, int status)
{
    check(status, "listen");
    Connection *made = calloc(1, sizeof(Connection));
    if (made == NULL) abort();
    if (unix_socket) {
        check(uv_pipe_init(server->loop, &made->pipe, 0), "pipe");
    }
    else {
        check(uv_tcp_init(server->loop, &made->tcp), "tcp");
    }
    check(uv_accept(server, &made->stream), "accept");
    if (!unix_socket) check(uv_tcp_nodelay(&made->tcp, 1), "nodelay");
    check(uv_read_start(&made->stream, on_alloc, on_read), "read");
}

int
main(int argc, char **argv)
{
    static Connection server;
    uv_loop_t *loop = uv_default_loop();
    unix_socket = argc > 1;
    if (unix_socket) {
        char path[100];
        if ((size_t)snprintf(path, sizeof(path), "%s/echo", argv[1]) >= sizeof(path)) {
            check(UV_ENAMETOOLONG, "path");
        }
        check(uv_pipe_init(loop, &server.pipe, 0), "pipe");
        check(uv_pipe_bind(&server.pipe, path), "bind");
        check(uv_listen(&server.stream, 1024, on_connection), "listen");
        printf("\"%s\"\n", path);
    }
    else {
        struct sockaddr_in address;
        int size = sizeof(address);
        check(uv_ip4_addr("127.0.0.1", 0, &address), "address");
        check(uv_tcp_init(loop, &server.tcp), "tcp");
        check(uv_tcp_bind(&server.tcp, (struct sockaddr *)&address, 0), "bind");
        check(uv_listen(&server.stream, 1024, on_connection), "listen");
        check(uv_tcp_getsockname(&server.tcp, (struct sockaddr *)&address, &size),
              "getsockname");
        printf("[\"127.0.0.1\", %d]\n", ntohs(address.sin_port));
    }
    fflush(stdout);
    return uv_run(loop, UV_RUN_DEFAULT);
}
