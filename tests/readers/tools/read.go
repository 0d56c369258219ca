// Go's archive/tar: print each member of the archive os.Args[1] to the file os.Args[2],
// as a line of JSON with bytes in base64.
package main

import (
	"archive/tar"
	"encoding/json"
	"io"
	"log"
	"os"
	"strings"
)

const prefix = "SCHILY.xattr."

type member struct {
	Name     []byte            `json:"name"`
	Type     string            `json:"type"`
	Linkname []byte            `json:"linkname"`
	Data     []byte            `json:"data"`
	Mode     int64             `json:"mode"`
	Uid      int               `json:"uid"`
	Gid      int               `json:"gid"`
	Mtime    int64             `json:"mtime"`
	Devmajor int64             `json:"devmajor"`
	Devminor int64             `json:"devminor"`
	Xattrs   map[string][]byte `json:"xattrs"`
}

func main() {
	in, err := os.Open(os.Args[1])
	check(err)
	out, err := os.Create(os.Args[2])
	check(err)
	reader, lines := tar.NewReader(in), json.NewEncoder(out)
	for {
		h, err := reader.Next()
		if err == io.EOF {
			return
		}
		check(err)
		data, err := io.ReadAll(reader)
		check(err)
		xattrs := map[string][]byte{}
		for key, value := range h.PAXRecords {
			if strings.HasPrefix(key, prefix) {
				xattrs[key[len(prefix):]] = []byte(value)
			}
		}
		check(lines.Encode(member{
			[]byte(h.Name), string(h.Typeflag), []byte(h.Linkname), data, h.Mode & 07777,
			h.Uid, h.Gid, h.ModTime.Unix(), h.Devmajor, h.Devminor, xattrs,
		}))
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
