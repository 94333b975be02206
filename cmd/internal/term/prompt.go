package term

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Confirm asks a yes-or-no question; anything but yes is no.
func Confirm(in io.Reader, s Stream, question string) (bool, error) {
	fmt.Fprintf(s, "%s [y/N] ", question)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && line == "" {
		fmt.Fprintln(s)
		return false, nil // the end of input is a no
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}
