/*
 * tap.h
 *		Test Anything Protocol for the unit tests.
 */
#ifndef TAP_H
#define TAP_H

#include <stdbool.h>

extern void tap_ok(bool passed, const char *name, const char *file, int line);

#define ok(condition, name) tap_ok((condition), (name), __FILE__, __LINE__)

/* Each file of tests has one of these; unit.c calls them. */
extern void access_tests(void);
extern void answer_tests(void);
extern void batch_tests(void);
extern void pool_tests(void);
extern void config_tests(void);
extern void door_tests(void);
extern void frame_tests(void);
extern void head_tests(void);
extern void identity_tests(void);
extern void log_tests(void);
extern void queue_tests(void);

#endif							/* TAP_H */
