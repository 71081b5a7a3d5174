#include "stall_report.hpp"

#include "runtime.hpp"
#include "task.hpp"

#include <weft/runtime/detail/group_state.hpp>
#include <weft/runtime/detail/report.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>

#include <execinfo.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace weft::detail {

namespace {

using namespace std::chrono_literals;

constexpr int signal_used = SIGURG; // ignored by default, and by debuggers; Go uses it for the same
constexpr duration time_to_answer = 200ms;
constexpr int frames_of_handler = 2; // itself, and where the kernel entered it

// What a worker is asked, one at a time. `state` says whose turn it is, and of which question: the signal
// has its number, so that one that was blocked for long does not answer for another worker.
//
//   monitor                                      the worker's signal handler
//   asked            (release), send the signal  asked -> answering        (CAS, acquire)
//   answered?        (acquire): read             fill in; answered         (release)
//   late: asked -> idle          (CAS), give up
struct question {
    enum stage : unsigned { idle, asked, answering, answered };
    static unsigned state_of(unsigned number, stage in) noexcept { return number << 2 | in; }

    std::atomic<unsigned> state = idle;
    unsigned number = 0; // the monitor's
    worker* of = nullptr;
    std::uint32_t tick = 0;
    fiber* task = nullptr; // a reference is held
    std::array<void*, 48> frames{};
    int count = 0;
};
question the_question;
std::mutex one_at_a_time; // of several runs

struct sigaction previous;

void pass_on(int number, siginfo_t* info, void* context) noexcept {
    if ((previous.sa_flags & SA_SIGINFO) != 0 && previous.sa_sigaction != nullptr)
        return previous.sa_sigaction(number, info, context);
    if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN && previous.sa_handler != nullptr)
        previous.sa_handler(number);
}

// Unwinding takes no lock and no memory once it was tried (see take_over_signal()).
void on_signal(int number, siginfo_t* info, void* context) noexcept {
    int const saved_errno = errno;
    if (info->si_code != SI_QUEUE || info->si_value.sival_ptr != &the_question)
        return pass_on(number, info, context);
    auto const asked = unsigned(info->si_errno); // send_question()
    unsigned expected = question::state_of(asked, question::asked);
    if (the_question.state.compare_exchange_strong(expected,
                                                   question::state_of(asked, question::answering),
                                                   std::memory_order_acquire)) { // the monitor's
        worker* const here = this_worker();
        the_question.task = nullptr;
        the_question.count = 0;
        bool const is_asked = here != nullptr && here == the_question.of;
        fiber* const task = is_asked ? here->current.load(std::memory_order_relaxed) : nullptr; // our own
        // Still the same stretch: the task is not about to switch, nor has it ended, which would leave its
        // block to others; and its stack can be walked.
        if (task != nullptr && task->state.load(std::memory_order_relaxed) == task_state::running && // our own
            here->tick.load(std::memory_order_relaxed) == the_question.tick) {                      //  "
            the_question.task = begin_look(*task) ? task : nullptr;
            the_question.count =
                ::backtrace(the_question.frames.data(), int(the_question.frames.size()));
        }
        the_question.state.store(question::state_of(asked, question::answered),
                                 std::memory_order_release); // pairs with ask()
    }
    errno = saved_errno;
}

void take_over_signal() {
    static std::once_flag once;
    std::call_once(once, [] {
        void* first[1];
        ::backtrace(first, 1); // loads the unwinder now
        struct sigaction action{};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
        sigfillset(&action.sa_mask);
        ::sigaction(signal_used, &action, &previous);
    });
}

bool send_question(int thread) noexcept {
    siginfo_t info{};
    info.si_signo = signal_used;
    info.si_code = SI_QUEUE;
    info.si_pid = ::getpid();
    info.si_uid = ::getuid();
    info.si_value.sival_ptr = &the_question; // whose signal it is
    info.si_errno = int(the_question.number); // of no other use; the kernel hands it on
    return ::syscall(SYS_rt_tgsigqueueinfo, ::getpid(), thread, signal_used, &info) == 0;
}

// True: the worker has answered.
bool ask(worker& stalled, std::uint32_t tick) {
    the_question.of = &stalled;
    the_question.tick = tick;
    unsigned const number = ++the_question.number;
    the_question.state.store(question::state_of(number, question::asked),
                             std::memory_order_release); // pairs with on_signal()
    bool const sent = send_question(stalled.thread.load(std::memory_order_relaxed)); // any time's
    time_point const until = runtime::real_now() + (sent ? time_to_answer : duration::zero());
    while (the_question.state.load(std::memory_order_acquire) != // on_signal()
           question::state_of(number, question::answered)) {
        unsigned expected = question::state_of(number, question::asked);
        if (runtime::real_now() >= until &&
            the_question.state.compare_exchange_strong(expected, question::idle,
                                                       std::memory_order_relaxed)) // nothing to read
            return false;
        std::this_thread::sleep_for(200us);
    }
    the_question.state.store(question::idle, std::memory_order_relaxed); // only we ask
    return true;
}

} // namespace

stall_detector::stall_detector(runtime& run)
    : run_(run), threshold_(run.sim ? duration::zero() : run.options.stall_threshold) {
    if (!is_on()) return;
    workers_.resize(run.workers.size());
    take_over_signal();
}

duration stall_detector::interval() const noexcept {
    return std::clamp<duration>(threshold_ / 4, 1ms, 5ms);
}

// Not while the run ends: no task keeps a worker any more, and threads that have ended do not sleep either.
void stall_detector::look(time_point now) noexcept {
    if (run_.stopping.load(std::memory_order_relaxed)) return; // report() looks again
    for (std::size_t number = 0; number < workers_.size(); ++number) {
        worker& each = *run_.workers[number];
        watched& seen = workers_[number];
        std::uint32_t const tick = each.tick.load(std::memory_order_relaxed); // does it move?
        // 0: it has not begun.
        if (tick == 0 || tick != seen.tick || run_.idle.is_asleep(unsigned(number))) {
            seen = {tick, now, false};
        } else if (!seen.reported && now - seen.since >= threshold_) {
            seen.reported = true;
            try {
                report(each, tick, now - seen.since);
            } catch (std::bad_alloc const&) { // no memory to tell of it
            }
        }
    }
}

void stall_detector::report(worker& stalled, std::uint32_t tick, duration since) {
    std::lock_guard const guard(one_at_a_time);
    bool const answered = ask(stalled, tick);
    if (answered && the_question.task == nullptr) return; // it went on meanwhile
    // Threads that end do not answer. They end only then, so the question comes before this look.
    if (!answered && stalled.run_of.stopping.load(std::memory_order_relaxed)) return; // a hint
    std::optional<task_look> held;
    if (answered) held.emplace(*the_question.task, task_look::begun());
    auto const ms = std::chrono::duration_cast<std::chrono::milliseconds>(since).count();
    std::string text = answered ? describe_origin(*the_question.task) + ", has kept"
                                : std::string("a task that blocks signals has kept");
    text += " worker " + std::to_string(stalled.index) + " for " + std::to_string(ms) + " ms";
    for (int frame = frames_of_handler; answered && frame < the_question.count; ++frame)
        text += "\n  #" + std::to_string(frame - frames_of_handler) + " " +
                describe_address(the_question.frames[std::size_t(frame)]);
    report_mistake(text);
}

} // namespace weft::detail
