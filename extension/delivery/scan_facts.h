/*
 * scan_facts.h
 *		What has become of messages that a scan may take.
 */
#ifndef MBUS_SCAN_FACTS_H
#define MBUS_SCAN_FACTS_H

#include "postgres.h"

#include "delivery/scanning.h"
#include "facts/facts.h"

extern int	mbus_scan_facts(MbusScan *scan, MbusFacts *facts, int n);

#endif							/* MBUS_SCAN_FACTS_H */
