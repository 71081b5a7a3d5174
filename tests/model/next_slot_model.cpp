// The next-slot of a worker under relacy: its owner fills and empties it while thieves take from it.
// Labels (N1, T2, ...) are those of next_slot.hpp.

#include "schedules.hpp"

#include <weft/runtime/detail/next_slot.hpp>

namespace {

using namespace weft::model;

/// The steps around the slot that it cannot enforce. A seeded bug takes one of them back.
struct documented {
    static constexpr bool runs_what_it_displaced = true; // N2
    static constexpr bool only_the_owner_fills = true;   // I1
};
struct forgetting_what_it_displaced : documented {
    static constexpr bool runs_what_it_displaced = false;
};
struct thief_that_puts_back : documented {
    static constexpr bool only_the_owner_fills = false;
};

/// The owner puts four fibers in, one on the other or after it took one; each of them is run once, by
/// whoever gets it, and whoever runs it sees what was written to it.
template <unsigned Thieves, class Machine = as_specified, class Steps = documented>
struct slot_with_thieves : rl::test_suite<slot_with_thieves<Thieves, Machine, Steps>, int(1 + Thieves)> {
    static constexpr unsigned fibers = 4; // numbered from 1

    weft::detail::next_slot<unsigned, relacy_atomics<Machine>> slot{false};
    rl::var<unsigned> content[fibers + 1];
    unsigned runs[fibers + 1]; // for assertions only: orders nothing

    void before() {
        for (auto& each : content)
            each($) = 0;
        for (auto& each : runs)
            each = 0;
    }
    void after() {
        run(slot.exchange(0));
        for (unsigned fiber = 1; fiber <= fibers; ++fiber)
            RL_ASSERT(runs[fiber] == 1);
    }
    void thread(unsigned index) {
        if (index == 0) return own();
        for (int time = 0; time < 2; ++time)
            if (!slot.is_empty()) dispose_of(slot.steal());
    }
    void dispose_of(unsigned stolen) {
        if (!Steps::only_the_owner_fills && stolen != 0 && slot.fill(stolen)) return;
        run(stolen);
    }

    void own() {
        for (unsigned fiber = 1; fiber <= fibers; ++fiber) {
            put(fiber);
            if (fiber % 2 == 0 && !slot.is_empty()) run(slot.exchange(0));
        }
    }
    void put(unsigned fiber) {
        content[fiber]($) = fiber;
        if (slot.fill(fiber)) return;
        unsigned const displaced = slot.exchange(fiber);
        if (Steps::runs_what_it_displaced) run(displaced);
    }
    void run(unsigned fiber) {
        if (fiber == 0) return;
        RL_ASSERT(content[fiber]($) == fiber);
        content[fiber]($) = 100 + fiber; // it runs
        RL_ASSERT(++runs[fiber] == 1);
    }
};

} // namespace

int main(int argument_count, char** arguments) {
    schedules checks(argument_count, arguments);

    checks.hold<slot_with_thieves<1>>("next_slot, one thief", 200000);
    checks.hold<slot_with_thieves<2>>("next_slot, two thieves", 200000);
    checks.hold_all<slot_with_thieves<1>>("next_slot, one thief", 5);
    checks.hold_all<slot_with_thieves<2>>("next_slot, two thieves", 3);

    checks.find<slot_with_thieves<1, as_specified, forgetting_what_it_displaced>>(
        "next_slot, what was displaced is forgotten");
    checks.find<slot_with_thieves<1, as_specified, thief_that_puts_back>>("next_slot, filled by a thief");
    checks.find<slot_with_thieves<1, exchange_in_two_steps>>("next_slot, taken in two steps");
    checks.find<slot_with_thieves<1, without_release>>("next_slot, nothing is a release");
    checks.find<slot_with_thieves<1, without_acquire>>("next_slot, nothing is an acquire");

    return checks.result();
}
