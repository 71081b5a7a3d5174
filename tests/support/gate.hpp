#pragma once

#include <weft/runtime/detail/wait_queue.hpp>

namespace weft::test {

/// Closed, then open for ever: how a test lets a fiber wait for another without the layers above.
///
/// Threads       open() and is_open() any thread; wait() by fibers
/// Cancellation  wait() is a cancellation point; nothing is left behind
class gate {
public:
    void open() {
        queue_.lock();
        queue_.state = 1;
        queue_.wake_all();
        queue_.unlock();
    }
    bool is_open() {
        queue_.lock();
        bool const open = queue_.state != 0;
        queue_.unlock();
        return open;
    }
    void wait() {
        detail::fiber& self = detail::enter_blocking_call("gate::wait");
        detail::parking wait("gate::wait");
        detail::wait_node node(wait);
        queue_.lock();
        if (queue_.state != 0) {
            queue_.unlock();
            wait.withdraw();
            return;
        }
        queue_.waiters.push_back(node);
        queue_.unlock();
        detail::wake_reason const why = wait.suspend();
        queue_.leave(node);
        if (why == detail::wake_reason::cancelled) detail::throw_cancelled(self);
    }

private:
    detail::wait_queue queue_;
};

} // namespace weft::test
