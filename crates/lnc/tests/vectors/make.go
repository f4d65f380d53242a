// Makes handshake.json with the stock library of Lightning Node Connect:
// handshakes of its client and its server with fixed keys, act by act, and the messages that follow.
//
//	cp make.go main.go, beside the go.mod and go.sum of aperture v0.5.0 with another name in its first line
//	go run main.go > handshake.json
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/lightninglabs/lightning-node-connect/mailbox"
	"github.com/lightningnetwork/lnd/keychain"
)

// How many messages each side sends: the keys change after 500.
const messages = 1200

type vector struct {
	Name      string   `json:"name"`
	Words     string   `json:"words"`
	ClientKey string   `json:"client_key"`
	ServerKey string   `json:"server_key"`
	ClientEph string   `json:"client_ephemeral"`
	ServerEph string   `json:"server_ephemeral"`
	Knows     bool     `json:"known"`
	Highest   byte     `json:"server_highest_version"`
	Text      string   `json:"text"`
	Acts      []string `json:"acts"`
	ToServer  []string `json:"to_server"`
	ToClient  []string `json:"to_client"`
	AllServer string   `json:"all_to_server_sha256"`
	AllClient string   `json:"all_to_client_sha256"`
	Stream    string   `json:"stream_to_client"`
}

// wire passes acts between two ends, and records them.
type wire struct {
	in   chan []byte
	out  chan []byte
	left []byte
	acts *[]string
}

func (w *wire) Write(b []byte) (int, error) {
	sent := append([]byte{}, b...)
	*w.acts = append(*w.acts, hex.EncodeToString(sent))
	w.out <- sent
	return len(b), nil
}

func (w *wire) Read(b []byte) (int, error) {
	if len(w.left) == 0 {
		w.left = <-w.in
	}
	n := copy(b, w.left)
	w.left = w.left[n:]
	return n, nil
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func key(b byte) *btcec.PrivateKey {
	k, _ := btcec.PrivKeyFromBytes(bytes.Repeat([]byte{b}, 32))
	return k
}

func end(initiator bool, own, eph, other byte, knows bool, entropy []byte, text []byte, highest byte) (*mailbox.Machine, *mailbox.ConnData) {
	var remote *btcec.PublicKey
	pattern := mailbox.XXPattern
	if knows {
		remote = key(other).PubKey()
		pattern = mailbox.KKPattern
	}
	data := mailbox.NewConnData(&keychain.PrivKeyECDH{PrivKey: key(own)}, remote, entropy, text, nil, nil)
	m, err := mailbox.NewBrontideMachine(&mailbox.BrontideMachineConfig{
		ConnData: data, Initiator: initiator, HandshakePattern: pattern,
		MinHandshakeVersion: mailbox.MinHandshakeVersion, MaxHandshakeVersion: highest,
		EphemeralGen: func() (*btcec.PrivateKey, error) { return key(eph), nil },
	})
	check(err)
	return m, data
}

func sent(m *mailbox.Machine, first byte) ([]string, string) {
	var some []string
	all := sha256.New()
	for i := 0; i < messages; i++ {
		check(m.WriteMessage(bytes.Repeat([]byte{first + byte(i)}, i%40)))
		var buf bytes.Buffer
		_, err := m.Flush(&buf)
		check(err)
		if i < 2 || i == 499 || i == 500 || i == 1001 {
			some = append(some, hex.EncodeToString(buf.Bytes()))
		}
		_, _ = io.Copy(all, &buf)
	}
	return some, hex.EncodeToString(all.Sum(nil))
}

func play(name string, knows bool, highest byte, text string, seed byte) vector {
	var entropy [14]byte
	copy(entropy[:], bytes.Repeat([]byte{seed}, 14))
	entropy[13] &= 0xfc
	words, err := mailbox.PassphraseEntropyToMnemonic(entropy)
	check(err)
	joined := ""
	for i, w := range words {
		if i > 0 {
			joined += " "
		}
		joined += w
	}
	v := vector{Name: name, Words: joined, Knows: knows, Highest: highest, Text: text}
	v.ClientKey, v.ServerKey = hex.EncodeToString(key(seed).Serialize()), hex.EncodeToString(key(seed+1).Serialize())
	v.ClientEph, v.ServerEph = hex.EncodeToString(key(seed+2).Serialize()), hex.EncodeToString(key(seed+3).Serialize())
	client, data := end(true, seed, seed+2, seed+1, knows, entropy[:], nil, mailbox.MaxHandshakeVersion)
	server, _ := end(false, seed+1, seed+3, seed, knows, entropy[:], []byte(text), highest)
	sid, err := data.SID()
	check(err)
	v.Stream = hex.EncodeToString(sid[:])
	a, b := make(chan []byte, 4), make(chan []byte, 4)
	done := make(chan error)
	go func() { done <- server.DoHandshake(&wire{in: a, out: b, acts: &v.Acts}) }()
	check(client.DoHandshake(&wire{in: b, out: a, acts: &v.Acts}))
	check(<-done)
	v.ToServer, v.AllServer = sent(client, 1)
	v.ToClient, v.AllClient = sent(server, 101)
	return v
}

func main() {
	all := []vector{
		play("a phrase, the newest version", false, 2, "Macaroon: 0201036c6e64", 11),
		play("a phrase, a server of version 1", false, 1, "Macaroon: 0201036c6e64", 21),
		play("a phrase, a server of version 0", false, 0, "Macaroon: 0201036c6e64", 31),
		play("known keys", true, 2, "Macaroon: 0201036c6e64", 41),
		play("known keys, without a text", true, 2, "", 51),
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", " ")
	check(out.Encode(all))
}
