#pragma once

#include "storm.hpp"

#include <weft/runtime/cancel_scope.hpp>

#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

/// The weather that the storms have in common.
namespace stress {

/// Some way of passing a little time; each kind is a cancellation point.
void wait_somehow(random_source&);

/// The same without a cancellation point.
void wait_shielded(random_source&);

/// Keeps the CPU for about this long: others steal meanwhile.
void spin(std::uint64_t nanoseconds);

/// Waits in its destructor when an exception passes, as code that cleans up does.
class waiting_cleanup {
public:
    explicit waiting_cleanup(random_source& random) : random_(random.split()) {}
    ~waiting_cleanup();

private:
    random_source random_;
    int const exceptions_ = std::uncaught_exceptions();
};

/// Scopes that anybody may pick at random and cancel; a member stays alive while somebody uses it.
class scope_register {
public:
    using member = std::shared_ptr<weft::cancel_scope>;

    class entry {
    public:
        entry(scope_register& in, member scope);
        ~entry();
        entry(entry const&) = delete;

    private:
        scope_register& in_;
        weft::cancel_scope* scope_;
    };

    member pick(random_source&);

private:
    std::mutex mutex_; // never across a suspension
    std::vector<member> members_;
};

/// OS threads that repeat an action until the storm is over.
class outside_threads {
public:
    outside_threads(unsigned count, random_source& random,
                    std::function<void(random_source&)> action);
    ~outside_threads();

private:
    std::atomic<bool> over_ = false;
    std::vector<std::thread> threads_;
};

} // namespace stress
