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
double quota_of(std::string const& groups, std::string const& group) {
    auto file = contents_of(groups + group + "/cpu.max");
    double quota = 0;
    double period = 0;
    if (!(file >> quota >> period) || quota <= 0 || period <= 0) return INFINITY; // "max" is no number
    return quota / period;
}

// Version 1 keeps two numbers in the controller's own hierarchy.
double quota_of_v1(std::string const& groups, std::string const& group) {
    auto quota_file = contents_of(groups + "/cpu" + group + "/cpu.cfs_quota_us");
    auto period_file = contents_of(groups + "/cpu" + group + "/cpu.cfs_period_us");
    double quota = -1;
    double period = 0;
    if (!(quota_file >> quota) || !(period_file >> period) || quota <= 0 || period <= 0)
        return INFINITY;
    return quota / period;
}

} // namespace

// A group is bound by its parents, too: the tightest of all counts.
double tightest_quota(std::string const& root) {
    std::string const groups = root + "/sys/fs/cgroup";
    double tightest = INFINITY;
    auto memberships = contents_of(root + "/proc/self/cgroup");
    for (std::string line; std::getline(memberships, line);) { // number:controllers:group
        std::size_t const first = line.find(':');
        std::size_t const second = first == line.npos ? first : line.find(':', first + 1);
        if (second == line.npos) continue;
        std::string const controllers = "," + line.substr(first + 1, second - first - 1) + ",";
        bool const v2 = line.rfind("0::", 0) == 0;
        bool const v1 = controllers.find(",cpu,") != controllers.npos;
        if (!v2 && !v1) continue;
        std::string group = line.substr(second + 1); // its name may have colons, too
        for (;;) {
            if (group == "/") group.clear();
            tightest = std::min(tightest, v2 ? quota_of(groups, group) : quota_of_v1(groups, group));
            if (group.empty()) break;
            group.resize(group.rfind('/') == group.npos ? 0 : group.rfind('/'));
        }
    }
    return tightest;
}

unsigned usable_cpus() {
    static unsigned const found = [] {
        unsigned const cpus = cpus_by_affinity();
        double const quota = tightest_quota();
        return quota >= cpus ? cpus : std::max(1u, unsigned(std::floor(quota)));
    }();
    return found;
}

} // namespace weft::detail
