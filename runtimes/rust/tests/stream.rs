//! What streams promise, on the golden models.

mod common;

use common::{bytes, code, frame, golden, open};
use rnnx::{f16, Sampler, Session, Stream, Tensor, View};

/// The output `y` of one step, as numbers.
fn step(stream: &mut Stream, step: usize) -> Vec<f32> {
    let x = frame(&[stream.batch(), 4], step);
    let outputs = stream.step(&[("x", x.view())]).expect("a step");
    outputs.get("y").expect("an output").as_slice::<f32>().expect("float32").to_vec()
}

#[test]
fn a_model_opens_from_its_bytes_and_streams_outlive_their_session() {
    let session = Session::from_bytes(&bytes("gru.onnx")).expect("a model");
    assert_eq!(session.id(), open("gru.onnx").id());
    let mut stream = session.stream().expect("a stream");
    drop(session);
    let first = step(&mut stream, 0);
    assert_ne!(first, step(&mut stream, 0), "the state went on");
    assert_eq!(stream.position(), 2);
}

/// ONNX Runtime would read them where the program runs.
#[test]
fn a_model_that_is_bytes_has_no_weights_beside_it() {
    for name in ["weights-missing", "weights-above", "weights-elsewhere"] {
        let data = bytes(&format!("faults/{name}.onnx"));
        assert_eq!(code(Session::from_bytes(&data)), "external-data-missing");
    }
}

#[test]
fn reset_goes_back_to_the_start_and_rows_alone() {
    let session = open("gru.onnx");
    let mut fresh = session.stream_with().batch(3).open().expect("a stream");
    let first = step(&mut fresh, 0);
    let mut stream = session.stream_with().batch(3).open().expect("a stream");
    let used = (step(&mut stream, 1), step(&mut stream, 0)).1;
    stream.reset_rows(&[1]).expect("reset");
    assert_eq!(stream.position(), 2);
    let h = stream.state("state.h").expect("a state"); // [1, 3, 6]
    let h = h.as_slice::<f32>().expect("float32");
    assert!(h[6..12].iter().all(|value| *value == 0.0) && h[..6].iter().any(|value| *value != 0.0));
    stream.reset().expect("reset");
    assert_eq!((step(&mut stream, 0), stream.position()), (first.clone(), 1));
    assert_ne!(used, first);
    assert_eq!(code(stream.reset_rows(&[3])), "row-range");
}

#[test]
fn an_initial_state_is_the_start_and_what_reset_goes_back_to() {
    let session = open("gru.onnx");
    let start = Tensor::new([1, 1, 6], &[0.5f32; 6]);
    let mut stream = session.stream_with().initial("state.h", start.clone()).open().expect("a stream");
    assert_eq!(stream.state("state.h").expect("a state"), start);
    let first = step(&mut stream, 0);
    stream.reset().expect("reset");
    assert_eq!(stream.state("state.h").expect("a state"), start);
    assert_eq!(step(&mut stream, 0), first);
    let builder = || session.stream_with();
    assert_eq!(code(builder().initial("h", start.clone()).open()), "unknown-state");
    assert_eq!(code(builder().initial("state.h", Tensor::new([6], &[0f32; 6])).open()), "wrong-shape");
    assert_eq!(code(builder().initial("state.h", Tensor::new([1, 1, 6], &[0f64; 6])).open()), "wrong-dtype");
    assert_eq!(code(builder().initial("state.h", Tensor::new([1, 1, 6], &[f32::NAN; 6])).open()), "non-finite");
    assert_eq!(code(builder().batch(0).open()), "empty-batch");
    assert_eq!(code(builder().dim("memory", 3).open()), "unknown-dimension");
    assert_eq!(code(open("no_batch.onnx").stream_with().batch(2).open()), "no-batch");
    assert_eq!(code(open("free_dimension.onnx").stream()), "missing-dimension");
    let with_memory = |size: usize| open("free_dimension.onnx").stream_with().batch(3).dim("memory", size).open();
    assert_eq!(code(with_memory(0)), "wrong-dimension");
    assert_eq!(code(with_memory(usize::MAX / 8)), "out-of-memory");
}

#[test]
fn states_are_read_and_written_and_may_be_infinite() {
    let mut stream = open("minus_infinity.onnx").stream().expect("a stream");
    let best = stream.state("best").expect("a state");
    assert!(best.as_slice::<f32>().expect("float32").iter().all(|value| *value == f32::NEG_INFINITY));
    stream.set_state("best", View::new(&[1, 6], &[f32::INFINITY; 6])).expect("infinities are allowed");
    assert_eq!(stream.state("best").expect("a state").as_slice::<f32>().expect("float32"), [f32::INFINITY; 6]);
    assert_eq!(code(stream.set_state("best", View::new(&[1, 6], &[f32::NAN; 6]))), "non-finite");
    assert_eq!(code(stream.set_state("worst", View::new(&[1, 6], &[0f32; 6]))), "unknown-state");
    assert_eq!(code(stream.state("worst")), "unknown-state");
}

#[test]
fn an_error_leaves_the_states_as_they_were() {
    let mut stream = open("gru.onnx").stream().expect("a stream");
    step(&mut stream, 0);
    let before = stream.snapshot().expect("a snapshot");
    let mut bad = [0f32; 4];
    bad[2] = f32::NAN;
    assert_eq!(code(stream.step(&[("x", View::new(&[1, 4], &bad))])), "non-finite");
    assert_eq!(code(stream.step(&[("x", View::new(&[1, 4], &[0f32; 3]))])), "wrong-shape");
    assert_eq!(code(stream.step(&[("x", View::new(&[1, 4], &[0i32; 4]))])), "wrong-dtype");
    assert_eq!(code(stream.step(&[])), "missing-input");
    assert_eq!(code(stream.run(&[("x", View::new(&[1, 0, 4], &[0f32; 0]))])), "empty-time");
    assert_eq!(code(stream.run(&[("x", View::new(&[1, 4], &[0f32; 4]))])), "wrong-shape");
    assert_eq!(stream.snapshot().expect("a snapshot"), before);
    assert_eq!(
        code(stream.step(&[("x", frame(&[1, 4], 0).view())]).and_then(|outputs| outputs.get("z"))),
        "unknown-output"
    );
}

#[test]
fn a_chunk_of_a_step_model_has_time_behind_the_batch() {
    let session = open("step_only.onnx"); // x float32[batch, 6] -> y float32[batch, 3]
    let chunk = frame(&[2, 3, 6], 1);
    let mut whole = session.stream_with().batch(2).open().expect("a stream");
    let joined = whole.run(&[("x", chunk.view())]).expect("a chunk").get("y").expect("an output").to_tensor();
    let (given, joined) = (chunk.as_slice::<f32>().expect("float32"), joined.as_slice::<f32>().expect("float32"));
    let mut stream = session.stream_with().batch(2).open().expect("a stream");
    for step in 0..3 {
        let x = [&given[step * 6..][..6], &given[18 + step * 6..][..6]].concat();
        let outputs = stream.step(&[("x", View::new(&[2, 6], &x))]).expect("a step");
        let y = outputs.get("y").expect("an output").as_slice::<f32>().expect("float32");
        assert_eq!((&y[..3], &y[3..]), (&joined[step * 3..][..3], &joined[9 + step * 3..][..3]));
    }
}

#[test]
fn a_restored_stream_goes_on_bit_for_bit() {
    let session = open("lstm.onnx");
    let mut stream = session.stream().expect("a stream");
    (0..5).for_each(|index| drop(step(&mut stream, index)));
    let saved = stream.snapshot().expect("a snapshot");
    let expected: Vec<_> = (5..9).map(|index| step(&mut stream, index)).collect();
    let mut other = session.stream().expect("a stream");
    other.restore(&saved).expect("restored");
    assert_eq!(other.position(), 5);
    assert_eq!((5..9).map(|index| step(&mut other, index)).collect::<Vec<_>>(), expected);
    assert_eq!(code(open("gru.onnx").stream().expect("a stream").restore(&saved)), "snapshot-of-another-model");
    assert_eq!(code(other.restore(&saved[..saved.len() - 1])), "not-safetensors");
    assert_eq!(other.position(), 9);
}

#[test]
fn defaults_and_lengths_may_be_left_out_and_are_what_they_say() {
    let session = open("default_and_length.onnx"); // x float32[batch, time, 3], gain = 1, lengths
    let x = Tensor::new([2, 2, 3], &[1f32; 12]);
    let total = |gain: Option<f32>, lengths: Option<[i64; 2]>| {
        let mut stream = session.stream_with().batch(2).open().expect("a stream");
        let (gain, lengths) = (gain.map(|gain| [gain; 2]), lengths);
        let mut inputs = vec![("x", x.view())];
        inputs.extend(gain.as_ref().map(|gain| ("gain", View::new(&[2], gain))));
        inputs.extend(lengths.as_ref().map(|lengths| ("lengths", View::new(&[2], lengths))));
        stream.run(&inputs).map(drop)?;
        Ok::<_, rnnx::Error>(stream.state("total")?.as_slice::<f32>()?.to_vec())
    };
    let plain = total(None, None).expect("totals");
    assert_eq!(plain, total(Some(1.0), Some([2, 2])).expect("totals"));
    assert_ne!(plain, total(Some(2.0), None).expect("totals"));
    assert_eq!(total(None, Some([0, 2])).expect("totals")[..3], [0.0; 3], "a row of length 0 keeps its state");
    assert_eq!(code(total(None, Some([0, 3]))), "length-range");
    assert_eq!(code(total(None, Some([-1, 2]))), "length-range");
}

#[test]
fn a_whole_only_model_runs_once_and_never_steps() {
    let mut stream = open("whole_only.onnx").stream().expect("a stream");
    let x = View::new(&[1, 3], &[1f32, 2.0, 3.0]);
    assert_eq!(code(stream.step(&[("x", View::new(&[1], &[1f32]))])), "whole-only");
    stream.run(&[("x", x)]).expect("a chunk");
    assert_eq!(code(stream.run(&[("x", x)])), "whole-only");
    stream.reset().expect("reset");
    stream.run(&[("x", x)]).expect("a chunk");
}

#[test]
fn half_floats_go_in_and_come_out() {
    let mut stream = open("half.onnx").stream().expect("a stream");
    let x = [f16::from_f32(0.5); 3];
    let outputs = stream.step(&[("x", View::new(&[1, 3], &x))]).expect("a step");
    let y = outputs.get("y").expect("an output");
    assert_eq!(y.shape(), [1, 4]);
    assert!(y.as_slice::<f16>().expect("float16").iter().all(|value| value.is_finite()));
    assert_eq!(code(y.as_slice::<f32>()), "wrong-dtype");
    assert_eq!(code(stream.step(&[("x", View::new(&[1, 3], &[f16::INFINITY; 3]))])), "non-finite");
}

#[test]
fn threads_share_a_session_and_each_stream_gives_what_it_gives_alone() {
    let session = open("gru.onnx");
    let run = |offset: usize| {
        let mut stream = session.stream().expect("a stream");
        (0..200).map(|index| step(&mut stream, offset + index)).collect::<Vec<_>>()
    };
    let alone: Vec<_> = (0..4).map(run).collect();
    let run = &run;
    let together = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|offset| scope.spawn(move || run(offset))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    });
    assert_eq!(together, alone);
}

#[test]
fn draws_are_those_of_the_contract_document() {
    let mut sampler = Sampler::new(7, 1.0).expect("a sampler");
    let numbers = [sampler.next_u64(), sampler.next_u64(), sampler.next_u64()];
    assert_eq!(numbers, [0x63cb_e1e4_5932_0dd7, 0x044c_3cd7_f43c_661c, 0xe698_4080_bab1_2a02]);
    let mut sampler = Sampler::new(7, 1.0).expect("a sampler");
    assert_eq!(sampler.uniform(), 0.3898297483912715);
    let mut sampler = Sampler::new(7, 1.0).expect("a sampler");
    let draws: Vec<_> = (0..8).map(|_| sampler.sample_weights(&[1.0, 2.0, 3.0, 4.0]).expect("a draw")).collect();
    assert_eq!(draws, [2, 0, 3, 2, 2, 1, 2, 2]);
    // The seed whose first number is 0: u = 0 must not draw a weight of zero.
    assert_eq!(Sampler::new(0x61C8_8646_80B5_83EB, 1.0).expect("a sampler").sample_weights(&[0.0, 1.0]), Ok(1));
    for weights in [&[][..], &[0.0, 0.0], &[1.0, -1.0], &[f64::NAN], &[f64::MAX, f64::MAX], &[1e-310]] {
        let before = sampler.clone();
        assert_eq!(code(sampler.sample_weights(weights)), "weights-invalid");
        assert_eq!(sampler, before, "no number was taken");
    }
    let mut best = Sampler::new(7, 0.0).expect("a sampler");
    assert_eq!(best.sample(View::new(&[4], &[1f32, 3.0, 3.0, f32::NEG_INFINITY])), Ok(1));
    assert_eq!(best.state(), 7);
    for scores in [[f32::NAN, 0.0], [f32::INFINITY, 0.0], [f32::NEG_INFINITY; 2]] {
        assert_eq!(code(best.sample(View::new(&[2], &scores))), "scores-invalid");
    }
    assert_eq!(code(Sampler::new(7, -1.0)), "temperature-invalid");
}

#[test]
fn a_text_goes_on_from_its_snapshot() {
    let session = open("characters.onnx");
    let vocabulary = session.contract().vocabulary.as_ref().expect("a vocabulary");
    let ids = vocabulary.encode("é😀", "text").expect("ids");
    assert_eq!(vocabulary.decode(&ids).expect("text"), "é😀");
    assert_eq!(code(vocabulary.decode(&[37])), "id-outside-vocabulary");
    let mut text = session.text(3, 0.8).expect("a text");
    assert_eq!(code(text.write_one()), "prompt-empty");
    text.read("abc").expect("a prompt");
    let start: String = text.by_ref().take(20).collect::<Result<_, _>>().expect("symbols");
    assert_eq!(start.chars().count(), 20);
    let saved = text.snapshot().expect("a snapshot");
    let expected: String = text.take(20).collect::<Result<_, _>>().expect("symbols");
    let mut other = session.text(99, 0.0).expect("a text");
    other.restore(&saved).expect("restored");
    assert_eq!(other.take(20).collect::<Result<String, _>>().expect("symbols"), expected);
}

#[test]
fn a_contract_that_breaks_a_rule_is_refused() {
    let contract = |change: &str| rnnx::Contract::from_json(change).map(drop);
    let with = |inputs: &str, rest: &str| {
        format!(r#"{{"format": "rnnx", "version": 1, "inputs": [{inputs}], "outputs": [], "states": []{rest}}}"#)
    };
    let x = r#"{"name": "x", "dtype": "float32", "shape": ["batch", "time"]}"#;
    contract(&with(x, r#", "news": [1]"#)).expect("unknown fields are ignored");
    assert_eq!(code(contract("[]")), "contract-invalid");
    assert_eq!(code(contract(r#"{"format": "rnnx"}"#)), "contract-invalid");
    assert_eq!(code(contract(r#"{"format": "rnnx", "version": 2}"#)), "contract-newer");
    assert_eq!(code(contract(r#"{"format": "rnnx", "version": 1, "requires": ["a"]}"#)), "contract-requires");
    for inputs in [
        r#"{"name": "x", "dtype": "float8", "shape": []}"#,
        r#"{"name": "x", "dtype": "float32", "shape": [0]}"#,
        r#"{"name": "x", "dtype": "float32", "shape": ["2*batch"]}"#,
        r#"{"name": "x", "dtype": "float32", "shape": ["batch", "batch"]}"#,
        r#"{"name": "x", "dtype": "float32", "shape": [2], "default": [1, 2, 3]}"#,
        r#"{"name": "x", "dtype": "float32", "shape": ["batch"], "default": [1, 2]}"#,
        r#"{"name": "x", "dtype": "int64", "shape": [3], "role": "length"}"#,
        r#"{"name": "x", "dtype": "int64"}"#,
        r#"{"name": "", "dtype": "int64", "shape": []}"#,
        &format!("{x}, {x}"),
    ] {
        assert_eq!(code(contract(&with(inputs, ""))), "contract-invalid", "{inputs}");
    }
    assert_eq!(
        code(contract(&with(x, r#", "vocabulary": {"input": "x", "output": "y", "symbols": []}"#))),
        "contract-invalid"
    );
}

#[test]
fn a_damaged_model_is_refused_and_never_crashes() {
    let data = bytes("gru.onnx");
    for length in (0..data.len()).step_by(97) {
        let error = Session::from_bytes(&data[..length]).expect_err("a model cut short");
        assert!(["not-onnx", "no-contract"].contains(&error.code()), "{error}");
    }
    assert_eq!(code(Session::open(golden("none.onnx"))), "file-missing");
    assert_eq!(code(Session::open(golden(""))), "cannot-read");
}

#[test]
fn tensor_files_are_read_with_care() {
    use rnnx::tensor_file::TensorFile;
    let file = |header: &str, body: &[u8]| {
        let data = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), body].concat();
        TensorFile::decode(&data, "a file")
    };
    let header = r#"{"a":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}}"#;
    let whole = file(header, &[0, 1, 7]).expect("a file");
    assert_eq!(whole.get("a").expect("a tensor").as_slice::<bool>().expect("bool"), [false, true, true]);
    assert_eq!(code(file(header, &[0, 1])), "not-safetensors");
    assert_eq!(code(file(header, &[0, 1, 1, 1])), "not-safetensors");
    for wrong in [
        "[]",
        "{",
        r#"{"__metadata__":{"a":1}}"#,
        r#"{"a":{"dtype":"F8","shape":[3],"data_offsets":[0,3]}}"#,
        r#"{"a":{"dtype":"BOOL","shape":[4],"data_offsets":[0,3]}}"#,
        r#"{"a":{"dtype":"BOOL","shape":[3],"data_offsets":[3,0]}}"#,
        r#"{"a":{"dtype":"I64","shape":[4611686018427387904,4],"data_offsets":[0,3]}}"#,
        r#"{"a":{"dtype":"BOOL","shape":[-3],"data_offsets":[0,3]}}"#,
    ] {
        assert_eq!(code(file(wrong, &[0, 1, 1])), "not-safetensors", "{wrong}");
    }
    let data = bytes("gru.trace.safetensors");
    for length in (0..data.len()).step_by(61) {
        assert_eq!(code(TensorFile::decode(&data[..length], "a file")), "not-safetensors");
    }
}

#[test]
fn a_refused_pool_step_moves_no_stream() {
    let (session, other) = (open("gru.onnx"), open("gru.onnx"));
    let mut pool = session.pool().expect("a pool");
    let [mut first, mut second] = [(); 2].map(|()| session.stream().expect("a stream"));
    let mut wide = session.stream_with().batch(2).open().expect("a stream");
    let mut alien = other.stream().expect("a stream");
    let x = frame(&[1, 4], 0);
    let (x, z) = ([("x", x.view())], [("z", x.view())]);
    assert_eq!(code(pool.step(vec![(&mut first, &x), (&mut alien, &x)])), "streams-disagree");
    assert_eq!(code(pool.step(vec![(&mut first, &x), (&mut wide, &x)])), "streams-disagree");
    assert_eq!(code(pool.step(vec![(&mut first, &x), (&mut second, &z)])), "unknown-input");
    assert_eq!((first.position(), second.position()), (0, 0));
    let outputs = pool.step(vec![(&mut first, &x), (&mut second, &x)]).expect("a step");
    let values: Vec<Vec<f32>> =
        outputs.iter().map(|each| each.get("y").expect("an output").as_slice().expect("float32").to_vec()).collect();
    assert_eq!(values[0], values[1]);
    assert_eq!((first.position(), second.position()), (1, 1));
    assert!(pool.step(Vec::new()).expect("nothing to do").is_empty());
    assert_eq!(code(open("whole_only.onnx").pool()), "whole-only");
}
