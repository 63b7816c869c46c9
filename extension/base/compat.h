/*
 * compat.h
 *		What differs between PostgreSQL 15, 16, 17 and 18, in one place.
 */
#ifndef MBUS_COMPAT_H
#define MBUS_COMPAT_H

#include "postgres.h"

#include "common/jsonapi.h"
#include "storage/proc.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "message_bus builds with PostgreSQL 15 to 18"
#endif

/* a function that does not return: its keyword came in 18 */
#if PG_VERSION_NUM < 180000
#define pg_noreturn	pg_attribute_noreturn()
#endif

/* index of a backend in ProcGlobal->allProcs */
#if PG_VERSION_NUM >= 170000
#define MbusMyProcno()	(MyProcNumber)
#else
#define MbusMyProcno()	(MyProc->pgprocno)
#endif

/* ExecInsertIndexTuples gained "onlySummarizing" in 16 */
#if PG_VERSION_NUM >= 160000
#define MbusInsertIndexTuples(rri, slot, estate, noDupErr, specConflict, arbiters) \
	ExecInsertIndexTuples(rri, slot, estate, false, noDupErr, specConflict, arbiters, false)
#else
#define MbusInsertIndexTuples(rri, slot, estate, noDupErr, specConflict, arbiters) \
	ExecInsertIndexTuples(rri, slot, estate, false, noDupErr, specConflict, arbiters)
#endif

/* index_beginscan gained its counters in 18 */
#if PG_VERSION_NUM >= 180000
#define MbusIndexBeginScan(rel, index, snapshot, nkeys) \
	index_beginscan(rel, index, snapshot, NULL, nkeys, 0)
#else
#define MbusIndexBeginScan(rel, index, snapshot, nkeys) \
	index_beginscan(rel, index, snapshot, nkeys, 0)
#endif

/* build_expression_pathkey lost "nullable_relids" in 16 */
#if PG_VERSION_NUM >= 160000
#define MbusExpressionPathkey(root, expr, less, rel) \
	build_expression_pathkey(root, expr, less, rel, false)
#else
#define MbusExpressionPathkey(root, expr, less, rel) \
	build_expression_pathkey(root, expr, NULL, less, rel, false)
#endif

/* expandRTE gained "returning_type" in 18 */
#if PG_VERSION_NUM >= 180000
#define MbusExpandRTE(rte, rti, names, vars) \
	expandRTE(rte, rti, 0, VAR_RETURNING_DEFAULT, -1, false, names, vars)
#else
#define MbusExpandRTE(rte, rti, names, vars) \
	expandRTE(rte, rti, 0, -1, false, names, vars)
#endif

/* blocks of a table's main file that is not temporary; names changed in 16
 * and 17 */
#if PG_VERSION_NUM >= 170000
#define MBUS_NO_BACKEND		INVALID_PROC_NUMBER
#else
#define MBUS_NO_BACKEND		InvalidBackendId
#endif
#if PG_VERSION_NUM >= 160000
#define MbusFileNode		RelFileLocator
#define MBUS_FILE_NODE(space, file) \
	{.spcOid = (space), .dbOid = MyDatabaseId, .relNumber = (file)}
#else
#define MbusFileNode		RelFileNode
#define MBUS_FILE_NODE(space, file) \
	{.spcNode = (space), .dbNode = MyDatabaseId, .relNode = (file)}
#endif

/* lz4 where the server has it */
#ifdef USE_LZ4
#define MBUS_TOAST_COMPRESSION	TOAST_LZ4_COMPRESSION
#else
#define MBUS_TOAST_COMPRESSION	TOAST_PGLZ_COMPRESSION
#endif

/* how a process keeps event triggers from firing on its own DDL */
#if PG_VERSION_NUM >= 170000
#define MBUS_NO_EVENT_TRIGGERS			"event_triggers"
#define MBUS_NO_EVENT_TRIGGERS_VALUE	"off"
#else
#define MBUS_NO_EVENT_TRIGGERS			"session_replication_role"
#define MBUS_NO_EVENT_TRIGGERS_VALUE	"replica"
#endif

/* the settings there are; their number is a result of its own from 16 on */
#if PG_VERSION_NUM >= 160000
#define MbusSettings(n)		get_guc_variables(n)
#else
#define MbusSettings(n)		(*(n) = GetNumConfigOptions(), get_guc_variables())
#endif

/* lexer over any bytes; the constructor changed in 17 */
#if PG_VERSION_NUM >= 170000
#define MbusMakeLexer(json, len, escapes) \
	makeJsonLexContextCstringLen(NULL, json, len, PG_UTF8, escapes)
#else
#define MbusMakeLexer(json, len, escapes) \
	makeJsonLexContextCstringLen((char *) (json), len, PG_UTF8, \
								 escapes)
#endif

/* actions of the JSON parser return an error code from 16 */
#if PG_VERSION_NUM >= 160000
#define MbusJsonResult		JsonParseErrorType
#define MBUS_JSON_CONTINUE	return JSON_SUCCESS
#else
#define MbusJsonResult		void
#define MBUS_JSON_CONTINUE	return
#endif

/* privilege checks took the catalog as a parameter in 16 */
#if PG_VERSION_NUM >= 160000
#define MbusFunctionAclCheck(function, role) \
	object_aclcheck(ProcedureRelationId, function, role, ACL_EXECUTE)
#define MbusSchemaAclCheck(schema, role) \
	object_aclcheck(NamespaceRelationId, schema, role, ACL_USAGE)
#define MbusOwnsTable(table, role) \
	object_ownercheck(RelationRelationId, table, role)
#define MbusMaySetRole(member, role)	member_can_set_role(member, role)
#else
#define MbusFunctionAclCheck(function, role) \
	pg_proc_aclcheck(function, role, ACL_EXECUTE)
#define MbusSchemaAclCheck(schema, role) \
	pg_namespace_aclcheck(schema, role, ACL_USAGE)
#define MbusOwnsTable(table, role)	pg_class_ownercheck(table, role)
#define MbusMaySetRole(member, role)	is_member_of_role(member, role)
#endif

/* base64 of bytes that are char in one version and uint8 in another */
#define MbusBase64Encode(src, len, dst, dstlen) \
	pg_b64_encode((const void *) (src), len, dst, dstlen)
#define MbusBase64Decode(src, len, dst, dstlen) \
	pg_b64_decode(src, len, (void *) (dst), dstlen)

#endif							/* MBUS_COMPAT_H */
