#pragma once

/// Everything.

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/context_var.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/exception_group.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/this_task.hpp>
#include <weft/runtime/time.hpp>

#include <weft/sync/barrier.hpp>
#include <weft/sync/capacity_limiter.hpp>
#include <weft/sync/combinators.hpp>
#include <weft/sync/condition_variable.hpp>
#include <weft/sync/error.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/future.hpp>
#include <weft/sync/latch.hpp>
#include <weft/sync/mutex.hpp>
#include <weft/sync/resource_guard.hpp>
#include <weft/sync/semaphore.hpp>
#include <weft/sync/shared_mutex.hpp>
#include <weft/sync/to_thread.hpp>
#include <weft/sync/wait_group.hpp>

#include <weft/io/address.hpp>
#include <weft/io/bytes.hpp>
#include <weft/io/descriptor.hpp>
#include <weft/io/error.hpp>
#include <weft/io/file.hpp>
#include <weft/io/path.hpp>
#include <weft/io/path_options.hpp>
#include <weft/io/path_range.hpp>
#include <weft/io/readiness.hpp>
#include <weft/io/resolver.hpp>
#include <weft/io/resource.hpp>
#include <weft/io/signals.hpp>
#include <weft/io/temp.hpp>
#if __has_include(<cereal/cereal.hpp>)
#include <weft/io/to_process.hpp>
#endif

#include <weft/streams/any_byte_stream.hpp>
#include <weft/streams/byte_stream.hpp>
#include <weft/streams/datagram.hpp>
#include <weft/streams/error.hpp>
#include <weft/streams/file_stream.hpp>
#include <weft/streams/listener.hpp>
#include <weft/streams/memory.hpp>
#include <weft/streams/object_stream.hpp>
#include <weft/streams/pipe.hpp>
#include <weft/streams/process.hpp>
#include <weft/streams/socket.hpp>
#include <weft/streams/standard_streams.hpp>
#include <weft/streams/stapled.hpp>
#include <weft/streams/tcp.hpp>
#include <weft/streams/typed_attributes.hpp>
#include <weft/streams/udp.hpp>
