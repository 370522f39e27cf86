//! Images, and modules that run to their end.

use bytes::Bytes;
use coracle_node::runtime::{
    ContainerError, ImageError, Mount, Propagation, PullPolicy, RuntimeCommand, RuntimeEvent, VolumeFile, VolumeSource,
};
use coracle_runtime_wasm::WasmOptions;

use crate::support::{POD, World, spec};

/// Writes a text to a descriptor and exits.
fn says(text: &str, descriptor: u32, code: u32) -> String {
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (data (i32.const 16) "{text}")
            (func (export "_start")
                (i32.store (i32.const 0) (i32.const 16))
                (i32.store (i32.const 4) (i32.const {length}))
                (drop (call $write (i32.const {descriptor}) (i32.const 0) (i32.const 1) (i32.const 8)))
                (call $exit (i32.const {code}))))"#,
        length = text.len(),
    )
}

/// Opens a file below its first preopened folder and exits with the file's first byte, or with 1.
const FIRST_BYTE: &str = r#"(module
    (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "code")
    (func (export "_start")
        (if (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 4) (i32.const 0)
                (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32))
            (then (call $exit (i32.const 1))))
        (i32.store (i32.const 0) (i32.const 128))
        (i32.store (i32.const 4) (i32.const 1))
        (drop (call $read (i32.load (i32.const 32)) (i32.const 0) (i32.const 1) (i32.const 8)))
        (call $exit (i32.load8_u (i32.const 128)))))"#;

#[test]
fn output_reaches_the_log_and_the_exit_code_the_agent() {
    let world = World::new();
    let id = world.launch(&says("hello", 1, 0), |_| {});
    assert_eq!(world.exit(&id).code, 0);
    assert_eq!(world.log(&id, "stdout"), "hello");
    let id = world.launch(&says("no database", 2, 3), |spec| spec.id.instance = 1);
    assert_eq!(world.exit(&id).code, 3);
    assert_eq!(world.log(&id, "stderr"), "no database");
}

#[test]
fn a_trap_is_134_and_says_what_it_was() {
    let world = World::new();
    let id = world.launch(r#"(module (func (export "_start") unreachable))"#, |_| {});
    let exit = world.exit(&id);
    assert_eq!((exit.code, exit.reason), (134, None));
    assert!(exit.message.unwrap().contains("unreachable"));
    assert!(world.log(&id, "stderr").contains("unreachable"));
}

/// Why an image is not made a container of.
fn refused(world: &World, bytes: &[u8]) -> String {
    world.runtime.import("guest", bytes).unwrap();
    let Err(ContainerError::Create(message)) = world.create(spec("guest")) else { panic!("it must not be created") };
    message
}

#[test]
fn a_module_that_imports_from_an_unknown_one_is_refused_with_its_name() {
    let message = refused(&World::new(), br#"(module (import "env" "teleport" (func)) (func (export "_start")))"#);
    assert!(message.starts_with("image \"guest\": it imports env::teleport"), "{message}");
    assert!(message.ends_with("this node offers wasi_snapshot_preview1"), "{message}");
}

#[test]
fn a_function_that_a_known_module_does_not_have_is_found_when_it_is_linked() {
    let world = World::new();
    let wat = r#"(module (import "wasi_snapshot_preview1" "teleport" (func)) (func (export "_start")))"#;
    world.runtime.import("guest", wat.as_bytes()).unwrap();
    world.create(spec("guest")).unwrap();
    let Err(ContainerError::Run(message)) = world.start(&spec("guest").id) else { panic!("it must not start") };
    assert!(message.contains("wasi_snapshot_preview1::teleport"), "{message}");
}

#[test]
fn a_component_is_refused_before_it_is_compiled_with_what_it_lacks_and_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = WasmOptions::default();
    options.state_dir = Some(dir.path().to_owned());
    let message = refused(
        &World::with(options),
        br#"(component (import "wasi:filesystem/types@0.1.0" (instance (export "f" (func)))))"#,
    );
    let expected =
        "image \"guest\": it imports wasi:filesystem/types@0.1.0: this node offers wasi:filesystem/types@0.2.12";
    assert_eq!(message, expected);
    assert_eq!(std::fs::read_dir(dir.path().join("compiled")).unwrap().count(), 0, "nothing was compiled");
}

#[test]
fn what_is_no_program_is_not_created() {
    let world = World::new();
    let refusal = |bytes: &[u8], instance| {
        world.runtime.import("guest", bytes).unwrap();
        let mut spec = spec("guest");
        spec.id.instance = instance;
        let Err(ContainerError::Create(message)) = world.create(spec) else { panic!("it must not be created") };
        message
    };
    assert!(refusal(b"\0asm\x01\0\0\0garbage", 0).contains("not valid WebAssembly"));
    assert!(refusal(b"(module)", 1).contains("exports no function `_start`"));
    assert!(refusal(b"(component)", 2).contains("wasi:http/incoming-handler"));
}

#[test]
fn an_absent_image_says_how_to_import_it() {
    let mut options = WasmOptions::default();
    options.registries = None;
    let world = World::with(options);
    let RuntimeEvent::ImageReady { result: Err(ImageError::Pull(message)), .. } =
        world.pull("web:v9", PullPolicy::IfNotPresent)
    else {
        panic!("it must not be found")
    };
    assert!(message.contains("coracle image import web:v9 FILE"), "{message}");
    let answer = world.pull("web:v9", PullPolicy::Never);
    assert!(matches!(answer, RuntimeEvent::ImageReady { result: Err(ImageError::NeverPull), .. }));
    let answer = world.pull("Web!", PullPolicy::Always);
    assert!(matches!(answer, RuntimeEvent::ImageReady { result: Err(ImageError::InvalidName(_)), .. }));
    world.runtime.import("web:v8", b"(module)").unwrap();
    let answer = world.pull("docker.io/library/web:v8", PullPolicy::Always);
    let RuntimeEvent::ImageReady { result: Ok(info), .. } = answer else { panic!("it is there: {answer:?}") };
    assert!(info.present && info.id.starts_with("docker.io/library/web@sha256:"), "{info:?}");
}

#[test]
fn volumes_are_folders_that_guests_open() {
    let world = World::new();
    let file = VolumeFile { path: "code".to_owned(), contents: Bytes::from_static(b"*"), mode: 0o644 };
    world.send(RuntimeCommand::WriteVolume {
        pod: POD.into(),
        volume: "config".to_owned(),
        source: VolumeSource::Files(vec![file]),
    });
    let exit = world.run(FIRST_BYTE, |spec| {
        let mount = |read_only| Mount {
            volume: "config".to_owned(),
            path: "/config".to_owned(),
            sub_path: None,
            read_only,
            propagation: Propagation::None,
        };
        spec.mounts = vec![mount(true)];
    });
    assert_eq!(exit.code, i32::from(b'*'));
}

#[test]
fn stopping_a_command_is_143_and_killing_it_137_even_while_it_spins() {
    let world = World::new();
    let spin = r#"(module (func (export "_start") (loop (br 0))))"#;
    let id = world.launch(spin, |_| {});
    world.send(RuntimeCommand::StopContainer(id.clone()));
    assert_eq!(world.exit(&id).code, 143);
    let id = world.launch(spin, |spec| spec.id.instance = 1);
    world.send(RuntimeCommand::KillContainer(id.clone()));
    assert_eq!(world.exit(&id).code, 137);
}

#[test]
fn removing_a_sandbox_ends_its_containers_and_removes_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = WasmOptions::default();
    options.state_dir = Some(dir.path().to_owned());
    let world = World::with(options);
    let id = world.launch(r#"(module (func (export "_start") (loop (br 0))))"#, |_| {});
    let folder = dir.path().join("pods").join(POD);
    assert!(folder.exists());
    world.send(RuntimeCommand::RemoveSandbox(POD.into()));
    world.host.wait("SandboxRemoved", |event| matches!(event, RuntimeEvent::SandboxRemoved { .. }).then_some(()));
    assert_eq!(world.exit(&id).code, 137);
    assert!(!folder.exists());
    world.send(RuntimeCommand::RemoveContainer(id));
    world.host.wait("ContainerRemoved", |event| matches!(event, RuntimeEvent::ContainerRemoved { .. }).then_some(()));
}

#[test]
fn a_runtime_without_a_folder_leaves_none_behind() {
    let world = World::new();
    world.launch(r#"(module (func (export "_start") (loop (br 0))))"#, |_| {});
    // Named for this process: another run of the tests has folders of its own there.
    let name = format!("lonely-{}", std::process::id());
    let folder = format!("pods/{POD}/containers/{name}-0");
    let ours = |entry: &std::fs::DirEntry| entry.path().join(&folder).exists();
    let count = || std::fs::read_dir(std::env::temp_dir()).unwrap().filter(|e| e.as_ref().is_ok_and(ours)).count();
    let mut lonely = spec("guest");
    lonely.id.container = name;
    world.create(lonely).unwrap();
    assert_eq!(count(), 1);
    drop(world);
    assert_eq!(count(), 0);
}

#[test]
fn compiled_code_is_kept_and_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = WasmOptions::default();
    options.state_dir = Some(dir.path().to_owned());
    assert_eq!(World::with(options.clone()).run(&says("hello", 1, 7), |_| {}).code, 7);
    let kept: Vec<_> = std::fs::read_dir(dir.path().join("compiled")).unwrap().collect();
    assert_eq!(kept.len(), 1);
    let world = World::with(options);
    world.create(spec("guest")).unwrap();
    world.start(&spec("guest").id).unwrap();
    assert_eq!(world.exit(&spec("guest").id).code, 7);
    assert!(world.runtime.remove("guest").unwrap());
    assert_eq!(std::fs::read_dir(dir.path().join("compiled")).unwrap().count(), 0);
}
