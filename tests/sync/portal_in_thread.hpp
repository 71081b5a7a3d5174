#pragma once

#include "each_runtime.hpp"

#include <weft/sync/portal.hpp>
#include <weft/sync/to_thread.hpp>

/// Runs the body with a portal, in an OS thread.
template <class Body> void with_portal_in_thread(Body const& body) {
    on_each_runtime([&] {
        weft::with_blocking_portal([&](weft::blocking_portal& portal) {
            weft::to_thread::run_sync([&] { body(portal); });
        });
    });
}
