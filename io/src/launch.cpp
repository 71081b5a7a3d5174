#include "launch.hpp"

#include <cerrno>
#include <climits>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <system_error>

#include <dirent.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// How a child is started without a copy of this process.
//
//   fork() copies the page tables: 45 ms for 3 GB. clone(CLONE_VM | CLONE_VFORK) copies nothing:
//   the child runs in our memory, on a stack of its own, while the calling thread stands still
//   until the child has called execve() or exit(). posix_spawn() does the same, but knows no user,
//   group or umask.
//
//   Until then the child is a second thread in all but name, with the thread-local storage of the
//   caller: it makes system calls and nothing else. Not even those of libc: setuid() there tells
//   every thread, and the sanitizers listen to close() and sigaction() for a process whose
//   descriptors and handlers are not the child's. No handler may run in it either: signals are
//   blocked before the clone, and handlers (a copy of the table) are gone before it lets them in.
//
//   CLONE_PIDFD gives the pidfd in the same moment: no number that could be somebody else's.

extern char** environ;

// glibc's other name of clone(). That one ThreadSanitizer takes for a fork, and notes so in the
// thread whose memory the child shares; from then on it sees no lock that this thread takes.
extern "C" int __clone(int (*)(void*), void*, int, void*, ...);

// In the shared memory, as part of the parent's thread, nothing may be noted down for a sanitizer.
#define WEFT_IN_CHILD __attribute__((no_sanitize("address", "thread", "undefined")))

namespace weft::detail {

namespace {

constexpr std::size_t child_stack_size = 64 * 1024;
constexpr int first_number = 3; // after the standard streams
constexpr long signals = 64;    // of the kernel: sizeof its sigset_t * 8
constexpr std::size_t sigset_size = signals / CHAR_BIT;

// Of the thread that loads the library. Workers have one of their own, which a child would inherit across execve().
int const timer_slack = ::prctl(PR_GET_TIMERSLACK);

enum class step : std::uint8_t {
    none,
    streams,
    pass_fd,
    session,
    directory,
    groups,
    group,
    user,
    execute
};

// The kernel's struct sigaction, on x86-64 and aarch64.
struct kernel_action {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)();
    std::uint64_t mask;
};

// Everything as plain arrays, so that the child calls no function of a library.
struct launch_order {
    char* const* arguments;
    char* const* environment;
    char const* const* candidates; // ends with null
    int streams[3];
    int const* kept;
    std::size_t kept_count;
    char const* directory; // null: stay
    bool sets_user, sets_group, sets_groups, new_session, new_group;
    ::uid_t user;
    ::gid_t group;
    ::gid_t const* groups;
    std::size_t groups_count;
    int umask;
    std::uint64_t descriptor_limit;

    // The child's answer.
    step failed_at;
    int error;
    int failed_fd;
};

WEFT_IN_CHILD bool fail(launch_order& order, step where, int error) {
    order.failed_at = where;
    order.error = error;
    return false;
}

// The handlers are ours and point into a program that is about to go. SIGPIPE and SIGXFSZ are often
// ignored by servers; programs expect to be ended by them.
WEFT_IN_CHILD void reset_signals() {
    for (long number = 1; number <= signals; ++number) {
        kernel_action action{};
        if (::syscall(SYS_rt_sigaction, number, nullptr, &action, sigset_size) != 0) continue;
        bool const ignored = action.handler == SIG_IGN;
        if (action.handler == SIG_DFL || (ignored && number != SIGPIPE && number != SIGXFSZ))
            continue;
        action = kernel_action{};
        ::syscall(SYS_rt_sigaction, number, &action, nullptr, sigset_size);
    }
}

// A stream whose number is that of another standard stream would be overwritten before its turn.
WEFT_IN_CHILD bool move_streams_up(launch_order& order) {
    for (int& stream : order.streams) {
        if (stream < 0 || stream >= first_number) continue;
        long const copy = ::syscall(SYS_fcntl, stream, F_DUPFD_CLOEXEC, first_number);
        if (copy < 0) return fail(order, step::streams, errno);
        stream = int(copy);
    }
    return true;
}

// 0, which is no number of interest, for "." and "..".
WEFT_IN_CHILD int to_number(char const* text) {
    int number = 0;
    for (; *text >= '0' && *text <= '9'; ++text)
        number = 10 * number + (*text - '0');
    return number;
}

// False: they cannot be listed. Marking them does not change the list that is being read.
WEFT_IN_CHILD bool close_listed_on_exec() {
    long const list = ::syscall(SYS_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (list < 0) return false;
    alignas(::dirent64) char entries[2048];
    long size = 0;
    while ((size = ::syscall(SYS_getdents64, list, entries, sizeof entries)) > 0)
        for (long place = 0; place < size;) {
            auto const& entry = *reinterpret_cast<::dirent64 const*>(entries + place);
            int const fd = to_number(entry.d_name);
            if (fd >= first_number) ::syscall(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
            place += entry.d_reclen;
        }
    ::syscall(SYS_close, list);
    return size == 0;
}

// Without close_range() it is a kernel before 5.11, or a sandbox. The numbers up to the limit are the last resort: in
// containers there may be a thousand million of them.
WEFT_IN_CHILD void close_others_on_exec(launch_order const& order) {
    if (::syscall(SYS_close_range, first_number, ~0u, CLOSE_RANGE_CLOEXEC) == 0) return;
    if (close_listed_on_exec()) return;
    for (std::uint64_t fd = first_number; fd < order.descriptor_limit; ++fd)
        ::syscall(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
}

WEFT_IN_CHILD bool arrange_descriptors(launch_order& order) {
    if (!move_streams_up(order)) return false;
    close_others_on_exec(order);
    for (int target = 0; target < first_number; ++target)
        if (order.streams[target] >= 0 && ::syscall(SYS_dup3, order.streams[target], target, 0) < 0)
            return fail(order, step::streams, errno);
    for (std::size_t i = 0; i < order.kept_count; ++i)
        if (::syscall(SYS_fcntl, order.kept[i], F_SETFD, 0) != 0) {
            order.failed_fd = order.kept[i];
            return fail(order, step::pass_fd, errno);
        }
    return true;
}

WEFT_IN_CHILD bool change_identity(launch_order& order) {
    if (order.sets_groups && ::syscall(SYS_setgroups, order.groups_count, order.groups) != 0)
        return fail(order, step::groups, errno);
    if (order.sets_group && ::syscall(SYS_setregid, order.group, order.group) != 0)
        return fail(order, step::group, errno);
    if (order.sets_user && ::syscall(SYS_setreuid, order.user, order.user) != 0)
        return fail(order, step::user, errno);
    return true;
}

WEFT_IN_CHILD bool change_surroundings(launch_order& order) {
    if (order.new_session && ::syscall(SYS_setsid) < 0) return fail(order, step::session, errno);
    if (order.new_group && !order.new_session && ::syscall(SYS_setpgid, 0, 0) != 0)
        return fail(order, step::session, errno);
    if (order.directory != nullptr && ::syscall(SYS_chdir, order.directory) != 0)
        return fail(order, step::directory, errno);
    if (order.umask >= 0) ::syscall(SYS_umask, order.umask);
    return change_identity(order);
}

// What is not there is passed over; what is there and cannot be executed is remembered.
WEFT_IN_CHILD void execute(launch_order& order) {
    int first_error = 0;
    int last_error = ENOENT;
    for (char const* const* file = order.candidates; *file != nullptr; ++file) {
        ::syscall(SYS_execve, *file, order.arguments, order.environment);
        last_error = errno;
        if (last_error != ENOENT && last_error != ENOTDIR && first_error == 0)
            first_error = last_error;
    }
    fail(order, step::execute, first_error != 0 ? first_error : last_error);
}

WEFT_IN_CHILD int run_child(void* argument) {
    launch_order& order = *static_cast<launch_order*>(argument);
    reset_signals();
    ::syscall(SYS_prctl, PR_SET_TIMERSLACK, timer_slack, 0, 0, 0);
    if (change_surroundings(order) && arrange_descriptors(order)) {
        std::uint64_t const nothing = 0; // which signals our thread blocks is no concern of it
        ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &nothing, nullptr, sigset_size);
        execute(order);
    }
    for (;;)
        ::syscall(SYS_exit_group, 127);
}

class all_signals_blocked {
public:
    all_signals_blocked() {
        std::uint64_t const all = ~std::uint64_t(0); // libc's own, too: it would keep them open
        ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before_, sigset_size);
    }
    ~all_signals_blocked() {
        ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before_, nullptr, sigset_size);
    }
    all_signals_blocked(all_signals_blocked const&) = delete;
    all_signals_blocked& operator=(all_signals_blocked const&) = delete;

private:
    std::uint64_t before_ = 0;
};

std::vector<char*> pointers_to(std::vector<std::string> const& strings) {
    std::vector<char*> result;
    for (std::string const& each : strings)
        result.push_back(const_cast<char*>(each.c_str()));
    result.push_back(nullptr);
    return result;
}

std::uint64_t descriptor_limit() {
    ::rlimit limit{};
    return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_max : 65'536;
}

std::string describe(launch_order const& order, child_plan const& plan) {
    switch (order.failed_at) {
    case step::streams: return "cannot give the process its standard streams";
    case step::pass_fd: return "cannot pass file descriptor " + std::to_string(order.failed_fd);
    case step::session: return "cannot begin a session or process group";
    case step::directory: return "cannot change to the directory '" + plan.directory + "'";
    case step::groups: return "cannot set the supplementary groups";
    case step::group: return "cannot change to group " + std::to_string(order.group);
    case step::user: return "cannot change to user " + std::to_string(order.user);
    default: return "cannot execute '" + plan.arguments.front() + "'";
    }
}

} // namespace

launched launch(child_plan const& plan) {
    std::vector<char*> const arguments = pointers_to(plan.arguments);
    std::vector<char*> const candidates = pointers_to(plan.candidates);
    std::vector<char*> environment;
    if (plan.environment) environment = pointers_to(*plan.environment);
    launch_order order{
        .arguments = arguments.data(),
        .environment = plan.environment ? environment.data() : environ,
        .candidates = candidates.data(),
        .streams = {plan.streams[0], plan.streams[1], plan.streams[2]},
        .kept = plan.kept.data(),
        .kept_count = plan.kept.size(),
        .directory = plan.directory.empty() ? nullptr : plan.directory.c_str(),
        .sets_user = plan.user.has_value(),
        .sets_group = plan.group.has_value(),
        .sets_groups = plan.groups.has_value(),
        .new_session = plan.new_session,
        .new_group = plan.new_group,
        .user = plan.user.value_or(0),
        .group = plan.group.value_or(0),
        .groups = plan.groups ? plan.groups->data() : nullptr,
        .groups_count = plan.groups ? plan.groups->size() : 0,
        .umask = plan.umask,
        .descriptor_limit = descriptor_limit(),
        .failed_at = step::none,
        .error = 0,
        .failed_fd = -1,
    };
    auto const stack = std::make_unique_for_overwrite<std::byte[]>(child_stack_size);
    auto const top = reinterpret_cast<std::uintptr_t>(stack.get() + child_stack_size) & ~15ul;
    int pidfd = -1;
    int child = 0;
    int clone_error = 0;
    {
        all_signals_blocked const guard;
        child = ::__clone(run_child, reinterpret_cast<void*>(top),
                          CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &order, &pidfd);
        clone_error = errno;
    }
    if (child < 0)
        throw std::system_error(clone_error, std::system_category(),
                                "cannot start a process for '" + plan.arguments.front() + "'");
    unique_fd owner(pidfd);
    if (order.failed_at == step::none) return {child, std::move(owner)};
    ::siginfo_t info{};
    while (::waitid(::idtype_t(P_PIDFD), ::id_t(pidfd), &info, WEXITED) != 0 && errno == EINTR) {
    }
    throw std::system_error(order.error, std::system_category(), describe(order, plan));
}

} // namespace weft::detail
