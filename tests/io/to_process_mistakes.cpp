#include <weft/io/to_process.hpp>

#include <map>
#include <string>
#include <utility>
#include <vector>

// What cannot go to a worker process; compiled by tests/support/compile_errors.

namespace {

struct unknown { // to cereal, and not trivially copyable
    std::string text;
};

struct no_default {
    explicit no_default(int value) : inside(value) {}
    int inside;
};

[[maybe_unused]] void take(auto const& value) {
    weft::to_process::run_sync([](auto const&) {}, value);
}

template <class T> [[maybe_unused]] T give() {
    return weft::to_process::run_sync([]() -> T { throw 1; });
}

} // namespace

int main() {
    take(std::multimap<int, std::vector<std::string>>());
    take(no_default(1));
    give<std::vector<int>>();
#ifdef UNSUPPORTED_ARGUMENT // an argument cannot travel to a worker process: it is or holds a pointer or a view
    take(unknown());
#endif
#ifdef UNSUPPORTED_ELEMENT // an argument cannot travel to a worker process: it is or holds a pointer or a view
    take(std::vector<unknown>());
#endif
#ifdef UNSUPPORTED_ELEMENT_OF_MULTIMAP // an argument cannot travel to a worker process: it is or holds a pointer
    take(std::multimap<int, std::pair<int, unknown>>());
#endif
#ifdef UNSUPPORTED_RESULT // the result cannot travel back from a worker process: it is or holds a pointer or a view
    give<std::vector<char const*>>();
#endif
#ifdef ELEMENT_WITHOUT_DEFAULT // it, or an element of it, has no default constructor
    take(std::vector<std::vector<no_default>>());
#endif
#ifdef RESULT_WITHOUT_DEFAULT // it, or an element of it, has no default constructor
    give<std::map<int, no_default>>();
#endif
#ifdef CAPTURING_LAMBDA // only a function or a lambda without captures can run in a worker process
    int factor = 2;
    weft::to_process::run_sync([factor](int value) { return factor * value; }, 3);
#endif
}
