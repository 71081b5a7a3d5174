#include "code_address.hpp"
#include "exception_transport.hpp"
#include "process_pool.hpp"
#include "worker_protocol.hpp"

#include <weft/io/detail/process_call.hpp>
#include <weft/io/error.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/detail/service.hpp>
#include <weft/runtime/exception_group.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/capacity_limiter.hpp>
#include <weft/sync/from_thread.hpp>
#include <weft/sync/to_thread.hpp>

#include <cerrno>
#include <chrono>
#include <exception>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace weft {

namespace to_process { // as declared in the public header, which needs cereal
capacity_limiter& current_default_process_limiter();
}

namespace detail {

namespace {

using namespace std::chrono_literals;

constexpr char const* name_of_call = "to_process.run_sync";
constexpr auto time_to_end_after_hanging_up = 1s;
constexpr std::chrono::milliseconds time_between_looks = 20ms;
constexpr unsigned cpus_if_unknown = 2;

class default_process_limiter final : public service {
public:
    void close() noexcept override {}

    capacity_limiter limiter{[] {
        unsigned const cpus = std::thread::hardware_concurrency(); // those that we may use
        return double(cpus != 0 ? cpus : cpus_if_unknown);
    }()};
};

template <class Service> Service& service_of_run(char const* call) {
    return current_services(call).get<Service>([] { return std::make_unique<Service>(); });
}

class token {
public:
    explicit token(capacity_limiter& limiter) : limiter_(limiter) {
        limiter_.acquire_on_behalf_of(this);
    }
    ~token() { limiter_.release_on_behalf_of(this); }
    token(token const&) = delete;
    token& operator=(token const&) = delete;

private:
    capacity_limiter& limiter_;
};

// The worker is of no use any more; the text says why. Inside this file only.
struct breach {
    char const* why;
    bool may_have_ended = false;
};

void send_all(pool_worker& worker, bytes_view data) {
    descriptor_use use(worker.connection, access::write, "writing to");
    while (!data.empty()) {
        ssize_t const sent = use.retry(name_of_call, [data](int fd) {
            return ::send(fd, data.data(), data.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        });
        if (sent < 0) throw breach{"did not take the call", true};
        data = data.subview(std::size_t(sent));
    }
}

void receive_all(pool_worker& worker, buffer target) {
    descriptor_use use(worker.connection, access::read, "reading from");
    while (!target.empty()) {
        ssize_t const count = use.retry(name_of_call, [target](int fd) {
            return ::recv(fd, target.data(), target.size(), MSG_DONTWAIT);
        });
        if (count <= 0) throw breach{"hung up", true};
        target = target.subspan(std::size_t(count));
    }
}

frame_header receive_header(pool_worker& worker) {
    frame_header header;
    receive_all(worker, buffer(reinterpret_cast<std::byte*>(&header), sizeof header));
    if (header.magic != frame_header::valid_magic || header.size > largest_frame)
        throw breach{"does not keep to the protocol"};
    return header;
}

std::string describe_end(pool_worker& worker, std::string const& why) {
    std::string const who = "the worker process " + std::to_string(worker.child->pid());
    auto const code = worker.child->exit_code();
    if (!code) return who + " " + why;
    if (*code < 0) return who + " was ended by " + signal_name(-*code);
    return who + " ended with exit status " + std::to_string(*code);
}

// Kills and reaps it, and says what became of it by itself.
[[noreturn]] void fail_broken(pool_worker& worker, breach const& found) {
    if (found.may_have_ended)
        shielded([&] {
            // The connection goes before the process has quite ended.
            move_on_after(time_to_end_after_hanging_up, [&] { worker.child->wait(); });
        });
    std::string const text = describe_end(worker, found.why);
    worker.child->end(duration::zero());
    throw broken_worker_process(text);
}

// Any other way out than by a breach: cancelled, out of memory.
template <class Talk> auto talk_or_end(pool_worker& worker, Talk talk) {
    try {
        return talk();
    } catch (breach const& found) {
        fail_broken(worker, found);
    } catch (...) { // what it would still say is for nobody
        worker.child->end(duration::zero());
        throw;
    }
}

unique_fd open_null() {
    unique_fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    if (!null) throw std::system_error(errno, std::system_category(), "/dev/null");
    return null;
}

enum class beginning { greeted, ended, late };

// In a thread, greeting included: by a clock that is the real one also under "sim". A worker may hang or
// end in its initialisers, and its caller be cancelled meanwhile (P5). An end is seen by the connection,
// unless the worker has left a process behind that has it, too.
beginning start_and_await_greeting(pool_worker& worker, child_plan const& plan, int connection,
                                   unique_fd& theirs, std::chrono::milliseconds at_most) {
    worker.child = child_process::start(plan);
    theirs.reset();
    auto const until = std::chrono::steady_clock::now() + at_most;
    ::pollfd greeting{connection, POLLIN, 0};
    while (::poll(&greeting, 1, int(time_between_looks.count())) <= 0) {
        from_thread::check_cancelled();
        if (worker.child->exit_code()) return beginning::ended;
        if (std::chrono::steady_clock::now() >= until) return beginning::late;
    }
    return beginning::greeted; // or hung up
}

// With its standard streams closed a program gets their numbers. In the worker these are taken.
unique_fd above_standard_streams(unique_fd fd) {
    if (fd.get() > STDERR_FILENO) return fd;
    unique_fd higher(::fcntl(fd.get(), F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
    if (!higher)
        throw std::system_error(errno, std::system_category(), "cannot move a descriptor");
    return higher;
}

beginning start_worker(pool_worker& worker, std::chrono::milliseconds time_to_greet) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        throw std::system_error(errno, std::system_category(), "cannot make a socket pair");
    unique_fd first(ends[0]);
    unique_fd second(ends[1]);
    unique_fd ours = above_standard_streams(std::move(first));
    unique_fd theirs = above_standard_streams(std::move(second));
    int const our_number = ours.get();
    worker.connection = open_descriptor(std::move(ours));
    unique_fd const null = open_null();
    child_plan plan;
    plan.arguments = {worker_name, std::to_string(theirs.get())};
    plan.candidates = {"/proc/self/exe"};
    plan.streams = {null.get(), null.get(), null.get()};
    plan.kept = {theirs.get()};
    plan.new_group = true;
    return to_thread::run_sync({.limiter = &child_start_limiter()},
                               [&] {
                                   return start_and_await_greeting(worker, plan, our_number,
                                                                   theirs, time_to_greet);
                               });
}

std::unique_ptr<pool_worker> start_and_greet(process_pool const& pool) {
    auto worker = std::make_unique<pool_worker>();
    auto how = beginning::late;
    try {
        how = start_worker(*worker, pool.time_to_greet);
    } catch (...) { // cancelled while it began, or before; out of memory
        if (worker->child != nullptr) worker->child->end(duration::zero());
        throw;
    }
    talk_or_end(*worker, [&] {
        if (how == beginning::late) throw breach{"did not begin in time"};
        if (how == beginning::ended) throw breach{"hung up", true};
        frame_header const header = receive_header(*worker);
        if (header.kind != frame_kind::greeting || header.size != 0)
            throw breach{"does not keep to the protocol"};
    });
    return worker;
}

std::unique_ptr<pool_worker> get_worker(process_pool& pool) {
    std::vector<std::unique_ptr<pool_worker>> retired;
    std::unique_ptr<pool_worker> worker = pool.take(retired);
    for (auto const& each : retired)
        each->child->end(duration::zero());
    return worker != nullptr ? std::move(worker) : start_and_greet(pool);
}

struct reply {
    frame_kind kind;
    bytes data;
};

reply exchange(pool_worker& worker, frame_writer& call) {
    frame_header const request{.kind = frame_kind::call, .size = call.data().size()};
    send_all(worker, bytes_view(reinterpret_cast<std::byte const*>(&request), sizeof request));
    send_all(worker, call.data());
    call.clear();
    frame_header const header = receive_header(worker);
    if (header.kind != frame_kind::value && header.kind != frame_kind::exception)
        throw breach{"does not keep to the protocol"};
    reply answer{header.kind, bytes(header.size, '\0')};
    receive_all(worker, as_buffer(answer.data));
    return answer;
}

void hang_up(pool_worker& worker) {
    descriptor_use const use(worker.connection, access::look, "hanging up");
    ::shutdown(use.fd(), SHUT_RDWR);
}

// A process that the function has left behind may keep the connection open when the worker has ended.
// So its end is waited for as well, and then our end says that nothing more comes. What has come is
// there all the same: a shut socket gives what it holds before it tells the end.
reply exchange_while_it_lives(pool_worker& worker, frame_writer& call) {
    std::optional<reply> answer;
    std::exception_ptr failure; // as itself, not in a group
    try {
        with_task_group([&](task_group& group) {
            group.start_soon([&worker] {
                worker.child->wait();
                hang_up(worker);
            });
            try {
                answer.emplace(exchange(worker, call));
            } catch (cancelled const&) {
                throw;
            } catch (...) {
                failure = std::current_exception();
            }
            group.cancel();
        });
    } catch (exception_group const& failed) { // of the task that waits: no memory
        if (!answer && failure == nullptr) failure = failed.exceptions().front();
    }
    if (failure != nullptr) std::rethrow_exception(failure);
    return std::move(answer).value();
}

} // namespace

frame_writer begin_process_call(process_entry entry, void const* function) {
    enter_blocking_call(name_of_call);
    frame_writer call;
    write_code_address(call, reinterpret_cast<void const*>(entry));
    call.write_number(function != nullptr ? 1 : 0);
    if (function != nullptr) write_code_address(call, function);
    return call;
}

bytes finish_process_call(frame_writer call, bool cancellable, capacity_limiter* limiter) {
    if (limiter == nullptr) limiter = &to_process::current_default_process_limiter();
    auto& pool = service_of_run<process_pool>(name_of_call);
    token const borrowed(*limiter);
    std::unique_ptr<pool_worker> worker = get_worker(pool);
    reply answer = talk_or_end(*worker, [&] {
        if (cancellable) return exchange_while_it_lives(*worker, call);
        return shielded([&] { return exchange_while_it_lives(*worker, call); });
    });
    pool.give(std::move(worker));
    if (answer.kind == frame_kind::value) return std::move(answer.data);
    frame_reader failure(answer.data);
    throw_received_exception(failure);
}

} // namespace detail

capacity_limiter& to_process::current_default_process_limiter() {
    return detail::service_of_run<detail::default_process_limiter>(
               "to_process.current_default_process_limiter")
        .limiter;
}

} // namespace weft
