/*
 * client.h
 *		WebSocket connections and their queues. See client.c.
 */
#ifndef GW_CLIENT_H
#define GW_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/buffer.h"
#include "base/config.h"
#include "net/socket.h"
#include "relay/piece.h"
#include "relay/reply.h"
#include "request/answer.h"
#include "request/batch.h"
#include "request/identity.h"

/* Close codes of RFC 6455, section 7.4, and its registry. */
#define GW_CLOSE_GOING_AWAY		1001
#define GW_CLOSE_PROTOCOL		1002
#define GW_CLOSE_ABNORMAL		1006	/* never sent: the socket was gone */
#define GW_CLOSE_NOT_UTF8		1007
#define GW_CLOSE_POLICY			1008
#define GW_CLOSE_TOO_LARGE		1009
#define GW_CLOSE_TRY_LATER		1013

typedef enum GwClientState
{
	GW_CLIENT_OPEN,				/* frames are taken */
	GW_CLIENT_CLOSING,			/* none are; what is queued is written */
	GW_CLIENT_STATES
} GwClientState;

typedef enum GwIntake
{
	GW_INTAKE_IDLE,				/* between two messages */
	GW_INTAKE_GATHER,			/* a message is being put together */
	GW_INTAKE_DISCARD			/* the rest of a refused one is dropped */
} GwIntake;

typedef struct GwClient
{
	LIST_ENTRY(GwClient) entry; /* in the list of its state */
	GwClientState state;
	GwIdentity *identity;
	GwSocket   *socket;
	GwIntake	intake;
	GwBuffer	incoming;		/* opcode, then the bytes of a message */
	size_t		characters;		/* bytes of it that are known to be UTF-8 */
	int64_t		received_ms;	/* when bytes last came in */
	int64_t		begun_ms;		/* when the message in `incoming` began */
	int64_t		heard_ms;		/* when it answered a ping, or was read */
	int64_t		pinged_ms;		/* when it was pinged, 0 if it was heard since */
	bool		want_ping;
	size_t		in_flight;		/* frames not yet answered */
	GwAppends	appends;		/* of large bodies */
	GwReplies	replies;		/* to write */
	bool		held;			/* replies pile up: gets no more for now */
	bool		paused;			/* is not read from */
	int64_t		paused_ms;		/* since when */
	bool		mute;			/* gets no replies any more */
	uint64_t	batch_mark;		/* the last batch that holds a frame of it */
	size_t		batch_replies;	/* bytes that those in it may bring */
	int			close_code;
	const char *close_reason;
	GwEnd		end;			/* who began to close, if close_code is set */
	char		peer_reason[124];	/* of the client's close frame */
	int64_t		opened_ms;
	int64_t		closing_ms;
	uint64_t	frames_in;
	uint64_t	frames_out;
} GwClient;

typedef LIST_HEAD(GwClientList, GwClient)
GwClientList;

typedef struct GwClientTotals
{
	size_t		count;			/* of clients */
} GwClientTotals;

/* What clients tell whoever relays. */
typedef struct GwClientEvents
{
	/* A whole message of a client, which is in flight from now on. */
	void		(*message) (GwRequest *request);
	/* The socket of a session has gone. */
	void		(*end) (GwIdentity *identity);
	/* A message was refused for its size, of which this much has come. */
	void		(*over_limit) (GwIdentity *identity, const GwBuffer *message);
	/* The database is to tell who this is; false if it cannot, and why. */
	bool		(*greet) (GwIdentity *identity, GwError *error);
} GwClientEvents;

extern GwClientList gw_clients[GW_CLIENT_STATES];
extern GwClientTotals gw_client_totals;

/* What sockets tell clients. */
extern const GwSocketEvents gw_client_events;

extern void gw_clients_init(const GwConfig *config,
							const GwClientEvents *events);
extern void gw_clients_drain(void);

extern void gw_client_flow(GwClient *client);
extern void gw_client_answered(GwClient *client);
extern bool gw_client_has_room(const GwClient *client, size_t reply);
extern void gw_client_queue(GwClient *client, bool binary,
							const unsigned char *bytes, size_t length,
							const GwBuffer *leases, bool bulk);
extern void gw_client_answer(GwClient *client, const GwBuffer *ids,
							 const GwError *error);
extern void gw_client_mute(GwClient *client, const char *reason);
extern void gw_client_end_linger(GwClient *client);
extern void gw_client_log(const char *level, const char *event,
						  const GwClient *client, const char *detail);
extern void gw_client_log_refused(GwClient *client, const char *why);
extern void gw_client_log_close(const GwClient *client);
extern void gw_disconnect(GwClient *client, int code, const char *reason);

#endif							/* GW_CLIENT_H */
