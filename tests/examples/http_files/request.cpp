#include "request.hpp"

#include <weft/streams/error.hpp>

#include <algorithm>
#include <array>
#include <string_view>

#include <boost/beast/core/string.hpp>
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

// Where a request ends must be said in one way that all understand alike, or what one takes for its body
// is for another the next request (RFC 9112, 6.3).
void check_framing(parser const& done) {
    auto const& message = done.get();
    auto const codings = message.count(http::field::transfer_encoding);
    if (codings == 0) return;
    if (codings != 1 || !boost::beast::iequals(message[http::field::transfer_encoding], "chunked"))
        throw bad_request(400, "no transfer coding but chunked is known here");
    if (message.count(http::field::content_length) != 0 || message.version() < 11)
        throw bad_request(400, "the length of the body is ambiguous");
}

// "http://host/path" is "/path": so proxies ask (RFC 9112, 3.2.2).
std::string without_authority(std::string_view target) {
    for (std::string_view const scheme : {"http://", "https://"}) {
        if (!boost::beast::iequals(target.substr(0, scheme.size()), scheme)) continue;
        target.remove_prefix(std::min(target.find_first_of("/?#", scheme.size()), target.size()));
        return (target.starts_with('/') ? "" : "/") + std::string(target);
    }
    return std::string(target);
}

request take(parser const& done) {
    check_framing(done);
    auto const& message = done.get();
    bool const has_body = done.chunked() || done.content_length().value_or(0) != 0;
    if (has_body) throw bad_request(413, "requests have no bodies here");
    if (message.version() == 11 && message.count(http::field::host) != 1)
        throw bad_request(400, "one Host is needed");
    return {std::string(message.method_string()), without_authority(message.target()),
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
    for (;;) {
        // Some clients send an empty line behind the body before (RFC 9112, 2.2).
        received_.erase(0, std::min(received_.find_first_not_of("\r\n"), received_.size()));
        if (!received_.empty()) return true;
        if (!receive_more()) return false;
    }
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
