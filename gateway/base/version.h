/*
 * version.h
 *		The gateway's version, as --version and /metrics tell it.
 */
#ifndef GW_VERSION_H
#define GW_VERSION_H

#define GW_VERSION	"1.0"

#endif							/* GW_VERSION_H */
