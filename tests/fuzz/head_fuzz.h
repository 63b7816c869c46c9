/*
 * head_fuzz.h
 *		The fuzzer's part for the HTTP door. See head_fuzz.c.
 */
#ifndef HEAD_FUZZ_H
#define HEAD_FUZZ_H

#include <stddef.h>
#include <stdint.h>

extern void fuzz_door(const uint8_t *data, size_t size);

#endif							/* HEAD_FUZZ_H */
