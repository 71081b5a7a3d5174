#pragma once

#include "relacy_atomics.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ostream>
#include <streambuf>

namespace weft { namespace model {

/// Runs models under relacy, prints a line for each, and remembers whether all went as expected.
///
///     schedules checks(argc, argv);           // an argument: run so many times as many schedules
///     checks.hold<the_model>("it", 300000);
///     checks.find<a_broken_one>("it, without the fence");
///     return checks.result();
///
/// A load may give an older value than the newest: of the last three in a random schedule, of the
/// last two where all schedules are tried.
class schedules {
public:
    schedules(int argument_count, char** arguments) {
        if (argument_count > 1) times_ = std::max(1L, std::strtol(arguments[1], nullptr, 10));
    }

    /// No schedule of `count` random ones may fail. A schedule's number is its seed, so the same
    /// program finds a failure again.
    template <class Model> void hold(char const* what, unsigned long count) {
        rl::test_params parameters;
        parameters.iteration_count = count * times_;
        judge<Model, rl::random_scheduler>(parameters, what, "schedules");
    }

    /// No schedule with up to so many forced switches between threads may fail, all of them tried.
    template <class Model> void hold_all(char const* what, unsigned switches) {
        rl::test_params parameters;
        parameters.search_type = rl::sched_bound;
        parameters.context_bound = switches;
        char unit[80];
        std::snprintf(unit, sizeof unit, "schedules, all with up to %u switches,", switches);
        judge<Model, rl::context_bound_scheduler>(parameters, what, unit);
    }

    /// No schedule at all may fail.
    template <class Model> void hold_every(char const* what) {
        rl::test_params parameters;
        parameters.search_type = rl::sched_full;
        judge<Model, rl::full_search_scheduler>(parameters, what, "schedules, all there are,");
    }

    /// The seeded bug must be found, else the model would not see a real one either.
    template <class Model> void find(char const* what, unsigned long at_most = 300000) {
        rl::test_params parameters;
        parameters.iteration_count = at_most;
        if (run<Model, rl::random_scheduler>(parameters)) {
            std::printf("%s: NOT FOUND in %lu schedules\n", what, at_most);
            failed_ = true;
            return;
        }
        char const* const failure = account_.text();
        std::printf("%s: found after %lu schedules (%.*s)\n", what,
                    static_cast<unsigned long>(parameters.stop_iteration),
                    static_cast<int>(std::strcspn(failure, "\n")), failure);
        std::fflush(stdout);
    }

    int result() const { return failed_ ? EXIT_FAILURE : EXIT_SUCCESS; }

private:
    /// Keeps what relacy tells. While a model runs, every allocation is taken for the model's, so
    /// there is none here; a longer account is cut.
    class account : public std::streambuf {
    public:
        account() { clear(); }
        void clear() { setp(text_, text_ + sizeof text_ - 1); }
        /// Its first line is the kind of failure. Without the second part, which has each thread's
        /// operations once more.
        char const* text() {
            *pptr() = '\0';
            if (char* const by_thread = std::strstr(text_, "\nthread 0:\n")) *by_thread = '\0';
            return text_;
        }

    private:
        char text_[1 << 18];
    };

    template <class Model, template <rl::thread_id_t> class Scheduler>
    bool run(rl::test_params& parameters) {
        static std::ostream nowhere(nullptr);
        account_.clear();
        std::ostream told(&account_);
        parameters.output_stream = &told;
        parameters.progress_stream = &nowhere;

        // Not rl::simulate(), which compiles each model three times, once for each scheduler.
        using chosen = Scheduler<Model::params::thread_count>;
        rl::ostringstream state;
        if (rl::run_test<Model, chosen>(parameters, state, false) == rl::test_result_success)
            return true;
        parameters.initial_state = state.str(); // that schedule again, with its account
        parameters.collect_history = true;
        rl::run_test<Model, chosen>(parameters, state, true);
        return false;
    }

    template <class Model, template <rl::thread_id_t> class Scheduler>
    void judge(rl::test_params& parameters, char const* what, char const* unit) {
        bool const holds = run<Model, Scheduler>(parameters);
        std::printf("%s: %lu %s %s\n", what, static_cast<unsigned long>(parameters.stop_iteration),
                    unit, holds ? "hold" : "tried, the last one FAILS:");
        if (!holds) std::printf("%s\n", account_.text());
        std::fflush(stdout);
        failed_ = failed_ || !holds;
    }

    static account account_;
    unsigned long times_ = 1;
    bool failed_ = false;
};

schedules::account schedules::account_; // one program, one source file

}} // namespace weft::model
