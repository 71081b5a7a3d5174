#pragma once

#include <memory>
#include <string>

namespace weft {
class cancel_scope;
}

namespace weft::detail {

struct fiber;

/// Finds cancellations that were eaten, in checked builds: a `cancelled` was thrown and is gone, but
/// neither left the scope that was cancelled nor its task, and no other exception came of it. The task
/// that goes on is told of to report_mistake(), with its spawn site: at the first time, the tenth, the
/// hundredth and so on. An exception that somebody keeps, to throw it later, is not gone.
///
/// All by the task itself, about itself.
#ifdef WEFT_CHECKED

/// A `cancelled` with this text is about to be thrown, for that scope. Gives the text to throw.
std::shared_ptr<std::string const> note_cancellation_thrown(fiber&, cancel_scope const* by,
                                                     std::shared_ptr<std::string const> text);
/// The library caught it, and will throw another one or has no need to.
void note_cancellation_handled(fiber&) noexcept;
/// The scope is being left. `passes`: with a `cancelled`.
void note_scope_left(fiber&, cancel_scope const&, bool passes, bool swallowed) noexcept;
/// The body has ended. `normally`: without an exception.
void note_task_ended(fiber&, bool normally) noexcept;

#else

inline std::shared_ptr<std::string const>
note_cancellation_thrown(fiber&, cancel_scope const*, std::shared_ptr<std::string const> text) {
    return text;
}
inline void note_cancellation_handled(fiber&) noexcept {}
inline void note_scope_left(fiber&, cancel_scope const&, bool, bool) noexcept {}
inline void note_task_ended(fiber&, bool) noexcept {}

#endif

} // namespace weft::detail
