/*
 * settings.h
 *		The extension's settings (GUCs), defined in settings.c.
 */
#ifndef MBUS_SETTINGS_H
#define MBUS_SETTINGS_H

#include "postgres.h"

#include "nodes/pg_list.h"

/* read at server start or reload */
extern char *mbus_databases;
extern uint64 mbus_databases_version;	/* rises when it is set */
extern int	mbus_clock_jump;	/* s that the clock may jump */
extern int	mbus_worker_interval;	/* ms between two passes of a worker */
extern int	mbus_segment_max_rows;	/* ids in one segment */
extern int	mbus_segment_max_mb;	/* payload megabytes in one segment */
extern int	mbus_segment_interval;	/* seconds between two of a series */

/* read at server start */
extern int	mbus_node;			/* in ids and leases */
extern int	mbus_max_subscriptions; /* that claims are made from */
extern int	mbus_max_leases;	/* messages outstanding, in all databases */
extern int	mbus_max_channel_metrics;	/* channels counted by themselves */
extern int	mbus_database_share;	/* percent of the pools; reload */
extern int	mbus_subscription_share;	/* percent of that; reload */
extern int	mbus_channel_share; /* likewise */
extern int	mbus_holder_share;	/* likewise */
extern int	mbus_session_share; /* percent of a holder's; reload */
extern int	mbus_leases_per_epoch;	/* reload; less than all only for tests */
extern int	mbus_facts_per_chunk;	/* likewise */
extern int	mbus_acked_idle;	/* seconds; reload */
extern int	mbus_disk_reserve;	/* MB of each database; reload */

/* of large bodies; reload */
extern int	mbus_own_body_min;	/* MB; larger ones have a store of their own */
extern int	mbus_max_own_stores;
extern int	mbus_store_max_mb;	/* in one that is shared */
extern int	mbus_upload_ttl;	/* s after its last part */
extern int	mbus_max_body;		/* MB; of an upload, as the following */
extern int	mbus_max_uploads;	/* open, of a role and subject */
extern int	mbus_max_upload_mb; /* that they have reserved */
extern int	mbus_upload_slice;	/* ms of hashing in a commit */
extern char *mbus_body_tablespace;	/* "": the database's */

extern int	mbus_scrub_rate;	/* kB of payload a second; 0: none; reload */
extern int	mbus_scrub_interval;	/* seconds; reload */

/* of the log; reload */
extern bool mbus_log_enabled;
extern int	mbus_log_interval;	/* ms between two checkpoints */
extern int	mbus_log_keep;		/* s after a segment was dropped */
extern int	mbus_log_action_ttl;	/* s */
extern char *mbus_log_origin;	/* begins its name; "": message_bus */

/* of a session */
extern bool mbus_enabled;
extern char *mbus_default_channel;
extern char *mbus_default_ttl;
extern char *mbus_default_compression;
extern int	mbus_inline_max;	/* bytes */
extern int	mbus_max_payload;	/* bytes */
extern int	mbus_max_channels_per_role;
extern int	mbus_max_subscriptions_per_role;
extern int	mbus_client_max_payload;	/* bytes, 0: no limit of its own */
extern bool mbus_verify_on_read;
extern char *mbus_body_url_prefix;	/* in front of links to messages */
extern int	mbus_body_url_max;	/* s that they may be good for */

/* what a gateway says of itself */
extern char *mbus_relay_role;
extern char *mbus_token_issuer; /* that a token must name; "" : any */
extern char *mbus_token_audience;
extern int	mbus_token_skew;	/* seconds */
extern bool mbus_token_must_expire;
extern int	mbus_token_max_age; /* seconds; 0: any */
extern char *mbus_anonymous_role;
extern int	mbus_frame_timeout; /* ms */
extern int	mbus_frame_max;		/* bytes */
extern int	mbus_client_frame_max;	/* bytes, where a client asks for no other */
extern int	mbus_claim_wait_max;	/* ms, -1: no limit of its own */

extern void mbus_settings_init(void);
extern List *mbus_listed_databases(void);
extern bool mbus_database_listed(const char *name);

#endif							/* MBUS_SETTINGS_H */
