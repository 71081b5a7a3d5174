#include "support/command_output.hpp"
#include "support/ferry.hpp"
#include "support/run_test.hpp"

#include "runtime/src/this_thread.hpp"
#include "runtime/src/worker.hpp"

#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <string>
#include <vector>

#include <dlfcn.h>
#include <pthread.h>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

TEST_SUITE("runtime.thread_local") {
    TEST_CASE("TR75: after a migration worker, errno and exception globals are the new thread's") {
        std::atomic<int> migrated{0};
        run_test({.workers = {2, 4}, .seeds = {}, .times = 3}, [&] {
            ferry across;
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 2; ++task)
                    group.start_soon({.pinned = true}, [&] { across.help(); });
                group.start_soon([&] {
                    for (int time = 0; time < 20; ++time) {
                        // All in one function: a compiler that cached an address would use the old one.
                        detail::worker* const worker_before = detail::this_worker();
                        pthread_t const thread_before = ::pthread_self();
                        auto* const globals_before = detail::this_thread_exception_globals();
                        errno = 77;
                        int* const errno_before = &errno;
                        if (!across.migrate()) break;
                        check(detail::this_worker() != worker_before, "the worker is another one");
                        check(detail::this_worker()->current == detail::current_fiber(), "and runs us");
                        check(detail::this_thread_exception_globals() != globals_before,
                              "the exception globals are another thread's");
                        check(detail::this_worker()->exceptions ==
                                  detail::this_thread_exception_globals(),
                              "those that the worker remembers");
                        check(!::pthread_equal(::pthread_self(), thread_before), "pthread_self");
                        check(&errno != errno_before, "the address of errno");
                        check(errno == 77, "its value came along");
                        ++migrated;
                    }
                    across.stop = true;
                });
            });
        });
        CHECK(migrated > 0); // else this test showed nothing
    }

    TEST_CASE("TR75: only functions that never switch take the address of a thread-local variable") {
        if (slowdown > 1) return; // instrumented code reads TLS everywhere
        if (output_of("command -v objdump").empty()) {
            MESSAGE("no objdump here");
            return;
        }
        Dl_info info{};
        REQUIRE(::dladdr(reinterpret_cast<void const*>(&detail::set_this_worker), &info) != 0);
        std::string const library = info.dli_fname;
        // A read of %fs:offset is made anew each time; what could be kept across a switch is an address,
        // which is computed from the thread's own in %fs:0 or by __tls_get_addr().
        std::string const listing = output_of(
            "objdump -d -C --no-show-raw-insn '" + library +
            "' 2>/dev/null | awk '/^[0-9a-f]+ <.*>:$/ { name = $0; sub(/^[0-9a-f]+ </, \"\", name); "
            "sub(/>:$/, \"\", name) } /%fs:0x0(,|$)/ || /__tls_get_addr/ { print name }' | sort -u");
        REQUIRE(listing.find("weft::") != listing.npos); // else it was not read, or has no names
        // Each of these is small, is called anew after a switch, and never switches itself.
        std::vector<std::string> allowed{
            "this_worker", "set_this_worker",  "this_thread_errno", "this_thread_exception_globals",
            "this_thread_locks", "this_thread_stack", "thread_values",   "prepare_thread_for_overflow",
            "load_errno",        "store_errno",       "note_thread_stack", "datagram_scratch",
            "patience_of_thread", "stock_of_thread",  "pace_of_thread"};
#if defined(__clang__) // puts some of those into functions of OS threads, and of the begin of a run
        for (char const* const around : {"noted_thread_stack", "report_overflows", "watch_for_forks",
                                         "stall_detector::stall_detector", "thread_pool::submit"})
            allowed.emplace_back(around);
#endif
        std::string unknown;
        std::size_t start = 0;
        for (std::size_t end; (end = listing.find('\n', start)) != listing.npos; start = end + 1) {
            std::string const name = listing.substr(start, end - start);
            if (name.find("weft::") == name.npos) continue; // moodycamel's, std's, the C runtime's
            if (name.find("TLS init function") != name.npos) continue;
            if (name.find("TLS wrapper function") != name.npos) continue;
            bool const known = std::any_of(allowed.begin(), allowed.end(), [&](std::string const& each) {
                return name.find(each) != name.npos;
            });
            if (!known) unknown += "\n" + name;
        }
        CHECK_MESSAGE(unknown.empty(), "these take addresses of thread-local variables:" << unknown);
    }
}
