#pragma once

#include <weft/runtime/detail/service.hpp>
#include <weft/sync/detail/thread_call.hpp>

#include <chrono>
#include <memory>

namespace weft::detail {

/// The threads that a run keeps for blocking calls. Made on first use, closed before run() returns.
///
/// A thread that is done waits for the next call, and ends after ten seconds of idleness. The first to be
/// used is the one that still looks for a call, or, if all sleep, the one that came last. Closing waits for
/// every thread but those of abandoned calls, which end by themselves and touch nothing of the run.
class thread_pool final : public service {
public:
    thread_pool();
    ~thread_pool() override;

    /// Hands over the call. Errors: std::system_error (no thread can be had)
    void submit(std::shared_ptr<thread_call>);
    void close() noexcept override;

    std::chrono::nanoseconds idle_limit = std::chrono::seconds(10); ///< of new threads. Tests have less time

    struct state;

private:
    std::shared_ptr<state> state_; // shared with the threads, which may outlive the pool
};

} // namespace weft::detail
