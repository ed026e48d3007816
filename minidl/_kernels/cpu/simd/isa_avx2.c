/* AVX2 with fused multiply-add: 16 registers of 32 bytes. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define BYTES 32
#define ROWS 4
#define EXPORT minidl_avx2
#include "isa.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
