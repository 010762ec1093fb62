package sqltest

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/idgen"
	"github.com/spillway-go/spillway/internal/sqldb"
)

// child runs what a test asks of another process, and reports whether this is one:
// it takes ids of a Segment and writes them down, a line a goroutine's run of ids, until
// it has enough or is killed.
func child() bool {
	job := strings.Split(os.Getenv("SPILLWAY_SQLTEST_CHILD"), "\n")
	if len(job) != 5 {
		return false
	}
	db, err := sql.Open(job[0], job[1])
	check(err)
	dialect, err := strconv.Atoi(job[2])
	check(err)
	goroutines, err := strconv.Atoi(job[3])
	check(err)
	n, err := strconv.Atoi(job[4])
	check(err)
	store, err := idgen.SQLStore(db, sqldb.Dialect(dialect), idgen.Atomic)
	check(err)
	s, err := idgen.NewSegment(store, "order", idgen.Options{MinStep: 500, MaxStep: 5000})
	check(err)
	out := bufio.NewWriterSize(os.Stdout, 1<<16)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			line := []byte{}
			for left := n; left > 0; {
				line = line[:0]
				for range min(left, 100) {
					id, err := s.Next(context.Background())
					check(err)
					line = strconv.AppendInt(line, id, 10)
					line = append(line, ' ')
				}
				left -= min(left, 100)
				mu.Lock()
				_, err := out.Write(append(line, '\n'))
				check(err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	check(out.Flush())
	check(s.Close(context.Background()))
	return true
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Processes that share a database, some of them killed, hand out no id twice.
func TestSegmentProcesses(t *testing.T) {
	processes, goroutines, each := 4, 16, 1000
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		processes, goroutines, each = 8, 64, 20_000 // 10^7 ids
	}
	Each(t, func(t *testing.T, db Database) {
		idStore(t, db, idgen.Atomic)
		driver, dsn := db.Names()
		var mu sync.Mutex
		seen := map[int64]bool{}
		duplicates, total := 0, 0
		var wg sync.WaitGroup
		for p := range processes + 2 {
			cmd := exec.Command(os.Args[0])
			job := []string{driver, dsn, strconv.Itoa(int(db.Dialect)), strconv.Itoa(goroutines), strconv.Itoa(each)}
			cmd.Env = append(os.Environ(), "SPILLWAY_SQLTEST_CHILD="+strings.Join(job, "\n"))
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, start(cmd))
			wg.Go(func() {
				lines := bufio.NewReader(out)
				for i := 0; ; i++ {
					line, err := lines.ReadString('\n')
					if err != nil {
						break // a line without an end was cut by the kill
					}
					if p >= processes && i == 5*(p-processes)+3 {
						_ = cmd.Process.Kill()
					}
					mu.Lock()
					for field := range strings.FieldsSeq(line) {
						id, err := strconv.ParseInt(field, 10, 64)
						if err != nil {
							t.Errorf("%q: %v", line, err)
						}
						if seen[id] {
							duplicates++
						}
						seen[id] = true
						total++
					}
					mu.Unlock()
				}
				if err := cmd.Wait(); err != nil && p < processes {
					t.Error(err)
				}
			})
		}
		began := time.Now()
		wg.Wait()
		require.Zero(t, duplicates)
		require.GreaterOrEqual(t, total, processes*goroutines*each)
		t.Logf("%d ids of %d processes, 2 of them killed, in %v", total, processes+2, time.Since(began))
	})
}
