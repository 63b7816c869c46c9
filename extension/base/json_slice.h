/*
 * json_slice.h
 *		Exact pieces of a JSON text, without changing a byte of them.
 */
#ifndef MBUS_JSON_SLICE_H
#define MBUS_JSON_SLICE_H

#include "postgres.h"

#include "common/jsonapi.h"

#define MBUS_MEMBERS_MAX 64		/* members of an object that is opened */

/*
 * A value's bytes, borrowed from the text it was cut from; type is that of
 * its first token, JSON_TOKEN_INVALID if there is no such value.
 */
typedef struct MbusSlice
{
	const char *start;
	int			len;
	JsonTokenType type;
} MbusSlice;

/* A value, and what is in it if it was opened. */
typedef struct MbusNode
{
	MbusSlice	value;
	char	   *name;			/* decoded; NULL for elements and the root */
	bool		opened;
	int			total;			/* members or elements it has */
	int			nchildren;		/* of these, kept */
	int			room;
	struct MbusNode *children;
} MbusNode;

extern void mbus_json_slice(const char *json, int len, int max_elements,
							MbusNode *root);
extern char *mbus_json_try(const char *json, int len, int max_elements,
						   MbusNode *root);
extern MbusNode *mbus_json_member(const MbusNode *object, const char *name);
extern const char *mbus_json_duplicate(const MbusNode *object);
extern char *mbus_json_string(const MbusSlice *slice, bool missing_ok);
extern text *mbus_json_text(const MbusSlice *string);
extern char *mbus_json_token(const MbusSlice *slice, int max_len);

#endif							/* MBUS_JSON_SLICE_H */
