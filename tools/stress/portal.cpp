#include "chaos.hpp"

#include <weft/runtime/error.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/sync/error.hpp>
#include <weft/sync/portal.hpp>

#include <chrono>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

namespace stress {

namespace {

using std::chrono::microseconds;

constexpr unsigned callers = 8;

struct planned : std::runtime_error {
    planned() : std::runtime_error("planned") {}
};

/// What threads asked for, and what came of it: the sums agree when all is over.
struct account {
    std::atomic<std::uint64_t> asked = 0, answered = 0, refused = 0, cut_short = 0;
};

/// The portal of the moment. Whoever uses it keeps it.
class door {
public:
    explicit door(weft::run_options options) : options_(std::move(options)) {}

    using portal = std::shared_ptr<weft::from_thread::portal_handle>;

    portal enter() {
        std::lock_guard const guard(lock_);
        if (now_ == nullptr) start();
        return now_;
    }
    /// While others still call the stopped one, there is another.
    void replace(portal const& stopped) {
        std::lock_guard const guard(lock_);
        if (now_ == stopped) start();
    }

private:
    void start() {
        now_ = std::make_shared<weft::from_thread::portal_handle>(
            weft::from_thread::start_blocking_portal(options_));
    }
    weft::run_options options_;
    std::mutex lock_;
    portal now_;
};

std::uint64_t work(std::uint64_t value, random_source random, bool fail) {
    token const counted(value);
    wait_somehow(random);
    if (fail) throw planned();
    return counted.value();
}

void call_once(weft::blocking_portal& portal, random_source& random, account& book) {
    std::uint64_t const value = random.below(1'000'000);
    bool const fail = random.one_in(5);
    ++book.asked;
    try {
        switch (random.below(4)) {
        case 0: {
            auto const future = portal.start_task_soon(work, value, random.split(), fail);
            if (random.one_in(2)) future.cancel();
            require(future.get() == value, "the caller gets the value of its own task");
            break;
        }
        case 1: {
            auto const [future, started] = portal.start_task<std::uint64_t>(
                [&](weft::task_status<std::uint64_t>& status, random_source own) {
                    status.started(value);
                    return work(value, own, fail);
                },
                random.split());
            require(started == value, "the value of started() is that which was given");
            require(future.get() == value, "the caller gets the value of its own task");
            break;
        }
        case 2: {
            auto const handle = portal.wrap_scoped([value] { return token(value); });
            require(handle->value() == value, "a wrapped object lives as long as its handle");
            break;
        }
        default:
            require(portal.call(work, value, random.split(), fail) == value,
                    "the caller gets the value of its own task");
        }
        ++book.answered;
    } catch (planned const&) {
        require(fail, "a task fails only by its own error");
        ++book.answered;
    } catch (weft::run_finished_error const&) {
        ++book.refused;
    } catch (weft::future_cancelled const&) {
        ++book.cut_short;
    } catch (weft::task_cancelled const&) {
        ++book.cut_short;
    }
    progress();
}

// Eight threads hammer one portal; it is stopped under their hands, and started anew.
void one_portal(trial& now, account& book) {
    door shared(now.options());
    auto const times = now.random.between(5, 100 / slowdown + 5);
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < callers; ++i)
        threads.emplace_back([&, random = now.random.split()]() mutable {
            for (std::uint64_t step = 0; step < times; ++step) {
                auto const portal = shared.enter();
                std::uint64_t const refused = book.refused;
                for (std::uint64_t calls = random.between(1, 4); calls > 0; --calls)
                    call_once(**portal, random, book);
                if (random.one_in(10)) portal->stop(random.one_in(2));
                if (book.refused != refused) shared.replace(portal); // perhaps ours, perhaps another's
            }
        });
    for (std::thread& thread : threads)
        thread.join();
}

// The same with a provider's: the last to leave ends it, the next to come starts another.
void provided_portal(trial& now, account& book) {
    weft::from_thread::blocking_portal_provider provider(now.options());
    auto const times = now.random.between(5, 100 / slowdown + 5);
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < callers; ++i)
        threads.emplace_back([&, random = now.random.split()]() mutable {
            for (std::uint64_t step = 0; step < times; ++step) {
                auto const portal = provider.acquire();
                for (std::uint64_t calls = random.between(1, 4); calls > 0; --calls)
                    call_once(*portal, random, book);
                if (random.one_in(10)) portal->stop(random.one_in(2)); // refused until all have left
            }
        });
    for (std::thread& thread : threads)
        thread.join();
}

} // namespace

void portal_storm(trial& now) {
    account book;
    if (now.random.one_in(3))
        provided_portal(now, book);
    else
        one_portal(now, book);
    require(book.asked == book.answered + book.refused + book.cut_short, "each call has one outcome");
}

} // namespace stress
