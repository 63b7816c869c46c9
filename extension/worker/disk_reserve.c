/*
 * disk_reserve.c
 *		Space that is kept for dropping what has expired on a full disk.
 *
 * To drop a table takes space: rows of the catalogs are updated, WAL is
 * written.  On a full disk what has expired could therefore not go, and the
 * disk would stay full.  So the worker keeps a file of zeros in the database's
 * directory, message_bus_reserve, of message_bus.disk_reserve:
 *
 *	whole --(a)--> given up --(b)--> whole
 *
 *	(a) a task that gives space back (closing, retiring) has failed for want of
 *	    it: the file is cut to nothing, and another pass follows at once
 *	(b) after each full pass the file is made again, if there is room
 *
 * Full.  The disk is full when there is no room for the reserve, or somebody
 * has failed for want of space and there is no room for a quarter more of it.
 * Then nothing is published (state/disk.c), no segment is opened, an old one
 * is closed without a successor, and the worker writes nothing that can wait:
 * the space that was given up is for dropping.  Claims and acks go on as far
 * as they find space.  A worker that starts looks before anything is published:
 * so a restart on a full disk does not use up what was given up before it.
 *
 * Who else uses the disk may take what was given up.  Then the worker goes on
 * trying, and takes the reserve back as soon as it can.  It is given up once in
 * RELEASE_EVERY_MS at most, so that an error that has nothing to do with it
 * does not have it come and go.
 *
 * The name has no dot, and the file whole blocks of zeros: programs that look
 * through the directory (pg_checksums, base backups) take it for new blocks.
 * Without a worker it may be removed by hand, where a server that stopped for
 * want of space is to be started.
 *
 * A file system that takes another error for an answer keeps none; the log
 * says so once, and everything is as without a reserve.  One that compresses
 * zeros, or copies what is overwritten, may not keep its promise.
 *
 * Locks: the state lock, in state/disk.c.  A crash leaves the file as it is.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "base/settings.h"
#include "state/clock.h"
#include "state/disk.h"
#include "worker/disk_reserve.h"
#include "worker/task.h"

#define RESERVE_FILE		"message_bus_reserve"
#define RELEASE_EVERY_MS	10000
#define INTERRUPTS_MAX		100

/* What came of an attempt to have space. */
typedef enum Room
{
	ROOM,
	ROOM_NONE,					/* the disk is full */
	ROOM_UNKNOWN				/* another error: the file system does not */
} Room;

static bool reserve_release(MbusWork *work);
static Room reserve_make(bool doubt);
static Room reserve_allocate(int fd, off_t size);
static void reserve_path(char *path);
static void room_set(MbusWork *work, Room room);

/*
 * mbus_disk_look keeps the reserve as it should be, and finds out whether the
 * disk is full; after a full pass, and before the worker is ready.
 */
void
mbus_disk_look(MbusWork *work)
{
	bool		told = mbus_disk_told(work->db);
	bool		doubt = told || work->disk.lacking || work->disk.full ||
	!work->disk.looked;
	bool		wanted = work->disk.wanted;

	work->disk.looked = true;
	work->disk.lacking = false;
	work->disk.wanted = false;
	if (mbus_disk_reserve == 0)
		mbus_disk_forget(work);
	else if (!wanted || !reserve_release(work))
		room_set(work, reserve_make(doubt));
}

/*
 * mbus_disk_forget removes the reserve: there is no bus, or it wants none.
 */
void
mbus_disk_forget(MbusWork *work)
{
	char		path[MAXPGPATH];

	if (work->disk.removed)
		return;
	reserve_path(path);
	if (unlink(path) != 0 && errno != ENOENT)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", path)));
	work->disk.removed = true;
	work->disk.full = false;
	mbus_disk_set(work->db, false);
}

/*
 * reserve_release does (a), if there is something to give up and that was not
 * done a moment ago; then what failed is tried again at once.
 */
static bool
reserve_release(MbusWork *work)
{
	TimestampTz now = mbus_now();
	char		path[MAXPGPATH];
	struct stat file;

	reserve_path(path);
	if (!TimestampDifferenceExceeds(work->disk.released_at, now,
									RELEASE_EVERY_MS) ||
		stat(path, &file) != 0 || file.st_size == 0 ||
		truncate(path, 0) != 0)
		return false;
	ereport(LOG,
			(errmsg("message_bus gives up its reserve in database %u, to drop what has expired on a full disk",
					MyDatabaseId)));
	work->disk.released_at = now;
	work->disk.full = true;
	mbus_disk_set(work->db, true);
	MemSet(work->backoff, 0, sizeof(work->backoff));
	work->pass.full_at = 0;
	SetLatch(MyLatch);
	return true;
}

/*
 * reserve_make does (b); with "doubt" there must be room for more than that.
 * ROOM_UNKNOWN leaves the reason in errno.
 */
static Room
reserve_make(bool doubt)
{
	off_t		size = (off_t) mbus_disk_reserve * 1024 * 1024;
	char		path[MAXPGPATH];
	struct stat file;
	Room		room = ROOM_UNKNOWN;
	int			error;
	int			fd;

	reserve_path(path);
	if (!doubt && stat(path, &file) == 0 && file.st_size == size)
		return ROOM;
	fd = BasicOpenFile(path, O_RDWR | O_CREAT | PG_BINARY);
	if (fd < 0)
		return errno == ENOSPC || errno == EDQUOT ? ROOM_NONE : ROOM_UNKNOWN;
	if (fstat(fd, &file) == 0)
		room = file.st_size >= size ? ROOM : reserve_allocate(fd, size);
	if (room == ROOM && doubt)
	{
		room = reserve_allocate(fd, size / 4 * 5);
		file.st_size = size;
	}
	error = errno;
	/* what was got beside the reserve, or of one that is not whole, goes back */
	if (ftruncate(fd, room == ROOM || file.st_size >= size ? size : 0) != 0 &&
		room == ROOM)
	{
		room = ROOM_UNKNOWN;
		error = errno;
	}
	(void) close(fd);
	errno = error;
	return room;
}

/*
 * Has the file system keep so much for the file, which has less.  Where there
 * is not so much it is not tried: others would find the disk full meanwhile.
 */
static Room
reserve_allocate(int fd, off_t size)
{
	struct statvfs space;
	struct stat file;
	int			error = EINTR;

	if (fstat(fd, &file) == 0 && fstatvfs(fd, &space) == 0 &&
		(uint64) space.f_bavail * space.f_frsize + file.st_size < size)
		return ROOM_NONE;
	/* a signal may come at any time: a latch is set by one */
	for (int i = 0; i < INTERRUPTS_MAX && error == EINTR; i++)
		error = posix_fallocate(fd, 0, size);
	if (error == 0)
		return ROOM;
	errno = error;
	return error == ENOSPC || error == EDQUOT ? ROOM_NONE : ROOM_UNKNOWN;
}

/* The file's name, below the server's data directory. */
static void
reserve_path(char *path)
{
	snprintf(path, MAXPGPATH, "%s/%s", DatabasePath, RESERVE_FILE);
}

/* Tells everybody, and the log where something has changed. */
static void
room_set(MbusWork *work, Room room)
{
	bool		full = room == ROOM_NONE;

	work->disk.removed = false;
	if (room == ROOM_UNKNOWN && !work->disk.said)
	{
		work->disk.said = true;
		ereport(LOG,
				(errmsg("message_bus keeps no reserve of space in database %u: %m",
						MyDatabaseId),
				 errhint("If its disk is ever full, what has expired may not go by itself. See \"message_bus.disk_reserve\".")));
	}
	if (full == work->disk.full &&
		full == (mbus_disk_full_since(work->db) != 0))
		return;
	work->disk.full = full;
	mbus_disk_set(work->db, full);
	if (full)
		ereport(LOG,
				(errmsg("message_bus takes no messages in database %u: its disk is full",
						MyDatabaseId),
				 errdetail("There is no room for its reserve of %d MB.",
						   mbus_disk_reserve),
				 errhint("Make room, or lower \"message_bus.disk_reserve\". What has expired is dropped meanwhile.")));
	else
		ereport(LOG,
				(errmsg("message_bus takes messages again in database %u: its disk is not full any more",
						MyDatabaseId)));
}
