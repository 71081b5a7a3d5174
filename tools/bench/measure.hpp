#pragma once

#include <weft/runtime/run.hpp>

#include <cstdint>
#include <string>
#include <vector>

/// What every line of the benchmark shares: settings, clocks, memory figures, repetition and output.
///
/// A result is one line, `name value unit [min max]`; value is the median of the repetitions.
namespace bench {

struct settings {
    unsigned workers = 1;
    std::size_t n = 0; // 0: what the line takes by itself
    int repetitions = 5;

    std::size_t count(std::size_t usual) const { return n == 0 ? usual : n; }
    weft::run_options runtime() const { return {.workers = workers}; }
};

double now();         // seconds, monotonic
double cpu_seconds(); // user and system time of the process

/// A field of /proc/self/status, in bytes. Not getrusage: ru_maxrss is inherited across exec.
double status_bytes(char const* field);

void print(std::string const& name, double value, char const* unit);
void print(std::string const& name, std::vector<double> values, char const* unit);
void print_peak_rss(std::string const& name); // in MB

/// Calls measure() once to warm up and then for each repetition, all in one run; it gives the figure.
template <class Measure>
void repeat(settings const& with, std::string const& name, char const* unit, Measure measure) {
    weft::run(with.runtime(), [&] {
        std::vector<double> values;
        measure();
        for (int i = 0; i < with.repetitions; ++i)
            values.push_back(measure());
        print(name, values, unit);
    });
}

/// Repetitions of figures that come in pairs or more; measure() takes whether to record.
template <class Measure> void repeat_all(settings const& with, int repetitions, Measure measure) {
    weft::run(with.runtime(), [&] {
        measure(false);
        for (int i = 0; i < repetitions; ++i)
            measure(true);
    });
}

/// xorshift64*, the generator that the peers use.
struct random_source {
    std::uint64_t state;
    std::uint64_t operator()() {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        return state * 0x2545F4914F6CDD1DULL;
    }
};

} // namespace bench
