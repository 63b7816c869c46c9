// log_witness is a witness as tests need one: it keeps a checkpoint, and cosigns
// (c2sp.org/tlog-cosignature) what continues it.  It reads lines:
//
//	key NAME                   makes a key; writes name+id+key
//	cosign KEY NOTE [HASH...]  the line for a NOTE of the log's KEY that continues
//	                           the last one, as the proof says, or "refused: why"
//
// NOTE and HASH are base64.
package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

var (
	name    string
	private ed25519.PrivateKey
	id      []byte
	size    int64
	root    tlog.Hash
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func encode(parts ...[]byte) string {
	return base64.StdEncoding.EncodeToString(bytes.Join(parts, nil))
}

func cosign(key string, text []byte, proof []string) string {
	opened := must(note.Open(text, note.VerifierList(must(note.NewVerifier(key)))))
	lines := strings.Split(opened.Text, "\n")
	newSize, newRoot := must(strconv.ParseInt(lines[1], 10, 64)), must(tlog.ParseHash(lines[2]))
	var hashes tlog.TreeProof
	for _, hash := range proof {
		hashes = append(hashes, must(tlog.ParseHash(hash)))
	}
	if size > 0 {
		must(0, tlog.CheckTree(hashes, newSize, newRoot, size, root))
	}
	size, root = newSize, newRoot
	now := time.Now().Unix()
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", now, opened.Text)
	return "\u2014 " + name + " " + encode(id, binary.BigEndian.AppendUint64(nil, uint64(now)),
		ed25519.Sign(private, []byte(message)))
}

func answer(word []string) (line any) {
	defer func() {
		if reason := recover(); reason != nil {
			line = fmt.Sprint("refused: ", reason)
		}
	}()
	if word[0] == "cosign" {
		return cosign(word[1], must(base64.StdEncoding.DecodeString(word[2])), word[3:])
	}
	name = word[1]
	public, secret, _ := ed25519.GenerateKey(nil)
	hash := sha256.Sum256(append([]byte(name+"\n\x04"), public...))
	private, id = secret, hash[:4]
	return fmt.Sprintf("%s+%x+%s", name, id, encode([]byte{4}, public))
}

func main() {
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		fmt.Println(answer(strings.Fields(input.Text())))
	}
}
