/*
 * message_plan.c
 *		Plans of queries over message_rows(), which is what the views messages
 *		and message_bus select from.
 *
 * The server would call the function to its end, put all it returns aside, and
 * then look at the query's conditions.  A hook of the planner puts a node of
 * our own in its place (message_exec.c), which returns row by row, fills in
 * only the columns that the query looks at, and is told what the query says of
 * ids, channel and transaction id, so that it reads by an index.  The
 * conditions stay where they are, too: what the node is told only saves
 * reading.
 *
 * Where a query wants a whole row of the function as one value, or the library
 * is not preloaded, the function is called as any other.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/sysattr.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_opfamily.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/restrictinfo.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"

#include "audit/message_scan.h"
#include "audit/message_view.h"
#include "base/compat.h"

#define ROW_COST	0.02
#define FULL_COST	1000.0		/* of looking everywhere */

/* A condition that the node is told. */
typedef struct Condition
{
	MbusConditionKind kind;
	Expr	   *value;
} Condition;

static void message_paths(PlannerInfo *root, RelOptInfo *rel, Index rti,
						  RangeTblEntry *rte);
static Oid	message_function(const RangeTblEntry *rte);
static bool whole_row_wanted(RelOptInfo *rel);
static void path_add(PlannerInfo *root, RelOptInfo *rel,
					 ParamPathInfo *param_info, List *pathkeys);
static List *id_pathkeys(PlannerInfo *root, RelOptInfo *rel, Index rti);
static void paths_add_joined(PlannerInfo *root, RelOptInfo *rel);
static bool is_joined(PlannerInfo *root, RelOptInfo *rel,
					  EquivalenceClass *ec, EquivalenceMember *em, void *arg);
static bool any_narrow(RelOptInfo *rel, List *clauses);
static Plan *message_plan(PlannerInfo *root, RelOptInfo *rel,
						  CustomPath *path, List *tlist, List *clauses,
						  List *custom_plans);
static List *columns_list(PlannerInfo *root, Index rti);
static bool condition_read(Index rti, Expr *clause, Condition *condition);
static bool operator_read(Index rti, Oid opno, Oid collation, Expr *left,
						  Expr *right, Condition *condition);
static bool array_read(Index rti, ScalarArrayOpExpr *clause,
					   Condition *condition);
static int	column_of(Index rti, Expr *expr);
static bool is_value(Index rti, Expr *expr);

static set_rel_pathlist_hook_type previous_hook = NULL;

static const CustomPathMethods path_methods = {
	.CustomName = "message_bus messages",
	.PlanCustomPath = message_plan,
};

static const CustomScanMethods scan_methods = {
	.CustomName = "message_bus messages",
	.CreateCustomScanState = mbus_message_exec_create,
};

/*
 * mbus_message_plan_init installs the hook; from _PG_init.
 */
void
mbus_message_plan_init(void)
{
	RegisterCustomScanMethods(&scan_methods);
	previous_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = message_paths;
}

/* The hook: it replaces the paths of a call of message_rows(). */
static void
message_paths(PlannerInfo *root, RelOptInfo *rel, Index rti,
			  RangeTblEntry *rte)
{
	ParamPathInfo *lateral;
	List	   *pathkeys;

	if (previous_hook)
		previous_hook(root, rel, rti, rte);
	if (!OidIsValid(message_function(rte)) || whole_row_wanted(rel))
		return;
	rel->pathlist = NIL;
	rel->partial_pathlist = NIL;
	/* columns may be asked for in expressions of what it is lateral to */
	lateral = get_baserel_parampathinfo(root, rel, rel->lateral_relids);
	path_add(root, rel, lateral, NIL);
	pathkeys = id_pathkeys(root, rel, rti);
	if (pathkeys != NIL)
		path_add(root, rel, lateral, pathkeys);
	paths_add_joined(root, rel);
}

/* The function, if a range table entry is nothing but its call. */
static Oid
message_function(const RangeTblEntry *rte)
{
	Node	   *call;
	Oid			function;
	char	   *name;

	if (rte->rtekind != RTE_FUNCTION || rte->funcordinality ||
		list_length(rte->functions) != 1)
		return InvalidOid;
	call = ((RangeTblFunction *) linitial(rte->functions))->funcexpr;
	if (call == NULL || !IsA(call, FuncExpr))
		return InvalidOid;
	function = ((FuncExpr *) call)->funcid;
	if (function < FirstNormalObjectId)
		return InvalidOid;
	name = get_func_name(function);
	if (name == NULL ||
		(strcmp(name, "message_rows") != 0 && !mbus_message_gone(name)) ||
		get_func_namespace(function) != get_namespace_oid("message_bus", true))
		return InvalidOid;
	return function;
}

/* Whether a query looks at a row as one value. */
static bool
whole_row_wanted(RelOptInfo *rel)
{
	Bitmapset  *columns = NULL;
	ListCell   *cell;

	pull_varattnos((Node *) rel->reltarget->exprs, rel->relid, &columns);
	foreach(cell, rel->baserestrictinfo)
		pull_varattnos((Node *) lfirst_node(RestrictInfo, cell)->clause,
					   rel->relid, &columns);
	foreach(cell, rel->joininfo)
		pull_varattnos((Node *) lfirst_node(RestrictInfo, cell)->clause,
					   rel->relid, &columns);
	return bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, columns);
}

/* ------------------------------------------------------------------------
 * Paths
 * ------------------------------------------------------------------------
 */

/*
 * path_add adds our path, for any values of what the query is joined with if
 * there is a param_info, and in the order of ids if there are pathkeys.
 */
static void
path_add(PlannerInfo *root, RelOptInfo *rel, ParamPathInfo *param_info,
		 List *pathkeys)
{
	CustomPath *path = makeNode(CustomPath);
	bool		narrow = any_narrow(rel, rel->baserestrictinfo) ||
	(param_info && any_narrow(rel, param_info->ppi_clauses));

	path->path.pathtype = T_CustomScan;
	path->path.parent = rel;
	path->path.pathtarget = rel->reltarget;
	path->path.param_info = param_info;
	path->path.rows = param_info ? param_info->ppi_rows : rel->rows;
	if (narrow)
		path->path.rows = Min(path->path.rows, 10);
	path->path.startup_cost = 0;
	path->path.total_cost = narrow ? 10 * ROW_COST :
		FULL_COST + rel->tuples * ROW_COST;
	path->path.total_cost += rel->reltarget->cost.startup +
		rel->reltarget->cost.per_tuple * path->path.rows;
	if (pathkeys != NIL)
		path->path.total_cost += rel->tuples * ROW_COST;
	path->path.pathkeys = pathkeys;
	path->flags = CUSTOMPATH_SUPPORT_PROJECTION;
	path->methods = &path_methods;
	add_path(rel, (Path *) path);
}

/* Adds a path for each way in which a query joins by the id. */
static void
paths_add_joined(PlannerInfo *root, RelOptInfo *rel)
{
	List	   *clauses;
	ListCell   *cell;

	if (!rel->has_eclass_joins)
		return;
	clauses = generate_implied_equalities_for_column(root, rel, is_joined,
													 NULL,
													 rel->lateral_referencers);
	foreach(cell, clauses)
	{
		RestrictInfo *clause = lfirst_node(RestrictInfo, cell);
		Relids		outer = bms_difference(clause->clause_relids,
										   rel->relids);

		if (bms_is_empty(outer) || !join_clause_is_movable_to(clause, rel))
			continue;
		outer = bms_union(outer, rel->lateral_relids);
		path_add(root, rel, get_baserel_parampathinfo(root, rel, outer), NIL);
	}
}

/* The order of ids, if it is of use to the query; else NIL. */
static List *
id_pathkeys(PlannerInfo *root, RelOptInfo *rel, Index rti)
{
	Var		   *id = makeVar(rti, MBUS_SEEN_ID, INT8OID, -1, InvalidOid, 0);

	return MbusExpressionPathkey(root, (Expr *) id, Int8LessOperator, rel->relids);
}

/* Whether it is the id that is joined. */
static bool
is_joined(PlannerInfo *root, RelOptInfo *rel, EquivalenceClass *ec,
		  EquivalenceMember *em, void *arg)
{
	return column_of(rel->relid, em->em_expr) == MBUS_SEEN_ID;
}

/* Whether one of the conditions picks few messages. */
static bool
any_narrow(RelOptInfo *rel, List *clauses)
{
	ListCell   *cell;

	foreach(cell, clauses)
	{
		Condition	condition;

		if (condition_read(rel->relid,
						   lfirst_node(RestrictInfo, cell)->clause,
						   &condition) &&
			(condition.kind == MBUS_WITH_ID ||
			 condition.kind == MBUS_WITH_ID_AMONG ||
			 condition.kind == MBUS_WITH_TRANSACTION_ID))
			return true;
	}
	return false;
}

/*
 * message_plan makes the node.  Its private list has the function's OID,
 * whether ids are to be in order, and the kinds of the conditions whose values
 * are its expressions.
 */
static Plan *
message_plan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path,
			 List *tlist, List *clauses, List *custom_plans)
{
	CustomScan *scan = makeNode(CustomScan);
	Oid			function = message_function(planner_rt_fetch(rel->relid, root));
	ListCell   *cell;

	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = extract_actual_clauses(clauses, false);
	scan->scan.scanrelid = 0;
	scan->flags = path->flags;
	scan->custom_scan_tlist = columns_list(root, rel->relid);
	scan->custom_private = list_make2(makeInteger((int) function),
									  makeInteger(path->path.pathkeys != NIL));
	foreach(cell, scan->scan.plan.qual)
	{
		Condition	condition;

		if (!condition_read(rel->relid, lfirst(cell), &condition))
			continue;
		scan->custom_exprs = lappend(scan->custom_exprs,
									 copyObject(condition.value));
		scan->custom_private = lappend(scan->custom_private,
									   makeInteger(condition.kind));
	}
	scan->methods = &scan_methods;
	return (Plan *) scan;
}

/* All columns of the function, as targets. */
static List *
columns_list(PlannerInfo *root, Index rti)
{
	RangeTblEntry *rte = planner_rt_fetch(rti, root);
	List	   *names = NIL;
	List	   *vars = NIL;
	List	   *columns = NIL;
	ListCell   *cell;

	MbusExpandRTE(rte, rti, &names, &vars);
	foreach(cell, vars)
		columns = lappend(columns,
						  makeTargetEntry(lfirst(cell),
										  list_length(columns) + 1, NULL,
										  false));
	return columns;
}

/* ------------------------------------------------------------------------
 * Conditions
 * ------------------------------------------------------------------------
 */

/* Whether a condition is one that the node can be told. */
static bool
condition_read(Index rti, Expr *clause, Condition *condition)
{
	OpExpr	   *op = (OpExpr *) clause;

	if (IsA(clause, ScalarArrayOpExpr))
		return array_read(rti, (ScalarArrayOpExpr *) clause, condition);
	if (!IsA(clause, OpExpr) || list_length(op->args) != 2)
		return false;
	if (operator_read(rti, op->opno, op->inputcollid, linitial(op->args),
					  lsecond(op->args), condition))
		return true;
	return OidIsValid(get_commutator(op->opno)) &&
		operator_read(rti, get_commutator(op->opno), op->inputcollid,
					  lsecond(op->args), linitial(op->args), condition);
}

/* The same for an operator with a column on its left. */
static bool
operator_read(Index rti, Oid opno, Oid collation, Expr *left, Expr *right,
			  Condition *condition)
{
	static const MbusConditionKind kinds[] = {
		[BTLessStrategyNumber] = MBUS_WITH_ID_BELOW,
		[BTLessEqualStrategyNumber] = MBUS_WITH_ID_UPTO,
		[BTEqualStrategyNumber] = MBUS_WITH_ID,
		[BTGreaterEqualStrategyNumber] = MBUS_WITH_ID_FROM,
		[BTGreaterStrategyNumber] = MBUS_WITH_ID_ABOVE,
	};
	int			strategy;

	if (!is_value(rti, right))
		return false;
	condition->value = right;
	/* a collation for which other texts are equal is left to the server */
	if (OidIsValid(collation) && !get_collation_isdeterministic(collation))
		return false;
	switch (column_of(rti, left))
	{
		case MBUS_SEEN_ID:
			strategy = get_op_opfamily_strategy(opno, INTEGER_BTREE_FAM_OID);
			if (strategy < 1 || strategy > BTMaxStrategyNumber)
				return false;
			condition->kind = kinds[strategy];
			return true;
		case MBUS_SEEN_CHANNEL:
			condition->kind = MBUS_WITH_CHANNEL;
			return opno == TextEqualOperator;
		case MBUS_SEEN_TRANSACTION_ID:
			condition->kind = MBUS_WITH_TRANSACTION_ID;
			return opno == TextEqualOperator;
	}
	return false;
}

/* The same for the id being one of an array of integers. */
static bool
array_read(Index rti, ScalarArrayOpExpr *clause, Condition *condition)
{
	Expr	   *array = lsecond(clause->args);

	if (!clause->useOr ||
		get_op_opfamily_strategy(clause->opno,
								 INTEGER_BTREE_FAM_OID) != BTEqualStrategyNumber ||
		column_of(rti, linitial(clause->args)) != MBUS_SEEN_ID ||
		!is_value(rti, array) ||
		(exprType((Node *) array) != INT8ARRAYOID &&
		 exprType((Node *) array) != INT4ARRAYOID))
		return false;
	condition->kind = MBUS_WITH_ID_AMONG;
	condition->value = array;
	return true;
}

/* Which column of ours an expression is; 0: none. */
static int
column_of(Index rti, Expr *expr)
{
	Var		   *var;

	while (IsA(expr, RelabelType))
		expr = ((RelabelType *) expr)->arg;
	if (!IsA(expr, Var))
		return 0;
	var = (Var *) expr;
	return var->varno == rti && var->varlevelsup == 0 ? var->varattno : 0;
}

/* Whether an expression has one value for all our rows. */
static bool
is_value(Index rti, Expr *expr)
{
	Bitmapset  *columns = NULL;

	pull_varattnos((Node *) expr, rti, &columns);
	return bms_is_empty(columns) && !contain_volatile_functions((Node *) expr) &&
		!contain_subplans((Node *) expr);
}
