// Package stock sells what there is and never more.
package stock
