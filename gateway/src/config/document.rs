//! A configuration file with the places of its values, so that every refusal can name file, line, column and field.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;

/// Why a configuration is refused: what is wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Line and column, counted from 1; `None` if the file cannot be read at all.
    pub place: Option<(usize, usize)>,
    /// The field, with the tables that it stands in.
    pub field: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What is allowed, or what to do.
    pub advice: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ": {field}")?;
        }
        write!(f, ": {}; {}", self.problem, self.advice)
    }
}

impl std::error::Error for ConfigError {}

/// A TOML file in memory.
#[derive(Debug)]
pub(super) struct Document {
    file: PathBuf,
    text: String,
}

impl Document {
    pub(super) fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            file: file.into(),
            place: None,
            field: None,
            problem: format!("cannot be read ({error})"),
            advice: "name a readable file in UTF-8".into(),
        })?;
        Ok(Self { file: file.into(), text })
    }

    #[cfg(test)]
    pub(super) fn from_text(file: &Path, text: &str) -> Self {
        Self { file: file.into(), text: text.into() }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// A path that the file names: relative ones are seen from the file's directory.
    pub(super) fn beside(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(&self.text).map_err(|error| {
            let mut lines = error.message().lines().map(str::trim).filter(|line| !line.is_empty());
            let first = lines.next().unwrap_or("not valid TOML");
            let rest = lines.collect::<Vec<_>>().join(", ");
            let (problem, expected) = match first.split_once(", expected ") {
                Some((problem, expected)) => (problem.to_owned(), format!("expected {expected}")),
                None => (first.to_owned(), rest),
            };
            let advice = if expected.is_empty() {
                "docs/operating/configuration.md lists every field".to_owned()
            } else {
                expected
            };
            self.refuse(error.span().unwrap_or_default(), problem, advice)
        })
    }

    /// Reads a value's text; `allowed` says what a text may be.
    pub(super) fn value<T>(
        &self,
        text: &Spanned<String>,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        parse(text.get_ref())
            .ok_or_else(|| self.refuse(text.span(), format!("\"{}\" is not allowed", text.get_ref()), allowed))
    }

    pub(super) fn refuse(
        &self,
        span: Range<usize>,
        problem: impl Into<String>,
        advice: impl Into<String>,
    ) -> ConfigError {
        let before = self.text.get(..span.start).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        let column = before.get(line_start..).unwrap_or("").chars().count() + 1;
        ConfigError {
            file: self.file.clone(),
            place: Some((line, column)),
            field: self.field_at(span.start, line_start),
            problem: problem.into(),
            advice: advice.into(),
        }
    }

    /// The field at a place, as the operator would spell it: the table's header, then the key before the equals sign.
    fn field_at(&self, at: usize, line_start: usize) -> Option<String> {
        let header = self
            .text
            .get(..line_start)
            .unwrap_or("")
            .lines()
            .rev()
            .find(|line| line.starts_with('['))
            .map(|line| line.split('#').next().unwrap_or("").trim().trim_matches(['[', ']']).trim().to_owned());
        let line = self.text.get(line_start..).unwrap_or("").lines().next().unwrap_or("");
        if line.starts_with('[') {
            return Some(line.trim().trim_matches(['[', ']']).trim().to_owned());
        }
        // A value may stand in an inline table or a list of several lines: the nearest key before it counts.
        let before = self.text.get(..at.max(line_start)).unwrap_or("");
        let key_of = |text: &str| {
            let key = text.trim_end().trim_end_matches('=').trim_end();
            let start = key.rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).map_or(0, |at| at + 1);
            key.get(start..).filter(|key| !key.is_empty()).map(str::to_owned)
        };
        let nearest = before.rfind('=').and_then(|equals| before.get(..equals)).and_then(key_of);
        let first = line.split_once('=').and_then(|(key, _)| key_of(key));
        let key = match (first, nearest) {
            // The key itself is the place: nothing before it on its line counts.
            (Some(first), _) if at <= line_start + first.len() => Some(first),
            (Some(first), Some(nearest)) if first != nearest => Some(format!("{first}.{nearest}")),
            (first, nearest) => first.or(nearest),
        };
        match (header, key) {
            (Some(header), Some(key)) => Some(format!("{header}.{key}")),
            (header, key) => key.or(header),
        }
    }
}
