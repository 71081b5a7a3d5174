#include "code_address.hpp"
#include "exception_transport.hpp"
#include "worker_protocol.hpp"

#include <weft/io/detail/process_call.hpp>

#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <exception>
#include <string>

#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

// How a program becomes a worker process before its main() begins.
//
//   A worker is the same file, executed anew: functions are found by their place in it. The
//   initialiser below runs when this library is loaded, and recognises a worker by its argv[0]. At
//   that time the program's own global variables are not initialised yet, and functions use them.
//   So it goes into the place of the last of the program's initialisers, calls that one, and then
//   serves. main() is never reached. An ordinary process is left as it is.
//
//   Rejected: a fork() before the threads start (the program would have to ask for it in time);
//   serving at once in the constructor (globals); calling run() in main() serve (what main() does
//   before it would be done again); replacing __libc_start_main (every program would go through
//   it).

namespace weft::detail {

constinit char const* const worker_name = "weft-worker-process"; // read before any initialiser

namespace {

constexpr int status_of_breach = 125;

int connection = -1;

// All of it, else false: the program is gone, or breaks the protocol.
bool receive_all(void* target, std::size_t size) {
    auto* place = static_cast<char*>(target);
    while (size != 0) {
        ssize_t const count = ::read(connection, place, size);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return false;
        place += count;
        size -= std::size_t(count);
    }
    return true;
}

bool send_all(void const* data, std::size_t size) {
    auto const* place = static_cast<char const*>(data);
    while (size != 0) {
        ssize_t const count = ::send(connection, place, size, MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return false;
        place += count;
        size -= std::size_t(count);
    }
    return true;
}

bool send_frame(frame_kind kind, bytes const& data) {
    frame_header const header{.kind = kind, .size = data.size()};
    return send_all(&header, sizeof header) && send_all(data.data(), data.size());
}

void execute(bytes const& call, frame_writer& result) {
    frame_reader arguments(call);
    auto const entry =
        reinterpret_cast<process_entry>(const_cast<void*>(read_code_address(arguments)));
    void const* const function =
        arguments.read_number() != 0 ? read_code_address(arguments) : nullptr;
    entry(function, arguments, result);
}

bool answer(bytes& call) {
    frame_kind kind = frame_kind::value;
    frame_writer result;
    try {
        execute(call, result);
    } catch (...) { // thrown again on the other side
        kind = frame_kind::exception;
        result.clear();
        write_current_exception(result);
    }
    bytes().swap(call); // before it waits for the next one
    return send_frame(kind, result.data());
}

bool serve_one() {
    frame_header header;
    if (!receive_all(&header, sizeof header)) return false;
    if (header.magic != frame_header::valid_magic || header.kind != frame_kind::call ||
        header.size > largest_frame)
        ::_exit(status_of_breach);
    bytes call(header.size, '\0');
    return receive_all(call.data(), call.size()) && answer(call);
}

[[noreturn]] void serve() {
    ::prctl(PR_SET_NAME, "weft-worker"); // for ps; it would say "exe"
    bool goes_on = send_frame(frame_kind::greeting, {});
    while (goes_on)
        goes_on = serve_one();
    ::_exit(0);
}

using initializer = void (*)(int, char**, char**);

initializer last_initializer = nullptr;

void initialize_and_serve(int count, char** arguments, char** environment) {
    last_initializer(count, arguments, environment);
    serve();
}

// The program's own list, which the C library is about to walk.
struct initializer_list {
    initializer* first = nullptr;
    std::size_t count = 0;
};

int find_initializers(::dl_phdr_info* program, std::size_t, void* argument) {
    auto& list = *static_cast<initializer_list*>(argument);
    for (unsigned i = 0; i < program->dlpi_phnum; ++i) {
        ElfW(Phdr) const& part = program->dlpi_phdr[i];
        if (part.p_type != PT_DYNAMIC) continue;
        auto const* entry = reinterpret_cast<ElfW(Dyn) const*>(program->dlpi_addr + part.p_vaddr);
        for (; entry->d_tag != DT_NULL; ++entry) {
            if (entry->d_tag == DT_INIT_ARRAY)
                list.first = reinterpret_cast<initializer*>(program->dlpi_addr + entry->d_un.d_ptr);
            if (entry->d_tag == DT_INIT_ARRAYSZ)
                list.count = entry->d_un.d_val / sizeof(initializer);
        }
    }
    return 1; // the first one is the program
}

void become_worker_if_asked(int count, char** arguments, char** environment);

void serve_after_initializers() {
    initializer_list list;
    ::dl_iterate_phdr(find_initializers, &list);
    if (list.count == 0) serve();
    initializer& last = list.first[list.count - 1];
    if (last == &become_worker_if_asked) serve(); // linked into the program, after all the others
    auto const page_size = std::uintptr_t(::sysconf(_SC_PAGESIZE));
    auto* const page =
        reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(&last) & -page_size);
    if (::mprotect(page, page_size, PROT_READ | PROT_WRITE) != 0) ::_exit(status_of_breach);
    last_initializer = last;
    last = &initialize_and_serve;
}

void become_worker_if_asked(int count, char** arguments, char**) {
    if (count != 2 || std::strcmp(arguments[0], worker_name) != 0) return;
    char const* const end = arguments[1] + std::strlen(arguments[1]);
    if (std::from_chars(arguments[1], end, connection).ptr != end) return;
    ::fcntl(connection, F_SETFD, FD_CLOEXEC); // no concern of programs that functions start
    serve_after_initializers();
}

// Not [[gnu::constructor]]: link-time optimisation merges those into one that has no arguments to pass on.
[[gnu::section(".init_array"), gnu::used]] initializer entry_for_the_loader = &become_worker_if_asked;

} // namespace

} // namespace weft::detail
