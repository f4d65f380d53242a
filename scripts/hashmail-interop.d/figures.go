package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"sort"
	"time"

	"github.com/lightninglabs/lightning-node-connect/hashmailrpc"
)

// No length that, with its prefix, is a multiple of 4,096: there stock mailboxes stall.
var sizes = []struct{ bytes, messages int }{{100, 30_000}, {1_000, 30_000}, {32_000, 6_000}}

const trips = 4_000

// throughputs measures both mailboxes in turns, and shows the medians.
func throughputs(aperture, ours string, rounds int) {
	var names []string
	for _, size := range sizes {
		names = append(names, fmt.Sprintf("%d bytes, messages/s", size.bytes))
	}
	measured := make([][2][]float64, len(sizes))
	for round := 0; round < rounds; round++ {
		for target, address := range []string{aperture, ours} {
			for i, size := range sizes {
				measured[i][target] = append(measured[i][target], throughput(address, size.bytes, size.messages))
			}
		}
	}
	fmt.Printf("%-32s %12s %12s %8s\n", "median of the rounds", "aperture", "ours", "ratio")
	for i, name := range names {
		stock, our := median(measured[i][0]), median(measured[i][1])
		fmt.Printf("%-32s %12.0f %12.0f %8.2f\n", name, stock, our, our/stock)
	}
}

// roundTrips measures both mailboxes and a copier in turns, and shows the medians. `where` says on which cores.
func roundTrips(where, aperture, ours, copier string, rounds int) {
	var measured [3][]float64
	for round := 0; round < rounds; round++ {
		for i, us := range []float64{roundTrip(aperture), roundTrip(ours), copiedTrip(copier)} {
			measured[i] = append(measured[i], us)
		}
	}
	stock, our, least := median(measured[0]), median(measured[1]), median(measured[2])
	fmt.Printf("%-32s %12.0f %12.0f %8.2f   %.0f between two sockets that are only copied\n",
		"round trip, us, "+where, stock, our, our/stock, least)
}

func median(values []float64) float64 {
	sort.Float64s(values)
	return values[len(values)/2]
}

func newBox(client hashmailrpc.HashMailClient) ([]byte, func()) {
	id := make([]byte, 64)
	_, err := rand.Read(id)
	check(err, "random")
	_, err = client.NewCipherBox(context.Background(), auth(id))
	check(err, "new box")
	return id, func() {
		_, err := client.DelCipherBox(context.Background(), auth(id))
		check(err, "delete box")
	}
}

// throughput has one writer and one reader, each with a connection of its own. In messages per second.
func throughput(address string, size, messages int) float64 {
	client, closeClient := dial(address)
	defer closeClient()
	id, remove := newBox(client)
	defer remove()
	sender, receiver := dialRaw(address), dialRaw(address)
	defer sender.close()
	defer receiver.close()
	reading, writing := receiver.reading(id), sender.open("SendStream")
	message := sealed(id, size)
	// The streams are open once a message has come through.
	sender.send(writing, message, false)
	length := len(receiver.recv(reading))
	begun := time.Now()
	done := make(chan struct{})
	go func() {
		for i := 0; i < messages; i++ {
			sender.send(writing, message, false)
		}
		close(done)
	}()
	for i := 0; i < messages; i++ {
		if got := receiver.recv(reading); len(got) != length {
			check(fmt.Errorf("%d bytes in place of %d", len(got), length), "receive")
		}
	}
	took := time.Since(begun)
	<-done
	return float64(messages) / took.Seconds()
}

// roundTrip has two boxes and two ends, as LNC does: one message at a time goes and comes back. In microseconds.
func roundTrip(address string) float64 {
	client, closeClient := dial(address)
	defer closeClient()
	there, removeThere := newBox(client)
	defer removeThere()
	back, removeBack := newBox(client)
	defer removeBack()
	near, far := dialRaw(address), dialRaw(address)
	defer near.close()
	defer far.close()
	farReading, farWriting := far.reading(there), far.open("SendStream")
	nearReading, nearWriting := near.reading(back), near.open("SendStream")
	question, answer := sealed(there, 100), sealed(back, 100)
	trip := func() {
		near.send(nearWriting, question, false)
		far.recv(farReading)
		far.send(farWriting, answer, false)
		near.recv(nearReading)
	}
	return timed(trip)
}
