/*
 * media_type.c
 *		Media types: RFC 9110, 8.3.1.
 *
 *		media-type	= token "/" token *( OWS ";" OWS [ token "=" value ] )
 *		value		= token / quoted-string
 *
 * What is one can be sent as a Content-Type as it is: it has no control
 * character but tabs.
 */
#include "postgres.h"

#include "base/media_type.h"

static const char *token_skip(const char *at);
static const char *space_skip(const char *at);
static const char *parameter_skip(const char *at);
static const char *quoted_skip(const char *at);

/*
 * mbus_content_type_check errors with 22023 if a text is no media type.
 */
void
mbus_content_type_check(const char *content_type)
{
	const char *at = token_skip(content_type);

	if (at && *at == '/')
		at = token_skip(at + 1);
	else
		at = NULL;
	while (at && *at != '\0')
		at = parameter_skip(space_skip(at));
	if (at == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid content_type \"%s\"", content_type),
				 errdetail("It is a media type, with or without parameters: type/subtype; name=value (RFC 9110, section 8.3.1).")));
}

/* Behind a token; NULL: there is none. */
static const char *
token_skip(const char *at)
{
	size_t		len = strspn(at, "!#$%&'*+-.^_`|~0123456789"
							 "abcdefghijklmnopqrstuvwxyz"
							 "ABCDEFGHIJKLMNOPQRSTUVWXYZ");

	return len > 0 ? at + len : NULL;
}

/* Behind optional white space. */
static const char *
space_skip(const char *at)
{
	return at + strspn(at, " \t");
}

/* Behind a semicolon and the parameter that may follow it; NULL: no such. */
static const char *
parameter_skip(const char *at)
{
	if (*at != ';')
		return NULL;
	at = space_skip(at + 1);
	if (*at == ';' || *at == '\0')
		return at;
	at = token_skip(at);
	if (at == NULL || *at != '=')
		return NULL;
	return at[1] == '"' ? quoted_skip(at + 2) : token_skip(at + 1);
}

/* Behind the quote that ends a string; NULL: it has none, or a control. */
static const char *
quoted_skip(const char *at)
{
	for (; *at != '"'; at++)
	{
		if (*at == '\\')
			at++;
		if (*at != '\t' && ((unsigned char) *at < ' ' || *at == 0x7F))
			return NULL;		/* also the end */
	}
	return at + 1;
}
