#include "report.hpp"

#include <cstdio>
#include <utility>
#include <vector>

namespace load {

namespace {

struct figure {
    char const* name;
    double value;
    char const* unit;
};

std::vector<figure> figures_of(options const& asked, outcome const& result) {
    histogram const& latencies = result.latencies;
    auto const us = [&](double part) { return double(latencies.quantile(part)) / 1e3; };
    return {
        {"connections", double(asked.connections), "connections"},
        {"connecting_s", result.connecting, "s"},
        {"requests", double(latencies.count()), "requests"},
        {"requests_per_s", double(latencies.count()) / result.measured, "req/s"},
        {"mean_us", latencies.mean() / 1e3, "us"},
        {"p50_us", us(0.5), "us"},
        {"p90_us", us(0.9), "us"},
        {"p99_us", us(0.99), "us"},
        {"p999_us", us(0.999), "us"},
        {"max_us", double(latencies.greatest()) / 1e3, "us"},
    };
}

} // namespace

void report(options const& asked, outcome const& result) {
    char const* separator = "{";
    for (figure const& each : figures_of(asked, result)) {
        if (asked.json)
            std::printf("%s\"%s\":%.10g", std::exchange(separator, ","), each.name, each.value);
        else
            std::printf("%-14s %14.10g %s\n", each.name, each.value, each.unit);
    }
    if (asked.json) std::puts("}");
}

} // namespace load
