package apiserver

import (
	"context"
	"errors"
	"net/http"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// kinds says which code an error gets; the first match counts.
var kinds = []struct {
	err  error
	code string
}{
	{errBody, api.CodeInvalid},
	{api.ErrNoSuchUnit, api.CodeNotFound},
	{api.ErrAmbiguous, api.CodeAmbiguous},
	{api.ErrExists, api.CodeConflict},
	{api.ErrNotRunning, api.CodeNotRunning},
	{api.ErrTimeout, api.CodeTimeout},
	{api.ErrForbidden, api.CodeForbidden},
	{runtime.ErrCommand, api.CodeCommandNotFound},
	{runtime.ErrNotExecutable, api.CodeNotExecutable},
	{runtime.ErrNotRunning, api.CodeNotRunning},
	{image.ErrNotFound, api.CodeImageNotFound},
	{api.ErrNoSuchImage, api.CodeImageNotFound},
	{image.ErrInUse, api.CodeConflict},
	{api.ErrNoSuchOperation, api.CodeNoOperation},
	{api.ErrAborted, api.CodeAborted},
	{image.ErrUntrusted, api.CodeUntrusted},
	{image.ErrCorrupt, api.CodeCorrupt},
	{image.ErrNoSpace, api.CodeNoSpace},
	{image.ErrInvalid, api.CodeInvalid},
	{api.ErrInvalid, api.CodeInvalid},
	{api.ErrUnavailable, api.CodeUnavailable},
	{context.DeadlineExceeded, api.CodeTimeout},
	{context.Canceled, api.CodeUnavailable},
}

// statuses gives each code its HTTP status; the rest is 500.
var statuses = map[string]int{
	api.CodeInvalid:         http.StatusBadRequest,
	api.CodeAmbiguous:       http.StatusBadRequest,
	api.CodeForbidden:       http.StatusForbidden,
	api.CodeNotFound:        http.StatusNotFound,
	api.CodeImageNotFound:   http.StatusNotFound,
	api.CodeNoOperation:     http.StatusNotFound,
	api.CodeNoFile:          http.StatusNotFound,
	api.CodeAborted:         http.StatusConflict,
	api.CodeUntrusted:       http.StatusForbidden,
	api.CodeCorrupt:         http.StatusUnprocessableEntity,
	api.CodeNoSpace:         http.StatusInsufficientStorage,
	api.CodeConflict:        http.StatusConflict,
	api.CodeNotRunning:      http.StatusConflict,
	api.CodeCommandNotFound: http.StatusUnprocessableEntity,
	api.CodeNotExecutable:   http.StatusUnprocessableEntity,
	api.CodeUnavailable:     http.StatusServiceUnavailable,
	api.CodeShuttingDown:    http.StatusServiceUnavailable,
	api.CodeTimeout:         http.StatusGatewayTimeout,
}

// toAPI is the error as the wire carries it.
func toAPI(err error) *api.Error {
	e := &api.Error{Code: api.CodeInternal}
	var given *api.Error
	var mistakes unit.Errors
	var mistake *unit.Error
	switch {
	case errors.As(err, &given):
		*e = *given
	case errors.As(err, &mistakes), errors.As(err, &mistake):
		e.Code = api.CodeInvalid
	default:
		for _, k := range kinds {
			if errors.Is(err, k.err) {
				e.Code = k.code
				break
			}
		}
	}
	e.Message = err.Error() // with what the layers above an *api.Error added
	return e
}

func writeError(w http.ResponseWriter, e *api.Error) {
	status, ok := statuses[e.Code]
	if !ok {
		status = http.StatusInternalServerError
	}
	writeJSON(w, status, e)
}
