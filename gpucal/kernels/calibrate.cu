// T_A* = (C_ON - C_REF) * F with flags, one pass; physics section 6. The host side is calibrate.py.
#include "slab.cuh"

// What all dumps of a pixel share. A factor of NaN blanks the pixel in the multiplication.
struct Scale {
    double reference, factor;
    u16 flags;
};

template <bool PER_DUMP>
__device__ __forceinline__ Scale scale_of(double reference, double factor, u16 flags) {
    const bool missing = !isfinite(factor) || (!PER_DUMP && !isfinite(reference));
    if (missing && !(flags & BAD_CHANNEL)) flags |= FILL_VALUE;
    if (flags & (BAD_CHANNEL | FILL_VALUE)) factor = nan("");
    return {reference, factor, flags};
}

template <bool PER_DUMP, class Count>
__device__ __forceinline__ double calibrated(
    Count count, double reference, const Scale& scale, u16& flags) {
    bool lost = is_fill(count);
    if (PER_DUMP) lost |= !isfinite(reference) && !(scale.flags & BAD_CHANNEL);
    flags = lost ? (u16)(scale.flags | FILL_VALUE) : scale.flags;
    const double value = (widened(count) - reference) * scale.factor;
    return lost ? nan("") : value;
}

// One channel's slab of each array, and what its pixels share.
template <class Count, class Out, bool PER_DUMP, int V>
struct Row {
    const Count* __restrict__ counts;
    const double* __restrict__ reference;  // per dump only
    Out* __restrict__ out;
    u16* __restrict__ out_flags;
    Scale scale[V];

    // Sample by sample, for a pack that the slab does not fill; returns how many lack data.
    __device__ __forceinline__ u32 edge(int at, int samples) const {
        u32 lost = 0;
#pragma unroll
        for (int j = 0; j < V; ++j) {
            const int sample = at + j;
            if (!is_inside(sample, samples)) continue;
            const double ref = PER_DUMP ? reference[sample] : scale[j].reference;
            u16 flags;
            out[sample] = narrowed<Out>(
                calibrated<PER_DUMP>(counts[sample], ref, scale[j], flags));
            out_flags[sample] = flags;
            lost += (flags & FILL_VALUE) >> 1;
        }
        return lost;
    }

    // The packs at ``start``, ``start + step``, ... UNROLL of them, those that are whole. All are
    // in flight before the first is used.
    template <int UNROLL>
    __device__ __forceinline__ u32 whole(int start, int step, int samples) const {
        Pack<Count, V> count[UNROLL];
        Pack<double, PER_DUMP ? V : 1> off[UNROLL];
        u32 lost = 0;
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            const int at = start + u * step;
            if (!is_whole<V>(at, samples)) continue;
            count[u] = load_pack<Count, V>(counts + at);
            if constexpr (PER_DUMP) off[u] = load_pack<double, V>(reference + at);
        }
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            const int at = start + u * step;
            if (!is_whole<V>(at, samples)) continue;
            Pack<Out, V> value;
            Pack<u16, V> flags;
#pragma unroll
            for (int j = 0; j < V; ++j) {
                const double ref = PER_DUMP ? off[u].v[PER_DUMP ? j : 0] : scale[j].reference;
                value.v[j] = narrowed<Out>(
                    calibrated<PER_DUMP>(count[u].v[j], ref, scale[j], flags.v[j]));
                lost += (flags.v[j] & FILL_VALUE) >> 1;
            }
            store_pack(out + at, value);
            store_pack(out_flags + at, flags);
        }
        return lost;
    }
};

// counts, out, out_flags [c,D,R,A]; reference [c,R,A] or [c,D,R,A]; factor, base_flags [c,R,A].
// n_lost: samples with bit 1, exact.
template <class Count, class Out, bool PER_DUMP, int V, int UNROLL>
__global__ void __launch_bounds__(256) calibrate(
    const Count* __restrict__ counts, const double* __restrict__ reference,
    const double* __restrict__ factor, const u16* __restrict__ base_flags,
    Out* __restrict__ out, u16* __restrict__ out_flags, unsigned long long* n_lost,
    i64 channels, int samples, u32 pixels, u32 magic, u32 shift, int phase, int width) {
    const Slab<V> slab(channels, samples, phase, width);
    u32 lost = 0;
    if (slab.active) {
        const Divider by_pixels = {pixels, magic, shift};
        const i64 base = slab.channel * samples;
        Row<Count, Out, PER_DUMP, V> row = {
            counts + base, PER_DUMP ? reference + base : reference, out + base, out_flags + base};
#pragma unroll
        for (int j = 0; j < V; ++j) {
            // V rows more, because the first pack may begin before the slab.
            const i64 pixel = slab.channel * pixels +
                              by_pixels.remainder(slab.first + j + V * pixels);
            row.scale[j] = scale_of<PER_DUMP>(
                PER_DUMP ? 0.0 : reference[pixel], factor[pixel], base_flags[pixel]);
        }
        int start = slab.start();
        for (; start < samples; start += UNROLL * slab.step)
            lost += row.template whole<UNROLL>(start, slab.step, samples);
        if (slab.first < 0) lost += row.edge(slab.first, samples);
        const int tail = slab.template tail<UNROLL>(start, samples);
        if (tail >= 0) lost += row.edge(tail, samples);
    }
    // Integers add up to the same number in any order.
    __shared__ u32 block_lost;
    const bool leads = threadIdx.x == 0 && threadIdx.y == 0;
    if (leads) block_lost = 0;
    __syncthreads();
    if (lost) atomicAdd(&block_lost, lost);
    __syncthreads();
    if (leads && block_lost) atomicAdd(n_lost, (unsigned long long)block_lost);
}
