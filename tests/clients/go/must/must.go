// Package must ends a client program with what went wrong.
package must

import (
	"fmt"
	"os"
)

// Check prints FAIL and exits 1 unless ok.
func Check(ok bool, format string, args ...any) {
	if !ok {
		fmt.Fprintf(os.Stderr, "FAIL: "+format+"\n", args...)
		os.Exit(1)
	}
}

// Value of a call that may not fail.
func Value[T any](v T, err error) T {
	Check(err == nil, "%v", err)
	return v
}
