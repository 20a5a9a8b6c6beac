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

// Between f32 and f64 with subnormal numbers as they are: CuPy compiles with -ftz=true, with which a plain
// conversion makes them 0 where NumPy does not.
template <class T>
__device__ __forceinline__ double widened(T x) {
    return (double)x;
}
__device__ __forceinline__ double widened(float x) {
#ifdef __CUDA_ARCH__
    double wide;
    asm("cvt.f64.f32 %0, %1;" : "=d"(wide) : "f"(x));
    return wide;
#else
    return (double)x;
#endif
}
template <class Out>
__device__ __forceinline__ Out narrowed(double x) {
    return (Out)x;
}
template <>
__device__ __forceinline__ float narrowed<float>(double x) {
#ifdef __CUDA_ARCH__
    float narrow;
    asm("cvt.rn.f32.f64 %0, %1;" : "=f"(narrow) : "d"(x));
    return narrow;
#else
    return (float)x;
#endif
}

// n / d for 0 <= n < 2^31 by multiplication (Granlund & Montgomery 1994); see geometry.py.
struct Divider {
    u32 divisor, magic, shift;
    __device__ __forceinline__ u32 quotient(u32 n) const {
        return (__umulhi(n, magic) + n) >> shift;
    }
    __device__ __forceinline__ u32 remainder(u32 n) const { return n - quotient(n) * divisor; }
};
