//! The image of sandboxes, made here byte by byte: nothing can be pulled for it, and a repository holds no binaries.
//!
//! A sandbox's only process holds the pod's namespaces. It waits for ever, buries the children that it is left with (it is process 1
//! where a pod's containers share their processes), and ends when it is asked to.

use std::io;

use sha2::{Digest as _, Sha256};

/// The image's name. Another program in it means another tag.
pub(crate) const NAME: &str = "coracle.dev/sandbox:1";
/// Where the program lies in the image.
const PROGRAM: &str = "sandbox";

/// The program for x86-64. System calls go by number in `rax`, arguments are in `rdi`, `rsi`, `rdx`, `r10`.
#[rustfmt::skip]
const X86_64: &[u8] = &[
    // rt_sigprocmask(SIG_BLOCK, &signals, NULL, 8): what is blocked can be waited for
    0x41, 0xba, 0x08, 0x00, 0x00, 0x00,       // mov  r10d, 8
    0xb8, 0x0e, 0x00, 0x00, 0x00,             // mov  eax, 14
    0x31, 0xff,                               // xor  edi, edi
    0x48, 0x8d, 0x35, 0x48, 0x00, 0x00, 0x00, // lea  rsi, [signals]
    0x31, 0xd2,                               // xor  edx, edx
    0x0f, 0x05,                               // syscall
    // wait: rt_sigtimedwait(&signals, NULL, NULL, 8)
    0x41, 0xba, 0x08, 0x00, 0x00, 0x00,       // mov  r10d, 8
    0xb8, 0x80, 0x00, 0x00, 0x00,             // mov  eax, 128
    0x48, 0x8d, 0x3d, 0x32, 0x00, 0x00, 0x00, // lea  rdi, [signals]
    0x31, 0xf6,                               // xor  esi, esi
    0x31, 0xd2,                               // xor  edx, edx
    0x0f, 0x05,                               // syscall
    0x83, 0xf8, 0x0f,                         // cmp  eax, SIGTERM
    0x74, 0x1e,                               // je   end
    // reap: wait4(-1, NULL, WNOHANG, NULL), until there is no child that ended
    0xb8, 0x3d, 0x00, 0x00, 0x00,             // mov  eax, 61
    0x48, 0xc7, 0xc7, 0xff, 0xff, 0xff, 0xff, // mov  rdi, -1
    0x31, 0xf6,                               // xor  esi, esi
    0xba, 0x01, 0x00, 0x00, 0x00,             // mov  edx, WNOHANG
    0x45, 0x31, 0xd2,                         // xor  r10d, r10d
    0x0f, 0x05,                               // syscall
    0x85, 0xc0,                               // test eax, eax
    0x7f, 0xe4,                               // jg   reap
    0xeb, 0xc5,                               // jmp  wait
    // end: exit(0)
    0xb8, 0x3c, 0x00, 0x00, 0x00,             // mov  eax, 60
    0x31, 0xff,                               // xor  edi, edi
    0x0f, 0x05,                               // syscall
    // signals: SIGTERM (15) and SIGCHLD (17), a bit each, the first for signal 1
    0x00, 0x40, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00,
];

/// The same for AArch64. System calls go by number in `x8`, arguments are in `x0` to `x3`.
#[rustfmt::skip]
const AARCH64: &[u8] = &[
    // rt_sigprocmask(SIG_BLOCK, &signals, NULL, 8)
    0x00, 0x00, 0x80, 0xd2, // mov  x0, SIG_BLOCK
    0x21, 0x03, 0x00, 0x10, // adr  x1, signals
    0x02, 0x00, 0x80, 0xd2, // mov  x2, 0
    0x03, 0x01, 0x80, 0xd2, // mov  x3, 8
    0xe8, 0x10, 0x80, 0xd2, // mov  x8, 135
    0x01, 0x00, 0x00, 0xd4, // svc  0
    // wait: rt_sigtimedwait(&signals, NULL, NULL, 8)
    0x80, 0x02, 0x00, 0x10, // adr  x0, signals
    0x01, 0x00, 0x80, 0xd2, // mov  x1, 0
    0x02, 0x00, 0x80, 0xd2, // mov  x2, 0
    0x03, 0x01, 0x80, 0xd2, // mov  x3, 8
    0x28, 0x11, 0x80, 0xd2, // mov  x8, 137
    0x01, 0x00, 0x00, 0xd4, // svc  0
    0x1f, 0x3c, 0x00, 0x71, // cmp  w0, SIGTERM
    0x40, 0x01, 0x00, 0x54, // b.eq end
    // reap: wait4(-1, NULL, WNOHANG, NULL)
    0x00, 0x00, 0x80, 0x92, // mov  x0, -1
    0x01, 0x00, 0x80, 0xd2, // mov  x1, 0
    0x22, 0x00, 0x80, 0xd2, // mov  x2, WNOHANG
    0x03, 0x00, 0x80, 0xd2, // mov  x3, 0
    0x88, 0x20, 0x80, 0xd2, // mov  x8, 260
    0x01, 0x00, 0x00, 0xd4, // svc  0
    0x1f, 0x00, 0x00, 0x71, // cmp  w0, 0
    0x2c, 0xff, 0xff, 0x54, // b.gt reap
    0xf0, 0xff, 0xff, 0x17, // b    wait
    // end: exit(0)
    0x00, 0x00, 0x80, 0xd2, // mov  x0, 0
    0xa8, 0x0b, 0x80, 0xd2, // mov  x8, 93
    0x01, 0x00, 0x00, 0xd4, // svc  0
    // signals
    0x00, 0x40, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00,
];

/// Where the program is loaded.
const BASE: u64 = 0x40_0000;
/// The sizes of an ELF file's header and of one program header.
const HEADER: u16 = 64;
const PROGRAM_HEADER: u16 = 56;

/// Docker's word for an architecture, ELF's number of it, and the program; `None` for one that there is no program for.
fn program(architecture: &str) -> Option<(&'static str, u16, &'static [u8])> {
    match architecture {
        "x86_64" | "amd64" => Some(("amd64", 62, X86_64)),
        "aarch64" | "arm64" => Some(("arm64", 183, AARCH64)),
        _ => None,
    }
}

/// An executable of one loaded segment that begins with its headers.
fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    let start = u64::from(HEADER + PROGRAM_HEADER);
    let size = start + code.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]; // 64 bits, little endian, System V
    let half = |file: &mut Vec<u8>, number: u16| file.extend(number.to_le_bytes());
    let word = |file: &mut Vec<u8>, number: u32| file.extend(number.to_le_bytes());
    let long = |file: &mut Vec<u8>, number: u64| file.extend(number.to_le_bytes());
    half(&mut file, 2); // an executable
    half(&mut file, machine);
    word(&mut file, 1); // the version of the format
    long(&mut file, BASE + start); // where it begins
    long(&mut file, u64::from(HEADER)); // where the program headers are
    long(&mut file, 0); // no sections
    word(&mut file, 0); // no flags
    for number in [HEADER, PROGRAM_HEADER, 1, 0, 0, 0] {
        half(&mut file, number);
    }
    word(&mut file, 1); // a segment to load
    word(&mut file, 5); // to be read and executed
    for number in [0, BASE, BASE, size, size, 0x1000] {
        long(&mut file, number); // from the file's beginning, to where, how much, aligned to pages
    }
    file.extend_from_slice(code);
    file
}

/// The image as `docker load` takes it, for a machine of this architecture.
///
/// # Errors
///
/// When there is no program for it.
pub(crate) fn archive(architecture: &str) -> io::Result<Vec<u8>> {
    let unknown = || io::Error::other(format!("there is no sandbox for the architecture {architecture:?}"));
    let (architecture, machine, code) = program(architecture).ok_or_else(unknown)?;
    let layer = tar(&[(PROGRAM, &elf(machine, code), 0o755)])?;
    let config = serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Entrypoint": [format!("/{PROGRAM}")], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "coracle"}],
    })
    .to_string();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
    tar(&[
        ("config.json", config.as_bytes(), 0o644),
        ("layer.tar", &layer, 0o644),
        ("manifest.json", manifest.to_string().as_bytes(), 0o644),
    ])
}

fn tar(files: &[(&str, &[u8], u32)]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, contents, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(*mode);
        archive.append_data(&mut header, path, *contents)?;
    }
    archive.into_inner()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program is made of lies inside of it, whatever is changed above: the signals are its last 8 bytes.
    #[test]
    fn programs_end_with_the_signals_that_they_wait_for() {
        for architecture in ["amd64", "arm64"] {
            let (_, _, code) = program(architecture).unwrap();
            assert_eq!(code[code.len() - 8..], 0x14000_u64.to_le_bytes());
        }
        let target = X86_64.len() - 8;
        assert_eq!((0x14 + usize::from(X86_64[0x10]), 0x2a + usize::from(X86_64[0x26])), (target, target));
    }

    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    #[test]
    fn the_program_runs_until_it_is_asked_to_end() {
        use std::os::unix::fs::PermissionsExt as _;
        use std::os::unix::process::ExitStatusExt as _;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(PROGRAM);
        let (_, machine, code) = program("amd64").unwrap();
        std::fs::write(&path, elf(machine, code)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = std::process::Command::new(&path).spawn().unwrap();
        assert!(child.try_wait().unwrap().is_none());
        let pid = child.id().to_string();
        // The signal may come before the program has begun: then it ends by the signal itself.
        assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
        let status = child.wait().unwrap();
        assert!(status.code() == Some(0) || status.signal() == Some(15), "{status:?}");
    }

    #[test]
    fn an_image_for_an_unknown_architecture_is_refused() {
        assert!(archive("riscv64").unwrap_err().to_string().contains("riscv64"));
        assert!(!archive("aarch64").unwrap().is_empty());
    }
}
