/*
 * session.h
 *		Sessions: who the sockets of a gateway speak for.
 */
#ifndef MBUS_SESSION_H
#define MBUS_SESSION_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"

#include "identity/jwt_claims.h"

/* Who a token says it is for, all of it checked. */
typedef struct MbusIdentity
{
	Oid			role;
	char	   *role_name;
	bool		claimed;		/* the token names the role */
	char	   *claims;			/* JSON, as it was signed */
	char	   *sub;			/* NULL: none */
	TimestampTz expires_at;		/* DT_NOEND: never */
	int			skew;			/* seconds */
	uint64		key;			/* that signed it; 0: none has */
	TimestampTz issued_at;		/* DT_NOBEGIN: it does not say */
} MbusIdentity;

/* Why frames may not run as a role: mbus_role_fault(). */
typedef enum MbusRoleFault
{
	MBUS_ROLE_SOUND,
	MBUS_ROLE_MISSING,
	MBUS_ROLE_SUPERUSER,
	MBUS_ROLE_BYPASSES,			/* row security */
	MBUS_ROLE_OF_LOGIN,			/* the user who has logged in */
	MBUS_ROLE_FOREIGN			/* who is no member of it */
} MbusRoleFault;

/* session.c */
extern MbusRoleFault mbus_role_fault(Oid role, bool may_bypass);
extern void mbus_session_rules(MbusTokenRules *rules);
extern void mbus_session_verify(const char *token, int len,
								const MbusTokenRules *rules,
								MbusIdentity *identity);
extern void mbus_session_describe(StringInfo out, int64 number,
								  const MbusIdentity *identity,
								  const char *token);
extern void mbus_session_open(int64 number, const MbusIdentity *identity);
extern void mbus_session_refuse(int64 number, const ErrorData *edata);
extern Oid	mbus_session_speaks_for(int64 number, const char **subject);
extern void mbus_session_forget(int64 number);
extern Oid	mbus_session_enter(int64 number);
extern void mbus_session_leave(void);
extern bool mbus_session_lost(int64 number);
extern void mbus_session_number_check(int64 number);

#endif							/* MBUS_SESSION_H */
