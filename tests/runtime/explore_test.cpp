#include "support/gate.hpp"
#include "support/run_test.hpp"

#include "runtime/src/runtime.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <vector>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {

struct planned : std::runtime_error {
    planned() : std::runtime_error("planned") {}
};

/// A tree of tasks in which scopes are cancelled from everywhere, while shields and deadlines move, tasks
/// fail, and others are started under way. Its own chances come from its own seed.
class turmoil {
public:
    explicit turmoil(std::uint64_t seed) : random_(seed * 2 + 1) {}

    void run() {
        try {
            with_task_group([&](task_group& group) {
                for (int branch = 0; branch < 4; ++branch)
                    group.start_soon([&] { node(6); });
                group.start_soon([&] {
                    for (int times = 0; times < 8; ++times) {
                        rest();
                        if (!open_.empty()) open_[draw(open_.size())]->cancel("from elsewhere");
                    }
                });
            });
        } catch (exception_group const& failed) {
            failed.handle([](planned const&) {}); // and nothing else
        }
        check(begun_ == ended_, "whatever began has ended");
        check(deepest_ == 0, "nobody is inside");
    }

    std::uint64_t visits() const { return ended_; }

private:
    struct visit {
        turmoil& of;
        explicit visit(turmoil& in) : of(in) {
            ++of.begun_;
            ++of.deepest_;
        }
        ~visit() { // a wait in a destructor, also while an exception passes
            if (of.draw(4) == 0) shielded([] { lowlevel::checkpoint(); });
            ++of.ended_;
            --of.deepest_;
        }
    };

    std::uint64_t draw(std::uint64_t below) { // one thread: these runs are all under "sim"
        random_ = random_ * 6364136223846793005u + 1442695040888963407u;
        return (random_ >> 33) % below;
    }
    void rest() {
        switch (draw(4)) {
        case 0: return sleep(1ms * draw(5));
        case 1: return lowlevel::cancel_shielded_checkpoint();
        case 2: move_on_after(1ms * draw(3), [] { sleep_forever(); }); return;
        default: return lowlevel::checkpoint();
        }
    }
    void node(unsigned depth) {
        visit const here(*this);
        rest();
        if (depth == 0) return;
        cancel_scope own;
        open_.push_back(&own);
        struct removal {
            std::vector<cancel_scope*>& from;
            cancel_scope* scope;
            ~removal() { std::erase(from, scope); }
        } const at_the_end{open_, &own};
        bool const through = own.run([&] { choose(own, depth); });
        check(through || own.cancelled_caught(), "a scope says what cut it short");
        check(!own.cancelled_caught() || own.cancel_called(), "what caught was cancelled");
    }
    void choose(cancel_scope& own, unsigned depth) {
        switch (draw(8)) {
        case 0:
            own.set_deadline(current_time() + 1ms * draw(4));
            return node(depth - 1);
        case 1:
            own.set_shield(true);
            rest();
            own.set_shield(false);
            return node(depth - 1);
        case 2:
            with_task_group([&](task_group& group) {
                group.start([&](task_status<>& status) {
                    visit const here(*this);
                    rest();
                    status.started();
                    node(depth - 1);
                });
                if (draw(2) == 0) group.cancel();
            });
            return;
        case 3: {
            with_task_group([&](task_group& group) {
                auto handle = group.create_task([&] { node(depth - 1); });
                rest();
                if (draw(2) == 0) handle.cancel();
            });
            return;
        }
        case 4:
            rest();
            own.cancel("by itself");
            return rest();
        case 5:
            if (draw(12) == 0) throw planned();
            return rest();
        default:
            with_task_group([&](task_group& group) {
                for (std::uint64_t child = 1 + draw(3); child > 0; --child)
                    group.start_soon([&] { node(depth - 1); });
                rest();
            });
        }
    }

    std::uint64_t random_;
    std::vector<cancel_scope*> open_; // may be cancelled by anybody
    std::uint64_t begun_ = 0, ended_ = 0, deepest_ = 0;
};

} // namespace

TEST_SUITE("runtime.explore") {

    TEST_CASE("M12: a thousand seeds of a body that is cancelled from everywhere") {
        std::uint64_t tasks = 0;
        explore(1000, [&] {
            turmoil storm(detail::this_worker()->run_of.options.seed); // a replay has the same chances
            storm.run();
            tasks += storm.visits();
        });
        CHECK((tasks > 10'000 || std::getenv("WEFT_TEST_SEED") != nullptr)); // it is no empty exercise
    }

    TEST_CASE("M4: one that waits is woken, one that runs goes on to its next checkpoint") {
        run_test([] {
            bool woken = false, went_on = false;
            gate never;
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    try {
                        never.wait();
                    } catch (cancelled const&) {
                        woken = true;
                        throw;
                    }
                });
                wait_all_tasks_blocked();
                group.start_soon([&] {
                    group.cancel(); // itself runs
                    went_on = true;
                    check_throws<cancelled>([] { lowlevel::checkpoint(); }, "the next checkpoint");
                });
            });
            check(woken && went_on, "both");
        });
    }
}
