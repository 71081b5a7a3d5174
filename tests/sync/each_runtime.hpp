#pragma once

#include "support/run_test.hpp"

#include <doctest/doctest.h>

/// Runs the body as first task with 1, 2 and 4 workers and under several schedules of "sim".
template <class Body> void on_each_runtime(Body const& body) {
    weft::test::run_test({.seeds = {0, 1, 2, 3, 4, 5}}, body);
}

/// The same for races: each runtime runs the body often.
template <class Body> void often_on_each_runtime(int times, Body const& body) {
    on_each_runtime([&] {
        for (int round = 0; round < times; ++round)
            body();
    });
}

/// Whether a call throws that.
template <class Failure, class Call> bool throws(Call&& call) {
    try {
        call();
    } catch (Failure const&) {
        return true;
    }
    return false;
}
