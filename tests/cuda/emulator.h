// CUDA for g++: what the .cu files use, so that the very same text runs on the CPU.
//
// The threads of a block are fibers, one stack each, which take turns at __syncthreads() and at warp
// functions; a warp runs until its threads wait at a barrier, blocks run one after the other. The
// order of threads, warps and blocks is chosen at launch: ascending, descending or shuffled anew at
// every turn. A missing barrier shows as a result that depends on the order. Shared memory is filled
// with NaN (integers: -1) before each block.
// Refused with a message: barriers that part of a block waits at, masks that leave out a lane of the
// warp, too much shared memory, atomics on floating-point numbers (they do not compile).
// Not here: inline PTX, textures, cooperative groups, asynchronous copies.
#pragma once
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <tuple>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__ static
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define __restrict__ __restrict
#define __syncthreads() emulator::barrier(__LINE__)
#define __syncwarp(...) emulator::warp_turn(emulator::FULL, 0)

struct dim3 { unsigned x = 1, y = 1, z = 1; };
typedef dim3 uint3;
static dim3 threadIdx, blockIdx, blockDim, gridDim;
static const int warpSize = 32;

namespace emulator {

const unsigned FULL = 0xffffffffu;
const size_t STACK = 256 * 1024, DEFAULT_SHARED = 48 * 1024;
enum State { READY, AT_BARRIER, AT_WARP, DONE };

// How to change from one stack to another. The library's longjmp would, under the sanitizer, clear
// all of a stack's shadow and ask the kernel for its bounds, millions of times.
#if defined(__SANITIZE_ADDRESS__)
typedef void* Place[5];
#define SET_PLACE __builtin_setjmp
#define GO_TO(place) __builtin_longjmp(place, 1)
#define CHANGES_STACK __attribute__((no_sanitize_address, noinline))
#else
typedef jmp_buf Place;
#define SET_PLACE _setjmp
#define GO_TO(place) _longjmp(place, 1)
#define CHANGES_STACK
#endif

struct Fiber {
    ucontext_t start;
    Place place;
    char* stack = nullptr;
    bool begun = false;
    State state = DONE;
    int line = 0;
    dim3 index;
    unsigned turns = 0;  // warp functions so far
    void* fake_stack = nullptr;
};
struct Warp { unsigned alive = 0, arrived = 0; uint64_t slots[2][32]; };

static std::vector<Fiber*> fibers;
static std::vector<Warp> warps;
static Fiber* current;
static unsigned current_number;
static Place scheduler;
static const void* scheduler_stack;
static size_t scheduler_stack_size;
static void* scheduler_fake_stack;
static std::string error;
static void (*run_thread)(void*);
static void* run_argument;
static std::map<const void*, void*> shared_variables;
static void* dynamic_memory;
static size_t shared_used, shared_limit;

static void enter_fiber() {  // on the fiber's stack, after a switch
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(current->fake_stack, &scheduler_stack, &scheduler_stack_size);
#endif
    threadIdx = current->index;
}

CHANGES_STACK static void leave_fiber() {
    if (SET_PLACE(current->place) == 0) {
#if defined(__SANITIZE_ADDRESS__)
        __sanitizer_start_switch_fiber(&current->fake_stack, scheduler_stack, scheduler_stack_size);
#endif
        GO_TO(scheduler);
    }
    enter_fiber();
}

static void release_warp(unsigned number) {
    Warp& warp = warps[number];
    if (warp.arrived != warp.alive) return;
    warp.arrived = 0;
    for (unsigned t = number * 32; t < number * 32 + 32 && t < fibers.size(); ++t)
        if (fibers[t]->state == AT_WARP) fibers[t]->state = READY;
}

static void fiber_main() {
    enter_fiber();
    for (;;) {  // one turn for each block
        run_thread(run_argument);
        current->state = DONE;
        unsigned number = current_number / 32;
        warps[number].alive &= ~(1u << current_number % 32);
        release_warp(number);
        leave_fiber();
    }
}

CHANGES_STACK static void resume(unsigned number) {
    current = fibers[number];
    current_number = number;
    if (SET_PLACE(scheduler) == 0) {
#if defined(__SANITIZE_ADDRESS__)
        __sanitizer_start_switch_fiber(&scheduler_fake_stack, current->stack, STACK);
#endif
        if (current->begun) GO_TO(current->place);
        current->begun = true;
        setcontext(&current->start);
    }
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

static void fail(const std::string& message) {
    if (error.empty()) error = message;
    current->state = AT_BARRIER;  // never to run again: the launch ends with the message
    for (;;) leave_fiber();
}

static void barrier(int line) {
    current->state = AT_BARRIER;
    current->line = line;
    leave_fiber();
}

// Wait for all lanes of the warp; returns the index of the slots they have written to.
static unsigned warp_turn(unsigned mask, uint64_t value) {
    unsigned number = current_number / 32, parity = current->turns++ & 1;
    Warp& warp = warps[number];
    if ((mask & warp.alive) != warp.alive) fail("a warp function whose mask leaves out a lane");
    warp.slots[parity][current_number % 32] = value;
    warp.arrived |= 1u << current_number % 32;
    current->state = AT_WARP;
    release_warp(number);
    leave_fiber();
    return parity;
}

template <typename T> T exchange(unsigned mask, T value, unsigned lane) {
    static_assert(sizeof(T) <= 8, "a shuffle of more than 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    Warp& warp = warps[current_number / 32];
    unsigned parity = warp_turn(mask, bits);
    memcpy(&value, &warp.slots[parity][lane % 32], sizeof(T));
    return value;
}

static void* poisoned(size_t bytes) {
    shared_used += bytes;
    if (shared_used > shared_limit) fail("too much shared memory: " + std::to_string(shared_used));
    void* memory = aligned_alloc(16, (bytes + 15) / 16 * 16);
    memset(memory, 0xff, bytes);
    return memory;
}

template <typename T> T& shared(const void* key) {
    void*& memory = shared_variables[key];
    if (!memory) memory = poisoned(sizeof(T));
    return *static_cast<T*>(memory);
}

static void free_shared() {
    for (auto& entry : shared_variables) free(entry.second);
    shared_variables.clear();
    free(dynamic_memory);
    dynamic_memory = nullptr;
    shared_used = 0;
}

struct Order {  // 0 ascending, 1 descending, 2 shuffled
    int kind;
    uint64_t seed = 1;
    void arrange(std::vector<unsigned>& items) {
        for (unsigned i = 0; i < items.size(); ++i) items[i] = kind == 1 ? items.size() - 1 - i : i;
        for (unsigned i = items.size(); kind == 2 && i > 1; --i) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            std::swap(items[i - 1], items[(seed >> 33) % i]);
        }
    }
};

static void run_block(unsigned count, size_t dynamic_bytes, Order& order) {
    while (fibers.size() < count) {
        Fiber* fiber = new Fiber;
        fiber->stack = static_cast<char*>(malloc(STACK));
        getcontext(&fiber->start);
        fiber->start.uc_stack.ss_sp = fiber->stack;
        fiber->start.uc_stack.ss_size = STACK;
        makecontext(&fiber->start, fiber_main, 0);
        fibers.push_back(fiber);
    }
    warps.assign((count + 31) / 32, Warp());
    for (unsigned t = 0; t < count; ++t) {
        fibers[t]->state = READY;
        fibers[t]->turns = 0;
        fibers[t]->index = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
        warps[t / 32].alive |= 1u << t % 32;
    }
    // More than the default has to be asked for, which only dynamic memory can be.
    shared_limit = DEFAULT_SHARED + (dynamic_bytes > DEFAULT_SHARED ? dynamic_bytes : 0);
    current = fibers[0];
    if (dynamic_bytes) dynamic_memory = poisoned(dynamic_bytes);
    std::vector<unsigned> numbers(warps.size()), lanes(32);
    for (bool waiting = true; waiting;) {
        order.arrange(numbers);
        for (unsigned number : numbers) {
            for (bool ran = true; ran;) {  // as far ahead of the other warps as it can get
                ran = false;
                order.arrange(lanes);
                for (unsigned lane : lanes) {
                    unsigned t = number * 32 + lane;
                    if (t >= count || fibers[t]->state != READY) continue;
                    resume(t);
                    ran = true;
                    if (!error.empty()) return;
                }
            }
        }
        waiting = false;
        int line = 0;
        for (unsigned t = 0; t < count; ++t) {
            Fiber& fiber = *fibers[t];
            if (fiber.state == AT_WARP) error = "part of a warp waits at a warp function";
            if (fiber.state != AT_BARRIER) continue;
            if (waiting && line != fiber.line)
                error = "threads of a block wait at different barriers, lines " +
                        std::to_string(line) + " and " + std::to_string(fiber.line);
            line = fiber.line;
            waiting = true;
            fiber.state = READY;
        }
        if (!error.empty()) return;
    }
}

static const char* launch(void (*thread)(void*), void* argument, const unsigned* grid,
                          const unsigned* block, size_t dynamic_bytes, int order_kind) {
    run_thread = thread;
    run_argument = argument;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    error.clear();
    Order order{order_kind};
    std::vector<unsigned> blocks(grid[0] * grid[1] * grid[2]);
    order.arrange(blocks);
    for (unsigned b : blocks) {
        blockIdx = {b % grid[0], b / grid[0] % grid[1], b / grid[0] / grid[1]};
        run_block(block[0] * block[1] * block[2], dynamic_bytes, order);
        free_shared();
        if (!error.empty()) {
            fibers.clear();  // they are in the middle of the kernel
            return error.c_str();
        }
    }
    return nullptr;
}

// What the launcher is told of a kernel's parameters: "f4" a float, "*f4" a pointer to floats, ...
template <typename T> struct Code { static std::string text() { return "V" + std::to_string(sizeof(T)); } };
template <typename T> std::string code() { return Code<std::remove_cv_t<T>>::text(); }
template <typename T> struct Code<T*> { static std::string text() { return "*" + code<T>(); } };
#define EMULATOR_CODE(TYPE, TEXT) template <> struct Code<TYPE> { static std::string text() { return TEXT; } };
EMULATOR_CODE(float, "f4") EMULATOR_CODE(double, "f8") EMULATOR_CODE(bool, "b1") EMULATOR_CODE(void, "")
EMULATOR_CODE(signed char, "i1") EMULATOR_CODE(unsigned char, "u1") EMULATOR_CODE(char, "i1")
EMULATOR_CODE(short, "i2") EMULATOR_CODE(unsigned short, "u2") EMULATOR_CODE(int, "i4")
EMULATOR_CODE(unsigned, "u4") EMULATOR_CODE(long, "i8") EMULATOR_CODE(unsigned long, "u8")
EMULATOR_CODE(long long, "i8") EMULATOR_CODE(unsigned long long, "u8")

template <typename F> struct Kernel;
template <typename... A> struct Kernel<void (*)(A...)> {
    static std::string parameters() { std::string s; ((s += code<A>() + " "), ...); return s; }
    template <void (*F)(A...), size_t... I> static void call(void* args, std::index_sequence<I...>) {
        F(*static_cast<std::remove_reference_t<A>*>(static_cast<void**>(args)[I])...);
    }
    template <void (*F)(A...)> static void thread(void* args) { call<F>(args, std::index_sequence_for<A...>()); }
};
}  // namespace emulator

#define EMULATOR_KERNEL(NUMBER, ...)                                                              \
    extern "C" const char* parameters_##NUMBER() {                                                \
        static std::string text = emulator::Kernel<decltype(&__VA_ARGS__)>::parameters();         \
        return text.c_str();                                                                      \
    }                                                                                             \
    extern "C" const char* launch_##NUMBER(void** args, const unsigned* grid,                     \
                                           const unsigned* block, size_t shared, int order) {     \
        return emulator::launch(emulator::Kernel<decltype(&__VA_ARGS__)>::thread<&__VA_ARGS__>,   \
                                args, grid, block, shared, order);                                \
    }

// ---- warps ----
static unsigned emulator_lane() { return emulator::current_number % 32; }
// A source lane outside of the segment of `width` lanes: the thread gets its own value, as on a GPU.
template <typename T> T __shfl_sync(unsigned mask, T v, int lane, int width = 32) {
    return emulator::exchange(mask, v, (emulator_lane() & ~(width - 1)) + (lane & (width - 1)));
}
template <typename T> T __shfl_xor_sync(unsigned mask, T v, int lanes, int width = 32) {
    unsigned me = emulator_lane(), other = me ^ lanes;
    return emulator::exchange(mask, v, (other & ~(width - 1)) > (me & ~(width - 1)) ? me : other);
}
template <typename T> T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
    unsigned me = emulator_lane();
    return emulator::exchange(mask, v, (me & (width - 1)) + by < unsigned(width) ? me + by : me);
}
template <typename T> T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
    unsigned me = emulator_lane();
    return emulator::exchange(mask, v, (me & (width - 1)) >= by ? me - by : me);
}
static unsigned __activemask() { return emulator::warps[emulator::current_number / 32].alive; }
static unsigned __ballot_sync(unsigned mask, int predicate) {
    emulator::Warp& warp = emulator::warps[emulator::current_number / 32];
    unsigned alive = warp.alive, parity = emulator::warp_turn(mask, predicate != 0), votes = 0;
    for (unsigned lane = 0; lane < 32; ++lane)
        if (alive >> lane & 1) votes |= unsigned(warp.slots[parity][lane]) << lane;
    return votes;
}
static int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
static int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, !p) == 0; }

// ---- memory ----
template <typename T> T __ldg(const T* p) { return *p; }
template <typename T> T __ldcs(const T* p) { return *p; }
template <typename T> void __stcs(T* p, T v) { *p = v; }
template <typename T, typename V> T atomicAdd(T* p, V v) {
    static_assert(std::is_integral<T>::value, "no atomics on floating-point numbers: their sum depends on the order");
    T old = *p; *p += v; return old;
}
template <typename T, typename V> T atomicMax(T* p, V v) {
    static_assert(std::is_integral<T>::value, "atomics are for integers only");
    T old = *p; if (v > old) *p = v; return old;
}
static void __threadfence() {}

// ---- vectors ----
#define EMULATOR_VECTORS(T, NAME)                                                    \
    struct alignas(2 * sizeof(T)) NAME##2 { T x, y; };                               \
    struct alignas(sizeof(T) < 8 ? 4 * sizeof(T) : 16) NAME##4 { T x, y, z, w; };    \
    static NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }                       \
    static NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }       \
    template <> struct emulator::Code<NAME##2> : emulator::Code<T> {};               \
    template <> struct emulator::Code<NAME##4> : emulator::Code<T> {};
EMULATOR_VECTORS(float, float) EMULATOR_VECTORS(double, double) EMULATOR_VECTORS(int, int)
EMULATOR_VECTORS(unsigned, uint) EMULATOR_VECTORS(long long, longlong)

// ---- numbers ----
using std::isfinite; using std::isinf; using std::isnan; using std::signbit;
template <typename A, typename B> std::common_type_t<A, B> min(A a, B b) {
    if constexpr (std::is_floating_point_v<std::common_type_t<A, B>>) return std::fmin(a, b);
    else return std::common_type_t<A, B>(b) < std::common_type_t<A, B>(a) ? b : a;
}
template <typename A, typename B> std::common_type_t<A, B> max(A a, B b) {
    if constexpr (std::is_floating_point_v<std::common_type_t<A, B>>) return std::fmax(a, b);
    else return std::common_type_t<A, B>(a) < std::common_type_t<A, B>(b) ? b : a;
}
template <typename To, typename From> To emulator_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to; memcpy(&to, &from, sizeof(To)); return to;
}
static float __int_as_float(int i) { return emulator_bits<float>(i); }
static int __float_as_int(float f) { return emulator_bits<int>(f); }
static float __uint_as_float(unsigned i) { return emulator_bits<float>(i); }
static unsigned __float_as_uint(float f) { return emulator_bits<unsigned>(f); }
static double __longlong_as_double(long long i) { return emulator_bits<double>(i); }
static long long __double_as_longlong(double d) { return emulator_bits<long long>(d); }
static unsigned __umulhi(unsigned a, unsigned b) { return (uint64_t(a) * b) >> 32; }
static unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}
static int __popc(unsigned x) { return __builtin_popcount(x); }
static int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static int __ffs(int x) { return __builtin_ffs(x); }
static float rsqrtf(float x) { return 1 / std::sqrt(x); }
static double rsqrt(double x) { return 1 / std::sqrt(x); }
static float rsqrt(float x) { return 1 / std::sqrt(x); }
#define __expf(x) std::exp(float(x))  // glibc has functions of these names
#define __logf(x) std::log(float(x))
#define __powf(x, y) std::pow(float(x), float(y))
#define __sinf(x) std::sin(float(x))
#define __cosf(x) std::cos(float(x))
static float __fdividef(float a, float b) { return a / b; }
static float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
static double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
static float __fadd_rn(float a, float b) { return a + b; }
static float __fmul_rn(float a, float b) { return a * b; }
static double __dadd_rn(double a, double b) { return a + b; }
static double __dmul_rn(double a, double b) { return a * b; }
using std::exp; using std::log; using std::pow; using std::sqrt; using std::fma; using std::fmax;
using std::fmin; using std::tanh; using std::floor; using std::ceil; using std::expm1; using std::log1p;
