#pragma once

#include <weft/runtime/detail/report.hpp>

#include <mutex>
#include <string>
#include <vector>

namespace weft::test {

/// Whether this build looks for mistakes of its users.
#if defined(WEFT_CHECKED)
inline constexpr bool finds_mistakes = true;
#else
inline constexpr bool finds_mistakes = false;
#endif

/// Hears of the mistakes that the library finds, as long as it lives. One at a time.
class mistakes_heard {
public:
    mistakes_heard() {
        {
            std::lock_guard const guard(lock()); // one that is told just now may be added still
            texts().clear();
        }
        before_ = detail::listen_to_mistakes(&mistakes_heard::add);
    }
    ~mistakes_heard() { detail::listen_to_mistakes(before_); }
    mistakes_heard(mistakes_heard const&) = delete;
    mistakes_heard& operator=(mistakes_heard const&) = delete;

    std::vector<std::string> get() const {
        std::lock_guard const guard(lock());
        return texts();
    }
    /// How many of them contain the text.
    std::size_t count(std::string const& part) const {
        std::size_t found = 0;
        for (std::string const& text : get())
            found += text.find(part) != std::string::npos;
        return found;
    }

private:
    static void add(std::string const& text) {
        std::lock_guard const guard(lock());
        texts().push_back(text);
    }
    static std::mutex& lock() {
        static std::mutex one;
        return one;
    }
    static std::vector<std::string>& texts() {
        static std::vector<std::string> all;
        return all;
    }

    detail::mistake_listener before_ = nullptr;
};

} // namespace weft::test
