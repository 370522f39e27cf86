//! RuntimeClasses.

use coracle_api::Cause;
use coracle_base::Now;
use serde_json::Value;

use super::table;
use super::value::{items, text};
use crate::strategy::{Column, Row, Strategy};
use crate::validation::field::{Causes, FieldPath};
use crate::validation::label::check_labels;
use crate::validation::name::dns_label;
use crate::validation::placement::check_tolerations;
use crate::validation::resources::check_overhead;

/// The strategy of RuntimeClasses.
#[derive(Debug)]
pub(crate) struct RuntimeClassStrategy;

// Kubernetes looks for the description of the second column where there is none.
const COLUMNS: &[Column] = &[table::NAME, table::column("Handler", "string", ""), table::AGE];

impl Strategy for RuntimeClassStrategy {
    fn validate(&self, object: &Value, old: Option<&Value>, _subresource: &str) -> Vec<Cause> {
        let mut causes = Causes::new();
        let path = FieldPath::new("handler");
        let handler = text(object, "handler");
        if let Some(old) = old {
            causes.immutable(&path, &object["handler"], &old["handler"]);
            return causes.into_vec();
        }
        if handler.is_empty() {
            causes.required(&path, "");
        } else {
            causes.invalid_each(&path, handler, dns_label(handler));
        }
        check_overhead(&object["overhead"]["podFixed"], &FieldPath::new("overhead"), &mut causes);
        let (scheduling, path) = (&object["scheduling"], FieldPath::new("scheduling"));
        check_labels(&scheduling["nodeSelector"], &path.child("nodeSelector"), &mut causes);
        let (tolerations, path) = (items(scheduling, "tolerations"), path.child("tolerations"));
        check_tolerations(tolerations, &path, &mut causes);
        let key = |toleration: &Value| ["key", "operator", "value", "effect"].map(|f| text(toleration, f).to_owned());
        for (index, toleration) in tolerations.iter().enumerate() {
            if tolerations[..index].iter().any(|other| key(other) == key(toleration)) {
                causes.duplicate(&path.index(index), toleration.clone());
            }
        }
        causes.into_vec()
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        table::row([table::name(object), text(object, "handler").into(), table::age(object, now)])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, texts};

    #[test]
    fn a_handler_is_needed_and_stays() {
        assert_eq!(texts(RuntimeClassStrategy.validate(&json!({}), None, "")), ["handler: Required value"]);
        let (new, old) = (json!({"handler": "b"}), json!({"handler": "a"}));
        let wrong = texts(RuntimeClassStrategy.validate(&new, Some(&old), ""));
        assert_eq!(wrong, ["handler: Invalid value: \"b\": field is immutable"]);
    }

    #[test]
    fn tolerations_are_there_once() {
        let twice =
            json!({"handler": "a", "scheduling": {"tolerations": [{"operator": "Exists"}, {"operator": "Exists"}]}});
        assert_eq!(
            texts(RuntimeClassStrategy.validate(&twice, None, "")),
            ["scheduling.tolerations[1]: Duplicate value: {\"operator\":\"Exists\"}"]
        );
    }

    #[test]
    fn the_row_shows_the_handler() {
        let object = json!({"metadata": {"name": "r"}, "handler": "wasmtime"});
        assert_eq!(cells(&RuntimeClassStrategy, &object), json!(["r", "wasmtime", "<unknown>"]));
    }
}
