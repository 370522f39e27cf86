//! Real modules under virtual time: wasmtime runs them, and their instructions are the time.

use std::time::Instant;

use coracle_sim::{Propagation, TestCluster, pod};
use expect_test::expect;

use crate::{hours, mins, ready_pods, secs};

/// What an hour of virtual time may take on a busy machine; a second that really passes is far beyond it.
const REAL_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(20);

const TRAP: &str = r#"(module (func (export "_start") unreachable))"#;
const SPIN: &str = r#"(module (func (export "_start") (loop (br 0))))"#;

/// Sleeps for so long, says so, and ends.
fn sleeps(seconds: u64) -> String {
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 256) "slept\n")
            (func (export "_start")
                (i32.store (i32.const 16) (i32.const 1))
                (i64.store (i32.const 24) (i64.const {nanos}))
                (if (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)) (then unreachable))
                (if (i32.ne (i32.load (i32.const 128)) (i32.const 1)) (then unreachable))
                (i32.store (i32.const 192) (i32.const 256))
                (i32.store (i32.const 196) (i32.const 6))
                (drop (call $write (i32.const 1) (i32.const 192) (i32.const 1) (i32.const 200)))))"#,
        nanos = seconds * 1_000_000_000,
    )
}

/// Grows by 16 pages (1 MiB) so many times, and then sleeps for a day.
fn grows(steps: u32) -> String {
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "_start") (local $i i32)
                (loop $again
                    (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
                    (local.set $i (i32.add (local.get $i) (i32.const 1)))
                    (br_if $again (i32.lt_u (local.get $i) (i32.const {steps}))))
                (i64.store (i32.const 24) (i64.const 86400000000000))
                (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))"#
    )
}

/// Carries out so many million instructions, and ends.
fn counts(millions: u32) -> String {
    format!(
        r#"(module (func (export "_start") (local $i i32)
            (loop $again
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $i) (i32.const {turns}))))))"#,
        // The loop's body takes eight instructions.
        turns = millions * 1_000_000 / 8,
    )
}

/// Prints its environment, and the file `greeting` of its first folder.
const READS: &str = r#"(module
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "greeting")
    (data (i32.const 80) "\n")
    (func $print (param $at i32) (param $len i32)
        (i32.store (i32.const 0) (local.get $at))
        (i32.store (i32.const 4) (local.get $len))
        (i32.store (i32.const 8) (i32.const 80))
        (i32.store (i32.const 12) (i32.const 1))
        (if (call $write (i32.const 1) (i32.const 0) (i32.const 2) (i32.const 16)) (then unreachable)))
    (func $length (param $at i32) (result i32) (local $len i32)
        (loop $more
            (if (i32.load8_u (i32.add (local.get $at) (local.get $len)))
                (then (local.set $len (i32.add (local.get $len) (i32.const 1))) (br $more))))
        (local.get $len))
    (func (export "_start") (local $i i32) (local $count i32) (local $text i32)
        (if (call $sizes (i32.const 32) (i32.const 36)) (then unreachable))
        (if (call $environ (i32.const 1024) (i32.const 4096)) (then unreachable))
        (local.set $count (i32.load (i32.const 32)))
        (loop $next
            (local.set $text (i32.load (i32.add (i32.const 1024) (i32.mul (local.get $i) (i32.const 4)))))
            ;; Of the variables only GREETING and HOSTNAME: the others are the Services of the namespace.
            (if (i32.or (i32.eq (i32.load8_u (local.get $text)) (i32.const 71))
                        (i32.eq (i32.load8_u (local.get $text)) (i32.const 72)))
                (then (call $print (local.get $text) (call $length (local.get $text)))))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $i) (local.get $count))))
        (if (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 8) (i32.const 0)
                (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 40)) (then unreachable))
        (i32.store (i32.const 0) (i32.const 8192))
        (i32.store (i32.const 4) (i32.const 256))
        (if (call $read (i32.load (i32.const 40)) (i32.const 0) (i32.const 1) (i32.const 16)) (then unreachable))
        (call $print (i32.const 8192) (i32.load (i32.const 16)))))"#;

/// Writes the file `greeting` into its first folder.
const WRITES: &str = r#"(module
    (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "greeting")
    (data (i32.const 128) "hello from another container")
    (func (export "_start")
        (if (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 8) (i32.const 1)
                (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 40)) (then unreachable))
        (i32.store (i32.const 0) (i32.const 128))
        (i32.store (i32.const 4) (i32.const 28))
        (if (call $write (i32.load (i32.const 40)) (i32.const 0) (i32.const 1) (i32.const 16)) (then unreachable))))"#;

/// Prints 8 random bytes and the time, as they are.
const DRAWS: &str = r#"(module
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (drop (call $random (i32.const 64) (i32.const 8)))
        (drop (call $time (i32.const 0) (i64.const 0) (i32.const 72)))
        (i32.store (i32.const 0) (i32.const 64))
        (i32.store (i32.const 4) (i32.const 16))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        unreachable))"#;

fn cluster(seed: u64) -> TestCluster {
    TestCluster::members(1).nodes(1).wasm().seed(seed).build()
}

#[test]
fn a_trapping_module_backs_off_exponentially() {
    let mut c = cluster(1);
    c.apply(pod("trap").wasm(TRAP));
    c.advance(mins(6));
    c.check(
        "pod/trap timeline",
        expect![[r#"
        +0s    started restarts=0   exited reason=Error
        +0s    started restarts=1   exited reason=Error
        +10s   started restarts=2   exited reason=Error
        +30s   started restarts=3   exited reason=Error
        +70s   started restarts=4   exited reason=Error
        +150s  started restarts=5   exited reason=Error
        +310s  started restarts=6   exited reason=Error
    "#]],
    );
    c.check(
        "pod/trap logs",
        expect![[r#"
        error while executing at wasm backtrace:
            0:     0x23 - <unknown>!<wasm function 0>

        Caused by:
            wasm trap: wasm `unreachable` instruction executed
    "#]],
    );
    let terminated = &c.get("pod/trap").unwrap()["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((terminated["exitCode"].as_i64(), terminated["reason"].as_str()), (Some(134), Some("Error")));
}

#[test]
fn a_guest_reads_its_config_map_and_its_environment() {
    let mut c = cluster(1);
    c.image("reads", READS);
    c.apply(
        "apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {greeting: hello from a file}
---
apiVersion: v1
kind: Pod
metadata: {name: reads}
spec:
  restartPolicy: Never
  volumes: [{name: words, configMap: {name: words}}]
  containers:
  - name: c
    image: reads
    env: [{name: GREETING, valueFrom: {configMapKeyRef: {name: words, key: greeting}}}]
    volumeMounts: [{name: words, mountPath: /words}]
",
    );
    c.advance(secs(1));
    c.check(
        "pod/reads logs",
        expect![[r#"
        HOSTNAME=reads
        GREETING=hello from a file
        hello from a file
    "#]],
    );
    c.check(
        "pods",
        expect![[r#"
        reads reads node-1 Succeeded, c: Terminated Completed restarts=0
    "#]],
    );
}

#[test]
fn containers_share_an_empty_dir() {
    let mut c = cluster(1);
    c.image("writes", WRITES);
    c.image("reads", READS);
    c.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: shares}
spec:
  restartPolicy: Never
  volumes: [{name: shared, emptyDir: {}}]
  initContainers: [{name: first, image: writes, volumeMounts: [{name: shared, mountPath: /out}]}]
  containers: [{name: c, image: reads, volumeMounts: [{name: shared, mountPath: /in, readOnly: true}]}]
",
    );
    c.advance(secs(1));
    c.check(
        "pod/shares logs",
        expect![[r#"
        HOSTNAME=shares
        hello from another container
    "#]],
    );
}

#[test]
fn a_config_map_is_only_read() {
    let mut c = cluster(1);
    c.image("writes", WRITES);
    c.apply(
        "apiVersion: v1
kind: ConfigMap
metadata: {name: words}
---
apiVersion: v1
kind: Pod
metadata: {name: writes}
spec:
  restartPolicy: Never
  volumes: [{name: words, configMap: {name: words}}]
  containers: [{name: c, image: writes, volumeMounts: [{name: words, mountPath: /words}]}]
",
    );
    c.advance(secs(1));
    c.check(
        "pods",
        expect![[r#"
        writes writes node-1 Failed, c: Terminated Error restarts=0
    "#]],
    );
}

#[test]
fn an_hour_of_sleep_is_no_time() {
    let mut c = cluster(1);
    let real = Instant::now();
    c.apply(pod("sleeps").wasm(sleeps(3600)).with("restartPolicy", "Never"));
    c.advance(secs(3599));
    c.check("pod/sleeps logs", expect![""]);
    c.advance(secs(2));
    c.check(
        "pod/sleeps logs",
        expect![[r#"
        slept
    "#]],
    );
    c.check(
        "pod/sleeps timeline",
        expect![[r#"
        +0s    started restarts=0   exited +3600s reason=Completed
    "#]],
    );
    assert!(real.elapsed() < REAL_TIME_MAX);
}

#[test]
fn instructions_take_time_and_more_of_it_with_less_cpu() {
    let mut c = cluster(1);
    // Twenty-one million instructions are two seconds of a core and a little.
    c.apply(pod("whole").wasm(counts(21)).with("restartPolicy", "Never"));
    c.apply(pod("quarter").wasm(counts(21)).with("restartPolicy", "Never").with("limits", "cpu:250m"));
    c.apply(
        pod("rated").wasm(counts(21)).with("restartPolicy", "Never").with("limits", "coracle.dev/fuel-per-second:4M"),
    );
    c.advance(mins(1));
    c.check(
        "pod/whole timeline",
        expect![[r#"
        +0s    started restarts=0   exited +2s reason=Completed
    "#]],
    );
    c.check(
        "pod/quarter timeline",
        expect![[r#"
        +0s    started restarts=0   exited +8s reason=Completed
    "#]],
    );
    c.check(
        "pod/rated timeline",
        expect![[r#"
        +0s    started restarts=0   exited +5s reason=Completed
    "#]],
    );
}

#[test]
fn a_guest_that_spins_can_be_probed_and_ended() {
    let mut c = cluster(1);
    c.image("spin", SPIN);
    c.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: spin}
spec:
  containers:
  - name: c
    image: spin
    livenessProbe: {tcpSocket: {port: 80}, periodSeconds: 5, failureThreshold: 3}
    resources: {limits: {cpu: 100m}}
",
    );
    c.advance(secs(20));
    c.check(
        "pod/spin timeline",
        expect![[r#"
        +0s    started restarts=0   exited +10s reason=Error
        +10s   started restarts=1   running
    "#]],
    );
    c.delete("pod/spin", Propagation::Background);
    c.advance(secs(1));
    assert!(c.get("pod/spin").is_none());
    assert_eq!(c.running_containers("node-1"), 0);
}

#[test]
fn a_guest_past_its_memory_is_oom_killed_and_one_just_under_runs_on() {
    let mut c = cluster(1);
    c.apply(pod("over").wasm(grows(64)).with("restartPolicy", "Never").with("limits", "memory:64Mi"));
    c.apply(pod("under").wasm(grows(63)).with("restartPolicy", "Never").with("limits", "memory:64Mi"));
    c.advance(mins(1));
    c.check(
        "pods",
        expect![[r#"
        over over node-1 Failed, c: Terminated OOMKilled restarts=0
        under under node-1 Running, c: Running ready restarts=0
    "#]],
    );
    let ended = &c.get("pod/over").unwrap()["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((ended["exitCode"].as_i64(), ended["reason"].as_str()), (Some(137), Some("OOMKilled")));
}

#[test]
fn used_up_fuel_ends_a_guest() {
    let mut c = cluster(1);
    c.apply(pod("spin").wasm(SPIN).with("restartPolicy", "Never").with("limits", "coracle.dev/fuel:30M"));
    c.advance(secs(10));
    c.check(
        "pod/spin timeline",
        expect![[r#"
        +0s    started restarts=0   exited +3s reason=FuelExhausted
    "#]],
    );
}

#[test]
fn an_import_that_is_not_there_is_named() {
    let mut c = cluster(1);
    c.apply(pod("own").wasm(r#"(module (import "env" "teleport" (func)) (func (export "_start")))"#));
    c.apply(pod("socket").wasm(
        r#"(module
            (import "wasi_snapshot_preview1" "sock_send" (func (param i32 i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "_start")))"#,
    ));
    c.advance(secs(1));
    let waiting = |name: &str| {
        let pod = c.get(name).unwrap();
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        format!("{} {}", waiting["reason"].as_str().unwrap_or("-"), waiting["message"].as_str().unwrap_or("-"))
    };
    expect![[r#"CreateContainerError image "own": it imports env::teleport (module "env" is what a linker did not find, or what Emscripten brings; build the program for wasm32-wasip1): this node offers wasi_snapshot_preview1"#]]
        .assert_eq(&waiting("pod/own"));
    expect!["RunContainerError unknown import: `wasi_snapshot_preview1::sock_send` has not been defined"]
        .assert_eq(&waiting("pod/socket"));
}

#[test]
fn what_is_not_simulated_says_so() {
    let mut c = cluster(1);
    c.apply(pod("component").wasm("(component)"));
    c.apply("pod/nowhere image=nowhere:v1");
    c.advance(secs(1));
    c.check("pod/component events", expect![[r#"
        Normal Scheduled x1 Successfully assigned default/component to node-1
        Warning Failed x1 Error: image "component": components do not run in simulation: only core modules with `_start` do
        Normal Pulled x1 Successfully pulled image "component" in 0s (0s including waiting). Image size: 8 bytes.
        Normal Pulling x1 Pulling image "component"
    "#]]);
    c.check("pod/nowhere events", expect![[r#"
        Normal Scheduled x1 Successfully assigned default/nowhere to node-1
        Warning Failed x1 Error: ErrImagePull
        Warning Failed x1 Failed to pull image "nowhere:v1": image "nowhere:v1" is not in the node's image store; import it with `coracle image import nowhere:v1 FILE`
        Normal Pulling x1 Pulling image "nowhere:v1"
    "#]]);
}

#[test]
fn guests_end_with_the_process_of_their_node() {
    let mut c = cluster(1);
    c.apply(pod("sleeps").wasm(sleeps(100_000)));
    c.advance(mins(1));
    c.restart_agent("node-1");
    c.advance(mins(1));
    c.check(
        "pod/sleeps timeline",
        expect![[r#"
        +0s    started restarts=0   exited +60s reason=lost with its node
        +60s   started restarts=1   running
    "#]],
    );
}

#[test]
fn a_deployment_of_guests_rolls_out() {
    let mut c = cluster(1);
    c.image("web:v1", sleeps(100_000));
    c.image("web:v2", sleeps(200_000));
    c.apply("deployment/web replicas=3 image=web:v1");
    c.run_until_converged();
    c.apply("deployment/web image=web:v2");
    c.run_until_converged();
    assert_eq!(ready_pods(&c), 3);
    c.check(
        "deployment/web pods",
        expect![[r#"
        web:v2 node-1 Running, c: Running ready restarts=0
        web:v2 node-1 Running, c: Running ready restarts=0
        web:v2 node-1 Running, c: Running ready restarts=0
    "#]],
    );
}

#[test]
fn the_same_seed_draws_the_same_bytes() {
    let run = |seed| {
        let mut c = cluster(seed);
        c.apply(pod("draws").wasm(DRAWS));
        c.apply(pod("trap").wasm(TRAP));
        c.apply(pod("counts").wasm(counts(50)).with("limits", "cpu:300m"));
        c.advance(hours(1));
        (c.show("pod/draws logs"), c.trace_digest())
    };
    let first = run(1);
    assert_eq!(first, run(1));
    let other = run(2);
    assert!(first.0 != other.0 && first.1 != other.1);
}
