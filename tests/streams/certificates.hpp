#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

/// Certificates for tests of TLS, made anew for each process, and removed with it.
namespace weft::test {

struct certificate_files {
    std::string chain;     ///< PEM
    std::string key;       ///< PEM
    std::string between{}; ///< PEM: the chain without its first; empty: there is no more
};

enum class key_kind : unsigned char { ecdsa, rsa, ed25519 };

struct certificate_wish {
    std::string name{};              ///< of the files, and the common name
    std::string alternative_names{}; ///< "DNS:localhost,IP:127.0.0.1"
    long valid_from = -3600;         ///< seconds from now
    long valid_to = 86400;
    bool is_authority = false;
    key_kind key = key_kind::ecdsa;
};

/// Certificates of one authority, and of one that nobody trusts.
class certificates {
public:
    static certificates const& get() {
        static certificates const made;
        return made;
    }
    certificates(certificates const&) = delete;
    certificates& operator=(certificates const&) = delete;
    ~certificates() {
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
    }

    std::string folder() const { return folder_; }

    certificate_files authority;
    certificate_files server;      ///< localhost, 127.0.0.1, *.example.org, xn--strae-oqa.example
    certificate_files other_host;  ///< elsewhere.example
    certificate_files expired;     ///< localhost
    certificate_files self_signed; ///< localhost
    certificate_files client;
    certificate_files untrusted_client; ///< of an authority that nobody trusts

    /// Another one for localhost; to be made once a name.
    certificate_files issue_server(std::string const& name, key_kind kind) const {
        return issue({.name = name, .alternative_names = "DNS:localhost", .key = kind}, &root_);
    }
    /// The same by an authority in between, which is in the chain.
    certificate_files issue_server_with_chain(std::string const& name) const {
        identity const between = make({.name = name + " authority", .is_authority = true}, &root_);
        identity const leaf = make({.name = name, .alternative_names = "DNS:localhost"}, &between);
        return write(leaf, name, &between);
    }
    /// The server's, with its key encrypted.
    certificate_files encrypt_key() const {
        certificate_files files = server;
        files.key = folder_ + "/encrypted.key";
        std::unique_ptr<std::FILE, int (*)(std::FILE*)> const from(std::fopen(server.key.c_str(), "r"), std::fclose);
        key const plain(::PEM_read_PrivateKey(from.get(), nullptr, nullptr, nullptr));
        write_file(files.key, [&](std::FILE* to) {
            return ::PEM_write_PKCS8PrivateKey(to, plain.get(), ::EVP_aes_256_cbc(), "secret", 6, nullptr, nullptr);
        });
        return files;
    }

private:
    struct free_openssl {
        void operator()(X509* each) const { ::X509_free(each); }
        void operator()(EVP_PKEY* each) const { ::EVP_PKEY_free(each); }
        void operator()(X509_EXTENSION* each) const { ::X509_EXTENSION_free(each); }
    };
    using x509 = std::unique_ptr<X509, free_openssl>;
    using key = std::unique_ptr<EVP_PKEY, free_openssl>;
    struct identity {
        x509 certificate;
        key private_key;
    };

    certificates() {
        std::string pattern = std::filesystem::temp_directory_path() / "weft-tls-XXXXXX";
        if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
        folder_ = pattern;
        std::string const here = "DNS:localhost";
        root_ = make({.name = "authority", .is_authority = true}, nullptr);
        identity const& root = root_;
        identity const stranger = make({.name = "stranger", .is_authority = true}, nullptr);
        authority = write(root, "authority");
        server =
            issue({.name = "server",
                   .alternative_names =
                       here + ",IP:127.0.0.1,IP:::1,DNS:*.example.org,DNS:xn--strae-oqa.example"},
                  &root);
        other_host =
            issue({.name = "other_host", .alternative_names = "DNS:elsewhere.example"}, &root);
        expired = issue(
            {.name = "expired", .alternative_names = here, .valid_from = -7200, .valid_to = -3600},
            &root);
        self_signed = issue({.name = "self_signed", .alternative_names = here}, nullptr);
        client = issue({.name = "client"}, &root);
        untrusted_client = issue({.name = "untrusted_client"}, &stranger);
    }

    static void extend(X509* of, int what, std::string const& value) {
        std::unique_ptr<X509_EXTENSION, free_openssl> const made(
            ::X509V3_EXT_conf_nid(nullptr, nullptr, what, value.c_str()));
        if (!made) throw std::runtime_error("no extension " + value);
        ::X509_add_ext(of, made.get(), -1);
    }

    static EVP_PKEY* make_key(key_kind kind) {
        switch (kind) {
        case key_kind::rsa: return ::EVP_RSA_gen(2048);
        case key_kind::ed25519: return ::EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
        default: return ::EVP_EC_gen("P-256");
        }
    }

    static identity make(certificate_wish const& wish, identity const* issuer) {
        static long serial = 0;
        identity made{x509(::X509_new()), key(make_key(wish.key))};
        X509* const of = made.certificate.get();
        ::X509_set_version(of, 2);
        ::ASN1_INTEGER_set(::X509_get_serialNumber(of), ++serial);
        ::X509_gmtime_adj(::X509_getm_notBefore(of), wish.valid_from);
        ::X509_gmtime_adj(::X509_getm_notAfter(of), wish.valid_to);
        ::X509_set_pubkey(of, made.private_key.get());
        auto const* const text = reinterpret_cast<unsigned char const*>(wish.name.c_str());
        ::X509_NAME_add_entry_by_txt(::X509_get_subject_name(of), "CN", MBSTRING_UTF8, text, -1, -1,
                                     0);
        identity const& by = issuer != nullptr ? *issuer : made;
        ::X509_set_issuer_name(of, ::X509_get_subject_name(by.certificate.get()));
        extend(of, NID_basic_constraints, wish.is_authority ? "critical,CA:TRUE" : "CA:FALSE");
        if (!wish.alternative_names.empty())
            extend(of, NID_subject_alt_name, wish.alternative_names);
        if (::X509_sign(of, by.private_key.get(), ::EVP_sha256()) == 0)
            throw std::runtime_error("no signature");
        return made;
    }

    certificate_files issue(certificate_wish const& wish, identity const* issuer) const {
        return write(make(wish, issuer), wish.name);
    }

    certificate_files write(identity const& of, std::string const& name,
                            identity const* issuer = nullptr) const {
        certificate_files files{folder_ + "/" + name + ".pem", folder_ + "/" + name + ".key"};
        if (issuer != nullptr) files.between = write(*issuer, name + "-between").chain;
        write_file(files.chain, [&](std::FILE* to) {
            int const written = ::PEM_write_X509(to, of.certificate.get());
            return issuer == nullptr ? written : ::PEM_write_X509(to, issuer->certificate.get());
        });
        write_file(files.key, [&](std::FILE* to) {
            return ::PEM_write_PrivateKey(to, of.private_key.get(), nullptr, nullptr, 0, nullptr,
                                          nullptr);
        });
        return files;
    }

    template <class Write> static void write_file(std::string const& name, Write write) {
        std::FILE* const file = std::fopen(name.c_str(), "w");
        if (file == nullptr) throw std::runtime_error("cannot write " + name);
        int const written = write(file);
        std::fclose(file);
        if (written != 1) throw std::runtime_error("cannot write " + name);
    }

    std::string folder_;
    identity root_;
};

} // namespace weft::test
