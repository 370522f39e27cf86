//! YAML in and out: request bodies and manifests are read into JSON values, answers are written for `Accept: application/yaml`.
//!
//! What a scalar means is what kubectl takes it for: booleans of YAML 1.1 and numbers with a leading zero in base eight, so that
//! `defaultMode: 0644` is 420. Aliases and nesting are bounded by the parser's budgets.

use serde_json::Value;

#[cfg(test)]
mod tests;

/// A text that is no YAML, or not the one document that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("yaml: line {line}, column {column}: {message}")]
pub struct YamlError {
    /// The line, from one.
    pub line: u64,
    /// The column, from one.
    pub column: u64,
    /// What is wrong, on one line.
    pub message: String,
}

impl YamlError {
    fn new(error: &serde_saphyr::Error) -> Self {
        let location = error.location();
        let plain = serde_saphyr::render_options! { snippets: serde_saphyr::SnippetMode::Off };
        let message = error.render_with_options(plain);
        let first = message.lines().next().unwrap_or("not YAML");
        // The place is a field of its own, and the parser's options are not the reader's business.
        let end = first.find(", set DuplicateKeyPolicy").or_else(|| first.rfind(" at line ")).unwrap_or(first.len());
        Self {
            line: location.map_or(1, |at| at.line()),
            column: location.map_or(1, |at| at.column()),
            message: first[..end].to_owned(),
        }
    }
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false }
}

/// Reads one document: the body of a request.
pub fn parse(bytes: &[u8]) -> Result<Value, YamlError> {
    // JSON is YAML, and most of what is sent as YAML is JSON.
    if bytes.first() == Some(&b'{')
        && let Ok(value) = serde_json::from_slice(bytes)
    {
        return Ok(value);
    }
    serde_saphyr::from_slice_with_options(bytes, options()).map_err(|error| YamlError::new(&error))
}

/// Reads every document of a manifest, leaving out the empty ones.
pub fn parse_documents(bytes: &[u8]) -> Result<Vec<Value>, YamlError> {
    let documents: Vec<Value> =
        serde_saphyr::from_slice_multiple_with_options(bytes, options()).map_err(|error| YamlError::new(&error))?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Writes a value as one YAML document.
pub fn to_string(value: &Value) -> String {
    // Writing to memory fails for nothing that a JSON value can hold.
    serde_saphyr::to_string(value).expect("a JSON value is written as YAML")
}
