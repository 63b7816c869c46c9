/*
 * refusal.c
 *		Whose business it is that something was refused: for the view refusals.
 *
 * Of a channel all is told to who may see all of it, or monitors; to who else
 * may publish or consume, what he was refused himself, as far as it can be
 * known: the same role and the same subject (channel/visibility.c has the
 * rules).  To a stranger nothing, not even whether there is such a channel.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "base/caller.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "state/fault.h"

static bool is_own(const char *role, const char *subject);

/*
 * refusal_visible(channel, role, subject) tells whether the current user may
 * know of a failure about that channel, of that role and subject or NULL.
 */
MBUS_FUNCTION(refusal_visible)
{
	const MbusChannel *channel;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_BOOL(false);
	channel = mbus_channel_by_name(mbus_schema(),
								   text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (channel == NULL)
		PG_RETURN_BOOL(false);
	if (mbus_channel_allows(channel, MBUS_SEE_WHOLE) || mbus_monitors())
		PG_RETURN_BOOL(true);
	if (!mbus_channel_allows(channel, MBUS_PUBLISH | MBUS_SEE))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(is_own(text_to_cstring(PG_GETARG_TEXT_PP(1)),
						  PG_ARGISNULL(2) ? NULL :
						  text_to_cstring(PG_GETARG_TEXT_PP(2))));
}

/* Whether a role and a subject are the caller's. */
static bool
is_own(const char *role, const char *subject)
{
	const char *own = mbus_subject();
	Oid			who = get_role_oid(role, true);
	bool		same = own ? subject && strcmp(own, subject) == 0 :
	subject == NULL;

	if (!OidIsValid(who))
		return false;
	if (mbus_caller.in_relay)
		return same && who == GetUserId();
	if (mbus_claims_given() && (!same || mbus_subject_unusable()))
		return false;
	return has_privs_of_role(GetUserId(), who);
}
