package apiserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// errBody is what is wrong with a request as such.
var errBody = errors.New("request body")

// readJSON reads the request's body into v. An unknown field is an error: it
// is a newer client's wish that we would silently not fulfil.
func readJSON(r *http.Request, v any) error {
	if r.ContentLength > maxBody {
		return fmt.Errorf("%w: more than %d bytes", errBody, maxBody)
	}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			return fmt.Errorf("%w: more than %d bytes", errBody, tooLarge.Limit)
		}
		return fmt.Errorf("%w: %w", errBody, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: more than one JSON value", errBody)
	}
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the caller has gone: nobody to tell
}

// reply writes v unless there is an error to return.
func reply(w http.ResponseWriter, v any, err error) error {
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, v)
	return nil
}
