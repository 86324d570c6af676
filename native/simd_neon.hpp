// Sixteen lanes in four NEON registers, which every ARM processor of 64 bits has, and the same with dot products of bytes.
#pragma once
#include <arm_neon.h>
#include <cstdint>
#include <cstring>

#include "simd_portable.hpp"

namespace decodery {

struct Neon {
    struct F { float32x4_t v[4]; };
    struct I { int32x4_t v[4]; };
    struct B { uint8x16_t v[4]; };
    static constexpr int kBlocks = 1, kRows = 2;

    template <class Fn> static F each(Fn fn) { return {{fn(0), fn(1), fn(2), fn(3)}}; }
    template <class Fn> static I each_int(Fn fn) { return {{fn(0), fn(1), fn(2), fn(3)}}; }
    template <class Fn> static B each_bytes(Fn fn) { return {{fn(0), fn(1), fn(2), fn(3)}}; }

    static F load(const float* p) { return each([&](int i) { return vld1q_f32(p + 4 * i); }); }
    static F load_some(const float* p, int n) {
        alignas(16) float t[16] = {};
        std::memcpy(t, p, static_cast<size_t>(n) * 4);
        return load(t);
    }
    static void store(float* p, F x) { for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, x.v[i]); }
    static void store_some(float* p, F x, int n) {
        alignas(16) float t[16];
        store(t, x);
        std::memcpy(p, t, static_cast<size_t>(n) * 4);
    }
    static F set1(float x) { return each([&](int) { return vdupq_n_f32(x); }); }
    static F zero() { return set1(0.0f); }
    static F add(F x, F y) { return each([&](int i) { return vaddq_f32(x.v[i], y.v[i]); }); }
    static F sub(F x, F y) { return each([&](int i) { return vsubq_f32(x.v[i], y.v[i]); }); }
    static F mul(F x, F y) { return each([&](int i) { return vmulq_f32(x.v[i], y.v[i]); }); }
    static F div(F x, F y) { return each([&](int i) { return vdivq_f32(x.v[i], y.v[i]); }); }
    static F fma(F x, F y, F z) { return each([&](int i) { return vfmaq_f32(z.v[i], x.v[i], y.v[i]); }); }
    // NEON's own maximum of a number and NaN is NaN; here it is the second operand, as in the other sets.
    static float32x4_t greater(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
    static F max(F x, F y) { return each([&](int i) { return greater(x.v[i], y.v[i]); }); }
    static F min(F x, F y) { return each([&](int i) { return vbslq_f32(vcltq_f32(x.v[i], y.v[i]), x.v[i], y.v[i]); }); }
    static F abs(F x) { return each([&](int i) { return vabsq_f32(x.v[i]); }); }
    static float reduce_add(F x) {
        const float32x4_t four = vaddq_f32(vaddq_f32(x.v[0], x.v[2]), vaddq_f32(x.v[1], x.v[3]));
        const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
        return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
    }
    static float reduce_max(F x) {
        const float32x4_t four = greater(greater(x.v[0], x.v[2]), greater(x.v[1], x.v[3]));
        const float32x2_t low = vget_low_f32(four), high = vget_high_f32(four);
        const float32x2_t two = vbsl_f32(vcgt_f32(low, high), low, high);
        const float first = vget_lane_f32(two, 0), second = vget_lane_f32(two, 1);
        return first > second ? first : second;
    }
    // A number outside int32, which NEON would change to the nearest, becomes INT32_MIN.
    static I to_int(F x) {
        return each_int([&](int i) {
            const uint32x4_t inside = vandq_u32(vcgeq_f32(x.v[i], vdupq_n_f32(-2147483648.0f)),
                                                vcltq_f32(x.v[i], vdupq_n_f32(2147483648.0f)));
            return vbslq_s32(inside, vcvtnq_s32_f32(x.v[i]), vdupq_n_s32(INT32_MIN));
        });
    }
    static F to_float(I x) { return each([&](int i) { return vcvtq_f32_s32(x.v[i]); }); }
    static F power_of_two(I n) {
        return each([&](int i) {
            return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n.v[i], vdupq_n_s32(127)), 23));
        });
    }
    static float half(uint16_t h) { return Portable::half(h); }
    static F load_half(const uint16_t* p) {
        return each([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
    }
    static void store_half(uint16_t* p, F x) {
        for (int i = 0; i < 4; i++) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(x.v[i])));
    }
    static F load_bfloat(const uint16_t* p) {
        return each([&](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
    }
    static F load_codes(const int8_t* p) {
        const int8x16_t bytes = vld1q_s8(p);
        const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
        return to_float({{vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)),
                          vmovl_high_s16(high)}});
    }
    static F first_bfloat(B x) {
        return each([&](int i) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u8(x.v[i]), 16)); });
    }
    static F second_bfloat(B x) {
        return each([&](int i) {
            return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u8(x.v[i]), vdupq_n_u32(0xffff0000)));
        });
    }

    // The bits of four lanes, each at the place of its lane.
    static uint32x4_t places(int i) {
        const uint32x4_t first = {1, 2, 4, 8};
        return vshlq_u32(first, vdupq_n_s32(4 * i));
    }
    template <class Fn> static uint32_t bits(Fn fn) {
        const uint32x4_t low = vorrq_u32(vandq_u32(fn(0), places(0)), vandq_u32(fn(1), places(1)));
        const uint32x4_t high = vorrq_u32(vandq_u32(fn(2), places(2)), vandq_u32(fn(3), places(3)));
        return vaddvq_u32(vorrq_u32(low, high));
    }
    static uint32_t above(F x, F y) { return bits([&](int i) { return vmvnq_u32(vcleq_f32(x.v[i], y.v[i])); }); }
    static uint32_t equal(F x, F y) { return bits([&](int i) { return vceqq_f32(x.v[i], y.v[i]); }); }
    static F pick(uint32_t bits, F x, F y) {
        return each([&](int i) { return vbslq_f32(vtstq_u32(vdupq_n_u32(bits), places(i)), x.v[i], y.v[i]); });
    }

    static I iota() {
        const int32x4_t first = {0, 1, 2, 3};
        return each_int([&](int i) { return vaddq_s32(first, vdupq_n_s32(4 * i)); });
    }
    static I as_int(F x) { return each_int([&](int i) { return vreinterpretq_s32_f32(x.v[i]); }); }
    static F as_float(I x) { return each([&](int i) { return vreinterpretq_f32_s32(x.v[i]); }); }
    static I add_int(I x, I y) { return each_int([&](int i) { return vaddq_s32(x.v[i], y.v[i]); }); }
    static I sub_int(I x, I y) { return each_int([&](int i) { return vsubq_s32(x.v[i], y.v[i]); }); }
    static I mul_int(I x, I y) { return each_int([&](int i) { return vmulq_s32(x.v[i], y.v[i]); }); }
    static I xor_int(I x, I y) { return each_int([&](int i) { return veorq_s32(x.v[i], y.v[i]); }); }
    static I and_int(I x, I y) { return each_int([&](int i) { return vandq_s32(x.v[i], y.v[i]); }); }
    template <int N> static I shift_right(I x) {
        return each_int([&](int i) { return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(x.v[i]), N)); });
    }
    static I load_int(const int32_t* p) { return each_int([&](int i) { return vld1q_s32(p + 4 * i); }); }
    static I set1_int(int32_t x) { return each_int([&](int) { return vdupq_n_s32(x); }); }
    static int32_t sum(I x) { return vaddvq_s32(vaddq_s32(vaddq_s32(x.v[0], x.v[1]), vaddq_s32(x.v[2], x.v[3]))); }
    // The sums of the lanes of x and of y.
    static void store_sums(int32_t* p, I x, I y) { p[0] = sum(x), p[1] = sum(y); }
    static void store_bytes(int8_t* p, I x) {
        const int16x8_t low = vqmovn_high_s32(vqmovn_s32(x.v[0]), x.v[1]);
        const int16x8_t high = vqmovn_high_s32(vqmovn_s32(x.v[2]), x.v[3]);
        vst1q_s8(p, vqmovn_high_s16(vqmovn_s16(low), high));
    }
    static void store_words(uint16_t* p, I x) {
        for (int i = 0; i < 4; i++) vst1_u16(p + 4 * i, vqmovun_s32(x.v[i]));
    }
    static B load_bytes(const uint8_t* p) { return each_bytes([&](int i) { return vld1q_u8(p + 16 * i); }); }
    static B low_nibbles(B x) { return each_bytes([&](int i) { return vandq_u8(x.v[i], vdupq_n_u8(15)); }); }
    static B high_nibbles(B x) { return each_bytes([&](int i) { return vshrq_n_u8(x.v[i], 4); }); }
    static B look_up(B x, const uint8_t* table) {
        const uint8x16_t all = vld1q_u8(table);
        return each_bytes([&](int i) { return vqtbl1q_u8(all, x.v[i]); });
    }
    // The four bytes at x, four times.
    static int8x16_t four(const int8_t* x) {
        int32_t bits;
        std::memcpy(&bits, x, 4);
        return vreinterpretq_s8_s32(vdupq_n_s32(bits));
    }
    static I dot(I acc, B w, const int8_t* x) {
        const int16x4_t all = vget_low_s16(vmovl_s8(vget_low_s8(four(x))));
        return each_int([&](int i) {
            const int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(w.v[i])));
            const int16x8_t high = vreinterpretq_s16_u16(vmovl_high_u8(w.v[i]));
            const int32x4_t first = vpaddq_s32(vmull_s16(vget_low_s16(low), all), vmull_s16(vget_high_s16(low), all));
            const int32x4_t second = vpaddq_s32(vmull_s16(vget_low_s16(high), all), vmull_s16(vget_high_s16(high), all));
            return vaddq_s32(acc.v[i], vpaddq_s32(first, second));
        });
    }
    // The same for bytes of w up to 63: their products fit into 16 bits.
    static I dot_small(I acc, B w, const int8_t* x) {
        const int8x16_t all = four(x);
        return each_int([&](int i) {
            const int8x16_t bytes = vreinterpretq_s8_u8(w.v[i]);
            const int32x4_t first = vpaddlq_s16(vmull_s8(vget_low_s8(bytes), vget_low_s8(all)));
            return vaddq_s32(acc.v[i], vpaddq_s32(first, vpaddlq_s16(vmull_high_s8(bytes, all))));
        });
    }
    static inline __attribute__((always_inline)) void prefetch(const void* p) { __builtin_prefetch(p); }
};

#if defined(__ARM_FEATURE_DOTPROD)
struct NeonDot : Neon {
    // These dot products have signed bytes: w - 128, and 128 times the sum of x is added.
    static I dot(I acc, B w, const int8_t* x) {
        const int8x16_t all = four(x), half = vdupq_n_s8(64);
        const int32x4_t correction = vdotq_s32(vdotq_s32(vdupq_n_s32(0), all, half), all, half);
        return each_int([&](int i) {
            const int8x16_t bytes = vreinterpretq_s8_u8(veorq_u8(w.v[i], vdupq_n_u8(128)));
            return vdotq_s32(vaddq_s32(acc.v[i], correction), bytes, all);
        });
    }
    static I dot_small(I acc, B w, const int8_t* x) {
        const int8x16_t all = four(x);
        return each_int([&](int i) { return vdotq_s32(acc.v[i], vreinterpretq_s8_u8(w.v[i]), all); });
    }
};
#endif

}  // namespace decodery
