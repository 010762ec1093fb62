package main

import (
	"context"
	"flag"
	"io"
	"os"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/chaos"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// breakage is the command chaos.
func breakage(fs *flag.FlagSet) func(context.Context, io.Writer) error {
	cfg := infra.Config{Hold: 3 * time.Second}
	cfg.Flags(fs)
	opts := chaos.Options{Logs: io.Discard}
	fs.IntVar(&opts.Customers, "n", 2000, "customers")
	fs.Int64Var(&opts.Units, "units", 1700, "what they want")
	fs.Uint64Var(&opts.Seed, "seed", uint64(time.Now().UnixNano()), "of the order in which things break")
	fs.DurationVar(&opts.Every, "every", 2*time.Second, "from one fault to the next")
	verbose := fs.Bool("v", false, "show the logs of the servers")
	return func(ctx context.Context, out io.Writer) error {
		if *verbose {
			opts.Logs = os.Stderr
		}
		return chaos.Run(ctx, cfg, opts, out)
	}
}
