#pragma once

#include <string>

namespace weft::detail {

/// The name, for people, of a symbol or a type; as it is if too little of a fiber's stack is left to read it.
std::string demangled(char const* name);

} // namespace weft::detail
