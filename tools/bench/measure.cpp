#include "measure.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <time.h>

namespace bench {

namespace {

double seconds_of(clockid_t clock) {
    timespec time{};
    clock_gettime(clock, &time);
    return double(time.tv_sec) + double(time.tv_nsec) * 1e-9;
}

} // namespace

double now() { return seconds_of(CLOCK_MONOTONIC); }
double cpu_seconds() { return seconds_of(CLOCK_PROCESS_CPUTIME_ID); }

double status_bytes(char const* field) {
    std::ifstream status("/proc/self/status");
    std::string const label = std::string(field) + ":";
    for (std::string word; status >> word;) {
        double kib = 0;
        if (word == label && status >> kib) return kib * 1024;
    }
    return 0;
}

void print(std::string const& name, double value, char const* unit) {
    std::printf("%s %.6g %s\n", name.c_str(), value, unit);
    std::fflush(stdout);
}

void print(std::string const& name, std::vector<double> values, char const* unit) {
    std::sort(values.begin(), values.end());
    std::printf("%s %.6g %s %.6g %.6g\n", name.c_str(), values[values.size() / 2], unit,
                values.front(), values.back());
    std::fflush(stdout);
}

void print_peak_rss(std::string const& name) { print(name, status_bytes("VmHWM") / 1e6, "MB"); }

} // namespace bench
