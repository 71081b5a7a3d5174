#include "process_plan.hpp"

#include <weft/io/detail/account_entry.hpp>

#include <cerrno>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <unistd.h>

namespace weft::detail {

namespace {

constexpr char const* default_search_path = "/bin:/usr/bin"; // confstr(_CS_PATH)
constexpr int permission_bits = 0777;

std::string const& without_nul(std::string const& text, char const* what) {
    if (text.find('\0') != std::string::npos)
        throw std::invalid_argument(std::string("there is a NUL in ") + what);
    return text;
}

std::string search_path(process_options const& options) {
    if (!options.env) {
        char const* const here = std::getenv("PATH");
        return here != nullptr ? here : default_search_path;
    }
    auto const place = options.env->find("PATH");
    return place != options.env->end() ? place->second : default_search_path;
}

void plan_command(child_plan& plan, command const& what, process_options const& options) {
    if (what.empty() || what.words().front().empty())
        throw std::invalid_argument("there is no command to execute");
    for (std::string const& word : what.words())
        without_nul(word, "the command");
    if (what.is_for_shell()) {
        plan.arguments = {"/bin/sh", "-c", what.words().front()};
        plan.candidates = {"/bin/sh"};
    } else {
        plan.arguments = what.words();
        plan.candidates = executables_for(what.words().front(), search_path(options));
    }
}

void plan_environment(child_plan& plan, process_options const& options) {
    if (!options.env) return;
    std::vector<std::string>& environment = plan.environment.emplace();
    for (auto const& [name, value] : *options.env) {
        if (name.empty() || name.find('=') != std::string::npos)
            throw std::invalid_argument("'" + name + "' cannot name an environment variable");
        environment.push_back(without_nul(name, "an environment variable's name") + "=" +
                              without_nul(value, "an environment variable"));
    }
}

void plan_surroundings(child_plan& plan, process_options const& options) {
    if (options.cwd) plan.directory = without_nul(options.cwd->native(), "the directory's name");
    if (options.cwd && plan.directory.empty()) plan.directory = ".";
    if (options.umask < -1 || options.umask > permission_bits)
        throw std::invalid_argument("a umask of " + std::to_string(options.umask) +
                                    " is not between 0 and 0777");
    plan.umask = options.umask;
    for (int const fd : options.pass_fds)
        if (fd < 0)
            throw std::invalid_argument("cannot pass file descriptor " + std::to_string(fd));
    plan.kept = options.pass_fds;
    plan.new_session = options.start_new_session;
}

int connect_null(prepared_process& made) {
    if (!made.null) {
        made.null.reset(::open("/dev/null", O_RDWR | O_CLOEXEC));
        if (!made.null) throw std::system_error(errno, std::system_category(), "/dev/null");
    }
    return made.null.get();
}

// Only our end does not block: the flag belongs to the end and not to the descriptor, and programs
// expect standard streams that block.
int connect_pipe(prepared_process& made, int number) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0)
        throw std::system_error(errno, std::system_category(), "cannot make a pipe");
    made.theirs[number].reset(ends[number == 0 ? 0 : 1]);
    made.ours[number].reset(ends[number == 0 ? 1 : 0]);
    if (::fcntl(made.ours[number].get(), F_SETFL, O_NONBLOCK) != 0)
        throw std::system_error(errno, std::system_category(), "fcntl");
    return made.theirs[number].get();
}

void connect(prepared_process& made, int number, standard_stream to) {
    int& stream = made.plan.streams[std::size_t(number)];
    if (!to.kind()) {
        if (to.fd() < 0 || ::fcntl(to.fd(), F_GETFD) < 0)
            throw std::system_error(EBADF, std::system_category(),
                                    "file descriptor " + std::to_string(to.fd()) +
                                        ", meant for a standard stream");
        stream = to.fd();
        return;
    }
    switch (*to.kind()) {
    case stdio::pipe: stream = connect_pipe(made, number); break;
    case stdio::devnull: stream = connect_null(made); break;
    case stdio::inherit: break;
    case stdio::standard_output:
        if (number != STDERR_FILENO)
            throw std::invalid_argument("stdio::standard_output is for stderr_ only");
        stream = made.plan.streams[STDOUT_FILENO] >= 0 ? made.plan.streams[STDOUT_FILENO]
                                                       : STDOUT_FILENO;
    }
}

unsigned resolve_number(long long id, char const* what) {
    if (id < 0 || id >= std::numeric_limits<unsigned>::max()) // the last one means "no change"
        throw std::invalid_argument("there is no " + std::string(what) + " " + std::to_string(id));
    return unsigned(id);
}

::uid_t resolve_user(account const& user) {
    if (auto const* const id = std::get_if<long long>(&user.id()))
        return resolve_number(*id, "user");
    std::string const& name = std::get<std::string>(user.id());
    auto const found = look_up_account<::passwd>(
        "user '" + name + "'", [&](auto... place) { return ::getpwnam_r(name.c_str(), place...); },
        [](::passwd const& entry) { return entry.pw_uid; });
    if (!found) throw std::invalid_argument("there is no user '" + name + "'");
    return *found;
}

::gid_t resolve_group(account const& group) {
    if (auto const* const id = std::get_if<long long>(&group.id()))
        return resolve_number(*id, "group");
    std::string const& name = std::get<std::string>(group.id());
    auto const found = look_up_account<::group>(
        "group '" + name + "'", [&](auto... place) { return ::getgrnam_r(name.c_str(), place...); },
        [](::group const& entry) { return entry.gr_gid; });
    if (!found) throw std::invalid_argument("there is no group '" + name + "'");
    return *found;
}

} // namespace

prepared_process prepare_process(command const& what, process_options const& options,
                                 standard_stream input) {
    prepared_process made;
    plan_command(made.plan, what, options);
    plan_environment(made.plan, options);
    plan_surroundings(made.plan, options);
    connect(made, STDIN_FILENO, input);
    connect(made, STDOUT_FILENO, options.stdout_);
    connect(made, STDERR_FILENO, options.stderr_);
    int const reads_from =
        made.plan.streams[STDIN_FILENO] >= 0 ? made.plan.streams[STDIN_FILENO] : STDIN_FILENO;
    made.plan.new_group = options.new_process_group && ::isatty(reads_from) == 0;
    return made;
}

void resolve_accounts(child_plan& plan, process_options const& options) {
    if (options.user) plan.user = resolve_user(*options.user);
    if (options.group) plan.group = resolve_group(*options.group);
    if (!options.extra_groups) return;
    plan.groups.emplace();
    for (account const& each : *options.extra_groups)
        plan.groups->push_back(resolve_group(each));
}

} // namespace weft::detail
