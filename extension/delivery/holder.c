/*
 * holder.c
 *		Whose a lease is.
 *
 * A lease's number proves nothing: numbers count upwards.  It belongs to the
 * role that has claimed, and to the subject that its claims named, of which the
 * lease keeps a hash; 0: none.
 *
 *	a frame of a gateway	of the same role and the same subject, on whatever
 *							socket; without a subject, of the same role
 *	a session of SQL		whoever has the privileges of that role; with
 *							request.jwt.claims (PostgREST sets them for each
 *							request) that name a subject, only of the same
 *
 * All others are told what is told of a lease that does not exist, 55000,
 * before anything else is looked at.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/acl.h"

#include "base/caller.h"
#include "base/payload.h"
#include "delivery/holder.h"

static uint64 subject_hash(const char *subject);

/*
 * mbus_holder_subject returns what a lease keeps of the caller's subject.
 */
uint64
mbus_holder_subject(void)
{
	return subject_hash(mbus_subject());
}

/*
 * mbus_holder_may tells whether the caller may do what the holder of a lease
 * may.  It looks into the catalog: hold no lock.
 */
bool
mbus_holder_may(Oid role, uint64 subject)
{
	uint64		own = mbus_holder_subject();

	if (mbus_caller.in_relay)
		return role == GetUserId() && subject == own;
	return (own == 0 || own == subject) &&
		has_privs_of_role(GetUserId(), role);
}

/*
 * mbus_holder_named tells the same by what a row of acks says of who has
 * acknowledged: a role's name and a subject, or NULL.
 */
bool
mbus_holder_named(const char *role, const char *subject)
{
	Oid			oid = get_role_oid(role, true);

	/* of a role that was dropped since, nobody */
	return OidIsValid(oid) && mbus_holder_may(oid, subject_hash(subject));
}

/* 64 bits that nobody finds another subject for; 0 for none. */
static uint64
subject_hash(const char *subject)
{
	uint8		digest[MBUS_SHA256_BYTES];
	uint64		hash;

	if (subject == NULL)
		return 0;
	mbus_sha256(subject, strlen(subject), digest);
	memcpy(&hash, digest, sizeof(hash));
	return hash != 0 ? hash : 1;
}
