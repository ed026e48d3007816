// Sums over the threads of a warp or block, in an order that never changes; every thread gets the
// result. All threads have to take part, and blocks have whole warps.

template <typename R> __device__ inline R warp_sum(R value) {
    for (int distance = 16; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    }
    return value;
}

template <typename R> __device__ inline R block_sum(R value) {
    __shared__ R of_warp[32];
    value = warp_sum(value);
    __syncthreads();  // until the results of an earlier sum have been read
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    R total = 0;
    for (int warp = 0; warp < (int)blockDim.x / 32; ++warp) total += of_warp[warp];
    return total;
}

// Any of the values where one is NaN.
template <typename R> __device__ inline R block_max(R value) {
    __shared__ R of_warp[32];
    for (int distance = 16; distance > 0; distance /= 2) {
        R other = __shfl_xor_sync(0xffffffffu, value, distance);
        value = value > other ? value : other;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    R largest = of_warp[0];
    for (int warp = 1; warp < (int)blockDim.x / 32; ++warp) {
        largest = largest > of_warp[warp] ? largest : of_warp[warp];
    }
    return largest;
}
