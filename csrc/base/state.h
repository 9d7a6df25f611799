/* state.h - what one instance of the module owns: types, imports, names.
 *
 * Promises: every pointer is set once fl_state_init() and the rooms' register
 * functions have run, and stays so until the module is cleared. One list drives
 * the struct, traverse, clear and the interning: they cannot drift. */
#ifndef FL_STATE_H
#define FL_STATE_H
#include "base/compat.h"

typedef struct FlLoop FlLoop;
typedef struct FlHandle FlHandle;
typedef struct FlStep FlStep;

/* Heap types, each made by its room's register function. */
#define FL_STATE_TYPES(X)                                                              \
    X(handle_type)                                                                     \
    X(timer_handle_type)                                                               \
    X(loop_type)                                                                       \
    X(method_type)                                                                     \
    X(socket_transport_type)                                                           \
    X(read_pipe_transport_type)                                                        \
    X(write_pipe_transport_type)                                                       \
    X(datagram_transport_type)                                                         \
    X(listener_type)                                                                   \
    X(sock_op_type)                                                                    \
    X(reader_type)                                                                     \
    X(job_type)                                                                        \
    X(jobs_type)                                                                       \
    X(tls_transport_type)                                                              \
    X(window_type)                                                                     \
    X(watch_type)

/* field, module, attribute ("" for the module itself). asyncio's private names that
 * the C code leans on all stand here; _names.py lists those of the Python code. */
#define FL_STATE_IMPORTS(X)                                                            \
    X(asyncio_base_events, "asyncio.base_events", "")                                  \
    X(asyncio_events, "asyncio.events", "")                                            \
    X(asyncio_futures, "asyncio.futures", "")                                          \
    X(set_running_loop, "asyncio.events", "_set_running_loop")                         \
    X(asyncio_tasks, "asyncio.tasks", "")                                              \
    X(asyncio_handle, "asyncio.events", "Handle")                                      \
    X(asyncio_timer_handle, "asyncio.events", "TimerHandle")                           \
    X(base_event_loop, "asyncio.base_events", "BaseEventLoop")                         \
    X(cancelled_error, "asyncio.exceptions", "CancelledError")                         \
    X(buffered_protocol, "asyncio.protocols", "BufferedProtocol")                      \
    X(transport_base, "asyncio.transports", "_FlowControlMixin")                       \
    X(read_transport_base, "asyncio.transports", "ReadTransport")                      \
    X(datagram_transport_base, "asyncio.transports", "DatagramTransport")              \
    X(transport_socket, "asyncio.trsock", "TransportSocket")                           \
    X(flowcontrol_defaults, "asyncio.sslproto", "add_flowcontrol_defaults")            \
    X(ssl_handshake_timeout, "asyncio.constants", "SSL_HANDSHAKE_TIMEOUT")             \
    X(ssl_shutdown_timeout, "asyncio.constants", "SSL_SHUTDOWN_TIMEOUT")               \
    X(sendfile_mode, "asyncio.constants", "_SendfileMode")                             \
    X(format_callback_source, "asyncio.format_helpers", "_format_callback_source")     \
    X(extract_stack, "asyncio.format_helpers", "extract_stack")                        \
    X(iscoroutine, "asyncio.coroutines", "iscoroutine")                                \
    X(futures_error, "concurrent.futures._base", "Error")                              \
    X(iscoroutinefunction, "inspect", "iscoroutinefunction")                           \
    X(queue_empty, "_queue", "Empty")                                                  \
    X(native_socket, "_socket", "socket")                                              \
    X(native_socket_close, "_socket", "socket.close")                                  \
    X(address_families, "socket", "AddressFamily._value2member_map_")                  \
    X(socket_kinds, "socket", "SocketKind._value2member_map_")                         \
    X(connect_sock, "asyncio.base_events", "BaseEventLoop._connect_sock")              \
    X(ensure_resolved, "asyncio.base_events", "BaseEventLoop._ensure_resolved")        \
    X(c_task, "_asyncio", "Task")                                                      \
    X(c_future, "_asyncio", "Future")                                                  \
    X(asyncio_streams, "asyncio.streams", "")                                          \
    X(stream_reader, "asyncio.streams", "StreamReader")                                \
    X(stream_reader_protocol, "asyncio.streams", "StreamReaderProtocol")               \
    X(simple_namespace, "types", "SimpleNamespace")                                    \
    X(sys_getframe, "sys", "_getframe")                                                \
    X(check_ssl_socket, "asyncio.base_events", "_check_ssl_socket")                    \
    X(warn_unawaited_coroutine, "warnings", "_warn_unawaited_coroutine")               \
    X(origin_tracking_depth, "sys", "get_coroutine_origin_tracking_depth")

/* The same, of the ssl module, which an interpreter may lack: then all are NULL. */
#define FL_STATE_SSL_IMPORTS(X)                                                        \
    X(ssl_object, "ssl", "SSLObject")                                                  \
    X(ssl_memory_bio, "ssl", "MemoryBIO")                                              \
    X(ssl_error, "ssl", "SSLError")                                                    \
    X(ssl_want_read, "ssl", "SSLWantReadError")                                        \
    X(ssl_syscall_error, "ssl", "SSLSyscallError")                                     \
    X(ssl_certificate_error, "ssl", "CertificateError")                                \
    X(ssl_native, "_ssl", "_SSLSocket")

/* Interned names: attributes and keys that the C code uses by name. */
#define FL_STATE_STRINGS(X)                                                            \
    X(Future)                                                                          \
    X(Task)                                                                            \
    X(_ThreadSafeHandle)                                                               \
    X(__class__)                                                                       \
    X(__module__)                                                                      \
    X(__name__)                                                                        \
    X(__subclasses__)                                                                  \
    X(_accept_connection2)                                                             \
    X(_asyncio_future_blocking)                                                        \
    X(_attach)                                                                         \
    X(_buffer)                                                                         \
    X(_call_connection_lost)                                                           \
    X(_check_handshake_timeout)                                                        \
    X(_check_linger)                                                                   \
    X(_check_shutdown_timeout)                                                         \
    X(_connect_sock)                                                                   \
    X(_connection_made)                                                                \
    X(_create_connection_transport)                                                    \
    X(_default_executor)                                                               \
    X(_detach)                                                                         \
    X(_ensure_resolved)                                                                \
    X(_eof)                                                                            \
    X(_exception)                                                                      \
    X(_executor_shutdown_called)                                                       \
    X(_force_close)                                                                    \
    X(_format_callback_source)                                                         \
    X(_format_handle)                                                                  \
    X(_grow)                                                                           \
    X(_handle_signal)                                                                  \
    X(_limit)                                                                          \
    X(_loop)                                                                           \
    X(_make_foreign_transport)                                                         \
    X(_make_socket_transport)                                                          \
    X(_make_transport_socket)                                                          \
    X(_maybe_resume_transport)                                                         \
    X(_paused)                                                                         \
    X(_process_self_data)                                                              \
    X(_read_ready)                                                                     \
    X(_resume)                                                                         \
    X(_sendto_ready)                                                                   \
    X(_set_result_unless_cancelled)                                                    \
    X(_sock_sendall_rest)                                                              \
    X(_sslobj)                                                                         \
    X(_stream_reader)                                                                  \
    X(_stream_reader_wr)                                                               \
    X(_transport)                                                                      \
    X(_wait_for_data)                                                                  \
    X(_waiter)                                                                         \
    X(_wakeup_waiter)                                                                  \
    X(_work_queue)                                                                     \
    X(abort)                                                                           \
    X(accept)                                                                          \
    X(asend)                                                                           \
    X(buffer_updated)                                                                  \
    X(call_at)                                                                         \
    X(call_exception_handler)                                                          \
    X(call_later)                                                                      \
    X(call_soon)                                                                       \
    X(callback)                                                                        \
    X(cancel)                                                                          \
    X(cancelled)                                                                       \
    X(cipher)                                                                          \
    X(close)                                                                           \
    X(compression)                                                                     \
    X(connect)                                                                         \
    X(connection_lost)                                                                 \
    X(connection_made)                                                                 \
    X(context)                                                                         \
    X(coro)                                                                            \
    X(create_future)                                                                   \
    X(create_task)                                                                     \
    X(eager_start)                                                                     \
    X(data_received)                                                                   \
    X(datagram_received)                                                               \
    X(debug)                                                                           \
    X(detach)                                                                          \
    X(do_handshake)                                                                    \
    X(done)                                                                            \
    X(eof_received)                                                                    \
    X(error_received)                                                                  \
    X(exception)                                                                       \
    X(family)                                                                          \
    X(feed_data)                                                                       \
    X(fileno)                                                                          \
    X(future)                                                                          \
    X(get_buffer)                                                                      \
    X(get_extra_info)                                                                  \
    X(get_write_buffer_size)                                                           \
    X(getpeercert)                                                                     \
    X(getpeername)                                                                     \
    X(getsockname)                                                                     \
    X(gettimeout)                                                                      \
    X(handle)                                                                          \
    X(is_closing)                                                                      \
    X(logger)                                                                          \
    X(loop)                                                                            \
    X(message)                                                                         \
    X(name)                                                                            \
    X(pause_reading)                                                                   \
    X(pause_writing)                                                                   \
    X(peercert)                                                                        \
    X(peername)                                                                        \
    X(pending)                                                                         \
    X(pipe)                                                                            \
    X(proto)                                                                           \
    X(protocol)                                                                        \
    X(read)                                                                            \
    X(readexactly)                                                                     \
    X(readline)                                                                        \
    X(readuntil)                                                                       \
    X(recv)                                                                            \
    X(recv_into)                                                                       \
    X(recvfrom)                                                                        \
    X(recvfrom_into)                                                                   \
    X(result)                                                                          \
    X(resume_reading)                                                                  \
    X(resume_writing)                                                                  \
    X(run_in_executor)                                                                 \
    X(send)                                                                            \
    X(sendto)                                                                          \
    X(server_hostname)                                                                 \
    X(server_side)                                                                     \
    X(set_exception)                                                                   \
    X(set_result)                                                                      \
    X(setblocking)                                                                     \
    X(shutdown)                                                                        \
    X(slow_callback_duration)                                                          \
    X(sock_connect)                                                                    \
    X(socket)                                                                          \
    X(sockname)                                                                        \
    X(source_traceback)                                                                \
    X(ssl_object)                                                                      \
    X(sslcontext)                                                                      \
    X(submit)                                                                          \
    X(throw)                                                                           \
    X(time)                                                                            \
    X(tls_close_notify)                                                                \
    X(transport)                                                                       \
    X(type)                                                                            \
    X(unwrap)                                                                          \
    X(when)                                                                            \
    X(wrap_bio)                                                                        \
    X(write)

enum { FL_HANDLE_FREE_MAX = 1024 };

typedef struct FlState {
#define X(name) PyTypeObject *name;
    FL_STATE_TYPES(X)
#undef X
#define X(name, module, attribute) PyObject *name;
    FL_STATE_IMPORTS(X)
    FL_STATE_SSL_IMPORTS(X)
#undef X
#define X(name) PyObject *str_##name;
    FL_STATE_STRINGS(X)
#undef X
    /* socket.socket and its close(), as Python made them. */
    PyObject *socket_class;
    PyObject *socket_close;
    /* asyncio.streams' own functions, or NULL: see feed.c. */
    PyObject *data_received_function;
    PyObject *feed_data_function;
    PyObject *wakeup_waiter_function;
    PyObject *stream_reader_property;
    /* The class that readers are given, the functions of asyncio's own, and the version
     * of that class when it last had them: see reads.c. */
    PyObject *reads_class;
    PyObject *reads_originals;
    unsigned int reads_version;
    Py_ssize_t reads_attributes; /* how many a new reader has */
    /* The version of a class of loops whose way to connect nobody changed: connect.c.
     */
    unsigned int connect_version;
    PyObject *empty_tuple;
    PyObject *empty_bytes;
    PyObject *kw_loop;     /* ("loop",) */
    PyObject *kw_asyncio;  /* ("context",) as _asyncio has it, or NULL; see step.h */
    PyObject *kw_wrap_bio; /* ("server_side", "server_hostname") */
    /* Spare handles, linked by their context field; only where a GIL guards them. */
    FlHandle *free_handles[2];
    int free_handle_count[2];
    FlStep *free_steps; /* linked by their callback field */
    int free_step_count;
    bool contexts_shareable; /* the self-test of context.c passed */
} FlState;

int fl_state_init(FlState *st);

/* All types are made: see fl_compat_keep(). */
void fl_state_types_made(FlState *st);
int fl_state_traverse(FlState *st, visitproc visit, void *arg);
int fl_state_clear(FlState *st);

/* The state of the module that defined type, or of the base that did. NULL with
 * TypeError for a foreign type. */
FlState *fl_state_of_type(PyTypeObject *type);

extern struct PyModuleDef fl_module_def;

#endif
