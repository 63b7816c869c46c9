// log_verify judges what the log shows, by the code of Go's checksum database.
// For each line of its input it writes "ok", or why that is refused:
//	checkpoint KEY NOTE         a signed note, whose root is remembered by its size
//	proof KEY PROOF             a tlog-proof: its entry is in the tree of its note
//	consistency OLD NEW HASH... the tree of size OLD is the beginning of that of size NEW
//
// NOTE, PROOF, HASH are base64.
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

var roots = map[int64]tlog.Hash{}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func decode(text string) []byte { return must(base64.StdEncoding.DecodeString(text)) }
func number(text string) int64  { return must(strconv.ParseInt(text, 10, 64)) }

func hashes(texts []string) (list []tlog.Hash) {
	for _, text := range texts {
		list = append(list, must(tlog.ParseHash(text)))
	}
	return list
}

func checkpoint(key string, text []byte) (int64, tlog.Hash) {
	verifier := must(note.NewVerifier(key))
	lines := strings.Split(must(note.Open(text, note.VerifierList(verifier))).Text, "\n")
	if lines[0] != verifier.Name() || len(lines) != 4 {
		panic("another log's checkpoint")
	}
	return number(lines[1]), hashes(lines[2:3])[0]
}

func judge(word []string) (verdict any) {
	defer func() { verdict = recover() }()
	switch word[0] {
	case "checkpoint":
		size, root := checkpoint(word[1], decode(word[2]))
		roots[size] = root
	case "proof":
		parts := bytes.SplitN(decode(word[2]), []byte("\n\n"), 2)
		size, root := checkpoint(word[1], parts[1])
		head := strings.Split(strings.Split("\n"+string(parts[0]), "\nc2sp.org/tlog-proof@v1\n")[1], "\n")
		entry := bytes.SplitAfter(decode(strings.TrimPrefix(head[0], "extra ")), []byte("\n\n"))[0]
		index, leaf := number(strings.TrimPrefix(head[1], "index ")), tlog.RecordHash(entry[:len(entry)-1])
		must(0, tlog.CheckRecord(hashes(head[2:]), size, root, index, leaf))
	case "consistency":
		before, after := number(word[1]), number(word[2])
		must(0, tlog.CheckTree(hashes(word[3:]), after, roots[after], before, roots[before]))
	}
	return
}

func main() {
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		if reason := judge(strings.Fields(input.Text())); reason != nil {
			fmt.Println("refused:", reason)
		} else {
			fmt.Println("ok")
		}
	}
}
