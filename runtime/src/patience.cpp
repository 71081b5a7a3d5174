#include <weft/runtime/detail/patience.hpp>

#include "abort.hpp"
#include "cpu_count.hpp"

#include <new>

#include <sched.h>

namespace weft::detail {

void yielding_look::leave_cpu() noexcept {
    ::sched_yield();
}

bool patience::has_company() noexcept {
    try {
        static bool const known = usable_cpus() > 1; // the first time's; it opens files
        return known;
    } catch (std::bad_alloc const&) { // the next one asks again
        return false;
    }
}

void patience::pause() noexcept {
    pause_cpu();
}

} // namespace weft::detail
