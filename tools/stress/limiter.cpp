#include "chaos.hpp"

#include <weft/runtime/task_group.hpp>
#include <weft/sync/capacity_limiter.hpp>

#include <chrono>

namespace stress {

namespace {

using std::chrono::microseconds;

constexpr std::uint64_t most_tokens = 8;

struct lender {
    weft::capacity_limiter of{double(most_tokens)};
    std::atomic<std::uint64_t> inside = 0;

    void work(random_source& random) {
        struct count {
            std::atomic<std::uint64_t>& inside;
            ~count() { --inside; }
        } const counted{inside};
        require(++inside <= most_tokens, "no more tokens are lent than there ever were");
        if (random.one_in(2)) wait_somehow(random);
        progress();
    }

    void borrow(random_source& random) {
        of.acquire();
        struct give_back {
            weft::capacity_limiter& to;
            ~give_back() { to.release(); }
        } const at_the_end{of};
        if (random.one_in(8)) {
            bool refused = false;
            try {
                of.try_acquire();
            } catch (std::logic_error const&) {
                refused = true;
            }
            require(refused, "a borrower has one token at most");
        }
        work(random);
    }

    // Given back by a thread, or by another task: for whom counts, not who.
    void borrow_for_another(random_source& random) {
        int borrower = 0;
        of.acquire_on_behalf_of(&borrower);
        struct give_back {
            weft::capacity_limiter& to;
            void const* from;
            ~give_back() { to.release_on_behalf_of(from); }
        } const at_the_end{of, &borrower};
        work(random);
    }
};

} // namespace

void limiter_storm(trial& now) {
    lender shared;
    auto const tasks = now.random.between(1, 150 / slowdown);
    auto const times = now.random.between(1, 50);
    outside_threads const changers(now.threads(2), now.random, [&](random_source& random) {
        shared.of.set_total_tokens(double(random.between(1, most_tokens)));
        auto const seen = shared.of.statistics();
        require(seen.borrowed_tokens <= double(most_tokens) &&
                    seen.borrowers.size() == std::size_t(seen.borrowed_tokens),
                "statistics are one snapshot");
    });
    now.run([&] {
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t i = 0; i < tasks; ++i)
                group.start_soon([&, random = now.random.split()]() mutable {
                    for (std::uint64_t step = 0; step < times; ++step) {
                        auto const once = [&] {
                            random.one_in(3) ? shared.borrow_for_another(random) : shared.borrow(random);
                        };
                        if (random.one_in(3))
                            weft::move_on_after(microseconds(random.below(200)), once);
                        else
                            once();
                    }
                });
        });
    });
    require(shared.of.borrowed_tokens() == 0 && shared.of.statistics().tasks_waiting == 0,
            "all tokens come back");
}

} // namespace stress
