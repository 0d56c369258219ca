// List what Go's archive/tar reads from each archive named on standard input.
package main

import (
	"archive/tar"
	"bufio"
	"encoding/json"
	"io"
	"os"
)

type entry struct {
	Name []byte // base64 in JSON, whatever bytes it has
	Type string
	Size int64
}

func list(name string) ([]entry, string) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err.Error()
	}
	defer file.Close()
	entries, reader := []entry{}, tar.NewReader(file)
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return entries, ""
		}
		if err != nil {
			return entries, err.Error()
		}
		entries = append(entries, entry{[]byte(header.Name), string(header.Typeflag), header.Size})
	}
}

func main() {
	names, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for names.Scan() {
		entries, failure := list(names.Text())
		out.Encode(map[string]any{"entries": entries, "error": failure})
	}
}
