#pragma once

#include "histogram.hpp"
#include "options.hpp"

namespace load {

/// What came out of one run against the server.
struct outcome {
    histogram latencies; // ns
    double connecting = 0; // seconds until all connections stood
    double measured = 0;   // seconds that were counted
};

/// Connects, drives and disconnects. Call it in a task.
///
/// Errors  exception_group of what connecting and talking threw; std::runtime_error inside it where
///         the server closed a connection or sent something else back
void drive(options const&, outcome&);

} // namespace load
