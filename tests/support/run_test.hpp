#pragma once

#include <weft/runtime/run.hpp>

#include <cstdint>
#include <functional>
#include <source_location>
#include <stdexcept>
#include <string>
#include <vector>

/// A kit for tests of code that runs in fibers. It needs no test framework: a failure is an exception.
///
///     TEST_CASE("a child sees what its parent wrote") {
///         weft::test::run_test([] {
///             int value = 0;
///             weft::with_task_group([&](weft::task_group& group) {
///                 value = 1;
///                 group.start_soon([&] { weft::test::check(value == 1, "the value is there"); });
///             });
///         });
///     }
///
/// In a fiber, doctest's INFO, CAPTURE and SUBCASE must not be used: they live on a stack of the thread,
/// and a fiber changes threads. CHECK may be used anywhere, REQUIRE only in the first task. check() below
/// works everywhere, since its exception travels as any other.
namespace weft::test {

/// What check() throws, and what a run that failed or left something behind throws.
class failure : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// Throws `failure` with the text and the place, unless it holds. Any fiber or thread.
void check(bool holds, std::string const& what,
           std::source_location where = std::source_location::current());

/// Throws `failure` unless the call throws an E. Any fiber; the call may suspend.
template <class E, class Call>
void check_throws(Call&& call, std::string const& what,
                  std::source_location where = std::source_location::current()) {
    bool thrown = false;
    try {
        call();
    } catch (E const&) {
        thrown = true;
    }
    check(thrown, what + ": threw nothing", where);
}

struct run_test_options {
    std::vector<unsigned> workers{1, 2, 4};       ///< one run on so many threads each
    std::vector<std::uint64_t> seeds{0, 1, 2, 3}; ///< one "sim" run each; 0 is strictly first in, first out
    unsigned times = 1;                           ///< how often the runs on threads are repeated
    run_options base{};                           ///< the rest: stack_size
};

/// Runs the body as the first task of several runs: on 1, 2 and 4 threads, and under "sim" with several
/// seeds. After each run no task, no stack, no timer, no file descriptor and no state of one may be left behind.
///
/// A run that takes longer than 20 seconds writes the tree of tasks and ends the process. A failure names the run:
/// with WEFT_TEST_SEED=N in the environment there is only the "sim" run with that seed.
///
/// Errors  failure, with the text of what the body threw; what is no std::exception passes as it is
void run_test(std::function<void()> const& body);
void run_test(run_test_options const&, std::function<void()> const& body);

/// One run under "sim", with the same checks: for what must be the same each time.
void run_sim(std::uint64_t seed, std::function<void()> const& body);

/// Runs the body under "sim" with the seeds 0, 1, ... `seeds` - 1; a failure names its seed.
void explore(std::uint64_t seeds, std::function<void()> const& body);

/// One attempt of cancel_at_every_suspension_point().
class attempt {
public:
    /// Runs the body in a cancel scope, which is cancelled when tasks of the run have suspended so often
    /// as this attempt says. False: it was cut short. Once an attempt.
    bool run(std::function<void()> const& body);

    unsigned point() const { return point_; }      ///< at which suspension, from 1 on
    bool cancelled() const { return cancelled_; }  ///< the body came so far; false in the last attempt

private:
    friend unsigned cancel_at_every_suspension_point(std::function<void(attempt&)> const&);
    explicit attempt(unsigned point) : point_(point) {}
    unsigned point_;
    bool used_ = false;
    bool cancelled_ = false;
};

/// Runs the test again and again under "sim", each time in a run of its own: what is in its attempt::run()
/// is cancelled at its first suspension, at its second and so on, until it runs through. The test looks
/// at what a cancelled call left behind.
///
///     cancel_at_every_suspension_point([](attempt& at) {
///         weft::semaphore permits(0);
///         weft::with_task_group([&](weft::task_group& group) {
///             group.start_soon([&] { permits.release(); });
///             bool const got = at.run([&] { permits.acquire(); });
///             ...
///         });
///     });
///
/// Gives the number of suspension points. Errors: failure, naming the seed and the point.
unsigned cancel_at_every_suspension_point(std::function<void(attempt&)> const& test);

/// How many threads this process has, the calling one included.
unsigned count_threads(); // perhaps with some that were joined a moment ago
void wait_for_threads(unsigned at_most); // for ever, if more than these stay

/// How much slower than normal the build is: deadlines of tests are multiplied by it.
#if defined(__SANITIZE_THREAD__)
inline constexpr int slowdown = 8;
#elif defined(__SANITIZE_ADDRESS__)
inline constexpr int slowdown = 4;
#else
inline constexpr int slowdown = 1;
#endif

} // namespace weft::test
