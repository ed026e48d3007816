// Kernels that try what the emulator promises.
#include "common.cuh"

template <typename T>
__global__ void scale(const T* x, T* y, long long n, real<T> factor, bool negate) {
    for (long long i = first_index(); i < n; i += index_step()) {
        y[i] = (T)(negate ? -factor * (real<T>)x[i] : factor * (real<T>)x[i]);
    }
}

// Reverses each block's 64 items through shared memory; without BARRIER it is wrong.
template <typename T, bool BARRIER>
__global__ void reverse(const T* x, T* y) {
    __shared__ T tile[64];
    tile[threadIdx.x] = x[first_index()];
    if (BARRIER) __syncthreads();
    y[first_index()] = tile[63 - threadIdx.x];
}

// Sums rows of n numbers, one block for each, with shuffles and dynamic shared memory.
template <typename T>
__global__ void row_sums(const T* x, T* sums, long long n) {
    extern __shared__ __align__(16) unsigned char memory[];
    T* partial = reinterpret_cast<T*>(memory);  // one for each warp
    T sum = 0;
    for (long long i = threadIdx.x; i < n; i += blockDim.x) sum += x[blockIdx.x * n + i];
    for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_down_sync(0xffffffffu, sum, lanes);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < blockDim.x / 32; ++warp) sum += partial[warp];
        sums[blockIdx.x] = sum;
    }
}

template <typename T>
__global__ void beyond_the_end(const T* x, T* y, long long n) { y[threadIdx.x] = x[n]; }

template <typename T>
__global__ void reads_unwritten_shared_memory(T* y) {
    __shared__ T tile[32];
    y[threadIdx.x] = tile[threadIdx.x];
}

template <typename T>
__global__ void half_a_block_waits(T* y) {
    if (threadIdx.x < 32) __syncthreads();
    else __syncthreads();
    y[threadIdx.x] = 0;
}

template <typename T>
__global__ void ballots(const T* x, unsigned* votes) {
    votes[threadIdx.x] = __ballot_sync(0xffffffffu, x[threadIdx.x] > 0);
}

template <typename T>
__global__ void by_vectors(const float4* x, float4* y, T factor) {
    float4 v = __ldg(&x[threadIdx.x]);
    y[threadIdx.x] = make_float4(factor * v.x, factor * v.y, factor * v.z, factor * v.w);
}
