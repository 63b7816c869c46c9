/*
 * key.c
 *		The secret that tickets and capabilities are made with.
 *
 * message_bus.body_key has one row, which CREATE EXTENSION makes and
 * rotate_body_keys() replaces: whatever was made with the one before is
 * refused from that commit on.  It is granted to nobody and in no dump; a copy
 * of the database's files has it, so the MAC also covers which bus and database
 * it is for.  A backend keeps the prepared HMAC in a cache of its own, see
 * base/catalog_cache.c; the table's triggers invalidate it.
 */
#include "postgres.h"

#include <openssl/crypto.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/uuid.h"

#include "action/action.h"
#include "base/argument.h"
#include "base/catalog_cache.h"
#include "base/columns.h"
#include "base/owner.h"
#include "base/random.h"
#include "base/schema.h"
#include "door/key.h"
#include "state/fault.h"

/* What a MAC is of, in front of what it says. */
typedef struct Scope
{
	pg_uuid_t	bus;			/* zeros: there is no such row */
	uint32		database;		/* in network order */
} Scope;

static int64 number = 0;		/* 0: there is no key */
static MbusHmac hmac;
static Scope scope;

static void key_load(Oid schema);
static void scope_load(Oid schema);

static MbusCatalogCache cache = {
	"body_key", "message_bus body key", key_load
};

PG_FUNCTION_INFO_V1(mbus_body_key_changed);

/*
 * mbus_body_key_init registers the cache's invalidation; from _PG_init.
 */
void
mbus_body_key_init(void)
{
	mbus_catalog_cache_init(&cache);
}

/*
 * rotate_body_keys() replaces the key and returns the new one's number.
 * Whoever else does waits for the end of this transaction; those who read do
 * not.
 */
MBUS_FUNCTION(rotate_body_keys)
{
	static const Oid types[] = {INT8OID, BYTEAOID};
	Oid			schema = mbus_schema();
	bytea	   *secret = palloc(VARHDRSZ + MBUS_SHA256_BYTES);
	Datum		values[2];
	MbusAction	action;

	mbus_write_check("message_bus.rotate_body_keys()");
	LockRelationOid(mbus_relation(schema, "body_key"), ShareRowExclusiveLock);
	SET_VARSIZE(secret, VARHDRSZ + MBUS_SHA256_BYTES);
	mbus_random(VARDATA(secret), MBUS_SHA256_BYTES);
	values[0] = Int64GetDatum(mbus_body_key_number() + 1);
	values[1] = PointerGetDatum(secret);
	mbus_run_as_owner(schema, "DELETE FROM message_bus.body_key", 0, NULL,
					  NULL, NULL);
	mbus_run_as_owner(schema,
					  "INSERT INTO message_bus.body_key (number, secret)"
					  " VALUES ($1, $2)",
					  lengthof(types), types, values, NULL);
	explicit_bzero(VARDATA(secret), MBUS_SHA256_BYTES);
	mbus_action_begin(&action, "keys", 0, "body keys rotated");
	mbus_action_number(&action, "number", DatumGetInt64(values[0]));
	mbus_action_end(&action, schema);
	PG_RETURN_INT64(DatumGetInt64(values[0]));
}

/*
 * mbus_body_key_changed (trigger) tells all backends that the key has changed,
 * at commit.
 */
Datum
mbus_body_key_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "mbus_body_key_changed: not called as a trigger");
	CacheInvalidateRelcacheByRelid(mbus_relation(mbus_schema(), "body_key"));
	return PointerGetDatum(NULL);
}

/*
 * mbus_body_key_number returns the key's number; 0 if there is none.
 */
int64
mbus_body_key_number(void)
{
	mbus_catalog_cache_look(&cache, mbus_schema());
	return number;
}

/*
 * mbus_body_mac writes the MAC of what is said, for what is called so, in hex
 * and with a zero behind it.  55000 if there is no key.
 */
void
mbus_body_mac(const char *label, const char *said, char *hex)
{
	StringInfoData input;
	uint8		mac[MBUS_SHA256_BYTES];

	if (mbus_body_key_number() == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no key for links to messages"),
				 errhint("An administrator calls message_bus.rotate_body_keys().")));
	initStringInfo(&input);
	appendStringInfo(&input, "%s\n", label);
	appendBinaryStringInfo(&input, (char *) &scope, sizeof(scope));
	appendStringInfoString(&input, said);
	mbus_hmac(&hmac, input.data, input.len, mac);
	hex[hex_encode((char *) mac, sizeof(mac), hex)] = '\0';
	pfree(input.data);
}

/*
 * mbus_body_mac_is tells whether a MAC is that of what is said, in a time that
 * tells nothing of it.  False if there is no key.
 */
bool
mbus_body_mac_is(const char *label, const char *said, const char *hex)
{
	char		own[MBUS_MAC_HEX + 1];

	if (strlen(hex) != MBUS_MAC_HEX || mbus_body_key_number() == 0)
		return false;
	mbus_body_mac(label, said, own);
	return CRYPTO_memcmp(own, hex, MBUS_MAC_HEX) == 0;
}

/* Reads the key. */
static void
key_load(Oid schema)
{
	Relation	rel = table_open(cache.relid, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0,
										  NULL);
	HeapTuple	tuple = systable_getnext(scan);

	number = 0;
	memset(&hmac, 0, sizeof(hmac));
	if (HeapTupleIsValid(tuple))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		isnull;
		bytea	   *secret =
		DatumGetByteaPP(heap_getattr(tuple, MBUS_BODY_KEY_SECRET, desc,
									 &isnull));

		if (VARSIZE_ANY_EXHDR(secret) == MBUS_SHA256_BYTES)
		{
			mbus_hmac_key(&hmac, (uint8 *) VARDATA_ANY(secret),
						  MBUS_SHA256_BYTES);
			number = DatumGetInt64(heap_getattr(tuple, MBUS_BODY_KEY_NUMBER,
												desc, &isnull));
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	scope_load(schema);
}

/* Reads which bus this is; that stays. */
static void
scope_load(Oid schema)
{
	Oid			relid = mbus_relation(schema, "server_state");
	Relation	rel = table_open(relid, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0,
										  NULL);
	HeapTuple	tuple = systable_getnext(scan);
	bool		isnull = true;
	Datum		bus = (Datum) 0;

	if (HeapTupleIsValid(tuple))
		bus = heap_getattr(tuple, get_attnum(relid, "bus"),
						   RelationGetDescr(rel), &isnull);
	memset(&scope, 0, sizeof(scope));
	if (!isnull)
		scope.bus = *DatumGetUUIDP(bus);
	scope.database = pg_hton32(MyDatabaseId);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}
