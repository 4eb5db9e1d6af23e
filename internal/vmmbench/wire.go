package vmmbench

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
)

// WriteRecords writes records as lines of JSON, a Record or one of another
// benchmark each.
func WriteRecords[R any](w io.Writer, records []R) error {
	enc := json.NewEncoder(w)
	for _, r := range records {
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// ReadRecords reads what WriteRecords wrote; with an error those before it.
func ReadRecords[R any](r io.Reader) ([]R, error) {
	var records []R
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var rec R
		if err := json.Unmarshal(lines.Bytes(), &rec); err != nil {
			return records, fmt.Errorf("record %q: %w", lines.Text(), err)
		}
		records = append(records, rec)
	}
	return records, lines.Err()
}

// Arguments are the command line that sets what fs has now: how a host tells its
// driver in the lab what to do.
func Arguments(fs *flag.FlagSet) []string {
	var args []string
	fs.VisitAll(func(f *flag.Flag) { args = append(args, "-"+f.Name+"="+f.Value.String()) })
	return args
}
