#pragma once

#include "memory_requests.hpp"

#include <cstdlib>
#include <new>

// Replaces the program's operator new: it counts, and one request, or all from then on, can be made to fail. To be
// included by one file of a program, and in none that is built with a sanitizer, which has an operator new of its own.

// Out of line, since GCC warns of pairs of which it sees one half.
[[gnu::noinline]] void* operator new(std::size_t size) {
    weft::test::allocations.fetch_add(1, std::memory_order_relaxed); // a count, read by the same task
    int& left = weft::test::requests_until_failure;
    bool const fails = left == -1 || left == 1;
    if (left > 0) --left;
    if (left < -1) ++left;
    if (!fails)
        if (void* const place = std::malloc(size)) return place;
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* place) noexcept { std::free(place); }
[[gnu::noinline]] void operator delete(void* place, std::size_t) noexcept { std::free(place); }
