#pragma once

#include <string>

namespace weft::detail {

/// Tells of a mistake that the program survives: on standard error, or to whoever listens. Any thread.
void report_mistake(std::string const& text) noexcept;

/// From now on mistakes go there; null: to standard error. Gives the listener before. For tests.
using mistake_listener = void (*)(std::string const& text);
mistake_listener listen_to_mistakes(mistake_listener) noexcept;

/// For checked builds: gives a text about the OS locks that the calling thread holds, or an empty one. Set
/// by whoever can know; asked before each suspension.
using held_locks_source = std::string (*)();
void ask_for_held_locks(held_locks_source) noexcept;

#ifdef WEFT_CHECKED
void report_held_locks(char const* call) noexcept;
#endif

} // namespace weft::detail
