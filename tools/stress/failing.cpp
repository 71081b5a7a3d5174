#include "storm.hpp"

#include <weft/runtime/time.hpp>

// What fails on purpose: tests/tools/failures looks at what is told then.
namespace stress {

void violating_storm(trial&) {
    require(false, "\"this\" is so");
}

void hanging_storm(trial& now) {
    now.run([] { weft::sleep_forever(); });
}

} // namespace stress
