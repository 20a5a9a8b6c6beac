// Mean over dumps without fill samples, one pass; physics section 4. The host side: dump_mean.py.
//
// Integers add up in 64 bits, exactly; floats in f64 from the first dump to the last, so both give
// the NumPy twin's bits. One thread owns one pixel of one channel.
#include "scalar.cuh"

template <class Count>
struct Mean {
    double sum = 0.0;
    int number = 0;
    __device__ __forceinline__ void add(Count count, bool valid) {
        const bool good = valid && !is_fill(count);
        sum += good ? widened(count) : 0.0;
        number += good;
    }
    __device__ __forceinline__ double value() const { return sum / number; }
};

struct IntegerMean {
    i64 sum = 0;
    int number = 0;
    template <class Count>
    __device__ __forceinline__ void add(Count count, bool valid) {
        const bool good = valid && !is_fill(count);
        sum += good ? (i64)count : 0;
        number += good;
    }
    __device__ __forceinline__ double value() const { return (double)sum / number; }
};

template <>
struct Mean<int> : IntegerMean {};
template <>
struct Mean<u32> : IntegerMean {};

constexpr int DUMPS_IN_FLIGHT = 8;
constexpr int STAGE_BYTES = 36864;

// counts [c,D,P], valid [D] or null -> mean, number [c,P]. Neighbour threads have neighbour pixels.
template <class Count>
__global__ void __launch_bounds__(256, 4) mean_direct(
    const Count* __restrict__ counts, const bool* __restrict__ valid, double* __restrict__ mean,
    int* __restrict__ number, i64 channels, int dumps, int pixels) {
    const i64 channel = (i64)blockIdx.x * blockDim.y + threadIdx.y;
    const int pixel = blockIdx.y * blockDim.x + threadIdx.x;
    if (channel >= channels || pixel >= pixels) return;
    const Count* column = counts + channel * dumps * pixels + pixel;
    Mean<Count> total;
    for (int start = 0; start < dumps; start += DUMPS_IN_FLIGHT) {
        Count count[DUMPS_IN_FLIGHT];
        bool used[DUMPS_IN_FLIGHT];
#pragma unroll
        for (int u = 0; u < DUMPS_IN_FLIGHT; ++u) {
            const int dump = start + u;
            used[u] = dump < dumps && (!valid || valid[dump]);
            count[u] = used[u] ? column[(i64)dump * pixels] : Count(0);
        }
#pragma unroll
        for (int u = 0; u < DUMPS_IN_FLIGHT; ++u) total.add(count[u], used[u]);
    }
    const i64 place = channel * pixels + pixel;
    mean[place] = total.value();
    number[place] = total.number;
}

// From global to shared memory without a register between, so that many copies are in flight.
template <class T>
__device__ __forceinline__ void begin_copy(T* shared, const T* global) {
#ifdef __CUDA_ARCH__
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;"
                 :
                 : "r"((u32)__cvta_generic_to_shared(shared)), "l"(global), "n"(sizeof(T))
                 : "memory");
#else
    *shared = *global;
#endif
}

__device__ __forceinline__ void end_copies() {
#ifdef __CUDA_ARCH__
    asm volatile("cp.async.wait_all;" : : : "memory");
#endif
}

// The same for few pixels: each warp reads a stretch of one channel, and the threads then find
// their pixels in shared memory. blockDim = (pixels, channels of the block); blockDim.x *
// blockDim.y >= 32 threads; a stretch is chunk dumps, at most pitch samples, pitch odd.
template <class Count>
__global__ void __launch_bounds__(256, 4) mean_staged(
    const Count* __restrict__ counts, const bool* __restrict__ valid, double* __restrict__ mean,
    int* __restrict__ number, i64 channels, int dumps, int pixels, int chunk, int pitch,
    int warps) {
    __shared__ Count stage[STAGE_BYTES / sizeof(Count)];
    const i64 first_channel = (i64)blockIdx.x * blockDim.y;
    const i64 left = channels - first_channel;
    const int here = left < blockDim.y ? (int)left : (int)blockDim.y;
    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
    const int warp = thread >> 5, lane = thread & 31;
    const int samples = dumps * pixels, stretch = chunk * pixels;
    Mean<Count> total;
    for (int start = 0; start < dumps; start += chunk) {
        const int begin = start * pixels;
        const int length = samples - begin < stretch ? samples - begin : stretch;
#pragma unroll 1
        for (int y = warp; warp < warps && y < here; y += warps) {
            const Count* source = counts + (first_channel + y) * samples + begin;
#pragma unroll 4
            for (int i = lane; i < length; i += 32) begin_copy(stage + y * pitch + i, source + i);
        }
        end_copies();
        __syncthreads();
        if ((int)threadIdx.y < here) {
            const int last = dumps - start < chunk ? dumps - start : chunk;
            const Count* column = stage + threadIdx.y * pitch + threadIdx.x;
#pragma unroll 4
            for (int dump = 0; dump < last; ++dump)
                total.add(column[dump * pixels], !valid || valid[start + dump]);
        }
        __syncthreads();
    }
    if ((int)threadIdx.y < here) {
        const i64 place = (first_channel + threadIdx.y) * pixels + threadIdx.x;
        mean[place] = total.value();
        number[place] = total.number;
    }
}
