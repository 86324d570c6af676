// Converts GGML's quantised blocks to codes, scales and minima with the same values, 32 weights at a time.
//
// Dequantised in float32, the values are those of ggml's own order of operations, bit for bit. The layouts are those of
// ggml-common.h and ggml-quants.c (https://github.com/ggml-org/ggml).
#pragma once
#include <cstdint>
#include <cstring>

#include "weight_formats.hpp"

namespace decodery {

// 32 weights. Scales and minima are float16 or float32, as in the packed weight, one for each part of the group.
struct Group {
    uint8_t codes[32];
    uint8_t scales[8];
    uint8_t minima[8];
};

// The low, or the high, halves of 16 (or 32) bytes.
inline void low_halves(const uint8_t* from, int count, uint8_t* to) {
    for (int k = 0; k < count; k++) to[k] = from[k] & 15;
}
inline void high_halves(const uint8_t* from, int count, uint8_t* to) {
    for (int k = 0; k < count; k++) to[k] = from[k] >> 4;
}
inline void nibbles(const uint8_t* from, uint8_t* to) {
    low_halves(from, 16, to);
    high_halves(from, 16, to + 16);
}

// Adds the fifth bits of 32 codes, which are stored separately as one number of 32 bits.
inline void fifth_bits(const uint8_t* from, uint8_t* codes, int offset) {
    for (int k = 0; k < 32; k++) codes[k] = static_cast<uint8_t>((codes[k] | (from[k / 8] >> k % 8 & 1) << 4) + offset);
}

template <class S>
float half_at(const uint8_t* p) {
    uint16_t h;
    std::memcpy(&h, p, 2);
    return S::half(h);
}

struct Q4_0 {
    using Form = Int4;
    static constexpr int kBytes = 18, kGroups = 1;
    template <class S>
    static void group(const uint8_t* block, int, Group& to) {
        std::memcpy(to.scales, block, 2);
        nibbles(block + 2, to.codes);
    }
};

struct Q4_1 {
    using Form = Int4Min;
    static constexpr int kBytes = 20, kGroups = 1;
    template <class S>
    static void group(const uint8_t* block, int, Group& to) {
        std::memcpy(to.scales, block, 2);
        std::memcpy(to.minima, block + 2, 2);
        nibbles(block + 4, to.codes);
    }
};

struct Q5_0 {
    using Form = Int8;
    static constexpr int kBytes = 22, kGroups = 1;
    template <class S>
    static void group(const uint8_t* block, int, Group& to) {
        std::memcpy(to.scales, block, 2);
        nibbles(block + 6, to.codes);
        fifth_bits(block + 2, to.codes, Form::kZero - 16);
    }
};

struct Q5_1 {
    using Form = Int8Min;
    static constexpr int kBytes = 24, kGroups = 1;
    template <class S>
    static void group(const uint8_t* block, int, Group& to) {
        std::memcpy(to.scales, block, 2);
        std::memcpy(to.minima, block + 2, 2);
        nibbles(block + 8, to.codes);
        fifth_bits(block + 4, to.codes, 0);
    }
};

struct Q8_0 {
    using Form = Int8;
    static constexpr int kBytes = 34, kGroups = 1;
    template <class S>
    static void group(const uint8_t* block, int, Group& to) {
        std::memcpy(to.scales, block, 2);
        for (int k = 0; k < 32; k++) to.codes[k] = block[2 + k] ^ Form::kZero;
    }
};

// A K block has eight groups. Their scales and minima are integers of six bits times two scales of the block.
template <class S>
void six_bit_scales(const uint8_t* block, int g, Group& to) {
    const uint8_t *first = block + 4, *second = block + 8, *last = block + 12;
    const int scale = g < 4 ? first[g] & 63 : (last[g - 4] & 15) | first[g - 4] >> 6 << 4;
    const int minimum = g < 4 ? second[g] & 63 : last[g - 4] >> 4 | second[g - 4] >> 6 << 4;
    const float s = half_at<S>(block) * static_cast<float>(scale);
    const float m = -(half_at<S>(block + 2) * static_cast<float>(minimum));
    std::memcpy(to.scales, &s, 4);
    std::memcpy(to.minima, &m, 4);
}

struct Q4_K {
    using Form = Int4MinWide;
    static constexpr int kBytes = 144, kGroups = 8;
    template <class S>
    static void group(const uint8_t* block, int g, Group& to) {
        six_bit_scales<S>(block, g, to);
        (g % 2 ? high_halves : low_halves)(block + 16 + g / 2 * 32, 32, to.codes);
    }
};

struct Q5_K {
    using Form = Int8MinWide;
    static constexpr int kBytes = 176, kGroups = 8;
    template <class S>
    static void group(const uint8_t* block, int g, Group& to) {
        six_bit_scales<S>(block, g, to);
        (g % 2 ? high_halves : low_halves)(block + 48 + g / 2 * 32, 32, to.codes);
        for (int k = 0; k < 32; k++) to.codes[k] |= static_cast<uint8_t>((block[16 + k] >> g & 1) << 4);
    }
};

struct Q6_K {
    using Form = Int8Halves;
    static constexpr int kBytes = 210, kGroups = 8;
    template <class S>
    static void group(const uint8_t* block, int g, Group& to) {
        const int half = g / 4, quarter = g % 4;
        (quarter / 2 ? high_halves : low_halves)(block + half * 64 + quarter % 2 * 32, 32, to.codes);
        const uint8_t* high = block + 128 + half * 32;
        for (int k = 0; k < 32; k++)
            to.codes[k] = static_cast<uint8_t>((to.codes[k] | (high[k] >> 2 * quarter & 3) << 4) + Form::kZero - 32);
        for (int part = 0; part < 2; part++) {
            const auto own = static_cast<int8_t>(block[192 + g * 2 + part]);
            const float scale = static_cast<float>(own) * half_at<S>(block + 208);
            std::memcpy(to.scales + part * 4, &scale, 4);
        }
    }
};

// The scale is a power of two.
struct Mxfp4 {
    using Form = Fp4;
    static constexpr int kBytes = 17, kGroups = 1;
    template <class S>
    static void group(const uint8_t* block, int, Group& to) {
        // Half of 2^(exponent - 127), since kFp4 has twice the numbers; the two smallest are subnormal.
        const uint32_t bits = block[0] < 2 ? 0x00200000u << block[0] : static_cast<uint32_t>(block[0] - 1) << 23;
        std::memcpy(to.scales, &bits, 4);
        nibbles(block + 1, to.codes);
    }
};

// Calls fn with a value of the type of this number in GGML.
template <class Fn>
inline void with_block_type(int64_t number, Fn fn) {
    switch (number) {
        case 2: fn(Q4_0{}); break;
        case 3: fn(Q4_1{}); break;
        case 6: fn(Q5_0{}); break;
        case 7: fn(Q5_1{}); break;
        case 8: fn(Q8_0{}); break;
        case 12: fn(Q4_K{}); break;
        case 13: fn(Q5_K{}); break;
        case 14: fn(Q6_K{}); break;
        case 39: fn(Mxfp4{}); break;
    }
}

}  // namespace decodery
