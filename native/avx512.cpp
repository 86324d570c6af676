#include "simd_portable.hpp"
#include "simd_avx512.hpp"
#include "table.hpp"

namespace decodery {

extern const Table kAvx512Table;
const Table kAvx512Table = table_of<Avx512>();

}  // namespace decodery
