// An end of Lightning Node Connect made of the stock library: go-back-N, MsgData, handshake and messages, over TCP with packets of
// four bytes of length before them, in place of a mailbox. It loses some.
//
//	stock client|server ADDRESS "WORDS" LOSES
//
// A server sends back every message that it receives; a client sends messages of many sizes and compares. The second connection of a
// pair has the keys that the first has learned (KK).
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/lightninglabs/lightning-node-connect/gbn"
	"github.com/lightninglabs/lightning-node-connect/mailbox"
	"github.com/lightningnetwork/lnd/keychain"
)

const text = "Macaroon: 0201036c6e64"

var sizes = []int{0, 1, 100, 32 * 1024, 65535, 7, 65535, 65535, 2}

func check(err error, what string) {
	if err != nil {
		fmt.Fprintln(os.Stderr, what+":", err)
		os.Exit(1)
	}
}

// stream carries packets over TCP, and loses every `loses`th that it sends.
type stream struct {
	net.Conn
	loses, sent int
}

func (s *stream) send(_ context.Context, b []byte) error {
	s.sent++
	if s.loses > 0 && s.sent%s.loses == 0 {
		return nil
	}
	var length [4]byte
	binary.BigEndian.PutUint32(length[:], uint32(len(b)))
	_, err := s.Write(append(length[:], b...))
	return err
}

func (s *stream) receive(context.Context) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(s, length[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(length[:]))
	_, err := io.ReadFull(s, b)
	return b, err
}

// framed is what the stock library reads and writes above go-back-N.
type framed struct {
	gbn  *gbn.GoBackNConn
	left []byte
}

func (f *framed) Read(b []byte) (int, error) {
	for len(f.left) == 0 {
		raw, err := f.gbn.Recv()
		if err != nil {
			return 0, err
		}
		data := mailbox.NewMsgData(0, nil)
		if err := data.Deserialize(raw); err != nil {
			return 0, err
		}
		f.left = data.Payload
	}
	n := copy(b, f.left)
	f.left = f.left[n:]
	return n, nil
}

func (f *framed) Write(b []byte) (int, error) {
	raw, err := mailbox.NewMsgData(0, b).Serialize()
	if err != nil {
		return 0, err
	}
	return len(b), f.gbn.Send(raw)
}

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: stock client|server ADDRESS WORDS LOSES")
		os.Exit(2)
	}
	isClient, address, words := os.Args[1] == "client", os.Args[2], strings.Fields(os.Args[3])
	loses, err := strconv.Atoi(os.Args[4])
	check(err, "LOSES")
	var phrase [mailbox.NumPassphraseWords]string
	copy(phrase[:], words)
	entropy := mailbox.PassphraseMnemonicToEntropy(phrase)
	seed := sha256.Sum256([]byte(os.Args[1]))
	key, _ := btcec.PrivKeyFromBytes(seed[:])

	var listener net.Listener
	if !isClient {
		listener, err = net.Listen("tcp", address)
		check(err, "listen")
		fmt.Println(listener.Addr())
	}
	var remote *btcec.PublicKey
	for round := 0; round < 2; round++ {
		var conn net.Conn
		if isClient {
			conn, err = net.Dial("tcp", address)
		} else {
			conn, err = listener.Accept()
		}
		check(err, "connect")
		remote = talk(isClient, &stream{Conn: conn, loses: loses}, key, remote, entropy[:])
	}
}

func talk(isClient bool, s *stream, key *btcec.PrivateKey, remote *btcec.PublicKey, entropy []byte) *btcec.PublicKey {
	ctx := context.Background()
	options := gbn.WithTimeoutOptions(gbn.WithHandshakeTimeout(2*time.Second), gbn.WithResendMultiplier(5))
	var (
		g   *gbn.GoBackNConn
		err error
	)
	if isClient {
		g, err = gbn.NewClientConn(ctx, gbn.DefaultN, s.send, s.receive, gbn.WithMaxSendSize(32*1024), options)
	} else {
		g, err = gbn.NewServerConn(ctx, s.send, s.receive, gbn.WithMaxSendSize(32*1024), options)
	}
	check(err, "go-back-N")
	f := &framed{gbn: g}
	pattern := mailbox.XXPattern
	if remote != nil {
		pattern = mailbox.KKPattern
	}
	var auth []byte
	if !isClient {
		auth = []byte(text)
	}
	data := mailbox.NewConnData(&keychain.PrivKeyECDH{PrivKey: key}, remote, entropy, auth, nil, nil)
	m, err := mailbox.NewBrontideMachine(&mailbox.BrontideMachineConfig{
		ConnData: data, Initiator: isClient, HandshakePattern: pattern,
		MinHandshakeVersion: mailbox.MinHandshakeVersion, MaxHandshakeVersion: mailbox.MaxHandshakeVersion,
	})
	check(err, "machine")
	check(m.DoHandshake(f), "handshake")
	if isClient && string(data.AuthData()) != text {
		check(fmt.Errorf("%q", data.AuthData()), "text")
	}
	if isClient {
		for at, size := range sizes {
			message := bytes.Repeat([]byte{byte(at)}, size)
			check(m.WriteMessage(message), "write")
			_, err := m.Flush(f)
			check(err, "flush")
			echo, err := m.ReadMessage(f)
			check(err, "read")
			if !bytes.Equal(echo, message) {
				check(fmt.Errorf("message %d", at), "another echo")
			}
		}
	} else {
		for range sizes {
			message, err := m.ReadMessage(f)
			check(err, "read")
			check(m.WriteMessage(message), "write")
			_, err = m.Flush(f)
			check(err, "flush")
		}
		// The client's last acknowledgement.
		_, _ = g.Recv()
	}
	_ = g.Close()
	_ = s.Close()
	return data.RemoteKey()
}
