//! A terminal's line discipline, as far as a program without one needs it: what is typed is echoed and edited, and given to the guest a line at a
//! time; Ctrl-C ends it and Ctrl-D ends its input.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::watch;

use crate::flow::Flow;

/// The longest line, as a terminal of Linux has it; what is typed beyond is not taken.
const LINE_MAX: usize = 4_096;
const INTERRUPT: u8 = 0x03;
const END_OF_FILE: u8 = 0x04;
const KILL_LINE: u8 = 0x15;
const BACKSPACES: [u8; 2] = [0x08, 0x7f];

/// Where a client types.
#[derive(Debug)]
pub(crate) struct Terminal {
    line: Vec<u8>,
    to_guest: Flow,
    echo: Flow,
    /// Becomes true when the guest is interrupted.
    interrupted: watch::Sender<bool>,
}

impl Terminal {
    pub(crate) fn new(to_guest: Flow, echo: Flow, interrupted: watch::Sender<bool>) -> Self {
        Self { line: Vec::new(), to_guest, echo, interrupted }
    }

    fn take(&mut self, byte: u8) {
        match byte {
            INTERRUPT => {
                self.echo.put(b"^C\r\n");
                self.line.clear();
                self.interrupted.send_replace(true);
            }
            END_OF_FILE if self.line.is_empty() => self.to_guest.end(),
            END_OF_FILE => self.to_guest.put(&std::mem::take(&mut self.line)),
            KILL_LINE => while self.rub_out() {},
            byte if BACKSPACES.contains(&byte) => _ = self.rub_out(),
            b'\r' | b'\n' => {
                self.echo.put(b"\r\n");
                self.line.push(b'\n');
                self.to_guest.put(&std::mem::take(&mut self.line));
            }
            byte if self.line.len() < LINE_MAX => {
                self.line.push(byte);
                if byte >= b' ' || byte == b'\t' {
                    self.echo.put(&[byte]);
                } else {
                    self.echo.put(&[b'^', byte ^ 0x40]);
                }
            }
            _ => {}
        }
    }

    /// Takes the last character back, all of its bytes; whether there was one.
    fn rub_out(&mut self) -> bool {
        let Some(mut last) = self.line.pop() else { return false };
        while last & 0xc0 == 0x80 {
            match self.line.pop() {
                Some(byte) => last = byte,
                None => break,
            }
        }
        let columns = if last < b' ' && last != b'\t' { 2 } else { 1 };
        for _ in 0..columns {
            self.echo.put(b"\x08 \x08");
        }
        true
    }
}

impl futures_io::AsyncWrite for Terminal {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = bytes.len().min(LINE_MAX);
        // A guest that reads nothing makes whoever types wait, but never Ctrl-C.
        if !bytes[..count].contains(&INTERRUPT) && !self.to_guest.poll_room(context, 2 * LINE_MAX) {
            return Poll::Pending;
        }
        for byte in &bytes[..count] {
            self.take(*byte);
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.to_guest.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.to_guest.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the guest reads and what the client sees of what is typed, and whether the guest is interrupted.
    fn typed(text: &[u8]) -> (String, String, bool) {
        let (to_guest, echo, interrupted) = (Flow::default(), Flow::default(), watch::Sender::new(false));
        let seen = interrupted.subscribe();
        let mut terminal = Terminal::new(to_guest.clone(), echo.clone(), interrupted);
        for byte in text {
            terminal.take(*byte);
        }
        let text = |flow: &Flow| String::from_utf8(flow.taken()).unwrap();
        (text(&to_guest), text(&echo), *seen.borrow())
    }

    #[test]
    fn a_line_is_echoed_and_given_when_it_is_whole() {
        assert_eq!(typed(b"ab"), (String::new(), "ab".into(), false));
        assert_eq!(typed(b"ab\r"), ("ab\n".into(), "ab\r\n".into(), false));
        assert_eq!(typed(b"ab\x04"), ("ab".into(), "ab".into(), false));
    }

    #[test]
    fn a_line_can_be_edited() {
        assert_eq!(typed(b"ac\x7fb\r").0, "ab\n");
        assert_eq!(typed("a\u{e9}\u{7f}b\r".as_bytes()).0, "ab\n");
        assert_eq!(typed(b"wrong\x15right\r").0, "right\n");
    }

    #[test]
    fn ctrl_c_interrupts() {
        assert_eq!(typed(b"half\x03"), (String::new(), "half^C\r\n".into(), true));
    }
}
