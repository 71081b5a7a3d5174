#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/streams/byte_stream.hpp>
#include <weft/streams/detail/closable_guard.hpp>

#include <algorithm>
#include <atomic>
#include <cstring>

namespace weft::detail {

namespace {

// The octets of objects, one after the other. An object without octets says nothing and is skipped:
// given on, it would look like the end. An object stream may have several receivers, but the rest
// of an object is one's.
class object_reader {
public:
    std::size_t receive_some(object_receive_stream<bytes>& from, buffer target) {
        if (target.empty()) throw std::invalid_argument("there is no room in the buffer");
        auto const inside = reading_.enter();
        if (used_ != rest_.size()) enter_blocking_call("receive");
        while (used_ == rest_.size()) {
            try {
                rest_ = from.receive();
            } catch (end_of_stream const&) { // 0 says so
                return 0;
            }
            used_ = 0;
            if (rest_.empty()) lowlevel::checkpoint(); // there may be nothing but such objects
        }
        std::size_t const count = std::min(target.size(), rest_.size() - used_);
        std::memcpy(target.data(), rest_.data() + used_, count);
        used_ += count;
        return count;
    }
    void close() noexcept { reading_.close(); }

private:
    closable_guard reading_{"reading from"};
    bytes rest_;
    std::size_t used_ = 0;
};

// Octets as objects. No octets are no object, so the object stream cannot say that it is closed.
class object_writer {
public:
    void send(object_send_stream<bytes>& to, bytes_view data) {
        if (!data.empty()) return to.send(data.to_bytes());
        if (closed_.load(std::memory_order_acquire)) throw closed_resource_error(); // close()
        lowlevel::checkpoint();
    }
    void close() noexcept { closed_.store(true, std::memory_order_release); } // send()

private:
    std::atomic<bool> closed_ = false;
};

template <class Stream>
class adapter : public virtual resource, public virtual typed_attribute_provider {
public:
    explicit adapter(Stream& to) : to_(to) {}
    void close() override { to_.close(); }
    attribute_map extra_attributes() const override { return to_.extra_attributes(); }

protected:
    Stream& to_;
};

class bytes_of_objects final : public byte_receive_stream,
                               public adapter<object_receive_stream<bytes>> {
public:
    using adapter::adapter;
    std::size_t receive_some(buffer target) override { return reader_.receive_some(to_, target); }
    void close() override {
        reader_.close();
        to_.close();
    }

private:
    object_reader reader_;
};

class bytes_to_objects final : public byte_send_stream,
                               public adapter<object_send_stream<bytes>> {
public:
    using adapter::adapter;
    using byte_send_stream::send;
    void send(bytes_view data) override { writer_.send(to_, data); }
    void close() override {
        writer_.close();
        to_.close();
    }

private:
    object_writer writer_;
};

class bytes_over_objects final : public byte_stream, public adapter<object_stream<bytes>> {
public:
    using adapter::adapter;
    using byte_send_stream::send;
    std::size_t receive_some(buffer target) override { return reader_.receive_some(to_, target); }
    void send(bytes_view data) override { writer_.send(to_, data); }
    void send_eof() override { to_.send_eof(); }
    void close() override {
        reader_.close();
        writer_.close();
        to_.close();
    }

private:
    object_reader reader_;
    object_writer writer_;
};

class chunks_of_bytes final : public bytes_source, public adapter<byte_receive_stream> {
public:
    using adapter::adapter;
    bytes receive() override { return to_.receive(); }
};

class chunks_to_bytes final : public bytes_sink, public adapter<byte_send_stream> {
public:
    using adapter::adapter;
    void send(bytes chunk) override { to_.send(bytes_view(chunk)); }
};

class chunks_over_bytes final : public bytes_pair, public adapter<byte_stream> {
public:
    using adapter::adapter;
    bytes receive() override { return to_.receive(); }
    void send(bytes chunk) override { to_.send(bytes_view(chunk)); }
};

} // namespace

std::unique_ptr<byte_receive_stream> adapt(object_receive_stream<bytes>& to, byte_receive_stream*) {
    return std::make_unique<bytes_of_objects>(to);
}
std::unique_ptr<byte_send_stream> adapt(object_send_stream<bytes>& to, byte_send_stream*) {
    return std::make_unique<bytes_to_objects>(to);
}
std::unique_ptr<byte_stream> adapt(object_stream<bytes>& to, byte_stream*) {
    return std::make_unique<bytes_over_objects>(to);
}
std::unique_ptr<bytes_source> adapt(byte_receive_stream& to, bytes_source*) {
    return std::make_unique<chunks_of_bytes>(to);
}
std::unique_ptr<bytes_sink> adapt(byte_send_stream& to, bytes_sink*) {
    return std::make_unique<chunks_to_bytes>(to);
}
std::unique_ptr<bytes_pair> adapt(byte_stream& to, bytes_pair*) {
    return std::make_unique<chunks_over_bytes>(to);
}

} // namespace weft::detail
