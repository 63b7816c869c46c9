/*
 * cppcheck.h
 *	  What cppcheck must know of PostgreSQL, whose headers it does not read:
 *	  an error does not return.
 */
#define LOG 15
#define NOTICE 18
#define WARNING 19
#define ERROR 21
#define FATAL 22
#define PANIC 23
#define pg_attribute_noreturn() __attribute__((noreturn))
#define ereport(elevel, ...) do { if ((elevel) >= ERROR) abort(); } while (0)
#define elog(elevel, ...) do { if ((elevel) >= ERROR) abort(); } while (0)
