// The other side of interoperability tests: TLS by Go's crypto/tls.
//
//	client PORT AUTHORITY VERSION [ALPN]    standard input to the server, what it answers to standard output
//	server CHAIN KEY VERSION                says its port, then sends back what it receives
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
)

var versions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func runClient(port, authority, version string, protocols []string) {
	pem, err := os.ReadFile(authority)
	check(err)
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(pem)
	connection, err := tls.Dial("tcp", "127.0.0.1:"+port, &tls.Config{
		RootCAs: trusted, ServerName: "localhost", NextProtos: protocols,
		MinVersion: versions[version], MaxVersion: versions[version],
	})
	check(err)
	go func() {
		_, err := io.Copy(connection, os.Stdin)
		check(err)
		check(connection.CloseWrite())
	}()
	_, err = io.Copy(os.Stdout, connection) // without a good-bye: io.ErrUnexpectedEOF
	check(err)
	check(connection.Close())
}

func serve(connection net.Conn) {
	_, err := io.Copy(connection, connection)
	check(err)
	check(connection.Close())
}

func runServer(chain, key, version string) {
	certificate, err := tls.LoadX509KeyPair(chain, key)
	check(err)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certificate},
		MinVersion:   versions[version], MaxVersion: versions[version],
	})
	check(err)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	for {
		connection, err := listener.Accept()
		check(err)
		go serve(connection)
	}
}

func main() {
	switch arguments := os.Args[1:]; {
	case len(arguments) >= 4 && arguments[0] == "client":
		runClient(arguments[1], arguments[2], arguments[3], arguments[4:])
	case len(arguments) == 4 && arguments[0] == "server":
		runServer(arguments[1], arguments[2], arguments[3])
	default:
		fmt.Fprintln(os.Stderr, "usage: client PORT AUTHORITY VERSION [ALPN...] | server CHAIN KEY VERSION")
		os.Exit(2)
	}
}
