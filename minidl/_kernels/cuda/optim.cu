// One step of an optimiser for many parameters in one launch; the formulas are those of
// reference/optimiser.py.
//
// A Batch holds the addresses of up to TENSORS parameters with their gradients and states, and is
// passed by value. Tensors are cut into chunks; a block takes a chunk at a time, and its threads
// four neighbours at a time. Networks have many small tensors and a few large ones: with a launch
// for each, starting the kernels would take longer than the work.
// Moves 3 elements of memory per parameter for plain SGD (grad, param twice), 5 for SGD with
// momentum and RMSprop, 7 for Adam and RMSprop with momentum.

#include "common.cuh"
#include "vectors.cuh"

constexpr int TENSORS = 80;  // as in launch_optim.py; a kernel takes at most 4 KB of arguments
constexpr int CHUNK = 16384;

template <typename T> struct Batch {
    T* array[4][TENSORS];            // gradients, parameters, and up to two states
    long long size[TENSORS];         // elements of each tensor
    long long first_chunk[TENSORS];  // the number of chunks of the tensors before it
    long long tensors, chunks;
};

// Calls rule(values) for each of the elements from `begin` to `end` of a tensor that this thread
// takes, V at a time. `values` are its gradient, the parameter and its states, N in all; all but the
// gradient are written back.
template <int N, int V, typename T, typename Rule>
__device__ inline void update_range(const Batch<T>& batch, int tensor, long long begin,
                                    long long end, Rule rule) {
    T* array[N];  // as the compiler cannot know that the batch stays as it is
    for (int n = 0; n < N; ++n) array[n] = batch.array[n][tensor];
    for (long long i = begin + V * threadIdx.x; i < end; i += V * blockDim.x) {
        Lanes<T, V> loaded[N];
        for (int n = 0; n < N; ++n) loaded[n] = load<V>(array[n] + i);
        for (int lane = 0; lane < V; ++lane) {
            real<T> values[N];
            for (int n = 0; n < N; ++n) values[n] = loaded[n].lane[lane];
            rule(values);
            for (int n = 1; n < N; ++n) loaded[n].lane[lane] = values[n];
        }
        for (int n = 1; n < N; ++n) store<V>(array[n] + i, loaded[n]);
    }
}

template <int N, typename T, typename Rule>
__device__ inline void update(const Batch<T>& batch, Rule rule) {
    for (long long chunk = blockIdx.x; chunk < batch.chunks; chunk += gridDim.x) {
        int tensor = 0;
        while (tensor + 1 < batch.tensors && chunk >= batch.first_chunk[tensor + 1]) ++tensor;
        bool fours = true;
        for (int n = 0; n < N; ++n) fours = fours && is_aligned<4>(batch.array[n][tensor]);
        long long begin = (chunk - batch.first_chunk[tensor]) * CHUNK;
        long long end = min(begin + CHUNK, batch.size[tensor]);
        long long middle = fours ? end - (end - begin) % 4 : begin;
        update_range<N, 4>(batch, tensor, begin, middle, rule);
        update_range<N, 1>(batch, tensor, middle, end, rule);
    }
}

template <typename T>
__global__ void sgd(const __grid_constant__ Batch<T> batch, real<T> lr, real<T> weight_decay) {
    update<2>(batch, [=](real<T>* values) {
        real<T> grad = values[0], &param = values[1];
        param -= lr * (grad + weight_decay * param);
    });
}

// gain is 1 - dampening.
template <typename T>
__global__ void sgd_momentum(const __grid_constant__ Batch<T> batch, real<T> lr, real<T> momentum,
                             real<T> weight_decay, real<T> gain, bool nesterov) {
    update<3>(batch, [=](real<T>* values) {
        real<T> grad = values[0], &param = values[1], &velocity = values[2];
        real<T> step = grad + weight_decay * param;
        velocity = momentum * velocity + gain * step;
        param -= lr * (nesterov ? step + momentum * velocity : velocity);
    });
}

// gain is 1 - beta, correction 1 / sqrt(1 - beta2^t), step_size lr / (1 - beta1^t); l2 times the
// parameter is added to the gradient, decay multiplies the parameter (AdamW).
template <typename T>
__global__ void adam(const __grid_constant__ Batch<T> batch, real<T> step_size, real<T> beta1,
                     real<T> gain1, real<T> beta2, real<T> gain2, real<T> eps, real<T> correction,
                     real<T> l2, real<T> decay) {
    update<4>(batch, [=](real<T>* values) {
        real<T> &param = values[1], &average = values[2], &square = values[3];
        real<T> grad = values[0] + l2 * param;
        average = beta1 * average + gain1 * grad;
        square = beta2 * square + gain2 * grad * grad;
        param = decay * param - step_size * average / (sqrt(square) * correction + eps);
    });
}

// gain is 1 - alpha.
template <typename T>
__global__ void rmsprop(const __grid_constant__ Batch<T> batch, real<T> lr, real<T> alpha,
                        real<T> gain, real<T> eps, real<T> weight_decay) {
    update<3>(batch, [=](real<T>* values) {
        real<T> &param = values[1], &square = values[2];
        real<T> grad = values[0] + weight_decay * param;
        square = alpha * square + gain * grad * grad;
        param -= lr * (grad / (sqrt(square) + eps));
    });
}

template <typename T>
__global__ void rmsprop_momentum(const __grid_constant__ Batch<T> batch, real<T> lr, real<T> alpha,
                                 real<T> gain, real<T> eps, real<T> weight_decay,
                                 real<T> momentum) {
    update<4>(batch, [=](real<T>* values) {
        real<T> &param = values[1], &square = values[2], &velocity = values[3];
        real<T> grad = values[0] + weight_decay * param;
        square = alpha * square + gain * grad * grad;
        velocity = momentum * velocity + grad / (sqrt(square) + eps);
        param -= lr * velocity;
    });
}
