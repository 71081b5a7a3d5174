#include "support/mistakes.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>

#include <doctest/doctest.h>

#include <exception>
#include <stdexcept>

using namespace weft;
using namespace weft::test;

namespace {

// The run under each scheduler; how many reports there were for one of them.
std::size_t reports_of(char const* part, std::function<void()> const& body) {
    mistakes_heard const heard;
    run_sim(0, body);
    std::size_t const once = heard.count(part);
    run_test(body);
    CHECK(heard.count(part) == once * 8); // 1 + 4 seeds + 3 numbers of workers
    return once;
}

void eat(std::function<void()> const& call) {
    try {
        call();
    } catch (...) { // what this is about
    }
}

constexpr std::size_t once = finds_mistakes ? 1 : 0;

} // namespace

TEST_SUITE("runtime.swallowed") {

    TEST_CASE("M8: a task that eats cancellations is reported, with its name and how often") {
        auto const body = [] {
            with_task_group([](task_group& group) {
                group.start_soon(task_options{.name = "eater"}, [] {
                    for (int times = 0; times < 12; ++times)
                        eat([] { sleep_forever(); });
                });
                lowlevel::checkpoint();
                group.cancel("enough");
            });
        };
        CHECK(reports_of("task 'eater', spawned in ", body) == 2 * once); // the first, the tenth
        CHECK(reports_of("swallowed a cancellation and went on (1 time so far)", body) == once);
        CHECK(reports_of("(10 times so far)", body) == once);
        CHECK(reports_of("enough", body) == 2 * once);
    }

    TEST_CASE("M8: a scope whose body ate the cancellation and returned is reported") {
        CHECK(reports_of("swallowed", [] {
                  cancel_scope scope;
                  scope.run([&] {
                      scope.cancel();
                      eat([] { lowlevel::checkpoint(); });
                  });
              }) == once);
    }

    TEST_CASE("M8: a task that ate the cancellation of its group and returned is reported") {
        CHECK(reports_of("swallowed", [] {
                  with_task_group([](task_group& group) {
                      group.cancel();
                      group.start_soon([] { eat([] { sleep_forever(); }); });
                  });
              }) == once);
    }

    TEST_CASE("M8: a cancellation that another error replaced is not reported") {
        CHECK(reports_of("swallowed", [] {
                  check_throws<std::runtime_error>(
                      [] {
                          cancel_scope scope;
                          scope.run([&] {
                              scope.cancel();
                              try {
                                  lowlevel::checkpoint();
                              } catch (cancelled const&) {
                                  throw std::runtime_error("instead");
                              }
                          });
                      },
                      "the other error");
              }) == 0);
    }

    TEST_CASE("M9: clean-up that is cancelled itself, or shielded, is not reported") {
        CHECK(reports_of("swallowed", [] {
                  cancel_scope scope;
                  scope.run([&] {
                      scope.cancel();
                      try {
                          sleep_forever();
                      } catch (...) {
                          shielded([] { lowlevel::checkpoint(); });
                          lowlevel::checkpoint(); // throws again
                          throw;
                      }
                  });
              }) == 0);
    }

    TEST_CASE("M8: an exception that is kept and thrown later is not reported") {
        CHECK(reports_of("swallowed", [] {
                  cancel_scope scope;
                  scope.run([&] {
                      scope.cancel();
                      std::exception_ptr kept;
                      try {
                          lowlevel::checkpoint();
                      } catch (...) {
                          kept = std::current_exception();
                      }
                      shielded([] { lowlevel::checkpoint(); });
                      eat([&] {
                          try {
                              lowlevel::checkpoint();
                          } catch (...) {
                              std::rethrow_exception(kept);
                          }
                      });
                      std::rethrow_exception(kept);
                  });
              }) == 0);
    }

    TEST_CASE("M8: nested scopes and groups, deadlines and start() are not reported") {
        using namespace std::chrono_literals;
        CHECK(reports_of("swallowed", [] {
                  move_on_after(20ms, [] {
                      with_task_group([](task_group& group) {
                          group.start_soon([] { move_on_after(1h, [] { sleep_forever(); }); });
                          group.start_soon([] { with_task_group([] { sleep_forever(); }); });
                          move_on_after(1ms, [] { sleep_forever(); });
                          group.start([](task_status<>&) { sleep_forever(); });
                      });
                  });
                  with_task_group([](task_group& group) {
                      auto handle = group.create_task([] { sleep_forever(); });
                      lowlevel::checkpoint();
                      handle.cancel();
                  });
              }) == 0);
    }
}
