/*
 * caller.h
 *		Who calls: a session of SQL, or a frame of a gateway's socket.
 */
#ifndef MBUS_CALLER_H
#define MBUS_CALLER_H

#include "postgres.h"

/*
 * Whether each message that is published repeats a transaction id, told to who
 * asks for it.  In the memory of who asks, as the list.
 */
typedef struct MbusReceipts
{
	MemoryContext context;
	int			n;
	int			room;
	bool	   *repeated;
} MbusReceipts;

/* Written by relay/relay.c, relay/guard.c, relay/rpc_call.c,
 * relay/receipt.c and identity/session.c; all others read it. */
typedef struct MbusCaller
{
	bool		in_relay;		/* a relay call runs; it records the errors of
								 * its frames itself */
	bool		raw_payload;	/* stored_message.payload carries the raw
								 * bytes of content that is not JSON, not NULL */
	MbusReceipts *receipts;		/* NULL: nobody asks */
	bool		reply_binary;	/* payloads go raw into the reply */
	int64		reply_limit;	/* bytes of a reply that one message must fit
								 * into; 0: none, or it need not */
	int64		reply_len;		/* of them, used */
	int64		session;		/* the gateway's number of the socket whose
								 * frame runs; 0: none */
	bool		no_wait;		/* for transactions that may go on for long:
								 * 55P03 */
	bool		verified;		/* its token was: "subject" is what it says */
	const char *subject;		/* borrowed; NULL: it names none */
	void		(*check) (void);	/* errors if its session may not go on */
} MbusCaller;

extern MbusCaller mbus_caller;

extern const char *mbus_subject(void);
extern void mbus_caller_check(void);
extern bool mbus_claims_given(void);
extern bool mbus_subject_unusable(void);
extern void mbus_receipt_add(bool repeated);
extern void mbus_subject_cut(char *subject);
extern bool mbus_subject_seems_cut(const char *subject);

#endif							/* MBUS_CALLER_H */
