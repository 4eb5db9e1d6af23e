package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/microvm"
)

// options calls take for each of the comma-separated KEY or KEY=VALUE in s after
// the first, which it returns.
func options(s string, take func(key, value string) error) (string, error) {
	first, rest, _ := strings.Cut(s, ",")
	if first == "" {
		return "", errors.New("is empty")
	}
	for rest != "" {
		var o string
		o, rest, _ = strings.Cut(rest, ",")
		key, value, _ := strings.Cut(o, "=")
		if err := take(key, value); err != nil {
			return "", err
		}
	}
	return first, nil
}

func unknownOption(key string) error { return fmt.Errorf("unknown option %q", key) }

func parseDisk(s string) (d microvm.Disk, err error) {
	d.Path, err = options(s, func(key, value string) (err error) {
		switch key {
		case "ro":
			d.ReadOnly = true
		case "direct":
			d.Direct = true
		case "serial":
			d.ID = value
			if len(value) > 20 {
				err = errors.New("a serial number has at most 20 bytes")
			}
		case "queues":
			d.Queues, err = number[int](value, 32)
		case "bps":
			d.BytesPerSecond, err = bytesPerSecond(value)
		case "iops":
			d.OpsPerSecond, err = number[uint64](value, 1<<30)
		default:
			err = unknownOption(key)
		}
		return err
	})
	return d, err
}

// parseNet takes tap=NAME or user, and options. run has the same kinds, and none.
func parseNet(s string) (n microvm.Network, err error) {
	kind, err := options(s, func(key, value string) (err error) {
		switch key {
		case "mac":
			n.MAC, err = net.ParseMAC(value)
		case "address":
			n.Address, err = netip.ParsePrefix(value)
		case "gateway":
			n.Gateway, err = netip.ParseAddr(value)
		case "dns":
			n.DNS, err = netip.ParseAddr(value)
		case "bps":
			n.BytesPerSecond, err = bytesPerSecond(value)
		case "pps":
			n.PacketsPerSecond, err = number[uint64](value, 1<<30)
		default:
			err = unknownOption(key)
		}
		return err
	})
	if err != nil {
		return n, err
	}
	name, isTap := strings.CutPrefix(kind, "tap=")
	switch {
	case isTap && (name == "" || len(name) > 15):
		return n, errors.New("the name of an interface has 1 to 15 bytes")
	case isTap:
		n.Tap = name
	case kind != "user":
		return n, errors.New("want tap=NAME or user")
	}
	return n, nil
}

func parseShare(s string) (microvm.Share, error) {
	rest, ro := strings.CutSuffix(s, ":ro")
	i := strings.LastIndexByte(rest, ':')
	if i <= 0 || i == len(rest)-1 {
		return microvm.Share{}, errors.New("want DIR:TAG or DIR:TAG:ro")
	}
	return microvm.Share{Dir: rest[:i], Tag: rest[i+1:], ReadOnly: ro}, nil
}

// number reads a positive number up to limit.
func number[T int | uint64](s string, limit T) (T, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || n == 0 || n > uint64(limit) {
		return 0, fmt.Errorf("%q is not a number from 1 to %d", s, limit)
	}
	return T(n), nil
}

func bytesPerSecond(s string) (uint64, error) {
	n, err := units.RAMInBytes(s)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	return uint64(n), nil
}

// maxConfig bounds a --config file, in bytes.
const maxConfig = 1 << 20

// readConfig sets the flags that the command line left alone to what a JSON file
// says: an object whose keys are the flags' names, and whose values are strings,
// numbers, booleans, or arrays of strings for flags that may be given repeatedly.
// Unknown keys are errors.
func readConfig(fs *pflag.FlagSet, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return err
	}
	if len(data) > maxConfig {
		return fmt.Errorf("is longer than %d bytes", maxConfig)
	}
	return applyConfig(fs, data)
}

func applyConfig(fs *pflag.FlagSet, data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var keys map[string]any
	if err := dec.Decode(&keys); err != nil {
		return fmt.Errorf("is not a JSON object: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("goes on after the JSON object")
	}
	given := map[string]bool{}
	fs.Visit(func(f *pflag.Flag) { given[f.Name] = true })
	for key, value := range keys {
		flag := fs.Lookup(key)
		if flag == nil || flag.Hidden || key == "config" {
			return fmt.Errorf("unknown key %q: the keys are the names of the flags", key)
		}
		if given[key] {
			continue
		}
		if err := setFlag(fs, flag, value); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
	}
	return nil
}

func setFlag(fs *pflag.FlagSet, flag *pflag.Flag, value any) error {
	list, isList := value.([]any)
	switch {
	case isList && flag.Value.Type() != "stringArray":
		return errors.New("takes one value, not a list")
	case !isList:
		list = []any{value}
	}
	for _, v := range list {
		switch v := v.(type) {
		case string:
			if err := fs.Set(flag.Name, v); err != nil {
				return err
			}
		case json.Number, bool:
			if err := fs.Set(flag.Name, fmt.Sprint(v)); err != nil {
				return err
			}
		default:
			return errors.New("want a string, a number or a boolean")
		}
	}
	return nil
}
