#include <weft/io/detail/child_process.hpp>

#include "child_reaper.hpp"
#include "launch.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/detail/service.hpp>
#include <weft/sync/to_thread.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <system_error>

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace weft::detail {

namespace {

constexpr double starts_at_once = 8; // each holds a thread for 0.1 ms, or for as long as exec takes
constexpr int status_was_taken = 255;
constexpr std::chrono::milliseconds first_look_at_group{1};
constexpr std::chrono::milliseconds longest_between_looks{50};
constexpr unsigned to_process_group = 4; // PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9

// Not the default limiter of threads: calls there may themselves wait for a process.
class start_limiter final : public service {
public:
    void close() noexcept override {}
    capacity_limiter limiter{starts_at_once};
};

long signal_by_pidfd(int pidfd, int number, unsigned flags) noexcept {
    return ::syscall(SYS_pidfd_send_signal, pidfd, number, nullptr, flags);
}

// 0: still running. Else 1 and the code.
int look_for_end(int pidfd, int options, int& code) noexcept {
    ::siginfo_t info{};
    int result = 0;
    do
        result = ::waitid(::idtype_t(P_PIDFD), ::id_t(pidfd), &info, WEXITED | options);
    while (result != 0 && errno == EINTR);
    if (result != 0) { // somebody waited for children that are not his, or SIGCHLD is ignored
        std::fputs("weft: the exit status of a child process was taken by another wait; "
                   "255 is reported\n",
                   stderr);
        code = status_was_taken;
        return 1;
    }
    if (info.si_pid == 0) return 0;
    code = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
    return 1;
}

// From "PID (NAME) STATE ...". Alive, too, is of whom it cannot be told, for want of a descriptor or of a permission.
bool is_alive(::pid_t member) {
    unique_fd const file(::open(("/proc/" + std::to_string(member) + "/stat").c_str(), O_RDONLY | O_CLOEXEC));
    char text[256];
    ssize_t const size = file ? ::read(file.get(), text, sizeof text - 1) : -1;
    if (size < 0) return errno != ENOENT && errno != ESRCH; // these: gone meanwhile
    text[size] = '\0';
    char const* const name_end = std::strrchr(text, ')');
    char state = 0;
    return name_end == nullptr || std::sscanf(name_end, ") %c", &state) != 1 || (state != 'Z' && state != 'X');
}

struct closes_directory {
    void operator()(DIR* of) const { ::closedir(of); }
};

// The kernel counts dead members until their parent reaps them, and init often takes its time.
bool group_is_alive(::pid_t group) {
    std::unique_ptr<DIR, closes_directory> const processes(::opendir("/proc"));
    if (processes == nullptr) return true; // cannot be told
    for (;;) {
        errno = 0;
        ::dirent const* const entry = ::readdir(processes.get());
        if (entry == nullptr) return errno != 0; // cannot be told
        ::pid_t const each = std::atoi(entry->d_name); // 0: no process
        if (each > 0 && ::getpgid(each) == group && is_alive(each)) return true;
    }
}

} // namespace

std::vector<std::string> executables_for(std::string_view name, std::string_view search_path) {
    if (name.find('/') != std::string_view::npos) return {std::string(name)};
    std::vector<std::string> result;
    for (;;) {
        std::size_t const end = search_path.find(':');
        std::string directory(search_path.substr(0, end));
        if (!directory.empty()) directory += '/'; // an empty entry is the current directory
        result.push_back(directory.append(name));
        if (end == std::string_view::npos) return result;
        search_path.remove_prefix(end + 1);
    }
}

std::string signal_name(int number) {
    char const* const name = ::sigabbrev_np(number);
    return name != nullptr ? std::string("SIG") + name : "signal " + std::to_string(number);
}

void check_signal_number(int number) {
    if (number < 0 || number > SIGRTMAX)
        throw std::invalid_argument("there is no signal with the number " + std::to_string(number));
}

std::unique_ptr<child_process> child_process::start(child_plan const& plan) {
    launched fresh = launch(plan);
    int const number = fresh.pidfd.get();
    try {
        return std::make_unique<child_process>(fresh.pid, std::move(fresh.pidfd),
                                               plan.new_group || plan.new_session);
    } catch (...) { // no memory: nobody would ever know of the child
        unique_fd const again(int(::syscall(SYS_pidfd_open, fresh.pid, 0)));
        int const pidfd = fresh.pidfd ? number : again.get();
        signal_by_pidfd(pidfd, SIGKILL, 0);
        int code = 0;
        look_for_end(pidfd, 0, code);
        throw;
    }
}

child_process::child_process(::pid_t pid, unique_fd pidfd, bool leads_group)
    : pid_(pid), leads_group_(leads_group), number_(pidfd.get()), pidfd_(std::move(pidfd)) {}

child_process::~child_process() {
    kill();
    if (!is_forked_child() && !exit_code()) reap_in_background(pid_);
}

void child_process::kill() noexcept {
    if (!is_forked_child() && !exit_code()) signal_group(SIGKILL); // a forked child: somebody else's
}

// Under the lock. With the leader its number is given back to the kernel, unless there are members
// left, which is to be known before the number can have another meaning.
void child_process::reap(int options) noexcept {
    int code = 0;
    if (code_ || look_for_end(number_, options, code) == 0) return;
    group_may_live_ = leads_group_ && group_has_members();
    code_ = code;
}

std::optional<int> child_process::exit_code() noexcept {
    if (is_forked_child()) return {}; // it is the parent's to reap
    std::lock_guard const guard(reaping_);
    reap(WNOHANG);
    return code_;
}

int child_process::wait_blocking() noexcept {
    std::lock_guard const guard(reaping_);
    reap(0);
    return *code_;
}

int child_process::wait() {
    static constexpr char const* call = "process wait";
    enter_blocking_call(call);
    if (auto const code = exit_code()) return *code;
    std::lock_guard const turn(turn_);
    descriptor_use use(pidfd_, access::read, "waiting for");
    use.retry(call, [this](int) -> ssize_t {
        if (exit_code()) return 0;
        errno = EAGAIN; // it is readable once it has ended
        return -1;
    });
    return *exit_code();
}

void child_process::send_signal(int number) {
    check_signal_number(number);
    if (exit_code() || signal_by_pidfd(number_, number, 0) == 0 || errno == ESRCH) return;
    throw std::system_error(errno, std::system_category(),
                            "cannot send " + signal_name(number) + " to process " +
                                std::to_string(pid_));
}

// A group keeps its number while it has members, also when its leader is gone. A leader may have gone
// into another group, which is not ours to signal: it is told by itself. SIGKILL always, as it could
// go between the look and the signal.
void child_process::signal_group(int number) noexcept {
    std::lock_guard const guard(reaping_);
    if (leads_group_ && (!code_ || group_may_live_) &&
        signal_by_pidfd(number_, number, to_process_group) != 0 && errno == EINVAL)
        ::kill(-pid_, number);
    if (code_) return;
    if (!leads_group_ || number == SIGKILL || ::getpgid(pid_) != pid_)
        signal_by_pidfd(number_, number, 0);
}

bool child_process::group_has_members() const noexcept {
    if (signal_by_pidfd(number_, 0, to_process_group) == 0) return true;
    return errno == EINVAL && ::kill(-pid_, 0) == 0;
}

bool child_process::group_lives() noexcept {
    std::lock_guard const guard(reaping_);
    group_may_live_ = group_may_live_ && group_has_members();
    return group_may_live_;
}

// Nothing tells the end of a group, so it is looked for.
void child_process::wait_for_group() {
    auto const is_alive = [this] {
        try {
            return to_thread::run_sync([this] { return group_is_alive(pid_); });
        } catch (std::exception const&) { // no thread to look in: it cannot be told
            return true;
        }
    };
    wait();
    for (auto pause = first_look_at_group; group_lives() && is_alive();
         pause = std::min(2 * pause, longest_between_looks))
        sleep(pause);
}

void child_process::end(duration grace) {
    shielded([&] {
        if (grace > duration::zero()) {
            signal_group(SIGTERM);
            signal_group(SIGCONT); // one that is stopped would not hear it
            try {
                if (move_on_after(grace, [this] { wait_for_group(); })) return;
            } catch (std::exception const&) { // no memory to wait: then there is no grace
            }
        }
        signal_group(SIGKILL);
        wait();
    });
}

capacity_limiter& child_start_limiter() {
    return current_services("open_process")
        .get<start_limiter>([] { return std::make_unique<start_limiter>(); })
        .limiter;
}

std::unique_ptr<child_process> start_child(child_plan const& plan) {
    return to_thread::run_sync({.limiter = &child_start_limiter()},
                               [&plan] { return child_process::start(plan); });
}

} // namespace weft::detail
