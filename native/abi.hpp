// The interface to Python: programs, which are arrays of calls of kWords 64-bit words each.
//
// The first word of a call names its kernel, the others are that kernel's arguments: addresses, counts, strides in
// elements, and doubles. `decodery_run` executes the calls of a program in order.
#pragma once
#include <cstdint>
#include <vector>

#include "team.hpp"

namespace decodery {

constexpr int kWords = 24;

enum KernelId : int64_t {
    kLinear, kPack, kEmbedding, kNorm, kRotary, kActivate, kWriteKv, kAttention, kAngles, kLargest, kLeaders,
    kLogSoftmax, kCountAbove, kCutBelow, kNucleus, kDraw, kNoise, kMask, kDivide, kCopy, kSpread, kEntropy, kRepetition,
    kFrequency, kLayerNorm, kChoose, kRoute, kExperts, kJoin, kMultiply, kDescribe, kKernelCount
};

// out [rows, outs] with row stride ldo is x [rows, ins] with row stride ldx times the packed weight [outs, ins], plus
// bias [outs] and residual [rows, outs], where given. If gated is negative, the activation of number -1 - gated is applied
// before the residual is added. If it is positive, the weight has 2 * outs rows, packed so that
// gate and up alternate, bias is [2 * outs], and out is activation(gate) * up with the activation of number gated - 1.
struct LinearArgs {
    const float* x; int64_t ldx, rows;
    const uint8_t* weight; int64_t outs, ins, format;
    const float* bias;
    const float* residual; int64_t ldr;
    float* out; int64_t ldo;
    int64_t gated;
};

// Interleaves codes [outs, ins] (uint8, bfloat16 or float32), scales and minima [outs, groups] into a weight. If
// `blocks` is not 0, it is the number of a GGML type, and codes are rows of its blocks, which hold their own scales.
struct PackArgs {
    const uint8_t* codes; const uint8_t* scales; const uint8_t* minima;
    int64_t outs, ins, format, gated;
    uint8_t* weight;
    int64_t blocks;
};

// out [count, width]: the rows ids [count] of a packed weight [rows, width] that is not gated, or 0 for an invalid id,
// times scale, plus residual [count, width] with row stride ldr, where given.
struct EmbeddingArgs {
    const int64_t* ids; int64_t count;
    const uint8_t* weight; int64_t rows, width, format;
    double scale;
    const float* residual; int64_t ldr;
    float* out;
};

// out [rows, heads, width] is the norm of x, plus residual, where given. These have the row strides ldx and ldr, and the
// distances head_x and head_r between heads.
// x [rows, heads, width] with strides ldx and head_x. The heads' weights, and biases, are head_w apart: 0 if they share
// one.
struct NormArgs {
    const float* x; int64_t ldx, head_x, rows, heads, width;
    const float* weight; int64_t head_w; double eps;
    float* out;
    const float* residual; int64_t ldr, head_r;
};

struct LayerNormArgs {
    const float* x; int64_t ldx, head_x, rows, heads, width;
    const float* weight; const float* bias; int64_t head_w; double eps;  // bias may be null.
    float* out;
    const float* residual; int64_t ldr, head_r;
};

// x [rows, heads, dim] with row stride ldx; cosines and sines [rows, turned] as in Kernels.rotary.
struct RotaryArgs {
    const float* x; int64_t ldx, rows, heads, dim, turned;
    const float* cos; const float* sin;
    float* out; int64_t ldo;
};

// ids and weights [rows, count] of the experts that scores x [rows, experts] choose, the best first, as Routing in Python
// explains. The probabilities are softmaxes, or logistic functions if sigmoid is not 0. With bias [experts], where given,
// probabilities plus bias decide. If kept_groups is less than groups, only the best groups' experts may be chosen; a
// group's value is the sum of its `best` largest. Weights are the chosen probabilities, divided by
// their sum if renormalised, times factor and the chosen of scales [experts], where given. If within is not negative, a weight is instead that of the best of the scores
// that are left, in the softmax of those whose distance from it is at most `within` times the larger of it and their size.
struct RouteArgs {
    const float* x; int64_t ldx, rows, experts, count, sigmoid, renormalised;
    double factor, within;
    int64_t groups, kept_groups, best;
    const float* bias; const float* scales;
    int64_t* ids; float* weights;
};

// out [rows, width] is the sum of the gated MLPs of the experts ids [rows, count] of x [rows, width] (row stride ldx),
// times weights [rows, count], plus residual [rows, width] (row stride ldr), where given. If weigh_input is not 0, the
// input is multiplied by the weight instead. Expert e's packed weights begin e * gate_up_step and e * down_step bytes
// after the first: gate and up [2 * inner, width], which alternate, and down [width, inner]. Biases [experts, 2 * inner]
// and [experts, width] may be null. An expert that does not exist adds nothing.
struct ExpertsArgs {
    const float* x; int64_t ldx, rows;
    const int64_t* ids; const float* weights; int64_t count, experts;
    const uint8_t* gate_up; int64_t gate_up_format, gate_up_step;
    const uint8_t* down; int64_t down_format, down_step;
    int64_t width, inner;
    const float* gate_up_bias; const float* down_bias;
    int64_t activation, weigh_input;
    const float* residual; int64_t ldr;
    float* out;
};

// out is the activation of rows; if gated, that of the first half of rows of 2 * width, times their second half. The
// activation that clips has the largest magnitude `limit`.
struct ActivateArgs { const float* x; int64_t ldx, rows, width, activation, gated; float* out; double limit; };

// Copies x [rows, heads, width] (row stride ldx, head_x between heads, 0 to repeat one head) to columns of out, which has
// the strides ldo and head_o.
struct JoinArgs { const float* x; int64_t ldx, head_x, rows, heads, width; float* out; int64_t ldo, head_o; };

// out [rows, width] is x (row stride ldx) times by, element by element; by has the row stride ldby, 0 to repeat one row,
// and if single a row is one number.
struct MultiplyArgs { const float* x; int64_t ldx; const float* by; int64_t ldby, single, rows, width; float* out; };

// The data that all layers of one kind share in one step. It is separate from the calls, so that a program can run again
// for another step. slots: where each token's key and value are written. tables: all page tables, concatenated. work and
// partials: the items of `decodery_plan_attention` and the partial slots that they need. window, chunk (0 for none) and
// causal decide which keys a query sees, as AttentionLayer in Python explains.
struct AttentionStep {
    int64_t tokens;
    const int64_t* slots;
    const int32_t* tables;
    const int32_t* work;
    int64_t works, partials, window, chunk, causal;
};

// A page holds its keys as [kv_heads, k_dim, 16] and its values as [kv_heads, 16, v_dim]. type: 0 float32, 1 float16, 2
// bfloat16, 3 int8, where each head's 16 keys (or values) are followed by their 16 scales in float32. k_stride and
// v_stride numbers of the type lie between pages. k [rows, kv_heads, k_dim] and v [rows, kv_heads, v_dim] have the row
// strides ldk and ldv.
struct WriteKvArgs {
    const float* k; int64_t ldk; const float* v; int64_t ldv;
    const AttentionStep* step;
    void* keys; void* values;
    int64_t k_stride, v_stride, kv_heads, k_dim, v_dim, type;
};

// q [tokens, heads, k_dim] with row stride ldq; out [tokens, heads, v_dim]. If softcap is not 0, a score becomes softcap
// times tanh(score / softcap). bias [heads, columns], where given, is added to the scores: column `zero` to those of the
// query's own key, the columns around it to those of keys around it, and the first and last also to all keys beyond.
// sinks [heads], where given, are further scores that only join the sums of weights.
struct AttentionArgs {
    const float* q; int64_t ldq, heads, kv_heads, k_dim, v_dim;
    const void* keys; const void* values; int64_t k_stride, v_stride, type;
    const AttentionStep* step;
    double scale, softcap;
    float* out;
    const float* bias; int64_t columns, zero;
    const float* sinks;
};

// Cosines and sines [rows, 2 * pairs] of positions times frequencies [pairs], times magnitude; the first half of the
// sines is negated. Where sets [rows] is given and not 0, the second frequencies of [2, pairs] and the second magnitude
// count. If growth_length is not 0, the magnitude grows with the position as PositionGrowth in Python explains.
struct AnglesArgs {
    const int64_t* positions; int64_t rows;
    const float* frequencies; int64_t pairs;
    double magnitude, second_magnitude;
    const int64_t* sets;
    double growth; int64_t growth_length, growth_offset;
    float* cos; float* sin;
};

// The kernels over the vocabulary take rows x [rows, vocab] with row stride ldx.

// places [rows]: the index of each row's first largest element; -1 if that is -inf, or if any element is NaN. With
// words [rows, ...] (row stride ldw), elements whose bit is 0 count as -inf.
struct LargestArgs {
    const float* x; int64_t ldx, rows, vocab;
    int64_t* places;
    const uint32_t* words; int64_t ldw;
};

// values and places [rows, count]: each row's largest elements in descending order, equal ones by index; count <=
// vocab. If logprobs is not 0, the elements are those of the row's log-softmax.
struct LeadersArgs { const float* x; int64_t ldx, rows, vocab, count; float* values; int64_t* places; int64_t logprobs; };

// out [rows, vocab], where given: log-softmax; norms [rows], where given: the logarithms of the sums of exponentials.
struct LogSoftmaxArgs { const float* x; int64_t ldx, rows, vocab; float* out; double* norms; };

// counts [rows]: how many elements are above each row's least [rows].
struct CountAboveArgs { const float* x; int64_t ldx, rows, vocab; const float* least; int64_t* counts; };

// Sets x to -inf where scores [rows, vocab] (row stride lds) are below each row's least [rows].
struct CutBelowArgs { float* x; int64_t ldx, rows, vocab; const float* scores; int64_t lds; const float* least; };

// border [rows]: the lowest score of the nucleus, which is the smallest set of elements, taken by descending score,
// whose probabilities reach mass [rows].
struct NucleusArgs {
    const float* scores; int64_t lds, rows, vocab;
    const float* logprobs; int64_t ldl;
    const float* mass; float* border;
};

// places [rows]: the index of the largest sum of x and the noise of keys [rows, 2], among elements above -inf; -1 if
// there are none, or if any is NaN.
struct DrawArgs { const float* x; int64_t ldx, rows, vocab; const int32_t* keys; int64_t* places; };

// out [count]: the noise of keys [count, 2] and tokens [count].
struct NoiseArgs { const int32_t* keys; const int32_t* tokens; int64_t count; float* out; };

// Sets elements of x to -inf whose bits in words [rows, ...] (row stride ldw) are 0.
struct MaskArgs { float* x; int64_t ldx, rows, vocab; const uint32_t* words; int64_t ldw; };

struct DivideArgs { float* x; int64_t ldx, rows, vocab; const float* divisors; };

// Copies the rows sources [rows] of x to the rows targets [rows] of out, which has the row stride ldo.
struct CopyArgs {
    const float* x; int64_t ldx, rows, vocab;
    const int64_t* sources;
    float* out; int64_t ldo;
    const int64_t* targets;
};

// Sets all of x to -inf except the elements at places [rows, count], which become values [rows, count].
struct SpreadArgs { float* x; int64_t ldx, rows, vocab; const float* values; const int64_t* places; int64_t count; };

// out [rows]: the entropies of rows of log-probabilities.
struct EntropyArgs { const float* x; int64_t ldx, rows, vocab; float* out; };

// Row i's known tokens are tokens[i] [counts[i]]; those outside the vocabulary are ignored.
struct RepetitionArgs {
    float* x; int64_t ldx, rows, vocab;
    const int64_t* const* tokens; const int64_t* counts;
    const double* penalties;
};

struct FrequencyArgs {
    float* x; int64_t ldx, rows, vocab;
    const int64_t* const* tokens; const int64_t* counts;
    const double* presence; const double* frequency;
};

// The parameters with which one row's token is chosen: penalties on the tokens seen and on those generated, temperature
// (0 chooses the likeliest token, and the later fields are ignored), truncations, and the key of the draw's noise.
// top_k 0 and top_p 1 remove no tokens, nor does min_p, the logarithm of the share, at -inf. width: the number of
// likeliest tokens that are examined first, more than top_k; 0 if it is not known that few are enough.
struct FusedSamplingArgs {
    const int64_t* seen; int64_t seen_count;
    const int64_t* generated; int64_t generated_count;
    double repetition, presence, frequency, temperature, top_p, min_p;
    int64_t top_k, width;
    int32_t key[2];
};

// The stages of FusedSampling, in their order; the last ones cut tokens away.
enum FusedStage : int64_t {
    kGrammarStage, kRepetitionStage, kFrequencyStage, kTemperatureStage, kFirstCut, kTopK = kFirstCut, kTopP, kMinP,
    kFusedStages
};
constexpr int64_t kCuts = kFusedStages - kFirstCut;

// places [rows]: each row's token, chosen with its args, or -1 if none is possible. x is changed and restored.
// borders [rows, kCuts], where given: the least logit, after temperature, that each cut left; -inf if it cut nothing.
struct ChooseArgs {
    float* x; int64_t ldx, rows, vocab;
    const FusedSamplingArgs* args;
    int64_t* places;
    float* borders;
};

// A choice by the logits x [vocab]: its token, the number of likeliest tokens to show, and, if it was drawn, the key of
// the noise. The logits after its stages are given, or follow from x with args, the borders [kCuts] that kChoose found,
// and the mask of the grammar's tokens, if there is one.
// whole: the number of tokens shown, the rank of the chosen one, the number of tokens left, and of those that the grammar
// allows (-1 without a mask); for each stage the number that it left, or -1 if it changed nothing; the shown tokens
// [count + 1]; with args, the tokens that the grammar allows [count], if they are no more.
// numbers: the entropy in bits and the probability of all that is not shown; the logits, the noise and the probabilities
// of the shown tokens, and for each stage their probabilities after it: [count + 1] each.
struct DescribedChoice {
    const float* x;
    int64_t token, count, drawn;
    int32_t key[2];
    const float* const* stages; int64_t stage_count;
    const FusedSamplingArgs* args; const float* borders; const uint32_t* words;
    int64_t* whole; double* numbers;
};

struct DescribeArgs { const DescribedChoice* choices; int64_t rows, vocab; };

// Buffers that the stages of one call share; a call's plan may grow them.
struct Shared {
    std::vector<uint8_t> bytes;
    std::vector<float> partial;  // Partial results of attention.
    // The bytes from the first address that is aligned to a cache line.
    uint8_t* buffer() { return bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64) % 64; }
    void grow(size_t size) { if (bytes.size() < size + 64) bytes.resize(size + 64); }
};

// The stages of a call, appended in order.
struct Plan {
    std::vector<Stage>& stages;
    Shared& shared;
    int threads;

    // Run(args, shared, chunk, chunks, worker) does one chunk. Without chunks no stage is added.
    template <auto Run, class Args>
    void add(const Args& args, int64_t chunks) {
        if (chunks <= 0) return;
        const auto run = [](const int64_t* words, void* buffers, int chunk, int count, Worker& worker) {
            Run(*reinterpret_cast<const Args*>(words), *static_cast<Shared*>(buffers), chunk, count, worker);
        };
        stages.push_back({run, reinterpret_cast<const int64_t*>(&args), &shared, static_cast<int>(chunks)});
    }
};

using Planner = void (*)(const int64_t* args, Plan& plan);
struct Table { Planner planners[kKernelCount]; };

extern const Table kPortableTable;
#if defined(DECODERY_X86)
extern const Table kAvx2Table, kAvx512Table;
#endif
#if defined(DECODERY_ARM)
extern const Table kNeonTable, kNeonDotTable;
#endif

}  // namespace decodery
