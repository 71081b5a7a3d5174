#include "thread_pool.hpp"

#include "futex.hpp"

#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/detail/patience.hpp>
#include <weft/sync/capacity_limiter.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <pthread.h>

namespace weft::detail {

namespace {

struct pool_thread {
    std::thread handle;
    std::shared_ptr<thread_call> call; // what to do, or is being done: by submit(), then by the thread
    bool looks = false;                // for a moment, before it sleeps
    std::int64_t idle_limit = 0;       // ns

    // A futex. awake -> asleep (the thread, before it sleeps) -> wanted (who gives it a call or the order
    // to stop, under the lock before); wanted -> awake (the thread, before it is in the idle list).
    std::atomic<std::uint32_t> attention = awake;
    static constexpr std::uint32_t awake = 0, asleep = 1, wanted = 2;

    void want() noexcept { // without the lock, for which a woken thread would wait
        if (attention.exchange(wanted, std::memory_order_acq_rel) == asleep) // pairs with sleep()
            futex_wake_all(attention);
    }
    bool is_wanted() const noexcept {
        return attention.load(std::memory_order_acquire) == wanted; // pairs with want()
    }
    void sleep(std::int64_t at_most) noexcept { // or less
        std::uint32_t seen = awake;
        if (attention.compare_exchange_strong(seen, asleep, std::memory_order_acquire) || // want()
            seen == asleep)
            futex_wait(attention, asleep, at_most);
    }
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

// Nobody is there who could have the result, and the pool's lock may be nobody's.
void end_forked_child() noexcept {
    if (!is_forked_child()) return;
    std::fputs("weft: a function that to_thread::run_sync runs returned in a child of fork(), where its run did "
               "not come along: leave such a child by exec or _exit\n",
               stderr);
    std::abort();
}

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
    } catch (...) { // transported to the task
        call->error = std::current_exception();
        if (call->error != nullptr) return;
        // No C++ exception: the thread is ending itself, and must go on with that. (gcc's UBSan objects to
        // every handler of abi::__forced_unwind, which is bound to nothing.)
        call->error = std::make_exception_ptr(
            std::runtime_error("the thread ended itself in a call of to_thread::run_sync"));
        throw;
    }
}

template <class Body> std::thread make_thread(Body body) {
    try {
        return std::thread(std::move(body));
    } catch (std::system_error const& failure) { // which says no more than "Resource temporarily unavailable"
        throw std::system_error(failure.code(), "to_thread.run_sync: no thread for the call");
    }
}

} // namespace

// Idle list, hand-over and the order to stop are one critical section (T9): whoever is in the idle list
// takes the next call, and nobody is in it who was told to stop.
//
// One of the idle threads, no more, looks for a call for a moment before it sleeps, and is the first to
// get one: a task that makes one call after the other pays for no wake.
struct thread_pool::state {
    std::mutex lock;
    std::vector<std::shared_ptr<pool_thread>> all;
    std::vector<std::shared_ptr<pool_thread>> idle; // if none of them looks the last one is used first
    std::vector<std::thread> retired; // have ended, or are about to; has room for all others
    pool_thread* looking = nullptr;                 // one of the idle ones
    bool stopped = false;

    void serve(std::shared_ptr<pool_thread> const& self);
    bool wait_for_call(std::shared_ptr<pool_thread> const&, patience&);
    bool finish_call(std::shared_ptr<pool_thread> const&);
    void leave(std::shared_ptr<pool_thread> const&, thread_call&);
    std::shared_ptr<pool_thread> take_idle();
    bool retire(std::shared_ptr<pool_thread> const&);
};

// The thread is in the idle list when the task is told, so that the task's next call finds it. False: the
// thread is to end.
bool thread_pool::state::finish_call(std::shared_ptr<pool_thread> const& self) {
    std::shared_ptr<thread_call> call = self->call; // stays there: close() looks at it
    try {
        perform(call);
    } catch (...) { // the thread is ending itself
        end_forked_child();
        leave(self, *call);
        throw;
    }
    end_forked_child();
    std::unique_lock guard(lock);
    ending const end(*call);
    self->call.reset(); // from here on close() waits for us
    bool const goes_on = !stopped;
    if (goes_on) {
        self->attention.store(pool_thread::awake, std::memory_order_relaxed); // published by the lock
        idle.push_back(self);
        self->looks = looking == nullptr;
        if (self->looks) looking = self.get();
    }
    guard.unlock();
    end.tell();
    if (end.abandoned) // the token bounds threads, not waits (T5)
        call->limiter->release_on_behalf_of(call.get());
    return goes_on;
}

// The thread ends itself in the middle of the call.
void thread_pool::state::leave(std::shared_ptr<pool_thread> const& self, thread_call& call) {
    std::unique_lock guard(lock);
    ending const end(call);
    self->call.reset();
    if (std::erase(all, self) != 0) // else close() has it
        retired.push_back(std::move(self->handle));
    guard.unlock();
    end.tell();
    if (end.abandoned) call.limiter->release_on_behalf_of(&call);
}

// False: the thread ends.
bool thread_pool::state::wait_for_call(std::shared_ptr<pool_thread> const& self, patience& mine) {
    std::int64_t const start = patience::now();
    auto const wanted = [&] { return self->is_wanted(); };
    bool found = self->looks ? mine.look_for(wanted) : wanted();
    if (self->looks && !found) {
        std::lock_guard const guard(lock);
        if (looking == self.get()) looking = nullptr;
    }
    while (!found) {
        std::int64_t const left = self->idle_limit - (patience::now() - start);
        if (left <= 0 && retire(self)) return false;
        self->sleep(std::max<std::int64_t>(left, 0));
        found = wanted();
    }
    mine.learn(patience::now() - start);
    return self->call != nullptr; // else the order to stop. Ours since is_wanted()
}

// Nobody wants it: from here on nobody can. False: somebody did.
bool thread_pool::state::retire(std::shared_ptr<pool_thread> const& self) {
    std::lock_guard const guard(lock);
    if (self->call != nullptr || stopped) return false;
    std::erase(idle, self);
    std::erase(all, self);
    retired.push_back(std::move(self->handle));
    return true;
}

void thread_pool::state::serve(std::shared_ptr<pool_thread> const& self) {
    ::pthread_setname_np(::pthread_self(), "weft-blocking");
    { std::lock_guard const started(lock); } // submit() has put everything in its place
    patience mine;
    while (finish_call(self) && wait_for_call(self, mine)) {
    }
}

// Under the lock. Null: there is none.
std::shared_ptr<pool_thread> thread_pool::state::take_idle() {
    if (idle.empty()) return nullptr;
    auto const chosen = looking == nullptr
                            ? std::prev(idle.end())
                            : std::find_if(idle.begin(), idle.end(), [this](auto const& each) {
                                  return each.get() == looking;
                              });
    std::shared_ptr<pool_thread> const taken = *chosen;
    idle.erase(chosen);
    looking = nullptr;
    return taken;
}

thread_pool::thread_pool() : state_(std::make_shared<state>()) {}

thread_pool::~thread_pool() = default;

void thread_pool::submit(std::shared_ptr<thread_call> call) {
    std::vector<std::thread> retired;
    std::shared_ptr<pool_thread> chosen;
    {
        std::lock_guard const guard(state_->lock);
        chosen = state_->take_idle();
        if (chosen != nullptr) {
            chosen->call = std::move(call);
        } else {
            auto const fresh = std::make_shared<pool_thread>();
            fresh->call = std::move(call);
            fresh->idle_limit = idle_limit.count();
            std::size_t const threads = state_->all.size() + 1;
            state_->idle.reserve(threads); // later insertions do not throw
            retired.reserve(threads);      //  "
            state_->all.push_back(fresh); // from here on it must get its thread
            try {
                fresh->handle = make_thread([state = state_, fresh] { state->serve(fresh); });
            } catch (...) {
                state_->all.pop_back();
                throw;
            }
            retired.swap(state_->retired);
        }
    }
    if (chosen != nullptr) chosen->want();
    for (std::thread& ended : retired)
        ended.join();
}

void thread_pool::close() noexcept {
    std::vector<std::shared_ptr<pool_thread>> threads;
    std::vector<std::thread> ended;
    {
        std::lock_guard const guard(state_->lock);
        state_->stopped = true;
        state_->idle.clear();
        state_->looking = nullptr;
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
        }
    }
    for (std::shared_ptr<pool_thread> const& each : threads)
        each->want();
    for (std::thread& each : ended)
        each.join();
}

std::shared_ptr<thread_call> current_thread_call() {
    return call_of_this_thread != nullptr ? *call_of_this_thread : nullptr;
}

} // namespace weft::detail
