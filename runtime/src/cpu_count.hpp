#pragma once

#include <string>

namespace weft::detail {

/// CPUs that this process may use: its affinity, bounded by the tightest cgroup quota. At least 1.
unsigned usable_cpus();

/// For how many CPUs the tightest cgroup quota lasts; infinity: there is none. Tests have another root.
double tightest_quota(std::string const& root = {});

} // namespace weft::detail
