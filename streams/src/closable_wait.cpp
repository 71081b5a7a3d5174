#include <weft/streams/detail/closable_wait.hpp>

namespace weft::detail {

closable_wait::attached::attached(closable_wait& wait, cancel_scope& own) : to(wait), scope(own) {
    std::lock_guard const guard(to.lock_);
    is_late = to.closed_;
    if (!is_late) to.waiting_.push_back(&scope);
}

closable_wait::attached::~attached() {
    std::lock_guard const guard(to.lock_);
    std::erase(to.waiting_, &scope);
}

// Scopes are left under the lock: those in the list are there.
void closable_wait::close() {
    std::lock_guard const guard(lock_);
    closed_ = true;
    for (cancel_scope* const each : waiting_)
        cancel_because(*each, "it was closed");
}

} // namespace weft::detail
