#pragma once

#include <weft/io/bytes.hpp>
#include <weft/io/detail/child_process.hpp>
#include <weft/io/detail/open_descriptor.hpp>
#include <weft/runtime/detail/service.hpp>
#include <weft/runtime/time.hpp>

#include <chrono>
#include <memory>
#include <mutex>
#include <vector>

namespace weft::detail {

/// A worker process, seen from the program. Belongs to one call at a time, or to the pool.
struct pool_worker {
    std::unique_ptr<child_process> child;
    open_descriptor connection;
    time_point idle_since{};
};

/// The worker processes of a run that wait for calls. Made on first use; closed before run()
/// returns: they are killed and reaped.
class process_pool final : public service {
public:
    /// The one that was used last; null: none. What has ended or has been idle for too long is
    /// given back in `retired`, to be ended by the caller.
    std::unique_ptr<pool_worker> take(std::vector<std::unique_ptr<pool_worker>>& retired);
    void give(std::unique_ptr<pool_worker>);
    void close() noexcept override;

    std::chrono::milliseconds time_to_greet{20'000}; ///< of a new worker. Tests have less time

private:
    std::mutex lock_; // never held across a suspension
    std::vector<std::unique_ptr<pool_worker>> idle_;
};

} // namespace weft::detail
