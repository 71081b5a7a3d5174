#pragma once

/// Cancellation points and yields by hand.
namespace weft::lowlevel {

/// Lets other tasks run, expired timers first, and is a cancellation point. Always yields. Errors:
/// no_event_loop_error outside a task. Source: AnyIO lowlevel.checkpoint
void checkpoint();

/// A cancellation point that lets nobody else run. Source: AnyIO lowlevel.checkpoint_if_cancelled
void checkpoint_if_cancelled();

/// Lets other tasks run and is no cancellation point. Source: AnyIO lowlevel.cancel_shielded_checkpoint
void cancel_shielded_checkpoint();

} // namespace weft::lowlevel
