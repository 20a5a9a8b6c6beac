// (1-w) OFF_1 + w OFF_2, one weight per dump; physics section 7. The host side is reference.py.
#include "slab.cuh"

__device__ __forceinline__ double blended(double first, double second, double w) {
    if (isnan(first)) return second;
    if (isnan(second)) return first;
    if (w == 0.0) return first;
    if (w == 1.0) return second;
    return (1.0 - w) * first + w * second;
}

// off1, off2 [c,R,A]; weight [D]; out [c,D,R,A]. dump_step: dumps in ``width`` packs.
template <int V>
__global__ void __launch_bounds__(256) blend(
    const double* __restrict__ off1, const double* __restrict__ off2,
    const double* __restrict__ weight, double* __restrict__ out, i64 channels, int samples,
    u32 pixels, u32 magic, u32 shift, int phase, int width, int dump_step) {
    const Slab<V> slab(channels, samples, phase, width);
    if (!slab.active) return;
    const Divider by_pixels = {pixels, magic, shift};
    double first[V], second[V];
    int dump[V];
#pragma unroll
    for (int j = 0; j < V; ++j) {
        const u32 shifted = slab.first + j + V * pixels;
        const u32 quotient = by_pixels.quotient(shifted);
        const i64 pixel = slab.channel * pixels + (shifted - quotient * pixels);
        dump[j] = (int)quotient - V;
        first[j] = off1[pixel];
        second[j] = off2[pixel];
    }
    double* row = out + slab.channel * samples;
#pragma unroll 1
    for (int at = slab.first; at < samples; at += slab.step) {
        Pack<double, V> value;
#pragma unroll
        for (int j = 0; j < V; ++j) {
            const double w = is_inside(at + j, samples) ? weight[dump[j]] : 0.0;
            value.v[j] = blended(first[j], second[j], w);
            dump[j] += dump_step;
        }
        if (at >= 0 && is_whole<V>(at, samples)) {
            store_pack(row + at, value);
            continue;
        }
#pragma unroll
        for (int j = 0; j < V; ++j)
            if (is_inside(at + j, samples)) row[at + j] = value.v[j];
    }
}
