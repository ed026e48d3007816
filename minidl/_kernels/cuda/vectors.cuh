// Several neighbouring elements at once. A GPU reaches its memory's bandwidth with wide accesses:
// four floats are one load of 16 bytes. Whatever the type in memory, lanes hold real<T>.

template <typename T, int V> struct Lanes { real<T> lane[V]; };

// V elements as they lie in memory.
template <typename T, int V>
struct alignas(V * sizeof(T) < 16 ? V * sizeof(T) : 16) Packed { T lane[V]; };

template <int V, typename T> __device__ inline bool is_aligned(const T* x) {
    return (unsigned long long)x % alignof(Packed<T, V>) == 0;
}

// The V elements from x on, which must be aligned.
template <int V, typename T> __device__ inline Lanes<T, V> load(const T* x) {
    Packed<T, V> packed = *reinterpret_cast<const Packed<T, V>*>(x);
    Lanes<T, V> values;
    for (int i = 0; i < V; ++i) values.lane[i] = (real<T>)packed.lane[i];
    return values;
}

template <int V, typename T> __device__ inline void store(T* x, const Lanes<T, V>& values) {
    Packed<T, V> packed;
    for (int i = 0; i < V; ++i) packed.lane[i] = (T)values.lane[i];
    *reinterpret_cast<Packed<T, V>*>(x) = packed;
}

// x[first] to x[first + 3] of `count` elements, with 0 for those that do not exist.
template <typename T>
__device__ inline Lanes<T, 4> load_four(const T* x, long long first, long long count) {
    if (first + 4 <= count && is_aligned<4>(x + first)) return load<4>(x + first);
    Lanes<T, 4> values;
    for (int i = 0; i < 4; ++i) values.lane[i] = first + i < count ? (real<T>)x[first + i] : 0;
    return values;
}

template <typename T>
__device__ inline void store_four(T* x, long long first, long long count,
                                  const Lanes<T, 4>& values) {
    if (first + 4 <= count && is_aligned<4>(x + first)) {
        store<4>(x + first, values);
    } else {
        for (int i = 0; i < 4 && first + i < count; ++i) x[first + i] = (T)values.lane[i];
    }
}
