//! Reading the JSON of a contract into its types.

use crate::contract::{invalid, misfit, Constant, Contract, Input, Spec, State, Vocabulary};
use crate::shape::Axis;
use crate::tensor::DType;
use crate::{Error, Result};
use serde_json::{Map, Value};

const VERSION: i64 = 1;
const KNOWN_REQUIREMENTS: [&str; 0] = [];

impl Contract {
    /// Read and check a contract.
    ///
    /// # Errors
    /// `contract-invalid`, `contract-newer` or `contract-requires`.
    pub fn from_json(text: &str) -> Result<Self> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| invalid(format!("JSON is malformed: {error}")))?;
        let top = Fields::new(&value, "$")?;
        if top.text("format")? != "rnnx" {
            return Err(invalid(format!("Invalid enum value {} - at `$.format`", top.required("format")?)));
        }
        let version = match top.required("version")? {
            value if value.is_i64() => value.as_i64().unwrap_or(0),
            value => return Err(mismatch("int", value, "$.version")),
        };
        if version > VERSION {
            return Err(Error::new(
                "contract-newer",
                format!("a contract of version {VERSION} at most"),
                format!("version {version}"),
                "install a newer rnnx, or export the model again with this one",
            ));
        }
        let requires = match top.optional("requires") {
            Some(value) => texts(value, "$.requires")?,
            None => Vec::new(),
        };
        let unknown: Vec<_> = requires.iter().filter(|name| !KNOWN_REQUIREMENTS.contains(&name.as_str())).collect();
        if !unknown.is_empty() {
            return Err(Error::new(
                "contract-requires",
                "a contract that requires only what this rnnx knows",
                format!("requires {}", crate::shape::join(unknown)),
                "install a newer rnnx",
            ));
        }
        if version < 1 {
            return Err(invalid(format!("version {version}")));
        }
        let contract = Self {
            id: top.text_or("id", "")?,
            name: top.text_or("name", "")?,
            inputs: top.list("inputs", Input::read)?,
            outputs: top.list("outputs", Spec::read_output)?,
            states: top.list("states", State::read)?,
            steps_per_second: match top.optional("steps_per_second") {
                Some(value) => {
                    Some(value.as_f64().ok_or_else(|| mismatch("float | null", value, "$.steps_per_second"))?)
                }
                None => None,
            },
            whole_only: top.optional("whole_only").map(|_| top.text("whole_only")).transpose()?,
            vocabulary: match top.optional("vocabulary") {
                Some(value) => Some(Vocabulary::read(&Fields::new(value, "$.vocabulary")?)?),
                None => None,
            },
            user: top.optional("user").and_then(Value::as_object).cloned().unwrap_or_default(),
        };
        contract.check()?;
        Ok(contract)
    }
}

impl Constant {
    fn parse(value: &Value) -> Option<Self> {
        if let Value::Array(entries) = value {
            let parts = entries.iter().map(Self::parse).collect::<Option<Vec<_>>>()?;
            let inner = parts.first().map_or(Vec::new(), |part| part.shape.clone());
            if parts.iter().any(|part| part.shape != inner) {
                return None;
            }
            let numbers = parts.into_iter().flat_map(|part| part.numbers).collect();
            return Some(Self { shape: [vec![entries.len()], inner].concat(), numbers });
        }
        let number = match value {
            Value::String(text) if text == "inf" => f64::INFINITY,
            Value::String(text) if text == "-inf" => f64::NEG_INFINITY,
            Value::String(text) if text == "nan" => f64::NAN,
            Value::Bool(flag) => f64::from(u8::from(*flag)),
            value => value.as_f64()?,
        };
        Some(Self { shape: Vec::new(), numbers: vec![number] })
    }
}

impl Spec {
    fn read(fields: &Fields) -> Result<Self> {
        let name = fields.text("name")?;
        let dtype = fields.text("dtype")?;
        let dtype = DType::from_name(&dtype)
            .ok_or_else(|| invalid(format!("Invalid enum value '{dtype}' - at `{}.dtype`", fields.path)))?;
        let shape = fields.required("shape")?;
        let entries = shape.as_array().ok_or_else(|| mismatch("array", shape, &format!("{}.shape", fields.path)))?;
        let axis = |entry: &Value| {
            let (axis, shown) = match entry {
                Value::String(text) => {
                    (Axis::parse(text), format!("dimension '{text}' is no number, name or multiple of time"))
                }
                Value::Number(number) if !number.is_f64() => {
                    let size = number.as_u64().filter(|size| *size > 0).map(|size| Axis::Fixed(size as usize));
                    (size, format!("dimension {number} is not positive"))
                }
                _ => return Err(mismatch("int | str", entry, &format!("{}.shape[...]", fields.path))),
            };
            axis.ok_or_else(|| invalid(format!("{shown} in the shape of '{name}'")))
        };
        let shape = entries.iter().map(axis).collect::<Result<_>>()?;
        Ok(Self { name, dtype, shape, delay: 0 })
    }

    fn read_output(fields: &Fields) -> Result<Self> {
        let delay = match fields.optional("delay") {
            None => 0,
            Some(value) => value.as_i64().ok_or_else(|| mismatch("int", value, &format!("{}.delay", fields.path)))?,
        };
        Ok(Self { delay, ..Self::read(fields)? })
    }
}

impl Input {
    fn read(fields: &Fields) -> Result<Self> {
        let spec = Spec::read(fields)?;
        let default = fields.optional("default").map(|value| constant(value, &spec)).transpose()?;
        let is_length = match fields.optional("role") {
            None => false,
            Some(Value::String(role)) if role == "length" => true,
            Some(role) => return Err(invalid(format!("Invalid enum value {role} - at `{}.role`", fields.path))),
        };
        let range = fields.optional("range").map(|value| pair(value, &format!("{}.range", fields.path))).transpose()?;
        Ok(Self { spec, default, is_length, range })
    }
}

impl State {
    fn read(fields: &Fields) -> Result<Self> {
        let spec = Spec::read(fields)?;
        let zero = Constant { shape: Vec::new(), numbers: vec![0.0] };
        let initial = fields.optional("initial").map_or(Ok(zero), |value| constant(value, &spec))?;
        let is_end = match fields.optional("role") {
            None => false,
            Some(Value::String(role)) if role == "ended" => true,
            Some(role) => return Err(invalid(format!("Invalid enum value {role} - at `{}.role`", fields.path))),
        };
        Ok(Self { spec, input: fields.text("input")?, output: fields.text("output")?, initial, is_end })
    }
}

fn pair(value: &Value, path: &str) -> Result<[f64; 2]> {
    let entries = value.as_array().ok_or_else(|| mismatch("array", value, path))?;
    let numbers: Option<Vec<_>> = entries.iter().map(Value::as_f64).collect();
    let found = numbers.and_then(|numbers| numbers.try_into().ok());
    found.ok_or_else(|| invalid(format!("Expected two numbers - at `{path}`")))
}

fn constant(value: &Value, spec: &Spec) -> Result<Constant> {
    Constant::parse(value).ok_or_else(|| misfit(spec))
}

impl Vocabulary {
    fn read(fields: &Fields) -> Result<Self> {
        for (name, known) in [("scores", "logits"), ("unit", "codepoint")] {
            let value = fields.text_or(name, known)?;
            if value != known {
                return Err(invalid(format!("Invalid enum value '{value}' - at `{}.{name}`", fields.path)));
            }
        }
        let single = |text: String| {
            let mut characters = text.chars();
            let first = characters.next().filter(|_| characters.next().is_none());
            let problem =
                if text.is_empty() { "an symbol without a name" } else { "a symbol that is not one code point" };
            first.ok_or_else(|| invalid(problem))
        };
        let symbols = texts(fields.required("symbols")?, "$.vocabulary.symbols")?;
        Ok(Self {
            input: fields.text("input")?,
            output: fields.text("output")?,
            symbols: symbols.into_iter().map(single).collect::<Result<_>>()?,
        })
    }
}

/// The fields of a JSON object, and where it stands, for messages.
struct Fields<'a> {
    fields: &'a Map<String, Value>,
    path: &'a str,
}

impl<'a> Fields<'a> {
    fn new(value: &'a Value, path: &'a str) -> Result<Self> {
        let fields = value.as_object().ok_or_else(|| mismatch("object", value, path))?;
        Ok(Self { fields, path })
    }

    fn required(&self, name: &str) -> Result<&'a Value> {
        let place = if self.path == "$" { String::new() } else { format!(" - at `{}`", self.path) };
        let error = || invalid(format!("Object missing required field `{name}`{place}"));
        self.fields.get(name).ok_or_else(error)
    }

    fn optional(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<String> {
        let value = self.required(name)?;
        let error = || mismatch("str", value, &format!("{}.{name}", self.path));
        value.as_str().map(str::to_owned).ok_or_else(error)
    }

    fn text_or(&self, name: &str, default: &str) -> Result<String> {
        self.fields.get(name).map_or(Ok(default.into()), |_| self.text(name))
    }

    fn list<T>(&self, name: &str, read: impl Fn(&Fields) -> Result<T>) -> Result<Vec<T>> {
        let (value, path) = (self.required(name)?, format!("$.{name}[...]"));
        let entries = value.as_array().ok_or_else(|| mismatch("array", value, &format!("$.{name}")))?;
        entries.iter().map(|entry| read(&Fields::new(entry, &path)?)).collect()
    }
}

fn texts(value: &Value, path: &str) -> Result<Vec<String>> {
    let entries = value.as_array().ok_or_else(|| mismatch("array", value, path))?;
    let text = |entry: &Value| {
        entry.as_str().map(str::to_owned).ok_or_else(|| mismatch("str", entry, &format!("{path}[...]")))
    };
    entries.iter().map(text).collect()
}

fn mismatch(expected: &str, found: &Value, path: &str) -> Error {
    let kind = match found {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let place = if path == "$" { String::new() } else { format!(" - at `{path}`") };
    invalid(format!("Expected `{expected}`, got `{kind}`{place}"))
}
