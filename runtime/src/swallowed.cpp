#include <weft/runtime/detail/swallowed.hpp>

#ifdef WEFT_CHECKED

#include "kept_for_ever.hpp"
#include "runtime.hpp"
#include "task.hpp"

#include <weft/runtime/detail/report.hpp>

#include <atomic>
#include <mutex>
#include <new>
#include <unordered_map>
#include <utility>

namespace weft::detail {

namespace {

// What each thrown `cancelled` holds on to, copies of it too: it tells whether the exception is gone.
struct thrown {
    std::shared_ptr<std::string const> text;
};

struct record {
    std::weak_ptr<thrown> last;
    cancel_scope const* by = nullptr; // the scope it was thrown for, while there is an open end
    std::string text;
    std::uint64_t swallowed = 0;
};

// Only tasks that were cancelled are in the table; the counter keeps all others away from the lock.
std::mutex table_lock;
std::atomic<std::size_t> table_size = 0;

// Under the lock. Made when it is needed: constructors of static objects may call run() before those here.
std::unordered_map<fiber const*, record>& table() {
    static kept_for_ever<std::unordered_map<fiber const*, record>> kept;
    return kept.value;
}

bool is_power_of_ten(std::uint64_t count) {
    while (count % 10 == 0)
        count /= 10;
    return count == 1;
}

// Without the lock: names may be long, and the listener is anybody.
void tell(fiber const& task, std::uint64_t swallowed, std::string const& text) noexcept {
    if (!is_power_of_ten(swallowed)) return;
    try {
        report_mistake(describe_origin(task) + ", swallowed a cancellation and went on (" +
                       std::to_string(swallowed) + (swallowed == 1 ? " time" : " times") +
                       " so far): " + text + ". A handler caught it and did not rethrow it");
    } catch (std::bad_alloc const&) { // no memory to tell of it
    }
}

// The exception was thrown and is gone.
bool is_lost(record const& of) { return of.by != nullptr && of.last.expired(); }

void count_if_lost(fiber const& task, record& of, std::unique_lock<std::mutex>& guard) noexcept {
    if (!is_lost(of)) return;
    of.by = nullptr; // counted
    std::uint64_t const swallowed = ++of.swallowed;
    std::string const text = std::move(of.text); // the next one that is thrown brings its own
    guard.unlock();
    tell(task, swallowed, text);
    guard.lock();
}

} // namespace

std::shared_ptr<std::string const> note_cancellation_thrown(fiber& self, cancel_scope const* by,
                                                     std::shared_ptr<std::string const> text) {
    auto const made = std::make_shared<thrown>(thrown{text});
    std::unique_lock guard(table_lock);
    auto const [place, is_new] = table().try_emplace(&self);
    if (is_new) table_size.store(table().size(), std::memory_order_relaxed); // own entries are enough
    count_if_lost(self, place->second, guard);
    record& mine = table()[&self]; // the table may have grown meanwhile
    mine.text = *text; // may throw: then it was not thrown
    mine.last = made;
    mine.by = by;
    return {made, text.get()};
}

void note_cancellation_handled(fiber& self) noexcept {
    if (table_size.load(std::memory_order_relaxed) == 0) return; // own entries are enough
    std::lock_guard const guard(table_lock);
    if (auto const place = table().find(&self); place != table().end()) place->second.by = nullptr;
}

void note_scope_left(fiber& self, cancel_scope const& scope, bool passes, bool swallowed) noexcept {
    if (table_size.load(std::memory_order_relaxed) == 0) return; // own entries are enough
    // Left with another exception: that is what became of the cancellation (C36).
    bool const normally = !passes && this_worker()->exceptions->caught == nullptr;
    std::unique_lock guard(table_lock);
    auto const place = table().find(&self);
    if (place == table().end() || (place->second.by != &scope && !swallowed)) return;
    if (passes && !swallowed) return; // goes on outwards
    if (normally) count_if_lost(self, place->second, guard);
    table()[&self].by = nullptr;
}

void note_task_ended(fiber& self, bool normally) noexcept {
    if (table_size.load(std::memory_order_relaxed) == 0) return; // own entries are enough
    std::unique_lock guard(table_lock);
    auto place = table().find(&self);
    if (place == table().end()) return;
    if (normally) count_if_lost(self, place->second, guard);
    table().erase(&self);
    table_size.store(table().size(), std::memory_order_relaxed); //  "
}

} // namespace weft::detail

#endif
