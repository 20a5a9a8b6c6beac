// (w_1 T_1 - w_2 T_2) / (w_1 + w_2) / t of a frequency switch, one pass; physics section 7.
// The host side is fold.py.
//
// One thread owns one sample [d,r,a] of RUN neighbouring channels, so a spectrum is read
// (2h + RUN) / RUN times a phase, out of the cache but for the first. Neighbour threads have
// neighbour samples. Each sum runs over its taps first to last, which gives the NumPy twin's bits.
#include "scalar.cuh"

// The spectra and flags of one sample in all channels of the input.
struct Column {
    const double* __restrict__ spectra;
    const u16* __restrict__ flags;
    i64 step, channels;

    __device__ __forceinline__ bool holds(i64 channel) const {
        return channel >= 0 && channel < channels;
    }
    __device__ __forceinline__ double value(i64 channel) const {
        return holds(channel) ? spectra[channel * step] : nan("");
    }
    __device__ __forceinline__ u16 flag(i64 channel) const {
        return holds(channel) ? flags[channel * step] : FILL_VALUE;
    }
};

// One phase moved to the channels here, here + 1, ... ``other``: the channel on the other side of
// the shifted one, or ``here`` again.
template <int RUN>
__device__ __forceinline__ void moved(
    const Column& column, i64 here, i64 other, const double* __restrict__ taps, int length,
    double* total) {
    const bool whole = here == other;
    const int half = length / 2;
    const double* __restrict__ tap = whole ? taps + half : taps;
    const int number = whole ? 1 : length;
    const i64 start = whole ? here : here - half;
    // own[j]: the tap that the channel j has for the value at hand.
    double own[RUN] = {}, norm = 0.0;
    bool missing = false;
#pragma unroll
    for (int j = 0; j < RUN; ++j) total[j] = 0.0;
#pragma unroll RUN
    for (int i = 0; i < number + RUN - 1; ++i) {
#pragma unroll
        for (int j = RUN - 1; j > 0; --j) own[j] = own[j - 1];
        own[0] = i < number ? tap[i] : 0.0;
        norm += own[0];
        double value = column.value(start + i);
        if (isnan(value)) {
            missing = true;
            value = 0.0;
        }
#pragma unroll
        for (int j = 0; j < RUN; ++j)
            if (i >= j && i - j < number) total[j] += own[j] * value;
    }
#pragma unroll
    for (int j = 0; j < RUN; ++j) {
        double sum = norm;
        if (missing) {
            sum = 0.0;
#pragma unroll 1
            for (int m = 0; m < number; ++m)
                if (!isnan(column.value(start + j + m))) sum += tap[m];
        }
        const bool blank =
            missing && (isnan(column.value(here + j)) || isnan(column.value(other + j)));
        total[j] = blank ? nan("") : total[j] / (sum == 0.0 ? 1.0 : sum);
    }
}

// spectra, flags [m,D,R,A]; weight [m,R,A]; taps [2,R,length]; nearest [2,2,R]; transmission
// [c,R,A] or null; base_flags [c,R,A]; out, out_flags [c,D,R,A]. n_lost: samples with bit 1, exact.
template <class Out, int RUN>
__global__ void __launch_bounds__(256, 2) fold(
    const double* __restrict__ spectra, const u16* __restrict__ flags,
    const double* __restrict__ weight, const double* __restrict__ taps,
    const i64* __restrict__ nearest, const double* __restrict__ transmission,
    const u16* __restrict__ base_flags, Out* __restrict__ out, u16* __restrict__ out_flags,
    unsigned long long* n_lost, i64 channels, i64 wide, int samples, int receivers, int length,
    u32 pixels, u32 magic, u32 shift, u32 beams, u32 beams_magic, u32 beams_shift) {
    const Divider by_pixels = {pixels, magic, shift}, by_beams = {beams, beams_magic, beams_shift};
    const i64 first = ((i64)blockIdx.x * blockDim.y + threadIdx.y) * RUN;
    const i64 left = channels - first;
    u32 lost = 0;
    for (int sample = blockIdx.y * blockDim.x + threadIdx.x; left > 0 && sample < samples;
         sample += gridDim.y * blockDim.x) {
        const u32 pixel = by_pixels.remainder(sample), r = by_beams.quotient(pixel);
        const Column column = {spectra + sample, flags + sample, samples, wide};
        i64 here[2], other[2];
        double value[2][RUN];
#pragma unroll
        for (int p = 0; p < 2; ++p) {
            here[p] = nearest[(2 * p) * receivers + r] + first;
            other[p] = nearest[(2 * p + 1) * receivers + r] + first;
            moved<RUN>(
                column, here[p], other[p], taps + (i64)(p * receivers + r) * length, length,
                value[p]);
        }
#pragma unroll
        for (int j = 0; j < RUN; ++j) {
            if (j >= left) continue;
            double w[2];
            u16 bits = base_flags[(first + j) * pixels + pixel] & (u16)~BAD_CHANNEL;
#pragma unroll
            for (int p = 0; p < 2; ++p) {
                const i64 at = here[p] + j;
                w[p] = column.holds(at) ? weight[at * pixels + pixel] : nan("");
                bits |= column.flag(at) | column.flag(other[p] + j);
            }
            double folded = (w[0] * value[0][j] - w[1] * value[1][j]) / (w[0] + w[1]);
            if (transmission) folded /= transmission[(first + j) * pixels + pixel];
            if (!isfinite(folded)) {
                folded = nan("");
                if (!(bits & BAD_CHANNEL)) bits |= FILL_VALUE;
            }
            const i64 place = (first + j) * samples + sample;
            out[place] = narrowed<Out>(folded);
            out_flags[place] = bits;
            lost += (bits & FILL_VALUE) >> 1;
        }
    }
    __shared__ u32 block_lost;
    const bool leads = threadIdx.x == 0 && threadIdx.y == 0;
    if (leads) block_lost = 0;
    __syncthreads();
    if (lost) atomicAdd(&block_lost, lost);
    __syncthreads();
    if (leads && block_lost) atomicAdd(n_lost, (unsigned long long)block_lost);
}
