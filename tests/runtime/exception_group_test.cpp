#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/exception_group.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using namespace weft;
using namespace weft::test;

namespace {

template <class E> std::exception_ptr made(E error) { return std::make_exception_ptr(std::move(error)); }

struct special_group : exception_group {
    using exception_group::exception_group;
};

// The group, with an exception of that text nested.
std::exception_ptr caused_by(char const* cause, exception_group group) {
    try {
        try {
            throw std::runtime_error(cause);
        } catch (std::runtime_error const&) { // becomes the cause
            std::throw_with_nested(std::move(group));
        }
    } catch (...) { // the group
        return std::current_exception();
    }
}

std::string cause_of(exception_group const& group) {
    try {
        std::rethrow_if_nested(group);
    } catch (std::runtime_error const& cause) {
        return cause.what();
    }
    return "none";
}

exception_group sample() {
    auto const inner = made(exception_group("inner", {made(std::out_of_range("o")), made(7)}));
    return exception_group("outer", {made(std::runtime_error("r")), inner});
}

} // namespace

TEST_SUITE("runtime.exception_group") {
    TEST_CASE("EX1, EX5: the exceptions are ordinary errors with the bases that the interface names") {
        static_assert(std::is_base_of_v<std::runtime_error, error>);
        static_assert(std::is_base_of_v<error, exception_group>);
        static_assert(std::is_base_of_v<error, no_event_loop_error>);
        static_assert(std::is_base_of_v<error, run_finished_error>);
        static_assert(std::is_base_of_v<error, lookup_error>);
        static_assert(std::is_base_of_v<std::system_error, timeout_error>);
        static_assert(!std::is_base_of_v<error, timeout_error>);
    }

    TEST_CASE("EX4: a group needs a member, and no null one") {
        CHECK_THROWS_AS(exception_group("empty", {}), std::invalid_argument);
        CHECK_THROWS_AS(exception_group("null", {nullptr}), std::invalid_argument);
    }

    TEST_CASE("EX4: exceptions() gives the direct members, contains() looks at every depth") {
        exception_group const group = sample();
        CHECK(group.exceptions().size() == 2);
        CHECK(group.contains<std::runtime_error>());
        CHECK(group.contains<std::out_of_range>());
        CHECK(group.contains<std::logic_error>()); // a base
        CHECK(group.contains<std::exception>());
        CHECK(group.contains<int>());
        CHECK_FALSE(group.contains<std::length_error>());
        CHECK_FALSE(group.contains<long>());
    }

    TEST_CASE("EX4: contains() of a type of groups asks for nested ones of it, at every depth") {
        CHECK(sample().contains<exception_group>());
        CHECK_FALSE(exception_group("flat", {made(7)}).contains<exception_group>());
        CHECK_FALSE(sample().contains<special_group>());
        exception_group const deep("deep", {made(exception_group("inner", {made(special_group("s", {made(7)}))}))});
        CHECK(deep.contains<special_group>());
    }

    TEST_CASE("EX4: handle gives each leaf to the first handler that takes it") {
        std::vector<std::string> seen;
        sample().handle([&](std::out_of_range const& leaf) { seen.push_back(leaf.what()); },
                        [&](std::exception const& leaf) { seen.push_back(leaf.what()); },
                        [&](int leaf) { seen.push_back(std::to_string(leaf)); });
        CHECK(seen == std::vector<std::string>{"r", "o", "7"});
    }

    TEST_CASE("EX4: what no handler takes, or a handler throws, leaves as a group of the same shape") {
        try {
            sample().handle([](std::runtime_error const&) {});
            CHECK(false);
        } catch (exception_group const& rest) {
            CHECK(rest.message() == "outer");
            CHECK(rest.exceptions().size() == 1);
            CHECK(rest.contains<int>());
            CHECK(rest.contains<std::out_of_range>());
            CHECK_FALSE(rest.contains<std::runtime_error>());
        }
        try {
            sample().handle([](int) { throw std::length_error("in the handler"); },
                            [](std::exception const&) {});
            CHECK(false);
        } catch (exception_group const& rest) {
            CHECK(rest.contains<std::length_error>());
        }
    }

    TEST_CASE("EX4: without() removes leaves at any depth and groups that become empty") {
        exception_group const group = sample();
        auto const is_int = [](std::exception_ptr const& leaf) {
            try {
                std::rethrow_exception(leaf);
            } catch (int) {
                return true;
            } catch (...) { // looked at, not swallowed
                return false;
            }
        };
        try {
            std::rethrow_exception(group.without(is_int));
        } catch (exception_group const& rest) {
            CHECK(rest.exceptions().size() == 2);
            CHECK_FALSE(rest.contains<int>());
            CHECK(rest.contains<std::out_of_range>());
        }
        CHECK(group.without([](std::exception_ptr const&) { return true; }) == nullptr);
    }

    TEST_CASE("EX4: without() keeps the members that it does not change as they are") {
        exception_group const group = sample();
        auto const inner = group.exceptions()[1];
        std::exception_ptr const rest = group.without([](std::exception_ptr const& leaf) {
            try {
                std::rethrow_exception(leaf);
            } catch (std::runtime_error const&) {
                return true;
            } catch (...) { // looked at, not swallowed
                return false;
            }
        });
        try {
            std::rethrow_exception(rest);
        } catch (exception_group const& left) {
            CHECK(left.exceptions().size() == 1);
            CHECK(left.exceptions()[0] == inner);
        }
    }

    TEST_CASE("EX4: what() draws the tree, a line a leaf") {
        std::string const text = sample().what();
        for (char const* part : {"outer (2 failures)", "inner (2 failures)", "std::runtime_error: r",
                                 "std::out_of_range: o", "int"})
            CHECK(text.find(part) != std::string::npos);
        CHECK(text.find("|-- ") != std::string::npos);
    }

    TEST_CASE("EX4: what() of a task group's errors names the task that failed") {
        run_test([] {
            try {
                with_task_group([](task_group& group) {
                    group.start_soon({.name = "the culprit"}, [] { throw std::runtime_error("why"); });
                });
            } catch (exception_group const& errors) {
                std::string const text = errors.what();
                CHECK(text.find("the culprit") != std::string::npos);
                CHECK(text.find("why") != std::string::npos);
            }
        });
    }

    TEST_CASE("EX4, C10: the names of the tasks that failed survive the removal of cancellations") {
        run_test([] {
            cancel_scope scope;
            std::string text;
            try {
                scope.run([&] {
                    scope.cancel();
                    try {
                        with_task_group([](task_group& group) {
                            group.start_soon({.name = "the culprit"},
                                             [] { throw std::runtime_error("why"); });
                        });
                    } catch (exception_group const&) {
                        auto const failed = std::current_exception();
                        try {
                            lowlevel::checkpoint();
                        } catch (cancelled const&) {
                            throw exception_group("both", {std::current_exception(), failed});
                        }
                    }
                });
            } catch (exception_group const& errors) {
                text = errors.what();
            }
            CHECK(text.find("the culprit") != std::string::npos);
        });
    }

    TEST_CASE("C10: what a scope leaves of a group keeps the cause that was nested with it") {
        run_test([] {
            cancel_scope scope;
            std::string cause;
            try {
                scope.run([&] {
                    scope.cancel();
                    try {
                        lowlevel::checkpoint();
                    } catch (cancelled const&) {
                        std::vector<std::exception_ptr> const members{
                            std::current_exception(), std::make_exception_ptr(std::logic_error("stays"))};
                        try {
                            throw std::runtime_error("the cause");
                        } catch (std::runtime_error const&) {
                            std::throw_with_nested(exception_group("both", members));
                        }
                    }
                });
            } catch (exception_group const& rest) {
                CHECK(rest.exceptions().size() == 1);
                try {
                    std::rethrow_if_nested(rest);
                } catch (std::runtime_error const& nested) {
                    cause = nested.what();
                }
            }
            CHECK(cause == "the cause");
        });
    }

    TEST_CASE("C10, EX4: what handle() leaves of a group keeps the cause that was nested with it, at every depth") {
        std::exception_ptr const inner =
            caused_by("of the inner", exception_group("inner", {made(std::out_of_range("stays")), made(7)}));
        try {
            std::rethrow_exception(caused_by("of the outer", exception_group("outer", {inner, made(8)})));
        } catch (exception_group const& group) {
            try {
                group.handle([](int) {});
                CHECK(false);
            } catch (exception_group const& rest) {
                CHECK(rest.message() == "outer");
                CHECK(cause_of(rest) == "of the outer");
                REQUIRE(rest.exceptions().size() == 1);
                CHECK_THROWS_AS(std::rethrow_exception(rest.exceptions()[0]), exception_group);
                try {
                    std::rethrow_exception(rest.exceptions()[0]);
                } catch (exception_group const& nested) {
                    CHECK(nested.exceptions().size() == 1);
                    CHECK(cause_of(nested) == "of the inner");
                }
            }
        }
    }

    TEST_CASE("EX4: a cause is nested, and what() tells it") {
        try {
            try {
                throw std::runtime_error("the cause");
            } catch (std::runtime_error const&) {
                std::throw_with_nested(std::logic_error("the effect"));
            }
        } catch (...) { // looked at
            exception_group const group("one", {std::current_exception()});
            std::string const text = group.what();
            CHECK(text.find("the effect") != std::string::npos);
            CHECK(text.find("the cause") != std::string::npos);
        }
    }

    TEST_CASE("G11: what has no cause after all, or no text, is a failure like others") {
        struct silent : std::exception {
            char const* what() const noexcept override { return nullptr; }
        };
        run_test([] {
            std::string text;
            try {
                with_task_group([](task_group& group) {
                    group.start_soon([] {
                        std::throw_with_nested(std::runtime_error("nothing was in flight"));
                    });
                    group.start_soon([] { throw silent(); });
                });
            } catch (exception_group const& errors) {
                CHECK(errors.exceptions().size() == 2);
                text = errors.what();
            }
            CHECK(text.find("nothing was in flight") != std::string::npos);
            CHECK(text.find("silent") != std::string::npos);
            CHECK(text.find("caused by") == std::string::npos);
        });
    }

    TEST_CASE("G16: a long chain of causes fits on a small stack") {
        std::exception_ptr chain = made(std::runtime_error("the root"));
        for (int level = 0; level < 1000; ++level) {
            try {
                try {
                    std::rethrow_exception(chain);
                } catch (...) { // nested
                    std::throw_with_nested(std::runtime_error("level"));
                }
            } catch (...) { // kept
                chain = std::current_exception();
            }
        }
        run_test({.workers = {1}, .seeds = {0}, .base = {.stack_size = 32 << 10}}, [&] {
            std::string text;
            try {
                with_task_group([&](task_group& group) {
                    group.start_soon([&] { std::rethrow_exception(chain); });
                });
            } catch (exception_group const& errors) {
                text = errors.what();
            }
            CHECK(text.find("the root") != std::string::npos);
            CHECK(text.ends_with(std::string(1000, ')')));
        });
    }

    TEST_CASE("EX6: several threads may look at one group at once") {
        exception_group const group = sample();
        std::atomic<int> good{0};
        std::vector<std::thread> threads;
        for (int thread = 0; thread < 4; ++thread)
            threads.emplace_back([&] {
                for (int time = 0; time < 100; ++time)
                    if (group.contains<int>() && !group.contains<long>()) ++good;
            });
        for (auto& thread : threads)
            thread.join();
        CHECK(good == 400);
    }

    TEST_CASE("G15: a chain of groups does not grow what() beyond its leaves and levels") {
        run_test({.workers = {2}, .seeds = {0}}, [] {
            struct nest {
                static void down(int depth) {
                    with_task_group([&](task_group& group) {
                        group.start_soon([depth] {
                            if (depth == 0) throw std::runtime_error("leaf");
                            down(depth - 1);
                        });
                    });
                }
            };
            std::string text;
            try {
                nest::down(5);
            } catch (exception_group const& errors) {
                text = errors.what();
            }
            CHECK(std::count(text.begin(), text.end(), '\n') == 6);
        });
    }
}
