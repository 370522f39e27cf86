//! Says what it was configured with, and writes a line of its log.

use coracle_test_guests::wasi::config::store;
use coracle_test_guests::wasi::logging::logging::{Level, log};

fn main() {
    println!("color {:?}", store::get("COLOR"));
    println!("nothing {:?}", store::get("nothing"));
    println!("all {:?}", store::get_all());
    // Where there is no such file nobody asks for it.
    let _ = std::fs::write("/dev/termination-log", format!("{:?}", store::get("COLOR")));
    log(Level::Warn, "tests", "two\nlines");
    log(Level::Info, "", "no context");
}
