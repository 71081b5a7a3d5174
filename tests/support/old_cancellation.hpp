#pragma once

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/lowlevel.hpp>

#include <exception>

namespace weft::test {

/// What a task was cancelled with, once its scope is gone: for whoever throws it where nothing is cancelled.
inline std::exception_ptr old_cancellation() {
    std::exception_ptr kept;
    cancel_scope scope;
    scope.cancel();
    scope.run([&] {
        try {
            lowlevel::checkpoint();
        } catch (cancelled const&) {
            kept = std::current_exception();
            throw;
        }
    });
    return kept;
}

} // namespace weft::test
