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

// figures measures both mailboxes in turns, and shows the medians.
func figures(aperture, ours string, rounds int) {
	measured := map[string][2][]float64{}
	add := func(name string, target int, value float64) {
		both := measured[name]
		both[target] = append(both[target], value)
		measured[name] = both
	}
	var names []string
	for round := 0; round < rounds; round++ {
		for target, address := range []string{aperture, ours} {
			for _, size := range sizes {
				name := fmt.Sprintf("%d bytes, messages/s", size.bytes)
				add(name, target, throughput(address, size.bytes, size.messages))
				names = append(names, name)
			}
			name := "round trip of 100 bytes, us"
			add(name, target, roundTrip(address))
			names = append(names, name)
		}
	}
	fmt.Printf("%-32s %12s %12s %8s\n", "median of the rounds", "aperture", "ours", "ratio")
	for _, name := range names[:len(sizes)+1] {
		both := measured[name]
		stock, our := median(both[0]), median(both[1])
		fmt.Printf("%-32s %12.0f %12.0f %8.2f\n", name, stock, our, our/stock)
	}
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
	for i := 0; i < 100; i++ {
		trip()
	}
	begun := time.Now()
	for i := 0; i < trips; i++ {
		trip()
	}
	return float64(time.Since(begun).Microseconds()) / trips
}
