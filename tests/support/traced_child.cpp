#include "support/traced_child.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include <stdlib.h>
#include <sys/wait.h>

namespace weft::test {

namespace {

class scratch_directory {
public:
    scratch_directory() {
        std::string name = std::filesystem::temp_directory_path() / "weft-strace-XXXXXX";
        if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no place for a log");
        where = name;
    }
    ~scratch_directory() {
        std::error_code ignored;
        std::filesystem::remove_all(where, ignored);
    }
    scratch_directory(scratch_directory const&) = delete;
    scratch_directory& operator=(scratch_directory const&) = delete;

    std::filesystem::path where;
};

} // namespace

traced_child trace_child(std::string const& name, std::string const& options) {
    traced_child result;
    if (std::system("strace -f -o /dev/null true >/dev/null 2>&1") != 0) return result;
    scratch_directory const place;
    std::string const log = place.where / "log";
    std::string const said = place.where / "said";
    // LeakSanitizer cannot look at who is traced.
    std::string const command = "ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 strace -f -o " + log +
                                " " + options + " " +
                                std::filesystem::read_symlink("/proc/self/exe").string() +
                                " --child '" + name + "' >" + said + " 2>&1";
    int const status = std::system(command.c_str());
    result.was_traced = true;
    if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
    std::ifstream output(said);
    result.output.assign(std::istreambuf_iterator<char>(output), {});
    std::ifstream lines(log);
    for (std::string line; std::getline(lines, line);)
        result.lines.push_back(line);
    return result;
}

} // namespace weft::test
