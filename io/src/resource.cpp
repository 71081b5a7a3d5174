#include <weft/io/resource.hpp>

#include <weft/runtime/cancel_scope.hpp>

namespace weft {

void close_forcefully(resource& closing) {
    cancel_scope scope;
    detail::cancel_because(scope, "close_forcefully() does not wait");
    scope.run([&closing] { closing.close(); });
}

} // namespace weft
