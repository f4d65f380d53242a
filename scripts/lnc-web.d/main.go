// The WebAssembly client that lnc-web loads, made of stock parts: lightning-node-connect's library `mailbox` (phrase, WebSockets, go-back-N,
// Noise, gRPC) and the functions of lnd's package lnrpc that take and give JSON. lnc-web gives it the name of a global object, and expects
// there the functions that are registered below. Only this file is ours.
package main

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"strings"
	"sync"
	"syscall/js"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/lightninglabs/lightning-node-connect/mailbox"
	"github.com/lightningnetwork/lnd/keychain"
	"github.com/lightningnetwork/lnd/lnrpc"
	"github.com/lightningnetwork/lnd/lnrpc/invoicesrpc"
	"github.com/lightningnetwork/lnd/lnrpc/routerrpc"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"gopkg.in/macaroon.v2"
)

// What lnc-web gives as arguments: the object's name, and the functions in it that are to be called with what has to be kept.
var (
	namespace = flag.String("namespace", "default", "")
	onPrivate = flag.String("onlocalprivcreate", "", "")
	onRemote  = flag.String("onremotekeyreceive", "", "")
	onAuth    = flag.String("onauthdata", "", "")
	_         = flag.String("debuglevel", "", "")
)

// rpc is one of lnd's functions: a request in JSON, and answers by callback, more than one for a stream.
type rpc = func(ctx context.Context, conn *grpc.ClientConn, request string, answer func(string, error))

type client struct {
	rpcs map[string]rpc

	mu sync.Mutex
	// Set once there is an answer from the other end.
	conn     *grpc.ClientConn
	status   func() mailbox.ClientStatus
	macaroon *macaroon.Macaroon
	// How often the page has connected: one that it gave up must not come up afterwards.
	attempt int
}

func main() {
	flag.Parse()
	c := &client{rpcs: map[string]rpc{}}
	lnrpc.RegisterLightningJSONCallbacks(c.rpcs)
	lnrpc.RegisterStateJSONCallbacks(c.rpcs)
	routerrpc.RegisterRouterJSONCallbacks(c.rpcs)
	invoicesrpc.RegisterInvoicesJSONCallbacks(c.rpcs)
	object := js.Global().Get(*namespace)
	for name, function := range map[string]func([]js.Value) any{
		"wasmClientIsReady":       func([]js.Value) any { return true },
		"wasmClientIsConnected":   func([]js.Value) any { return c.connected() != nil },
		"wasmClientStatus":        func([]js.Value) any { return c.lastStatus() },
		"wasmClientConnectServer": c.connect,
		"wasmClientDisconnect":    c.disconnect,
		"wasmClientInvokeRPC":     c.invoke,
		"wasmClientGetExpiry":     func([]js.Value) any { return c.expiry() },
		"wasmClientIsReadOnly":    func([]js.Value) any { return c.readOnly() },
		"wasmClientHasPerms":      func(arguments []js.Value) any { return c.allows(arguments[0].String()) },
	} {
		object.Set(name, js.FuncOf(func(_ js.Value, arguments []js.Value) any { return function(arguments) }))
	}
	select {}
}

// connect is called with the mailbox, whether it is one for development, the words, and the keys that were kept, which are empty at first.
func (c *client) connect(arguments []js.Value) any {
	address, words := arguments[0].String(), arguments[2].String()
	private, remote, err := keys(arguments[3].String(), arguments[4].String())
	if err != nil {
		return failed(err)
	}
	status, dial, err := mailbox.NewClientWebsocketConn(address, words, &keychain.PrivKeyECDH{PrivKey: private}, remote,
		func(key *btcec.PublicKey) error {
			tell(*onRemote, hex.EncodeToString(key.SerializeCompressed()))
			return nil
		}, c.authorized)
	if err != nil {
		return failed(err)
	}
	c.mu.Lock()
	c.attempt++
	attempt := c.attempt
	c.conn, c.status = nil, status
	c.mu.Unlock()
	// Nothing that is called from JavaScript may wait: the answers come by its event loop.
	go func() {
		conn, err := dial()
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil {
			failed(err)
		} else if attempt != c.attempt {
			conn.Close()
		} else {
			c.conn = conn
		}
	}()
	return nil
}

// keys gives the two keys of a connection. A new one of our own is told to the page.
func keys(own, other string) (*btcec.PrivateKey, *btcec.PublicKey, error) {
	if own == "" {
		private, err := btcec.NewPrivateKey()
		if err == nil {
			tell(*onPrivate, hex.EncodeToString(private.Serialize()))
		}
		return private, nil, err
	}
	bytes, err := hex.DecodeString(own)
	if err != nil {
		return nil, nil, err
	}
	private, _ := btcec.PrivKeyFromBytes(bytes)
	if other == "" {
		return private, nil, nil
	}
	if bytes, err = hex.DecodeString(other); err != nil {
		return nil, nil, err
	}
	remote, err := btcec.ParsePubKey(bytes)
	return private, remote, err
}

// authorized takes what the other end gives for the authorization of calls: a header with a macaroon, which the library adds to each.
func (c *client) authorized(data []byte) error {
	tell(*onAuth, string(data))
	_, value, found := strings.Cut(string(data), ": ")
	if !found {
		return errors.New("no header with a macaroon")
	}
	bytes, err := hex.DecodeString(strings.TrimSpace(value))
	if err != nil {
		return err
	}
	given := &macaroon.Macaroon{}
	if err := given.UnmarshalBinary(bytes); err != nil {
		return err
	}
	c.mu.Lock()
	c.macaroon = given
	c.mu.Unlock()
	return nil
}

func (c *client) disconnect([]js.Value) any {
	c.mu.Lock()
	conn := c.conn
	c.attempt++
	c.conn = nil
	c.mu.Unlock()
	if conn != nil {
		go conn.Close()
	}
	return nil
}

// invoke is called with an RPC's name, its request, and the function for answers. What is no JSON is an error's text.
func (c *client) invoke(arguments []js.Value) any {
	name, request, callback := arguments[0].String(), arguments[1].String(), arguments[2]
	answer := func(text string, err error) {
		if err != nil {
			text = err.Error()
		}
		callback.Invoke(text)
	}
	conn, call := c.connected(), c.rpcs[name]
	if conn == nil {
		answer("", errors.New("not connected"))
	} else if call == nil {
		answer("", errors.New("this client has no RPC "+name))
	} else {
		go call(context.Background(), conn, request, answer)
	}
	return nil
}

func (c *client) connected() *grpc.ClientConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn
}

func (c *client) lastStatus() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status == nil {
		return mailbox.ClientStatusNotConnected.String()
	}
	return c.status().String()
}

// expiry is the time of the macaroon's caveat in seconds since 1970, 0 without.
func (c *client) expiry() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.macaroon == nil {
		return 0
	}
	for _, caveat := range c.macaroon.Caveats() {
		if text, found := strings.CutPrefix(string(caveat.Id), "time-before "); found {
			if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
				return at.Unix()
			}
		}
	}
	return 0
}

func (c *client) readOnly() bool {
	for _, operation := range c.operations() {
		for _, action := range operation.Actions {
			if action != "read" {
				return false
			}
		}
	}
	return c.connected() != nil
}

// What the RPCs that the page asks about need. The table of all is in lnd's own package, which is too large for a page.
var needs = map[string][2]string{
	"lnrpc.Lightning.GetInfo":         {"info", "read"},
	"lnrpc.Lightning.ListChannels":    {"offchain", "read"},
	"lnrpc.Lightning.AddInvoice":      {"invoices", "write"},
	"routerrpc.Router.SendPaymentV2":  {"offchain", "write"},
	"lnrpc.Lightning.SendCoins":       {"onchain", "write"},
	"lnrpc.Lightning.OpenChannelSync": {"onchain", "write"},
}

func (c *client) allows(name string) bool {
	need, found := needs[name]
	for _, operation := range c.operations() {
		if !found || operation.Entity != need[0] {
			continue
		}
		for _, action := range operation.Actions {
			if action == need[1] {
				return true
			}
		}
	}
	return false
}

// operations are those in the macaroon's identifier: a byte of version, and a message.
func (c *client) operations() []*lnrpc.Op {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := &lnrpc.MacaroonId{}
	if c.macaroon == nil || len(c.macaroon.Id()) == 0 || proto.Unmarshal(c.macaroon.Id()[1:], id) != nil {
		return nil
	}
	return id.Ops
}

// tell calls a function of the page, which has a path such as "default.onAuthData".
func tell(path, text string) {
	owner, value := js.Undefined(), js.Global()
	for _, name := range strings.Split(path, ".") {
		owner, value = value, value.Get(name)
	}
	if value.Type() == js.TypeFunction {
		owner.Call(path[strings.LastIndex(path, ".")+1:], text)
	}
}

func failed(err error) any {
	js.Global().Get("console").Call("error", "lnc: "+err.Error())
	return nil
}
