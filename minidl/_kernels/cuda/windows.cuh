// Where the windows of a pooling lie along one axis; the rules are those of geometry.py.
// `start` and `stop` bound what output `o` reads, `divisor` is its share in the mean's divisor,
// `place` is where input `i` lies in its window. `first` and `last` bound the outputs that read
// input `i`, for gradients that gather. Images have fewer than 2^31 rows and columns.

// Where element i of images (planes, rows, cols) lies. Divisions are what costs time here: two.
struct Position { long long plane; int row, col; };

__device__ inline Position position_of(long long i, long long rows, long long cols) {
    long long line = i / cols, plane = line / rows;
    return {plane, (int)(line - plane * rows), (int)(i - line * cols)};
}

struct Windows {
    int size, window, stride, padding, outputs;
    bool padding_counts;

    __device__ Windows(long long size, long long window, long long stride, long long padding,
                       long long outputs, bool padding_counts = false)
        : size((int)size), window((int)window), stride((int)stride), padding((int)padding),
          outputs((int)outputs), padding_counts(padding_counts) {}

    __device__ int start(int o) const { return max(o * stride - padding, 0); }
    __device__ int stop(int o) const { return min(o * stride - padding + window, size); }
    __device__ int divisor(int o) const {
        if (!padding_counts) return stop(o) - start(o);
        return min(window, size + padding - (o * stride - padding));
    }
    __device__ int place(int o, int i) const { return i - (o * stride - padding); }
    __device__ int first(int i) const {
        int beyond = i + padding - window;  // the last place at which a window ends before i
        return beyond < 0 ? 0 : beyond / stride + 1;
    }
    __device__ int last(int i) const { return min((i + padding) / stride, outputs - 1); }
};

// Windows that divide the inputs evenly among the outputs.
struct AdaptiveWindows {
    long long size, outputs;

    __device__ AdaptiveWindows(long long size, long long outputs) : size(size), outputs(outputs) {}

    __device__ int start(int o) const { return (int)(o * size / outputs); }
    __device__ int stop(int o) const { return (int)(((o + 1) * size + outputs - 1) / outputs); }
    __device__ int divisor(int o) const { return stop(o) - start(o); }
    __device__ int first(int i) const { return (int)(i * outputs / size); }
    __device__ int last(int i) const {
        return (int)(((i + 1) * outputs + size - 1) / size) - 1;
    }
};
