package api

import (
	"net/http"
	"strings"
)

// known reports whether there is such a call: what else is matched is the page.
func (m *Mux) known(r *http.Request) bool {
	_, pattern := m.mux.Handler(r)
	return strings.Contains(pattern, " "+Prefix+"/")
}

// answerUnknown answers a call that there is not, in the shape of all answers.
func (m *Mux) answerUnknown(w http.ResponseWriter, r *http.Request) {
	var methods []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut} {
		other := r.Clone(r.Context())
		if other.Method = method; m.known(other) {
			methods = append(methods, method)
		}
	}
	no := NotFound("call")
	if len(methods) > 0 {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		no = &Error{Status: http.StatusMethodNotAllowed, Code: "bad_request", Msg: "want " + strings.Join(methods, " or ") + ", not " + r.Method}
	}
	writeError(w, no, newTrace())
}
