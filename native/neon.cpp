#include "simd_portable.hpp"
#include "simd_neon.hpp"
#include "table.hpp"

namespace decodery {

extern const Table kNeonTable;
const Table kNeonTable = table_of<Neon>();

}  // namespace decodery
