/*
 * publication.h
 *		What the bus writes is written under any publication.
 */
#ifndef MBUS_PUBLICATION_H
#define MBUS_PUBLICATION_H

extern void mbus_publication_init(void);

#endif							/* MBUS_PUBLICATION_H */
