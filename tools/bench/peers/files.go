// Files and processes in Go, for tools/compare, which builds it: go build -o PROGRAM files.go
//
//	PROGRAM WORKLOAD PROCS
//
// The workloads are those of files.cpp and process.cpp. A result is one line, `name value unit [min
// max]`, the median of BENCH_REPS (5) repetitions after one that warms up.
package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sort"
	"strconv"
	"sync"
	"time"
)

const (
	reads            = 100000
	small            = 64
	block            = 4096
	blocks           = 8192
	filesInTree      = 100000
	namesInDirectory = 100
	processes        = 1000
	resident         = 2 << 30
	atOnce           = 4
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func repeat(name, unit string, measure func() float64) {
	count := 5
	if given, err := strconv.Atoi(os.Getenv("BENCH_REPS")); err == nil && given > 0 {
		count = given
	}
	measure()
	values := make([]float64, count)
	for i := range values {
		values[i] = measure()
	}
	sort.Float64s(values)
	fmt.Printf("%s %.6g %s %.6g %.6g\n", name, values[count/2], unit, values[0], values[count-1])
}

// A file in the page cache, open for reading.
func withFile(size int, use func(*os.File)) {
	made, err := os.CreateTemp("", "weft-bench-")
	must(err)
	defer os.Remove(made.Name())
	_, err = made.Write(make([]byte, size))
	must(err)
	must(made.Close())
	in, err := os.Open(made.Name())
	must(err)
	defer in.Close()
	use(in)
}

// One small read after the other: through a buffer, and each by the system.
func fileReads() {
	measure := func(wrap func(*os.File) io.Reader) func() float64 {
		return func() (value float64) {
			withFile(reads*small, func(file *os.File) {
				in := wrap(file)
				space := make([]byte, small)
				begin := time.Now()
				for i := 0; i < reads; i++ {
					_, err := io.ReadFull(in, space)
					must(err)
				}
				value = float64(time.Since(begin).Nanoseconds()) / reads
			})
			return
		}
	}
	repeat("file_reads", "ns",
		measure(func(file *os.File) io.Reader { return bufio.NewReaderSize(file, 16384) }))
	repeat("file_reads_unbuffered", "ns",
		measure(func(file *os.File) io.Reader { return file }))
}

// Blocks anywhere in a file, per seek and read.
func fileReadsRandom() {
	repeat("file_reads_random", "ns", func() (value float64) {
		withFile(blocks*block, func(file *os.File) {
			space := make([]byte, block)
			random := rand.New(rand.NewSource(1))
			begin := time.Now()
			for i := 0; i < reads; i++ {
				_, err := file.Seek(random.Int63n(blocks)*block, io.SeekStart)
				must(err)
				_, err = io.ReadFull(file, space)
				must(err)
			}
			value = float64(time.Since(begin).Nanoseconds()) / reads
		})
		return
	})
}

func makeTree(root string) {
	for i := 0; i < filesInTree; i++ {
		in := filepath.Join(root, strconv.Itoa(i/namesInDirectory))
		if i%namesInDirectory == 0 {
			must(os.Mkdir(in, 0777))
		}
		file, err := os.Create(filepath.Join(in, strconv.Itoa(i)))
		must(err)
		must(file.Close())
	}
}

// A tree of so many files from one end to the other.
func walkTree() {
	root, err := os.MkdirTemp("", "weft-bench-")
	must(err)
	defer os.RemoveAll(root)
	makeTree(root)
	repeat("walk_tree", "ms", func() float64 {
		found := 0
		begin := time.Now()
		must(filepath.WalkDir(root, func(_ string, entry fs.DirEntry, err error) error {
			must(err)
			if !entry.IsDir() {
				found++
			}
			return nil
		}))
		value := time.Since(begin).Seconds() * 1e3
		if found != filesInTree {
			panic("a walk was short")
		}
		return value
	})
}

// Short processes, one after the other and a few at once, beside 2 GiB in use.
func processesBesideMemory() {
	debug.SetGCPercent(-1)
	ballast := make([]byte, resident)
	for i := 0; i < len(ballast); i += os.Getpagesize() {
		ballast[i] = 1
	}
	perProcess := func(begin time.Time) float64 {
		return float64(time.Since(begin).Nanoseconds()) / 1e3 / processes
	}
	repeat("processes_2gib_one_by_one", "us", func() float64 {
		begin := time.Now()
		for i := 0; i < processes; i++ {
			must(exec.Command("/bin/true").Run())
		}
		return perProcess(begin)
	})
	repeat(fmt.Sprintf("processes_2gib_%d", atOnce), "us", func() float64 {
		begin := time.Now()
		left := make(chan struct{}, processes)
		for i := 0; i < processes; i++ {
			left <- struct{}{}
		}
		close(left)
		var all sync.WaitGroup
		for i := 0; i < atOnce; i++ {
			all.Add(1)
			go func() {
				defer all.Done()
				for range left {
					must(exec.Command("/bin/true").Run())
				}
			}()
		}
		all.Wait()
		return perProcess(begin)
	})
	runtime.KeepAlive(ballast)
}

func main() {
	workloads := map[string]func(){
		"file_reads":        fileReads,
		"file_reads_random": fileReadsRandom,
		"walk_tree":         walkTree,
		"processes_2gib":    processesBesideMemory,
	}
	if len(os.Args) != 3 || workloads[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: files WORKLOAD PROCS")
		os.Exit(2)
	}
	procs, err := strconv.Atoi(os.Args[2])
	must(err)
	runtime.GOMAXPROCS(procs)
	workloads[os.Args[1]]()
}
