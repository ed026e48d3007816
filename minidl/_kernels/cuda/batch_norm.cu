// Batch normalisation: training, inference and gradient, with the addition of a residual and ReLU.
//
// Each channel is cut into slices, and a block takes a slice at a time. A first kernel leaves two
// sums for each slice; a second one adds these up for its channel, always in the same order, and
// normalises: two launches, the same bits in every run and on every GPU. The second goes through the
// slices backwards: what the first read last may still be in the second-level cache.
// Sums are of differences from the channel's first value, or mean, in real<T> for up to four
// elements and in double beyond: var has an error of a few units in the last place times
// 1 + ((mean - first value) / deviation)^2, instead of (mean / deviation)^2 for E[x^2] - E[x]^2.
// Moves 3 elements of memory per element in training (x twice, y), 2 where x's convolution has found
// the moments, and in inference; 5 backward (dy and x twice, dx); a residual adds 1, ReLU backward 2.

#include "common.cuh"
#include "reductions.cuh"
#include "vectors.cuh"

// x (images, channels, pixels); each channel has `slices` slices of `length` elements, a multiple
// of four; the last may be shorter.
struct Layout { long long images, channels, pixels, slices, length; };

struct Slice { long long channel, index, first, stop; };

__device__ inline Slice slice_of(const Layout& layout, long long task) {
    long long index = task % layout.slices, first = index * layout.length;
    long long stop = min(first + layout.length, layout.images * layout.pixels);
    return {task / layout.slices, index, first, stop};
}

// Calls visit(offset) for every V elements of the slice that this thread takes, without dividing
// for each.
template <int V, typename Visit>
__device__ inline void for_each(const Layout& layout, const Slice& slice, Visit visit) {
    long long at = slice.first + V * threadIdx.x, step = V * blockDim.x;
    long long image = at / layout.pixels, pixel = at % layout.pixels;
    long long image_step = step / layout.pixels, pixel_step = step % layout.pixels;
    for (; at < slice.stop; at += step) {
        visit((image * layout.channels + slice.channel) * layout.pixels + pixel);
        image += image_step;
        pixel += pixel_step;
        if (pixel >= layout.pixels) {
            pixel -= layout.pixels;
            ++image;
        }
    }
}

// Whether groups of four elements never straddle two planes and can be read at once.
template <typename... T> __device__ inline bool in_fours(const Layout& layout, const T*... arrays) {
    return layout.pixels % 4 == 0 && (is_aligned<4>(arrays) && ...);
}

// Writes a slice's two sums, (channels, slices, 2).
__device__ inline void write_sums(double* sums, long long task, double one, double two) {
    one = block_sum(one);
    two = block_sum(two);
    if (threadIdx.x == 0) {
        sums[2 * task] = one;
        sums[2 * task + 1] = two;
    }
}

struct Sums { double one, two; };

// The sums of a whole channel, known to every thread of the block.
__device__ inline Sums channel_sums(const double* sums, const Layout& layout, long long channel) {
    double one = 0, two = 0;
    for (long long i = threadIdx.x; i < layout.slices; i += blockDim.x) {
        one += sums[2 * (channel * layout.slices + i)];
        two += sums[2 * (channel * layout.slices + i) + 1];
    }
    return {block_sum(one), block_sum(two)};
}

template <int V, typename T>
__device__ void slice_moments(const T* x, const Layout& layout, long long task, double* sums) {
    Slice slice = slice_of(layout, task);
    real<T> origin = (real<T>)x[slice.channel * layout.pixels];
    double total = 0, squares = 0;
    for_each<V>(layout, slice, [&](long long offset) {
        real<T> sum = 0, square = 0;
        for (real<T> value : load<V>(x + offset).lane) {
            sum += value - origin;
            square += (value - origin) * (value - origin);
        }
        total += sum;
        squares += square;
    });
    write_sums(sums, task, total, squares);
}

// For each slice the sums of x - origin and its square; origin is the channel's first value.
template <typename T>
__global__ void batch_norm_moments(const T* x, double* sums, long long images, long long channels,
                                   long long pixels, long long slices, long long length) {
    Layout layout{images, channels, pixels, slices, length};
    bool fours = in_fours(layout, x);
    for (long long task = blockIdx.x; task < channels * slices; task += gridDim.x) {
        if (fours) {
            slice_moments<4>(x, layout, task, sums);
        } else {
            slice_moments<1>(x, layout, task, sums);
        }
    }
}

// How the values of one channel are transformed.
template <typename T> struct Affine { real<T> mean, scale, shift; };

template <typename T>
__device__ inline Affine<T> affine(const real<T>* weight, const real<T>* bias, long long channel,
                                   real<T> mean, real<T> var, double eps) {
    double scale = 1 / sqrt(var + eps);
    if (weight) scale *= weight[channel];
    return {mean, (real<T>)scale, bias ? bias[channel] : 0};
}

template <int V, typename T>
__device__ void normalise_slice(const T* x, const T* residual, T* y, const Layout& layout,
                                const Slice& slice, const Affine<T>& channel, bool relu) {
    for_each<V>(layout, slice, [&](long long offset) {
        Lanes<T, V> values = load<V>(x + offset), added{};
        if (residual) added = load<V>(residual + offset);
        for (int i = 0; i < V; ++i) {
            real<T> centred = values.lane[i] - channel.mean;
            real<T> value = centred * channel.scale + channel.shift + added.lane[i];
            values.lane[i] = relu && value < 0 ? 0 : value;  // NaN stays
        }
        store<V>(y + offset, values);
    });
}

template <typename T>
__device__ inline void normalise(const T* x, const T* residual, T* y, const Layout& layout,
                                 const Slice& slice, const Affine<T>& channel, bool relu) {
    if (in_fours(layout, x, residual, y)) {
        normalise_slice<4>(x, residual, y, layout, slice, channel, relu);
    } else {
        normalise_slice<1>(x, residual, y, layout, slice, channel, relu);
    }
}

// `sums` are those of batch_norm_moments; also writes the channels' mean and variance.
template <typename T>
__global__ void batch_norm_forward(const T* x, const T* residual, const real<T>* weight,
                                   const real<T>* bias, const double* sums, T* y, real<T>* mean,
                                   real<T>* var, long long images, long long channels,
                                   long long pixels, long long slices, long long length,
                                   double eps, bool relu) {
    Layout layout{images, channels, pixels, slices, length};
    double count = (double)images * pixels;
    for (long long task = channels * slices - 1 - blockIdx.x; task >= 0; task -= gridDim.x) {
        Slice slice = slice_of(layout, task);
        Sums total = channel_sums(sums, layout, slice.channel);
        double distance = total.one / count;  // from the first value to the mean
        double square = total.two / count - distance * distance;
        real<T> middle = (real<T>)((real<T>)x[slice.channel * pixels] + distance);
        real<T> spread = (real<T>)(square < 0 ? 0 : square);
        if (slice.index == 0 && threadIdx.x == 0) {
            mean[slice.channel] = middle;
            var[slice.channel] = spread;
        }
        Affine<T> channel = affine<T>(weight, bias, slice.channel, middle, spread, eps);
        normalise(x, residual, y, layout, slice, channel, relu);
    }
}

// moments (channels, slots, 2): the mean of `length` values, of fewer in the last slot, and the sum
// of squared differences from it.
template <typename T>
__global__ void batch_norm_merge(const real<T>* moments, real<T>* mean, real<T>* var,
                                 long long channels, long long slots, long long length,
                                 long long count) {
    for (long long channel = blockIdx.x; channel < channels; channel += gridDim.x) {
        const real<T>* slot = moments + 2 * channel * slots;
        double total = 0, squares = 0;
        for (long long i = threadIdx.x; i < slots; i += blockDim.x) {
            total += (double)min(length, count - i * length) * slot[2 * i];
        }
        double middle = block_sum(total) / count;
        for (long long i = threadIdx.x; i < slots; i += blockDim.x) {
            double distance = slot[2 * i] - middle;
            squares += slot[2 * i + 1] + min(length, count - i * length) * distance * distance;
        }
        squares = block_sum(squares);
        if (threadIdx.x == 0) {
            mean[channel] = (real<T>)middle;
            var[channel] = (real<T>)(squares / count);
        }
    }
}

template <typename T>
__global__ void batch_norm_inference(const T* x, const T* residual, const real<T>* weight,
                                     const real<T>* bias, const real<T>* mean, const real<T>* var,
                                     T* y, long long images, long long channels, long long pixels,
                                     long long slices, long long length, double eps, bool relu) {
    Layout layout{images, channels, pixels, slices, length};
    for (long long task = blockIdx.x; task < channels * slices; task += gridDim.x) {
        Slice slice = slice_of(layout, task);
        long long c = slice.channel;
        normalise(x, residual, y, layout, slice, affine<T>(weight, bias, c, mean[c], var[c], eps),
                  relu);
    }
}

// V gradients, 0 where the output y of ReLU (if there was one) is not positive.
template <int V, typename T>
__device__ inline Lanes<T, V> gradients_at(const T* dy, const T* y, long long offset) {
    Lanes<T, V> gradients = load<V>(dy + offset);
    if (y) {
        Lanes<T, V> outputs = load<V>(y + offset);
        for (int i = 0; i < V; ++i) {
            if (!(outputs.lane[i] > 0)) gradients.lane[i] = 0;
        }
    }
    return gradients;
}

template <int V, typename T>
__device__ void slice_gradient_sums(const T* dy, const T* x, const T* y, real<T> mean,
                                    const Layout& layout, long long task, double* sums) {
    double total = 0, products = 0;
    for_each<V>(layout, slice_of(layout, task), [&](long long offset) {
        Lanes<T, V> gradients = gradients_at<V>(dy, y, offset), values = load<V>(x + offset);
        real<T> sum = 0, product = 0;
        for (int i = 0; i < V; ++i) {
            sum += gradients.lane[i];
            product += gradients.lane[i] * (values.lane[i] - mean);
        }
        total += sum;
        products += product;
    });
    write_sums(sums, task, total, products);
}

// For each slice the sums of dy and dy * (x - mean).
template <typename T>
__global__ void batch_norm_gradient_sums(const T* dy, const T* x, const T* y, const real<T>* mean,
                                         double* sums, long long images, long long channels,
                                         long long pixels, long long slices, long long length) {
    Layout layout{images, channels, pixels, slices, length};
    bool fours = in_fours(layout, dy, x, y);
    for (long long task = blockIdx.x; task < channels * slices; task += gridDim.x) {
        real<T> middle = mean[task / slices];
        if (fours) {
            slice_gradient_sums<4>(dy, x, y, middle, layout, task, sums);
        } else {
            slice_gradient_sums<1>(dy, x, y, middle, layout, task, sums);
        }
    }
}

// dx = (dy - mean_dy - (x - mean) * slope) * scale.
template <typename T> struct Gradient { real<T> mean_dy, mean, slope, scale; };

template <int V, typename T>
__device__ void slice_gradient(const T* dy, const T* x, const T* y, T* dx, const Layout& layout,
                               const Slice& slice, const Gradient<T>& channel) {
    for_each<V>(layout, slice, [&](long long offset) {
        Lanes<T, V> gradients = gradients_at<V>(dy, y, offset), values = load<V>(x + offset);
        for (int i = 0; i < V; ++i) {
            real<T> sloped = (values.lane[i] - channel.mean) * channel.slope;
            real<T> value = gradients.lane[i] - channel.mean_dy - sloped;
            values.lane[i] = value * channel.scale;
        }
        store<V>(dx + offset, values);
    });
}

// `sums` are those of batch_norm_gradient_sums; also writes the channels' dweight and dbias.
template <typename T>
__global__ void batch_norm_backward(const T* dy, const T* x, const T* y, const real<T>* weight,
                                    const real<T>* mean, const real<T>* var, const double* sums,
                                    T* dx, real<T>* dweight, real<T>* dbias, long long images,
                                    long long channels, long long pixels, long long slices,
                                    long long length, double eps) {
    Layout layout{images, channels, pixels, slices, length};
    bool fours = in_fours(layout, dy, x, y, dx);
    double count = (double)images * pixels;
    for (long long task = channels * slices - 1 - blockIdx.x; task >= 0; task -= gridDim.x) {
        Slice slice = slice_of(layout, task);
        long long c = slice.channel;
        Sums total = channel_sums(sums, layout, c);
        double inverse_std = 1 / sqrt(var[c] + eps);
        if (slice.index == 0 && threadIdx.x == 0) {
            dbias[c] = (real<T>)total.one;
            dweight[c] = (real<T>)(total.two * inverse_std);
        }
        Gradient<T> channel{
            (real<T>)(total.one / count),
            mean[c],
            (real<T>)(total.two * inverse_std * inverse_std / count),
            (real<T>)(weight ? weight[c] * inverse_std : inverse_std),
        };
        if (fours) {
            slice_gradient<4>(dy, x, y, dx, layout, slice, channel);
        } else {
            slice_gradient<1>(dy, x, y, dx, layout, slice, channel);
        }
    }
}
