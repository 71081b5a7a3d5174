#include "overflow_report.hpp"

#include "context_switch.hpp"
#include "stack_pool.hpp"
#include "this_thread.hpp"
#include "worker.hpp"

#include <weft/runtime/detail/fork.hpp>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>

#include <dlfcn.h>
#include <unistd.h>

namespace weft::detail {

namespace {

constexpr std::size_t alternate_stack_size = 64 * 1024; // a frame alone can take 11 KiB (AVX-512, AMX)

struct sigaction previous_segv;
struct sigaction previous_bus;

// Only write(2), and only memory that nobody changes under us: we are in a signal handler.
void write_text(char const* text) noexcept {
    [[maybe_unused]] auto const written = ::write(STDERR_FILENO, text, std::strlen(text));
}

void write_number(std::size_t number, unsigned base) noexcept {
    char digits[32];
    char* place = digits + sizeof digits - 1;
    *place = '\0';
    do
        *--place = "0123456789abcdef"[number % base];
    while ((number /= base) != 0);
    write_text(place);
}

void write_site(void const* site) noexcept {
    Dl_info info{};
    if (site != nullptr && ::dladdr(site, &info) != 0 && info.dli_fname != nullptr) {
        if (info.dli_sname != nullptr) {
            write_text(info.dli_sname);
            write_text("+0x");
            write_number(std::size_t(static_cast<char const*>(site) -
                                     static_cast<char const*>(info.dli_saddr)), 16);
            write_text(" in ");
        }
        write_text(info.dli_fname);
        write_text("+0x");
        write_number(std::size_t(static_cast<char const*>(site) -
                                 static_cast<char const*>(info.dli_fbase)), 16);
    } else {
        write_text("an unknown place");
    }
}

void write_report(fiber const& of, std::size_t stack_size) noexcept {
    write_text("weft: stack overflow: task ");
    if (of.name != nullptr && (of.flags & fiber::name_is_function) != 0) {
        write_site(of.name);
        write_text(" ");
    } else if (of.name != nullptr) {
        write_text("'");
        write_text(of.name);
        write_text("' ");
    } else if (of.operations != nullptr) {
        write_text(of.operations->type.name());
        write_text(" ");
    }
    write_text("(id ");
    write_number(of.id, 10);
    write_text(") used up its stack of ");
    write_number(stack_size, 10);
    write_text(" bytes; it was spawned at ");
    write_site(of.spawn_site);
    write_text("\nGive it more with task_options::stack_size or run_options::stack_size.\n");
}

void pass_on(int signal, siginfo_t* info, void* context) noexcept {
    struct sigaction const& before = signal == SIGSEGV ? previous_segv : previous_bus;
    if ((before.sa_flags & SA_SIGINFO) != 0 && before.sa_sigaction != nullptr)
        return before.sa_sigaction(signal, info, context);
    if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN && before.sa_handler != nullptr)
        return before.sa_handler(signal);
    std::signal(signal, SIG_DFL); // the instruction faults again and ends the process
}

void on_fault(int signal, siginfo_t* info, void* context) noexcept {
    worker const* const here = this_worker();
    fiber const* const running = here != nullptr ? here->current.load(std::memory_order_relaxed) // our own
                                               : fiber_in_region();
    std::size_t stack_size = 0;
    if (running != nullptr && stack_depot::is_guard(info->si_addr, stack_size)) {
        write_report(*running, stack_size);
        std::signal(SIGABRT, SIG_DFL);
        ::raise(SIGABRT);
    }
    if (here == nullptr && is_forked_child() &&
        reinterpret_cast<std::uintptr_t>(info->si_addr) < sizeof(worker)) {
        write_text("weft: a task went on to its end in a child of fork(), where its run did not come "
                   "along: leave such a child by exec or _exit\n");
        std::signal(SIGABRT, SIG_DFL);
        ::raise(SIGABRT);
    }
    pass_on(signal, info, context);
}

struct alternate_stack {
    std::unique_ptr<char[]> memory;
    stack_t before{};
    ~alternate_stack();
};
constinit thread_local bool own_is_gone = false; // it can still be read then
thread_local alternate_stack own_alternate_stack;

alternate_stack::~alternate_stack() {
    if (memory != nullptr) ::sigaltstack(&before, nullptr);
    own_is_gone = true;
}

} // namespace

void report_overflows() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action{};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        ::sigemptyset(&action.sa_mask);
        ::sigaction(SIGSEGV, &action, &previous_segv);
        ::sigaction(SIGBUS, &action, &previous_bus);
    });
}

void prepare_thread_for_overflow() noexcept {
    if (own_is_gone) return; // a run() in a static destructor: an overflow ends the process silently
    stack_t existing{};
    if (::sigaltstack(nullptr, &existing) == 0 && (existing.ss_flags & SS_DISABLE) == 0) return;
    alternate_stack& own = own_alternate_stack; // no fiber runs here
    own.memory.reset(new (std::nothrow) char[alternate_stack_size]);
    if (own.memory == nullptr) return; // an overflow will end the process all the same, silently
    own.before = existing;
    stack_t wanted{};
    wanted.ss_sp = own.memory.get();
    wanted.ss_size = alternate_stack_size;
    ::sigaltstack(&wanted, nullptr);
}

} // namespace weft::detail
