#include <weft/runtime/detail/patience.hpp>

#include "abort.hpp"
#include "cpu_count.hpp"

namespace weft::detail {

bool patience::has_company() noexcept {
    static bool const known = usable_cpus() > 1; // the first time's; it opens files
    return known;
}

void patience::pause() noexcept {
    pause_cpu();
}

} // namespace weft::detail
