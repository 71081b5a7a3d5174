#include "leftovers.hpp"

#include "runtime/src/runtime.hpp"
#include "storm.hpp"

#include <weft/runtime/inspect.hpp>

#include <chrono>
#include <filesystem>
#include <iterator>
#include <thread>

namespace stress {

namespace {

std::size_t entries_of(char const* directory) {
    namespace fs = std::filesystem;
    return std::size_t(std::distance(fs::directory_iterator(directory), fs::directory_iterator()));
}

constexpr std::chrono::seconds longest_end(10); // on a busy machine

// A joined thread disappears from /proc a little later than from the process, and one whose call was abandoned
// ends by itself.
std::size_t settled_threads(std::size_t expected) {
    auto const limit = std::chrono::steady_clock::now() + longest_end;
    while (entries_of("/proc/self/task") > expected && std::chrono::steady_clock::now() < limit)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return entries_of("/proc/self/task");
}

} // namespace

leftovers::leftovers()
    : descriptors_(entries_of("/proc/self/fd")), threads_(entries_of("/proc/self/task")),
      stacks_(weft::detail::stack_depot::stacks_in_use()) {}

void leftovers::check() const {
    require(weft::get_running_tasks().empty(), "no task is left after run()");
    // First, since as long as an abandoned call runs it may open something and close it again.
    require(settled_threads(threads_) <= threads_, "no thread is left after run()");
    require(entries_of("/proc/self/fd") == descriptors_, "no descriptor is left after run()");
    require(weft::detail::stack_depot::stacks_in_use() == stacks_, "no stack is left in use after run()");
    if (token::live() != 0)
        violation(std::to_string(token::live()) + " values are left after run()");
}

void trial::run(std::function<void()> const& body) const {
    weft::run(options(), [&body] {
        body();
        for (auto const& each : weft::detail::this_worker()->run_of.workers)
            require(each->timers.size() == 0, "no timer is left at the end of the first task");
    });
}

} // namespace stress
