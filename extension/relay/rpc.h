/*
 * rpc.h
 *		JSON-RPC 2.0 inside message_bus.relay(): what the files of this room
 *		share.
 */
#ifndef MBUS_RPC_H
#define MBUS_RPC_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"

#include "base/json_slice.h"

#define MBUS_RELAY_FRAMES_MAX	60	/* frames of a call, requests of a batch */
#define MBUS_RPC_ID_MAX			1024	/* bytes of an id's text */
#define MBUS_SALVAGE_MAX		1000	/* ids of a batch that cannot be run */

/* RFC 6455 opcodes, the first byte of every frame; 0 is not on the wire */
#define MBUS_OPCODE_CONTROL 0x00
#define MBUS_OPCODE_TEXT	0x01
#define MBUS_OPCODE_BINARY	0x02

/* beside an opcode: four bytes follow, the largest frame it may be answered */
#define MBUS_OPCODE_LIMITED	0x10
#define MBUS_FRAME_LEAST	1024	/* what a client may ask for at least */

/* what precedes a frame's bytes where it is built: varlena header, opcode */
#define MBUS_FRAME_PREFIX	(VARHDRSZ + 1)

typedef enum MbusRpcCode
{
	MBUS_RPC_NONE = 0,
	MBUS_RPC_PARSE = -32700,
	MBUS_RPC_REQUEST = -32600,
	MBUS_RPC_METHOD = -32601,
	MBUS_RPC_PARAMS = -32602,
	MBUS_RPC_INTERNAL = -32603,
	MBUS_RPC_AUTHENTICATION = -32001,
	MBUS_RPC_PRIVILEGE = -32002,
	MBUS_RPC_NOT_FOUND = -32003,
	MBUS_RPC_LIMIT = -32004,
	MBUS_RPC_CONFLICT = -32005,
	MBUS_RPC_STALE = -32006,
	MBUS_RPC_CHECKSUM = -32007,
	MBUS_RPC_DISABLED = -32008,
	MBUS_RPC_TIMEOUT = -32009,
	MBUS_RPC_AWAY = -32010
} MbusRpcCode;

/* A frame taken apart; all borrowed from its bytes. */
typedef struct MbusFrame
{
	bool		binary;
	int			limit;			/* of its reply */
	const char *text;			/* the JSON */
	int			text_len;
	const char *body;			/* what follows the line feed, if binary */
	int			body_len;
} MbusFrame;

typedef struct MbusRaw
{
	const char *bytes;
	int			len;
} MbusRaw;

/* One JSON-RPC request; all borrowed from its frame. */
typedef struct MbusRequest
{
	MbusSlice	id;				/* absent in a notification */
	char	   *method;			/* NULL until known */
	const MbusNode *params;		/* opened object, or NULL */
	bool		positional;		/* params is an array, which no method takes */
	bool		binary;			/* wants payloads as raw bytes */
	bool		receipt;		/* wants to know of repeats */
	bool		has_body;		/* came in a binary frame */
	MbusRaw		body;			/* all bytes behind the header line */
	bool		has_bodies;		/* the header line has "bodies" */
	int			nbodies;
	MbusRaw    *bodies;
	bool		alone;			/* nothing else waits for the call to end */
	TimestampTz deadline;		/* of its frame; 0: none */
} MbusRequest;

/* Strings of a frame that was cut off; of length 0 if they were not found. */
typedef struct MbusSalvaged
{
	MbusSlice	method;
	MbusSlice	channel;
	MbusSlice	transaction_id;
	bool		batch;			/* it is a JSON-RPC batch */
} MbusSalvaged;

/*
 * A reply on its way.  The bytes go straight into the frame; raw payloads of
 * a binary reply are remembered and follow the header line.
 */
typedef struct MbusAnswer
{
	StringInfo	out;
	int			start;			/* where in "out" this reply begins */
	int			limit;			/* largest frame */
	bool		binary;			/* raw payloads are wanted */
	bool		many;			/* result has several payloads */
	bool		refers;			/* what does not fit goes by reference */
	int			rows_start;		/* where in "out" the first row begins */
	int			rows;			/* that are in it, whole */
	bool		overflow;		/* the limit was met */
	bool		leases;			/* rows have one */
	int64		lease;			/* 0: there is none so far */
	int64		bodies_len;
	int			lengths_len;	/* of the text of "bodies" */
	int			nbodies;
	int			room;
	MbusRaw    *bodies;
} MbusAnswer;

/* An SQL function that a method calls, as the catalog describes it. */
typedef struct MbusFunction
{
	Oid			oid;
	const char *name;
	int			nargs;
	char	  **arg_name;
	Oid		   *arg_type;
	int			nrequired;		/* the first ones, without default */
	List	   *defaults;		/* of the others: expressions */
	Oid			result_type;
	bool		returns_set;
	bool		strict;
} MbusFunction;

/* frame.c */
extern void mbus_frame_split(const char *bytes, int len, MbusFrame *frame);
extern void mbus_frame_check_text(const MbusFrame *frame);
extern void mbus_request_read(const MbusNode *node, const MbusFrame *frame,
							  MbusRequest *request);

/* tells whether a request is a notification: it has no id */
static inline bool
mbus_request_is_notification(const MbusRequest *request)
{
	return request->method != NULL && request->id.type == JSON_TOKEN_INVALID;
}

/* method.c */
extern void mbus_method_call(const MbusRequest *request, MbusAnswer *answer);
extern bool mbus_method_publishes(const char *name);

/* salvage.c */
extern void mbus_salvage_about(const char *json, int len,
							   MbusSalvaged *found);
extern int	mbus_salvage_ids(const char *json, int len, MbusSlice *ids,
							 int max, bool *batch);

/* rpc_call.c */
extern void mbus_function_answer(const MbusFunction *function,
								 NullableDatum *args, bool one,
								 MbusAnswer *answer);
extern void mbus_claim_answer(const MbusFunction *function,
							  const MbusRequest *request,
							  NullableDatum *args, MbusAnswer *answer);
extern void mbus_peek_answer(const MbusFunction *function,
							 NullableDatum *args, MbusAnswer *answer);

/* receipt.c */
extern bool mbus_receipt_wanted(const MbusRequest *request);
extern void mbus_receipt_begin(void);
extern void mbus_receipt_call(const MbusFunction *function,
							  NullableDatum *args, MbusAnswer *answer);
extern void mbus_receipt_append(MbusAnswer *answer, int64 id, int which);
extern void mbus_receipt_end(void);

/* function.c */
extern void mbus_function_cache_begin(void);
extern const MbusFunction *mbus_function_open(const char *name,
											  bool missing_ok);
extern int	mbus_function_arg(const MbusFunction *function, const char *name);
extern void mbus_function_start(const MbusFunction *function,
								FmgrInfo *flinfo, FunctionCallInfo fcinfo,
								NullableDatum *args, Node *resultinfo);

/* rpc_param.c */
extern Datum mbus_param_datum(const char *name, Oid type,
							  const MbusSlice *value, bool *isnull);
extern const char *mbus_param_take(void);
extern const char *mbus_param_quote(const char *name, const MbusSlice *value);
extern Datum mbus_param_payload(Oid type, const char *bytes, int len);
extern Datum mbus_param_base64(const MbusSlice *value);

/* rpc_result.c */
extern void mbus_result_scalar(MbusAnswer *answer, Datum value, bool isnull,
							   Oid type);
extern void mbus_result_row(MbusAnswer *answer, TupleDesc desc,
							const Datum *values, const bool *nulls);
extern void mbus_answer_begin(MbusAnswer *answer, const MbusSlice *id);
extern void mbus_answer_end(MbusAnswer *answer);

/* rpc_error.c */
extern int	mbus_rpc(MbusRpcCode code);
extern void mbus_rpc_repair(char *text);
extern MbusRpcCode mbus_rpc_take(void);
extern MbusRpcCode mbus_rpc_code(const ErrorData *edata, MbusRpcCode given,
								 bool timed_out);
extern int	mbus_rpc_least(const MbusSlice *id);
extern void mbus_rpc_append_least(StringInfo out, const MbusSlice *id,
								  MbusRpcCode code);
extern void mbus_rpc_append_id(StringInfo out, const MbusSlice *id);
extern void mbus_rpc_append_error(StringInfo out, const MbusRequest *request,
								  const ErrorData *edata, MbusRpcCode code);

#endif							/* MBUS_RPC_H */
