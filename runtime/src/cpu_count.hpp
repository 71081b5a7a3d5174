#pragma once

namespace weft::detail {

/// CPUs that this process may use: its affinity, bounded by the tightest cgroup quota. At least 1.
unsigned usable_cpus();

} // namespace weft::detail
