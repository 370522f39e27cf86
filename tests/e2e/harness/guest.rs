//! Guests written as text: a few steps of a command, turned into a core WebAssembly module.
//!
//! Files are looked for by their name in every preopened directory, because a module does not choose their numbers.

use std::fmt::Write as _;

/// A command, step by step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guest {
    data: String,
    used: usize,
    steps: String,
}

/// Where texts lie in the guest's memory.
const DATA: usize = 1024;

impl Guest {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Prints a text on standard output.
    pub(crate) fn print(mut self, text: &str) -> Self {
        let at = self.text(text);
        let _ = writeln!(self.steps, "(call $print {at})");
        self
    }

    /// Prints its environment, a variable a line.
    pub(crate) fn environment(mut self) -> Self {
        self.steps.push_str("(call $environment)\n");
        self
    }

    /// Prints a file.
    pub(crate) fn cat(mut self, file: &str) -> Self {
        let at = self.text(file);
        let _ = writeln!(self.steps, "(call $cat {at})");
        self
    }

    /// Writes a file.
    pub(crate) fn write(mut self, file: &str, contents: &str) -> Self {
        let (file, contents) = (self.text(file), self.text(contents));
        let _ = writeln!(self.steps, "(call $write {file} {contents})");
        self
    }

    /// Ends with this code when the file is there.
    pub(crate) fn exit_if_there(mut self, file: &str, code: u32) -> Self {
        let at = self.text(file);
        let open = format!("(call $open {at} (i32.const 0) (i64.const 2))");
        let _ = writeln!(self.steps, "(if (i32.ge_s {open} (i32.const 0)) (then (call $exit (i32.const {code}))))");
        self
    }

    /// Takes a mebibyte of memory, again and again, and says so each time.
    pub(crate) fn grow_for_ever(mut self) -> Self {
        let at = self.text("one more\n");
        let grow = "(drop (memory.grow (i32.const 16)))";
        let _ = writeln!(self.steps, "(loop $again {grow} (call $print {at}) (br $again))");
        self
    }

    /// Takes so many mebibytes of memory at once and writes to every page of them.
    pub(crate) fn grow_and_touch(mut self, mebibytes: u32) -> Self {
        let _ = writeln!(self.steps, "(call $grow_and_touch (i32.const {}))", mebibytes * 16);
        self
    }

    /// Waits.
    pub(crate) fn sleep(mut self, milliseconds: u64) -> Self {
        let _ = writeln!(self.steps, "(call $sleep (i64.const {}))", milliseconds * 1_000_000);
        self
    }

    /// Ends.
    pub(crate) fn exit(mut self, code: u32) -> Self {
        let _ = writeln!(self.steps, "(call $exit (i32.const {code}))");
        self
    }

    /// The steps so far, over and over.
    pub(crate) fn for_ever(mut self) -> Self {
        self.steps = format!("(loop $over\n{}(br $over))\n", self.steps);
        self
    }

    /// The module's text.
    pub(crate) fn wat(&self) -> String {
        format!("(module\n{HOST}{}(func (export \"_start\")\n{}))\n", self.data, self.steps)
    }

    fn text(&mut self, text: &str) -> String {
        let at = DATA + self.used;
        self.used += text.len();
        let bytes = text.bytes().fold(String::new(), |all, byte| all + &format!("\\{byte:02x}"));
        let _ = writeln!(self.data, "(data (i32.const {at}) \"{bytes}\")");
        format!("(i32.const {at}) (i32.const {})", text.len())
    }
}

/// What the steps call. Memory: an iovec at 0, results at 16 and 20, a subscription at 64, its event at 128; texts from
/// 1024; pointers to variables at 8192; a buffer of 32 KiB at 16384.
const HOST: &str = r#"
(import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
(import "wasi_snapshot_preview1" "path_open"
  (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
(memory (export "memory") 1)
(func $print_to (param $fd i32) (param $at i32) (param $length i32)
  (i32.store (i32.const 0) (local.get $at))
  (i32.store (i32.const 4) (local.get $length))
  (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 16))))
(func $print (param $at i32) (param $length i32)
  (call $print_to (i32.const 1) (local.get $at) (local.get $length)))
(func $open (param $at i32) (param $length i32) (param $flags i32) (param $rights i64) (result i32) (local $fd i32)
  (local.set $fd (i32.const 3))
  (loop $next
    (if (i32.eqz (call $path_open (local.get $fd) (i32.const 1) (local.get $at) (local.get $length)
                   (local.get $flags) (local.get $rights) (local.get $rights) (i32.const 0) (i32.const 20)))
      (then (return (i32.load (i32.const 20)))))
    (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
    (br_if $next (i32.lt_u (local.get $fd) (i32.const 16))))
  (i32.const -1))
(func $cat (param $at i32) (param $length i32) (local $fd i32)
  (local.set $fd (call $open (local.get $at) (local.get $length) (i32.const 0) (i64.const 2)))
  (if (i32.lt_s (local.get $fd) (i32.const 0)) (then (call $exit (i32.const 44))))
  (i32.store (i32.const 0) (i32.const 16384))
  (i32.store (i32.const 4) (i32.const 32768))
  (drop (call $fd_read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 16)))
  (call $print (i32.const 16384) (i32.load (i32.const 16)))
  (drop (call $fd_close (local.get $fd))))
(func $write (param $at i32) (param $length i32) (param $text i32) (param $size i32) (local $fd i32)
  (local.set $fd (call $open (local.get $at) (local.get $length) (i32.const 1) (i64.const 64)))
  (if (i32.lt_s (local.get $fd) (i32.const 0)) (then (call $exit (i32.const 45))))
  (call $print_to (local.get $fd) (local.get $text) (local.get $size))
  (drop (call $fd_close (local.get $fd))))
(func $environment (local $at i32) (local $end i32)
  (drop (call $environ_sizes_get (i32.const 16) (i32.const 20)))
  (drop (call $environ_get (i32.const 8192) (i32.const 16384)))
  (local.set $at (i32.const 16384))
  (local.set $end (i32.add (i32.const 16384) (i32.load (i32.const 20))))
  (loop $next
    (if (i32.eqz (i32.load8_u (local.get $at))) (then (i32.store8 (local.get $at) (i32.const 10))))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
  (call $print (i32.const 16384) (i32.load (i32.const 20))))
(func $grow_and_touch (param $pages i32) (local $at i32) (local $end i32)
  (local.set $at (i32.mul (memory.grow (local.get $pages)) (i32.const 65536)))
  (local.set $end (i32.mul (memory.size) (i32.const 65536)))
  (loop $next
    (i32.store8 (local.get $at) (i32.const 1))
    (local.set $at (i32.add (local.get $at) (i32.const 4096)))
    (br_if $next (i32.lt_u (local.get $at) (local.get $end)))))
(func $sleep (param $nanoseconds i64)
  (i32.store (i32.const 80) (i32.const 1))
  (i64.store (i32.const 88) (local.get $nanoseconds))
  (drop (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 160))))
"#;
