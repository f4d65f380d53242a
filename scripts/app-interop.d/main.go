// A stock client of Lightning Node Connect as an app of a Longhand host: calls lnd's RPC over it.
//
//	app MAILBOX "WORDS" STATE COMMAND...
//
// STATE is a file that keeps the client's key and the host's, so that a later run needs no words.
package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/lightninglabs/lightning-node-connect/mailbox"
	"github.com/lightningnetwork/lnd/keychain"
	"github.com/lightningnetwork/lnd/lnrpc"
	"github.com/lightningnetwork/lnd/lnrpc/routerrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func main() {
	address, words, state := os.Args[1], os.Args[2], os.Args[3]
	ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
	defer cancel()
	begun := time.Now()
	conn := connect(ctx, address, words, state)
	node := lnrpc.NewLightningClient(conn)
	for _, command := range os.Args[4:] {
		name, argument, _ := strings.Cut(command, "=")
		answer, err := call(ctx, conn, node, name, argument)
		if err != nil {
			fmt.Printf("%s: error: %v\n", name, err)
		} else {
			fmt.Printf("%s: %s\n", name, answer)
		}
		fmt.Fprintf(os.Stderr, "%.2f s\n", time.Since(begun).Seconds())
		begun = time.Now()
	}
	check(conn.Close(), "close")
}

func call(ctx context.Context, conn *grpc.ClientConn, node lnrpc.LightningClient, name, argument string) (string, error) {
	wait := grpc.WaitForReady(true)
	switch name {
	case "getinfo":
		info, err := node.GetInfo(ctx, &lnrpc.GetInfoRequest{}, wait)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s %s %s %d", info.IdentityPubkey, info.Alias, info.Version, info.BlockHeight), nil
	case "balance":
		balance, err := node.ChannelBalance(ctx, &lnrpc.ChannelBalanceRequest{}, wait)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d", balance.LocalBalance.GetMsat()), nil
	case "channels":
		list, err := node.ListChannels(ctx, &lnrpc.ListChannelsRequest{}, wait)
		if err != nil {
			return "", err
		}
		return strconv.Itoa(len(list.Channels)), nil
	case "addinvoice":
		sat, _ := strconv.ParseInt(argument, 10, 64)
		made, err := node.AddInvoice(ctx, &lnrpc.Invoice{Value: sat, Memo: "of an app"}, wait)
		if err != nil {
			return "", err
		}
		return made.PaymentRequest, nil
	case "lookup":
		hash, _ := hex.DecodeString(argument)
		invoice, err := node.LookupInvoice(ctx, &lnrpc.PaymentHash{RHash: hash}, wait)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s %d", invoice.State, invoice.AmtPaidSat), nil
	case "payments":
		list, err := node.ListPayments(ctx, &lnrpc.ListPaymentsRequest{}, wait)
		if err != nil {
			return "", err
		}
		return strconv.Itoa(len(list.Payments)), nil
	case "pay":
		stream, err := routerrpc.NewRouterClient(conn).SendPaymentV2(ctx, &routerrpc.SendPaymentRequest{
			PaymentRequest: argument, TimeoutSeconds: 30, FeeLimitSat: 100,
		}, wait)
		if err != nil {
			return "", err
		}
		var states []string
		for {
			payment, err := stream.Recv()
			if err != nil {
				return strings.Join(states, " "), err
			}
			states = append(states, payment.Status.String())
			if payment.Status != lnrpc.Payment_IN_FLIGHT {
				return strings.Join(states, " ") + " " + payment.PaymentPreimage, nil
			}
		}
	case "open":
		_, err := node.OpenChannelSync(ctx, &lnrpc.OpenChannelRequest{}, wait)
		return "", err
	case "sleep":
		seconds, _ := strconv.Atoi(argument)
		time.Sleep(time.Duration(seconds) * time.Second)
		return argument, nil
	}
	return "", fmt.Errorf("there is no command %s", name)
}

func connect(ctx context.Context, address, words, state string) *grpc.ClientConn {
	private, remote := load(state)
	var entropy []byte
	if words != "" {
		var mnemonic [mailbox.NumPassphraseWords]string
		copy(mnemonic[:], strings.Fields(words))
		bits := mailbox.PassphraseMnemonicToEntropy(mnemonic)
		entropy = bits[:]
	}
	data := mailbox.NewConnData(&keychain.PrivKeyECDH{PrivKey: private}, remote, entropy, nil,
		func(key *btcec.PublicKey) error {
			line := hex.EncodeToString(private.Serialize()) + " " + hex.EncodeToString(key.SerializeCompressed())
			return os.WriteFile(state, []byte(line), 0o600)
		},
		func([]byte) error { return nil })
	client, err := mailbox.NewGrpcClient(ctx, address, data, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err, "client")
	noise := mailbox.NewNoiseGrpcConn(data)
	conn, err := grpc.NewClient("passthrough:///mailbox",
		grpc.WithContextDialer(client.Dial), grpc.WithTransportCredentials(noise), grpc.WithPerRPCCredentials(noise))
	check(err, "connect")
	return conn
}

func load(state string) (*btcec.PrivateKey, *btcec.PublicKey) {
	line, err := os.ReadFile(state)
	if err != nil {
		private, err := btcec.NewPrivateKey()
		check(err, "key")
		return private, nil
	}
	own, other, _ := strings.Cut(string(line), " ")
	bytes, err := hex.DecodeString(own)
	check(err, "state")
	private, _ := btcec.PrivKeyFromBytes(bytes)
	bytes, err = hex.DecodeString(other)
	check(err, "state")
	remote, err := btcec.ParsePubKey(bytes)
	check(err, "state")
	return private, remote
}

func check(err error, what string) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}
