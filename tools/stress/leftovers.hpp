#pragma once

#include <cstddef>

namespace stress {

/// What a round must leave as it found it.
class leftovers {
public:
    leftovers();
    void check() const; // ends the process with a violation if anything was left behind

private:
    std::size_t descriptors_;
    std::size_t threads_;
    std::size_t stacks_;
};

} // namespace stress
