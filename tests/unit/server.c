/*
 * server.c
 *		What pure files of the extension call of the server, for tests that
 *		run without one.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <strings.h>

extern int	pg_strncasecmp(const char *a, const char *b, size_t n);
extern int	pg_snprintf(char *to, size_t size, const char *format,...);

int
pg_strncasecmp(const char *a, const char *b, size_t n)
{
	return strncasecmp(a, b, n);
}

int
pg_snprintf(char *to, size_t size, const char *format,...)
{
	va_list		args;
	int			length;

	va_start(args, format);
	length = vsnprintf(to, size, format, args);
	va_end(args);
	return length;
}
