/* overdue.h - transports whose connection_lost() could not be scheduled.
 *
 * Promises: a connection that is lost while memory is out is told so by the next turn
 * that finds some, with MemoryError. Whoever lost it got that exception, too. */
#ifndef FL_OVERDUE_H
#define FL_OVERDUE_H
#include "io/transport.h"

/* Has the next turns try again. The exception that is set stays. */
void fl_overdue_add(FlTransport *transport);

#endif
