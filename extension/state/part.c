/*
 * part.c
 *		Parts of shared memory that other files lay out.
 *
 * Each registers while the server preloads libraries; state.c asks for the
 * memory of all and has them made.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "state/part.h"

#define PARTS_MAX	8

static const MbusStatePart *parts[PARTS_MAX];
static int	nparts = 0;

/*
 * mbus_state_part adds a part to shared memory; from _PG_init, in the order
 * in which the parts are laid out.
 */
void
mbus_state_part(const MbusStatePart *part)
{
	if (nparts >= PARTS_MAX)
		elog(ERROR, "too many parts of shared memory");
	parts[nparts++] = part;
}

/*
 * mbus_parts_request asks the server for the memory; from the request hook.
 */
void
mbus_parts_request(void)
{
	for (int i = 0; i < nparts; i++)
		RequestAddinShmemSpace(parts[i]->size());
}

/*
 * mbus_parts_start makes the parts, or finds what another process has made,
 * in the order they were added; under AddinShmemInitLock.
 */
void
mbus_parts_start(int tranche)
{
	for (int i = 0; i < nparts; i++)
	{
		bool		found;
		void	   *memory = ShmemInitStruct(parts[i]->name,
											 parts[i]->size(), &found);

		parts[i]->startup(memory, found, tranche);
	}
}
