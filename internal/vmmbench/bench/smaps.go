package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/duplex-run/duplex/internal/vmmbench"
)

// machineMemory adds up the memory of processes and of all their descendants.
// A mapping as large as the guest's memory is the guest's memory.
func machineMemory(pids []int, guest int64) (*vmmbench.Memory, error) {
	all, err := descendants(pids)
	if err != nil {
		return nil, err
	}
	m := &vmmbench.Memory{Processes: len(all)}
	for _, pid := range all {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := addSmaps(m, text, guest); err != nil {
			return nil, fmt.Errorf("process %d: %w", pid, err)
		}
	}
	return m, nil
}

// addSmaps adds the mappings of one /proc/PID/smaps (proc_pid_smaps(5)).
func addSmaps(m *vmmbench.Memory, text []byte, guest int64) error {
	var name string
	var size, swap int64
	add := new(int64)
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 {
			continue
		}
		key, isField := strings.CutSuffix(fields[0], ":")
		if !isField { // "start-end perms offset dev inode name"
			name = ""
			if len(fields) > 5 {
				name = fields[5]
			}
			continue
		}
		if len(fields) < 3 || fields[2] != "kB" {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return err
		}
		n <<= 10
		switch key {
		case "Size":
			size = n
			add = kindOf(m, name, size, guest)
		case "Pss":
			*add += n
		case "Anonymous":
			if add != &m.Guest {
				m.Private += n
			}
		case "Swap":
			swap += n
		}
	}
	if swap > 0 {
		return errors.New("is swapped out in part")
	}
	return lines.Err()
}

func kindOf(m *vmmbench.Memory, name string, size, guest int64) *int64 {
	switch {
	case size >= guest && size < guest+guest/4:
		return &m.Guest
	case name == "" || strings.HasPrefix(name, "["):
		return &m.Heap
	case strings.HasPrefix(name, "/") && !strings.HasPrefix(name, "/memfd:") && !strings.HasPrefix(name, "/dev/"):
		return &m.Program
	}
	return &m.Other
}

// descendants returns pids and the processes below them.
func descendants(pids []int) ([]int, error) {
	parents := map[int]int{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // has ended
		}
		pid, perr := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		_, rest, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')')+1:]), " ")
		fields := strings.Fields(rest)
		if perr != nil || len(fields) < 2 {
			continue
		}
		if parents[pid], err = strconv.Atoi(fields[1]); err != nil {
			return nil, err
		}
	}
	all := slices.Clone(pids)
	for grown := true; grown; {
		grown = false
		for pid, parent := range parents {
			if slices.Contains(all, parent) && !slices.Contains(all, pid) {
				all, grown = append(all, pid), true
			}
		}
	}
	return all, nil
}
