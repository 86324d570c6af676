#include "simd_portable.hpp"
#include "table.hpp"

namespace decodery {

extern const Table kPortableTable;
const Table kPortableTable = table_of<Portable>();

}  // namespace decodery
