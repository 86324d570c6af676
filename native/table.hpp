// All kernels for one instruction set: included by one translation unit for each.
#pragma once
#include "attention.hpp"
#include "linear.hpp"
#include "packing.hpp"
#include "rows.hpp"

namespace decodery {

template <class S>
constexpr Table table_of() {
    return {{plan_linear<S>, plan_pack<S>, plan_embedding<S>, plan_norm<S>, plan_rotary<S>, plan_swiglu<S>,
             plan_write_kv<S>, plan_attention<S>, plan_angles<S>}};
}

}  // namespace decodery
