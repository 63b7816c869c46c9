/*
 * session_sql.h
 *		open_session and close_session.
 */
#ifndef MBUS_SESSION_SQL_H
#define MBUS_SESSION_SQL_H

#include "postgres.h"

extern int	mbus_session_close(int64 number, int code, int64 *unwritten,
							   int n);

#endif							/* MBUS_SESSION_SQL_H */
