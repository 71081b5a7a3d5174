#include "child_reaper.hpp"

#include <weft/runtime/detail/fiber.hpp>
#include <weft/runtime/detail/service.hpp>

#include <cerrno>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <pthread.h>
#include <sys/wait.h>

namespace weft::detail {

namespace {

// By number: it stays the child's until the child is reaped, and only we reap it.
void reap(::pid_t child) noexcept {
    ::siginfo_t info{};
    while (::waitid(P_PID, ::id_t(child), &info, WEXITED) != 0 && errno == EINTR) {
    }
}

// A thread that exists only while there is something to wait for. All were sent SIGKILL, so the
// order in which they are waited for does not matter.
class child_reaper final : public service {
public:
    void take(::pid_t child) {
        std::lock_guard const guard(lock_);
        children_.push_back(child);
        if (running_) return;
        if (thread_.joinable()) thread_.join(); // has seen that there is nothing left
        try {
            thread_ = std::thread([this] { serve(); });
        } catch (...) {
            children_.pop_back();
            throw;
        }
        running_ = true;
    }

    void close() noexcept override {
        if (thread_.joinable()) thread_.join();
    }

private:
    void serve() noexcept {
        ::pthread_setname_np(::pthread_self(), "weft-reaper");
        std::unique_lock guard(lock_);
        while (!children_.empty()) {
            ::pid_t const next = children_.back();
            children_.pop_back();
            guard.unlock();
            reap(next);
            guard.lock();
        }
        running_ = false;
    }

    std::mutex lock_;
    std::vector<::pid_t> children_; // under lock_
    bool running_ = false;          //  "
    std::thread thread_;            //  "; by close() when no task is left
};

} // namespace

void reap_in_background(::pid_t child) noexcept {
    if (current_fiber() != nullptr) try {
            current_services("the end of a process")
                .get<child_reaper>([] { return std::make_unique<child_reaper>(); })
                .take(child);
            return;
        } catch (...) { // no memory or no thread: wait here
        }
    reap(child);
}

} // namespace weft::detail
