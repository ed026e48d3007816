// What all kernels share. Pasted into each file by `source` of modules.py.

// The type in which numbers of type T are computed, and in which scalars arrive.
template <typename T> struct RealOf { using type = float; };
template <> struct RealOf<double> { using type = double; };
template <typename T> using real = typename RealOf<T>::type;

// A loop that visits every item once, whatever the grid:
//     for (long long i = first_index(); i < n; i += index_step()) ...
__device__ inline long long first_index() {
    return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}
__device__ inline long long index_step() { return (long long)gridDim.x * blockDim.x; }
