/* One instruction set's kernels for float and double: include after defining BYTES (vector width),
 * ROWS (MR) and EXPORT (the prefix of the two tables' names). */
#include "kernels.h"
#include "vector.h"

#include <math.h>

typedef float STREAMED __attribute__((vector_size(BYTES), may_alias)); /* see STREAM */

#define MR ROWS
#define DOT (ROWS == 8 ? 5 : 3) /* DOT * DOT accumulators and the factors fit the registers */

#define T float
#define ROOT sqrtf
#define POWER powf
#define INT int32_t
#define SUFFIX F32
#if BYTES == 64
#define VL 16
#define VL_ROUNDS 4
#define LA 8
#define LA_ROUNDS 3
#elif BYTES == 32
#define VL 8
#define VL_ROUNDS 3
#define LA 4
#define LA_ROUNDS 2
#else
#define VL 4
#define VL_ROUNDS 2
#define LA 4
#define LA_ROUNDS 2
#endif
#include "micro.h"
const Kernels_F32 *CAT(EXPORT, f32)(void) { return &table_F32; }
#undef T
#undef ROOT
#undef POWER
#undef INT
#undef SUFFIX
#undef VL
#undef VL_ROUNDS
#undef LA
#undef LA_ROUNDS

#define T double
#define ROOT sqrt
#define POWER pow
#define INT int64_t
#define SUFFIX F64
#if BYTES == 64
#define VL 8
#define VL_ROUNDS 3
#define LA 8
#define LA_ROUNDS 3
#elif BYTES == 32
#define VL 4
#define VL_ROUNDS 2
#define LA 4
#define LA_ROUNDS 2
#else
#define VL 2
#define VL_ROUNDS 1
#define LA 2
#define LA_ROUNDS 1
#endif
#include "micro.h"
const Kernels_F64 *CAT(EXPORT, f64)(void) { return &table_F64; }
