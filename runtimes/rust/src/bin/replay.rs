//! The conformance program: replays traces, provokes errors, draws and generates, as docs/conformance.md says.

use rnnx::tensor_file::TensorFile;
use rnnx::trace::{row, to_chunk, to_rows, Bound, Trace};
use rnnx::{read_file, Contract, DType, Error, Options, Result, Sampler, Session, Stream, Tensor, View};
use serde_json::{json, Value};
use std::collections::HashMap;
use std::process::ExitCode;

const FLAGS: [&str; 14] = [
    "chunks",
    "provider",
    "feed",
    "times",
    "misuse",
    "restore",
    "snapshot",
    "after",
    "text",
    "length",
    "temperature",
    "seed",
    "draw",
    "count",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_json = arguments.iter().any(|argument| argument == "--json");
    match parse(arguments).and_then(|arguments| replay(&arguments)) {
        Ok(result) => {
            println!("{}", if is_json { result.to_string() } else { show(&result) });
            ExitCode::from(u8::from(result["agrees"] == json!(false)))
        }
        Err(error) => {
            if is_json {
                println!("{}", json!({"error": {"code": error.code(), "text": error.to_string()}}));
            } else {
                eprintln!("error[{}]: {error}", error.code());
            }
            ExitCode::from(2)
        }
    }
}

struct Arguments {
    files: Vec<String>,
    flags: HashMap<String, String>,
}

impl Arguments {
    fn text(&self, name: &str) -> Option<&str> {
        self.flags.get(name).map(String::as_str)
    }

    fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| usage(&format!("a number for --{name}"), &format!("'{text}'"))),
        }
    }

    fn list<T: std::str::FromStr>(&self, name: &str, text: &str) -> Result<Vec<T>> {
        let part =
            |part: &str| part.trim().parse().map_err(|_| usage(&format!("numbers for --{name}"), &format!("'{text}'")));
        text.split(',').map(part).collect()
    }
}

fn usage(expected: &str, found: &str) -> Error {
    Error::new("usage", expected, found, "see docs/conformance.md")
}

fn parse(arguments: Vec<String>) -> Result<Arguments> {
    let mut parsed = Arguments { files: Vec::new(), flags: HashMap::new() };
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        match argument.strip_prefix("--") {
            Some("json") => {}
            Some(name) if FLAGS.contains(&name) => {
                let value = rest.next().ok_or_else(|| usage(&format!("a value for --{name}"), "none"))?;
                parsed.flags.insert(name.to_owned(), value);
            }
            Some(_) => return Err(usage("an option of docs/conformance.md", &format!("'{argument}'"))),
            None => parsed.files.push(argument),
        }
    }
    Ok(parsed)
}

/// Do what the arguments ask for; return what is to be printed.
fn replay(arguments: &Arguments) -> Result<Value> {
    if let Some(text) = arguments.text("draw") {
        let weights: Vec<f64> = arguments.list("draw", text)?;
        let mut sampler = Sampler::new(arguments.number("seed", 0)?, 1.0)?;
        let draws = (0..arguments.number("count", 1)?).map(|_: usize| sampler.sample_weights(&weights));
        return Ok(json!({"draws": draws.collect::<Result<Vec<_>>>()?}));
    }
    let model = arguments.files.first().ok_or_else(|| usage("a model", "none"))?;
    let provider = arguments.text("provider").unwrap_or("cpu").parse()?;
    let session = Options::new().provider(provider).open(model)?;
    if let Some(kind) = arguments.text("misuse") {
        return Err(usage("a misuse that compiles", &format!("'{kind}', which the compiler refuses")));
    }
    if let Some(path) = arguments.text("feed") {
        return feed(&session, &read_file(path, "a feed")?, arguments.number("times", 1)?);
    }
    if let Some(path) = arguments.text("restore") {
        let mut stream = session.stream()?;
        stream.restore(&read_file(path, "a snapshot")?)?;
        return Ok(json!({"position": stream.position()}));
    }
    if let Some(prompt) = arguments.text("text") {
        let mut text = session.text(arguments.number("seed", 0)?, arguments.number("temperature", 1.0)?)?;
        text.read(prompt)?;
        let symbols = text.take(arguments.number("length", 0)?).collect::<Result<String>>()?;
        return Ok(json!({"text": symbols}));
    }
    let path = arguments
        .files
        .get(1)
        .ok_or_else(|| usage("a trace, or one of --feed, --misuse, --restore, --text", "none"))?;
    let trace = Trace::decode(&read_file(path, "a trace")?, session.contract())?;
    let mut replay = Replay::new(&session, &trace)?;
    if let Some(path) = arguments.text("snapshot") {
        replay.begin()?;
        for step in 0..arguments.number("after", 0)? {
            replay.call(step, step + 1)?;
        }
        std::fs::write(path, replay.stream.snapshot()?)
            .map_err(|error| usage(&format!("to write {path}"), &error.to_string()))?;
        return Ok(json!({"position": replay.stream.position()}));
    }
    replay.run(&arguments.list("chunks", arguments.text("chunks").unwrap_or("1"))?)
}

/// Step a stream of batch 1 with the same inputs again and again; return the last outputs, flat.
fn feed(session: &Session, data: &[u8], times: usize) -> Result<Value> {
    let file = TensorFile::decode(data, "a feed")?;
    let inputs: Vec<_> = file.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.view())).collect();
    let mut stream = session.stream()?;
    let mut flat = serde_json::Map::new();
    for _ in 0..times {
        let outputs = stream.step(&inputs)?;
        flat = outputs.iter().map(|(name, view)| (name.to_owned(), numbers(&view))).collect();
    }
    Ok(json!({"outputs": flat}))
}

fn numbers(view: &View) -> Value {
    (0..view.shape().iter().product()).map(|index| plain(view, index)).collect()
}

/// A number as JSON can hold it.
fn plain(view: &View, index: usize) -> Value {
    match (view.dtype(), view.number(index)) {
        (DType::Int64, _) => json!(view.as_slice::<i64>().expect("the dtype was matched")[index]),
        (DType::Uint64, _) => json!(view.as_slice::<u64>().expect("the dtype was matched")[index]),
        (dtype, number) if !dtype.is_float() => json!(number as i64),
        (_, number) if number.is_finite() => json!(number),
        (_, number) if number.is_nan() => json!("nan"),
        (_, number) => json!(if number > 0.0 { "inf" } else { "-inf" }),
    }
}

/// A trace being replayed through a stream.
struct Replay<'a> {
    contract: &'a Contract,
    trace: &'a Trace,
    stream: Stream,
    calls: usize,
    max_error: f64,
    failure: Option<Value>,
}

/// Where a row that is compared stands, and which of its entries count.
struct Place<'a> {
    tensor: String,
    step: i64,
    bound: Bound,
    is_kept: &'a dyn Fn(usize) -> bool,
}

impl<'a> Replay<'a> {
    fn new(session: &'a Session, trace: &'a Trace) -> Result<Self> {
        let contract = session.contract();
        let free = contract.free_dimensions();
        let mut builder = session.stream_with();
        for (name, size) in &trace.sizes {
            builder = match name.as_str() {
                "batch" => builder.batch(*size),
                name if free.contains(&name) => builder.dim(name, *size),
                _ => builder,
            };
        }
        Ok(Self { contract, trace, stream: builder.open()?, calls: 0, max_error: 0.0, failure: None })
    }

    /// Replay all of it in chunks of these lengths, in turn; stop where something disagrees.
    fn run(mut self, chunks: &[usize]) -> Result<Value> {
        self.compare_states(-1, 0)?;
        self.begin()?;
        let whole = [0];
        let chunks = if self.contract.whole_only.is_some() { &whole } else { chunks };
        let (mut begin, mut lengths) = (0, chunks.iter().cycle());
        while begin < self.trace.steps && self.failure.is_none() {
            let length = lengths.next().copied().unwrap_or(0);
            let end = if length == 0 { self.trace.steps } else { self.trace.steps.min(begin + length) };
            let outputs = self.call(begin, end)?;
            self.compare_outputs(&outputs, end);
            self.compare_states(end as i64 - 1, end)?;
            begin = end;
        }
        Ok(json!({
            "agrees": self.failure.is_none(), "steps": begin, "calls": self.calls, "max_error": self.max_error,
            "failure": self.failure,
        }))
    }

    /// Set all states to row 0.
    fn begin(&mut self) -> Result<()> {
        for (state, (rows, _)) in self.contract.states.iter().zip(&self.trace.states) {
            self.stream.set_state(&state.spec.name, row(rows.view(), 0))?;
        }
        Ok(())
    }

    /// Run steps begin..end; return each output as [step, ...], one row for those without time.
    fn call(&mut self, begin: usize, end: usize) -> Result<Vec<Tensor>> {
        let is_step = end - begin == 1 && self.contract.whole_only.is_none();
        let mut chunks = Vec::new();
        for (input, recorded) in self.contract.inputs.iter().zip(&self.trace.inputs) {
            let Some(recorded) = recorded else { continue };
            let (spec, is_stepped) = (&input.spec, self.contract.is_stepped(&input.spec, input.is_length));
            let value = if input.is_length {
                let left = |length: &i64| (length - begin as i64).clamp(0, (end - begin) as i64);
                Tensor::new(recorded.shape(), &recorded.as_slice()?.iter().map(left).collect::<Vec<_>>())
            } else if is_stepped && is_step {
                row(recorded.view(), begin).to_tensor()
            } else if is_stepped {
                to_chunk(self.contract, spec, recorded, begin, end)
            } else {
                recorded.clone()
            };
            chunks.push((spec.name.as_str(), value));
        }
        let views: Vec<_> = chunks.iter().map(|(name, value)| (*name, value.view())).collect();
        self.calls += 1;
        let outputs = if is_step { self.stream.step(&views)? } else { self.stream.run(&views)? };
        let mut rows = Vec::new();
        for ((spec, (_, got)), (recorded, _)) in
            self.contract.outputs.iter().zip(outputs.iter()).zip(&self.trace.outputs)
        {
            let row_shape = &recorded.shape()[1..];
            rows.push(if !is_step && self.contract.is_stepped(spec, false) {
                to_rows(self.contract, spec, got, row_shape, end - begin)
            } else {
                got.to_tensor().reshaped([&[1], row_shape].concat())
            });
        }
        Ok(rows)
    }

    fn compare_outputs(&mut self, outputs: &[Tensor], end: usize) {
        for (index, (spec, got)) in self.contract.outputs.iter().zip(outputs).enumerate() {
            let (expected, bound) = &self.trace.outputs[index];
            let first = end - got.shape()[0];
            for step in first..end {
                let is_kept = |flat: usize| self.is_valid(spec, &expected.shape()[1..], flat, step);
                let place = Place {
                    tensor: format!("output.{}", spec.name),
                    step: step as i64,
                    bound: *bound,
                    is_kept: &is_kept,
                };
                let (error, failure) = compare(&place, &row(expected.view(), step), &row(got.view(), step - first));
                self.note(error, failure);
            }
        }
    }

    fn compare_states(&mut self, step: i64, index: usize) -> Result<()> {
        for (state, (rows, bound)) in self.contract.states.iter().zip(&self.trace.states) {
            let got = self.stream.state(&state.spec.name)?;
            let tensor = format!("state.{}", state.spec.name);
            let place = Place { tensor, step, bound: *bound, is_kept: &|_| true };
            let (error, failure) = compare(&place, &row(rows.view(), index), &got.view());
            self.note(error, failure);
        }
        Ok(())
    }

    fn note(&mut self, error: f64, failure: Option<Value>) {
        self.max_error = self.max_error.max(error);
        self.failure = self.failure.take().or(failure);
    }

    /// Whether the row of entry `flat` of an output has not ended before `step`.
    fn is_valid(&self, spec: &rnnx::contract::Spec, shape: &[usize], flat: usize, step: usize) -> bool {
        let mut given = self.contract.inputs.iter().zip(&self.trace.inputs).filter(|(input, _)| input.is_length);
        let Some(lengths) = given.find_map(|(_, value)| value.as_ref()) else { return true };
        let axes = spec.shape.iter().filter(|axis| axis.to_string() != "time");
        let batch = axes.into_iter().position(|axis| axis.name() == Some("batch"));
        let row = match batch.filter(|_| !lengths.shape().is_empty()) {
            Some(axis) => flat / shape[axis + 1..].iter().product::<usize>() % shape[axis],
            None if lengths.shape().is_empty() => 0,
            None => return true,
        };
        (step as f64) < lengths.view().number(row)
    }
}

/// The largest error of one row, and the first entry that does not agree.
fn compare(place: &Place, expected: &View, got: &View) -> (f64, Option<Value>) {
    let (mut largest, mut failure) = (0.0f64, None);
    let shape = expected.shape();
    for flat in (0..shape.iter().product()).filter(|flat| (place.is_kept)(*flat)) {
        let (wanted, have) = (expected.number(flat), got.number(flat));
        let error = (have - wanted).abs();
        if error.is_finite() {
            largest = largest.max(error / (1.0 + wanted.abs()));
        }
        let is_exact = !expected.dtype().is_float();
        let agrees = if is_exact || !wanted.is_finite() || !have.is_finite() {
            wanted == have || (wanted.is_nan() && have.is_nan())
        } else {
            error <= place.bound.absolute + place.bound.relative * wanted.abs()
        };
        if !agrees && failure.is_none() {
            let mut index = vec![0; shape.len()];
            let mut rest = flat;
            for (entry, size) in index.iter_mut().zip(shape).rev() {
                (*entry, rest) = (rest % size, rest / size);
            }
            failure = Some(json!({
                "tensor": place.tensor, "step": place.step, "index": index,
                "expected": plain(expected, flat), "got": plain(got, flat),
            }));
        }
    }
    (largest, failure)
}

/// A result for people.
fn show(result: &Value) -> String {
    if let Some(text) = result["text"].as_str() {
        return text.to_owned();
    }
    if let Some(draws) = result["draws"].as_array() {
        return draws.iter().map(Value::to_string).collect::<Vec<_>>().join(" ");
    }
    let Some(agrees) = result["agrees"].as_bool() else {
        let fields = result["outputs"].as_object().or(result.as_object());
        let line = |(name, value): (&String, &Value)| format!("{name} {value}");
        return fields.into_iter().flatten().map(line).collect::<Vec<_>>().join("\n");
    };
    let told = format!("{} steps in {} calls, largest error {}", result["steps"], result["calls"], result["max_error"]);
    if agrees {
        return format!("agrees: {told}");
    }
    let failure = &result["failure"];
    let place = format!("{} at step {}, index {}", failure["tensor"], failure["step"], failure["index"]);
    format!("disagrees: {place}: expected {}, got {}; {told}", failure["expected"], failure["got"])
}
