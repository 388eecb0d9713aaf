//! The replay program over the goldens: agreement, and that a fault is seen.

mod common;

use common::golden;
use rnnx::tensor_file::TensorFile;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn replay(arguments: &[&str]) -> (i32, Value) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_replay")).current_dir(golden("")).args(arguments).arg("--json").output();
    let output = output.expect("the program runs");
    let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().expect("no crash"), value)
}

fn models() -> Vec<String> {
    let entries = std::fs::read_dir(golden("")).expect("the goldens are there");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut models: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".onnx")?.to_owned())).collect();
    models.sort();
    models
}

#[test]
fn every_golden_agrees_in_every_chunking() {
    let models = models();
    assert!(models.len() >= 15, "{models:?}");
    for model in models {
        for chunks in ["1", "0", "3", "3,1,0"] {
            let (file, trace) = (format!("{model}.onnx"), format!("{model}.trace.safetensors"));
            let (code, result) = replay(&[&file, &trace, "--chunks", chunks]);
            assert_eq!((code, &result["agrees"]), (0, &Value::Bool(true)), "{model} in chunks of {chunks}: {result}");
            assert!(result["steps"].as_u64() > Some(0), "{result}");
        }
    }
}

#[test]
fn every_error_has_its_code_and_text() {
    let cases: Value = serde_json::from_slice(&common::bytes("errors.json")).expect("JSON");
    let mut seen = 0;
    for case in cases.as_array().expect("a list") {
        // A stream that was closed or is in use is refused by the compiler: see the examples of `Stream`.
        let arguments: Vec<&str> =
            case["arguments"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        if arguments.contains(&"--misuse") {
            continue;
        }
        let (code, result) = replay(&arguments);
        let error = &result["error"];
        assert_eq!((code, &error["code"]), (2, &case["code"]), "{}: {result}", case["name"]);
        if !case["text"].is_null() {
            assert_eq!(error["text"], case["text"], "{}", case["name"]);
        }
        seen += 1;
    }
    assert!(seen > 30);
}

#[test]
fn texts_and_draws_are_the_same_as_everywhere() {
    let texts: Value = serde_json::from_slice(&common::bytes("texts.json")).expect("JSON");
    for case in texts.as_array().expect("a list") {
        let (prompt, model) = (case["prompt"].as_str().expect("text"), case["model"].as_str().expect("text"));
        let numbers = ["length", "temperature", "seed"].map(|name| case[name].to_string());
        let [length, temperature, seed] = &numbers;
        let (_, result) =
            replay(&[model, "--text", prompt, "--length", length, "--temperature", temperature, "--seed", seed]);
        assert_eq!(result["text"], case["text"]);
    }
    let draws: Value = serde_json::from_slice(&common::bytes("draws.json")).expect("JSON");
    for case in draws.as_array().expect("a list") {
        let weights: Vec<String> = case["weights"].as_array().expect("a list").iter().map(Value::to_string).collect();
        let (seed, count) = (case["seed"].to_string(), case["count"].to_string());
        let (_, result) = replay(&["--draw", &weights.join(","), "--seed", &seed, "--count", &count]);
        assert_eq!(result["draws"], case["draws"]);
    }
}

/// Change one number of a tensor of a trace, in place.
fn spoil(trace: &Path, tensor: &str, byte: usize) -> Vec<u8> {
    let mut data = std::fs::read(trace).expect("a trace");
    let size = u64::from_le_bytes(data[..8].try_into().expect("8 bytes")) as usize;
    let header: Value = serde_json::from_slice(&data[8..8 + size]).expect("JSON");
    let start = header[tensor]["data_offsets"][0].as_u64().expect("an offset") as usize;
    data[8 + size + start + byte] ^= 0x40;
    data
}

#[test]
fn a_number_that_is_off_is_found_where_it_is() {
    let folder = std::env::temp_dir().join(format!("rnnx-spoiled-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let trace = golden("gru.trace.safetensors");
    let rows = TensorFile::decode(&std::fs::read(&trace).expect("a trace"), "a trace").expect("a trace");
    let shape = rows.get("output.y").expect("an output").shape().to_vec(); // [step, batch, 6]
    let entry = 2 * shape[1] * shape[2] + 4; // step 2, row 0, entry 4
    for (tensor, byte, step, index) in
        [("output.y", entry * 4 + 3, 2, vec![0, 4]), ("state.state.h", 3, -1, vec![0, 0, 0])]
    {
        let path = folder.join("spoiled.safetensors");
        std::fs::write(&path, spoil(&trace, tensor, byte)).expect("written");
        let (code, result) = replay(&["gru.onnx", path.to_str().expect("text"), "--chunks", "3"]);
        assert_eq!((code, &result["agrees"]), (1, &Value::Bool(false)), "{result}");
        let failure = &result["failure"];
        assert_eq!((&failure["tensor"], &failure["step"]), (&Value::from(tensor), &Value::from(step)), "{result}");
        assert_eq!(failure["index"], Value::from(index), "{result}");
    }
    std::fs::remove_dir_all(folder).expect("removed");
}
