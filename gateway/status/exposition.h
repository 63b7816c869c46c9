/*
 * exposition.h
 *		What is counted, as text for Prometheus. See exposition.c.
 */
#ifndef GW_EXPOSITION_H
#define GW_EXPOSITION_H

#include "base/buffer.h"

extern void gw_metrics_text(GwBuffer *out);

#endif							/* GW_EXPOSITION_H */
