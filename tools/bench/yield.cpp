#include "lines.hpp"

#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <atomic>

namespace bench {

// Worker time, not wall time: with w workers as many yields happen at once.
void yield(settings const& with) {
    std::size_t const fibers = 2 * with.workers;
    std::size_t const each = with.count(1'000'000);
    repeat(with, "yield", "ns", [&] {
        double const start = now();
        weft::with_task_group([&](weft::task_group& group) {
            for (std::size_t fiber = 0; fiber < fibers; ++fiber)
                group.start_soon([each] {
                    for (std::size_t i = 0; i < each; ++i)
                        weft::lowlevel::checkpoint();
                });
        });
        return (now() - start) * 1e9 * with.workers / double(fibers * each);
    });
}

namespace {

/// Where all fibers meet: they yield until the last one is there, which notes the time.
class meeting {
public:
    explicit meeting(std::size_t expected) : missing_(expected) {}
    void arrive() {
        if (missing_.fetch_sub(1) == 1) {
            complete_at_ = now();
            complete_.store(true);
        }
        while (!complete_.load(std::memory_order_acquire)) // pairs with the last one's store
            weft::lowlevel::checkpoint();
    }
    double complete_at() const { return complete_at_; }

private:
    std::atomic<std::size_t> missing_;
    std::atomic<bool> complete_ = false;
    double complete_at_ = 0;
};

} // namespace

// Every switch goes to a stack that is in no near cache. Neither the first touch of the stacks nor the
// end of the tasks is in the figure.
void yield_100000(settings const& with) {
    std::size_t const fibers = with.count(100'000);
    std::size_t const each = 20;
    repeat(with, "yield_" + std::to_string(fibers), "ns", [&] {
        meeting up(fibers), done(fibers);
        weft::with_task_group([&](weft::task_group& group) {
            for (std::size_t fiber = 0; fiber < fibers; ++fiber)
                group.start_soon([&] {
                    up.arrive();
                    for (std::size_t i = 0; i < each; ++i)
                        weft::lowlevel::checkpoint();
                    done.arrive();
                });
        });
        double const spent = done.complete_at() - up.complete_at();
        return spent * 1e9 * with.workers / double(fibers * each);
    });
}

} // namespace bench
