// List what Go's archive/tar reads from each archive named on standard input.
package main

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
)

type entry struct {
	Name, Linkname []byte // base64 in JSON, whatever bytes they have
	Type           string
	Size           int64
	Mode           int64
	Uid, Gid       int
	Mtime          int64
	Major, Minor   int64
	Records        map[string][]byte
	Sha256         string // of contents up to LARGE, "" beyond
}

const LARGE = 1 << 26 // holes may be of any size

func list(name string) ([]entry, string) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err.Error()
	}
	defer file.Close()
	entries, reader := []entry{}, tar.NewReader(file)
	for {
		h, err := reader.Next()
		if err == io.EOF {
			return entries, ""
		}
		if err != nil {
			return entries, err.Error()
		}
		records := map[string][]byte{}
		for key, value := range h.PAXRecords {
			records[key] = []byte(value)
		}
		hash, sum := sha256.New(), ""
		if h.Size <= LARGE {
			if _, err := io.Copy(hash, reader); err != nil {
				return entries, err.Error()
			}
			sum = hex.EncodeToString(hash.Sum(nil))
		}
		entries = append(entries, entry{
			[]byte(h.Name), []byte(h.Linkname), string(h.Typeflag), h.Size, h.Mode,
			h.Uid, h.Gid, h.ModTime.Unix(), h.Devmajor, h.Devminor, records, sum,
		})
	}
}

func main() {
	names, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for names.Scan() {
		entries, failure := list(names.Text())
		out.Encode(map[string]any{"entries": entries, "error": failure})
	}
}
