//! A program that uses what the standard library makes of WASI 0.1, and says what it found. The first folder is given, the second its own.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant, SystemTime};

fn main() {
    println!("args {:?}", std::env::args().collect::<Vec<_>>());
    println!("HOSTNAME {:?}", std::env::var("HOSTNAME"));

    println!("given {:?}", fs::read_to_string("/given/sub/word"));
    let denied = fs::write("/given/new", "x").unwrap_err();
    println!("given is only read: {:?}", denied.raw_os_error());

    fs::create_dir_all("/own/a/b").unwrap();
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open("/own/a/b/file").unwrap();
    file.write_all(b"hello world").unwrap();
    file.seek(SeekFrom::Start(6)).unwrap();
    file.write_all(b"there").unwrap();
    file.seek(SeekFrom::End(-5)).unwrap();
    let mut end = String::new();
    file.read_to_string(&mut end).unwrap();
    file.set_len(5).unwrap();
    file.sync_all().unwrap();
    println!("ends in {end:?}, cut to {}", file.metadata().unwrap().len());
    OpenOptions::new().append(true).open("/own/a/b/file").unwrap().write_all(b"!").unwrap();
    fs::rename("/own/a/b", "/own/c").unwrap();
    println!("moved {:?}", fs::read_to_string("/own/c/file"));
    for name in ["z", "y"] {
        File::create(format!("/own/c/{name}")).unwrap();
    }
    let mut names: Vec<_> = fs::read_dir("/own/c")
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.file_type().unwrap().is_file()))
        .collect();
    names.sort();
    println!("lists {names:?}");
    println!("not empty: {:?}", fs::remove_dir("/own/c").unwrap_err().raw_os_error());
    fs::remove_dir_all("/own/c").unwrap();
    println!("gone: {:?}", fs::metadata("/own/c").unwrap_err().kind() == ErrorKind::NotFound);
    println!("outside: {:?}", fs::read("/own/../given/sub/word").map_err(|error| error.raw_os_error()));
    println!("a folder: {:?}", fs::read("/given/sub").map_err(|error| error.raw_os_error()));
    println!("below a file: {:?}", fs::read("/given/sub/word/x").map_err(|error| error.raw_os_error()));
    println!("there: {:?}", fs::create_dir("/given/sub").map_err(|error| error.raw_os_error()));
    println!("given stays: {:?}", fs::remove_file("/given/sub/word").map_err(|error| error.raw_os_error()));
    println!("no folder: {:?}", fs::File::create("/own/x/y").map_err(|error| error.raw_os_error()).is_err());

    let (before, wall) = (Instant::now(), SystemTime::now());
    let wait = std::env::var("WAIT").map_or(0, |wait| wait.parse().unwrap());
    std::thread::sleep(Duration::from_secs(wait));
    println!("slept {} s, {} s by the wall", before.elapsed().as_secs(), wall.elapsed().unwrap().as_secs());

    let numbers: HashMap<u32, u32> = (0..100).map(|number| (number, number)).collect();
    println!("drawn order {:?}", numbers.keys().take(3).collect::<Vec<_>>());
    fs::write("/dev/termination-log", "done").unwrap();
    std::process::exit(3);
}
