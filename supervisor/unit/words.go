package unit

import (
	"strings"
)

// splitWords splits a command line as a shell does: at blanks, with quotes and
// backslashes, without expanding anything.
func splitWords(text string) ([]string, error) {
	var (
		out   []string
		word  strings.Builder
		open  bool // a word has begun, empty quotes included
		quote rune
	)
	runes := []rune(text)
	for i := 0; i < len(runes); i++ {
		r := runes[i]
		switch {
		case r == '\\' && quote != '\'':
			if i++; i == len(runes) {
				return nil, faultf("", "a backslash at the end")
			}
			// Within double quotes a backslash only guards what is special there.
			if quote == '"' && !strings.ContainsRune("\"\\$`\n", runes[i]) {
				word.WriteByte('\\')
			}
			if runes[i] != '\n' { // a continued line
				word.WriteRune(runes[i])
				open = true
			}
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, open = r, true
		case r == ' ' || r == '\t' || r == '\n' || r == '\r':
			if open {
				out = append(out, word.String())
				word.Reset()
				open = false
			}
		default:
			word.WriteRune(r)
			open = true
		}
	}
	if quote != 0 {
		return nil, faultf("", "a quote %c is not closed", quote)
	}
	if open {
		out = append(out, word.String())
	}
	return out, nil
}

// joinWords is the inverse of splitWords, for people.
func joinWords(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = w
		if w == "" || strings.ContainsAny(w, " \t\r\n'\"\\$`&|;<>()*?[]#~!{}") {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}
