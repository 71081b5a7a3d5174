#include "support/another_run.hpp"
#include "support/gate.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/blocking_region.hpp>
#include <weft/runtime/context_var.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <new>
#include <string>
#include <thread>

using namespace weft;
using namespace weft::test;

TEST_SUITE("runtime.context_var") {
    TEST_CASE("G26: a child starts with a copy of its spawner's values; later changes are its own") {
        run_test([] {
            context_var<int> number("number", 1);
            number.set(5);
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    CHECK(number.get() == 5);
                    number.set(6);
                    lowlevel::checkpoint();
                    CHECK(number.get() == 6);
                });
                number.set(7);
                group.start_soon([&] { CHECK(number.get() == 7); });
                lowlevel::checkpoint();
                CHECK(number.get() == 7);
            });
            CHECK(number.get() == 7);
        });
    }

    TEST_CASE("G26: what counts is who spawns, not whose group it is") {
        run_test([] {
            context_var<std::string> name("name");
            name.set("host");
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    name.set("spawner");
                    group.start_soon([&] { CHECK(name.get() == "spawner"); });
                });
            });
        });
    }

    TEST_CASE("G26: a task may start another one in a group of another run, which has its values") {
        context_var<int> number("number", 1);
        group_of_another_run other;
        int seen = 0;
        run({.workers = 1}, [&] {
            number.set(5);
            (*other).start_soon([&] {
                seen = number.get();
                number.set(6);
            });
            CHECK(number.get() == 5);
        });
        other.close();
        CHECK(seen == 5);
    }

    TEST_CASE("G26: a blocking_region has the task's values, and keeps what is set there") {
        context_var<int> number("number", 1);
        run_test([&] {
            number.set(5);
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 4; ++task)
                    group.start_soon([&, task] {
                        number.set(10 + task);
                        {
                            blocking_region const region;
                            CHECK(number.get() == 10 + task);
                            number.set(20 + task);
                        }
                        CHECK(number.get() == 20 + task);
                    });
            });
            CHECK(number.get() == 5);
        });
        CHECK(number.get() == 1);
    }

    TEST_CASE("G26: the first task starts with the values of the thread that calls run") {
        context_var<int> number("number");
        auto before = number.set(3);
        run([&] {
            CHECK(number.get() == 3);
            number.set(4);
        });
        CHECK(number.get() == 3);
        number.reset(std::move(before));
        CHECK_THROWS_AS(number.get(), lookup_error);
        std::thread([&] { CHECK_THROWS_AS(number.get(), lookup_error); }).join();
    }

    TEST_CASE("RV2: a value, else the call's default, else the variable's, else lookup_error") {
        run_test([] {
            run_var<int> bare("bare");
            run_var<int> with_default("with_default", 2);
            check_throws<lookup_error>([&] { bare.get(); }, "nothing");
            CHECK(bare.get(9) == 9);
            CHECK(with_default.get() == 2);
            CHECK(with_default.get(9) == 9);
            with_default.set(4);
            CHECK(with_default.get(9) == 4);
            try {
                bare.get();
            } catch (lookup_error const& error) {
                CHECK(std::string(error.what()).find("bare") != std::string::npos);
            }
        });
        run_var<int> outside("outside", 2);
        CHECK_THROWS_AS(outside.get(), no_event_loop_error);
        CHECK_THROWS_AS(outside.set(1), no_event_loop_error);
    }

    TEST_CASE("RV1: one value for all tasks of a run, none for the next run, names do not matter") {
        run_var<int> shared("same name", 0);
        run_var<int> other("same name", 0);
        for (int time = 0; time < 2; ++time)
            run({.workers = 2}, [&] {
                CHECK(shared.get() == 0);
                with_task_group([&](task_group& group) { group.start_soon([&] { shared.set(5); }); });
                CHECK(shared.get() == 5);
                CHECK(other.get() == 0);
            });
    }

    TEST_CASE("RV1: a variable that is made where another one was has none of its values") {
        run_test([] {
            alignas(run_var<long>) std::byte place[sizeof(run_var<long>)];
            auto* const before = new (place) run_var<long>("before");
            before->set(7);
            before->~run_var();
            auto* const after = new (place) run_var<int>("after");
            CHECK_THROWS_AS(after->get(), lookup_error);
            after->~run_var();

            alignas(context_var<long>) std::byte own_place[sizeof(context_var<long>)];
            auto* const own_before = new (own_place) context_var<long>("before");
            auto was = own_before->set(7);
            own_before->~context_var();
            auto* const own_after = new (own_place) context_var<long>("after");
            CHECK_THROWS_AS(own_after->get(), lookup_error);
            CHECK_THROWS_AS(own_after->reset(std::move(was)), std::invalid_argument);
            own_after->~context_var();
        });
    }

    TEST_CASE("RV3: a token restores what was there before, once, and only its own variable") {
        run_test([] {
            run_var<int> number("number");
            run_var<int> stranger("stranger");
            auto first = number.set(1);
            auto second = number.set(2);
            check_throws<std::invalid_argument>([&] { stranger.reset(std::move(second)); }, "foreign");
            number.reset(number.set(3));
            CHECK(number.get() == 2);
            number.reset(std::move(first));
            check_throws<lookup_error>([&] { number.get(); }, "unset again");
            check_throws<std::invalid_argument>([&] { number.reset(std::move(first)); }, "used");
        });
    }

    TEST_CASE("RV3: the destructor of a value that is replaced or reset may use run variables") {
        run_test([] {
            run_var<int> number("number", 1);
            run_var<std::shared_ptr<void>> replaced("replaced");
            auto const adds_one = [&] {
                return std::shared_ptr<void>(nullptr, [&](void*) { number.set(number.get() + 1); });
            };
            auto unset = replaced.set(adds_one());
            { auto const forgotten = replaced.set(nullptr); }
            CHECK(number.get() == 2);
            { auto const forgotten = replaced.set(adds_one()); }
            CHECK(number.get() == 2);
            replaced.reset(std::move(unset));
            CHECK(number.get() == 3);
        });
    }

    TEST_CASE("RV4: values die with the run and with the task") {
        auto const token = std::make_shared<int>();
        run_var<std::shared_ptr<int>> of_run("of_run");
        context_var<std::shared_ptr<int>> of_task("of_task");
        run([&] {
            of_run.set(token);
            with_task_group([&](task_group& group) { group.start_soon([&] { of_task.set(token); }); });
            CHECK(token.use_count() == 2);
            of_task.set(token);
        });
        CHECK(token.use_count() == 1);
    }

    TEST_CASE("RV5: several workers may read and write one variable at once") {
        run_test({.seeds = {0}, .times = 5}, [] {
            run_var<std::string> text("text", std::string(100, 'a'));
            std::atomic<bool> torn{false};
            with_task_group([&](task_group& group) {
                for (char letter = 'a'; letter < 'e'; ++letter)
                    group.start_soon([&, letter] {
                        for (int time = 0; time < 100; ++time) {
                            text.set(std::string(100, letter));
                            std::string const seen = text.get();
                            if (seen != std::string(100, seen[0])) torn = true;
                            if (time % 16 == 0) lowlevel::checkpoint();
                        }
                    });
            });
            CHECK_FALSE(torn);
        });
    }
}
