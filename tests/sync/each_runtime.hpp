#pragma once

#include <doctest/doctest.h>

#include <weft/runtime/run.hpp>

#include <exception>
#include <string>

/// Runs the body as first task with 1, 2 and 4 workers and under several schedules of "sim".
template <class Body> void on_each_runtime(Body const& body) {
    auto const with = [&](weft::run_options const& options) {
        std::string failure;
        try {
            weft::run(options, body);
        } catch (std::exception const& error) {
            failure = error.what();
        }
        if (!failure.empty())
            FAIL_CHECK(options.backend, ", ", options.workers, " workers, seed ", options.seed, ": ",
                       failure);
    };
    for (unsigned workers : {1u, 2u, 4u})
        with({.workers = workers});
    for (std::uint64_t seed = 0; seed < 6; ++seed)
        with({.backend = "sim", .workers = unsigned(1 + seed % 3), .seed = seed});
}

/// The same for races: each runtime runs the body often.
template <class Body> void often_on_each_runtime(int times, Body const& body) {
    on_each_runtime([&] {
        for (int round = 0; round < times; ++round)
            body();
    });
}

/// What a call throws, if it throws that.
template <class Failure, class Call> bool throws(Call&& call) {
    try {
        call();
    } catch (Failure const&) {
        return true;
    }
    return false;
}
