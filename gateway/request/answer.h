/*
 * answer.h
 *		The errors that the gateway itself answers. See answer.c.
 */
#ifndef GW_ANSWER_H
#define GW_ANSWER_H

#include "base/buffer.h"
#include "request/frame.h"

/* JSON-RPC codes of the gateway's own errors. */
#define GW_ERROR_INTERNAL			(-32603)
#define GW_ERROR_NOT_AUTHENTICATED	(-32001)
#define GW_ERROR_TOO_LARGE			(-32004)
#define GW_ERROR_DATABASE_AWAY		(-32010)
#define GW_ERROR_TOO_MANY			(-32011)
#define GW_ERROR_OUTCOME_UNKNOWN	(-32050)

/* Optional members are NULL where there is nothing to say. */
typedef struct GwError
{
	int			code;
	const char *message;
	const char *sqlstate;
	const char *detail;
	const char *hint;
} GwError;

extern GwError gw_error_unknown(const char *detail);
extern GwError gw_error_away(const char *detail);
extern void gw_ids_add(GwBuffer *ids, const GwFrame *frame);
extern void gw_answer_frame(GwBuffer *out, const GwBuffer *ids,
							const GwError *error, size_t limit);

#endif							/* GW_ANSWER_H */
