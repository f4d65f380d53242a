package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/lightninglabs/lightning-node-connect/hashmailrpc"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// rawConn is a connection of HTTP/2 that does nothing beside what is measured: it has no goroutine, and its socket blocks. A client of a
// gRPC library takes more time for a round trip than the mailbox does, and the figures would be those of the client.
type rawConn struct {
	socket io.ReadWriteCloser
	framer *http2.Framer
	out    bytes.Buffer
	last   uint32
	// What may be sent, of the connection and of its streams.
	window  int64
	windows map[uint32]int64
	initial int64
	frame   int
	// What has come of each stream, and was not read.
	in map[uint32]*bytes.Buffer
	// Not given back yet.
	taken uint32
}

const rawWindow = 1<<31 - 1

func dialRaw(address string) *rawConn {
	conn, err := net.Dial("tcp", address)
	check(err, address)
	socket := blocking(conn)
	raw := &rawConn{
		socket: socket, window: 65_535, windows: map[uint32]int64{}, initial: 65_535, frame: 16_384,
		in: map[uint32]*bytes.Buffer{}, last: 1,
	}
	raw.framer = http2.NewFramer(&raw.out, socket)
	raw.out.WriteString(http2.ClientPreface)
	check(raw.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: rawWindow}), "settings")
	check(raw.framer.WriteWindowUpdate(0, rawWindow-65_535), "window")
	raw.flush()
	return raw
}

func (raw *rawConn) close() { _ = raw.socket.Close() }

func (raw *rawConn) flush() {
	_, err := raw.socket.Write(raw.out.Bytes())
	check(err, "write")
	raw.out.Reset()
}

// open begins a call.
func (raw *rawConn) open(method string) uint32 {
	stream := raw.last
	raw.last += 2
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", "/hashmailrpc.HashMail/" + method}, {":authority", "mailbox"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		check(encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}), "header")
	}
	check(raw.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true}), "headers")
	raw.windows[stream] = raw.initial
	raw.in[stream] = &bytes.Buffer{}
	return stream
}

// send writes a message, as soon as there is a window for it.
func (raw *rawConn) send(stream uint32, message []byte, isLast bool) {
	for len(message) > 0 {
		most := min(int64(len(message)), int64(raw.frame), raw.window, raw.windows[stream])
		if most <= 0 {
			raw.read()
			continue
		}
		rest := message[most:]
		check(raw.framer.WriteData(stream, isLast && len(rest) == 0, message[:most]), "data")
		raw.flush()
		raw.window -= most
		raw.windows[stream] -= most
		message = rest
	}
}

// recv returns the next message of a stream.
func (raw *rawConn) recv(stream uint32) []byte {
	in := raw.in[stream]
	for {
		if in.Len() >= 5 {
			length := int(binary.BigEndian.Uint32(in.Bytes()[1:5]))
			if in.Len() >= 5+length {
				return in.Next(5 + length)[5:]
			}
		}
		raw.read()
	}
}

// read takes one frame.
func (raw *rawConn) read() {
	frame, err := raw.framer.ReadFrame()
	check(err, "read")
	switch frame := frame.(type) {
	case *http2.DataFrame:
		raw.in[frame.StreamID].Write(frame.Data())
		raw.give(uint32(len(frame.Data())), frame.StreamID)
	case *http2.SettingsFrame:
		raw.settings(frame)
	case *http2.WindowUpdateFrame:
		if frame.StreamID == 0 {
			raw.window += int64(frame.Increment)
		} else {
			raw.windows[frame.StreamID] += int64(frame.Increment)
		}
	case *http2.PingFrame:
		if !frame.IsAck() {
			check(raw.framer.WritePing(true, frame.Data), "ping")
			raw.flush()
		}
	case *http2.HeadersFrame:
		if frame.StreamEnded() {
			check(errors.New("the mailbox has ended a call"), "read")
		}
	case *http2.RSTStreamFrame, *http2.GoAwayFrame:
		check(fmt.Errorf("the mailbox has ended a call: %v", frame), "read")
	}
}

func (raw *rawConn) settings(frame *http2.SettingsFrame) {
	if frame.IsAck() {
		return
	}
	if initial, ok := frame.Value(http2.SettingInitialWindowSize); ok {
		for stream := range raw.windows {
			raw.windows[stream] += int64(initial) - raw.initial
		}
		raw.initial = int64(initial)
	}
	if most, ok := frame.Value(http2.SettingMaxFrameSize); ok {
		raw.frame = int(most)
	}
	check(raw.framer.WriteSettingsAck(), "settings")
	raw.flush()
}

// give gives the window of many messages back at once.
func (raw *rawConn) give(length, stream uint32) {
	raw.taken += length
	if raw.taken < 1<<28 {
		return
	}
	check(raw.framer.WriteWindowUpdate(0, raw.taken), "window")
	// A connection reads one stream here.
	check(raw.framer.WriteWindowUpdate(stream, raw.taken), "window")
	raw.flush()
	raw.taken = 0
}

// reading begins to read a box.
func (raw *rawConn) reading(id []byte) uint32 {
	stream := raw.open("RecvStream")
	raw.send(stream, encoded(desc(id)), true)
	return stream
}

// encoded is a message with the prefix of gRPC.
func encoded(message proto.Message) []byte {
	body, err := proto.Marshal(message)
	check(err, "encode")
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
}

func sealed(id []byte, size int) []byte {
	return encoded(&hashmailrpc.CipherBox{Desc: desc(id), Msg: make([]byte, size)})
}
