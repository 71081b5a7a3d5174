#include "lines.hpp"

#include <weft/runtime/task_group.hpp>

#include <cstdint>
#include <stdexcept>
#include <vector>

namespace bench {

namespace {

constexpr std::int64_t branches = 10;

std::int64_t sum_of_leaves(std::int64_t first, std::int64_t leaves) {
    if (leaves == 1) return first;
    std::int64_t const each = leaves / branches;
    std::int64_t sum = 0;
    weft::with_task_group([&](weft::task_group& group) {
        std::vector<weft::task_handle<std::int64_t>> children;
        children.reserve(branches);
        for (std::int64_t i = 0; i < branches; ++i)
            children.push_back(group.create_task(sum_of_leaves, first + i * each, each));
        for (auto& child : children)
            sum += child.wait();
    });
    return sum;
}

} // namespace

void skynet(settings const& with) {
    auto const leaves = std::int64_t(with.count(1'000'000));
    repeat(with, "skynet", "ms", [leaves] {
        double const start = now();
        if (sum_of_leaves(0, leaves) != leaves * (leaves - 1) / 2)
            throw std::runtime_error("skynet: a wrong sum; --n must be a power of ten");
        return (now() - start) * 1e3;
    });
    print_peak_rss("skynet_peak_rss");
}

} // namespace bench
