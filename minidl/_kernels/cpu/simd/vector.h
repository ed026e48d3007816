/* Vectors of any width, without intrinsics.
 *
 * GCC's vector extensions (Clang has them too) turn `a += b * c` on a vector type into the fused
 * multiply-adds of whatever instruction set the file is compiled for, so one source serves AVX-512,
 * AVX2, SSE2 and NEON. Loads and stores go through memcpy, which compiles to one unaligned move.
 */
#ifndef MINIDL_VECTOR_H
#define MINIDL_VECTOR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CAT_(a, b) a##_##b
#define CAT(a, b) CAT_(a, b)

/* The vector stays in a register: GCC would rather load it again for each of two uses. */
#if defined(__x86_64__)
#define LOADED_ONCE(vector) __asm__("" : "+v"(vector))
#else
#define LOADED_ONCE(vector)
#endif

/* SHUFFLE(I, a, b, ...): the elements of a and b side by side, picked by constant indices;
 * I is the integer vector type of the same width. */
#if defined(__clang__)
#define SHUFFLE(I, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(I, a, b, ...) __builtin_shuffle(a, b, (I){__VA_ARGS__})
#endif

/* The elements of two vectors at even places. */
#define EVEN_2(I, a, b) SHUFFLE(I, a, b, 0, 2)
#define EVEN_4(I, a, b) SHUFFLE(I, a, b, 0, 2, 4, 6)
#define EVEN_8(I, a, b) SHUFFLE(I, a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define EVEN_16(I, a, b) \
    SHUFFLE(I, a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)

/* And at odd places. */
#define ODD_2(I, a, b) SHUFFLE(I, a, b, 1, 3)
#define ODD_4(I, a, b) SHUFFLE(I, a, b, 1, 3, 5, 7)
#define ODD_8(I, a, b) SHUFFLE(I, a, b, 1, 3, 5, 7, 9, 11, 13, 15)
#define ODD_16(I, a, b) \
    SHUFFLE(I, a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)

/* All elements of a but the first, and the first of b. */
#define NEXT_2(I, a, b) SHUFFLE(I, a, b, 1, 2)
#define NEXT_4(I, a, b) SHUFFLE(I, a, b, 1, 2, 3, 4)
#define NEXT_8(I, a, b) SHUFFLE(I, a, b, 1, 2, 3, 4, 5, 6, 7, 8)
#define NEXT_16(I, a, b) SHUFFLE(I, a, b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)

/* Interleave the low halves, and the high halves, of two vectors of 2, 4, 8 or 16 elements. */
#define INTERLEAVE_LOW_2(I, a, b) SHUFFLE(I, a, b, 0, 2)
#define INTERLEAVE_HIGH_2(I, a, b) SHUFFLE(I, a, b, 1, 3)
#define INTERLEAVE_LOW_4(I, a, b) SHUFFLE(I, a, b, 0, 4, 1, 5)
#define INTERLEAVE_HIGH_4(I, a, b) SHUFFLE(I, a, b, 2, 6, 3, 7)
#define INTERLEAVE_LOW_8(I, a, b) SHUFFLE(I, a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define INTERLEAVE_HIGH_8(I, a, b) SHUFFLE(I, a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#define INTERLEAVE_LOW_16(I, a, b) \
    SHUFFLE(I, a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define INTERLEAVE_HIGH_16(I, a, b) \
    SHUFFLE(I, a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)

/* Both first halves, and both second halves, of two vectors. */
#define LOW_HALVES_2(I, a, b) SHUFFLE(I, a, b, 0, 2)
#define HIGH_HALVES_2(I, a, b) SHUFFLE(I, a, b, 1, 3)
#define LOW_HALVES_4(I, a, b) SHUFFLE(I, a, b, 0, 1, 4, 5)
#define HIGH_HALVES_4(I, a, b) SHUFFLE(I, a, b, 2, 3, 6, 7)
#define LOW_HALVES_8(I, a, b) SHUFFLE(I, a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define HIGH_HALVES_8(I, a, b) SHUFFLE(I, a, b, 4, 5, 6, 7, 12, 13, 14, 15)
#define LOW_HALVES_16(I, a, b) \
    SHUFFLE(I, a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#define HIGH_HALVES_16(I, a, b) \
    SHUFFLE(I, a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)

/* Write a vector of BYTES past the caches, to an address that is a multiple of BYTES. */
#if defined(__clang__)
#define STREAM(to, x) __builtin_nontemporal_store((STREAMED)(x), (STREAMED *)(to))
#elif defined(__x86_64__)
#define STREAM(to, x) CAT(STREAM, BYTES)((float *)(to), (STREAMED)(x))
#define STREAM_64 __builtin_ia32_movntps512
#define STREAM_32 __builtin_ia32_movntps256
#define STREAM_16 __builtin_ia32_movntps
#else
#define STREAM(to, x) (*(STREAMED *)(to) = (STREAMED)(x))
#endif

#endif
