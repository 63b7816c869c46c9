/*
 * session.c
 *		Sessions: who the sockets of a gateway speak for.
 *
 * A session is one socket, known by the number the gateway gave it.  Opening
 * it verifies a token and remembers, in this process only, the role and the
 * claims that it stands for; the token itself is not kept.  Frames of the
 * session then run as that role until it expires.  A gateway opens a session
 * on each of its database connections; when one is lost, what it knew is
 * gone with it.
 *
 * Sessions are no part of a transaction: what a call has opened stays open
 * if the call is rolled back.  The token was verified all the same.
 *
 * Nothing is believed twice that can change: each frame checks anew that the
 * role exists, is no superuser, bypasses row security only if the token
 * itself names it, and that the user who logged in is a member of it;
 * that this user is the one who opened the session; and that the key which
 * signed its token is still one of the keys; and that it has not been ended.
 * A claim that waits is looked at once a second, and when it has found
 * something (mbus_caller.check): nothing goes to a session that has been ended.
 *
 * A token that was refused is remembered likewise, with the reason: frames that
 * came behind it are refused for the same one.  Of these the newest few are
 * kept, so that whoever has no token takes no room from others.
 *
 * If there are too many sessions, those that were not used for longest are
 * forgotten: a gateway that does not close its sessions must not use up the
 * memory.  A frame of a forgotten one is refused, never run as another.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/caller.h"
#include "base/compat.h"
#include "base/settings.h"
#include "base/timestamp.h"
#include "identity/ended.h"
#include "identity/jwt.h"
#include "identity/jwt_claims.h"
#include "identity/jwt_key.h"
#include "identity/session.h"
#include "identity/token.h"

#define SESSION_MAX		((INT64CONST(1) << 53) - 1)
#define SESSIONS_MAX	65536	/* kept in one process */
#define REFUSED_MAX		1000	/* beside those, refused ones */
#define SESSIONS_BYTES	(64 * 1024 * 1024)	/* of their claims */

typedef struct Session
{
	int64		number;			/* hash key */
	dlist_node	used;			/* in "by_use", or in "refused" */
	Oid			login;			/* who opened it */
	Oid			role;
	bool		claimed;		/* the token names the role */
	uint64		key;			/* that signed it; 0: there was no token */
	TimestampTz issued_at;		/* of the token; without one of the session */
	TimestampTz ends_at;		/* DT_NOEND: never */
	int			skew;			/* seconds */
	Size		bytes;			/* of claims and subject; 0: refused */
	char	   *claims;			/* where its memory begins */
	char	   *subject;		/* for the audit columns; NULL: none */
	char	   *refusal;		/* its token was refused, saying this ... */
	char	   *detail;			/* ... and this, or NULL */
} Session;

static MemoryContext session_context = NULL;
static HTAB *sessions = NULL;
static dlist_head by_use = DLIST_STATIC_INIT(by_use);
static dlist_head refused = DLIST_STATIC_INIT(refused);
static int	nrefused = 0;
static Size all_bytes = 0;
static bool bounded = false;	/* some have been forgotten */

static bool subject_ended(const MbusIdentity *identity);
static Oid	identity_role(const char *name, bool claimed);
pg_noreturn static void identity_fault(bool claimed, const char *detail);
static void member(StringInfo out, const char *name, const char *value);
static void sessions_begin(void);
static Session *session_put(int64 number, char *memory, Size bytes,
							bool is_refused);
static void session_unlink(Session *session);
static void session_fault(const Session *session);
static void sessions_bound(void);
static Session *session_find(int64 number);
static void session_check(void);
static void session_sound(const Session *session);
static void session_remove(Session *session);

static const char *const role_faults[] = {
	[MBUS_ROLE_SOUND] = NULL,
	[MBUS_ROLE_MISSING] = "Its role does not exist.",
	[MBUS_ROLE_SUPERUSER] = "Its role is a superuser.",
	[MBUS_ROLE_BYPASSES] = "Its role bypasses row security and is not named by a token.",
	[MBUS_ROLE_OF_LOGIN] = "Its role is the user who has logged in.",
	[MBUS_ROLE_FOREIGN] = "The user who has logged in is not a member of its role."
};

/*
 * mbus_session_rules fills in what the settings expect of a token.
 */
void
mbus_session_rules(MbusTokenRules *rules)
{
	rules->issuer = mbus_token_issuer ? mbus_token_issuer : "";
	rules->audience = mbus_token_audience ? mbus_token_audience : "";
	rules->anonymous = mbus_anonymous_role ? mbus_anonymous_role : "";
	rules->skew = mbus_token_skew;
}

/* ------------------------------------------------------------------------
 * Identities
 * ------------------------------------------------------------------------
 */

/*
 * mbus_session_verify finds out who a token is for, in the current memory
 * context; an empty one is for the anonymous role.  28000 if it is not valid.
 */
void
mbus_session_verify(const char *token, int len, const MbusTokenRules *rules,
					MbusIdentity *identity)
{
	MbusClaims	claims = {0};

	memset(identity, 0, sizeof(*identity));
	identity->expires_at = DT_NOEND;
	identity->issued_at = GetCurrentTimestamp();
	identity->skew = rules->skew;
	if (len > 0)
	{
		int			payload_len;
		char	   *payload = mbus_jwt_verify(token, len, &payload_len,
											  &identity->key);

		mbus_claims_read(payload, payload_len, rules, &claims);
		identity->claims = claims.text;
		identity->sub = claims.sub;
		identity->expires_at = claims.expires_at;
		identity->issued_at = claims.issued_at;
	}
	identity->claimed = claims.role != NULL;
	identity->role_name = claims.role ? claims.role :
		pstrdup(rules->anonymous);
	identity->role = identity_role(identity->role_name, identity->claimed);
	if (len > 0 && subject_ended(identity))
		mbus_token_fault("Its sessions have been ended since it was issued.");
	if (len == 0)
	{
		StringInfoData json;

		initStringInfo(&json);
		appendStringInfoString(&json, "{\"role\":");
		escape_json(&json, identity->role_name);
		appendStringInfoChar(&json, '}');
		identity->claims = json.data;
	}
}

/* Whether what was issued to an identity has been ended since. */
static bool
subject_ended(const MbusIdentity *identity)
{
	char	   *subject = identity->sub ? pstrdup(identity->sub) : NULL;

	if (subject)
		mbus_subject_cut(subject);
	return mbus_ended(identity->role, subject, identity->issued_at);
}

/*
 * identity_role returns a role that frames may run as, by its name.
 */
static Oid
identity_role(const char *name, bool claimed)
{
	Oid			role = InvalidOid;
	const char *fault;

	if (name[0] == '\0')
		identity_fault(false, "There is no role for sessions without a role claim.");
	if (strlen(name) < NAMEDATALEN)
		role = get_role_oid(name, true);
	fault = role_faults[mbus_role_fault(role, claimed)];
	if (fault)
		identity_fault(claimed, fault);
	return role;
}

/*
 * mbus_role_fault makes the checks that SetUserIdAndSecContext() does not
 * make, before frames run as a role.
 */
MbusRoleFault
mbus_role_fault(Oid role, bool may_bypass)
{
	HeapTuple	tuple;
	Form_pg_authid form;
	bool		super;
	bool		bypasses;

	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	if (!HeapTupleIsValid(tuple))
		return MBUS_ROLE_MISSING;
	form = (Form_pg_authid) GETSTRUCT(tuple);
	super = form->rolsuper;
	bypasses = form->rolbypassrls;
	ReleaseSysCache(tuple);

	if (super)
		return MBUS_ROLE_SUPERUSER;
	if (bypasses && !may_bypass)
		return MBUS_ROLE_BYPASSES;
	if (role == GetSessionUserId())
		return MBUS_ROLE_OF_LOGIN;
	if (!MbusMaySetRole(GetSessionUserId(), role))
		return MBUS_ROLE_FOREIGN;
	return MBUS_ROLE_SOUND;
}

/* A role that the token does not name is no fault of the token's. */
static void
identity_fault(bool claimed, const char *detail)
{
	if (claimed)
		mbus_token_fault(detail);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
			 errmsg("session cannot be anonymous"),
			 errdetail_internal("%s", detail),
			 errhint("message_bus.anonymous_role names the role."),
			 errhidestmt(true)));
}

/*
 * mbus_session_describe appends what open_session() returns, and the token if
 * it is given: the characters of a valid one need no escapes.
 */
void
mbus_session_describe(StringInfo out, int64 number,
					  const MbusIdentity *identity, const char *token)
{
	bool		never = identity->expires_at == DT_NOEND;

	appendStringInfo(out, "{\"session\":" INT64_FORMAT, number);
	member(out, "role", identity->role_name);
	member(out, "sub", identity->sub);
	appendStringInfoString(out, ",\"expires_at\":");
	if (never)
		appendStringInfoString(out, "null");
	else
		mbus_append_timestamp(out, identity->expires_at);
	if (never)
		appendStringInfoString(out, ",\"expires_ms\":null");
	else
		appendStringInfo(out, ",\"expires_ms\":" INT64_FORMAT,
						 identity->expires_at / 1000 +
						 (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) *
						 SECS_PER_DAY * INT64CONST(1000));
	if (token)
		member(out, "token", token);
	appendStringInfoChar(out, '}');
}

/* Appends a member behind another. */
static void
member(StringInfo out, const char *name, const char *value)
{
	appendStringInfo(out, ",\"%s\":", name);
	if (value)
		escape_json(out, value);
	else
		appendStringInfoString(out, "null");
}

/* ------------------------------------------------------------------------
 * Sessions
 * ------------------------------------------------------------------------
 */

/* 22023 unless the number is one that a gateway gives. */
void
mbus_session_number_check(int64 number)
{
	if (number < 1 || number > SESSION_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid session: " INT64_FORMAT, number),
				 errdetail("A session's number is above 0 and below 2^53."),
				 errhidestmt(true)));
}

/*
 * mbus_session_open remembers whom a session speaks for, in place of whom it
 * spoke for before.  22023 for a number that is none.
 */
void
mbus_session_open(int64 number, const MbusIdentity *identity)
{
	Session    *session;
	Size		claims_size = strlen(identity->claims) + 1;
	Size		subject_size = 0;
	char	   *memory;

	mbus_session_number_check(number);
	sessions_begin();
	if (identity->sub)
		subject_size = strlen(identity->sub) + 1;
	memory = MemoryContextAlloc(session_context, claims_size + subject_size);
	session = session_put(number, memory, claims_size + subject_size, false);
	/* from here on nothing fails */
	session->role = identity->role;
	session->claimed = identity->claimed;
	session->key = identity->key;
	session->issued_at = identity->issued_at;
	session->skew = identity->skew;
	session->ends_at = identity->expires_at == DT_NOEND ? DT_NOEND :
		identity->expires_at + identity->skew * USECS_PER_SEC;
	memcpy(memory, identity->claims, claims_size);
	if (identity->sub)
	{
		session->subject = memory + claims_size;
		memcpy(session->subject, identity->sub, subject_size);
		mbus_subject_cut(session->subject);
	}
	sessions_bound();
}

/*
 * mbus_session_refuse remembers why a session's token was refused, if that is
 * what the error says.
 */
void
mbus_session_refuse(int64 number, const ErrorData *edata)
{
	Session    *session;
	Size		message_size;
	Size		detail_size = 0;
	char	   *memory;

	if (edata->sqlerrcode != ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION ||
		edata->message == NULL || number < 1 || number > SESSION_MAX)
		return;
	sessions_begin();
	message_size = strlen(edata->message) + 1;
	if (edata->detail)
		detail_size = strlen(edata->detail) + 1;
	memory = MemoryContextAlloc(session_context, message_size + detail_size);
	session = session_put(number, memory, 0, true);
	memcpy(session->refusal, edata->message, message_size);
	if (edata->detail)
	{
		session->detail = memory + message_size;
		memcpy(session->detail, edata->detail, detail_size);
	}
	if (nrefused > REFUSED_MAX)
		session_remove(dlist_container(Session, used,
									   dlist_tail_node(&refused)));
}

/* Makes what sessions are kept in, once. */
static void
sessions_begin(void)
{
	HASHCTL		ctl = {0};

	if (session_context == NULL)
		session_context = AllocSetContextCreate(TopMemoryContext,
												"message_bus sessions",
												ALLOCSET_DEFAULT_SIZES);
	if (sessions != NULL)
		return;
	ctl.keysize = sizeof(int64);
	ctl.entrysize = sizeof(Session);
	ctl.hcxt = session_context;
	sessions = hash_create("message_bus sessions", 256, &ctl,
						   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * session_put enters a session, in place of what it was before, with the
 * memory that its texts will be in.
 */
static Session *
session_put(int64 number, char *memory, Size bytes, bool is_refused)
{
	bool		found;
	Session    *session = hash_search(sessions, &number, HASH_ENTER, &found);

	if (found)
		session_unlink(session);
	memset(session, 0, sizeof(*session));
	session->number = number;
	session->login = GetSessionUserId();
	session->claims = memory;
	if (is_refused)
	{
		session->refusal = memory;
		nrefused++;
		dlist_push_head(&refused, &session->used);
		return session;
	}
	session->bytes = bytes;
	all_bytes += bytes;
	dlist_push_head(&by_use, &session->used);
	return session;
}

/* Takes a session off its list, and frees its memory. */
static void
session_unlink(Session *session)
{
	dlist_delete(&session->used);
	if (session->refusal)
		nrefused--;
	all_bytes -= session->bytes;
	pfree(session->claims);
}

/*
 * Forgets the sessions that were not used for longest, if there are too many.
 */
static void
sessions_bound(void)
{
	while ((all_bytes > SESSIONS_BYTES ||
			hash_get_num_entries(sessions) - nrefused > SESSIONS_MAX) &&
		   dlist_has_next(&by_use, dlist_head_node(&by_use)))
	{
		bounded = true;
		session_remove(dlist_container(Session, used,
									   dlist_tail_node(&by_use)));
	}
}

/*
 * mbus_session_lost tells whether a session that is not known may have been
 * forgotten because there were too many.
 */
bool
mbus_session_lost(int64 number)
{
	return bounded && session_find(number) == NULL;
}

static Session *
session_find(int64 number)
{
	if (sessions == NULL)
		return NULL;
	return hash_search(sessions, &number, HASH_FIND, NULL);
}

static void
session_remove(Session *session)
{
	session_unlink(session);
	hash_search(sessions, &session->number, HASH_REMOVE, NULL);
}

/*
 * mbus_session_forget forgets a session, if it is known here.
 */
void
mbus_session_forget(int64 number)
{
	Session    *session = session_find(number);

	if (session)
		session_remove(session);
}

/*
 * mbus_session_enter prepares for a frame: returns the role it runs as, and
 * sets request.jwt.claims for the current nest level of settings.  28000 if
 * the session is not open, has expired, or may no longer speak for its role.
 */
Oid
mbus_session_enter(int64 number)
{
	Session    *session = session_find(number);

	if (session == NULL || session->login != GetSessionUserId())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("session is not open"),
				 errhint("Call authenticate with a token.")));
	if (session->refusal)
		session_fault(session);
	if (session->ends_at != DT_NOEND &&
		session->ends_at < GetCurrentTimestamp())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("session has expired"),
				 errhint("Call authenticate with a new token.")));
	session_sound(session);

	dlist_move_head(&by_use, &session->used);
	(void) set_config_option("request.jwt.claims", session->claims,
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	mbus_caller.verified = true;
	mbus_caller.subject = session->subject;
	mbus_caller.check = session_check;
	return session->role;
}

/*
 * session_check looks again at the session whose frame runs.  That its token
 * has expired meanwhile is no fault: the next frame is told.
 */
static void
session_check(void)
{
	const Session *session = session_find(mbus_caller.session);

	if (session)
		session_sound(session);
}

/* Errors with 28000 if a session may no longer speak for its role. */
static void
session_sound(const Session *session)
{
	const char *fault;

	fault = role_faults[mbus_role_fault(session->role, session->claimed)];
	if (session->key != 0 && !mbus_jwt_key_known(session->key))
		fault = "The key that has signed its token is not one of the keys any more.";
	else if (session->key != 0 && session->ends_at == DT_NOEND &&
			 mbus_token_must_expire)
		fault = "Its token has no claim \"exp\".";
	else if (mbus_too_old(session->issued_at, session->skew))
		fault = session->key != 0 ? "Its token was issued too long ago." :
			"It was opened too long ago.";
	else if (mbus_ended(session->role, session->subject, session->issued_at))
		fault = "It has been ended.";
	if (fault)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("session cannot be used any more"),
				 errdetail_internal("%s", fault)));
}

/* Errors for what was said when the session's token was refused. */
static void
session_fault(const Session *session)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
			 errmsg_internal("%s", session->refusal),
			 session->detail ? errdetail_internal("%s", session->detail) : 0,
			 errhint("Call authenticate with a token.")));
}

/*
 * mbus_session_speaks_for returns the role of an open session, whatever has
 * become of it, and its subject; InvalidOid if it is not open.
 */
Oid
mbus_session_speaks_for(int64 number, const char **subject)
{
	Session    *session = session_find(number);

	*subject = NULL;
	if (session == NULL || session->refusal ||
		session->login != GetSessionUserId())
		return InvalidOid;
	*subject = session->subject;
	return session->role;
}

/*
 * mbus_session_leave ends that.  It cannot fail.
 */
void
mbus_session_leave(void)
{
	mbus_caller.verified = false;
	mbus_caller.subject = NULL;
	mbus_caller.check = NULL;
}
