#pragma once

#include <weft/runtime/detail/service.hpp>
#include <weft/sync/detail/thread_call.hpp>

#include <memory>

namespace weft::detail {

/// The threads that a run keeps for blocking calls. Made on first use, closed before run() returns.
///
/// A thread that is done waits for the next call, the one that came last is used first; after ten
/// seconds of idleness it ends. Closing waits for every thread but those of abandoned calls, which end
/// by themselves and touch nothing of the run.
class thread_pool final : public service {
public:
    thread_pool();
    ~thread_pool() override;

    /// Hands over the call. Errors: std::system_error (no thread can be had)
    void submit(std::shared_ptr<thread_call>);
    void close() noexcept override;

    struct state;

private:
    std::shared_ptr<state> state_; // shared with the threads, which may outlive the pool
};

} // namespace weft::detail
