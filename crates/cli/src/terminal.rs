//! What reaches the terminal, and the program's own log.

use std::io::{IsTerminal as _, Write as _};

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// A line for the user, on standard output.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
}

/// Rows of cells in columns, the titles first, on standard output.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        say(cells.join("   ").trim_end());
    }
}

/// Bytes for the user, on standard output; `false` when nobody reads them any more.
pub(crate) fn write(bytes: &[u8]) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).is_ok()
}

/// What went wrong, on standard error.
pub(crate) fn error(line: &str) {
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "error: {line}");
}

/// Whether spinners and colours may be used: on a terminal, unless NO_COLOR is set.
pub(crate) fn is_lively() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && std::io::stderr().is_terminal() && !no_color
}

/// Asks a question that is answered with yes or no; without a terminal the answer is no.
pub(crate) fn ask(question: &str) -> bool {
    if !std::io::stdin().is_terminal() {
        return false;
    }
    let mut out = std::io::stderr().lock();
    let _ = write!(out, "{question} [y/N] ");
    let _ = out.flush();
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// Sets the log up: on standard error, warnings unless RUST_LOG says otherwise.
pub(crate) fn log(format: LogFormat) {
    // A cluster that is not there is no error of the program's: the client library's own report of it is left out.
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,kube_client=off,hickory_net=error"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let lively = is_lively();
    // A second call (in tests) finds a subscriber in place, which is as well.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(lively).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    std::panic::set_hook(Box::new(|defect| {
        tracing::error!("a defect: {}", defect.to_string().replace('\n', " "));
    }));
}
