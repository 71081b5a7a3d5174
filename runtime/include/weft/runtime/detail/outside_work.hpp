#pragma once

namespace weft::detail {

class runtime;

/// Says that something outside of the current run may end a wait of its tasks, as long as this lives.
/// Only "sim" listens, which knows no other threads: while a thread is at work for a task (`call`) its
/// clock goes no faster than the real one; while there is a door for calls from outside (`door`), and
/// during calls, a run in which every task waits is not taken for a deadlock.
///
/// Made and destroyed by tasks of the run.
class outside_work {
public:
    enum class kind : unsigned char { call, door };

    explicit outside_work(kind) noexcept;
    ~outside_work();
    outside_work(outside_work const&) = delete;
    outside_work& operator=(outside_work const&) = delete;

private:
    unsigned* counter_; // null: nobody listens
};

} // namespace weft::detail
