// All kernels for one instruction set; each set has a translation unit that includes this file.
#pragma once
#include "attention.hpp"
#include "describing.hpp"
#include "experts.hpp"
#include "fused_sampling.hpp"
#include "linear.hpp"
#include "packing.hpp"
#include "routing.hpp"
#include "rows.hpp"
#include "vocabulary.hpp"

namespace decodery {

template <class S>
constexpr Table table_of() {
    using V = Vocabulary<S>;
    return {{plan_linear<S>, plan_pack<S>, plan_embedding<S>, plan_norm<S>, plan_rotary<S>, plan_activate<S>,
             plan_write_kv<S>, plan_attention<S>, plan_angles<S>, plan_rows<V::largest, LargestArgs>,
             plan_rows<V::leaders, LeadersArgs>, plan_rows<V::log_softmax, LogSoftmaxArgs>,
             plan_rows<V::count_above, CountAboveArgs>, plan_rows<V::cut_below, CutBelowArgs>,
             plan_rows<V::nucleus, NucleusArgs>, plan_rows<V::draw, DrawArgs>, plan_list<V::noise, NoiseArgs>,
             plan_rows<V::mask, MaskArgs>, plan_rows<V::divide, DivideArgs>, plan_rows<V::copy, CopyArgs>,
             plan_rows<V::spread, SpreadArgs>, plan_rows<V::entropy, EntropyArgs>,
             plan_rows<penalise_repetitions, RepetitionArgs>, plan_rows<penalise_frequencies, FrequencyArgs>,
             plan_layer_norm<S>, plan_rows<FusedSampling<S>::choose, ChooseArgs>, plan_route<S>, plan_experts<S>, plan_join<S>,
             plan_multiply<S>, plan_rows<Description<S>::describe, DescribeArgs>}};
}

}  // namespace decodery
