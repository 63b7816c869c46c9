/*
 * visibility.c
 *		Whose a message is, in a channel that keeps subjects apart.
 *
 * In a channel with visibility "subject" who may consume sees, reads and
 * deletes only what he has published himself, or what is addressed to him; the
 * channel's owner and who has the privilege all_subjects see everything.  For
 * anybody else a message is not there.
 *
 * A message has its publisher's role, by name, and the subject that the
 * publisher's claims named; and a recipient, which is a subject.
 *
 *	a frame of a gateway	its own: of the same role and the same subject, or
 *							both without one; and what is addressed to the
 *							subject of its token, which was verified
 *	a session of SQL		what was published by a role whose privileges it
 *							has; with request.jwt.claims (PostgREST sets them
 *							for each request) of that only what the same subject
 *							has published or is addressed to
 *
 * Claims whose subject cannot be compared see nothing.
 *
 * In a session of SQL anybody can set request.jwt.claims: there they only take
 * away, and never give.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "base/caller.h"
#include "channel/publisher.h"
#include "channel/visibility.h"

static Oid	publisher_role(Oid schema, int32 publisher_id);
static bool is_named(const text *name, const char *subject);

/*
 * mbus_visible tells whether a message is from the caller or for him, by what
 * its row says: the number of its publisher, and two subjects or NULL.
 */
bool
mbus_visible(Oid schema, int32 publisher_id, const text *subject,
			 const text *recipient)
{
	const char *own = mbus_subject();
	bool		from = own ? is_named(subject, own) : subject == NULL;
	bool		to = own && is_named(recipient, own);

	if (mbus_caller.in_relay)
		return (to && mbus_caller.verified) ||
			(from && publisher_role(schema, publisher_id) == GetUserId());
	if (mbus_claims_given() && ((!from && !to) || mbus_subject_unusable()))
		return false;
	return has_privs_of_role(GetUserId(),
							 publisher_role(schema, publisher_id));
}

/*
 * mbus_visible_row does so for a row, of which these are the columns.
 */
bool
mbus_visible_row(Oid schema, HeapTuple tuple, TupleDesc desc,
				 AttrNumber publisher_column, AttrNumber subject_column,
				 AttrNumber recipient_column)
{
	bool		isnull;
	bool		no_subject;
	bool		no_recipient;
	Datum		subject = heap_getattr(tuple, subject_column, desc,
									   &no_subject);
	Datum		recipient = heap_getattr(tuple, recipient_column, desc,
										 &no_recipient);

	return mbus_visible(schema,
						DatumGetInt32(heap_getattr(tuple, publisher_column,
												   desc, &isnull)),
						no_subject ? NULL : DatumGetTextPP(subject),
						no_recipient ? NULL : DatumGetTextPP(recipient));
}

/* The role that has a publisher's name now; that of nobody if there is none. */
static Oid
publisher_role(Oid schema, int32 publisher_id)
{
	text	   *name = mbus_publisher_name(schema, publisher_id);

	return name ? get_role_oid(text_to_cstring(name), true) : InvalidOid;
}

/* Whether a message names that subject; NULL: it names none. */
static bool
is_named(const text *name, const char *subject)
{
	size_t		len = strlen(subject);

	return name && VARSIZE_ANY_EXHDR(name) == len &&
		memcmp(VARDATA_ANY(name), subject, len) == 0;
}
