//! The conformance program: replays traces, provokes errors, draws and generates, as docs/conformance.md says.

use rnnx::replay::{Replay, Verdict};
use rnnx::tensor_file::TensorFile;
use rnnx::trace::Trace;
use rnnx::{read_file, DType, Error, Options, Result, Sampler, Session, View};
use serde_json::{json, Value};
use std::collections::HashMap;
use std::process::ExitCode;

const FLAGS: [&str; 17] = [
    "chunks",
    "entries",
    "omit",
    "provider",
    "feed",
    "together",
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
    flush: bool,
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
    let mut parsed = Arguments { files: Vec::new(), flags: HashMap::new(), flush: false };
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        match argument.strip_prefix("--") {
            Some("json") => {}
            Some("flush") => parsed.flush = true,
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
    if let Some(kind @ ("waiting" | "part")) = arguments.text("misuse") {
        let file = TensorFile::decode(&read_file(arguments.text("feed").unwrap_or_default(), "a feed")?, "a feed")?;
        let inputs: Vec<_> = file.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.view())).collect();
        let mut stream = session.stream()?;
        if kind == "waiting" {
            stream.feed(&inputs)?
        } else {
            stream.run(&inputs)?
        };
        stream.step(&inputs)?;
    }
    if let Some(kind) = arguments.text("misuse") {
        return Err(usage("a misuse that compiles", &format!("'{kind}', which the compiler refuses")));
    }
    if let Some(paths) = arguments.text("together") {
        return together(&session, paths, arguments.number("times", 1)?);
    }
    if let Some(path) = arguments.text("feed") {
        return feed(&session, &read_file(path, "a feed")?, arguments.number("times", 1)?, arguments.flush);
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
        .ok_or_else(|| usage("a trace, or one of --feed, --together, --misuse, --restore, --text", "none"))?;
    let trace = Trace::decode(&read_file(path, "a trace")?, session.contract())?;
    let replay = Replay::new(&session, &trace)?;
    if let Some(path) = arguments.text("snapshot") {
        let stream = replay.to_step(arguments.number("after", 0)?)?;
        std::fs::write(path, stream.snapshot()?)
            .map_err(|error| usage(&format!("to write {path}"), &error.to_string()))?;
        return Ok(json!({"position": stream.position()}));
    }
    let verdict = match arguments.text("entries") {
        Some(text) => replay.run_blocks(&arguments.list("entries", text)?, arguments.number("omit", 0)?)?,
        None => replay.run(&arguments.list("chunks", arguments.text("chunks").unwrap_or("1"))?)?,
    };
    Ok(told(&verdict))
}

fn told(verdict: &Verdict) -> Value {
    let number = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| json!(text));
    let failure = verdict.failure.as_ref().map(|failure| {
        json!({
            "tensor": failure.tensor, "step": failure.step, "index": failure.index,
            "expected": number(&failure.expected), "got": number(&failure.got),
        })
    });
    json!({
        "agrees": verdict.agrees(), "steps": verdict.steps, "calls": verdict.calls, "max_error": verdict.max_error,
        "failure": failure,
    })
}

/// Step a stream of batch 1 with the same inputs again and again; return the last outputs, flat.
fn feed(session: &Session, data: &[u8], times: usize, flush: bool) -> Result<Value> {
    let file = TensorFile::decode(data, "a feed")?;
    let inputs: Vec<_> = file.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.view())).collect();
    let mut stream = session.stream()?;
    let mut flat = serde_json::Map::new();
    for _ in 0..times {
        let outputs = stream.step(&inputs)?;
        flat = outputs.iter().map(|(name, view)| (name.to_owned(), numbers(&view))).collect();
    }
    if flush {
        let outputs = stream.flush()?;
        flat = outputs.iter().map(|(name, view)| (name.to_owned(), numbers(&view))).collect();
    }
    Ok(json!({"outputs": flat}))
}

/// Step a stream for each of the files as one batch; each begins and pauses in rounds of its own.
fn together(session: &Session, paths: &str, times: usize) -> Result<Value> {
    let mut pool = session.pool()?;
    let read = |path| TensorFile::decode(&read_file(path, "a feed")?, "a feed");
    let files = paths.split(',').map(read).collect::<Result<Vec<_>>>()?;
    let views: Vec<Vec<(&str, View)>> = files
        .iter()
        .map(|file| file.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.view())).collect())
        .collect();
    let mut streams = files.iter().map(|_| session.stream()).collect::<Result<Vec<_>>>()?;
    let mut latest = vec![json!({}); streams.len()];
    for turn in 0..times {
        let takes_part = |place: &usize| *place <= turn && (turn + place) % 3 != 2;
        let places: Vec<usize> = (0..streams.len()).filter(takes_part).collect();
        let rows = streams.iter_mut().zip(&views).enumerate().filter(|(place, _)| takes_part(place));
        let outputs = pool.step(rows.map(|(_, (stream, inputs))| (stream, inputs.as_slice())).collect())?;
        for (place, outputs) in places.into_iter().zip(outputs) {
            let flat: serde_json::Map<_, _> =
                outputs.iter().map(|(name, view)| (name.to_owned(), numbers(&view))).collect();
            latest[place] = json!({"outputs": flat});
        }
    }
    Ok(json!({"streams": latest}))
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
