package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/lightninglabs/lightning-node-connect/hashmailrpc"
	"google.golang.org/grpc/status"
)

const path = "/v1/lightning-node-connect/hashmail"

// target is a mailbox with a client of its own for each check.
type target struct {
	address string
	client  hashmailrpc.HashMailClient
	ctx     context.Context
}

// one is a check: what it is, what is expected of ours, and whether stock mailboxes are known to differ.
type one struct {
	name, expected string
	run            func(*target) string
}

func checks(aperture, ours string) {
	failed := false
	fmt.Printf("%-44s | %-44s | %s\n", "", "aperture", "ours")
	for _, one := range all {
		stock, our := try(aperture, one), try(ours, one)
		note := ""
		if our != one.expected {
			failed = true
			note = "   NOT AS EXPECTED: " + one.expected
		}
		fmt.Printf("%-44s | %-44s | %s%s\n", one.name, stock, our, note)
	}
	if failed {
		os.Exit(1)
	}
}

func try(address string, one one) string {
	client, end := dial(address)
	defer end()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	return one.run(&target{address: address, client: client, ctx: ctx})
}

func fresh(length int) []byte {
	id := make([]byte, length)
	_, err := rand.Read(id)
	check(err, "random")
	return id
}

// text is a status as "CODE MESSAGE", without what follows in long ones.
func text(err error) string {
	if err == nil {
		return "ok"
	}
	s, _ := status.FromError(err)
	message, _, _ := strings.Cut(s.Message(), "\n")
	if len(message) > 36 {
		message = message[:36]
	}
	return fmt.Sprintf("%d %s", s.Code(), message)
}

func (t *target) create(id []byte) error {
	_, err := t.client.NewCipherBox(t.ctx, auth(id))
	return err
}

func (t *target) read(id []byte) (hashmailrpc.HashMail_RecvStreamClient, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.ctx)
	stream, err := t.client.RecvStream(ctx, desc(id))
	check(err, "read")
	return stream, cancel
}

func (t *target) write(id, msg []byte) (hashmailrpc.HashMail_SendStreamClient, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.ctx)
	stream, err := t.client.SendStream(ctx)
	check(err, "write")
	_ = stream.Send(&hashmailrpc.CipherBox{Desc: desc(id), Msg: msg})
	return stream, cancel
}

// passes says whether a message of this length comes through, and one after it.
func (t *target) passes(length int) string {
	id := fresh(64)
	if err := t.create(id); err != nil {
		return text(err)
	}
	reading, _ := t.read(id)
	msg := fresh(length)
	writing, _ := t.write(id, msg)
	got, err := reading.Recv()
	if err != nil {
		return text(err)
	}
	if !bytes.Equal(got.Msg, msg) {
		return "another message"
	}
	_ = writing.Send(&hashmailrpc.CipherBox{Desc: desc(id), Msg: []byte("next")})
	got, err = reading.Recv()
	if err != nil {
		return text(err)
	}
	return string(got.Msg)
}

func (t *target) rest(method, query string, body string) string {
	request, err := http.NewRequestWithContext(t.ctx, method, "http://"+t.address+path+query, strings.NewReader(body))
	check(err, "request")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "no answer"
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	// Stock mailboxes put spaces in some answers, and not in others.
	var compact bytes.Buffer
	if json.Compact(&compact, text) != nil {
		return fmt.Sprintf("%d", answer.StatusCode)
	}
	var fields struct {
		Code    int
		Message string
	}
	if json.Unmarshal(text, &fields) == nil && fields.Message != "" {
		return fmt.Sprintf("%d %d %s", answer.StatusCode, fields.Code, fields.Message)
	}
	return fmt.Sprintf("%d %s", answer.StatusCode, compact.String())
}

func restAuth(id []byte) string {
	return fmt.Sprintf(`{"desc":{"stream_id":"%s"},"lnd_auth":{}}`, base64.StdEncoding.EncodeToString(id))
}

func (t *target) socket(which string) *websocket.Conn {
	socket, _, err := websocket.Dial(t.ctx, "ws://"+t.address+path+which+"?method=POST", nil)
	check(err, "WebSocket")
	socket.SetReadLimit(1 << 20)
	return socket
}

// received is what a socket shows next, in the pattern of the stock client.
func (t *target) received(socket *websocket.Conn) string {
	_, text, err := socket.Read(t.ctx)
	if err != nil {
		return "closed"
	}
	if inner, found := strings.CutPrefix(string(text), `{"error":`); found {
		var fields struct {
			Code    int
			Message string
		}
		check(json.Unmarshal([]byte(strings.TrimSuffix(strings.TrimSpace(inner), "}")), &fields), "error")
		return fmt.Sprintf("error %d %s", fields.Code, fields.Message)
	}
	var result struct{ Result struct{ Msg []byte } }
	if json.Unmarshal(text, &result) != nil {
		return "no JSON"
	}
	return string(result.Result.Msg)
}

func (t *target) overWebSocket(kind websocket.MessageType, encoding *base64.Encoding) string {
	id := fresh(64)
	if err := t.create(id); err != nil {
		return text(err)
	}
	name := encoding.EncodeToString(id)
	receive, send := t.socket("/receive"), t.socket("/send")
	check(receive.Write(t.ctx, kind, []byte(`{"stream_id":"`+name+`"}`)), "write")
	message := `{"desc":{"stream_id":"` + name + `"},"msg":"` + encoding.EncodeToString([]byte("hello?>")) + `"}`
	check(send.Write(t.ctx, kind, []byte(message)), "write")
	return t.received(receive)
}

var all = []one{
	{"read an unknown stream", "2 stream not found", func(t *target) string {
		stream, _ := t.read(fresh(64))
		_, err := stream.Recv()
		return text(err)
	}},
	{"write an unknown stream", "2 stream not found", func(t *target) string {
		stream, _ := t.write(fresh(64), nil)
		return text(stream.RecvMsg(new(hashmailrpc.CipherBoxDesc)))
	}},
	{"delete an unknown stream", "2 stream not found", func(t *target) string {
		_, err := t.client.DelCipherBox(t.ctx, auth(fresh(64)))
		return text(err)
	}},
	{"create without a descriptor", "2 cipher box descriptor required", func(t *target) string {
		without := auth(nil)
		without.Desc = nil
		_, err := t.client.NewCipherBox(t.ctx, without)
		return text(err)
	}},
	{"create without an id", "2 stream_id required", func(t *target) string {
		return text(t.create(nil))
	}},
	{"create without auth", "2 auth type required", func(t *target) string {
		_, err := t.client.NewCipherBox(t.ctx, &hashmailrpc.CipherBoxAuth{Desc: desc(fresh(64))})
		return text(err)
	}},
	{"write without an id", "2 stream_id required", func(t *target) string {
		stream, _ := t.write(nil, nil)
		return text(stream.RecvMsg(new(hashmailrpc.CipherBoxDesc)))
	}},
	{"create twice", "ok, then 6 stream already active", func(t *target) string {
		id := fresh(64)
		return text(t.create(id)) + ", then " + text(t.create(id))
	}},
	{"create, delete, read", "ok, ok, 2 stream not found", func(t *target) string {
		id := fresh(64)
		created := t.create(id)
		_, deleted := t.client.DelCipherBox(t.ctx, auth(id))
		stream, _ := t.read(id)
		_, err := stream.Recv()
		return text(created) + ", " + text(deleted) + ", " + text(err)
	}},
	{"a second reader, after 250 ms", "true 2 read stream occupied", func(t *target) string {
		id := fresh(64)
		check(t.create(id), "create")
		_, _ = t.read(id)
		time.Sleep(100 * time.Millisecond)
		begun := time.Now()
		stream, _ := t.read(id)
		_, err := stream.Recv()
		waited := time.Since(begun)
		return fmt.Sprint(waited >= 250*time.Millisecond && waited < time.Second) + " " + text(err)
	}},
	{"a second writer, after 250 ms", "true 2 write stream occupied", func(t *target) string {
		id := fresh(64)
		check(t.create(id), "create")
		_, _ = t.write(id, nil)
		time.Sleep(100 * time.Millisecond)
		begun := time.Now()
		stream, _ := t.write(id, nil)
		err := stream.RecvMsg(new(hashmailrpc.CipherBoxDesc))
		waited := time.Since(begun)
		return fmt.Sprint(waited >= 250*time.Millisecond && waited < time.Second) + " " + text(err)
	}},
	{"short ids are padded, long ones cut", "6 stream already active twice", func(t *target) string {
		id := append(fresh(20), make([]byte, 44)...)
		check(t.create(id), "create")
		short, long := text(t.create(id[:20])), text(t.create(append(id, 1)))
		if short == long {
			return short + " twice"
		}
		return short + ", " + long
	}},
	{"a message of 100 bytes, and the next", "next", func(t *target) string { return t.passes(100) }},
	{"a message of 4,093 bytes, and the next", "next", func(t *target) string { return t.passes(4093) }},
	{"a message of 2 MiB, and the next", "next", func(t *target) string { return t.passes(2 << 20) }},
	{"a message above 4 MiB", "8", func(t *target) string {
		id := fresh(64)
		check(t.create(id), "create")
		stream, _ := t.write(id, make([]byte, 4<<20))
		code, _, _ := strings.Cut(text(stream.RecvMsg(new(hashmailrpc.CipherBoxDesc))), " ")
		return code
	}},
	{"a writer leaves with unread messages", "fresh", func(t *target) string {
		id := fresh(64)
		check(t.create(id), "create")
		stale, cancel := t.write(id, []byte("stale"))
		_ = stale.Send(&hashmailrpc.CipherBox{Desc: desc(id), Msg: []byte("stale too")})
		time.Sleep(200 * time.Millisecond)
		cancel()
		time.Sleep(200 * time.Millisecond)
		reading, _ := t.read(id)
		_, _ = t.write(id, []byte("fresh"))
		got, err := reading.Recv()
		if err != nil {
			return text(err)
		}
		return string(got.Msg)
	}},
	{"REST: create, again, delete, again", `200 {"success":{"desc":null}}, 409 6, 200 {}, 500 2`, func(t *target) string {
		id := fresh(64)
		head := func(answer string) string {
			parts := strings.SplitN(answer, " ", 3)
			if len(parts) > 2 {
				parts = parts[:2]
			}
			return strings.Join(parts, " ")
		}
		return strings.Join([]string{
			head(t.rest("POST", "", restAuth(id))), head(t.rest("POST", "", restAuth(id))),
			head(t.rest("DELETE", "", restAuth(id))), head(t.rest("DELETE", "", restAuth(id))),
		}, ", ")
	}},
	{"REST: the text of the second creation", "409 6 stream already active", func(t *target) string {
		id := fresh(64)
		t.rest("POST", "", restAuth(id))
		return t.rest("POST", "", restAuth(id))
	}},
	{"WebSocket: read an unknown stream", "error 2 stream not found", func(t *target) string {
		socket := t.socket("/receive")
		init := `{"stream_id":"` + base64.StdEncoding.EncodeToString(fresh(64)) + `"}`
		check(socket.Write(t.ctx, websocket.MessageText, []byte(init)), "write")
		return t.received(socket)
	}},
	{"WebSocket: a message as text", "hello?>", func(t *target) string {
		return t.overWebSocket(websocket.MessageText, base64.StdEncoding)
	}},
	{"WebSocket: binary frames, the URL's base64", "hello?>", func(t *target) string {
		return t.overWebSocket(websocket.MessageBinary, base64.URLEncoding)
	}},
	{"WebSocket: a second reader", "error 2 read stream occupied", func(t *target) string {
		id := fresh(64)
		check(t.create(id), "create")
		_, _ = t.read(id)
		time.Sleep(100 * time.Millisecond)
		socket := t.socket("/receive")
		init := `{"stream_id":"` + base64.StdEncoding.EncodeToString(id) + `"}`
		check(socket.Write(t.ctx, websocket.MessageText, []byte(init)), "write")
		return t.received(socket)
	}},
	{"WebSocket: a second writer is told and closed", "closed", func(t *target) string {
		id := fresh(64)
		check(t.create(id), "create")
		_, _ = t.write(id, nil)
		time.Sleep(100 * time.Millisecond)
		socket := t.socket("/send")
		init := `{"desc":{"stream_id":"` + base64.StdEncoding.EncodeToString(id) + `"},"msg":""}`
		check(socket.Write(t.ctx, websocket.MessageText, []byte(init)), "write")
		_, _, _ = socket.Read(t.ctx)
		if t.ctx.Err() != nil {
			return "open"
		}
		_, _, err := socket.Read(t.ctx)
		if err != nil && t.ctx.Err() == nil {
			return "closed"
		}
		return "open"
	}},
	// The last one: stock mailboxes do not outlive it.
	{"write without a descriptor", "2 cipher box descriptor required", func(t *target) string {
		stream, err := t.client.SendStream(t.ctx)
		check(err, "write")
		_ = stream.Send(&hashmailrpc.CipherBox{})
		return text(stream.RecvMsg(new(hashmailrpc.CipherBoxDesc)))
	}},
}
