// The rectifier, max(x, 0), and its gradient.
//
// Each thread takes four neighbours in one load, then strides over the grid: the threads of a warp
// touch 512 consecutive bytes, and there is nothing but memory traffic to wait for.
// Moves 2 elements of memory per element forward (x, y), 3 backward (dy, y, dx).

#include "common.cuh"
#include "vectors.cuh"

template <typename T> __global__ void relu_forward(const T* x, T* y, long long size) {
    for (long long i = 4 * first_index(); i < size; i += 4 * index_step()) {
        Lanes<T, 4> values = load_four(x, i, size);
        for (real<T>& value : values.lane) value = value < 0 ? 0 : value;  // NaN stays
        store_four(y, i, size, values);
    }
}

template <typename T>
__global__ void relu_backward(const T* dy, const T* y, T* dx, long long size) {
    for (long long i = 4 * first_index(); i < size; i += 4 * index_step()) {
        Lanes<T, 4> gradients = load_four(dy, i, size), outputs = load_four(y, i, size);
        for (int k = 0; k < 4; ++k) {
            if (!(outputs.lane[k] > 0)) gradients.lane[k] = 0;
        }
        store_four(dx, i, size, gradients);
    }
}
