#include "simd_portable.hpp"
#include "simd_avx2.hpp"
#include "table.hpp"

namespace decodery {

extern const Table kAvx2Table;
const Table kAvx2Table = table_of<Avx2>();

}  // namespace decodery
