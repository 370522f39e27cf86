//! Ends by itself when it is asked to: with 1 (all that WASI 0.2 has for a failure), or, with the argument `deaf`, never. Given `unready`, it is not ready until then.

use coracle_test_guests::coracle::pod::lifecycle;

fn main() {
    let asked = |word: &str| std::env::args().any(|argument| argument == word);
    let pod = lifecycle::pod();
    println!("{}/{} {} on {} at {}", pod.namespace, pod.name, pod.uid, pod.node_name, pod.ip);
    println!("labels {:?} annotations {:?}", pod.labels, pod.annotations);
    let termination = lifecycle::termination();
    if asked("unready") {
        lifecycle::set_ready(false);
        // Said twice, it is told once.
        lifecycle::set_ready(false);
    }
    println!("terminating {}", lifecycle::terminating());
    termination.block();
    println!("told {} {}", lifecycle::terminating(), termination.ready());
    if asked("unready") {
        lifecycle::set_ready(true);
    }
    while asked("deaf") {
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
    std::process::exit(1);
}
