#include "chaos.hpp"

#include <weft/runtime/exception_group.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/combinators.hpp>

#include <algorithm>
#include <chrono>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <vector>

namespace stress {

namespace {

using std::chrono::microseconds;

struct planned : std::runtime_error {
    planned() : std::runtime_error("planned") {}
};

std::vector<std::uint64_t> numbers(random_source& random) {
    std::vector<std::uint64_t> all(random.between(1, 20));
    std::iota(all.begin(), all.end(), 0);
    return all;
}

/// Counts the calls that run; none may be left when a combinator has returned.
struct running {
    std::atomic<std::uint64_t> now = 0;
    std::atomic<std::uint64_t> most = 0;

    class call {
    public:
        explicit call(running& of) : of_(of) {
            std::uint64_t const mine = ++of.now;
            std::uint64_t seen = of.most;
            while (seen < mine && !of.most.compare_exchange_weak(seen, mine)) {}
        }
        ~call() { --of_.now; }
        call(call const&) = delete;

    private:
        running& of_;
        token const counted_;
    };
};

void everything_at_once(random_source random) {
    running all;
    auto const step = [&](std::uint64_t value) {
        return [&all, value, own = random.split()]() mutable {
            running::call const counted(all);
            wait_somehow(own);
            return value;
        };
    };
    auto const [a, b, c] = weft::gather(step(1), step(2), step(3));
    require(a == 1 && b == 2 && c == 3 && all.now == 0, "gather gives each value in its place");
    auto const first = weft::race(step(4), step(5), step(6));
    std::uint64_t const won = std::visit([](auto value) { return std::uint64_t(value); }, first);
    require(won == 4 + first.index() && all.now == 0, "race gives its winner's value, and joins the rest");
    progress(2);
}

void mapped(random_source random) {
    running all;
    auto const in = numbers(random);
    std::uint64_t const limit = random.between(1, 6);
    bool const fails = random.one_in(3);
    auto const seed = random();
    auto const one = [&](std::uint64_t value) {
        running::call const counted(all);
        random_source own(seed + value);
        wait_somehow(own);
        if (fails && value == in.size() - 1) throw planned();
        return value * value;
    };
    try {
        auto const out = weft::map_concurrent(in, limit, one);
        require(!fails && out.size() == in.size(), "a failure leaves map_concurrent");
        for (std::size_t i = 0; i < out.size(); ++i)
            require(out[i] == i * i, "map_concurrent keeps the order of its input");
    } catch (weft::exception_group const& group) {
        require(fails && group.contains<planned>(), "nothing fails that was not to fail");
    }
    require(all.now == 0 && all.most <= limit, "no more calls run than the limit allows");
    progress();
}

void completed(random_source random) {
    running all;
    std::vector<std::function<std::uint64_t()>> calls;
    auto const in = numbers(random);
    for (std::uint64_t const value : in)
        calls.emplace_back([&all, value, own = random.split()]() mutable {
            running::call const counted(all);
            wait_somehow(own);
            return value;
        });
    std::vector<std::uint64_t> out;
    weft::as_completed(calls, [&](weft::task_handle<std::uint64_t> handle) {
        require(handle.done(), "as_completed gives tasks that have ended");
        out.push_back(handle.wait());
    });
    std::sort(out.begin(), out.end());
    require(out == in && all.now == 0, "as_completed gives each task once");
    progress();
}

// Cut short anywhere, nothing goes on behind its back: the tokens are counted.
void one_of_them(random_source random) {
    auto const any = [&] {
        switch (random.below(3)) {
        case 0: return everything_at_once(random.split());
        case 1: return mapped(random.split());
        default: return completed(random.split());
        }
    };
    if (random.one_in(3))
        weft::move_on_after(microseconds(random.below(300)), any);
    else
        any();
}

} // namespace

void combinators_storm(trial& now) {
    auto const hosts = now.random.between(1, 40 / slowdown + 1);
    auto const times = now.random.between(1, 20);
    now.run([&] {
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t host = 0; host < hosts; ++host)
                group.start_soon([&, random = now.random.split()]() mutable {
                    for (std::uint64_t i = 0; i < times; ++i)
                        one_of_them(random.split());
                });
        });
    });
}

} // namespace stress
