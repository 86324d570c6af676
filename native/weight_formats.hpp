// Packed weights: blocks of 16 outputs, and in a block one group of 32 inputs after the other, so that a product reads
// a weight sequentially.
//
// A group holds the codes of 16 x 32 weights, then 16 scales, then 16 minima: weight = scale * (code - zero) +
// minimum. One load of 64 bytes has four inputs for each output (with 4 bits eight, in low and high nibbles).
#pragma once
#include <cstdint>
#include <cstring>

namespace decodery {

// Bits: of a code. ScaleBytes: of a scale (2: float16, 4: float32). Minimum: true if there are minima. Parts: the
// number of scales of a group, each for an equal part of its inputs. Table: true if a code is an index of kFp4.
template <int Bits, int ScaleBytes, bool Minimum, int Parts, bool Table = false>
struct Coded {
    static constexpr int kBits = Bits, kScaleBytes = ScaleBytes, kParts = Parts;
    static constexpr bool kFloat = false, kMinimum = Minimum, kTable = Table;
    static constexpr int kZero = Minimum ? 0 : Table ? 16 : Bits == 4 ? 8 : 128;
    static constexpr int kPadding = Table ? 0 : kZero;  // The code of the weight 0.
    static constexpr int kLoads = Bits;  // The loads of 64 bytes in a group.
    static constexpr int kScales = kLoads * 64, kMinima = kScales + 16 * Parts * ScaleBytes;
    static constexpr int kGroup = kMinima + (Minimum ? 16 * Parts * ScaleBytes : 0);
};

// Twice the numbers of four bits of the Open Compute Project's microscaling formats (E2M1), plus 16.
alignas(16) constexpr uint8_t kFp4[16] = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4};

// Floats of 2 (bfloat16) or 4 bytes; a load has two or one of them for each output.
template <int Bytes>
struct Floats {
    static constexpr bool kFloat = true;
    static constexpr int kBytes = Bytes;
};

using Int4Min = Coded<4, 2, true, 1>;
using Int4 = Coded<4, 2, false, 1>;
using Int4MinWide = Coded<4, 4, true, 1>;
using Int8 = Coded<8, 2, false, 1>;
using Int8Min = Coded<8, 2, true, 1>;
using Int8MinWide = Coded<8, 4, true, 1>;
using Int8Halves = Coded<8, 4, false, 2>;
using Fp4 = Coded<4, 4, false, 1, true>;
using Bfloat = Floats<2>;
using Float = Floats<4>;

// Calls fn with a value of the format's type; the numbers are those of decodery.kernels.packed_weights.
template <class Fn>
inline void with_format(int64_t format, Fn fn) {
    switch (format) {
        case 0: fn(Int4Min{}); break;
        case 1: fn(Int4{}); break;
        case 2: fn(Int4MinWide{}); break;
        case 3: fn(Int8{}); break;
        case 4: fn(Int8Min{}); break;
        case 5: fn(Int8MinWide{}); break;
        case 6: fn(Int8Halves{}); break;
        case 7: fn(Bfloat{}); break;
        case 8: fn(Float{}); break;
        case 9: fn(Fp4{}); break;
    }
}

inline int64_t blocks_of(int64_t outs) { return (outs + 15) / 16; }
inline int64_t groups_of(int64_t ins) { return (ins + 31) / 32; }

template <class W>
inline int64_t block_bytes(int64_t ins) {
    if constexpr (W::kFloat) {
        return (ins + 4 / W::kBytes - 1) / (4 / W::kBytes) * 64;
    } else {
        return groups_of(ins) * W::kGroup;
    }
}

}  // namespace decodery
