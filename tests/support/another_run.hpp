#pragma once

#include "support/gate.hpp"

#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>

#include <atomic>
#include <thread>

namespace weft::test {

/// An open task group of another run, in a thread of its own.
class group_of_another_run {
public:
    group_of_another_run() { open_.wait(nullptr); }
    group_of_another_run(group_of_another_run const&) = delete;
    group_of_another_run& operator=(group_of_another_run const&) = delete;
    ~group_of_another_run() {
        if (thread_.joinable()) close();
    }

    task_group& operator*() const { return *open_.load(); }
    /// Lets the group and its run end, and waits for that.
    void close() {
        done_.open();
        thread_.join();
    }

private:
    void be_open() {
        run({.workers = 1}, [this] {
            with_task_group([this](task_group& group) {
                open_ = &group;
                open_.notify_one();
                done_.wait();
            });
        });
    }

    gate done_;
    std::atomic<task_group*> open_ = nullptr;
    std::thread thread_{[this] { be_open(); }};
};

} // namespace weft::test
