package rnnx

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

const contractVersion = 1

var knownRequirements = map[string]bool{}

// ParseContract reads and checks the JSON of a contract. The errors are contract-invalid, contract-newer and
// contract-requires.
func ParseContract(text []byte) (*Contract, error) {
	contract := &Contract{}
	if err := readContract(text, contract); err != nil {
		return nil, err
	}
	return contract, contract.check()
}

func readContract(text []byte, contract *Contract) (err error) {
	defer recoverInvalid(&err)
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return invalid("JSON is malformed: " + err.Error())
	}
	if decoder.More() {
		return invalid("JSON is malformed: trailing characters")
	}
	top := fieldsOf(value, "$")
	if format := top.text("format"); format != "rnnx" {
		return invalid(fmt.Sprintf("Invalid enum value '%s' - at `$.format`", format))
	}
	version := top.integer("version")
	if version > contractVersion {
		return newError("contract-newer", fmt.Sprintf("a contract of version %d at most", contractVersion),
			fmt.Sprintf("version %d", version), "install a newer rnnx, or export the model again with this one")
	}
	unknown := []string{}
	for _, name := range top.texts("requires") {
		if !knownRequirements[name] {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		return newError("contract-requires", "a contract that requires only what this rnnx knows",
			"requires "+strings.Join(unknown, ", "), "install a newer rnnx")
	}
	if version < 1 {
		return invalid(fmt.Sprintf("version %d", version))
	}
	contract.ID, contract.Name = top.textOr("id", ""), top.textOr("name", "")
	for _, fields := range top.objects("inputs") {
		contract.Inputs = append(contract.Inputs, fields.input())
	}
	for _, fields := range top.objects("outputs") {
		output := fields.spec()
		if fields.has("delay") {
			output.Delay = int(fields.integer("delay"))
		}
		contract.Outputs = append(contract.Outputs, output)
	}
	for _, fields := range top.objects("states") {
		contract.States = append(contract.States, fields.state())
	}
	if top.has("steps_per_second") {
		contract.StepsPerSecond = top.number("steps_per_second")
	}
	if top.has("whole_only") {
		contract.WholeOnly, contract.isWhole = top.text("whole_only"), true
	}
	if top.has("vocabulary") {
		contract.Vocabulary = fieldsOf(top.values["vocabulary"], "$.vocabulary").vocabulary()
	}
	contract.User, _ = top.values["user"].(map[string]any)
	return nil
}

// A reader below stops at the first field that is not as it should be, by a panic with the error.
func recoverInvalid(err *error) {
	if found := recover(); found != nil {
		problem, ok := found.(*Error)
		if !ok {
			panic(found)
		}
		*err = problem
	}
}

// fields of a JSON object, and where it stands, for messages.
type fields struct {
	values map[string]any
	path   string
}

func fieldsOf(value any, path string) fields {
	values, ok := value.(map[string]any)
	if !ok {
		mismatch("object", value, path)
	}
	return fields{values, path}
}

func (f fields) spec() Spec {
	spec := Spec{Name: f.text("name")}
	name := f.text("dtype")
	found := false
	for dtype, entry := range dtypes {
		if entry.name == name {
			spec.DType, found = DType(dtype), true
		}
	}
	if !found {
		panic(invalid(fmt.Sprintf("Invalid enum value '%s' - at `%s.dtype`", name, f.path)))
	}
	for _, entry := range f.array("shape") {
		spec.Shape = append(spec.Shape, f.axis(spec.Name, entry))
	}
	return spec
}

func (f fields) axis(name string, entry any) Axis {
	switch entry := entry.(type) {
	case string:
		axis, ok := parseAxis(entry)
		if !ok {
			panic(invalid(fmt.Sprintf("dimension '%s' is no number, name or multiple of time in the shape of '%s'", entry, name)))
		}
		return axis
	case json.Number:
		if size, err := entry.Int64(); err == nil {
			if size < 1 {
				panic(invalid(fmt.Sprintf("dimension %s is not positive in the shape of '%s'", entry, name)))
			}
			return Axis{"", int(size), false}
		}
	}
	mismatch("int | str", entry, f.path+".shape[...]")
	return Axis{}
}

func (f fields) input() Input {
	input := Input{Spec: f.spec()}
	if f.has("default") {
		constant := f.constant("default", input.Spec)
		input.Default = &constant
	}
	if f.has("role") {
		if role := f.text("role"); role != "length" {
			panic(invalid(fmt.Sprintf("Invalid enum value '%s' - at `%s.role`", role, f.path)))
		}
		input.IsLength = true
	}
	if f.has("range") {
		numbers := []float64{}
		for _, entry := range f.array("range") {
			number, ok := entry.(json.Number)
			value, err := number.Float64()
			if !ok || err != nil {
				mismatch("float", entry, f.path+".range[...]")
			}
			numbers = append(numbers, value)
		}
		if len(numbers) != 2 {
			panic(invalid(fmt.Sprintf("Expected two numbers - at `%s.range`", f.path)))
		}
		input.Range = &Range{numbers[0], numbers[1]}
	}
	return input
}

func (f fields) state() State {
	state := State{Spec: f.spec(), Input: f.text("input"), Output: f.text("output")}
	state.Initial = Constant{nil, []float64{0}}
	if f.has("initial") {
		state.Initial = f.constant("initial", state.Spec)
	}
	if f.has("role") {
		if role := f.text("role"); role != "ended" {
			panic(invalid(fmt.Sprintf("Invalid enum value '%s' - at `%s.role`", role, f.path)))
		}
		state.IsEnd = true
	}
	return state
}

func (f fields) vocabulary() *Vocabulary {
	for name, known := range map[string]string{"scores": "logits", "unit": "codepoint"} {
		if value := f.textOr(name, known); value != known {
			panic(invalid(fmt.Sprintf("Invalid enum value '%s' - at `%s.%s`", value, f.path, name)))
		}
	}
	f.required("symbols")
	vocabulary := &Vocabulary{Input: f.text("input"), Output: f.text("output")}
	for _, text := range f.texts("symbols") {
		if text == "" {
			panic(invalid("an symbol without a name"))
		}
		symbol, size := utf8.DecodeRuneInString(text)
		if size != len(text) {
			panic(invalid("a symbol that is not one code point"))
		}
		vocabulary.Symbols = append(vocabulary.Symbols, symbol)
	}
	return vocabulary
}

func (f fields) constant(name string, spec Spec) Constant {
	constant, ok := parseConstant(f.values[name])
	if !ok {
		panic(misfitting(spec))
	}
	return constant
}

func parseConstant(value any) (Constant, bool) {
	switch value := value.(type) {
	case []any:
		constant := Constant{shape: []int{len(value)}}
		for index, entry := range value {
			part, ok := parseConstant(entry)
			if !ok || index > 0 && fmt.Sprint(part.shape) != fmt.Sprint(constant.shape[1:]) {
				return Constant{}, false
			}
			constant.shape = append(constant.shape[:1], part.shape...)
			constant.numbers = append(constant.numbers, part.numbers...)
		}
		return constant, true
	case json.Number:
		number, err := value.Float64()
		return Constant{nil, []float64{number}}, err == nil || math.IsInf(number, 0)
	case bool:
		if value {
			return Constant{nil, []float64{1}}, true
		}
		return Constant{nil, []float64{0}}, true
	case string:
		number, ok := map[string]float64{"inf": math.Inf(1), "-inf": math.Inf(-1), "nan": math.NaN()}[value]
		return Constant{nil, []float64{number}}, ok
	}
	return Constant{}, false
}

func (f fields) has(name string) bool { return f.values[name] != nil }

func (f fields) required(name string) any {
	value, ok := f.values[name]
	if !ok {
		panic(invalid(fmt.Sprintf("Object missing required field `%s`%s", name, at(f.path))))
	}
	return value
}

func (f fields) text(name string) string {
	value := f.required(name)
	text, ok := value.(string)
	if !ok {
		mismatch("str", value, f.path+"."+name)
	}
	return text
}

func (f fields) textOr(name, otherwise string) string {
	if _, ok := f.values[name]; !ok {
		return otherwise
	}
	return f.text(name)
}

func (f fields) integer(name string) int64 {
	value := f.required(name)
	number, ok := value.(json.Number)
	whole, err := number.Int64()
	if !ok || err != nil {
		mismatch("int", value, f.path+"."+name)
	}
	return whole
}

func (f fields) number(name string) float64 {
	value := f.required(name)
	number, _ := value.(json.Number)
	result, err := number.Float64()
	if err != nil {
		mismatch("float", value, f.path+"."+name)
	}
	return result
}

func (f fields) array(name string) []any {
	value := f.required(name)
	entries, ok := value.([]any)
	if !ok {
		mismatch("array", value, f.path+"."+name)
	}
	return entries
}

// texts of an array that may be missing.
func (f fields) texts(name string) []string {
	if !f.has(name) {
		return nil
	}
	texts := []string{}
	for _, entry := range f.array(name) {
		text, ok := entry.(string)
		if !ok {
			mismatch("str", entry, f.path+"."+name+"[...]")
		}
		texts = append(texts, text)
	}
	return texts
}

func (f fields) objects(name string) []fields {
	objects := []fields{}
	for _, entry := range f.array(name) {
		objects = append(objects, fieldsOf(entry, f.path+"."+name+"[...]"))
	}
	return objects
}

func mismatch(expected string, found any, path string) {
	kind := "null"
	switch found := found.(type) {
	case bool:
		kind = "bool"
	case json.Number:
		kind = "int"
		if _, err := found.Int64(); err != nil {
			kind = "float"
		}
	case string:
		kind = "str"
	case []any:
		kind = "array"
	case map[string]any:
		kind = "object"
	}
	panic(invalid(fmt.Sprintf("Expected `%s`, got `%s`%s", expected, kind, at(path))))
}

func at(path string) string {
	if path == "$" {
		return ""
	}
	return " - at `" + path + "`"
}
