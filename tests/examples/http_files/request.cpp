#include "request.hpp"

#include <weft/streams/error.hpp>

#include <array>

#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>

namespace http_files {

namespace {

namespace http = boost::beast::http;

using parser = http::request_parser<http::empty_body>;

[[noreturn]] void refuse(boost::system::error_code why) {
    bool const too_long = why == http::error::header_limit || why == http::error::buffer_overflow;
    throw bad_request(too_long ? 431 : why == http::error::body_limit ? 413 : 400, why.message());
}

request take(parser const& done) {
    auto const& message = done.get();
    bool const has_body = done.chunked() || done.content_length().value_or(0) != 0;
    if (has_body) throw bad_request(413, "requests have no bodies here");
    if (message.version() == 11 && message.count(http::field::host) != 1)
        throw bad_request(400, "one Host is needed");
    return {std::string(message.method_string()), std::string(message.target()),
            done.keep_alive()};
}

} // namespace

bool request_reader::receive_more() {
    std::array<std::byte, 4096> chunk;
    std::size_t const count = from_->receive_some(chunk);
    received_.append(reinterpret_cast<char const*>(chunk.data()), count);
    return count != 0;
}

bool request_reader::wait_for_one() {
    return !received_.empty() || receive_more();
}

request request_reader::read() {
    parser head;
    head.header_limit(longest_head);
    for (;;) {
        boost::system::error_code error;
        std::size_t const used =
            head.put(boost::asio::buffer(received_.data(), received_.size()), error);
        received_.erase(0, used);
        if (head.is_header_done()) return take(head);
        if (error && error != http::error::need_more) refuse(error);
        if (received_.size() > longest_head) throw bad_request(431, "a line is too long");
        if (!receive_more()) throw weft::incomplete_read();
    }
}

} // namespace http_files
