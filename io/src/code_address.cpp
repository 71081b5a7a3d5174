#include "code_address.hpp"

#include <cstdint>
#include <stdexcept>
#include <string>

#include <link.h>

namespace weft::detail {

namespace {

struct loaded_file {
    std::string name; // empty: the program itself
    std::uintptr_t base = 0;
    std::uint64_t fingerprint = 0;
};

// FNV-1a
void mix(std::uint64_t& hash, void const* data, std::size_t size) {
    auto const* const octets = static_cast<unsigned char const*>(data);
    for (std::size_t i = 0; i < size; ++i)
        hash = (hash ^ octets[i]) * 0x100000001b3u;
}

// The layout of the file and its notes, among them the linker's build id.
std::uint64_t fingerprint_of(::dl_phdr_info const& file) {
    std::uint64_t hash = 0xcbf29ce484222325u;
    for (unsigned i = 0; i < file.dlpi_phnum; ++i) {
        ElfW(Phdr) const& part = file.dlpi_phdr[i];
        mix(hash, &part, sizeof part);
        if (part.p_type == PT_NOTE)
            mix(hash, reinterpret_cast<void const*>(file.dlpi_addr + part.p_vaddr), part.p_memsz);
    }
    return hash;
}

bool contains(::dl_phdr_info const& file, std::uintptr_t address) {
    for (unsigned i = 0; i < file.dlpi_phnum; ++i) {
        ElfW(Phdr) const& part = file.dlpi_phdr[i];
        if (part.p_type == PT_LOAD && address - file.dlpi_addr - part.p_vaddr < part.p_memsz)
            return true;
    }
    return false;
}

// Visits the loaded files until one is what is looked for.
template <class Fits> bool find_file(loaded_file& found, Fits fits) {
    struct search {
        loaded_file& found;
        Fits& fits;
    } looking{found, fits};
    auto const visit = [](::dl_phdr_info* file, std::size_t, void* argument) {
        search& now = *static_cast<search*>(argument);
        if (!now.fits(*file)) return 0;
        now.found = {file->dlpi_name, file->dlpi_addr, fingerprint_of(*file)};
        return 1;
    };
    return ::dl_iterate_phdr(visit, &looking) != 0;
}

} // namespace

void write_code_address(frame_writer& to, void const* code) {
    auto const address = reinterpret_cast<std::uintptr_t>(code);
    loaded_file file;
    if (!find_file(file, [address](auto const& each) { return contains(each, address); }))
        throw std::invalid_argument("the function is in no file that a worker process could load");
    to.write_text(file.name);
    to.write_number(file.fingerprint);
    to.write_number(address - file.base);
}

void const* read_code_address(frame_reader& from) {
    std::string const name = from.read_text();
    std::uint64_t const fingerprint = from.read_number();
    std::uint64_t const offset = from.read_number();
    loaded_file file;
    if (!find_file(file, [&name](auto const& each) { return each.dlpi_name == name; }))
        throw std::runtime_error("the worker process has not loaded '" + name + "'");
    if (file.fingerprint != fingerprint)
        throw std::runtime_error("the worker process has loaded another version of '" + name + "'");
    return reinterpret_cast<void const*>(file.base + offset);
}

} // namespace weft::detail
