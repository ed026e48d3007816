/* Vectors of 16 bytes, which every target has: SSE2 (16 registers), NEON (32 registers). */
#define BYTES 16
#if defined(__aarch64__)
#define ROWS 8
#else
#define ROWS 4
#endif
#define EXPORT minidl_portable
#include "isa.h"
