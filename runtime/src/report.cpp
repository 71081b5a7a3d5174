#include <weft/runtime/detail/report.hpp>

#include "task.hpp"

#include <atomic>
#include <cstdio>

namespace weft::detail {

namespace {
std::atomic<mistake_listener> listener = nullptr;
std::atomic<held_locks_source> held_locks_here = nullptr;
} // namespace

void report_mistake(std::string const& text) noexcept {
    if (mistake_listener const hears = listener.load(std::memory_order_acquire)) // pairs with the RMW
        return hears(text);
    std::fprintf(stderr, "weft: %s\n", text.c_str());
}

mistake_listener listen_to_mistakes(mistake_listener next) noexcept {
    return listener.exchange(next, std::memory_order_acq_rel); // pairs with report_mistake()
}

void ask_for_held_locks(held_locks_source source) noexcept {
    held_locks_here.store(source, std::memory_order_release); // pairs with report_held_locks()
}

#ifdef WEFT_CHECKED
void report_held_locks(char const* call) noexcept {
    held_locks_source const source = held_locks_here.load(std::memory_order_acquire); // its setter
    if (source == nullptr) return;
    std::string const locks = source();
    if (locks.empty()) return;
    fiber const* const self = current_fiber();
    report_mistake((self != nullptr ? describe_origin(*self) : "a worker") + ", suspends in " + call +
                   " while its thread holds " + locks +
                   "; other tasks of the thread that want it block the thread for ever");
}
#endif

} // namespace weft::detail
