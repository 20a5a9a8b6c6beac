// Chi2 of the sky against the atmosphere model, and its derivatives in PWV; physics section 5.
//
// The host side is chi2.py. Order of summation, fixed by the number of channels alone: a block
// sums PART channels, lane y taking the channels y, y + LANES, ... of its part; then the lanes,
// first to last; then sum_parts adds the parts in the same way. No atomics.
#include "scalar.cuh"

constexpr int PART = 128;   // channels of one block
constexpr int LANES = 8;    // blockDim.y
constexpr int FITS = 32;    // most fits of one block, blockDim.x
constexpr int TILE = 32;    // channels whose model is in shared memory together

// mean_j exp(-A tau_j) of one sideband and its derivatives in P, with the factor 1/J.
struct Sky {
    double value, slope, bend;
};

// tables: opacity [3,2,J,C,M] at one channel and fit; ``set`` is one of the three coefficients and
// ``line`` one of the points.
template <bool DERIVATIVES>
__device__ __forceinline__ Sky transmission(
    const double* table, i64 set, i64 line, int points, double pwv, double airmass,
    double share) {
    Sky sky = {0.0, 0.0, 0.0};
#pragma unroll 1
    for (int j = 0; j < points; ++j) {
        const double b = table[j * line], q = table[set + j * line], c = table[2 * set + j * line];
        const double t = exp(-airmass * ((q * pwv + b) * pwv + c));
        sky.value += t;
        if (DERIVATIVES) {
            const double g = -airmass * (2.0 * q * pwv + b);
            sky.slope += g * t;
            sky.bend += (g * g - 2.0 * airmass * q) * t;
        }
    }
    return {sky.value * share, sky.slope * share, sky.bend * share};
}

template <int SUMS>
__device__ __forceinline__ void add_channel(
    double* sums, double observed, double weight, double amplitude0, double amplitude1,
    const Sky& sky0, const Sky& sky1) {
    if (weight == 0.0) return;
    const double residual = observed - (amplitude0 * sky0.value + amplitude1 * sky1.value);
    const double weighted = residual * weight;
    sums[0] += residual * weighted;
    if constexpr (SUMS == 4) {
        const double slope = amplitude0 * sky0.slope + amplitude1 * sky1.slope;
        const double bend = amplitude0 * sky0.bend + amplitude1 * sky1.bend;
        const double gauss = slope * slope * weight;
        sums[1] += -2.0 * weighted * slope;
        sums[2] += 2.0 * (gauss - weighted * bend);
        sums[3] += 2.0 * gauss;
    }
}

// Sum of the lanes of a block for each of its fits; the result is valid in lane 0.
__device__ __forceinline__ double over_lanes(double sum, double (*lanes)[FITS]) {
    __syncthreads();
    lanes[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0) return 0.0;
    double total = lanes[0][threadIdx.x];
    for (int y = 1; y < LANES; ++y) total += lanes[y][threadIdx.x];
    return total;
}

// Every fit with its own PWV or opacity. pwv [K,N] or [K,1]; partial [parts,SUMS,K,N].
// amplitude [2,C,Ma], opacity [3,2,J,C,Mo] with Ma, Mo = 1 or N; grid = (parts, fits, K).
template <int SUMS>
__global__ void __launch_bounds__(256, 2) chi2_own(
    const double* __restrict__ pwv, const double* __restrict__ observed,
    const double* __restrict__ weight, const double* __restrict__ amplitude,
    const double* __restrict__ opacity, double* __restrict__ partial, double airmass,
    double share, int channels, int fits, int points, int pwv_fits, int amplitude_fits,
    int opacity_fits) {
    __shared__ double lanes[LANES][FITS];
    const int fit = blockIdx.y * blockDim.x + threadIdx.x;
    const int trial = blockIdx.z, trials = gridDim.z;
    const int begin = blockIdx.x * PART;
    const int end = channels - begin < PART ? channels : begin + PART;
    double sums[SUMS] = {};
    if (fit < fits) {
        const double p = pwv[(i64)trial * pwv_fits + (pwv_fits > 1 ? fit : 0)];
        const int amplitude_fit = amplitude_fits > 1 ? fit : 0;
        const int opacity_fit = opacity_fits > 1 ? fit : 0;
        const i64 line = (i64)channels * opacity_fits, band = points * line, set = 2 * band;
#pragma unroll 2
        for (int channel = begin + threadIdx.y; channel < end; channel += LANES) {
            const i64 sample = (i64)channel * fits + fit;
            const double* a = amplitude + (i64)channel * amplitude_fits + amplitude_fit;
            const double* table = opacity + (i64)channel * opacity_fits + opacity_fit;
            const double s = observed[sample], w = weight[sample];
            const double a0 = a[0], a1 = a[(i64)channels * amplitude_fits];
            const Sky sky0 =
                transmission<SUMS == 4>(table, set, line, points, p, airmass, share);
            const Sky sky1 =
                transmission<SUMS == 4>(table + band, set, line, points, p, airmass, share);
            add_channel<SUMS>(sums, s, w, a0, a1, sky0, sky1);
        }
    }
#pragma unroll
    for (int i = 0; i < SUMS; ++i) {
        const double sum = over_lanes(sums[i], lanes);
        if (threadIdx.y == 0 && fit < fits)
            partial[(((i64)blockIdx.x * SUMS + i) * trials + trial) * fits + fit] = sum;
    }
}

// One PWV grid and one opacity for all fits: each exponential is computed once per block.
// pwv [K]; opacity [3,2,J,C]; grid = (parts, fits, ceil(K/TRIALS)).
template <int SUMS, int TRIALS>
__global__ void __launch_bounds__(256, 2) chi2_shared(
    const double* __restrict__ pwv, const double* __restrict__ observed,
    const double* __restrict__ weight, const double* __restrict__ amplitude,
    const double* __restrict__ opacity, double* __restrict__ partial, double airmass,
    double share, int channels, int fits, int points, int trials, int amplitude_fits) {
    __shared__ Sky model[2][TRIALS][TILE];
    __shared__ double lanes[LANES][FITS];
    const int fit = blockIdx.y * blockDim.x + threadIdx.x;
    const int amplitude_fit = amplitude_fits > 1 ? fit : 0;
    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
    const int threads = blockDim.x * LANES;
    const int first_trial = blockIdx.z * TRIALS;
    const int begin = blockIdx.x * PART;
    const int end = channels - begin < PART ? channels : begin + PART;
    const i64 line = channels, band = points * line, set = 2 * band;
    double sums[TRIALS][SUMS] = {};
    for (int tile = begin; tile < end; tile += TILE) {
        // The next observations are on their way while the exponentials are computed.
        double s[TILE / LANES], w[TILE / LANES], a0[TILE / LANES], a1[TILE / LANES];
#pragma unroll
        for (int i = 0; i < TILE / LANES; ++i) {
            const int channel = tile + threadIdx.y + i * LANES;
            const bool used = channel < end && fit < fits;
            const i64 sample = (i64)channel * fits + fit;
            const i64 place = (i64)channel * amplitude_fits + amplitude_fit;
            s[i] = used ? observed[sample] : 0.0;
            w[i] = used ? weight[sample] : 0.0;
            a0[i] = used ? amplitude[place] : 0.0;
            a1[i] = used ? amplitude[place + (i64)channels * amplitude_fits] : 0.0;
        }
        __syncthreads();
#pragma unroll 1
        for (int i = thread; i < 2 * TRIALS * TILE; i += threads) {
            const int c = i % TILE, trial = i / TILE % TRIALS, sideband = i / (TILE * TRIALS);
            if (tile + c < end && first_trial + trial < trials)
                model[sideband][trial][c] = transmission<SUMS == 4>(
                    opacity + sideband * band + tile + c, set, line, points,
                    pwv[first_trial + trial], airmass, share);
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < TILE / LANES; ++i) {
            const int c = threadIdx.y + i * LANES;
#pragma unroll
            for (int trial = 0; trial < TRIALS; ++trial)
                add_channel<SUMS>(
                    sums[trial], s[i], w[i], a0[i], a1[i], model[0][trial][c], model[1][trial][c]);
        }
    }
#pragma unroll
    for (int trial = 0; trial < TRIALS; ++trial)
#pragma unroll
        for (int i = 0; i < SUMS; ++i) {
            const double sum = over_lanes(sums[trial][i], lanes);
            const int k = first_trial + trial;
            if (threadIdx.y == 0 && fit < fits && k < trials)
                partial[(((i64)blockIdx.x * SUMS + i) * trials + k) * fits + fit] = sum;
        }
}

// partial [parts,columns] -> total [columns]; blockDim = (FITS, LANES).
template <int IN_FLIGHT>
__global__ void __launch_bounds__(256, 2) sum_parts(
    const double* __restrict__ partial, double* __restrict__ total, int parts, i64 columns) {
    __shared__ double lanes[LANES][FITS];
    const i64 column = (i64)blockIdx.x * FITS + threadIdx.x;
    double sum = 0.0;
    if (column < columns) {
#pragma unroll IN_FLIGHT
        for (int part = threadIdx.y; part < parts; part += LANES)
            sum += partial[part * columns + column];
    }
    sum = over_lanes(sum, lanes);
    if (threadIdx.y == 0 && column < columns) total[column] = sum;
}
