// Runs CUDA kernels on the CPU: the threads of a block are fibers that meet at each barrier.
#pragma once
#include <ucontext.h>

#include <cmath>
#include <functional>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local
#define __restrict__ __restrict

using std::isfinite;
using std::isnan;

struct dim3 {
    unsigned x, y, z;
};
static thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

static inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)(((unsigned long long)a * b) >> 32);
}

template <class T>
static T atomicAdd(T* place, T value) {
    const T old = *place;
    *place += value;
    return old;
}

namespace shim {
constexpr std::size_t STACK = 1 << 16;

struct Fiber {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(STACK);
    dim3 index;
    bool done;
};

static thread_local ucontext_t scheduler;
static thread_local std::vector<Fiber> fibers;
static thread_local Fiber* running;
static thread_local std::function<void()> body;

static void enter() {
    body();
    running->done = true;
    swapcontext(&running->context, &scheduler);
}

// One phase: every thread runs to the next barrier or to its end. Returns how many ended.
static std::size_t phase(std::size_t threads, bool backwards) {
    std::size_t done = 0;
    for (std::size_t i = 0; i < threads; ++i) {
        running = &fibers[backwards ? threads - 1 - i : i];
        threadIdx = running->index;
        swapcontext(&scheduler, &running->context);
        done += running->done;
    }
    return done;
}

// False when some threads of a block left while others waited at a barrier.
static bool run_block(bool backwards) {
    const std::size_t threads = (std::size_t)blockDim.x * blockDim.y * blockDim.z;
    if (fibers.size() < threads) fibers.resize(threads);
    for (unsigned i = 0; i < threads; ++i) {
        Fiber& fiber = fibers[i];
        fiber.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
        fiber.done = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
    }
    for (;;) {
        const std::size_t done = phase(threads, backwards);
        if (done) return done == threads;
    }
}

template <class... A, std::size_t... I>
static void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<A>*>(args[I])...);
}

// args as for cuLaunchKernel: one pointer to each argument.
template <class... A>
static int launch(void (*kernel)(A...), const unsigned* shape, void** args, int backwards) {
    body = [=] { call(kernel, args, std::index_sequence_for<A...>()); };
    gridDim = {shape[0], shape[1], shape[2]};
    blockDim = {shape[3], shape[4], shape[5]};
    for (unsigned z = 0; z < gridDim.z; ++z)
        for (unsigned y = 0; y < gridDim.y; ++y)
            for (unsigned x = 0; x < gridDim.x; ++x) {
                blockIdx = {x, y, z};
                if (!run_block(backwards)) return 1;
            }
    return 0;
}
}  // namespace shim

static inline void __syncthreads() {
    swapcontext(&shim::running->context, &shim::scheduler);
}
