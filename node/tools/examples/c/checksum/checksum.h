/* Two checksums over bytes, written as lower-case hexadecimal with a final zero. */
#ifndef CHECKSUM_H
#define CHECKSUM_H

#include <stddef.h>

#define CRC32_TEXT 9
#define SHA256_TEXT 65

/* CRC-32 as zip, gzip and PNG have it (RFC 1952). */
void crc32_hex(const char *bytes, size_t length, char text[CRC32_TEXT]);

/* SHA-256 (FIPS 180-4). */
void sha256_hex(const char *bytes, size_t length, char text[SHA256_TEXT]);

#endif
