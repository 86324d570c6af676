// Sixteen lanes in plain C++: defines every operation that the other instruction sets implement.
//
// A kernel is a template over one of these structs; it works on 16 floats (F), 16 int32 (I) or 64 bytes (B). Every
// operation is exactly rounded, or a fixed sequence of such operations. So a kernel's result has the same bits on every
// instruction set.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace decodery {

struct Portable {
    struct F { float v[16]; };
    struct I { int32_t v[16]; };
    struct B { uint8_t v[64]; };
    // The largest register tile of a product: blocks of 16 outputs times rows of activations.
    static constexpr int kBlocks = 1, kRows = 1;

    template <class Fn> static F each(Fn fn) { F r; for (int i = 0; i < 16; i++) r.v[i] = fn(i); return r; }
    // Applies fn to unsigned integers, modulo 2^32.
    template <class Fn> static I each_unsigned(I a, I b, Fn fn) {
        return each_int([&](int i) { return static_cast<int32_t>(fn(static_cast<uint32_t>(a.v[i]), static_cast<uint32_t>(b.v[i]))); });
    }
    template <class Fn> static I each_int(Fn fn) { I r; for (int i = 0; i < 16; i++) r.v[i] = fn(i); return r; }

    static F load(const float* p) { return each([&](int i) { return p[i]; }); }
    static F load_some(const float* p, int n) { return each([&](int i) { return i < n ? p[i] : 0.0f; }); }
    static void store(float* p, F a) { std::memcpy(p, a.v, 64); }
    static void store_some(float* p, F a, int n) { std::memcpy(p, a.v, static_cast<size_t>(n) * 4); }
    static F set1(float x) { return each([&](int) { return x; }); }
    static F zero() { return set1(0.0f); }
    static F add(F a, F b) { return each([&](int i) { return a.v[i] + b.v[i]; }); }
    static F sub(F a, F b) { return each([&](int i) { return a.v[i] - b.v[i]; }); }
    static F mul(F a, F b) { return each([&](int i) { return a.v[i] * b.v[i]; }); }
    static F div(F a, F b) { return each([&](int i) { return a.v[i] / b.v[i]; }); }
    static F fma(F a, F b, F c) { return each([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); }); }
    // As on x86: the second operand if the first is not greater (less), so also if either is NaN.
    static F max(F a, F b) { return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; }); }
    static F min(F a, F b) { return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; }); }
    static F abs(F a) { return each([&](int i) { return std::fabs(a.v[i]); }); }
    static float reduce_add(F a) {
        for (int h = 8; h; h /= 2) for (int i = 0; i < h; i++) a.v[i] += a.v[i + h];
        return a.v[0];
    }
    static float reduce_max(F a) {
        for (int h = 8; h; h /= 2) for (int i = 0; i < h; i++) a.v[i] = a.v[i] > a.v[i + h] ? a.v[i] : a.v[i + h];
        return a.v[0];
    }
    // Rounds to the nearest, ties to even; a number outside int32 becomes INT32_MIN.
    static I to_int(F a) {
        return each_int([&](int i) {
            const float x = std::nearbyint(a.v[i]);
            return x >= -2147483648.0f && x < 2147483648.0f ? static_cast<int32_t>(x) : INT32_MIN;
        });
    }
    static F to_float(I a) { return each([&](int i) { return static_cast<float>(a.v[i]); }); }
    // 2^n for n in -127 .. 128; 0 at the lower and infinity at the upper end.
    static F power_of_two(I n) {
        return each([&](int i) {
            const uint32_t bits = static_cast<uint32_t>(n.v[i] + 127) << 23;
            float x; std::memcpy(&x, &bits, 4); return x;
        });
    }

    static float half(uint16_t h) {
        const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, magnitude = h & 0x7fff;
        if (magnitude < 0x400) {  // Zero and subnormal numbers.
            const float x = static_cast<float>(magnitude) * 0x1p-24f;
            return sign ? -x : x;
        }
        const uint32_t bits = sign | ((magnitude << 13) + (magnitude >= 0x7c00 ? 0x70000000u : 0x38000000u));
        float x; std::memcpy(&x, &bits, 4); return x;
    }
    static uint16_t to_half(float x) {
        uint32_t bits; std::memcpy(&bits, &x, 4);
        const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
        bits &= 0x7fffffff;
        if (bits > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00 | (bits >> 13 & 0x3ff));
        if (bits >= 0x477ff000) return sign | 0x7c00;
        if (bits < 0x38800000) {  // The sum shifts a subnormal result's bits into place, rounded.
            float tiny; std::memcpy(&tiny, &bits, 4);
            tiny += 0.5f;
            std::memcpy(&bits, &tiny, 4);
            return static_cast<uint16_t>(sign | (bits - 0x3f000000));
        }
        return static_cast<uint16_t>(sign | ((bits + 0xfff + (bits >> 13 & 1) - 0x38000000) >> 13));
    }
    static float bfloat(uint16_t h) {
        const uint32_t bits = static_cast<uint32_t>(h) << 16;
        float x; std::memcpy(&x, &bits, 4); return x;
    }
    static F load_half(const uint16_t* p) { return each([&](int i) { return half(p[i]); }); }
    static F load_bfloat(const uint16_t* p) { return each([&](int i) { return bfloat(p[i]); }); }
    static void store_half(uint16_t* p, F a) { for (int i = 0; i < 16; i++) p[i] = to_half(a.v[i]); }
    static F load_codes(const int8_t* p) { return each([&](int i) { return static_cast<float>(p[i]); }); }
    // The first, or the second, of each of 16 pairs of bfloat16.
    static F first_bfloat(B b) { return each([&](int i) { uint16_t h; std::memcpy(&h, b.v + 4 * i, 2); return bfloat(h); }); }
    static F second_bfloat(B b) { return each([&](int i) { uint16_t h; std::memcpy(&h, b.v + 4 * i + 2, 2); return bfloat(h); }); }

    // A bit for each lane, 1 if a is above b or either is NaN (above), or if they are equal (equal).
    static uint32_t above(F a, F b) { uint32_t m = 0; for (int i = 0; i < 16; i++) m |= uint32_t(!(a.v[i] <= b.v[i])) << i; return m; }
    static uint32_t equal(F a, F b) { uint32_t m = 0; for (int i = 0; i < 16; i++) m |= uint32_t(a.v[i] == b.v[i]) << i; return m; }
    static F pick(uint32_t bits, F a, F b) { return each([&](int i) { return bits >> i & 1 ? a.v[i] : b.v[i]; }); }

    static I iota() { return each_int([](int i) { return i; }); }
    static I as_int(F a) { I r; std::memcpy(r.v, a.v, 64); return r; }
    static F as_float(I a) { F r; std::memcpy(r.v, a.v, 64); return r; }
    static I add_int(I a, I b) { return each_unsigned(a, b, [](uint32_t x, uint32_t y) { return x + y; }); }
    static I sub_int(I a, I b) { return each_unsigned(a, b, [](uint32_t x, uint32_t y) { return x - y; }); }
    static I mul_int(I a, I b) { return each_unsigned(a, b, [](uint32_t x, uint32_t y) { return x * y; }); }
    static I xor_int(I a, I b) { return each_unsigned(a, b, [](uint32_t x, uint32_t y) { return x ^ y; }); }
    static I and_int(I a, I b) { return each_unsigned(a, b, [](uint32_t x, uint32_t y) { return x & y; }); }
    template <int N> static I shift_right(I a) { return each_unsigned(a, a, [](uint32_t x, uint32_t) { return x >> N; }); }
    static I load_int(const int32_t* p) { return each_int([&](int i) { return p[i]; }); }
    static I set1_int(int32_t x) { return each_int([&](int) { return x; }); }
    // The sums of the lanes of x and of y.
    static void store_sums(int32_t* p, I x, I y) {
        p[0] = p[1] = 0;
        for (int i = 0; i < 16; i++) p[0] += x.v[i], p[1] += y.v[i];
    }
    // Stores the low bytes of values in -128 .. 127.
    static void store_bytes(int8_t* p, I a) { for (int i = 0; i < 16; i++) p[i] = static_cast<int8_t>(a.v[i] < -128 ? -128 : a.v[i]); }
    // Stores values in 0 .. 65535.
    static void store_words(uint16_t* p, I a) { for (int i = 0; i < 16; i++) p[i] = static_cast<uint16_t>(a.v[i]); }
    static B load_bytes(const uint8_t* p) { B b; std::memcpy(b.v, p, 64); return b; }
    static B low_nibbles(B b) { for (auto& x : b.v) x &= 15; return b; }
    static B high_nibbles(B b) { for (auto& x : b.v) x >>= 4; return b; }
    // The bytes of a table at indices below 16.
    static B look_up(B b, const uint8_t* table) { for (auto& x : b.v) x = table[x]; return b; }
    // Adds to each lane the product of its four unsigned bytes of w with the four signed bytes at x.
    static I dot(I acc, B w, const int8_t* x) {
        for (int i = 0; i < 16; i++) for (int j = 0; j < 4; j++) acc.v[i] += w.v[4 * i + j] * x[j];
        return acc;
    }
    // The same for bytes of w up to 63.
    static I dot_small(I acc, B w, const int8_t* x) { return dot(acc, w, x); }
    static void prefetch(const void*) {}
};

}  // namespace decodery
