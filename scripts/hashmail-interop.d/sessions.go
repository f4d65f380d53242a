package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/lightninglabs/lightning-node-connect/mailbox"
	"github.com/lightningnetwork/lnd/keychain"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	method = "/test.Echo/Repeat"
	small  = 10
	large  = 2_600_000
)

// sessions pairs a stock client with a stock server by a phrase, calls it, connects with known keys, and again after a restart of the
// mailbox; over each transport of the client.
func sessions(name, address, wss, ca string) {
	transports := []string{"gRPC"}
	if wss != "" {
		pem, err := os.ReadFile(ca)
		check(err, ca)
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		// The stock WebSocket client has no option for it.
		http.DefaultTransport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool}
		transports = append(transports, "WebSocket")
	}
	lines := bufio.NewScanner(os.Stdin)
	for _, transport := range transports {
		s := newSession(name+", "+transport, address)
		dial := func(data *mailbox.ConnData) (*mailbox.Client, error) {
			return mailbox.NewGrpcClient(s.ctx, address, data, plain)
		}
		if transport == "WebSocket" {
			dial = func(data *mailbox.ConnData) (*mailbox.Client, error) {
				return mailbox.NewWebsocketsClient(s.ctx, wss, data)
			}
		}
		client := s.connect(dial)
		s.step("paired by a phrase", 90*time.Second, func(ctx context.Context) error { return s.call(ctx, client, small) })
		s.step("an answer of 2.6 MB", 30*time.Second, func(ctx context.Context) error { return s.call(ctx, client, large) })
		check(client.Close(), "close")
		client = s.connect(dial)
		s.step("connected with known keys", 90*time.Second, func(ctx context.Context) error { return s.call(ctx, client, small) })
		fmt.Println("restart")
		if !lines.Scan() {
			check(fmt.Errorf("no line came"), "restart")
		}
		s.step("called after a restart", 90*time.Second, func(ctx context.Context) error { return s.call(ctx, client, large) })
		check(client.Close(), "close")
		s.end()
	}
}

var plain = grpc.WithTransportCredentials(insecure.NewCredentials())

type session struct {
	name           string
	ctx            context.Context
	server, client *mailbox.ConnData
	end            func()
}

func newSession(name, address string) *session {
	_, entropy, err := mailbox.NewPassphraseEntropy()
	if err != nil {
		check(err, "phrase")
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &session{name: name, ctx: ctx}
	s.server = mailbox.NewConnData(key(), nil, entropy[:], []byte("Macaroon: 0201036c6e64"), nil, nil)
	s.client = mailbox.NewConnData(key(), nil, entropy[:], nil, nil, nil)
	listener, err := mailbox.NewServer(address, s.server, func(mailbox.ServerStatus) {}, plain)
	check(err, "server")
	server := grpc.NewServer(grpc.Creds(mailbox.NewNoiseGrpcConn(s.server)))
	server.RegisterService(&service, nil)
	go func() { _ = server.Serve(listener) }()
	s.end = func() {
		server.Stop()
		cancel()
	}
	return s
}

func key() *keychain.PrivKeyECDH {
	private, err := btcec.NewPrivateKey()
	check(err, "key")
	return &keychain.PrivKeyECDH{PrivKey: private}
}

// connect is lazy: the first call connects.
func (s *session) connect(dial func(*mailbox.ConnData) (*mailbox.Client, error)) *grpc.ClientConn {
	transport, err := dial(s.client)
	check(err, "client")
	noise := mailbox.NewNoiseGrpcConn(s.client)
	conn, err := grpc.NewClient("passthrough:///mailbox",
		grpc.WithContextDialer(transport.Dial),
		grpc.WithTransportCredentials(noise),
		grpc.WithPerRPCCredentials(noise),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)),
	)
	check(err, "client")
	return conn
}

func (s *session) call(ctx context.Context, conn *grpc.ClientConn, size int) error {
	answer := new(wrapperspb.BytesValue)
	err := conn.Invoke(ctx, method, wrapperspb.Int64(int64(size)), answer, grpc.WaitForReady(true))
	if err == nil && !bytes.Equal(answer.Value, bytes.Repeat([]byte{7}, size)) {
		err = fmt.Errorf("another answer")
	}
	return err
}

// step tries until it works.
func (s *session) step(what string, within time.Duration, do func(context.Context) error) {
	begun := time.Now()
	var failed int
	for {
		ctx, cancel := context.WithTimeout(s.ctx, 15*time.Second)
		err := do(ctx)
		cancel()
		if err == nil {
			break
		}
		failed++
		if time.Since(begun) > within {
			check(err, s.name+": "+what)
		}
		time.Sleep(100 * time.Millisecond)
	}
	fmt.Printf("%s: %s after %.1f s, %d calls failed before\n", s.name, what, time.Since(begun).Seconds(), failed)
}

// service repeats a byte as often as it is asked to.
var service = grpc.ServiceDesc{
	ServiceName: "test.Echo",
	HandlerType: nil,
	Methods: []grpc.MethodDesc{{
		MethodName: "Repeat",
		Handler: func(_ interface{}, _ context.Context, decode func(interface{}) error, _ grpc.UnaryServerInterceptor) (interface{}, error) {
			asked := new(wrapperspb.Int64Value)
			if err := decode(asked); err != nil {
				return nil, err
			}
			return wrapperspb.Bytes(bytes.Repeat([]byte{7}, int(asked.Value))), nil
		},
	}},
}
