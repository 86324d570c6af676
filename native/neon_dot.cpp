#include "simd_portable.hpp"
#include "simd_neon.hpp"
#include "table.hpp"

namespace decodery {

extern const Table kNeonDotTable;
const Table kNeonDotTable = table_of<NeonDot>();

}  // namespace decodery
