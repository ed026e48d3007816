/* What tensor_core.cu asks of the hardware: asynchronous copies, matrix loads, matrix products.
 *
 * Each function is written twice, as PTX and as plain CUDA with the same result in the same
 * registers, so that all the indexing around it can be run where there are no such instructions.
 * Registers of 32 bits hold one TF32 number or two 16-bit numbers that follow each other along the
 * sum. With lane = 4 row + place, a lane of a warp holds of a product's step of 8 registers
 *     a[0], a[1]: left rows `row` and `row + 8` at register `place`; a[2], a[3]: at `place + 4`
 *     b[0], b[1]: right column `row` at registers `place` and `place + 4`
 *     d[0], d[1]: row `row`, columns 2 place and 2 place + 1; d[2], d[3]: row `row + 8`
 * (PTX ISA, "Matrix Fragments for mma.m16n8k16", "mma.m16n8k8"; "ldmatrix").
 */
#ifndef MINIDL_TENSOR_CORE_CUH
#define MINIDL_TENSOR_CORE_CUH

#if defined(__CUDACC__) && !defined(MINIDL_NO_PTX)
#define PTX 1
#else
#define PTX 0
#endif

/* float32 rounded to TF32: 10 bits behind the leading one, ties away from zero. */
__device__ inline float rounded(float value) {
    return isfinite(value) ? __uint_as_float((__float_as_uint(value) + 0x1000u) & 0xffffe000u)
                           : value;
}
template <typename T> __device__ inline T rounded(T value) { return value; }

/* 16 bytes from global to shared memory, or 16 zeros; `close_group` and `wait_groups` follow. */
__device__ inline void copy_async(unsigned *to, const void *from, bool exists) {
#if PTX
    const unsigned address = (unsigned)__cvta_generic_to_shared(to), size = exists ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(from),
                 "r"(size)
                 : "memory");
#else
    for (int i = 0; i < 4; ++i) to[i] = exists ? static_cast<const unsigned *>(from)[i] : 0;
#endif
}

/* Closes a group of this thread's copies. */
__device__ inline void close_group() {
#if PTX
    asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

/* Waits until at most `PENDING` of this thread's groups are under way. */
template <int PENDING> __device__ inline void wait_groups() {
#if PTX
    asm volatile("cp.async.wait_group %0;\n" ::"n"(PENDING) : "memory");
#endif
}

/* Four 8x4 matrices of registers from rows that lie `pitch` registers apart: r[m] is row lane / 4,
 * place lane % 4 of matrix m. With DOWN the second matrix is 8 rows below the first and the third 4
 * places to the right (a left factor); otherwise the other way round (two right factors). */
template <bool DOWN>
__device__ inline void load_rows(unsigned *r, const unsigned *rows, int pitch) {
    const int lane = threadIdx.x % 32;
#if PTX
    const int m = lane / 8, down = DOWN ? m % 2 : m / 2, right = DOWN ? m / 2 : m % 2;
    const unsigned *line = rows + (8 * down + lane % 8) * pitch + 4 * right;
    const unsigned address = (unsigned)__cvta_generic_to_shared(line);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
#else
    for (int m = 0; m < 4; ++m) {
        const int down = DOWN ? m % 2 : m / 2, right = DOWN ? m / 2 : m % 2;
        r[m] = rows[(8 * down + lane / 4) * pitch + 4 * right + lane % 4];
    }
#endif
}

/* The same registers where memory holds the transposed factor: a row is one step of the sum, and
 * `pitch` elements long. Pairs of 16-bit numbers come from two rows; TF32 needs no instruction. */
template <bool DOWN, typename T>
__device__ inline void load_columns(unsigned *r, const T *rows, int pitch) {
    const int lane = threadIdx.x % 32;
#if PTX
    const int m = lane / 8, along = DOWN ? m % 2 : m / 2, step = DOWN ? m / 2 : m % 2;
    const T *line = rows + (8 * step + lane % 8) * pitch + 8 * along;
    const unsigned address = (unsigned)__cvta_generic_to_shared(line);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
#else
    const unsigned short *bits = reinterpret_cast<const unsigned short *>(rows);
    for (int m = 0; m < 4; ++m) {
        const int along = DOWN ? m % 2 : m / 2, step = DOWN ? m / 2 : m % 2;
        const unsigned short *pair =
            bits + (8 * step + 2 * (lane % 4)) * pitch + 8 * along + lane / 4;
        r[m] = pair[0] | (unsigned)pair[pitch] << 16;
    }
#endif
}
template <bool DOWN>
__device__ inline void load_columns(unsigned *r, const float *rows, int pitch) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < 4; ++m) {
        const int along = DOWN ? m % 2 : m / 2, step = DOWN ? m / 2 : m % 2;
        r[m] = __float_as_uint(rows[(4 * step + lane % 4) * pitch + 8 * along + lane / 4]);
    }
}

#if PTX
#define MMA(SHAPE, TYPE)                                                                           \
    asm volatile("mma.sync.aligned." SHAPE ".row.col.f32." TYPE "." TYPE ".f32 "                   \
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"               \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                  \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
template <typename T> struct Product;
template <> struct Product<float> {
    static __device__ void add(float *d, const unsigned *a, const unsigned *b) {
        MMA("m16n8k8", "tf32");
    }
};
#ifdef __CUDA_FP16_H__
template <> struct Product<__half> {
    static __device__ void add(float *d, const unsigned *a, const unsigned *b) {
        MMA("m16n8k16", "f16");
    }
};
#endif
#ifdef __CUDA_BF16_H__
template <> struct Product<__nv_bfloat16> {
    static __device__ void add(float *d, const unsigned *a, const unsigned *b) {
        MMA("m16n8k16", "bf16");
    }
};
#endif
#else
typedef unsigned long long Pair;

/* The product of two registers with two others: of two numbers each, or of four. */
template <typename T> __device__ inline float dot(Pair a, Pair b) {
    const T *x = reinterpret_cast<const T *>(&a), *y = reinterpret_cast<const T *>(&b);
    float sum = 0;
    for (int i = 0; i < int(8 / sizeof(T)); ++i) sum += float(x[i]) * float(y[i]);
    return sum;
}
template <typename T> struct Product {
    static __device__ void add(float *d, const unsigned *a, const unsigned *b) {
        const int lane = threadIdx.x % 32, row = lane / 4, place = lane % 4;
        for (int j = 0; j < 4; ++j) {
            const Pair upper = __shfl_sync(~0u, a[0] | (Pair)a[2] << 32, 4 * row + j);
            const Pair lower = __shfl_sync(~0u, a[1] | (Pair)a[3] << 32, 4 * row + j);
            for (int i = 0; i < 2; ++i) {
                const int from = 4 * (2 * place + i) + j;
                const Pair right = __shfl_sync(~0u, b[0] | (Pair)b[1] << 32, from);
                d[i] += dot<T>(upper, right);
                d[2 + i] += dot<T>(lower, right);
            }
        }
    }
};
#endif

/* d += a b: 16 x 8 sums of 8 registers each. */
template <typename T>
__device__ inline void multiply_add(float *d, const unsigned *a, const unsigned *b) {
    Product<T>::add(d, a, b);
}

#endif
