//! The one error type: a stable code, and what was expected, what was found, and how to mend it.

use std::fmt;

/// What went wrong. [`code`](Error::code) is the same in every language, and so is the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: &'static str,
    expected: String,
    found: String,
    fix: String,
}

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of a program that reports in the same manner.
    pub fn new(
        code: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { code, expected: expected.into(), found: found.into(), fix: fix.into() }
    }

    /// Stable identifier in kebab-case: `wrong-shape`, `missing-input`.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What should have been there.
    pub fn expected(&self) -> &str {
        &self.expected
    }

    /// What was there instead.
    pub fn found(&self) -> &str {
        &self.found
    }

    /// What can be done about it.
    pub fn fix(&self) -> &str {
        &self.fix
    }

    /// The same error, with where it was found.
    pub(crate) fn found_in(mut self, place: &str) -> Self {
        self.found = format!("{}, {place}", self.found);
        self
    }

    pub(crate) fn with_fix(mut self, fix: &str) -> Self {
        self.fix = fix.into();
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}; found {}; fix: {}", self.expected, self.found, self.fix)
    }
}

impl std::error::Error for Error {}
