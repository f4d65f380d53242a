// The stock part of scripts/lnd-rpc-interop: our macaroon in lnd's libraries, and our server under lnd's own stubs.
//
//	stock ADDRESS DIRECTORY INVOICE    with tls.cert and all.macaroon in the directory, and an invoice of somebody else's
package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"
	"github.com/lightningnetwork/lnd/lnrpc/invoicesrpc"
	"github.com/lightningnetwork/lnd/lnrpc/routerrpc"
	"github.com/lightningnetwork/lnd/lnrpc/signrpc"
	"github.com/lightningnetwork/lnd/lnrpc/walletrpc"
	"github.com/lightningnetwork/lnd/macaroons"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"gopkg.in/macaroon-bakery.v2/bakery"
	"gopkg.in/macaroon-bakery.v2/bakery/checkers"
	macaroon "gopkg.in/macaroon.v2"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func is(what string, found, wanted any) {
	if fmt.Sprint(found) != fmt.Sprint(wanted) {
		must(fmt.Errorf("%s: %v instead of %v", what, found, wanted))
	}
	fmt.Printf("%s: %v\n", what, found)
}

// oneKey is a store with the example's root key.
type oneKey struct{ key, id []byte }

func (o oneKey) Get(_ context.Context, id []byte) ([]byte, error) {
	if !bytes.Equal(id, o.id) {
		return nil, bakery.ErrNotFound
	}
	return o.key, nil
}

func (o oneKey) RootKey(context.Context) ([]byte, []byte, error) { return o.key, o.id, nil }

// checkMacaroon has lnd's macaroon service judge ours, and reads it as apps over Lightning Node Connect do.
func checkMacaroon(ctx context.Context, mac *macaroon.Macaroon) {
	raw, err := mac.MarshalBinary()
	must(err)
	service, err := macaroons.NewService(oneKey{bytes.Repeat([]byte{7}, 32), []byte("app-1")}, "lnd", false)
	must(err)
	must(service.CheckMacAuth(ctx, raw, []bakery.Op{{Entity: "offchain", Action: "write"}}, "/routerrpc.Router/SendPaymentV2"))
	refused := service.CheckMacAuth(ctx, raw, []bakery.Op{{Entity: "macaroon", Action: "generate"}}, "/lnrpc.Lightning/BakeMacaroon")
	is("bakery, a right that is missing", refused, "permission denied")
	other, err := macaroons.NewService(oneKey{bytes.Repeat([]byte{8}, 32), []byte("app-1")}, "lnd", false)
	must(err)
	refused = other.CheckMacAuth(ctx, raw, []bakery.Op{{Entity: "info", Action: "read"}}, "/lnrpc.Lightning/GetInfo")
	is("bakery, another key", refused != nil, true)
	id := &lnrpc.MacaroonId{}
	is("version of the identifier", mac.Id()[0], bakery.LatestVersion)
	must(proto.Unmarshal(mac.Id()[1:], id))
	is("entities", len(id.Ops), 5)
	expiry, found := checkers.ExpiryTime(nil, mac.Caveats())
	is("expires within an hour", found && time.Until(expiry) < time.Hour && time.Until(expiry) > 0, true)
}

func main() {
	address, dir, invoice := os.Args[1], os.Args[2], os.Args[3]
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	raw, err := os.ReadFile(filepath.Join(dir, "all.macaroon"))
	must(err)
	mac := &macaroon.Macaroon{}
	must(mac.UnmarshalBinary(raw))
	checkMacaroon(ctx, mac)
	credential, err := macaroons.NewMacaroonCredential(mac)
	must(err)
	tls, err := credentials.NewClientTLSFromFile(filepath.Join(dir, "tls.cert"), "")
	must(err)
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(tls), grpc.WithPerRPCCredentials(credential))
	must(err)
	defer conn.Close()
	node := lnrpc.NewLightningClient(conn)
	reads(ctx, conn, node)
	invoices(ctx, conn, node)
	pays(ctx, conn, node, invoice)
	refusals(ctx, conn, node)
}

func reads(ctx context.Context, conn *grpc.ClientConn, node lnrpc.LightningClient) {
	info, err := node.GetInfo(ctx, &lnrpc.GetInfoRequest{})
	must(err)
	is("GetInfo", fmt.Sprint(info.Alias, " ", info.Chains[0].Network, " ", info.SyncedToChain), "alice regtest true")
	is("version", strings.HasPrefix(info.Version, "0.21.2-beta"), true)
	balance, err := node.ChannelBalance(ctx, &lnrpc.ChannelBalanceRequest{})
	must(err)
	is("ChannelBalance", balance.LocalBalance.Msat, 600000500)
	wallet, err := node.WalletBalance(ctx, &lnrpc.WalletBalanceRequest{})
	must(err)
	is("WalletBalance", wallet.AccountBalance["default"].ConfirmedBalance, 2000000)
	channels, err := node.ListChannels(ctx, &lnrpc.ListChannelsRequest{})
	must(err)
	is("ListChannels", channels.Channels[0].ChanId, 113249697792001)
	is("HTLC", channels.Channels[0].PendingHtlcs[0].ExpirationHeight, 200)
	pending, err := node.PendingChannels(ctx, &lnrpc.PendingChannelsRequest{})
	must(err)
	is("PendingChannels", pending.PendingOpenChannels[0].Channel.Capacity, 1000000)
	closed, err := node.ClosedChannels(ctx, &lnrpc.ClosedChannelsRequest{})
	must(err)
	is("ClosedChannels", closed.Channels[0].CloseType, "REMOTE_FORCE_CLOSE")
	accounts, err := walletrpc.NewWalletKitClient(conn).ListAccounts(ctx, &walletrpc.ListAccountsRequest{})
	must(err)
	is("ListAccounts", accounts.Accounts[0].AddressType, "WITNESS_PUBKEY_HASH")
	transactions, err := node.GetTransactions(ctx, &lnrpc.GetTransactionsRequest{EndHeight: -1})
	must(err)
	is("GetTransactions", transactions.Transactions[0].OutputDetails[0].IsOurAddress, true)
}

func invoices(ctx context.Context, conn *grpc.ClientConn, node lnrpc.LightningClient) {
	made, err := node.AddInvoice(ctx, &lnrpc.Invoice{Memo: "stock", ValueMsat: 3000, Expiry: 600, Private: true})
	must(err)
	states, err := invoicesrpc.NewInvoicesClient(conn).SubscribeSingleInvoice(ctx, &invoicesrpc.SubscribeSingleInvoiceRequest{RHash: made.RHash})
	must(err)
	now, err := states.Recv()
	must(err)
	is("SubscribeSingleInvoice", now.State, "OPEN")
	list, err := node.ListInvoices(ctx, &lnrpc.ListInvoiceRequest{Reversed: true, NumMaxInvoices: 1})
	must(err)
	is("ListInvoices", list.Invoices[0].AddIndex == made.AddIndex && list.Invoices[0].Expiry == 600, true)
}

func pays(ctx context.Context, conn *grpc.ClientConn, node lnrpc.LightningClient, invoice string) {
	decoded, err := node.DecodePayReq(ctx, &lnrpc.PayReqString{PayReq: invoice})
	must(err)
	is("DecodePayReq", decoded.NumMsat, 20000000)
	router := routerrpc.NewRouterClient(conn)
	request := &routerrpc.SendPaymentRequest{PaymentRequest: invoice, TimeoutSeconds: 60, FeeLimitSat: 10, MaxParts: 16}
	stream, err := router.SendPaymentV2(ctx, request)
	must(err)
	for _, wanted := range []string{"IN_FLIGHT", "SUCCEEDED"} {
		payment, err := stream.Recv()
		must(err)
		is("SendPaymentV2", payment.Status, wanted)
	}
	again, err := router.SendPaymentV2(ctx, request)
	must(err)
	_, err = again.Recv()
	is("paid again", status.Code(err), codes.AlreadyExists)
	hash, err := hex.DecodeString(decoded.PaymentHash)
	must(err)
	tracked, err := router.TrackPaymentV2(ctx, &routerrpc.TrackPaymentRequest{PaymentHash: hash})
	must(err)
	payment, err := tracked.Recv()
	must(err)
	is("TrackPaymentV2", payment.Status, "SUCCEEDED")
}

func refusals(ctx context.Context, conn *grpc.ClientConn, node lnrpc.LightningClient) {
	_, err := node.ListPeers(ctx, &lnrpc.ListPeersRequest{})
	is("ListPeers", status.Code(err), codes.Unimplemented)
	is("its name", strings.HasPrefix(status.Convert(err).Message(), "lnrpc.Lightning/ListPeers is not answered by Longhand"), true)
	_, err = signrpc.NewSignerClient(conn).SignMessage(ctx, &signrpc.SignMessageReq{})
	is("SignMessage", status.Code(err), codes.Unimplemented)
}
