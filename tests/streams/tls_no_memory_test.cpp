#include <weft/streams/tls_stream.hpp>

#include "sockets.hpp"
#include "support/memory_requests.hpp"
#include "tls_pair.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>

#include <doctest/doctest.h>

#include <new>
#include <optional>
#include <string>
#include <utility>

#include <fcntl.h>

TEST_SUITE_BEGIN("streams.tls_no_memory");

namespace {

using namespace std::chrono_literals;
using weft::test::check;
using weft::test::requests_until_failure;
using weft::test::tls_pair;

// Says good-bye, and does not wait for the peer's.
void begin_unwrap(weft::tls_stream& stream) {
    weft::cancel_scope scope;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { scope.run([&] { stream.unwrap(); }); });
        weft::wait_all_tasks_blocked();
        scope.cancel();
    });
}

} // namespace

TEST_CASE("R2: whatever unwrap() had no memory for, close() ends, and what is under it is closed") {
    weft::test::run_test({.workers = {1}, .seeds = {}}, [] {
        std::string const plain(1000, 'p');
        int refusals = 0;
        for (int request = 1;; ++request) {
            weft::test::connection ends = weft::test::connect_pair();
            int const descriptor = ends.here.extra(weft::socket_attribute::raw_socket);
            tls_pair pair = weft::test::shake_hands(std::move(ends.here), std::move(ends.there));
            begin_unwrap(pair.client);
            auto [transport, none] = pair.server.unwrap();
            transport.send(plain); // lies there together with the good-bye
            std::optional<std::pair<weft::any_byte_stream, weft::bytes>> unwrapped;
            requests_until_failure = request;
            try {
                unwrapped = pair.client.unwrap();
            } catch (std::bad_alloc const&) {
                ++refusals;
            }
            bool const had_all = std::exchange(requests_until_failure, 0) > 0;
            if (had_all) {
                check(unwrapped && unwrapped->second == plain, "nothing was missing, and nothing is");
                break;
            }
            if (unwrapped) continue; // it did without
            check(weft::move_on_after(10s, [&] {
                try {
                    pair.client.close();
                } catch (weft::broken_resource_error const&) { // for want of memory
                }
            }), "it ends");
            check(::fcntl(descriptor, F_GETFD) == -1, "closed");
        }
        CHECK(refusals > 0);
    });
}

TEST_SUITE_END();
