// TLS 1.3 handshakes by OpenSSL over one epoll, for tools/compare, which builds it: what OpenSSL costs a server
// of many connections, with nothing around it. Usage: PROGRAM hs PORT CERTIFICATE KEY
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { batch = 256 };

struct connection {
    SSL* tls;
    int fd;
};

static SSL_CTX* make_context(char const* certificate, char const* key) {
    SSL_CTX* context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
    if (SSL_CTX_use_certificate_chain_file(context, certificate) == 1 &&
        SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) == 1)
        return context;
    ERR_print_errors_fp(stderr);
    exit(1);
}

static int listen_on(int port) {
    int const on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int const fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); // what is accepted has it from here
    if (bind(fd, (struct sockaddr*)&address, sizeof address) == 0 && listen(fd, 1024) == 0) return fd;
    perror("bind");
    exit(1);
}

static void await(int epoll, int fd, void* data) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = data};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static void accept_all(SSL_CTX* context, int epoll, int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        struct connection* made = malloc(sizeof *made);
        made->fd = fd;
        made->tls = SSL_new(context);
        SSL_set_fd(made->tls, fd);
        SSL_set_accept_state(made->tls);
        await(epoll, fd, made);
    }
}

// Shakes hands, if that is not done, and waits for the first octet, as the other servers do.
static void go_on(struct connection* with) {
    char first;
    int const read = SSL_read(with->tls, &first, 1);
    if (read <= 0 && SSL_get_error(with->tls, read) == SSL_ERROR_WANT_READ) return;
    ERR_clear_error();
    SSL_free(with->tls);
    close(with->fd);
    free(with);
}

int main(int count, char** words) {
    if (count < 5) return 2;
    signal(SIGPIPE, SIG_IGN);
    SSL_CTX* context = make_context(words[3], words[4]);
    int const listener = listen_on(atoi(words[2]));
    int const epoll = epoll_create1(EPOLL_CLOEXEC);
    await(epoll, listener, NULL);
    fprintf(stderr, "ready %d\n", getpid());
    struct epoll_event events[batch];
    for (;;) {
        int const ready = epoll_wait(epoll, events, batch, -1);
        for (int number = 0; number < ready; ++number) {
            if (events[number].data.ptr == NULL)
                accept_all(context, epoll, listener);
            else
                go_on(events[number].data.ptr);
        }
    }
}
