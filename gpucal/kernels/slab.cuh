// The samples [D,R,A] of one channel as one row of V-packs, shared by the threads of its slab.
//
// Thread x of a slab owns the packs x, x + width, x + 2 width, ... width * V samples are whole
// dumps (or the slab ends before the second round), so a thread meets the same V pixels in all of
// its packs: their reference, factor and flags stay in registers and no index is divided.
// Packs lie on aligned addresses; the samples before the first one belong to the last thread.
#pragma once
#include "scalar.cuh"

template <int V>
struct Slab {
    bool active;
    i64 channel;
    int first;  // sample of the thread's first pack; below 0 where the pack begins before the slab
    int step;   // samples from one pack of this thread to the next

    __device__ __forceinline__ Slab(i64 channels, int samples, int phase, int width) {
        channel = (i64)blockIdx.x * blockDim.y + threadIdx.y;
        const int x = blockIdx.y * blockDim.x + threadIdx.x;
        active = channel < channels && x < width;
        // Where channels are not whole packs, each begins at another place inside a pack.
        const int begin = (int)((phase + channel * samples) & (V - 1));
        const int head = (V - begin) & (V - 1);
        step = width * V;
        first = head + x * V - (x == width - 1 ? step : 0);
    }

    // The first pack that does not begin before the slab.
    __device__ __forceinline__ int start() const { return first < 0 ? first + step : first; }

    // The pack of this thread that the slab does not fill at its end, or -1. ``end`` is any of the
    // thread's packs after the slab, at most UNROLL steps after it.
    template <int UNROLL>
    __device__ __forceinline__ int tail(int end, int samples) const {
        int found = -1;
#pragma unroll
        for (int u = 1; u <= UNROLL; ++u) {
            const int at = end - u * step;
            if (at >= 0 && at < samples && at > samples - V) found = at;
        }
        return found;
    }
};

template <int V>
__device__ __forceinline__ bool is_whole(int sample, int samples) {
    return sample <= samples - V;
}

__device__ __forceinline__ bool is_inside(int sample, int samples) {
    return sample >= 0 && sample < samples;
}

template <class T, int V>
__device__ __forceinline__ Pack<T, V> load_pack(const T* place) {
    return *reinterpret_cast<const Pack<T, V>*>(place);
}

template <class T, int V>
__device__ __forceinline__ void store_pack(T* place, const Pack<T, V>& pack) {
    *reinterpret_cast<Pack<T, V>*>(place) = pack;
}
