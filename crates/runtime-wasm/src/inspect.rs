//! What a WebAssembly file is, without compiling it: a module or a component, what it exports and what it needs.

use std::collections::BTreeSet;

use crate::image_store::Image;
use wasmparser::{Parser, Payload};

/// What was found. Names are in the order of the alphabet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Whether it is a component; a core module otherwise.
    pub component: bool,
    /// The names of what it exports.
    pub exports: Vec<String>,
    /// The names of what it imports; of a module `module.field`.
    pub imports: Vec<String>,
}

/// An image of the store, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageDetails {
    /// The image.
    pub image: Image,
    /// What was found in it.
    pub inspection: Inspection,
    /// The size of its compiled code in bytes, as far as that is kept in files.
    pub compiled_size: u64,
}

impl Inspection {
    /// What the file is as a program: the world that it is of.
    pub fn world(&self) -> &'static str {
        let exports = |name: &str| self.exports.iter().any(|export| export.starts_with(name));
        match (self.component, exports("wasi:http/"), exports("wasi:cli/run@")) {
            (true, true, true) => "a wasi:http service that runs wasi:cli/run first",
            (true, true, false) => "a wasi:http service",
            (true, false, true) => "a wasi:cli command",
            (true, false, false) => "a component without a program",
            (false, ..) if self.exports.iter().any(|export| export == "_start") => "a WASI 0.1 command",
            (false, ..) => "a module without a program",
        }
    }
}

/// Reads the outermost sections of a binary.
///
/// # Errors
///
/// The sentence says where it is malformed.
pub fn inspect(binary: &[u8]) -> Result<Inspection, String> {
    let (mut exports, mut imports) = (BTreeSet::new(), BTreeSet::new());
    let mut component = false;
    let mut depth = 0_u32;
    let failed = |error: wasmparser::BinaryReaderError| format!("it is malformed: {error}");
    for payload in Parser::new(0).parse_all(binary) {
        match payload.map_err(failed)? {
            Payload::Version { encoding, .. } if depth == 0 => component = encoding == wasmparser::Encoding::Component,
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ImportSection(section) if depth == 0 => {
                for import in section.into_imports() {
                    let import = import.map_err(failed)?;
                    imports.insert(format!("{}.{}", import.module, import.name));
                }
            }
            Payload::ExportSection(section) if depth == 0 => {
                for export in section {
                    exports.insert(export.map_err(failed)?.name.to_owned());
                }
            }
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.insert(import.map_err(failed)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.insert(export.map_err(failed)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(Inspection { component, exports: exports.into_iter().collect(), imports: imports.into_iter().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Inspection {
        inspect(&wat::parse_str(text).unwrap()).unwrap()
    }

    #[test]
    fn a_module_tells_its_functions_and_its_imports() {
        let found =
            of(r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))) (func (export "_start")))"#);
        assert_eq!(found.imports, ["wasi_snapshot_preview1.proc_exit"]);
        assert_eq!((found.component, found.world()), (false, "a WASI 0.1 command"));
    }

    #[test]
    fn a_component_tells_its_interfaces_and_not_those_of_what_is_inside() {
        let found = of(r#"(component
                (import "wasi:cli/environment@0.2.0" (instance))
                (core module (func (export "inner")))
                (instance $run)
                (export "wasi:cli/run@0.2.0" (instance $run)))"#);
        assert_eq!(
            (found.exports.as_slice(), found.imports.as_slice()),
            (["wasi:cli/run@0.2.0".to_owned()].as_slice(), ["wasi:cli/environment@0.2.0".to_owned()].as_slice())
        );
        assert_eq!((found.component, found.world()), (true, "a wasi:cli command"));
    }

    #[test]
    fn what_is_cut_off_is_malformed() {
        let binary = wat::parse_str("(module (func (export \"_start\")))").unwrap();
        assert!(inspect(&binary[..binary.len() - 3]).is_err());
    }
}
