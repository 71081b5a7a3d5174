#pragma once

#include <weft/runtime/detail/task_body.hpp>

#include <string>
#include <typeinfo>

namespace weft::detail {

/// What a task is called that runs this and was given no name: for those who wrap it in something of their own.
std::string callable_name(std::type_info const&, void const* function); // null: it is no function

template <class F> std::string callable_name(F const& of) {
    return callable_name(typeid(F), address_if_function(of));
}

} // namespace weft::detail
