#include "report.hpp"

#include <weft/runtime/run.hpp>

#include <cstdio>
#include <exception>
#include <memory>
#include <sys/resource.h>

// An echo load driver: a task for each connection, which talks as if it were alone.

namespace {

// Every connection is a descriptor, and the usual limit of 1024 is for programs that use select().
void allow_many_descriptors() {
    ::rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

} // namespace

int main(int argc, char** argv) try {
    load::options const asked = load::parse_options(argc, argv);
    allow_many_descriptors();
    auto const result = std::make_unique<load::outcome>();
    weft::run({.workers = asked.workers}, [&] { load::drive(asked, *result); });
    load::report(asked, *result);
    return result->latencies.count() == 0;
} catch (std::exception const& failure) {
    std::fprintf(stderr, "weft-load: %s\n", failure.what());
    return 1;
}
