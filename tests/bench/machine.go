//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// describeMachine says what the figures were measured on, without names or paths.
func (b *bench) describeMachine() []string {
	model := "unknown processor"
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(cpuinfo)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
		}
	}
	memory := 0
	meminfo, _ := os.ReadFile("/proc/meminfo")
	if fields := strings.Fields(string(meminfo)); len(fields) > 1 {
		memory, _ = strconv.Atoi(fields[1])
	}
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	kernel, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-")
	return []string{
		fmt.Sprintf("- %s, %d cores, %d GB of memory, Linux %s", model, runtime.NumCPU(), (memory+1<<19)>>20, kernel),
		fmt.Sprintf("- %s, PocketBase %s, fsync after 4 KB on this disk: %s ms", runtime.Version(), pocketBaseVersion(), ms(b.fsyncTime())),
	}
}

func pocketBaseVersion() string {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "github.com/pocketbase/pocketbase" {
			return module.Version
		}
	}
	return "unknown"
}

// fsyncTime returns the median time of an fsync in the directory of the databases.
func (b *bench) fsyncTime() time.Duration {
	file, err := os.Create(filepath.Join(b.dir, "fsync"))
	if err != nil {
		return 0
	}
	defer file.Close()
	var times []time.Duration
	for range 100 {
		file.Write(make([]byte, 4096))
		began := time.Now()
		file.Sync()
		times = append(times, time.Since(began))
	}
	return median(times)
}

// A machineTime is the processor time that has been used until now.
type machineTime struct {
	at         time.Time
	busy, ours time.Duration
}

func readMachineTime() machineTime {
	m := machineTime{at: time.Now()}
	stat, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(stat), "\n")
	for i, field := range strings.Fields(line) {
		if i == 0 || i == 4 || i == 5 || i > 8 { // the name, idle, iowait, guests
			continue
		}
		ticks, _ := strconv.Atoi(field)
		m.busy += time.Duration(ticks) * time.Second / 100
	}
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var usage syscall.Rusage
		syscall.Getrusage(who, &usage)
		m.ours += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	return m
}

// others returns the share of the machine's processors that other programs have used
// since m, the hypervisor's other guests included.
func (m machineTime) others() float64 {
	now := readMachineTime()
	others := (now.busy - m.busy) - (now.ours - m.ours)
	return max(0, float64(others)/float64(now.at.Sub(m.at))/float64(runtime.NumCPU()))
}
