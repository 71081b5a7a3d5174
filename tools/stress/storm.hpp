#pragma once

#include "random_source.hpp"

#include <weft/runtime/run.hpp>

#include <atomic>
#include <cstdint>
#include <functional>
#include <source_location>
#include <string>

/// What every storm uses. A storm is one run() whose parameters come from a seed, with invariants that
/// are checked while it blows and after it.
namespace stress {

#if defined(__SANITIZE_THREAD__)
constexpr std::size_t slowdown = 10; // it also knows no more than 8,128 fibers
#elif defined(__SANITIZE_ADDRESS__)
constexpr std::size_t slowdown = 4;
#else
constexpr std::size_t slowdown = 1;
#endif

/// One round of a storm.
struct trial {
    char const* mode;
    std::uint64_t seed;
    unsigned workers;
    std::string backend;
    random_source random{seed};

    weft::run_options options() const {
        return {.backend = backend, .workers = workers, .seed = seed};
    }
    /// run() with those options; at the end of the body no timer may be left.
    void run(std::function<void()> const& body) const;
    /// Whether OS threads may play along: not under "sim", whose rounds repeat.
    bool may_use_threads() const { return backend != "sim"; }
    /// How many of them do.
    unsigned threads(unsigned most) { return may_use_threads() ? unsigned(random.between(0, most)) : 0; }
};

/// Something was done: keeps the watchdog quiet. Any thread; only by those that come to an end, since what
/// goes on until others have ended goes on for ever if one of them hangs.
void progress(std::uint64_t operations = 1) noexcept;

/// Ends the process with the rule that was broken and the line that replays the round. Not an
/// exception: what is broken may be the very thing that would carry it.
[[noreturn]] void violation(std::string const& rule,
                            std::source_location = std::source_location::current());
inline void require(bool good, char const* rule,
                    std::source_location where = std::source_location::current()) {
    if (!good) [[unlikely]]
        violation(rule, where);
}

/// A thing that is counted: none may be left when a round is over, and none may be used twice.
class token {
public:
    explicit token(std::uint64_t value = 0) : value_(value) { ++live_; }
    token(token const& other) : value_(other.value()) { ++live_; }
    token(token&& other) noexcept : value_(other.value()) {
        other.value_ = moved_from;
        ++live_;
    }
    token& operator=(token other) noexcept {
        value_ = other.value();
        return *this;
    }
    ~token() {
        require(value_ != destroyed, "a value is destroyed once");
        value_ = destroyed;
        --live_;
    }
    std::uint64_t value() const {
        require(value_ != destroyed && value_ != moved_from, "a value is not used after its end");
        return value_;
    }
    static std::int64_t live() { return live_; }

private:
    static constexpr std::uint64_t destroyed = 0xdeaddeaddeaddeadu;
    static constexpr std::uint64_t moved_from = 0xfeedfeedfeedfeedu;
    static inline std::atomic<std::int64_t> live_ = 0;
    std::uint64_t value_;
};

void spawn_storm(trial&);
void steal_storm(trial&);
void cancel_storm(trial&);
void timer_storm(trial&);
void channel_storm(trial&);
void mutex_storm(trial&);
void event_storm(trial&);
void group_storm(trial&);
void socket_storm(trial&);
void process_storm(trial&);
void file_storm(trial&);
void tls_storm(trial&); // needs OpenSSL
void worker_process_storm(trial&); // needs cereal
void semaphore_storm(trial&);
void condition_storm(trial&);
void limiter_storm(trial&);
void shared_storm(trial&);
void meeting_storm(trial&);
void future_storm(trial&);
void combinators_storm(trial&);
void portal_storm(trial&);
void thread_storm(trial&);
void violating_storm(trial&); // fails
void hanging_storm(trial&);   // for ever

} // namespace stress
