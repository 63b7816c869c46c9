/*
 * about.c
 *		What the call that runs is about: for the view errors, if it fails.
 *
 * One struct of the process.  A call begins with nothing in it
 * (state/fault.c, relay/guard.c) and notes the channel and the transaction id
 * as soon as it knows them.  They are copied, because whoever records an error
 * does so when the memory of what failed may be gone.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "base/about.h"

MbusAbout	mbus_about;

/*
 * mbus_about_nothing begins a call, or one of its parts.
 */
void
mbus_about_nothing(void)
{
	mbus_about.channel[0] = '\0';
	mbus_about.transaction_id[0] = '\0';
}

/*
 * mbus_about_channel notes the channel by its name.
 */
void
mbus_about_channel(const char *name, int len)
{
	mbus_about_copy(mbus_about.channel, sizeof(mbus_about.channel), name, len);
}

/*
 * mbus_about_channel_text does so for a name that is not toasted.
 */
void
mbus_about_channel_text(const text *name)
{
	mbus_about_channel(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
}

/*
 * mbus_about_transaction notes a transaction id that is not toasted; NULL:
 * there is none.
 */
void
mbus_about_transaction(const text *transaction_id)
{
	if (transaction_id)
		mbus_about_copy(mbus_about.transaction_id,
						sizeof(mbus_about.transaction_id),
						VARDATA_ANY(transaction_id),
						VARSIZE_ANY_EXHDR(transaction_id));
	else
		mbus_about.transaction_id[0] = '\0';
}

/*
 * mbus_about_copy copies as many characters as there is room for.
 */
void
mbus_about_copy(char *to, size_t size, const char *from, int len)
{
	if ((size_t) len >= size)
		len = pg_encoding_mbcliplen(PG_UTF8, from, len, (int) size - 1);
	memcpy(to, from, len);
	to[len] = '\0';
}
