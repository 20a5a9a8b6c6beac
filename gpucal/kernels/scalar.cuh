// Scalars, packs of samples and division by a known number; for NVRTC, nvcc and a C++ compiler.
#pragma once

typedef long long i64;
typedef unsigned int u32;
typedef unsigned short u16;

constexpr u16 BAD_CHANNEL = 1;
constexpr u16 FILL_VALUE = 2;

// V samples that move in one access; at most 16 bytes.
template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
    T v[V];
};

// The raw values that mean "no data": INT32_MIN; none; not finite.
__device__ __forceinline__ bool is_fill(int count) { return count == -2147483647 - 1; }
__device__ __forceinline__ bool is_fill(u32) { return false; }
__device__ __forceinline__ bool is_fill(float count) { return !isfinite(count); }
__device__ __forceinline__ bool is_fill(double count) { return !isfinite(count); }

// n / d for 0 <= n < 2^31 by multiplication (Granlund & Montgomery 1994); see geometry.py.
struct Divider {
    u32 divisor, magic, shift;
    __device__ __forceinline__ u32 quotient(u32 n) const {
        return (__umulhi(n, magic) + n) >> shift;
    }
    __device__ __forceinline__ u32 remainder(u32 n) const { return n - quotient(n) * divisor; }
};
