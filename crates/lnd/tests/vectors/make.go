// Makes macaroons.json with the libraries of lnd: macaroons of its bakery, narrowed as its clients do, and what the bakery says to them.
//
//	in the module that docs/INTEROP.md builds lnd in, with its go.mod: go run make.go > macaroons.json
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"
	"github.com/lightningnetwork/lnd/macaroons"
	"google.golang.org/protobuf/proto"
	"gopkg.in/macaroon-bakery.v2/bakery"
	"gopkg.in/macaroon-bakery.v2/bakery/checkers"
	macaroon "gopkg.in/macaroon.v2"
)

// question is an operation at a time, and the bakery's answer.
type question struct {
	Op      string `json:"op"`
	UnixS   int64  `json:"unix_s"`
	Allowed bool   `json:"allowed"`
	Says    string `json:"bakery_says"`
}

type vector struct {
	Name      string     `json:"name"`
	RootKey   string     `json:"root_key"`
	App       string     `json:"app"`
	Nonce     string     `json:"nonce"`
	Ops       []string   `json:"ops"`
	Caveats   []string   `json:"caveats"`
	Macaroon  string     `json:"macaroon"`
	Questions []question `json:"questions"`
}

// oneKey is a store with one root key.
type oneKey struct{ key, id []byte }

func (o oneKey) Get(_ context.Context, id []byte) ([]byte, error) {
	if string(id) != string(o.id) {
		return nil, bakery.ErrNotFound
	}
	return o.key, nil
}

func (o oneKey) RootKey(context.Context) ([]byte, []byte, error) { return o.key, o.id, nil }

type clock struct{ time.Time }

func (c clock) Now() time.Time { return c.Time }

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func ops(texts []string) (all []bakery.Op) {
	for _, text := range texts {
		entity, action, _ := strings.Cut(text, ":")
		all = append(all, bakery.Op{Entity: entity, Action: action})
	}
	return
}

// made makes a vector; the macaroon is checked with the key checkKey.
func made(name, app string, key, checkKey byte, allowed []string, caveats []string, change func([]byte) []byte) vector {
	root, checkRoot := bytesOf(key), bytesOf(checkKey)
	baker := bakery.New(bakery.BakeryParams{Location: "lnd", RootKeyStore: oneKey{root, []byte(app)}})
	ctx := context.Background()
	baked, err := baker.Oven.NewMacaroon(ctx, bakery.LatestVersion, nil, ops(allowed)...)
	must(err)
	mac := baked.M()
	for _, caveat := range caveats {
		if third, ok := strings.CutPrefix(caveat, "third party "); ok {
			must(mac.AddThirdPartyCaveat(root, []byte(third), "elsewhere"))
			continue
		}
		must(mac.AddFirstPartyCaveat([]byte(caveat)))
	}
	raw, err := mac.MarshalBinary()
	must(err)
	if change != nil {
		raw = change(raw)
	}
	id := &lnrpc.MacaroonId{}
	must(proto.Unmarshal(mac.Id()[1:], id))
	v := vector{
		Name: name, RootKey: hex.EncodeToString(checkRoot), App: app, Nonce: hex.EncodeToString(id.Nonce),
		Ops: allowed, Caveats: caveats, Macaroon: hex.EncodeToString(raw),
	}
	checker := bakery.New(bakery.BakeryParams{Location: "lnd", RootKeyStore: oneKey{checkRoot, []byte(app)}})
	for _, op := range []string{"info:read", "offchain:write"} {
		for _, at := range []int64{1_790_000_000, 1_800_000_000, 1_800_000_001} {
			says := check(checker, raw, op, at)
			v.Questions = append(v.Questions, question{op, at, says == "", says})
		}
	}
	return v
}

func check(checker *bakery.Bakery, raw []byte, op string, at int64) string {
	mac := &macaroon.Macaroon{}
	if err := mac.UnmarshalBinary(raw); err != nil {
		return err.Error()
	}
	ctx := checkers.ContextWithClock(context.Background(), clock{time.Unix(at, 0)})
	if _, err := checker.Checker.Auth(macaroon.Slice{mac}).Allow(ctx, ops([]string{op})...); err != nil {
		return err.Error()
	}
	return ""
}

func bytesOf(b byte) []byte { return []byte(strings.Repeat(string(rune(b)), 32)) }

func before(t time.Time) string { return checkers.TimeBeforeCaveat(t).Condition }

func main() {
	read := []string{"address:read", "info:read", "invoices:read", "offchain:read", "onchain:read"}
	all := append([]string{"address:write", "invoices:write", "offchain:write", "onchain:write"}, read...)
	end := time.Unix(1_800_000_000, 0)
	custom := checkers.Condition(macaroons.CondLndCustom, "account 1234")
	last := func(raw []byte) []byte { raw[len(raw)-1] ^= 1; return raw }
	vectors := []vector{
		made("all rights", "app-1", 1, 1, all, nil, nil),
		made("readonly, lnd's own name of a key", "0", 2, 2, read, nil, nil),
		made("one operation", "app-1", 1, 1, []string{"info:read"}, nil, nil),
		made("expires", "app-1", 1, 1, all, []string{before(end)}, nil),
		made("expires within a second", "app-1", 1, 1, all, []string{before(end.Add(123456789))}, nil),
		made("expires twice, as lncli narrows it", "app-1", 1, 1, all, []string{before(end.Add(time.Hour)), before(end)}, nil),
		made("expires in another zone", "app-1", 1, 1, all, []string{"time-before 2027-01-15T10:00:00+02:00"}, nil),
		made("tied to an address", "app-1", 1, 1, all, []string{"ipaddr 127.0.0.1"}, nil),
		made("of an account", "app-1", 1, 1, all, []string{custom}, nil),
		made("a third party's caveat", "app-1", 1, 1, all, []string{"third party them"}, nil),
		made("of another key", "app-1", 3, 1, all, nil, nil),
		made("a bit of the signature is wrong", "app-1", 1, 1, all, nil, last),
		made("cut short", "app-1", 1, 1, all, nil, func(raw []byte) []byte { return raw[:len(raw)-1] }),
	}
	out, err := json.MarshalIndent(vectors, "", " ")
	must(err)
	fmt.Fprintln(os.Stdout, string(out))
}
