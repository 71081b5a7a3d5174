#include "cpu_count.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <sstream>
#include <string>
#include <thread>

#include <sched.h>

namespace weft::detail {

namespace {

unsigned cpus_by_affinity() {
    for (int cpus = 1024; cpus <= 1 << 16; cpus *= 2) { // the set must fit the kernel's own
        cpu_set_t* const set = CPU_ALLOC(cpus);
        if (set == nullptr) break;
        int const failed = ::sched_getaffinity(0, CPU_ALLOC_SIZE(cpus), set);
        int const count = failed == 0 ? CPU_COUNT_S(CPU_ALLOC_SIZE(cpus), set) : 0;
        CPU_FREE(set);
        if (count > 0) return unsigned(count);
    }
    return std::max(1u, std::thread::hardware_concurrency());
}

struct close_file {
    void operator()(std::FILE* open) const { std::fclose(open); }
};

// Not by std::ifstream, whose descriptors a child would have that is started meanwhile.
std::istringstream contents_of(std::string const& name) {
    std::string text;
    if (std::unique_ptr<std::FILE, close_file> const file{std::fopen(name.c_str(), "re")}) {
        char part[512];
        while (std::size_t const count = std::fread(part, 1, sizeof part, file.get()))
            text.append(part, count);
    }
    return std::istringstream(text);
}

// "max 100000" or "150000 100000": microseconds of CPU in each period. Cgroup version 2.
double quota_of(std::string const& group) {
    auto file = contents_of("/sys/fs/cgroup" + group + "/cpu.max");
    std::string quota;
    double period = 0;
    if (!(file >> quota >> period) || quota == "max" || period <= 0) return INFINITY;
    return std::stod(quota) / period;
}

// Version 1 keeps two numbers in the controller's own hierarchy.
double quota_of_v1(std::string const& group) {
    auto quota_file = contents_of("/sys/fs/cgroup/cpu" + group + "/cpu.cfs_quota_us");
    auto period_file = contents_of("/sys/fs/cgroup/cpu" + group + "/cpu.cfs_period_us");
    double quota = -1;
    double period = 0;
    if (!(quota_file >> quota) || !(period_file >> period) || quota <= 0 || period <= 0)
        return INFINITY;
    return quota / period;
}

// A group is bound by its parents, too: the tightest of all counts.
double tightest_quota() {
    double tightest = INFINITY;
    auto groups = contents_of("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        bool const v2 = line.rfind("0::", 0) == 0;
        bool const v1 = line.find(":cpu,") != line.npos || line.find(":cpu:") != line.npos ||
                        line.find(",cpu:") != line.npos;
        if (!v2 && !v1) continue;
        std::string group = line.substr(line.rfind(':') + 1);
        for (;;) {
            if (group == "/") group.clear();
            tightest = std::min(tightest, v2 ? quota_of(group) : quota_of_v1(group));
            if (group.empty()) break;
            group.resize(group.rfind('/') == group.npos ? 0 : group.rfind('/'));
        }
    }
    return tightest;
}

} // namespace

unsigned usable_cpus() {
    static unsigned const found = [] {
        unsigned const cpus = cpus_by_affinity();
        double const quota = tightest_quota();
        return quota >= cpus ? cpus : std::max(1u, unsigned(std::floor(quota)));
    }();
    return found;
}

} // namespace weft::detail
