#include "support/child_process.hpp"

#include "runtime/src/cpu_count.hpp"

#include <weft/runtime/inspect.hpp>
#include <weft/runtime/run.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include <sched.h>

using namespace weft;
using namespace weft::test;

namespace {

// A root directory in which a process finds its control groups.
class fake_root {
public:
    explicit fake_root(std::string const& memberships) {
        std::string name = std::filesystem::temp_directory_path() / "weft-groups-XXXXXX";
        if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no place for the groups");
        where_ = name;
        write("/proc/self/cgroup", memberships);
    }
    ~fake_root() {
        std::error_code ignored;
        std::filesystem::remove_all(where_, ignored);
    }
    fake_root(fake_root const&) = delete;
    fake_root& operator=(fake_root const&) = delete;

    void write(std::string const& name, std::string const& text) const {
        std::filesystem::path const file = where_ + name;
        std::filesystem::create_directories(file.parent_path());
        std::ofstream(file) << text;
    }
    void limit(std::string const& group, std::string const& text) const { // version 2
        write("/sys/fs/cgroup" + group + "/cpu.max", text + "\n");
    }
    void limit_v1(std::string const& group, std::string const& quota, std::string const& period) const {
        write("/sys/fs/cgroup/cpu" + group + "/cpu.cfs_quota_us", quota + "\n");
        write("/sys/fs/cgroup/cpu" + group + "/cpu.cfs_period_us", period + "\n");
    }
    double quota() const { return detail::tightest_quota(where_); }

private:
    std::string where_;
};

child_program const on_one_cpu("as many workers as CPUs", [] {
    cpu_set_t given;
    cpu_set_t one;
    CPU_ZERO(&one);
    if (::sched_getaffinity(0, sizeof given, &given) != 0) std::abort();
    int first = 0;
    while (!CPU_ISSET(first, &given))
        ++first;
    CPU_SET(first, &one);
    if (::sched_setaffinity(0, sizeof one, &one) != 0) std::abort();
    run([] { std::printf("workers: %zu\n", get_run_statistics().workers.size()); });
});

} // namespace

TEST_SUITE("runtime.cpu_count") {
    TEST_CASE("a process that may use one CPU gets one worker") {
        child_end const end = run_child("as many workers as CPUs");
        CHECK(end.exit_code == 0);
        CHECK(end.says("workers: 1\n"));
    }

    TEST_CASE("the quota of the own control group counts, in either version") {
        fake_root const second("0::/here\n");
        second.limit("/here", "150000 100000");
        CHECK(second.quota() == 1.5);
        for (char const* const controllers : {"cpu", "cpu,cpuacct", "cpuacct,cpu"}) {
            fake_root const first("7:cpuset:/elsewhere\n3:" + std::string(controllers) + ":/here\n");
            first.limit_v1("/here", "50000", "25000");
            first.limit_v1("/elsewhere", "10000", "100000");
            CHECK(first.quota() == 2);
        }
    }

    TEST_CASE("the tightest quota counts, be it a parent's or the other version's") {
        fake_root const root("0::/outer/inner\n4:cpu:/old/er\n");
        root.limit("/outer/inner", "800000 100000");
        CHECK(root.quota() == 8);
        root.limit("/outer", "400000 100000");
        CHECK(root.quota() == 4);
        root.limit_v1("/old", "300000", "100000");
        CHECK(root.quota() == 3);
        root.limit("", "200000 100000"); // in a container the outermost group is the container's
        CHECK(root.quota() == 2);
        root.limit("/outer/other", "100000 100000"); // a neighbour's
        CHECK(root.quota() == 2);
    }

    TEST_CASE("a group at the top, and one whose name has colons, are found") {
        fake_root const top("0::/\n");
        top.limit("", "300000 100000");
        CHECK(top.quota() == 3);
        fake_root const colons("0::/system.slice/pod.slice:cri-containerd:0123\n");
        colons.limit("/system.slice/pod.slice:cri-containerd:0123", "250000 100000");
        CHECK(colons.quota() == 2.5);
    }

    TEST_CASE("what is no quota limits nothing") {
        for (char const* const text : {"max 100000", "", "100000", "nonsense 100000", "100000 nonsense", "0 100000",
                                       "-1 100000", "100000 0", "100000 -100000"}) {
            CAPTURE(text);
            fake_root const root("0::/here\n");
            root.limit("/here", text);
            CHECK(std::isinf(root.quota()));
        }
        fake_root const first("3:cpu:/here\n");
        first.limit_v1("/here", "-1", "100000");
        CHECK(std::isinf(first.quota()));
        for (char const* const memberships : {"", "\n", "0\n", "0:\n", "0::\n", ":::\n", "nonsense\n", "0::/gone\n",
                                              "3:cpuacct:/here\n", "1:name=cpu:/here\n"}) {
            CAPTURE(memberships);
            fake_root const root(memberships);
            root.limit("/here", "100000 100000");
            root.limit_v1("/here", "100000", "100000");
            CHECK(std::isinf(root.quota()));
        }
        CHECK(std::isinf(detail::tightest_quota("/nowhere")));
    }
}
