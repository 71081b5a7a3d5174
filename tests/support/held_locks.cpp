// Finds OS locks that are held across a suspension. Linked into a program, its pthread_mutex_lock() and
// its relatives stand before those of the C library and keep account, thread by thread, of what is held
// and where it was taken. Only in checked builds; ThreadSanitizer needs these names for itself.
#include "support/held_locks.hpp"

#if defined(WEFT_CHECKED) && !defined(__SANITIZE_THREAD__)

#include "runtime/src/task.hpp"

#include <weft/runtime/detail/report.hpp>

#include <dlfcn.h>
#include <pthread.h>

namespace weft::test {

namespace {

struct held_lock {
    void* mutex;
    void* place;
};

constexpr unsigned most = 16; // beyond that they go unnoticed
thread_local held_lock held[most];
thread_local unsigned held_count = 0;

using operation = int (*)(pthread_mutex_t*);

operation real(char const* name) {
    return reinterpret_cast<operation>(::dlsym(RTLD_NEXT, name));
}

void note_locked(void* mutex, void* place) {
    if (held_count < most) held[held_count++] = {mutex, place};
}

void note_unlocked(void* mutex) { // one that another thread has locked is not here
    for (unsigned place = held_count; place-- > 0;)
        if (held[place].mutex == mutex) {
            held[place] = held[--held_count];
            return;
        }
}

// Told once: the fiber may unlock them on another thread, where nothing is known of them.
std::string describe() {
    if (held_count == 0) return {};
    std::string text;
    for (unsigned place = 0; place < held_count; ++place)
        text += (place == 0 ? "an OS lock taken in " : " and one taken in ") +
                detail::describe_address(held[place].place);
    held_count = 0;
    return text;
}

} // namespace

void watch_held_locks() { detail::ask_for_held_locks(&describe); }

} // namespace weft::test

extern "C" int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
    static auto const next = weft::test::real("pthread_mutex_lock");
    int const error = next(mutex);
    if (error == 0) weft::test::note_locked(mutex, __builtin_return_address(0));
    return error;
}

extern "C" int pthread_mutex_trylock(pthread_mutex_t* mutex) noexcept {
    static auto const next = weft::test::real("pthread_mutex_trylock");
    int const error = next(mutex);
    if (error == 0) weft::test::note_locked(mutex, __builtin_return_address(0));
    return error;
}

extern "C" int pthread_mutex_unlock(pthread_mutex_t* mutex) noexcept {
    static auto const next = weft::test::real("pthread_mutex_unlock");
    weft::test::note_unlocked(mutex);
    return next(mutex);
}

#else

namespace weft::test {
void watch_held_locks() {}
} // namespace weft::test

#endif
