#pragma once

namespace weft {

/// Something that is closed when it is done with.
///
/// close() is the orderly way: it may wait, flush and say good-bye. It is idempotent, and it has
/// given the resource back even if it ends by `cancelled`. Destruction closes at once and never
/// waits.
///
/// Source  AnyIO AsyncResource
class resource {
public:
    resource() = default;
    resource(resource const&) = default;
    resource& operator=(resource const&) = default;
    virtual ~resource() = default;

    virtual void close() = 0;
};

/// Closes without waiting: every step of close() that would wait is skipped as if cancelled. Other
/// errors of close() pass, and so does the cancellation of scopes around, after the closing.
/// Errors: no_event_loop_error outside a task. Source: AnyIO aclose_forcefully
void close_forcefully(resource&);

} // namespace weft
