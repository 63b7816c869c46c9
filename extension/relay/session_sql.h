/*
 * session_sql.h
 *		open_session and close_session.
 */
#ifndef MBUS_SESSION_SQL_H
#define MBUS_SESSION_SQL_H

#include "postgres.h"

#include "delivery/hold.h"

extern int	mbus_session_close(int64 number, MbusSessionEnd *end);

#endif							/* MBUS_SESSION_SQL_H */
