#include <weft/io/resource.hpp>

#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/time.hpp>

#include <doctest/doctest.h>

#include <functional>
#include <stdexcept>
#include <utility>

TEST_SUITE_BEGIN("io.resource");

namespace {

using namespace std::chrono_literals;
using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

/// Says good-bye before it gives back what it has; gives it back in any case.
class polite final : public weft::resource {
public:
    explicit polite(std::function<void()> good_bye) : good_bye_(std::move(good_bye)) {}
    void close() override {
        struct giving_back {
            bool& closed;
            ~giving_back() { closed = true; }
        } const always{closed};
        good_bye_();
        said = true;
    }
    bool closed = false;
    bool said = false;

private:
    std::function<void()> good_bye_;
};

} // namespace

TEST_CASE("R3: close_forcefully() skips every step that would wait, and nothing of it comes out") {
    run_test([] {
        using step = std::function<void()>;
        for (step const& wait : {step([] { weft::sleep(1h); }), step(weft::sleep_forever),
                                 step(weft::lowlevel::checkpoint)}) {
            polite waiting(wait);
            weft::time_point const before = weft::current_time();
            weft::close_forcefully(waiting);
            check(waiting.closed && !waiting.said, "closed without a good-bye");
            check(weft::current_time() - before < 1h, "at once");
        }
        polite quick([] {});
        weft::close_forcefully(quick);
        check(quick.closed && quick.said, "what does not wait is done");
    });
}

TEST_CASE("R3: a close() that shields its good-bye is let finish") {
    run_test([] {
        polite stubborn([] { weft::shielded([] { weft::sleep(1ms); }); });
        weft::close_forcefully(stubborn);
        check(stubborn.closed && stubborn.said, "to its end");
    });
}

TEST_CASE("R3: other errors of close() pass") {
    run_test([] {
        polite failing([] { throw std::runtime_error("the disk is full"); });
        check_throws<std::runtime_error>([&] { weft::close_forcefully(failing); }, "its own");
        check(failing.closed, "closed");
        weft::lowlevel::checkpoint(); // the caller is not cancelled
    });
}

TEST_CASE("R3: in a cancelled scope it closes as well, and then the cancellation goes on") {
    run_test([] {
        polite waiting([] { weft::sleep_forever(); });
        weft::cancel_scope outer;
        outer.cancel();
        bool came_out = false;
        outer.run([&] {
            try {
                weft::close_forcefully(waiting);
            } catch (weft::cancelled const&) {
                came_out = waiting.closed && !waiting.said;
                throw;
            }
        });
        check(came_out, "when it was closed");
        check(outer.cancelled_caught(), "to the scope that was cancelled");
    });
}

TEST_CASE("R3: outside of a task it has nowhere to wait, and says so") {
    polite one([] {});
    CHECK_THROWS_AS(weft::close_forcefully(one), weft::no_event_loop_error);
}

TEST_SUITE_END();
