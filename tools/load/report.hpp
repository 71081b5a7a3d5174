#pragma once

#include "client.hpp"

namespace load {

/// To standard output, as `name value unit` lines or as one JSON object.
void report(options const&, outcome const&);

} // namespace load
