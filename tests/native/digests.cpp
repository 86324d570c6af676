// Runs every kernel on numbers that do not depend on the machine, and prints a digest of each result. The results of two
// instruction sets, or of two architectures, have the same bits if the lines are equal: `make test-arm` compares them.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "../../native/abi.hpp"
#include "../../native/simd_portable.hpp"
#include "../../native/weight_formats.hpp"

extern "C" {
int decodery_use(int set);
void decodery_threads(int count);
int64_t decodery_packed_bytes(int64_t format, int64_t blocks, int64_t ins);
void decodery_run(const int64_t* program, int64_t count);
int64_t decodery_plan_attention(const int64_t* starts, const int64_t* lengths, const int64_t* keys, const int64_t* pages,
                                int64_t sequences, int64_t window, int64_t chunk, int64_t causal, int32_t* work,
                                int64_t capacity, int64_t* slots);
}

using namespace decodery;
using Floats32 = std::vector<float>;

namespace {

// xorshift32 (Marsaglia, 2003).
struct Random {
    uint32_t state = 2463534242u;
    uint32_t next() {
        state ^= state << 13;
        state ^= state >> 17;
        return state ^= state << 5;
    }
    float number() { return static_cast<float>(static_cast<int32_t>(next() % 4001) - 2000) / 500.0f; }
    Floats32 numbers(int64_t count) {
        Floats32 x(static_cast<size_t>(count));
        for (float& one : x) one = number();
        return x;
    }
    // Numbers among which are infinities, NaN, subnormal and very large numbers.
    Floats32 wild_numbers(int64_t count) {
        const float inf = std::numeric_limits<float>::infinity();
        const float special[] = {inf, -inf, NAN, 1e-41f, -3e38f, 3e9f, -0.0f};
        Floats32 x = numbers(count);
        for (float& one : x)
            if (next() % 50 == 0) one = special[next() % 7];
        return x;
    }
};

// FNV-1a of 64 bits.
struct Digest {
    uint64_t state = 14695981039346656037u;
    void byte(uint8_t b) { state = (state ^ b) * 1099511628211u; }
    // A NaN counts as the same as any other: its sign and payload differ between processors.
    void add(const Floats32& x) {
        for (float one : x) {
            uint32_t bits = 0x7fc00000;
            if (!std::isnan(one)) std::memcpy(&bits, &one, 4);
            for (int i = 0; i < 4; i++) byte(static_cast<uint8_t>(bits >> 8 * i));
        }
    }
    template <class T> void add(const std::vector<T>& x) {
        const auto* bytes = reinterpret_cast<const uint8_t*>(x.data());
        for (size_t i = 0; i < x.size() * sizeof(T); i++) byte(bytes[i]);
    }
};

template <class... Parts>
void print(const std::string& name, const Parts&... parts) {
    Digest digest;
    (digest.add(parts), ...);
    std::printf("%s %016llx\n", name.c_str(), static_cast<unsigned long long>(digest.state));
}

template <class Args>
void call(KernelId kernel, const Args& args) {
    static_assert(sizeof(Args) <= 8 * (kWords - 1));
    int64_t program[kWords] = {kernel};
    std::memcpy(program + 1, &args, sizeof args);
    decodery_run(program, 1);
}

Random random_numbers;

std::vector<uint8_t> random_bytes(int64_t count, uint32_t end) {
    std::vector<uint8_t> x(static_cast<size_t>(count));
    for (auto& one : x) one = static_cast<uint8_t>(random_numbers.next() % end);
    return x;
}

// Scales of 2 or 4 bytes.
std::vector<uint8_t> random_scales(int64_t count, int bytes) {
    std::vector<uint8_t> x(static_cast<size_t>(count * bytes));
    for (int64_t i = 0; i < count; i++) {
        const float wide = random_numbers.number() * 0.1f;
        const uint16_t half = Portable::to_half(wide);
        if (bytes == 4) std::memcpy(x.data() + 4 * i, &wide, 4);
        else std::memcpy(x.data() + 2 * i, &half, 2);
    }
    return x;
}

// A packed weight of random codes.
std::vector<uint8_t> weight(int64_t format, int64_t outs, int64_t ins, bool gated) {
    const int64_t blocks = gated ? 2 * blocks_of(outs / 2) : blocks_of(outs);
    std::vector<uint8_t> packed(static_cast<size_t>(decodery_packed_bytes(format, blocks, ins)) + 64);
    std::vector<uint8_t> codes, scales, minima;
    with_format(format, [&](auto form) {
        using W = decltype(form);
        if constexpr (W::kFloat) {
            const Floats32 values = random_numbers.numbers(outs * ins);
            for (float value : values) {
                uint8_t bytes[4];
                std::memcpy(bytes, &value, 4);
                codes.insert(codes.end(), bytes + 4 - W::kBytes, bytes + 4);
            }
        } else {
            const int64_t parts = groups_of(ins) * W::kParts;
            codes = random_bytes(outs * ins, 1u << W::kBits);
            scales = random_scales(outs * parts, W::kScaleBytes);
            if (W::kMinimum) minima = random_scales(outs * parts, W::kScaleBytes);
        }
    });
    call(kPack, PackArgs{codes.data(), scales.data(), minima.data(), outs, ins, format, gated, packed.data(), 0});
    return packed;
}

void products() {
    for (int64_t format = 0; format < 10; format++) {
        for (int64_t ins : {33, 100}) {
            const int64_t outs = ins == 33 ? 5 : 70;
            const auto plain = weight(format, outs, ins, false), gated = weight(format, 2 * outs, ins, true);
            print("pack " + std::to_string(format), plain, gated);
            for (int64_t rows : {1, 4, 5, 40}) {
                const auto x = rows == 4 ? random_numbers.wild_numbers(rows * ins) : random_numbers.numbers(rows * ins);
                const auto bias = random_numbers.numbers(2 * outs), residual = random_numbers.numbers(rows * outs);
                Floats32 out(static_cast<size_t>(rows * outs)), activated = out;
                call(kLinear, LinearArgs{x.data(), ins, rows, plain.data(), outs, ins, format, bias.data(), residual.data(),
                                         outs, out.data(), outs, 0});
                call(kLinear, LinearArgs{x.data(), ins, rows, gated.data(), outs, ins, format, bias.data(), nullptr, 0,
                                         activated.data(), outs, 1 + rows % 5});
                print("linear " + std::to_string(format) + " " + std::to_string(rows), out, activated);
            }
            const std::vector<int64_t> ids = {0, outs - 1, -1, outs, 2};
            Floats32 out(ids.size() * static_cast<size_t>(ins));
            call(kEmbedding, EmbeddingArgs{ids.data(), 5, plain.data(), outs, ins, format, 1.5, nullptr, 0, out.data()});
            print("embedding " + std::to_string(format), out);
        }
    }
}

void experts() {
    constexpr int64_t kRows = 7, kAll = 6, kCount = 2, kWidth = 40, kInner = 24;
    const auto scores = random_numbers.numbers(kRows * kAll), bias = random_numbers.numbers(kAll);
    for (int64_t sigmoid : {0, 1}) {
        std::vector<int64_t> ids(kRows * kCount);
        Floats32 weights(kRows * kCount);
        call(kRoute, RouteArgs{scores.data(), kAll, kRows, kAll, kCount, sigmoid, 1, 2.5, -1.0, 3, 2, 2,
                               sigmoid ? bias.data() : nullptr, nullptr, ids.data(), weights.data()});
        print("route " + std::to_string(sigmoid), ids, weights);
        const auto x = random_numbers.numbers(kRows * kWidth);
        for (int64_t format : {1, 8}) {
            const auto gate_up = weight(format, 2 * kInner * kAll, kWidth, true);
            const auto down = weight(format, kWidth * kAll, kInner, false);
            const int64_t gate_up_step = decodery_packed_bytes(format, 2 * blocks_of(kInner), kWidth);
            const int64_t down_step = decodery_packed_bytes(format, blocks_of(kWidth), kInner);
            Floats32 out(kRows * kWidth);
            // The experts overlap in the weights, which changes nothing about the law.
            call(kExperts, ExpertsArgs{x.data(), kWidth, kRows, ids.data(), weights.data(), kCount, 4, gate_up.data(), format,
                                       gate_up_step, down.data(), format, down_step, kWidth, kInner, nullptr, nullptr, 0,
                                       0, nullptr, 0, out.data()});
            print("experts " + std::to_string(format), out);
        }
    }
}

void rows_of_numbers() {
    constexpr int64_t kRows = 5, kHeads = 2;
    for (int64_t width : {1, 6, 17, 64, 576}) {
        const int64_t row = kHeads * width;
        const auto x = width == 64 ? random_numbers.wild_numbers(kRows * row) : random_numbers.numbers(kRows * row);
        const auto scale = random_numbers.numbers(width), shift = random_numbers.numbers(width);
        Floats32 out(x.size()), other(x.size());
        call(kNorm, NormArgs{x.data(), row, width, kRows, kHeads, width, scale.data(), 0, 1e-5, out.data(), nullptr, 0, 0});
        call(kLayerNorm, LayerNormArgs{x.data(), row, width, kRows, kHeads, width, scale.data(), shift.data(), 0, 1e-5,
                                       other.data(), nullptr, 0, 0});
        print("norm " + std::to_string(width), out, other);
        call(kJoin, JoinArgs{x.data(), row, 0, kRows, kHeads, width, out.data(), row, width});
        call(kMultiply, MultiplyArgs{x.data(), row, scale.data(), 0, 0, kRows, width, other.data()});
        print("join and multiply " + std::to_string(width), out, other);
        for (int64_t activation : {0, 1, 2, 3}) {
            call(kActivate, ActivateArgs{x.data(), row, kRows, row, activation, 0, out.data(), 0.0});
            call(kActivate, ActivateArgs{x.data(), row, kRows, width, activation, 1, other.data(), 0.0});
            print("activate " + std::to_string(activation) + " " + std::to_string(width), out, other);
        }
    }
    for (int64_t dim : {2, 40, 128}) {
        const auto x = random_numbers.numbers(kRows * kHeads * dim), cos = random_numbers.numbers(kRows * dim);
        const auto sin = random_numbers.numbers(kRows * dim);
        Floats32 out(x.size());
        call(kRotary, RotaryArgs{x.data(), kHeads * dim, kRows, kHeads, dim, dim, cos.data(), sin.data(), out.data(),
                                 kHeads * dim});
        print("rotary " + std::to_string(dim), out);
    }
}

// One sequence of `tokens` keys, whose last `queries` are the queries.
struct Attending {
    int64_t tokens, queries, type, window = 0, chunk = 0, causal = 1;
    double softcap = 0.0;
    bool sinks = false;
};

void attend(const Attending& of, const std::string& name) {
    constexpr int64_t kHeads = 4, kKvHeads = 2, kDim = 40, kValueDim = 24, kPage = 16;
    const int64_t bytes = of.type == 0 ? 4 : of.type == 3 ? 1 : 2, extra = of.type == 3 ? 4 : 0;
    const int64_t pages = (of.tokens + kPage - 1) / kPage, k_page = kKvHeads * kPage * (kDim + extra);
    const int64_t v_page = kKvHeads * kPage * (kValueDim + extra);
    std::vector<uint8_t> keys(static_cast<size_t>(pages * k_page * bytes)), values(static_cast<size_t>(pages * v_page * bytes));
    std::vector<int32_t> table(static_cast<size_t>(pages));
    std::vector<int64_t> slots(static_cast<size_t>(of.tokens));
    for (int64_t i = 0; i < pages; i++) table[static_cast<size_t>(i)] = static_cast<int32_t>(pages - 1 - i);
    for (int64_t i = 0; i < of.tokens; i++)
        slots[static_cast<size_t>(i)] = table[static_cast<size_t>(i / kPage)] * kPage + i % kPage;
    const auto k = random_numbers.numbers(of.tokens * kKvHeads * kDim);
    const auto v = random_numbers.numbers(of.tokens * kKvHeads * kValueDim);
    AttentionStep step{of.tokens, slots.data(), table.data(), nullptr, 0, 0, of.window, of.chunk, of.causal};
    call(kWriteKv, WriteKvArgs{k.data(), kKvHeads * kDim, v.data(), kKvHeads * kValueDim, &step, keys.data(), values.data(),
                               k_page, v_page, kKvHeads, kDim, kValueDim, of.type});
    const int64_t start = of.tokens - of.queries, first = 0;
    std::vector<int32_t> work(9 * 4096);
    step.tokens = of.queries;
    step.works = decodery_plan_attention(&start, &of.queries, &of.tokens, &first, 1, of.window, of.chunk, of.causal,
                                         work.data(), 4096, &step.partials);
    step.work = work.data();
    const auto q = random_numbers.numbers(of.queries * kHeads * kDim), sinks = random_numbers.numbers(kHeads);
    Floats32 out(static_cast<size_t>(of.queries * kHeads * kValueDim));
    call(kAttention, AttentionArgs{q.data(), kHeads * kDim, kHeads, kKvHeads, kDim, kValueDim, keys.data(), values.data(),
                                   k_page, v_page, of.type, &step, 0.2, of.softcap, out.data(), nullptr, 0, 0,
                                   of.sinks ? sinks.data() : nullptr});
    print(name + " " + std::to_string(of.type), keys, values, out);
}

void attention() {
    for (int64_t type : {0, 1, 2, 3}) {
        attend({.tokens = 1, .queries = 1, .type = type}, "attention of one");
        attend({.tokens = 300, .queries = 1, .type = type, .softcap = 2.0}, "attention of a long text");
        attend({.tokens = 300, .queries = 40, .type = type, .sinks = true}, "attention of many queries");
        attend({.tokens = 300, .queries = 5, .type = type, .window = 100}, "attention in a window");
        attend({.tokens = 90, .queries = 30, .type = type, .chunk = 23, .causal = 0}, "attention in chunks");
    }
}

constexpr int64_t kRows = 4, kVocab = 1003, kWordsOfRow = (kVocab + 31) / 32;

// The choice of a row's first token: after one stage that gave `after`, and after the stages of args.
void describe(const Floats32& x, const Floats32& after, const FusedSamplingArgs& args, const Floats32& borders,
              const std::string& kind) {
    constexpr int64_t kShown = 20;
    const float* stages[] = {after.data()};
    for (bool fused : {false, true}) {
        const int64_t count = fused ? int64_t{kFusedStages} : 1;
        std::vector<int64_t> whole(static_cast<size_t>(4 + count + 2 * kShown + 1));
        std::vector<double> numbers(static_cast<size_t>(2 + (kShown + 1) * (3 + count)));
        const DescribedChoice choice{x.data(), 0, kShown, 1, {5, 6}, stages, fused ? 0 : 1, fused ? &args : nullptr,
                                     borders.data(), nullptr, whole.data(), numbers.data()};
        call(kDescribe, DescribeArgs{&choice, 1, kVocab});
        print("describe " + kind, whole, Floats32(numbers.begin(), numbers.end()));
    }
}

void selections(const Floats32& x, const std::string& kind) {
    std::vector<uint32_t> words(kRows * kWordsOfRow);
    for (auto& word : words) word = random_numbers.next();
    std::vector<int64_t> places(kRows), leaders(kRows * 40), counts(kRows);
    Floats32 values(kRows * 40), out(x.size()), entropies(kRows), mass(kRows, 0.9f), border(kRows);
    std::vector<double> norms(kRows);
    call(kLargest, LargestArgs{x.data(), kVocab, kRows, kVocab, places.data(), words.data(), kWordsOfRow});
    print("largest " + kind, places);
    for (int64_t logprobs : {0, 1}) {
        call(kLeaders, LeadersArgs{x.data(), kVocab, kRows, kVocab, 40, values.data(), leaders.data(), logprobs});
        print("leaders " + kind, values, leaders);
    }
    call(kLogSoftmax, LogSoftmaxArgs{x.data(), kVocab, kRows, kVocab, out.data(), norms.data()});
    // The norms of double precision may differ in their last bits, as the system's logarithms do.
    print("log softmax " + kind, out, Floats32(norms.begin(), norms.end()));
    call(kNucleus, NucleusArgs{x.data(), kVocab, kRows, kVocab, out.data(), kVocab, mass.data(), border.data()});
    print("nucleus " + kind, border);
    call(kEntropy, EntropyArgs{out.data(), kVocab, kRows, kVocab, entropies.data()});
    call(kCountAbove, CountAboveArgs{x.data(), kVocab, kRows, kVocab, values.data(), counts.data()});
    print("entropy and count " + kind, entropies, counts);
    std::vector<int32_t> keys = {1, 2, -3, 4, 5, -6, 7, 8};
    call(kDraw, DrawArgs{x.data(), kVocab, kRows, kVocab, keys.data(), places.data()});
    print("draw " + kind, places);
    Floats32 borders(kRows * kCuts);
    std::vector<FusedSamplingArgs> args(kRows, FusedSamplingArgs{leaders.data(), 9, leaders.data(), 4, 1.3, 0.4, 0.2, 0.8, 0.9,
                                                                 -5.0, 30, 64, {5, 6}});
    Floats32 copy = x;
    call(kChoose, ChooseArgs{copy.data(), kVocab, kRows, kVocab, args.data(), places.data(), borders.data()});
    print("choose " + kind, places, copy, borders);
    describe(x, out, args[0], borders, kind);
}

void changes() {
    const auto x = random_numbers.numbers(kRows * kVocab);
    std::vector<uint32_t> words(kRows * kWordsOfRow);
    for (auto& word : words) word = random_numbers.next();
    Floats32 changed = x, least(kRows, 0.5f), divisors = {0.7f, 1.0f, 1.3f, 3.0f};
    call(kMask, MaskArgs{changed.data(), kVocab, kRows, kVocab, words.data(), kWordsOfRow});
    call(kDivide, DivideArgs{changed.data(), kVocab, kRows, kVocab, divisors.data()});
    print("mask and divide", changed);
    call(kCutBelow, CutBelowArgs{changed.data(), kVocab, kRows, kVocab, x.data(), kVocab, least.data()});
    const std::vector<int64_t> known = {3, 5, 5, 999, -1, 4000}, counts(kRows, 6);
    const std::vector<const int64_t*> tokens(kRows, known.data());
    const std::vector<double> penalties(kRows, 1.7), others(kRows, 0.3);
    call(kRepetition, RepetitionArgs{changed.data(), kVocab, kRows, kVocab, tokens.data(), counts.data(), penalties.data()});
    call(kFrequency, FrequencyArgs{changed.data(), kVocab, kRows, kVocab, tokens.data(), counts.data(), penalties.data(),
                                   others.data()});
    print("penalties", changed);
    const std::vector<int64_t> sources = {2, 0, 1, 3}, targets = {0, 1, 2, 3};
    Floats32 out(x.size());
    call(kCopy, CopyArgs{x.data(), kVocab, kRows, kVocab, sources.data(), out.data(), kVocab, targets.data()});
    call(kSpread, SpreadArgs{changed.data(), kVocab, kRows, kVocab, x.data(), targets.data(), 1});
    print("copy and spread", out, changed);
    std::vector<int32_t> keys, ids;
    for (int32_t i = 0; i < 50; i++) keys.insert(keys.end(), {i * 77, -i}), ids.push_back(i * i);
    Floats32 noise(50);
    call(kNoise, NoiseArgs{keys.data(), ids.data(), 50, noise.data()});
    print("noise", noise);
}

// Sines and cosines are the system's, which may differ in their last bits.
void angles() {
    const std::vector<int64_t> positions = {0, 1, 100, 8000};
    const Floats32 frequencies = {1.0f, 0.3f, 0.01f, 0.002f};
    Floats32 cos(4 * 8), sin(4 * 8);
    call(kAngles, AnglesArgs{positions.data(), 4, frequencies.data(), 4, 1.1, 0.0, nullptr, 0.1, 8192, 0, cos.data(),
                             sin.data()});
    std::vector<int32_t> rounded;
    for (const auto& part : {cos, sin})
        for (float value : part) rounded.push_back(static_cast<int32_t>(std::lround(value * 1e5f)));
    print("angles", rounded);
}

}  // namespace

// The argument is the number of the instruction set, as in `decodery_use`; 3 is the status of one that is not there.
int main(int count, char** arguments) {
    if (count != 2 || !decodery_use(std::atoi(arguments[1]))) return 3;
    decodery_threads(2);
    products();
    experts();
    rows_of_numbers();
    attention();
    selections(random_numbers.numbers(kRows * kVocab), "tame");
    selections(random_numbers.wild_numbers(kRows * kVocab), "wild");
    changes();
    angles();
}
