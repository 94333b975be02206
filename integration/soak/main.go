package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// options of a soak.
type options struct {
	duration time.Duration
	warmup   time.Duration // 0: a part of the duration
	units    int
	workers  int
	seed     uint64
	bin      string // folder of the programs
	keep     bool   // the folder, for a look at its logs
	say      func(format string, args ...any)
}

func main() {
	o := options{duration: 10 * time.Minute}
	o.say = func(format string, args ...any) {
		fmt.Printf("%s "+format+"\n", append([]any{time.Now().Format("15:04:05")}, args...)...)
	}
	sweep := flag.String("sweep", "", "take away what is left of the soak in this folder, and nothing else")
	flag.IntVar(&o.units, "units", 100, "how many units")
	flag.IntVar(&o.workers, "workers", 0, "operations at a time; 0: by the number of units")
	flag.Uint64Var(&o.seed, "seed", 0, "replays the choices of another soak; 0: other ones each time")
	flag.DurationVar(&o.warmup, "warmup", 0, "how long before the first measurement; 0: by the duration")
	flag.StringVar(&o.bin, "bin", "bin", "folder of wherry and wherry-keeper")
	flag.BoolVar(&o.keep, "keep", false, "keep the folder with the logs, also if all is well")
	flag.Parse()
	if *sweep != "" {
		exit(sweepAll(*sweep))
	}
	if flag.NArg() == 1 {
		d, err := time.ParseDuration(flag.Arg(0))
		if err != nil || d <= 0 {
			exit(fmt.Errorf("DURATION %q: want something like 10m", flag.Arg(0)))
		}
		o.duration = d
	}
	if flag.NArg() > 1 || o.units < 1 {
		exit(fmt.Errorf("usage: soak [flags] [DURATION]"))
	}
	if os.Geteuid() != 0 {
		exit(fmt.Errorf("containers need root"))
	}
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		exit(err)
	}
	o.bin = bin
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err = run(ctx, o)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = errors.New("interrupted; everything is taken away")
	}
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// newRand is a source of choices of its own for each part of a soak.
func newRand(seed uint64, part uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, part)) }
