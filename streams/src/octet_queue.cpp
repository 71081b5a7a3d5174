#include <weft/streams/detail/octet_queue.hpp>

#include <algorithm>
#include <cstring>

namespace weft::detail {

buffer octet_queue::room(std::size_t least) {
    if (capacity_ - end_ < least) {
        std::size_t const used = size();
        if (capacity_ - used >= least && used <= begin_) { // half is free: moving it up pays
            std::memcpy(memory_.get(), memory_.get() + begin_, used);
        } else {
            std::size_t const wanted = std::max(used + least, 2 * capacity_);
            auto larger = std::make_unique_for_overwrite<std::byte[]>(wanted);
            if (used != 0) std::memcpy(larger.get(), memory_.get() + begin_, used);
            memory_ = std::move(larger);
            capacity_ = wanted;
        }
        begin_ = 0;
        end_ = used;
    }
    return {memory_.get() + end_, capacity_ - end_};
}

void octet_queue::append(bytes_view added) {
    if (added.empty()) return;
    std::memcpy(room(added.size()).data(), added.data(), added.size());
    grew(added.size());
}

std::size_t octet_queue::take(buffer target) {
    std::size_t const count = std::min(target.size(), size());
    if (count != 0) std::memcpy(target.data(), memory_.get() + begin_, count);
    consume(count);
    return count;
}

bytes octet_queue::take(std::size_t count) {
    bytes taken(view().text().substr(0, count));
    consume(count);
    return taken;
}

} // namespace weft::detail
