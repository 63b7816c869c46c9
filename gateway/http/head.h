/*
 * head.h
 *		The head of an HTTP request. See head.c.
 */
#ifndef GW_HEAD_H
#define GW_HEAD_H

#include <stdbool.h>
#include <stddef.h>

#include "request/frame.h"

/* The longest head, the longest target, and the most fields. */
#define GW_HEAD_MAX		16384
#define GW_TARGET_MAX	8192
#define GW_FIELDS_MAX	100

typedef struct GwField
{
	GwSpan		name;			/* as it came: names have no case */
	GwSpan		value;			/* without white space around it */
} GwField;

/* A head as far as it has come. Spans point into the bytes it was read of. */
typedef struct GwHead
{
	size_t		length;			/* of the lines that were read */
	size_t		scanned;		/* no line ends before */
	bool		done;			/* it is whole, or faulty */
	int			fault;			/* status to answer, or 0 */
	const char *why;			/* if there is a fault */
	GwSpan		method;			/* empty: the first line has not come */
	GwSpan		path;			/* before the first ? */
	GwSpan		query;			/* behind it */
	GwSpan		host;			/* of the target, else the field's */
	int			minor;			/* of the version: 0 or 1 */
	bool		has_body;
	bool		closes;			/* no other request follows */
	size_t		count;
	GwField		fields[GW_FIELDS_MAX];
} GwHead;

extern void gw_head_begin(GwHead *head);
extern bool gw_head_read(GwHead *head, const unsigned char *bytes,
						 size_t length);
extern const GwField *gw_head_find(const GwHead *head, const char *name);
extern bool gw_field_is(const GwField *field, const char *name);
extern bool gw_field_lists(GwSpan value, const char *item);

#endif							/* GW_HEAD_H */
