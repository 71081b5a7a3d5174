#include <weft/io/file.hpp>

#include "io/file_support.hpp"
#include "support/run_test.hpp"

#include <weft/io/descriptor.hpp>
#include <weft/io/readiness.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/to_thread.hpp>

#include <doctest/doctest.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <thread>

#include <fcntl.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <unistd.h>

// C streams whose system calls are cut short: by signals, or since their descriptor does not wait.

namespace {

using weft::file;
using weft::wrap_file;
using weft::test::check;
using weft::test::run_test;

::sem_t interruptions; // those that have come

#if defined(__SANITIZE_THREAD__)
constexpr bool is_held_back = true;
#else
constexpr bool is_held_back = false;
#endif

// SIGUSR1 ends system calls.
class interrupting_signal {
public:
    interrupting_signal() {
        ::sem_init(&interruptions, 0, 0);
        struct ::sigaction action {};
        action.sa_handler = [](int) { ::sem_post(&interruptions); }; // no SA_RESTART
        ::sigaction(SIGUSR1, &action, &before_);
    }
    ~interrupting_signal() { ::sigaction(SIGUSR1, &before_, nullptr); }
    interrupting_signal(interrupting_signal const&) = delete;
    interrupting_signal& operator=(interrupting_signal const&) = delete;

private:
    struct ::sigaction before_ {};
};

// Where files wait: the pool uses its only thread again.
pid_t pool_thread() {
    return weft::to_thread::run_sync([] { return pid_t(::syscall(SYS_gettid)); });
}

// Gives the thread the time to go on in between: until the handler has run, or, where ThreadSanitizer holds it back
// until the thread calls something, for a turn. It sleeps meanwhile: who spins is put behind all others where many
// want a CPU, hundreds of times.
void interrupt(pid_t thread) {
    for (int i = 0; i < 20; ++i) {
        ::syscall(SYS_tgkill, ::getpid(), thread, SIGUSR1);
        if (is_held_back)
            std::this_thread::yield();
        else
            while (::sem_wait(&interruptions) != 0) {
            }
    }
}

struct pipe_ends {
    weft::unique_fd reads;
    weft::unique_fd writes;

    explicit pipe_ends(int flags = 0) {
        int ends[2];
        check(::pipe2(ends, O_CLOEXEC | flags) == 0, "a pipe");
        reads.reset(ends[0]);
        writes.reset(ends[1]);
    }
    void put(std::string const& text) {
        check(::write(writes.get(), text.data(), text.size()) == ssize_t(text.size()), "written");
    }
    // All there is until the other end goes, at most so much at once; before each piece `look`.
    template <class Look> std::string take_all(Look look) {
        std::string all;
        char piece[4096];
        for (;;) {
            weft::wait_readable(reads.get());
            look();
            ssize_t const count = ::read(reads.get(), piece, sizeof piece);
            check(count >= 0, "read");
            if (count == 0) return all;
            all.append(piece, std::size_t(count));
        }
    }
};

// A stream whose buffer is written out piece by piece where pages become free in a pipe. Whoever lends it has left
// the text there. One at a time.
std::FILE* stream_with(std::string const& text, weft::unique_fd& writes) {
    static char space[1 << 16];
    check(text.size() < sizeof space, "room");
    std::FILE* const stream = ::fdopen(writes.get(), "w");
    writes.release();
    std::setvbuf(stream, space, _IOFBF, sizeof space);
    std::fputs(text.c_str(), stream);
    return stream;
}

} // namespace

TEST_SUITE_BEGIN("io.file_stdio");

TEST_CASE("AF3: a C stream that waits for a pipe is read on after a signal") {
    interrupting_signal const counted;
    run_test({.workers = {1}, .seeds = {}}, [] {
        pipe_ends pipe;
        file in = wrap_file(::fdopen(pipe.reads.get(), "r"));
        pipe.reads.release();
        pid_t const thread = pool_thread();
        std::string read;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { read = in.readline() + in.read(); });
            for (char const* const piece : {"li", "ne\nre", "st"}) {
                weft::wait_all_tasks_blocked();
                interrupt(thread);
                pipe.put(piece);
            }
            weft::wait_all_tasks_blocked();
            interrupt(thread);
            pipe.writes.reset();
        });
        check(read == "line\nrest", "each octet once");
    });
}

TEST_CASE("AF3: what a signal cuts short in a C stream, its own buffer above all, is written once") {
    interrupting_signal const counted;
    std::string const lent = many_lines(2000);
    std::string const text = many_lines(20'000);
    run_test({.workers = {1}, .seeds = {}}, [&] {
        pipe_ends pipe;
        std::string const first(::fcntl(pipe.writes.get(), F_GETPIPE_SZ), '.'); // it is full
        pipe.put(first);
        file out = wrap_file(stream_with(lent, pipe.writes));
        pid_t const thread = pool_thread();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                out.write(text);
                out.close();
            });
            weft::wait_all_tasks_blocked();
            interrupt(thread);
            check(pipe.take_all([&] { interrupt(thread); }) == first + lent + text, "all of it, in order");
        });
    });
}

TEST_CASE("AF3: a C stream whose descriptor does not wait is waited for, as that alone would be") {
    std::string const lent = many_lines(2000);
    std::string const text = many_lines(20'000);
    run_test({.seeds = {}}, [&] {
        pipe_ends pipe(O_NONBLOCK);
        std::string const first(::fcntl(pipe.writes.get(), F_GETPIPE_SZ), '.');
        pipe.put(first);
        file out = wrap_file(stream_with(lent, pipe.writes));
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                out.flush();
                out.write(text);
                out.close();
            });
            weft::wait_all_tasks_blocked();
            check(pipe.take_all([] {}) == first + lent + text, "all of it, in order");
        });

        pipe_ends other(O_NONBLOCK);
        file in = wrap_file(::fdopen(other.reads.get(), "r"));
        other.reads.release();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { check(in.readline() == "hello\n" && in.read().empty(), "what came"); });
            weft::wait_all_tasks_blocked();
            other.put("hello\n");
            weft::wait_all_tasks_blocked();
            other.writes.reset();
        });
    });
}

TEST_CASE("AF6: a C stream that is closed, or dropped, writes out what it was lent with") {
    std::string const lent = many_lines(2000);
    run_test({.seeds = {}}, [&] {
        for (bool const close : {true, false}) {
            pipe_ends pipe;
            std::FILE* const stream = stream_with(lent, pipe.writes);
            {
                file out = wrap_file(stream, false);
                out.write("ours\n");
                std::fputs("theirs\n", stream);
                if (close) out.close();
            }
            std::fclose(stream);
            check(pipe.take_all([] {}) == lent + "ours\ntheirs\n", "in order");
        }
    });
}

TEST_SUITE_END();
