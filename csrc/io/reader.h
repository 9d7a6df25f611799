/* reader.h - callbacks on descriptors that the program owns: add_reader and its kin.
 *
 * Promises: what asyncio's selectors do, one reader and one writer a descriptor, and
 * the newest replaces the one before it; O_NONBLOCK is never touched; a descriptor
 * that was closed too early, or given out again, is an exception or works. */
#ifndef FL_READER_H
#define FL_READER_H
#include "core/loop.h"

typedef enum { FL_READER_READ, FL_READER_WRITE } FlReaderSide;

/* The number of a descriptor or of an object with fileno(); negative ones, too. 0, or
 * -1 with ValueError as selectors have it. Numbers that no int holds become INT_MAX or
 * -1. */
int fl_reader_fileno(FlLoop *loop, PyObject *file, int *fd);

/* loop._ensure_fd_no_transport(file): 0, or -1 with RuntimeError where an open
 * transport has it. */
int fl_reader_check_transport(FlLoop *loop, PyObject *file, int fd);

/* Has the future resolved with None once the descriptor is ready; replaces whoever
 * waited for that before. One event ends it. 0, or -1 with what add_reader() would
 * raise. */
int fl_reader_wait(FlLoop *loop, int fd, FlReaderSide side, PyObject *future);

/* Ends fl_reader_wait() if nobody took the future's place. */
void fl_reader_unwait(FlLoop *loop, int fd, FlReaderSide side, PyObject *future);

/* Drops reader and writer of a descriptor that a transport takes over. */
void fl_reader_forget(FlLoop *loop, int fd);

/* The same, but who waits is called once more: the descriptor is closed, and the next
 * operation on it tells them so. */
void fl_reader_expire(FlLoop *loop, int fd);

int fl_reader_register(PyObject *module, FlState *st);

#endif
