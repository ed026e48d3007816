/* AVX-512: 32 registers of 64 bytes. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma,prfchw"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,fma,prfchw,prefer-vector-width=512")
#endif
#define BYTES 64
#define ROWS 8
#define EXPORT minidl_avx512
#include "isa.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
