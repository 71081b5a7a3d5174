#include "support/address_space.hpp"
#include "support/child_process.hpp"
#include "support/command_output.hpp"
#include "support/gate.hpp"
#include "support/run_test.hpp"

#include "runtime/src/stack_pool.hpp"

#include <weft/runtime/blocking_region.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/this_task.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {

[[gnu::noinline]] int recurse(int depth) {
    char volatile frame[256];
    frame[0] = char(depth);
    int const deeper = depth == 0 ? 0 : recurse(depth - 1);
    return deeper + frame[0];
}

void go_deep() {
    lowlevel::checkpoint();
    std::printf("%d\n", recurse(1 << 20));
}
task_options const of_the_deep_one{.name = "the deep one", .stack_size = 64 * 1024};
int volatile spawned = 0;

constexpr int line_of_spawn = __LINE__ + 2;
void spawn_the_deep_one(task_group& group) {
    group.start_soon(of_the_deep_one, go_deep);
    spawned = 1; // where the call returns to is in another line than the call
}

void overflow_in_task(unsigned workers) {
    run({.workers = workers}, [] {
        with_task_group([](task_group& group) {
            group.start_soon([] { sleep_forever(); });
            spawn_the_deep_one(group);
        });
    });
}

template <class... Parts> struct long_name {
    void operator()() const { throw std::runtime_error("the failure"); }
};
template <int> struct a_part_of_the_name_of_the_type {};
template <int First> using part = std::map<std::function<int(a_part_of_the_name_of_the_type<First>)>,
                                           std::vector<std::pair<std::string, long>>>;

child_program const long_names("a small stack and a long name", [] {
    using name = long_name<part<1>, part<2>, part<3>, part<4>, part<5>, part<6>, part<7>, part<8>>;
    run({.workers = 1}, [] {
        with_task_group([](task_group& group) {
            group.start_soon({.stack_size = detail::stack_classes::smallest},
                             [](task_group* own, name) { own->cancel("wanted"); }, &group, name());
            try {
                sleep_forever();
            } catch (cancelled const& cut_short) {
                std::puts(cut_short.reason());
                throw;
            }
        });
        try {
            with_task_group([](task_group& group) {
                group.start_soon({.stack_size = detail::stack_classes::smallest}, name());
            });
        } catch (exception_group const& errors) {
            std::puts(errors.what());
        }
    });
});

child_program const overflow("overflow", [] { overflow_in_task(2); });
void overflow_itself() {
    lowlevel::checkpoint();
    std::printf("%d\n", recurse(1 << 20));
}
child_program const overflow_of_function("overflow_of_function", [] {
    run([] { with_task_group([](task_group& group) { group.start_soon(overflow_itself); }); });
});
child_program const overflow_in_sim("overflow_in_sim", [] {
    run({.backend = "sim", .stack_size = 64 * 1024}, [] { std::printf("%d\n", recurse(1 << 20)); });
});
void overflow_in_region(char const* backend) {
    run({.backend = backend, .workers = 1, .stack_size = 64 * 1024}, [] {
        blocking_region const region;
        std::printf("%d\n", recurse(1 << 20));
    });
}
child_program const overflow_in_given_region("overflow_in_region", [] { overflow_in_region("epoll"); });
child_program const overflow_in_kept_region("overflow_in_region_of_sim", [] { overflow_in_region("sim"); });
child_program const large_frame("large_frame", [] {
    run({.workers = 1, .stack_size = 64 * 1024}, [] {
        char frame[200 * 1024]; // jumps over the guard unless each page is touched
        asm volatile("" : : "r"(frame) : "memory"); // used, as far as a compiler knows
        std::puts("it did not");
    });
});
child_program const plain_fault("plain_fault", [] {
    run({.workers = 1}, [] {
        int volatile* volatile nowhere = nullptr;
        *nowhere = 1;
    });
});
child_program const previous_handler("previous_handler", [] {
    struct sigaction own{};
    own.sa_handler = [](int) {
        static char const text[] = "the program's own handler\n";
        [[maybe_unused]] auto const written = ::write(1, text, sizeof text - 1);
        ::_exit(3);
    };
    ::sigaction(SIGSEGV, &own, nullptr);
    run({.workers = 1}, [] {
        int volatile* volatile nowhere = nullptr;
        *nowhere = 1;
    });
});

constexpr unsigned some_batches = 150; // guards are made for 64 at a time

// How many stacks of the chain have a guard that can be read, or else nothing that can.
unsigned unguarded_of(detail::stack const* chain) {
    int ends[2];
    if (::pipe(ends) != 0) std::abort();
    auto const can_be_read = [&](char const* address) {
        char read = 0;
        // Not write(), before which sanitizers look there themselves.
        if (::syscall(SYS_write, ends[1], address, 1) == 1) return ::read(ends[0], &read, 1) == 1;
        if (errno != EFAULT) std::abort();
        return false;
    };
    unsigned unguarded = 0;
    for (detail::stack const* each = chain; each != nullptr; each = each->next)
        if (can_be_read(each->lowest - detail::stack_classes::guard_size) || can_be_read(each->lowest - 1) ||
            !can_be_read(each->lowest))
            ++unguarded;
    ::close(ends[0]);
    ::close(ends[1]);
    return unguarded;
}

// In MiB.
long address_space() {
    long pages = 0;
    std::FILE* const statm = std::fopen("/proc/self/statm", "r");
    if (statm == nullptr || std::fscanf(statm, "%ld", &pages) != 1) std::abort();
    std::fclose(statm);
    return pages * 4 / 1024;
}

child_program const one_large_stack("one_large_stack", [] {
    run({.workers = 1}, [] {
        long const before = address_space();
        with_task_group([&](task_group& group) {
            group.start_soon({.stack_size = std::size_t(32) << 20}, [&] {
                std::puts(address_space() - before < 100 ? "one" : "many");
            });
        });
    });
});

child_program const no_first_stack("no_first_stack", [] {
    allow_more_address_space(50 << 20);
    for (char const* const backend : {"epoll", "sim"})
        try {
            run({.backend = backend, .workers = 1, .stack_size = 64 << 20}, [] { std::puts("it ran"); });
            std::puts("returned");
        } catch (std::system_error const& error) {
            if (error.code().value() == ENOMEM) std::printf("ENOMEM of %s\n", backend);
            std::puts(error.what());
        }
});

// As a kernel does that is older than guard markers.
void refuse_guard_markers() {
    constexpr unsigned guard_install = 102;
    ::sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(::seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(::seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, guard_install, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    ::sock_fprog const program{static_cast<unsigned short>(std::size(rules)), rules};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        std::puts("no filter for system calls");
}

long most_mappings() {
    long most = 0;
    std::ifstream("/proc/sys/vm/max_map_count") >> most;
    return most;
}

child_program const out_of_mappings("more guards than mappings", [] {
    refuse_guard_markers();
    if (detail::current_guard_method() == detail::guard_method::protected_pages) std::puts("protected pages");
    unsigned count = 0;
    detail::stack* const some = detail::stack_depot::take(2, some_batches, count);
    if (count == some_batches && unguarded_of(some) == 0) std::puts("all are guarded");
    detail::stack_depot::give(some);
    run({.workers = 2, .stack_size = detail::stack_classes::smallest}, [] {
        std::atomic<long> waiting = 0;
        try {
            with_task_group([&](task_group& group) {
                for (long task = 0; task < most_mappings() / 2; ++task)
                    group.start_soon([&] {
                        ++waiting;
                        sleep_forever();
                    });
            });
        } catch (exception_group const& errors) {
            errors.handle([](std::system_error const& error) {
                static bool told = false; // of all that were too many
                if (std::exchange(told, true)) return;
                if (error.code().value() == ENOMEM) std::puts("ENOMEM");
                std::puts(error.what());
            });
        }
        if (waiting > most_mappings() / 4) std::puts("many waited");
        std::atomic<int> ran = 0;
        with_task_group([&](task_group& group) {
            for (int task = 0; task < 1000; ++task)
                group.start_soon([&] { ++ran; });
        });
        if (ran == 1000) std::puts("life goes on");
    });
});

// Address space for some more stacks, but not for another slab of them.
child_program const no_memory("no_memory", [] {
    run({.workers = 2}, [] {
        with_task_group([](task_group& group) { group.start_soon([] {}); });
        allow_more_address_space(32 << 20);
        bool sibling_ran = false;
        try {
            with_task_group([&](task_group& group) {
                group.start_soon([&] { sibling_ran = true; });
                group.start_soon({.name = "the big one", .stack_size = 32 << 20}, [] {
                    std::puts("it ran");
                });
            });
        } catch (exception_group const& errors) {
            errors.handle([](std::system_error const& error) {
                if (error.code().value() == ENOMEM) std::puts("ENOMEM");
                std::puts(error.what());
            });
        }
        with_task_group([](task_group& group) {
            try {
                group.start({.name = "start", .stack_size = 32 << 20}, [](task_status<>&) {});
            } catch (std::system_error const&) {
                std::puts("start failed as well");
            }
        });
        with_task_group([](task_group& group) { group.start_soon([] { std::puts("life goes on"); }); });
    });
});

} // namespace

TEST_SUITE("runtime.stacks") {
    TEST_CASE("TR85: an overflow ends the process and names task, stack size and spawn site") {
        if (slowdown > 1) return; // the sanitizers report it in their own way
        child_end const end = run_child("overflow");
        CHECK(end.signal == SIGABRT);
        CHECK(end.says("stack overflow"));
        CHECK(end.says("the deep one"));
        CHECK(end.says("bytes"));
        CHECK(end.says("spawned at"));
        CHECK(end.says("weft-test-runtime"));
        CHECK(end.says("stack_size"));

        std::size_t const end_of_line = end.output.find('\n', end.output.find("spawned at"));
        std::size_t const offset = end.output.rfind("+0x", end_of_line) + 1;
        std::string const place = output_of(
            "addr2line -e '" + std::filesystem::read_symlink("/proc/self/exe").string() + "' " +
            end.output.substr(offset, end_of_line - offset) + " 2>/dev/null");
        if (place.find("stacks_test.cpp") == place.npos) {
            MESSAGE("no addr2line, or nothing for it to read");
            return;
        }
        CHECK_MESSAGE(place.find(":" + std::to_string(line_of_spawn)) != place.npos, place);
    }

    TEST_CASE("TR85: an overflow of a task that is a function names the function, or where it is") {
        if (slowdown > 1) return; // as above
        child_end const end = run_child("overflow_of_function");
        CHECK(end.says("stack overflow: task "));
        CHECK_FALSE(end.says("task PF"));
    }

    TEST_CASE("TR85: an overflow of the first task is reported, under sim, too") {
        if (slowdown > 1) return; // as above
        child_end const end = run_child("overflow_in_sim");
        CHECK(end.signal == SIGABRT);
        CHECK(end.says("stack overflow"));
    }

    TEST_CASE("TR85: an overflow inside a blocking_region is reported, whoever has the worker") {
        if (slowdown > 1) return; // as above
        for (char const* const program : {"overflow_in_region", "overflow_in_region_of_sim"}) {
            child_end const end = run_child(program);
            CHECK(end.signal == SIGABRT);
            CHECK(end.says("stack overflow"));
        }
    }

    TEST_CASE("TR85: a frame larger than the guard does not jump over it") {
        if (slowdown > 1) return; // as above
        child_end const end = run_child("large_frame");
        CHECK(end.signal == SIGABRT);
        CHECK(end.says("stack overflow"));
    }

    TEST_CASE("TR85: another fault is not called an overflow and reaches the program's own handler") {
        if (slowdown > 1) return; // as above
        child_end const plain = run_child("plain_fault");
        CHECK(plain.signal == SIGSEGV);
        CHECK_FALSE(plain.says("stack overflow"));
        child_end const handled = run_child("previous_handler");
        CHECK(handled.exit_code == 3);
        CHECK(handled.says("the program's own handler"));
    }

    TEST_CASE("G11: a task whose stack cannot be had ends with ENOMEM that names task and size") {
        if (slowdown > 1) return; // sanitizers reserve more address space than any limit
        child_end const end = run_child("no_memory");
        CHECK(end.exit_code == 0);
        CHECK_FALSE(end.says("it ran"));
        CHECK(end.says("ENOMEM"));
        CHECK(end.says("the big one"));
        CHECK_FALSE(end.says("max_map_count"));
        CHECK(end.says("33554432"));
        CHECK(end.says("start failed as well"));
        CHECK(end.says("life goes on"));
    }

    TEST_CASE("G11: run() whose first task gets no stack throws ENOMEM with the size") {
        if (slowdown > 1) return; // as above
        child_end const end = run_child("no_first_stack");
        CHECK(end.exit_code == 0);
        CHECK_FALSE(end.says("it ran"));
        CHECK_FALSE(end.says("returned"));
        CHECK(end.says("ENOMEM of epoll"));
        CHECK(end.says("ENOMEM of sim"));
        CHECK(end.says("67108864"));
    }

    TEST_CASE("G11: where guards need mappings, a task too many fails with what limits them, and the run goes on") {
        if (slowdown > 1) return; // these need mappings themselves
        if (most_mappings() > 100'000) {
            MESSAGE("so many tasks would take gigabytes");
            return;
        }
        child_end const end = run_child("more guards than mappings");
        INFO(end.output);
        CHECK(end.exit_code == 0);
        CHECK(end.says("protected pages"));
        CHECK(end.says("all are guarded"));
        CHECK(end.says("ENOMEM"));
        CHECK(end.says("vm.max_map_count"));
        CHECK(end.says("many waited"));
        CHECK(end.says("life goes on"));
    }

    TEST_CASE("TR85: a task can use the stack that it asked for") {
        run_test([] {
            std::atomic<int> done{0};
            with_task_group([&](task_group& group) {
                for (std::size_t const size : {std::size_t(128) << 10, std::size_t(1) << 20, std::size_t(8) << 20})
                    group.start_soon({.stack_size = size}, [&, size] {
                        std::size_t const usable = size - 32 * 1024; // guard, and what we stand on
                        check(this_task::stack_remaining() >= usable, "it is there");
                        recurse(int(usable / 1024 / std::size_t(slowdown)));
                        lowlevel::checkpoint();
                        ++done;
                    });
            });
            CHECK(done == 3);
        });
    }

    TEST_CASE("TR85: stacks of a class come in powers of two, guard included") {
        using detail::stack_classes;
        CHECK(stack_classes::of(1) == 0);
        CHECK(stack_classes::of(stack_classes::smallest) == 0);
        CHECK(stack_classes::of(stack_classes::smallest + 1) == 1);
        CHECK(stack_classes::of(stack_classes::largest) == stack_classes::count - 1);
        CHECK(stack_classes::of(stack_classes::largest + 1) == stack_classes::count);
        for (unsigned number = 0; number < stack_classes::count; ++number)
            CHECK(stack_classes::of(stack_classes::bytes_of(number)) == number);
    }

    TEST_CASE("TR85: a task with a small stack and a long name may cancel and fail") {
        child_end const end = run_child("a small stack and a long name");
        CHECK(end.exit_code == 0);
        CHECK(end.says("cancelled"));
        CHECK(end.says("the failure"));
    }

    TEST_CASE("M5: one task with a large stack takes address space for one") {
        if (slowdown > 1) return; // the sanitizers map for themselves
        CHECK(run_child("one_large_stack").says("one"));
    }

    TEST_CASE("TR85: below every stack lies a page that nobody can use, also when its memory was given back") {
        for (int time = 0; time < 2; ++time) {
            unsigned count = 0;
            detail::stack* const chain = detail::stack_depot::take(2, some_batches, count);
            REQUIRE(count == some_batches);
            CHECK(unguarded_of(chain) == 0);
            detail::stack_depot::give(chain);
            detail::stack_depot::release_idle_memory(true);
        }
    }

    TEST_CASE("TR85: what lies in a guard is told from all else") {
        using namespace weft::detail;
        unsigned count = 0;
        stack* const chain = stack_depot::take(2, 100, count);
        REQUIRE(count == 100);
        std::size_t before = stack_depot::stacks_in_use();
        unsigned taken = 0;
        for (stack* each = chain; each != nullptr; each = each->next, ++taken) {
            std::size_t size = 0;
            CHECK(stack_depot::is_guard(each->lowest - 1, size));
            CHECK(size > 0);
            CHECK(stack_depot::is_guard(each->lowest - stack_classes::guard_size, size));
            CHECK_FALSE(stack_depot::is_guard(each->lowest, size));
            CHECK_FALSE(stack_depot::is_guard(each->top() - 1, size));
            std::memset(each->lowest, 1, 64);
            std::memset(each->top() - 64, 1, 64);
        }
        CHECK(taken == 100);
        int local = 0;
        std::size_t size = 0;
        CHECK_FALSE(stack_depot::is_guard(&local, size));
        CHECK_FALSE(stack_depot::is_guard(nullptr, size));
        stack_depot::give(chain);
        CHECK(stack_depot::stacks_in_use() == before - 100);
        bool const known = current_guard_method() == guard_method::guard_markers ||
                           current_guard_method() == guard_method::protected_pages;
        CHECK(known);
    }
}
