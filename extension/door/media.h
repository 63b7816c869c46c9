/*
 * media.h
 *		Media types that a browser shows, and names of files.
 */
#ifndef MBUS_MEDIA_H
#define MBUS_MEDIA_H

#include "postgres.h"

#define MBUS_FILE_NAME_MAX	255 /* bytes */

extern bool mbus_media_inline(const char *type);
extern void mbus_file_name_clean(char *name);

#endif							/* MBUS_MEDIA_H */
