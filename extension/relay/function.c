/*
 * function.c
 *		SQL functions that methods call, as the catalog describes them.
 *
 * The functions are called directly, without a planner in between.  A direct
 * call checks nothing: USAGE on the schema and EXECUTE on the function are
 * checked here, for the role that the frame runs as.
 *
 * What the catalog said is kept for the life of the backend.  An
 * invalidation of any function marks all of it stale; it is thrown away when
 * the next frame begins, never under one that runs.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/schema.h"
#include "relay/rpc.h"

static MemoryContext cache_context = NULL;
static List *cached_functions = NIL;	/* of MbusFunction */
static bool cache_stale = false;

static MbusFunction *function_load(const char *name);
static void load_arguments(MbusFunction *function, HeapTuple tuple);
static void load_defaults(MbusFunction *function, HeapTuple tuple);
static void proc_changed(Datum arg, int cacheid, uint32 hashvalue);

/*
 * mbus_function_cache_begin drops what the catalog said before it changed; to
 * be called where no frame runs.
 */
void
mbus_function_cache_begin(void)
{
	if (cache_context == NULL)
	{
		cache_context = AllocSetContextCreate(TopMemoryContext,
											  "message_bus functions",
											  ALLOCSET_DEFAULT_SIZES);
		CacheRegisterSyscacheCallback(PROCOID, proc_changed, (Datum) 0);
	}
	if (cache_stale)
	{
		cache_stale = false;
		cached_functions = NIL;
		MemoryContextReset(cache_context);
	}
}

/*
 * mbus_function_open returns a function that the current user may call; the
 * result lives until the frame ends.  If missing_ok, NULL where there is none
 * or it may not be called.
 */
const MbusFunction *
mbus_function_open(const char *name, bool missing_ok)
{
	MbusFunction *function = NULL;
	Oid			schema = mbus_schema();
	AclResult	allowed;
	ListCell   *cell;

	foreach(cell, cached_functions)
	{
		if (strcmp(((MbusFunction *) lfirst(cell))->name, name) == 0)
			function = lfirst(cell);
	}
	if (function == NULL)
		function = function_load(name);
	if (function == NULL)
	{
		if (missing_ok)
			return NULL;
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 mbus_rpc(MBUS_RPC_METHOD),
				 errmsg("function message_bus.%s does not exist", name)));
	}

	allowed = MbusSchemaAclCheck(schema, GetUserId());
	if (allowed != ACLCHECK_OK && !missing_ok)
		aclcheck_error(allowed, OBJECT_SCHEMA, get_namespace_name(schema));
	if (allowed == ACLCHECK_OK)
		allowed = MbusFunctionAclCheck(function->oid, GetUserId());
	if (allowed != ACLCHECK_OK && !missing_ok)
		aclcheck_error(allowed, OBJECT_FUNCTION, name);
	return allowed == ACLCHECK_OK ? function : NULL;
}

/*
 * function_load reads a function's entry in the catalog into the cache; NULL
 * if there is none.
 */
static MbusFunction *
function_load(const char *name)
{
	MemoryContext loading;
	MemoryContext caller;
	MbusFunction *function;
	CatCList   *candidates;
	HeapTuple	tuple = NULL;
	Form_pg_proc proc;
	Oid			schema = mbus_schema();
	int			i;

	candidates = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));
	for (i = 0; i < candidates->n_members; i++)
	{
		HeapTuple	candidate = &candidates->members[i]->tuple;

		if (((Form_pg_proc) GETSTRUCT(candidate))->pronamespace == schema)
			tuple = heap_copytuple(candidate);
	}
	ReleaseSysCacheList(candidates);
	if (tuple == NULL)
		return NULL;

	/* an error on the way must not leave half a function in the cache */
	loading = AllocSetContextCreate(CurrentMemoryContext,
									"message_bus function",
									ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(loading);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	function = palloc0(sizeof(MbusFunction));
	function->oid = proc->oid;
	function->name = pstrdup(name);
	function->result_type = proc->prorettype;
	function->returns_set = proc->proretset;
	function->strict = proc->proisstrict;

	load_arguments(function, tuple);
	load_defaults(function, tuple);

	MemoryContextSwitchTo(cache_context);
	cached_functions = lappend(cached_functions, function);
	MemoryContextSetParent(loading, cache_context);
	MemoryContextSwitchTo(caller);
	heap_freetuple(tuple);
	return function;
}

/* The names and types of the parameters that a call gives. */
static void
load_arguments(MbusFunction *function, HeapTuple tuple)
{
	Oid		   *types;
	char	  **names;
	char	   *modes;
	int			total;
	int			i;

	total = get_func_arg_info(tuple, &types, &names, &modes);
	function->arg_name = palloc(Max(total, 1) * sizeof(char *));
	function->arg_type = palloc(Max(total, 1) * sizeof(Oid));
	for (i = 0; i < total; i++)
	{
		if (modes && modes[i] != PROARGMODE_IN &&
			modes[i] != PROARGMODE_INOUT && modes[i] != PROARGMODE_VARIADIC)
			continue;
		function->arg_name[function->nargs] = names ? names[i] : "";
		function->arg_type[function->nargs++] = types[i];
	}
}

/* The defaults of the last parameters, as expressions. */
static void
load_defaults(MbusFunction *function, HeapTuple tuple)
{
	Datum		defaults;
	bool		isnull;
	List	   *list;
	ListCell   *cell;

	function->nrequired = function->nargs -
		((Form_pg_proc) GETSTRUCT(tuple))->pronargdefaults;
	defaults = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proargdefaults,
							   &isnull);
	if (isnull)
		return;
	list = castNode(List, stringToNode(TextDatumGetCString(defaults)));
	foreach(cell, list)
		function->defaults = lappend(function->defaults,
									 expression_planner(lfirst(cell)));
}

/*
 * mbus_function_arg returns a parameter's number, or -1.
 */
int
mbus_function_arg(const MbusFunction *function, const char *name)
{
	int			arg;

	for (arg = 0; arg < function->nargs; arg++)
	{
		if (strcmp(function->arg_name[arg], name) == 0)
			return arg;
	}
	return -1;
}

/*
 * mbus_function_start prepares a call.  For a strict function with a NULL
 * argument it sets isnull: then it is not to be called.
 */
void
mbus_function_start(const MbusFunction *function, FmgrInfo *flinfo,
					FunctionCallInfo fcinfo, NullableDatum *args,
					Node *resultinfo)
{
	int			arg;

	fmgr_info(function->oid, flinfo);
	InitFunctionCallInfoData(*fcinfo, flinfo, function->nargs,
							 DEFAULT_COLLATION_OID, NULL, resultinfo);
	for (arg = 0; arg < function->nargs; arg++)
	{
		fcinfo->args[arg] = args[arg];
		if (args[arg].isnull && function->strict)
			fcinfo->isnull = true;
	}
}

static void
proc_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	cache_stale = true;
}
