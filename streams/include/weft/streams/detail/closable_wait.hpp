#pragma once

#include <weft/io/error.hpp>
#include <weft/runtime/cancel_scope.hpp>

#include <mutex>
#include <type_traits>
#include <utility>
#include <vector>

namespace weft::detail {

/// Waits that nothing of the stream's own would wake: for a thread, for a place among the connections
/// of a server. close() ends them as a cancellation would.
///
/// Shared by those who wait and who closes (a shared_ptr around it): a waiter that has been woken may
/// destroy the stream at once.
///
/// Threads  any
class closable_wait {
public:
    closable_wait() = default;
    closable_wait(closable_wait const&) = delete;
    closable_wait& operator=(closable_wait const&) = delete;

    /// Gives what the body gives. Errors: closed_resource_error, also if it is closed meanwhile
    template <class Body> auto run(Body body) {
        cancel_scope own;
        attached const in_reach(*this, own);
        if (in_reach.is_late) throw closed_resource_error();
        auto result = own.run(std::move(body)); // of a void body: whether it ended by itself
        if (!result) throw closed_resource_error();
        if constexpr (!std::is_same_v<decltype(result), bool>) return *std::move(result);
    }
    /// The same for those who have nothing to throw. False: it is closed, or was meanwhile.
    template <class Body> bool run_unless_closed(Body body) {
        cancel_scope own;
        attached const in_reach(*this, own);
        return !in_reach.is_late && own.run(std::move(body));
    }
    void close();

private:
    struct attached {
        attached(closable_wait&, cancel_scope&);
        ~attached();
        closable_wait& to;
        cancel_scope& scope;
        bool is_late = false;
    };

    std::mutex lock_;
    bool closed_ = false;                // under lock_
    std::vector<cancel_scope*> waiting_; //  "
};

} // namespace weft::detail
