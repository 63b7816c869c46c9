/*
 * control.h
 *		Control frames of the gateway, and the method "authenticate".
 */
#ifndef MBUS_CONTROL_H
#define MBUS_CONTROL_H

#include "postgres.h"

#include "lib/stringinfo.h"

#include "door/door.h"
#include "identity/session.h"
#include "relay/rpc.h"

#define MBUS_SESSION_LOST	"session was forgotten: too many are open"

extern bool mbus_control_opens(const char *bytes, int len);
extern char *mbus_control_method(const char *bytes, int len);
extern void mbus_control_run(int64 session, const char *bytes, int len,
							 StringInfo out);
extern void mbus_control_refuse(StringInfo out, const ErrorData *edata);
extern void mbus_control_describe(StringInfo out, int64 session,
								  const MbusIdentity *identity,
								  const char *token, int limit);
extern bool mbus_control_door(const MbusDoor *door, const ErrorData *edata,
							  MbusRpcCode code, StringInfo out);
extern char *mbus_authenticate_token(const MbusRequest *request, int *limit);
extern void mbus_authenticate_answer(MbusAnswer *answer,
									 const MbusIdentity *identity);

#endif							/* MBUS_CONTROL_H */
