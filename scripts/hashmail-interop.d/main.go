// Stock clients and servers of Lightning Node Connect, and raw clients of hashmail, against a mailbox.
//
//	stock sessions NAME ADDRESS [WSS-ADDRESS CA-FILE]    a server and a client of the stock library; WebSockets with the last two
//	stock checks APERTURE OURS                           texts and codes of both, and where ours differ from what is expected
//	stock throughput APERTURE OURS ROUNDS                of both, in turns
//	stock round-trip WHERE APERTURE OURS COPIER ROUNDS   of both and of a copier, in turns; WHERE is for the table
//	stock copier ADDRESS                                 copies between two connections
//
// Addresses are HOST:PORT, without TLS. `sessions` asks on standard output for a restart of the mailbox, and waits for a line.
package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/lightninglabs/lightning-node-connect/hashmailrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func check(err error, what string) {
	if err != nil {
		fmt.Fprintln(os.Stderr, what+":", err)
		os.Exit(1)
	}
}

func main() {
	arguments := os.Args[1:]
	switch {
	case len(arguments) == 3 && arguments[0] == "sessions":
		sessions(arguments[1], arguments[2], "", "")
	case len(arguments) == 5 && arguments[0] == "sessions":
		sessions(arguments[1], arguments[2], arguments[3], arguments[4])
	case len(arguments) == 3 && arguments[0] == "checks":
		checks(arguments[1], arguments[2])
	case len(arguments) == 4 && arguments[0] == "throughput":
		throughputs(arguments[1], arguments[2], number(arguments[3]))
	case len(arguments) == 6 && arguments[0] == "round-trip":
		roundTrips(arguments[1], arguments[2], arguments[3], arguments[4], number(arguments[5]))
	case len(arguments) == 2 && arguments[0] == "copier":
		copier(arguments[1])
	default:
		fmt.Fprintln(os.Stderr, "usage: stock sessions|checks|throughput|round-trip|copier ..., see main.go")
		os.Exit(2)
	}
}

func number(text string) int {
	number, err := strconv.Atoi(text)
	check(err, "ROUNDS")
	return number
}

func dial(address string) (hashmailrpc.HashMailClient, func()) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err, address)
	return hashmailrpc.NewHashMailClient(conn), func() { _ = conn.Close() }
}

func desc(id []byte) *hashmailrpc.CipherBoxDesc {
	return &hashmailrpc.CipherBoxDesc{StreamId: id}
}

func auth(id []byte) *hashmailrpc.CipherBoxAuth {
	return &hashmailrpc.CipherBoxAuth{
		Desc: desc(id),
		Auth: &hashmailrpc.CipherBoxAuth_LndAuth{LndAuth: &hashmailrpc.LndAuth{}},
	}
}
