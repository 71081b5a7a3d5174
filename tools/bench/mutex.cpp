#include "lines.hpp"

#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/mutex.hpp>

#include <mutex>
#include <stdexcept>

namespace bench {

void mutex_uncontended(settings const& with) {
    std::size_t const times = with.count(10'000'000);
    repeat(with, "mutex_uncontended", "ns", [times] {
        weft::mutex mutex;
        double const start = now();
        for (std::size_t i = 0; i < times; ++i) {
            mutex.lock();
            mutex.unlock();
        }
        return (now() - start) * 1e9 / double(times);
    });
}

void mutex_contended(settings const& with) {
    constexpr std::size_t tasks = 1000;
    std::size_t const each = with.count(1000);
    repeat(with, "mutex_contended", "ns", [each] {
        weft::mutex mutex;
        std::size_t counted = 0;
        double const start = now();
        weft::with_task_group([&](weft::task_group& group) {
            for (std::size_t task = 0; task < tasks; ++task)
                group.start_soon([&] {
                    for (std::size_t i = 0; i < each; ++i) {
                        std::lock_guard const guard(mutex);
                        ++counted;
                        if (i % 10 == 9) weft::lowlevel::checkpoint();
                    }
                });
        });
        if (counted != tasks * each) throw std::runtime_error("mutex_contended: not exclusive");
        return (now() - start) * 1e9 / double(tasks * each);
    });
}

} // namespace bench
