/*
 * pages.c
 *		The pages of the admin port, below /ui/.
 *
 * They are read into memory at the start and at SIGHUP, all or none, so that
 * no request makes the loop wait for a disk, and what is shown is always of
 * one reading. Of the directory MESSAGE_BUS_PAGES those files are taken that
 * are regular, in directories that are none but directories: no link is
 * followed, for it may lead to what is nobody's to see. Names that begin with
 * a dot, or have other characters than letters, digits, dot, hyphen and
 * underscore, are passed over. A path is compared with these names, not looked
 * up, so nothing else can be reached.
 */
#include "status/pages.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>

#define FILES_MAX		256
#define NAMES_MAX	4096
#define BYTES_MAX		((size_t) 8 * 1024 * 1024)
#define DEPTH_MAX		8
#define PATH_LONGEST	512

#define PREFIX			"/ui/"
#define INDEX			"index.html"

typedef struct Page
{
	char	   *path;
	GwBuffer	body;
} Page;

typedef struct Pages
{
	size_t		count;
	size_t		bytes;
	Page		pages[FILES_MAX];
} Pages;

static int	names_seen;			/* of directories that are being read */
static Pages *shown;			/* NULL: none */

static bool read_directory(Pages *pages, int directory, const char *path,
						   int depth, char *why, size_t size);
static int	is_name(const struct dirent *entry);
static bool read_entry(Pages *pages, int directory, const char *path,
					   const char *name, int depth, char *why, size_t size);
static bool read_file(Pages *pages, int file, const char *path, char *why,
					  size_t size);
static bool read_body(GwBuffer *body, int file, size_t most);
static const char *type_of(const char *path);
static void pages_free(Pages *pages);

static const struct
{
	const char *ending;
	const char *type;
}			types[] = {

	{".html", "text/html; charset=utf-8"},
	{".css", "text/css; charset=utf-8"},
	{".js", "text/javascript; charset=utf-8"},
	{".mjs", "text/javascript; charset=utf-8"},
	{".json", "application/json"}, {".map", "application/json"},
	{".txt", "text/plain; charset=utf-8"}, {".svg", "image/svg+xml"},
	{".png", "image/png"}, {".jpg", "image/jpeg"}, {".gif", "image/gif"},
	{".webp", "image/webp"}, {".ico", "image/x-icon"},
	{".woff2", "font/woff2"}, {".wasm", "application/wasm"}
};

#define TYPES (sizeof(types) / sizeof(types[0]))

/*
 * gw_pages_read reads the pages of a directory (empty: there are none) in
 * place of those that are shown. With a fault, which it tells, it returns
 * false, and these stay.
 */
bool
gw_pages_read(const char *directory, char *why, size_t size)
{
	Pages	   *pages = NULL;
	int			descriptor;
	bool		done = true;

	names_seen = 0;
	if (directory[0] != '\0')
	{
		pages = calloc(1, sizeof(Pages));
		descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		(void) snprintf(why, size, "%s: %s", directory,
						pages == NULL ? "out of memory" : strerror(errno));
		done = pages != NULL && descriptor >= 0 &&
			read_directory(pages, descriptor, PREFIX, 0, why, size);
		if (!done && pages == NULL && descriptor >= 0)
			(void) close(descriptor);
	}
	if (!done)
	{
		pages_free(pages);
		return false;
	}
	pages_free(shown);
	shown = pages;
	return true;
}

/*
 * gw_page_put appends the page of a path, that of a directory if it ends so,
 * and sets *type; false if there is none.
 */
bool
gw_page_put(const char *path, GwBuffer *body, const char **type)
{
	size_t		length = strlen(path);
	size_t		i;

	if (shown == NULL || length == 0)
		return false;
	for (i = 0; i < shown->count; i++)
	{
		const Page *page = &shown->pages[i];

		if (strcmp(page->path, path) != 0 &&
			(path[length - 1] != '/' ||
			 strncmp(page->path, path, length) != 0 ||
			 strcmp(page->path + length, INDEX) != 0))
			continue;
		gw_buffer_append(body, page->body.data, page->body.length);
		*type = type_of(page->path);
		return true;
	}
	return false;
}

/* read_directory reads what is in a directory, whose descriptor it closes. */
static bool
read_directory(Pages *pages, int directory, const char *path, int depth,
			   char *why, size_t size)
{
	struct dirent **names = NULL;
	int			count = depth < DEPTH_MAX ?
	scandirat(directory, ".", &names, is_name, alphasort) : -1;
	bool		done = count >= 0;
	int			i;

	if (done && names_seen > NAMES_MAX)
	{
		(void) snprintf(why, size, "there are over %d names", NAMES_MAX);
		done = false;
	}
	else if (!done)
		(void) snprintf(why, size, "%s: %s", path, depth < DEPTH_MAX ?
						strerror(errno) : "is too deep");
	for (i = 0; i < count; i++)
	{
		done = done && read_entry(pages, directory, path, names[i]->d_name,
								  depth, why, size);
		free(names[i]);
	}
	free(names);
	(void) close(directory);
	return done;
}

/* is_name tells which names are looked at, and counts all. */
static int
is_name(const struct dirent *entry)
{
	if (++names_seen > NAMES_MAX)
		return 0;
	return entry->d_name[0] != '.' &&
		entry->d_name[strspn(entry->d_name, "abcdefghijklmnopqrstuvwxyz"
							 "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")] == '\0';
}

/* read_entry reads a file or a directory; what is neither is passed over. */
static bool
read_entry(Pages *pages, int directory, const char *path, const char *name,
		   int depth, char *why, size_t size)
{
	char		whole[PATH_LONGEST];
	struct stat status;
	int			file = openat(directory, name, O_RDONLY | O_NOFOLLOW |
							  O_NONBLOCK | O_CLOEXEC);
	bool		done = true;

	/* It may be a link, or have gone since the directory was read. */
	if (file < 0 && (errno == ELOOP || errno == ENOENT || errno == ENXIO))
		return true;
	(void) snprintf(whole, sizeof(whole), "%s%s", path, name);
	if (file < 0 || fstat(file, &status) != 0)
	{
		(void) snprintf(why, size, "%s: %s", whole, strerror(errno));
		done = false;
	}
	else if (S_ISDIR(status.st_mode) && strlen(whole) < sizeof(whole) - 2)
	{
		(void) strcat(whole, "/");
		return read_directory(pages, file, whole, depth + 1, why, size);
	}
	else if (S_ISREG(status.st_mode))
		done = read_file(pages, file, whole, why, size);
	if (file >= 0)
		(void) close(file);
	return done;
}

/* read_file reads a file, within the bounds of all. */
static bool
read_file(Pages *pages, int file, const char *path, char *why, size_t size)
{
	Page	   *page = &pages->pages[pages->count];
	bool		done = false;

	if (pages->count == FILES_MAX)
		(void) snprintf(why, size, "there are over %d files", FILES_MAX);
	else if (!read_body(&page->body, file, BYTES_MAX - pages->bytes))
		(void) snprintf(why, size, "%s could not be read, or all have over"
						" %zu bytes", path, BYTES_MAX);
	else if ((page->path = strdup(path)) == NULL)
		(void) snprintf(why, size, "out of memory");
	else
		done = true;
	if (!done)
		return false;
	pages->bytes += page->body.length;
	pages->count++;
	return true;
}

/* read_body reads a file of so many bytes at most; false if it cannot. */
static bool
read_body(GwBuffer *body, int file, size_t most)
{
	unsigned char piece[16384];
	ssize_t		got = 0;

	while (body->length <= most &&
		   (got = read(file, piece, sizeof(piece))) > 0)
		gw_buffer_append(body, piece, (size_t) got);
	if (got == 0 && body->length <= most && !body->failed)
		return true;
	gw_buffer_free(body);
	return false;
}

/* type_of returns the media type that a name's ending stands for. */
static const char *
type_of(const char *path)
{
	const char *ending = strrchr(path, '.');
	size_t		i;

	for (i = 0; ending != NULL && i < TYPES; i++)
		if (strcmp(ending, types[i].ending) == 0)
			return types[i].type;
	return "application/octet-stream";
}

static void
pages_free(Pages *pages)
{
	size_t		i;

	for (i = 0; pages != NULL && i < pages->count; i++)
	{
		free(pages->pages[i].path);
		gw_buffer_free(&pages->pages[i].body);
	}
	free(pages);
}
