#include "chaos.hpp"

#include <weft/runtime/task_group.hpp>
#include <weft/sync/error.hpp>
#include <weft/sync/future.hpp>

#include <chrono>
#include <stdexcept>

namespace stress {

namespace {

using std::chrono::microseconds;

enum : std::uint64_t { pending, valued, failed, cancelled };

/// One promise, and what its outcome may be: whatever wins, all see the same.
struct one_promise {
    weft::promise<std::uint64_t> promise;
    weft::future<std::uint64_t> future = promise.get_future();
    std::atomic<std::uint64_t> seen = pending;
    std::atomic<std::uint64_t> callbacks = 0;
    std::atomic<std::uint64_t> deciders = 0, refused = 0;
    token const counted;

    void see(std::uint64_t outcome) {
        std::uint64_t expected = pending;
        if (!seen.compare_exchange_strong(expected, outcome))
            require(expected == outcome, "a future has one outcome");
        progress();
    }
    void look() {
        try {
            require(future.get() == 42, "the value is that which was set");
            see(valued);
        } catch (weft::future_cancelled const&) {
            see(cancelled);
        } catch (std::runtime_error const&) {
            see(failed);
        }
    }
    void wait(random_source& random) {
        future.on_done([this](weft::future<std::uint64_t> done) {
            require(done.done(), "callbacks come when it is done");
            ++callbacks;
        });
        if (random.one_in(4) && !future.wait_for(microseconds(random.below(200)))) return;
        if (random.one_in(4))
            weft::move_on_after(microseconds(random.below(200)), [&] { look(); });
        else
            look();
    }
    // One of them wins, the others are told.
    void decide(random_source& random) {
        ++deciders;
        try {
            switch (random.below(3)) {
            case 0:
                promise.set_value(42);
                return;
            case 1:
                promise.set_exception(std::make_exception_ptr(std::runtime_error("set")));
                return;
            default:
                if (future.cancel()) {
                    require(future.cancelled(), "who cancelled a future finds it cancelled");
                    return;
                }
            }
        } catch (weft::future_cancelled const&) { // or is just being cancelled
        } catch (std::logic_error const&) {       // or is just being set
        }
        ++refused;
    }
};

void one_outcome(random_source random, bool threads) {
    auto const shared = std::make_shared<one_promise>();
    std::vector<std::thread> outside;
    std::uint64_t const waiters = random.between(1, 8);
    auto const waits = [shared](random_source own) { shared->wait(own); };
    if (threads && random.one_in(4))
        outside.emplace_back([shared, own = random.split()]() mutable {
            try {
                (void)shared->future.get();
            } catch (weft::error const&) {
            } catch (std::runtime_error const&) {
            }
        });
    weft::shielded([&] {
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t i = 0; i < waiters; ++i)
                group.start_soon([&waits, own = random.split()] { waits(own); });
            if (threads && random.one_in(4))
                outside.emplace_back([shared, own = random.split()]() mutable { shared->decide(own); });
            if (random.one_in(2)) wait_somehow(random);
            for (int i = 0; i < 2; ++i)
                group.start_soon([shared, own = random.split()]() mutable { shared->decide(own); });
        });
    });
    for (std::thread& thread : outside)
        thread.join();
    require(shared->callbacks == waiters, "each callback comes once");
    require(shared->refused + 1 == shared->deciders, "one of those who decide wins");
}

} // namespace

void future_storm(trial& now) {
    auto const hosts = now.random.between(1, 60 / slowdown + 1);
    auto const times = now.random.between(1, 30);
    bool const threads = now.threads(1) != 0;
    now.run([&] {
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t host = 0; host < hosts; ++host)
                group.start_soon([&, random = now.random.split()]() mutable {
                    for (std::uint64_t i = 0; i < times; ++i)
                        one_outcome(random.split(), threads);
                });
        });
    });
}

} // namespace stress
