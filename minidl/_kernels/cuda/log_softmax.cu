// log-softmax of each row, y = x - max - log(sum exp(x - max)), and its gradient
// dx = dy - exp(y) * sum(dy).
//
// A block takes a row at a time; its threads stride over the classes, so that a warp reads
// consecutive elements. Sums are taken in double precision, in a fixed order. A row is read two or
// three times, but comes from memory once: 1000 classes fit the first-level cache.
// Moves 2 elements of memory per element forward (x, y), 3 backward (dy, y, dx).

#include "common.cuh"
#include "reductions.cuh"

template <typename T>
__global__ void log_softmax_forward(const T* x, T* y, long long rows, long long classes) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        const T* scores = x + row * classes;
        real<T> largest = (real<T>)scores[0];
        for (long long i = threadIdx.x; i < classes; i += blockDim.x) {
            real<T> score = (real<T>)scores[i];
            largest = score > largest ? score : largest;
        }
        largest = block_max(largest);
        double total = 0;  // NaN if any score is, whatever `largest` is then
        for (long long i = threadIdx.x; i < classes; i += blockDim.x) {
            total += exp((real<T>)scores[i] - largest);
        }
        double log_total = log(block_sum(total));
        for (long long i = threadIdx.x; i < classes; i += blockDim.x) {
            y[row * classes + i] = (T)(real<T>)((real<T>)scores[i] - largest - log_total);
        }
    }
}

template <typename T>
__global__ void log_softmax_backward(const T* dy, const T* y, T* dx, long long rows,
                                     long long classes) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        double total = 0;
        for (long long i = threadIdx.x; i < classes; i += blockDim.x) {
            total += (real<T>)dy[row * classes + i];
        }
        total = block_sum(total);
        for (long long i = threadIdx.x; i < classes; i += blockDim.x) {
            long long at = row * classes + i;
            dx[at] = (T)(real<T>)((real<T>)dy[at] - exp((real<T>)y[at]) * total);
        }
    }
}
