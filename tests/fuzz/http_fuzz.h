/*
 * http_fuzz.h
 *		The fuzzer's part for the extension's room door. See http_fuzz.c.
 */
#ifndef HTTP_FUZZ_H
#define HTTP_FUZZ_H

#include <stddef.h>
#include <stdint.h>

extern void fuzz_http(const uint8_t *data, size_t size);

#endif							/* HTTP_FUZZ_H */
