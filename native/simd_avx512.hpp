// Sixteen lanes in one AVX-512 register, with VNNI's dot products of bytes.
#pragma once
#include <immintrin.h>
#include <cstdint>
#include <cstring>

namespace decodery {

struct Avx512 {
    using F = __m512;
    using I = __m512i;
    using B = __m512i;
    static constexpr int kBlocks = 2, kRows = 8;

    static F load(const float* p) { return _mm512_loadu_ps(p); }
    static __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1); }
    static F load_some(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
    static void store(float* p, F a) { _mm512_storeu_ps(p, a); }
    static void store_some(float* p, F a, int n) { _mm512_mask_storeu_ps(p, first(n), a); }
    static F set1(float x) { return _mm512_set1_ps(x); }
    static F zero() { return _mm512_setzero_ps(); }
    static F add(F a, F b) { return _mm512_add_ps(a, b); }
    static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
    static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
    static F div(F a, F b) { return _mm512_div_ps(a, b); }
    static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
    static F max(F a, F b) { return _mm512_max_ps(a, b); }
    static F min(F a, F b) { return _mm512_min_ps(a, b); }
    static F abs(F a) { return _mm512_abs_ps(a); }
    static float reduce_add(F a) {
        const __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
        __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
        c = _mm_add_ps(c, _mm_movehl_ps(c, c));
        return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
    }
    static float reduce_max(F a) {
        const __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
        __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
        c = _mm_max_ps(c, _mm_movehl_ps(c, c));
        return _mm_cvtss_f32(_mm_max_ss(c, _mm_shuffle_ps(c, c, 1)));
    }
    static I to_int(F a) { return _mm512_cvtps_epi32(a); }
    static F to_float(I a) { return _mm512_cvtepi32_ps(a); }
    static F power_of_two(I n) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23));
    }
    static float half(uint16_t h) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h))); }
    static F load_half(const uint16_t* p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }
    static void store_half(uint16_t* p, F a) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
    }
    static F load_bfloat(const uint16_t* p) {
        const I wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
        return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
    }
    static F load_codes(const int8_t* p) {
        return to_float(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
    }
    static F first_bfloat(B b) { return _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)); }
    static F second_bfloat(B b) {
        return _mm512_castsi512_ps(_mm512_and_si512(b, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
    }

    static uint32_t above(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLE_UQ); }
    static uint32_t equal(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
    static F pick(uint32_t bits, F a, F b) { return _mm512_mask_blend_ps(static_cast<__mmask16>(bits), b, a); }

    static I iota() { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
    static I as_int(F a) { return _mm512_castps_si512(a); }
    static F as_float(I a) { return _mm512_castsi512_ps(a); }
    static I add_int(I a, I b) { return _mm512_add_epi32(a, b); }
    static I sub_int(I a, I b) { return _mm512_sub_epi32(a, b); }
    static I mul_int(I a, I b) { return _mm512_mullo_epi32(a, b); }
    static I xor_int(I a, I b) { return _mm512_xor_si512(a, b); }
    static I and_int(I a, I b) { return _mm512_and_si512(a, b); }
    template <int N> static I shift_right(I a) { return _mm512_srli_epi32(a, N); }
    static I load_int(const int32_t* p) { return _mm512_loadu_si512(p); }
    static I set1_int(int32_t x) { return _mm512_set1_epi32(x); }
    // The sums of the lanes of x and of y.
    static void store_sums(int32_t* p, I x, I y) {
        const I both = _mm512_add_epi32(_mm512_unpacklo_epi32(x, y), _mm512_unpackhi_epi32(x, y));
        const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64(both, 1));
        const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_add_epi32(four, _mm_unpackhi_epi64(four, four)));
    }
    static void store_bytes(int8_t* p, I a) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(a));
    }
    static void store_words(uint16_t* p, I a) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(a));
    }
    static B load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
    static B low_nibbles(B b) { return _mm512_and_si512(b, _mm512_set1_epi8(15)); }
    static B high_nibbles(B b) { return _mm512_and_si512(_mm512_srli_epi16(b, 4), _mm512_set1_epi8(15)); }
    static B look_up(B b, const uint8_t* table) {
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(table))), b);
    }
    static I dot(I acc, B w, const int8_t* x) {
        int32_t four;
        std::memcpy(&four, x, 4);
        return _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(four));
    }
    static I dot_small(I acc, B w, const int8_t* x) { return dot(acc, w, x); }
    // Always inlined: GCC assumes that a function that only prefetches has no effect, and removes its calls.
    static inline __attribute__((always_inline)) void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
};

}  // namespace decodery
