package main

import (
	"io"
	"net"
	"time"
)

// As long as the frame of a message of 100 bytes.
const copied = 184

// copier accepts pairs of connections at an address, and copies what one of a pair sends to the other, a message in turn from each. It does
// as little as anything between two ends can do: what it takes is the system's.
func copier(address string) {
	listener, err := net.Listen("tcp", address)
	check(err, address)
	for {
		near, far := accept(listener), accept(listener)
		var buffer [copied]byte
		for copyOne(near, far, buffer[:]) && copyOne(far, near, buffer[:]) {
		}
		_, _ = near.Close(), far.Close()
	}
}

// accept returns the next connection that sends a byte: one that only tries the port sends none.
func accept(listener net.Listener) io.ReadWriteCloser {
	for {
		conn, err := listener.Accept()
		check(err, "accept")
		socket := blocking(conn)
		if _, err := io.ReadFull(socket, make([]byte, 1)); err == nil {
			return socket
		}
		_ = socket.Close()
	}
}

func copyOne(from io.Reader, to io.Writer, buffer []byte) bool {
	if _, err := io.ReadFull(from, buffer); err != nil {
		return false
	}
	_, err := to.Write(buffer)
	return err == nil
}

// copiedTrip is roundTrip through a copier.
func copiedTrip(address string) float64 {
	var ends [2]io.ReadWriteCloser
	for i := range ends {
		conn, err := net.Dial("tcp", address)
		check(err, address)
		ends[i] = blocking(conn)
		defer ends[i].Close()
		_, err = ends[i].Write([]byte{0})
		check(err, "write")
	}
	var buffer [copied]byte
	trip := func() {
		for i := range ends {
			_, err := ends[i].Write(buffer[:])
			check(err, "write")
			_, err = io.ReadFull(ends[1-i], buffer[:])
			check(err, "read")
		}
	}
	return timed(trip)
}

// timed is what one of many trips takes, after some that are not counted. In microseconds.
func timed(trip func()) float64 {
	for i := 0; i < 100; i++ {
		trip()
	}
	begun := time.Now()
	for i := 0; i < trips; i++ {
		trip()
	}
	return float64(time.Since(begun).Microseconds()) / trips
}

// blocking is a connection that blocks in the system's calls, without Go's poller.
func blocking(conn net.Conn) io.ReadWriteCloser {
	socket, err := conn.(*net.TCPConn).File()
	check(err, "socket")
	_ = conn.Close()
	return socket
}
