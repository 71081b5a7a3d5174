#include "lines.hpp"

#include <weft/runtime/task_group.hpp>

namespace bench {

namespace {

double spawn_and_join(std::size_t total, std::size_t batch) {
    double const start = now();
    for (std::size_t done = 0; done < total; done += batch)
        weft::with_task_group([batch](weft::task_group& group) {
            for (std::size_t i = 0; i < batch; ++i)
                group.start_soon([] {});
        });
    return (now() - start) * 1e9 / double(total);
}

} // namespace

void spawn_join_b1000(settings const& with) {
    std::size_t const total = with.count(1'000'000);
    repeat(with, "spawn_join_b1000", "ns", [total] { return spawn_and_join(total, 1000); });
}

void spawn_join_all(settings const& with) {
    std::size_t const total = with.count(1'000'000);
    repeat(with, "spawn_join_all", "ns", [total] { return spawn_and_join(total, total); });
    print_peak_rss("spawn_join_peak_rss");
}

} // namespace bench
