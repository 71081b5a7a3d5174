#pragma once

#include <weft/io/detail/frame.hpp>

namespace weft {

class capacity_limiter;

namespace detail {

/// What a worker process executes for a call: takes the arguments out of the one and puts the
/// result into the other. `function` is null, or the function if it is given by address.
using process_entry = void (*)(void const* function, frame_reader& arguments, frame_writer& result);

/// A call that is being prepared: a cancellation point, then what the arguments are appended to.
/// Errors: no_event_loop_error; std::invalid_argument (code that is in no file of this program)
frame_writer begin_process_call(process_entry, void const* function);

/// Sends it to a worker process and waits for the result. Throws what the function threw.
bytes finish_process_call(frame_writer, bool cancellable, capacity_limiter*);

} // namespace detail
} // namespace weft
