#include "process_pool.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>

#include <sys/socket.h>

namespace weft::detail {

namespace {

constexpr std::chrono::minutes idle_limit{5};

// It has not ended, and does not say what nobody asked it for.
bool is_fit(pool_worker& worker) {
    if (worker.child->exit_code()) return false;
    descriptor_use const use(worker.connection, access::look, "looking at");
    char octet = 0;
    ssize_t const count = ::recv(use.fd(), &octet, 1, MSG_PEEK | MSG_DONTWAIT);
    return count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

} // namespace

std::unique_ptr<pool_worker>
process_pool::take(std::vector<std::unique_ptr<pool_worker>>& retired) {
    time_point const now = current_time();
    std::lock_guard const guard(lock_);
    auto const fresh = std::find_if(idle_.begin(), idle_.end(), [now](auto const& each) {
        return now - each->idle_since < idle_limit;
    });
    retired.reserve(retired.size() + idle_.size()); // from here on nothing is lost
    std::move(idle_.begin(), fresh, std::back_inserter(retired));
    idle_.erase(idle_.begin(), fresh);
    while (!idle_.empty()) {
        bool const fit = is_fit(*idle_.back());
        std::unique_ptr<pool_worker> last = std::move(idle_.back());
        idle_.pop_back();
        if (fit) return last;
        retired.push_back(std::move(last));
    }
    return nullptr;
}

void process_pool::give(std::unique_ptr<pool_worker> worker) {
    worker->idle_since = current_time();
    std::lock_guard const guard(lock_);
    idle_.push_back(std::move(worker));
}

// No task is left, so nobody takes or gives.
void process_pool::close() noexcept {
    for (auto const& each : idle_)
        each->child->signal_group(SIGKILL);
    for (auto const& each : idle_)
        each->child->wait_blocking();
    idle_.clear();
}

} // namespace weft::detail
