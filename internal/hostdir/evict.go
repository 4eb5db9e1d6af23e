package hostdir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// evictAfter is how long a cache file stays whatever room it takes: its user
// has surely opened it by then.
const evictAfter = time.Hour

// Touch says that the cache file path is in use now, for Evict.
func Touch(path string) error {
	now := time.Now()
	return os.Chtimes(path, now, now)
}

// MakeBounded is Make in a cache directory that is to hold at most keep bytes:
// when it makes path, it evicts the files that were made longest ago.
func MakeBounded(ctx context.Context, path string, keep int64, write func(*os.File) error) error {
	_, missing := os.Stat(path)
	if err := Make(ctx, path, write); err != nil || missing == nil {
		return err
	}
	return Evict(filepath.Dir(path), keep)
}

// Evict removes the files of the cache directory dir that were used longest
// ago, by Touch or since they were made, until what is left holds at most keep bytes.
func Evict(dir string, keep int64) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("evict from the cache: %w", err)
	}
	var files []os.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && filepath.Ext(e.Name()) != partSuffix {
			files = append(files, info)
		}
	}
	slices.SortFunc(files, func(a, b os.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	var total int64
	for _, info := range files {
		total += info.Size()
		if total <= keep || time.Since(info.ModTime()) < evictAfter {
			continue
		}
		if err := os.Remove(filepath.Join(dir, info.Name())); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("evict from the cache: %w", err)
		}
	}
	return nil
}
