// Packs weights, and reads rows of packed weights.
#pragma once
#include <cstring>
#include <type_traits>

#include "abi.hpp"
#include "ggml_blocks.hpp"
#include "weight_formats.hpp"

namespace decodery {

template <class S, class W>
struct Packing {
    // The row of the matrix in a lane of a block, or -1 for padding. If gated, blocks of gate and up alternate.
    static int64_t source_row(const PackArgs& a, int64_t block, int lane) {
        const int64_t width = a.gated ? a.outs / 2 : a.outs;
        const int64_t row = (a.gated ? block / 2 : block) * 16 + lane;
        return row >= width ? -1 : a.gated && block % 2 ? width + row : row;
    }

    static int64_t block_count(const PackArgs& a) { return a.gated ? 2 * blocks_of(a.outs / 2) : blocks_of(a.outs); }

    static void pack(const PackArgs& a, Shared&, int chunk, int chunks, Worker&) {
        const int64_t blocks = block_count(a), bytes = block_bytes<W>(a.ins);
        for (int64_t b = blocks * chunk / chunks; b < blocks * (chunk + 1) / chunks; b++) {
            uint8_t* to = a.weight + b * bytes;
            std::memset(to, 0, static_cast<size_t>(bytes));
            for (int lane = 0; lane < 16; lane++) {
                const int64_t row = source_row(a, b, lane);
                if constexpr (W::kFloat) {
                    if (row >= 0) floats(a, row, lane, to);
                } else if (a.blocks == 0) {
                    codes(a, row, lane, to);
                } else {
                    with_block_type(a.blocks, [&](auto type) {
                        using B = decltype(type);
                        if constexpr (std::is_same_v<typename B::Form, W>) from_blocks<B>(a, row, lane, to);
                    });
                }
            }
        }
    }

    static void floats(const PackArgs& a, int64_t row, int lane, uint8_t* to) {
        constexpr int per_load = 4 / W::kBytes;
        const uint8_t* from = a.codes + row * a.ins * W::kBytes;
        for (int64_t k = 0; k < a.ins; k++)
            std::memcpy(to + k / per_load * 64 + lane * 4 + k % per_load * W::kBytes, from + k * W::kBytes, W::kBytes);
    }

    static void codes(const PackArgs& a, int64_t row, int lane, uint8_t* to) {
        const int64_t groups = groups_of(a.ins);
        Group group;
        for (int64_t g = 0; g < groups; g++, to += W::kGroup) {
            const int64_t left = row < 0 ? 0 : a.ins - g * 32;
            // Padding is the code of zero; minima, where there are any, are zero as well.
            if (left < 32) std::memset(group.codes, W::kPadding, 32);
            if (left > 0) std::memcpy(group.codes, a.codes + row * a.ins + g * 32, left < 32 ? static_cast<size_t>(left) : 32);
            put_codes(group, lane, to);
            if (row < 0) continue;
            const int64_t index = (row * groups + g) * W::kParts * W::kScaleBytes;
            std::memcpy(group.scales, a.scales + index, W::kParts * W::kScaleBytes);
            if constexpr (W::kMinimum) std::memcpy(group.minima, a.minima + index, W::kParts * W::kScaleBytes);
            put_scales(group, lane, to);
        }
    }

    // The same from GGML's blocks; a row is a whole number of blocks.
    template <class B>
    static void from_blocks(const PackArgs& a, int64_t row, int lane, uint8_t* to) {
        const int64_t groups = groups_of(a.ins);
        const uint8_t* from = a.codes + row * (groups / B::kGroups) * B::kBytes;
        Group group;
        if (row < 0) std::memset(group.codes, W::kPadding, 32);
        for (int64_t g = 0; g < groups; g++, to += W::kGroup) {
            if (row >= 0) B::template group<S>(from + g / B::kGroups * B::kBytes, static_cast<int>(g % B::kGroups), group);
            put_codes(group, lane, to);
            if (row >= 0) put_scales(group, lane, to);
        }
    }

    static void put_codes(const Group& group, int lane, uint8_t* to) {
        // Four codes are one word of a lane; with 4 bits, the next four codes are its high nibbles.
        constexpr int step = W::kBits == 4 ? 8 : 4;
        for (int k = 0; k < 32; k += step) {
            uint32_t word, high = 0;
            std::memcpy(&word, group.codes + k, 4);
            if constexpr (W::kBits == 4) std::memcpy(&high, group.codes + k + 4, 4);
            word |= high << 4;
            std::memcpy(to + k / step * 64 + lane * 4, &word, 4);
        }
    }

    static void put_scales(const Group& group, int lane, uint8_t* to) {
        for (int part = 0; part < W::kParts; part++) {
            const int place = (part * 16 + lane) * W::kScaleBytes;
            std::memcpy(to + W::kScales + place, group.scales + part * W::kScaleBytes, W::kScaleBytes);
            if constexpr (W::kMinimum)
                std::memcpy(to + W::kMinima + place, group.minima + part * W::kScaleBytes, W::kScaleBytes);
        }
    }

    static float factor(const uint8_t* p) {
        if constexpr (W::kScaleBytes == 2) {
            uint16_t h;
            std::memcpy(&h, p, 2);
            return S::half(h);
        } else {
            float x;
            std::memcpy(&x, p, 4);
            return x;
        }
    }

    // Dequantises one row. Product and sum are rounded separately, as in other implementations.
    static void row(const uint8_t* weight, int64_t index, int64_t width, float* out) {
        const uint8_t* from = weight + index / 16 * block_bytes<W>(width);
        const int lane = static_cast<int>(index % 16);
        if constexpr (W::kFloat) {
            constexpr int per_load = 4 / W::kBytes;
            for (int64_t k = 0; k < width; k++) {
                uint32_t bits = 0;
                std::memcpy(&bits, from + k / per_load * 64 + lane * 4 + k % per_load * W::kBytes, W::kBytes);
                if (W::kBytes == 2) bits <<= 16;
                std::memcpy(out + k, &bits, 4);
            }
        } else {
            for (int64_t g = 0; g * 32 < width; g++, from += W::kGroup) {
                const int left = static_cast<int>(width - g * 32 < 32 ? width - g * 32 : 32);
                for (int k = 0; k < left; k++) {
                    const int place = (k * W::kParts / 32 * 16 + lane) * W::kScaleBytes;
                    uint8_t code;
                    if constexpr (W::kBits == 4) {
                        code = from[k / 8 * 64 + lane * 4 + k % 4];
                        code = k % 8 < 4 ? code & 15 : code >> 4;
                    } else {
                        code = from[k / 4 * 64 + lane * 4 + k % 4];
                    }
                    if constexpr (W::kTable) code = kFp4[code];
                    const float value = factor(from + W::kScales + place) * static_cast<float>(code - W::kZero);
                    if constexpr (W::kMinimum) out[g * 32 + k] = value + factor(from + W::kMinima + place);
                    else out[g * 32 + k] = value;
                }
            }
        }
    }

    static void embed(const EmbeddingArgs& a, Shared&, int chunk, int chunks, Worker&) {
        for (int64_t i = a.count * chunk / chunks; i < a.count * (chunk + 1) / chunks; i++) {
            float* out = a.out + i * a.width;
            if (a.ids[i] >= 0 && a.ids[i] < a.rows) row(a.weight, a.ids[i], a.width, out);
            else std::memset(out, 0, static_cast<size_t>(a.width) * 4);
            const float scale = static_cast<float>(a.scale);
            if (scale != 1.0f) for (int64_t k = 0; k < a.width; k++) out[k] *= scale;
            if (a.residual) for (int64_t k = 0; k < a.width; k++) out[k] += a.residual[i * a.ldr + k];
        }
    }
};

template <class S>
void plan_pack(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const PackArgs*>(args);
    with_format(a.format, [&](auto format) {
        using P = Packing<S, decltype(format)>;
        const int64_t blocks = P::block_count(a);
        if (blocks > 0 && a.ins > 0) plan.add<P::pack>(a, blocks < 64 ? blocks : 64);
    });
}

template <class S>
void plan_embedding(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const EmbeddingArgs*>(args);
    with_format(a.format, [&](auto format) {
        using P = Packing<S, decltype(format)>;
        if (a.count > 0) plan.add<P::embed>(a, a.count < 16 ? 1 : 4 * plan.threads);
    });
}

}  // namespace decodery
