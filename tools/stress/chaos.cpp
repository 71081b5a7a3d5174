#include "chaos.hpp"

#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>

#include <algorithm>
#include <chrono>

namespace stress {

using std::chrono::microseconds;

void wait_somehow(random_source& random) {
    switch (random.below(8)) {
    case 0:
        return weft::lowlevel::checkpoint_if_cancelled();
    case 1:
        return weft::sleep(microseconds(random.below(200)));
    case 2:
        weft::move_on_after(microseconds(random.below(100)), [] { weft::sleep_forever(); });
        return weft::lowlevel::checkpoint_if_cancelled();
    case 3: {
        auto const nap = microseconds(random.below(50));
        return weft::with_task_group([nap](weft::task_group& group) {
            group.start_soon([nap] { weft::sleep(nap); });
            weft::lowlevel::checkpoint();
        });
    }
    case 4:
        spin(random.below(3000));
        return weft::lowlevel::checkpoint();
    default:
        return weft::lowlevel::checkpoint();
    }
}

void wait_shielded(random_source& random) {
    if (random.one_in(2)) return weft::lowlevel::cancel_shielded_checkpoint();
    weft::shielded([&] { wait_somehow(random); });
}

void spin(std::uint64_t nanoseconds) {
    auto const until = std::chrono::steady_clock::now() + std::chrono::nanoseconds(nanoseconds);
    while (std::chrono::steady_clock::now() < until) {
    }
}

// Only if an exception is in flight: then no scope around can throw. Else the wait might, and a
// destructor must not.
waiting_cleanup::~waiting_cleanup() {
    if (std::uncaught_exceptions() == exceptions_) return;
    for (std::uint64_t times = random_.below(3); times > 0; --times) {
        if (random_.one_in(2))
            wait_somehow(random_);
        else
            wait_shielded(random_);
    }
    require(std::uncaught_exceptions() == exceptions_ + 1,
            "exceptions in flight travel with their fiber");
}

scope_register::entry::entry(scope_register& in, member scope) : in_(in), scope_(scope.get()) {
    std::lock_guard const guard(in.mutex_);
    in.members_.push_back(std::move(scope));
}

scope_register::entry::~entry() {
    std::lock_guard const guard(in_.mutex_);
    std::erase_if(in_.members_, [this](member const& m) { return m.get() == scope_; });
}

scope_register::member scope_register::pick(random_source& random) {
    std::lock_guard const guard(mutex_);
    return members_.empty() ? nullptr : members_[random.below(members_.size())];
}

outside_threads::outside_threads(unsigned count, random_source& random,
                                 std::function<void(random_source&)> action) {
    for (unsigned i = 0; i < count; ++i)
        threads_.emplace_back([this, action, own = random.split()]() mutable {
            while (!over_) {
                action(own);
                if (own.one_in(4)) std::this_thread::sleep_for(microseconds(own.below(200)));
            }
        });
}

outside_threads::~outside_threads() {
    over_ = true;
    for (std::thread& thread : threads_)
        thread.join();
}

} // namespace stress
