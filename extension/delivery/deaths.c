/*
 * deaths.c
 *		The list of deaths that headers keep.
 *
 * A message may die more than once: as a dead letter in its turn, in the
 * channel that it was redriven to as a copy, or for the same subscription
 * after a redrive in place.  A dead letter's header lists them all, the oldest
 * first, as objects of the same members, the last DEATHS_MAX of them.  A copy
 * that is redriven keeps the list in a header of its own, without which it is
 * no dead letter.
 *
 * Headers may be made by anybody who may publish: what is no list of objects
 * is passed over.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "delivery/deaths.h"

#define DEATHS_MAX	100

static bool member_find(JsonbContainer *object, const char *name,
						JsonbValue *value);
static bool is_object(const JsonbValue *value);
static void list_read(MbusDeaths *deaths, const JsonbValue *list);
static void deaths_append(MbusDeaths *deaths, const JsonbValue *death);

/*
 * mbus_deaths_read adds the deaths that a message's headers tell of.
 */
void
mbus_deaths_read(MbusDeaths *deaths, const struct varlena *headers)
{
	JsonbContainer *root;
	JsonbValue	list;
	JsonbValue	letter;

	if (headers == NULL)
		return;
	root = &((Jsonb *) unconstify(struct varlena *, headers))->root;
	if (!JsonContainerIsObject(root))
		return;
	if (member_find(root, MBUS_DEATHS_HEADER, &list))
		list_read(deaths, &list);
	if (!member_find(root, MBUS_DEAD_LETTER_HEADER, &letter) ||
		!is_object(&letter))
		return;
	if (member_find(letter.val.binary.data, "deaths", &list))
		list_read(deaths, &list);
	else
		deaths_append(deaths, &letter);
}

static bool
member_find(JsonbContainer *object, const char *name, JsonbValue *value)
{
	return getKeyJsonValueFromContainer(object, name, strlen(name),
										value) != NULL;
}

static bool
is_object(const JsonbValue *value)
{
	return value->type == jbvBinary &&
		JsonContainerIsObject(value->val.binary.data);
}

/* Adds the objects of an array. */
static void
list_read(MbusDeaths *deaths, const JsonbValue *list)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (list->type != jbvBinary ||
		!JsonContainerIsArray(list->val.binary.data))
		return;
	it = JsonbIteratorInit(list->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_ELEM && is_object(&value))
			deaths_append(deaths, &value);
	}
}

/*
 * mbus_deaths_add adds one that was just made.
 */
void
mbus_deaths_add(MbusDeaths *deaths, Jsonb *death)
{
	JsonbValue	value;

	value.type = jbvBinary;
	value.val.binary.data = &death->root;
	value.val.binary.len = VARSIZE(death) - VARHDRSZ;
	deaths_append(deaths, &value);
}

static void
deaths_append(MbusDeaths *deaths, const JsonbValue *death)
{
	if (deaths->n >= deaths->room)
	{
		deaths->room = deaths->room ? deaths->room * 2 : 8;
		deaths->death = deaths->death ?
			repalloc(deaths->death, deaths->room * sizeof(JsonbValue)) :
			palloc(deaths->room * sizeof(JsonbValue));
	}
	deaths->death[deaths->n++] = *death;
}

/*
 * mbus_deaths_push adds the list as an array where a value is due.
 */
void
mbus_deaths_push(const MbusDeaths *deaths, JsonbParseState **state)
{
	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	for (int i = Max(0, deaths->n - DEATHS_MAX); i < deaths->n; i++)
	{
		JsonbValue	value = deaths->death[i];

		pushJsonbValue(state, WJB_ELEM, &value);
	}
	pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

/*
 * mbus_headers_without returns headers without those that tell of deaths; 0 if
 * there are no others.
 */
Datum
mbus_headers_without(const struct varlena *headers)
{
	Datum		left;

	if (headers == NULL)
		return (Datum) 0;
	left = DirectFunctionCall2(jsonb_delete, PointerGetDatum(headers),
							   CStringGetTextDatum(MBUS_DEAD_LETTER_HEADER));
	left = DirectFunctionCall2(jsonb_delete, left,
							   CStringGetTextDatum(MBUS_DEATHS_HEADER));
	return JB_ROOT_COUNT(DatumGetJsonbP(left)) == 0 ? (Datum) 0 : left;
}
