// Command replay is the conformance program: it replays traces, provokes errors, draws and generates, as
// docs/conformance.md says.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"rnnx"
)

const attempts = 1_000_000 // steps after which two goroutines should have met

type arguments struct {
	files                                         []string
	set                                           map[string]bool
	entries, together                             string
	chunks, provider, feed, misuse, restore, draw string
	snapshot, text, length, temperature, seed     string
	times, after, count, omit                     int
	isJSON, flush                                 bool
}

func main() {
	parsed, err := parse(os.Args[1:])
	var result any
	if err == nil {
		result, err = replay(parsed)
	}
	if err != nil {
		var problem *rnnx.Error
		if !errors.As(err, &problem) {
			problem = usage("arguments as documented", err.Error())
		}
		if parsed.isJSON {
			show(map[string]any{"error": map[string]string{"code": problem.Code, "text": problem.Error()}}, true)
		} else {
			fmt.Fprintf(os.Stderr, "error[%s]: %s\n", problem.Code, problem)
		}
		os.Exit(2)
	}
	show(result, parsed.isJSON)
	if found, ok := result.(rnnx.Verdict); ok && !found.Agrees {
		os.Exit(1)
	}
}

// parse takes flags before and behind the files.
func parse(words []string) (*arguments, error) {
	a := &arguments{set: map[string]bool{}, isJSON: slices.Contains(words, "--json")}
	flags := flag.NewFlagSet("replay", flag.ContinueOnError)
	flags.Usage = func() {}
	flags.SetOutput(new(strings.Builder))
	for name, target := range map[string]*string{
		"chunks": &a.chunks, "provider": &a.provider, "feed": &a.feed, "misuse": &a.misuse, "restore": &a.restore,
		"draw": &a.draw, "snapshot": &a.snapshot, "text": &a.text, "length": &a.length, "temperature": &a.temperature,
		"seed": &a.seed, "entries": &a.entries, "together": &a.together,
	} {
		flags.StringVar(target, name, map[string]string{
			"chunks": "1", "provider": "cpu", "length": "0", "temperature": "1", "seed": "0"}[name], "")
	}
	flags.IntVar(&a.times, "times", 1, "")
	flags.IntVar(&a.after, "after", 0, "")
	flags.IntVar(&a.count, "count", 1, "")
	flags.IntVar(&a.omit, "omit", 0, "")
	flags.BoolVar(&a.isJSON, "json", false, "")
	flags.BoolVar(&a.flush, "flush", false, "")
	for len(words) > 0 {
		if err := flags.Parse(words); err != nil {
			return a, usage("options of docs/conformance.md", err.Error())
		}
		words = flags.Args()
		if len(words) > 0 {
			a.files, words = append(a.files, words[0]), words[1:]
		}
	}
	flags.Visit(func(f *flag.Flag) { a.set[f.Name] = true })
	return a, nil
}

func usage(expected, found string) *rnnx.Error {
	return &rnnx.Error{Code: "usage", Expected: expected, Found: found, Fix: "see docs/conformance.md"}
}

// replay does what the arguments ask for and returns what is to be printed.
func replay(a *arguments) (any, error) {
	seed, err := strconv.ParseUint(a.seed, 10, 64)
	if err != nil {
		return nil, &rnnx.Error{Code: "seed-invalid", Expected: "a seed in 0..18446744073709551615 (unsigned 64 bit)",
			Found: a.seed, Fix: "choose a seed in that range"}
	}
	if a.set["draw"] {
		return draw(a, seed)
	}
	if len(a.files) == 0 {
		return nil, usage("a model", "none")
	}
	session, err := rnnx.Open(a.files[0], rnnx.WithProvider(a.provider))
	if err != nil {
		return nil, err
	}
	defer session.Close()
	switch {
	case a.set["text"]:
		return text(a, session, seed)
	case a.set["together"]:
		return together(a, session)
	case a.set["misuse"] || a.set["feed"]:
		return feed(a, session)
	case a.set["restore"]:
		data, err := rnnx.ReadFile(a.restore, "a snapshot")
		if err != nil {
			return nil, err
		}
		stream, err := session.Stream()
		if err != nil {
			return nil, err
		}
		err = stream.Restore(data)
		return map[string]any{"position": stream.Position()}, err
	case len(a.files) < 2:
		return nil, usage("a trace, or one of --feed, --together, --misuse, --restore, --text", "none")
	}
	return compare(a, session)
}

// compare replays a trace, or the first steps of it for a snapshot.
func compare(a *arguments, session *rnnx.Session) (any, error) {
	data, err := rnnx.ReadFile(a.files[1], "a trace")
	if err != nil {
		return nil, err
	}
	replayer, err := rnnx.NewReplayer(session, data)
	if err != nil {
		return nil, err
	}
	defer replayer.Close()
	if a.set["snapshot"] {
		stream, err := replayer.ToStep(a.after)
		if err != nil {
			return nil, err
		}
		return snapshot(stream, a.snapshot)
	}
	if a.set["entries"] {
		blocks, err := lengths(a.entries)
		if err != nil {
			return nil, err
		}
		return replayer.RunBlocks(blocks, a.omit)
	}
	chunks, err := lengths(a.chunks)
	if err != nil {
		return nil, err
	}
	return replayer.Run(chunks)
}

func lengths(text string) ([]int, error) {
	found, err := numbers(text, strconv.Atoi)
	if err != nil || slices.Min(found) < 0 {
		return nil, usage("lengths of chunks, 0 or more", "'"+text+"'")
	}
	return found, nil
}

// snapshot writes a snapshot of a stream.
func snapshot(stream *rnnx.Stream, path string) (any, error) {
	data, err := stream.Snapshot()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(path, data, 0o666); err != nil {
		return nil, &rnnx.Error{Code: "cannot-write", Expected: "to write " + path, Found: err.Error(), Fix: "choose another place"}
	}
	return map[string]any{"position": stream.Position()}, nil
}

func draw(a *arguments, seed uint64) (any, error) {
	weights, err := numbers(a.draw, func(part string) (float64, error) { return strconv.ParseFloat(part, 64) })
	if err != nil {
		return nil, err
	}
	sampler, err := rnnx.NewSampler(seed, 1)
	draws := []int{}
	for err == nil && len(draws) < a.count {
		drawn := 0
		drawn, err = sampler.SampleWeights(weights)
		draws = append(draws, drawn)
	}
	return map[string]any{"draws": draws}, err
}

func numbers[T any](text string, parse func(string) (T, error)) ([]T, error) {
	found := []T{}
	for _, part := range strings.Split(text, ",") {
		number, err := parse(strings.TrimSpace(part))
		if err != nil {
			return nil, usage("numbers separated by commas", "'"+text+"'")
		}
		found = append(found, number)
	}
	return found, nil
}

func text(a *arguments, session *rnnx.Session, seed uint64) (any, error) {
	temperature, err := strconv.ParseFloat(a.temperature, 64)
	if err != nil {
		return nil, usage("a number for --temperature", "'"+a.temperature+"'")
	}
	length, err := strconv.Atoi(a.length)
	if err != nil || length < 0 {
		return nil, &rnnx.Error{Code: "length-invalid", Expected: "a length of 0 or more", Found: a.length, Fix: "change it"}
	}
	stream, err := session.Text(seed, temperature)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	if err := stream.Read(a.text); err != nil {
		return nil, err
	}
	var symbols strings.Builder
	for symbol, err := range stream.Write(length) {
		if err != nil {
			return nil, err
		}
		symbols.WriteRune(symbol)
	}
	return map[string]any{"text": symbols.String()}, nil
}

// feed steps a stream of batch 1 with the same inputs again and again, or misuses it.
func feed(a *arguments, session *rnnx.Session) (any, error) {
	inputs := rnnx.Inputs{}
	if a.set["feed"] {
		var err error
		if inputs, err = readFeed(a.feed); err != nil {
			return nil, err
		}
	}
	stream, err := session.Stream()
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	switch a.misuse {
	case "closed":
		stream.Close()
		_, err := stream.Step(inputs)
		return nil, err
	case "part":
		_, err := stream.Run(inputs)
		return nil, err
	case "waiting":
		if _, err := stream.Feed(inputs); err != nil {
			return nil, err
		}
		_, err := stream.Step(inputs)
		return nil, err
	case "threads":
		return nil, stepFromTwo(stream, inputs)
	}
	outputs := rnnx.Outputs{}
	for range a.times {
		if outputs, err = stream.Step(inputs); err != nil {
			return nil, err
		}
	}
	if a.flush {
		if outputs, err = stream.Flush(); err != nil {
			return nil, err
		}
	}
	return flat(outputs), nil
}

func readFeed(path string) (rnnx.Inputs, error) {
	data, err := rnnx.ReadFile(path, "a feed")
	if err != nil {
		return nil, err
	}
	file, err := rnnx.ReadTensors(data, "a feed")
	if err != nil {
		return nil, err
	}
	return file.Tensors, nil
}

func flat(outputs rnnx.Outputs) map[string]any {
	values := map[string][]any{}
	for name, tensor := range outputs {
		values[name] = []any{}
		for index := range size(tensor.Shape) {
			values[name] = append(values[name], rnnx.Plain(tensor, index))
		}
	}
	return map[string]any{"outputs": values}
}

// together steps a stream for each of the files as one batch; each begins and pauses in rounds of its own.
func together(a *arguments, session *rnnx.Session) (any, error) {
	pool, err := session.Pool()
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	var streams []*rnnx.Stream
	var feeds []rnnx.Inputs
	for _, path := range strings.Split(a.together, ",") {
		inputs, err := readFeed(path)
		if err != nil {
			return nil, err
		}
		stream, err := session.Stream()
		if err != nil {
			return nil, err
		}
		defer stream.Close()
		streams, feeds = append(streams, stream), append(feeds, inputs)
	}
	latest := make([]rnnx.Outputs, len(streams))
	for turn := range a.times {
		var places []int
		var taking []*rnnx.Stream
		var inputs []rnnx.Inputs
		for place := 0; place < len(streams) && place <= turn; place++ {
			if (turn+place)%3 != 2 {
				places, taking, inputs = append(places, place), append(taking, streams[place]), append(inputs, feeds[place])
			}
		}
		outputs, err := pool.Step(taking, inputs)
		if err != nil {
			return nil, err
		}
		for index, place := range places {
			latest[place] = outputs[index]
		}
	}
	found := []any{}
	for _, outputs := range latest {
		found = append(found, flat(outputs))
	}
	return map[string]any{"streams": found}, nil
}

// stepFromTwo steps one stream from two goroutines at once until one of them is refused.
func stepFromTwo(stream *rnnx.Stream, inputs rnnx.Inputs) error {
	var refused atomic.Pointer[error]
	var group sync.WaitGroup
	for range 2 {
		group.Add(1)
		go func() {
			defer group.Done()
			for step := 0; step < attempts && refused.Load() == nil; step++ {
				if _, err := stream.Step(inputs); err != nil {
					refused.CompareAndSwap(nil, &err)
				}
			}
		}()
	}
	group.Wait()
	if err := refused.Load(); err != nil {
		return *err
	}
	return usage("one goroutine to be refused", "none in a million steps")
}

func size(shape []int) int {
	product := 1
	for _, extent := range shape {
		product *= extent
	}
	return product
}

// show prints a result, as one line of JSON or for people.
func show(result any, isJSON bool) {
	if isJSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetEscapeHTML(false)
		encoder.Encode(result)
		return
	}
	switch result := result.(type) {
	case rnnx.Verdict:
		fmt.Println(result)
	case map[string]any:
		for name, value := range result {
			switch value := value.(type) {
			case string:
				fmt.Println(value)
			case []int:
				fmt.Println(strings.Trim(fmt.Sprint(value), "[]"))
			default:
				fmt.Println(name, value)
			}
		}
	}
}
