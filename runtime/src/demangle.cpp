#include "demangle.hpp"

#include "runtime.hpp"
#include "stack_pool.hpp"

#include <cstdlib>
#include <cstring>
#include <memory>

#include <cxxabi.h>

namespace weft::detail {

namespace {

// What __cxa_demangle takes of the stack: some 100 bytes a character for usual names, 240 for templates in
// templates or functions that take functions, 350 for pointers to pointers (libstdc++ 12).
constexpr std::size_t stack_for_a_character = 350;
constexpr std::size_t stack_for_any_name = 4 * 1024;

// The cancellation or the failure that the name is wanted for must not end in an overflow.
bool has_stack_for(char const* name) noexcept {
    fiber const* const self = current_fiber();
    if (self == nullptr) return true; // a thread's
    auto const* const here = static_cast<char const*>(__builtin_frame_address(0));
    auto const left = std::size_t(here - self->stack->lowest);
    return left > stack_for_any_name + stack_for_a_character * std::strlen(name);
}

// "weft::race" out of ZZZN4weft4raceIJ...: what encloses it, without template arguments.
std::string enclosing_name(char const* mangled) {
    if (std::strncmp(mangled, "_Z", 2) == 0) mangled += 2;
    mangled += std::strspn(mangled, "ZNKVRO");
    std::string path;
    while (*mangled >= '1' && *mangled <= '9') {
        char* name = nullptr;
        std::size_t const length = std::strtoul(mangled, &name, 10);
        if (std::strlen(name) < length) break;
        if (!path.empty()) path += "::";
        bool const unnamed = std::strncmp(name, "_GLOBAL__N_", 11) == 0;
        path += unnamed ? "(anonymous namespace)" : std::string(name, length);
        mangled = name + length;
    }
    return path;
}

} // namespace

// Of a symbol or a type. That of libstdc++ 12 does not know lambdas within lambdas that are templates.
std::string demangled(char const* name) {
    if (!has_stack_for(name)) return name;
    int status = 0;
    std::unique_ptr<char, void (*)(void*)> const plain(
        abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
    if (status == 0) return plain.get();
    std::string const around = enclosing_name(name); // none of what is not C++
    return around.empty() ? name : "a lambda in " + around;
}

} // namespace weft::detail
