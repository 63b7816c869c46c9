/*
 * json_value.c
 *		json_text: a value within a JSON text, whatever the text holds.
 *
 * A payload is kept as it was published, and JSON may have what text cannot:
 * \u0000, or half of a surrogate pair.  The operators ->> and #>> raise an
 * error for the whole query when one row has such, also beside the value that
 * is asked for.  This function walks the tokens of the server's own lexer,
 * which decodes nothing, and decodes only the names on the way and the value;
 * what text cannot hold becomes U+FFFD.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "base/json_slice.h"

PG_FUNCTION_INFO_V1(mbus_json_text_value);

static bool value_member(MbusSlice *value, const text *name);
static bool value_element(MbusSlice *value, const text *index);
static int	value_length(const MbusSlice *value);
static bool value_next(JsonLexContext *lex, MbusSlice *value);
static bool lexer_next(JsonLexContext *lex);

/*
 * json_text(payload json, VARIADIC path text[]) returns the value at the path
 * as #>> does, and never raises an error for what the payload holds.
 */
Datum
mbus_json_text_value(PG_FUNCTION_ARGS)
{
	text	   *json;
	ArrayType  *path;
	Datum	   *step;
	bool	   *missing;
	int			nsteps;
	MbusSlice	value;
	JsonLexContext *lex;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	json = PG_GETARG_TEXT_PP(0);
	path = PG_GETARG_ARRAYTYPE_P(1);
	deconstruct_array(path, TEXTOID, -1, false, TYPALIGN_INT, &step, &missing,
					  &nsteps);

	lex = MbusMakeLexer(VARDATA_ANY(json), VARSIZE_ANY_EXHDR(json), false);
	if (!lexer_next(lex) || !value_next(lex, &value))
		PG_RETURN_NULL();
	for (int i = 0; i < nsteps; i++)
	{
		bool		found = false;

		if (missing[i])
			PG_RETURN_NULL();
		if (value.type == JSON_TOKEN_OBJECT_START)
			found = value_member(&value, DatumGetTextPP(step[i]));
		else if (value.type == JSON_TOKEN_ARRAY_START)
			found = value_element(&value, DatumGetTextPP(step[i]));
		if (!found)
			PG_RETURN_NULL();
	}
	if (value.type == JSON_TOKEN_NULL)
		PG_RETURN_NULL();
	if (value.type == JSON_TOKEN_STRING)
		PG_RETURN_TEXT_P(mbus_json_text(&value));
	PG_RETURN_TEXT_P(cstring_to_text_with_len(value.start, value.len));
}

/*
 * value_member puts in place of an object its member of that name, the last
 * one as json has it; false if there is none.
 */
static bool
value_member(MbusSlice *value, const text *name)
{
	JsonLexContext *lex = MbusMakeLexer(value->start, value->len, false);
	bool		found = false;

	(void) lexer_next(lex);		/* { */
	while (lexer_next(lex) && lex->token_type == JSON_TOKEN_STRING)
	{
		MbusSlice	member;
		MbusSlice	string = {lex->token_start,
		lex->token_terminator - lex->token_start, JSON_TOKEN_STRING};
		text	   *decoded = mbus_json_text(&string);
		bool		colon = lexer_next(lex);

		if (!colon || !lexer_next(lex) || !value_next(lex, &member))
			return false;
		if (VARSIZE_ANY_EXHDR(decoded) == VARSIZE_ANY_EXHDR(name) &&
			memcmp(VARDATA_ANY(decoded), VARDATA_ANY(name),
				   VARSIZE_ANY_EXHDR(name)) == 0)
		{
			*value = member;
			found = true;
		}
		pfree(decoded);
		if (lex->token_type != JSON_TOKEN_COMMA)
			break;
	}
	return found;
}

/*
 * value_element puts in place of an array its element of that number, counted
 * from 0, or from the end if it is negative; false if there is none.
 */
static bool
value_element(MbusSlice *value, const text *index)
{
	JsonLexContext *lex;
	char	   *digits = text_to_cstring(index);
	char	   *end;
	long		wanted;
	MbusSlice	element;

	errno = 0;
	wanted = strtol(digits, &end, 10);
	if (end == digits || *end != '\0' || errno != 0)
		return false;
	if (wanted < 0)
		wanted += value_length(value);
	if (wanted < 0)
		return false;

	lex = MbusMakeLexer(value->start, value->len, false);
	(void) lexer_next(lex);		/* [ */
	while (lexer_next(lex) && lex->token_type != JSON_TOKEN_ARRAY_END &&
		   value_next(lex, &element))
	{
		if (wanted-- == 0)
		{
			*value = element;
			return true;
		}
		if (lex->token_type != JSON_TOKEN_COMMA)
			break;
	}
	return false;
}

/* How many elements an array has. */
static int
value_length(const MbusSlice *value)
{
	JsonLexContext *lex = MbusMakeLexer(value->start, value->len, false);
	MbusSlice	element;
	int			n = 0;

	(void) lexer_next(lex);		/* [ */
	while (lexer_next(lex) && lex->token_type != JSON_TOKEN_ARRAY_END &&
		   value_next(lex, &element))
	{
		n++;
		if (lex->token_type != JSON_TOKEN_COMMA)
			break;
	}
	return n;
}

/*
 * value_next reads the value that begins at the lexer's token, and goes to the
 * token behind it; false if the text is no JSON.
 */
static bool
value_next(JsonLexContext *lex, MbusSlice *value)
{
	int			depth = 0;

	value->start = lex->token_start;
	value->type = lex->token_type;
	do
	{
		CHECK_FOR_INTERRUPTS();
		switch (lex->token_type)
		{
			case JSON_TOKEN_OBJECT_START:
			case JSON_TOKEN_ARRAY_START:
				depth++;
				break;
			case JSON_TOKEN_OBJECT_END:
			case JSON_TOKEN_ARRAY_END:
				depth--;
				break;
			case JSON_TOKEN_END:
				return false;
			default:
				break;
		}
		value->len = lex->token_terminator - value->start;
		if (!lexer_next(lex))
			return false;
	} while (depth > 0);
	return true;
}

/* The lexer's next token; false for what is none. */
static bool
lexer_next(JsonLexContext *lex)
{
	return json_lex(lex) == JSON_SUCCESS;
}
