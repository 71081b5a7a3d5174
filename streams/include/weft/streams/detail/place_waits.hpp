#pragma once

#include <weft/streams/detail/connection_gate.hpp>

#include <memory>

namespace weft::detail {

/// What else close() of a listener ends: its waiting for a place behind the gate of a server, who may
/// have none to give for ever.
///
/// Threads  any; moved and destroyed by its owner, also while waits are on their way out
class place_waits {
public:
    place_waits();
    place_waits(place_waits&&) noexcept = default;
    place_waits& operator=(place_waits&&) noexcept;
    ~place_waits() { close(); }

    /// Errors: closed_resource_error, also if it is closed meanwhile
    void wait_for(connection_place&) const;
    void close() noexcept;

private:
    struct state;
    std::shared_ptr<state> state_; // of those who wait, too
};

} // namespace weft::detail
