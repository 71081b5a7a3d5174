#include "thread_pool.hpp"

#include <weft/sync/capacity_limiter.hpp>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include <cxxabi.h>
#include <pthread.h>

namespace weft::detail {

namespace {

constexpr std::chrono::seconds idle_limit{10};

struct pool_thread {
    std::thread handle;
    std::condition_variable wake;
    std::shared_ptr<thread_call> call; // what to do, or is being done
};

thread_local std::shared_ptr<thread_call> const* call_of_this_thread = nullptr;

struct in_call {
    explicit in_call(std::shared_ptr<thread_call> const& call) { call_of_this_thread = &call; }
    ~in_call() { call_of_this_thread = nullptr; }
};

// The end of a call, and whom it concerns.
struct ending {
    bool abandoned = false;
    wait_ref waiter; // none: the task looks before it waits

    explicit ending(thread_call& call) {
        std::lock_guard const guard(call.lock);
        abandoned = call.now == thread_call::state::abandoned;
        if (abandoned) return;
        call.now = thread_call::state::finished;
        if (call.has_waiter) waiter = call.waiter;
    }
    void tell() const noexcept { // lost to a canceller: then the task looks, too
        if (waiter.index != 0) wake(waiter, wake_reason::event);
    }
};

bool begin(thread_call& call) {
    std::lock_guard const guard(call.lock);
    if (call.now == thread_call::state::abandoned) return false;
    call.now = thread_call::state::running;
    return true;
}

void perform(std::shared_ptr<thread_call> const& call) {
    if (!begin(*call)) return call->discard();
    in_call const mark(call);
    context_in_use const inherited(call->context);
    try {
        call->execute();
    } catch (abi::__forced_unwind const&) { // the thread is ending itself: it must go on with that
        call->error = std::make_exception_ptr(
            std::runtime_error("the thread ended itself in a call of to_thread::run_sync"));
        ending(*call).tell();
        throw;
    } catch (...) { // transported to the task
        call->error = std::current_exception();
    }
}

} // namespace

// Idle list, hand-over and the order to stop are one critical section (T9): whoever is in the idle list
// takes the next call, and nobody is in it who was told to stop.
struct thread_pool::state {
    std::mutex lock;
    std::vector<std::shared_ptr<pool_thread>> all;
    std::vector<std::shared_ptr<pool_thread>> idle; // the last one is used first
    std::vector<std::thread> retired;               // have ended, or are about to
    bool stopped = false;

    void serve(std::shared_ptr<pool_thread> const& self);
    bool wait_for_call(std::shared_ptr<pool_thread> const&, std::unique_lock<std::mutex>&);
    void finish_call(std::shared_ptr<pool_thread> const&, std::unique_lock<std::mutex>&);
};

// Under the lock, before and after. The thread is in the idle list when the task is told, so that the
// task's next call finds it.
void thread_pool::state::finish_call(std::shared_ptr<pool_thread> const& self,
                                     std::unique_lock<std::mutex>& guard) {
    std::shared_ptr<thread_call> call = self->call; // stays there: close() looks at it
    guard.unlock();
    perform(call);
    guard.lock();
    ending const end(*call);
    self->call.reset(); // from here on close() waits for us
    if (!stopped) idle.push_back(self);
    guard.unlock();
    end.tell();
    if (end.abandoned) // the token bounds threads, not waits (T5)
        call->limiter->release_on_behalf_of(call.get());
    call.reset();
    guard.lock();
}

// False: the thread ends.
bool thread_pool::state::wait_for_call(std::shared_ptr<pool_thread> const& self,
                                       std::unique_lock<std::mutex>& guard) {
    bool const called =
        self->wake.wait_for(guard, idle_limit, [&] { return self->call != nullptr || stopped; });
    if (!called) {
        std::erase(idle, self);
        std::erase(all, self);
        retired.push_back(std::move(self->handle));
    }
    return self->call != nullptr;
}

void thread_pool::state::serve(std::shared_ptr<pool_thread> const& self) {
    ::pthread_setname_np(::pthread_self(), "weft-blocking");
    std::unique_lock guard(lock);
    do
        finish_call(self, guard);
    while (wait_for_call(self, guard));
}

thread_pool::thread_pool() : state_(std::make_shared<state>()) {}

thread_pool::~thread_pool() = default;

void thread_pool::submit(std::shared_ptr<thread_call> call) {
    std::vector<std::thread> retired;
    {
        std::lock_guard const guard(state_->lock);
        if (!state_->idle.empty()) {
            pool_thread& chosen = *state_->idle.back();
            state_->idle.pop_back();
            chosen.call = std::move(call);
            chosen.wake.notify_one();
            return;
        }
        auto const fresh = std::make_shared<pool_thread>();
        fresh->call = std::move(call);
        state_->all.push_back(fresh);
        state_->idle.reserve(state_->all.size()); // later insertions do not throw
        try {
            fresh->handle = std::thread([state = state_, fresh] { state->serve(fresh); });
        } catch (...) {
            state_->all.pop_back();
            throw;
        }
        retired.swap(state_->retired);
    }
    for (std::thread& ended : retired)
        ended.join();
}

void thread_pool::close() noexcept {
    std::vector<std::shared_ptr<pool_thread>> threads;
    std::vector<std::thread> ended;
    std::vector<std::shared_ptr<pool_thread>> left_behind;
    {
        std::lock_guard const guard(state_->lock);
        state_->stopped = true;
        state_->idle.clear();
        threads.swap(state_->all);
        ended.swap(state_->retired);
        for (std::shared_ptr<pool_thread> const& each : threads) {
            bool abandoned = false;
            if (each->call != nullptr) {
                std::lock_guard const looking(each->call->lock);
                abandoned = each->call->now == thread_call::state::abandoned;
            }
            if (abandoned)
                each->handle.detach();
            else
                ended.push_back(std::move(each->handle));
            each->wake.notify_one();
        }
    }
    for (std::thread& each : ended)
        each.join();
}

std::shared_ptr<thread_call> current_thread_call() {
    return call_of_this_thread != nullptr ? *call_of_this_thread : nullptr;
}

} // namespace weft::detail
