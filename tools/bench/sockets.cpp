#include "lines.hpp"

#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>
#include <weft/streams/error.hpp>
#include <weft/streams/tcp.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bench {

namespace {

using namespace std::chrono_literals;

void allow_many_descriptors() {
    ::rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

// A process that connects so often, says nothing, and waits for its end.
class silent_clients {
public:
    silent_clients(std::uint16_t port, std::size_t count) : process_(::fork()) {
        if (process_ == 0) be_silent(port, count);
    }
    ~silent_clients() {
        ::kill(process_, SIGKILL);
        ::waitpid(process_, nullptr, 0);
    }
    silent_clients(silent_clients const&) = delete;
    silent_clients& operator=(silent_clients const&) = delete;

private:
    // After fork() beside other threads: system calls alone.
    [[noreturn]] static void be_silent(std::uint16_t port, std::size_t count) {
        ::sockaddr_in server{};
        server.sin_family = AF_INET;
        server.sin_port = htons(port);
        server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        for (std::size_t each = 0; each < count; ++each) {
            int const fd = ::socket(AF_INET, SOCK_STREAM, 0);
            if (::connect(fd, reinterpret_cast<::sockaddr const*>(&server), sizeof server) != 0)
                ::_exit(1);
        }
        for (;;)
            ::pause();
    }

    ::pid_t process_;
};

template <class Handler>
void measure_idle(std::string const& name, std::size_t count, Handler const& handler) {
    auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
    std::atomic<std::size_t> there = 0;
    double const before = status_bytes("VmRSS");
    double const tables_before = status_bytes("VmPTE");
    silent_clients const clients(listener.extra(weft::socket_attribute::local_port), count);
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] {
            listener.serve([&](weft::socket_stream stream) {
                there.fetch_add(1, std::memory_order_relaxed); // a count
                handler(stream);
            });
        });
        weft::fail_after(60s, [&] {
            while (there.load(std::memory_order_relaxed) < count)
                weft::sleep(10ms);
        });
        weft::sleep(50ms); // the last ones begin to wait
        print(name + "_rss", (status_bytes("VmRSS") - before) / double(count), "B/connection");
        print(name + "_page_tables", (status_bytes("VmPTE") - tables_before) / double(count),
              "B/connection");
        group.cancel();
    });
}

} // namespace

// What a connection costs in user space while its handler waits for something to come.
void idle_connections(settings const& with) {
    allow_many_descriptors();
    std::size_t const count = with.count(9'900); // and those of the program itself
    std::string const name = "idle_connections_" + std::to_string(count);
    weft::run(with.runtime(), [&] {
        measure_idle(name, count, [](weft::socket_stream& stream) {
            for (weft::bytes const& chunk : stream)
                stream.send(chunk);
        });
    });
}

// The same with a buffer of 4 KiB in the handler's frame: one more page of its stack.
void idle_connections_4k(settings const& with) {
    allow_many_descriptors();
    std::size_t const count = with.count(9'900);
    std::string const name = "idle_connections_4k_" + std::to_string(count);
    weft::run(with.runtime(), [&] {
        measure_idle(name, count, [](weft::socket_stream& stream) {
            std::array<std::byte, 4096> chunk;
            while (std::size_t const size = stream.receive_some(chunk))
                stream.send(std::span(chunk).first(size));
        });
    });
}

namespace {

constexpr std::uint64_t file_size = std::uint64_t(256) << 20;

// A file of zeros on the disk beneath the current directory, without a name.
weft::unique_fd make_file() {
    weft::unique_fd file(::open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    std::vector<char> const piece(1 << 20);
    for (std::uint64_t done = 0; done < file_size; done += piece.size())
        if (::write(file.get(), piece.data(), piece.size()) != ssize_t(piece.size()))
            throw std::runtime_error("no file to send");
    ::fdatasync(file.get());
    return file;
}

// Connected to a process that drops what it gets.
weft::socket_stream connect_to_sink(::pid_t& sink) {
    auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
    auto stream =
        weft::connect_tcp("127.0.0.1", listener.extra(weft::socket_attribute::local_port));
    auto& accepting =
        dynamic_cast<weft::socket_listener<weft::socket_stream>&>(*listener.listeners().front());
    weft::socket_stream other = accepting.accept();
    sink = ::fork();
    if (sink == 0) { // system calls alone
        int const fd = other.extra(weft::socket_attribute::raw_socket);
        ::fcntl(fd, F_SETFL, 0);
        ::close(stream.extra(weft::socket_attribute::raw_socket));
        static char dropped[1 << 18];
        while (::recv(fd, dropped, sizeof dropped, 0) > 0)
            continue;
        ::_exit(0);
    }
    return stream;
}

void read_and_send(weft::socket_stream& stream, int file) {
    std::vector<std::byte> piece(std::size_t(1) << 16);
    for (std::uint64_t done = 0; done < file_size; done += piece.size()) {
        if (::pread(file, piece.data(), piece.size(), ::off_t(done)) <= 0) return;
        stream.send(piece);
    }
}

template <class Send> void measure_sending(std::string const& name, int repetitions, Send send) {
    std::vector<double> cpu, rate;
    for (int each = 0; each < repetitions; ++each) {
        double const cpu_before = cpu_seconds();
        double const start = now();
        send();
        double const gib = double(file_size) / double(1 << 30);
        rate.push_back(gib / (now() - start));
        cpu.push_back((cpu_seconds() - cpu_before) / gib);
    }
    print(name, rate, "GiB/s");
    print(name + "_cpu_per_GiB", cpu, "s");
}

// How late a task was at worst that wants to run each millisecond, beside a file that is not cached.
void measure_cold(weft::socket_stream& stream, int file, int repetitions) {
    std::vector<double> longest, whole;
    for (int each = 0; each < repetitions; ++each) {
        ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
        double worst = 0;
        double const start = now();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                for (double before = now();;) {
                    weft::sleep(1ms);
                    double const after = now();
                    worst = std::max(worst, after - before - 1e-3);
                    before = after;
                }
            });
            stream.send_file(file, 0, file_size);
            group.cancel();
        });
        whole.push_back((now() - start) * 1e3);
        longest.push_back(worst * 1e3);
    }
    print("send_file_cold", whole, "ms");
    print("send_file_cold_lateness", longest, "ms");
}

} // namespace

// 256 MiB over loopback, from the page cache and from the disk.
void send_file(settings const& with) {
    weft::run(with.runtime(), [&] {
        weft::unique_fd const file = make_file();
        ::pid_t sink = 0;
        {
            weft::socket_stream stream = connect_to_sink(sink);
            measure_sending("send_file", with.repetitions,
                            [&] { stream.send_file(file.get(), 0, file_size); });
            measure_sending("send_file_by_read", with.repetitions,
                            [&] { read_and_send(stream, file.get()); });
            measure_cold(stream, file.get(), with.repetitions);
        }
        ::waitpid(sink, nullptr, 0);
    });
}

} // namespace bench
