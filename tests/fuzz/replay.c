/*
 * replay.c
 *		Replays the files of the fuzz corpus, one TAP test each.
 *
 * A fault ends the program, which then has not kept its plan.
 */
#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE_MAX_FILE	((size_t) 1024 * 1024)

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int	replay_file(const char *directory, const char *name);

int
main(int argc, char **argv)
{
	struct dirent **files;
	int			count;
	int			number = 0;
	int			failures = 0;
	int			i;

	count = argc == 2 ? scandir(argv[1], &files, NULL, alphasort) : -1;
	if (count < 0)
	{
		(void) puts("Bail out! no corpus");
		return 1;
	}
	(void) printf("1..%d\n", count - 2);
	for (i = 0; i < count; i++)
	{
		if (files[i]->d_name[0] != '.')
		{
			int			failed = replay_file(argv[1], files[i]->d_name);

			(void) printf("%s %d - %s\n", failed ? "not ok" : "ok", ++number,
						  files[i]->d_name);
			failures += failed;
		}
		free(files[i]);
	}
	free(files);
	return failures == 0 ? 0 : 1;
}

static int
replay_file(const char *directory, const char *name)
{
	char		path[4096];
	static uint8_t data[SIZE_MAX_FILE];
	FILE	   *file;
	size_t		size;
	uint8_t    *copy;

	(void) snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "rb");
	if (file == NULL)
		return 1;
	size = fread(data, 1, SIZE_MAX_FILE, file);
	(void) fclose(file);
	/* A copy of just that size, so that reading past it is noticed. */
	copy = malloc(size > 0 ? size : 1);
	if (copy == NULL)
		return 1;
	memcpy(copy, data, size);
	(void) LLVMFuzzerTestOneInput(copy, size);
	free(copy);
	return 0;
}
