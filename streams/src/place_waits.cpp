#include <weft/streams/detail/place_waits.hpp>

#include <weft/io/error.hpp>
#include <weft/runtime/cancel_scope.hpp>

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

namespace weft::detail {

struct place_waits::state {
    std::mutex mutex;
    std::vector<cancel_scope*> waits; // under mutex
    bool closed = false;              //  "
};

place_waits::place_waits() : state_(std::make_shared<state>()) {}

place_waits& place_waits::operator=(place_waits&& other) noexcept {
    if (this == &other) return *this;
    close();
    state_ = std::move(other.state_);
    return *this;
}

void place_waits::wait_for(connection_place& place) const {
    if (place.try_take()) return;
    auto const shared = state_;
    if (!shared) throw closed_resource_error();
    cancel_scope scope;
    {
        std::lock_guard const lock(shared->mutex);
        if (shared->closed) throw closed_resource_error();
        shared->waits.push_back(&scope);
    }
    struct registration {
        state& in;
        cancel_scope& scope;
        ~registration() {
            std::lock_guard const lock(in.mutex);
            std::erase(in.waits, &scope);
        }
    } const until_the_end{*shared, scope};
    if (!scope.run([&] { place.wait(); })) throw closed_resource_error();
}

// The scopes are left under the lock: they are all there.
void place_waits::close() noexcept {
    if (!state_) return;
    std::lock_guard const lock(state_->mutex);
    if (std::exchange(state_->closed, true)) return;
    for (cancel_scope* const each : state_->waits)
        each->cancel();
}

} // namespace weft::detail
