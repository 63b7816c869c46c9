/*
 * message_view.h
 *		How queries over message_rows() are planned and run.
 */
#ifndef MBUS_MESSAGE_VIEW_H
#define MBUS_MESSAGE_VIEW_H

#include "postgres.h"

#include "nodes/extensible.h"
#include "nodes/pg_list.h"

/* What a condition says of the messages that are wanted. */
typedef enum MbusConditionKind
{
	MBUS_WITH_ID,
	MBUS_WITH_ID_ABOVE,
	MBUS_WITH_ID_FROM,
	MBUS_WITH_ID_BELOW,
	MBUS_WITH_ID_UPTO,
	MBUS_WITH_ID_AMONG,			/* an array */
	MBUS_WITH_CHANNEL,
	MBUS_WITH_TRANSACTION_ID
} MbusConditionKind;

extern void mbus_message_plan_init(void);

extern const CustomExecMethods mbus_message_exec;
extern Node *mbus_message_exec_create(CustomScan *plan);

extern bool mbus_message_gone(const char *name);

#endif							/* MBUS_MESSAGE_VIEW_H */
