//! Does with a bucket what its arguments say, in order, each as words up to `--`, and says what came of it. The first is the bucket.

use coracle_test_guests::wasi::keyvalue::{atomics, batch, store};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let bucket = arguments.next().expect("the first argument is a bucket");
    let mut all = String::new();
    let mut say = |line: String| {
        println!("{line}");
        all += &(line + "\n");
    };
    match store::open(&bucket) {
        Ok(bucket) => {
            let arguments: Vec<String> = arguments.collect();
            for words in arguments.split(|word| word == "--") {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                say(format!("{} {}", words.join(" "), said(&bucket, &words)));
            }
        }
        Err(error) => say(format!("open {error:?}")),
    }
    // Where there is no such file nobody asks for it.
    let _ = std::fs::write("/dev/termination-log", all);
}

fn said(bucket: &store::Bucket, words: &[&str]) -> String {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    match words {
        ["get", key] => format!("{:?}", bucket.get(key).map(|value| value.map(text))),
        ["set", key, value] => format!("{:?}", bucket.set(key, value.as_bytes())),
        ["set-bytes", key, count] => format!("{:?}", bucket.set(key, &vec![b'x'; count.parse().unwrap()])),
        ["delete", key] => format!("{:?}", bucket.delete(key)),
        ["exists", key] => format!("{:?}", bucket.exists(key)),
        ["keys"] => format!("{:?}", all_keys(bucket)),
        ["increment", key, delta] => format!("{:?}", atomics::increment(bucket, key, delta.parse().unwrap())),
        // So often, one after the other: the last result.
        ["count", key, times] => {
            let mut last = Ok(0);
            for _ in 0..times.parse().unwrap() {
                last = atomics::increment(bucket, key, 1);
            }
            format!("{last:?}")
        }
        ["get-many", keys @ ..] => {
            let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            let found = batch::get_many(bucket, &keys);
            format!(
                "{:?}",
                found.map(|all| all
                    .into_iter()
                    .map(|pair| pair.map(|(key, value)| (key, text(value))))
                    .collect::<Vec<_>>())
            )
        }
        ["set-many", pairs @ ..] => {
            let pairs: Vec<(String, Vec<u8>)> = pairs
                .iter()
                .map(|pair| pair.split_once('=').expect("pairs are key=value"))
                .map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()))
                .collect();
            format!("{:?}", batch::set_many(bucket, &pairs))
        }
        ["delete-many", keys @ ..] => {
            let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            format!("{:?}", batch::delete_many(bucket, &keys))
        }
        // Until somebody has set it.
        ["wait", key] => loop {
            match bucket.get(key) {
                Ok(None) => std::thread::sleep(std::time::Duration::from_millis(20)),
                found => return format!("{:?}", found.map(|value| value.map(text))),
            }
        },
        _ => "is no command".to_owned(),
    }
}

fn all_keys(bucket: &store::Bucket) -> Result<Vec<String>, store::Error> {
    let (mut keys, mut cursor) = (Vec::new(), None);
    loop {
        let page = bucket.list_keys(cursor)?;
        keys.extend(page.keys);
        cursor = page.cursor;
        if cursor.is_none() {
            keys.sort();
            return Ok(keys);
        }
    }
}
